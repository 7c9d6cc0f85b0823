"""What holds for all tests: nothing of theirs reaches the user's own files."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep join codes in a folder of the tests, those of their processes as well."""
    folder = str(tmp_path_factory.mktemp("configuration"))
    patch = pytest.MonkeyPatch()
    for variable in ("XDG_CONFIG_HOME", "APPDATA", "HOME"):
        patch.setenv(variable, folder)
    patch.delenv("ES_JOIN_CODE", raising=False)
