"""The exception tree and the statuses that scripts end with."""

import pytest

from utilities import errors
from utilities.errors import TrainingError

STATUSES = {
    "TrainingError": 1,
    "ConfigError": 2,
    "NetworkError": 3,
    "IncompatibleError": 4,
    "DataError": 5,
    "RunError": 6,
    "CheckpointError": 6,
    "AuthenticationError": 7,
    "DamageError": 6,
    "ProtocolError": 1,
    "FaultError": 1,
}


def test_all_errors_of_the_program_are_in_the_tree_and_in_its_drawing() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]

    assert {each.__name__ for each in classes} == set(STATUSES)
    assert all(issubclass(each, TrainingError) for each in classes)
    assert all(name in str(errors.__doc__) for name in STATUSES)


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_each_error_names_the_status_that_a_script_ends_with(
    name: str, status: int
) -> None:
    error: type[TrainingError] = getattr(errors, name)

    assert error("why").exit_code == status
    assert f"{name} " in str(errors.__doc__)


def test_a_damaged_checkpoint_is_a_fault_of_the_run() -> None:
    assert issubclass(errors.CheckpointError, errors.RunError)
