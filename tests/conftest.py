"""What holds for all tests: nothing of theirs reaches the user's own files.

And the folder of those that start real processes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes_under_test import Lab

# How long one example takes says more about the machine than about the program.
settings.register_profile("any machine", deadline=None)
# A change is judged by the same examples as the change before it; by hand, new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def _own_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep join codes in a folder of the tests, those of their processes as well."""
    folder = str(tmp_path_factory.mktemp("configuration"))
    patch = pytest.MonkeyPatch()
    for variable in ("XDG_CONFIG_HOME", "APPDATA", "HOME"):
        patch.setenv(variable, folder)
    for variable in ("ES_JOIN_CODE", "ES_SERVER"):
        patch.delenv(variable, raising=False)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Return a folder with runs; what was started there ends with the test."""
    lab = Lab(tmp_path)
    yield lab
    lab.close()
