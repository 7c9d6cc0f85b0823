"""Look at runs: what there is, how one went, what its model writes.

    python -m utilities.inspect list
    python -m utilities.inspect show 3
    python -m utilities.inspect generate 3 --prompt "The "

Owns the process: one core, where words go, the exit status. Does not own what is asked
or done: `commandline` has that.

The idea: it only reads and takes no lock, so a run may be looked at while it is
trained.

What needs numpy is imported inside functions: `main` first keeps it to one core, and
says in one line how to install it where it is missing.
"""

import functools
import sys
from collections.abc import Sequence

from utilities.inspect.console import PROGRAM, output_failed, soften
from utilities.processes import one_core, run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked and return the exit status.

    Args:
        arguments: default: those of this process.
    """
    one_core()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        soften()
        status = run_program(PROGRAM, functools.partial(_work, given))
        sys.stdout.flush()
    except OSError as error:  # those of files are errors of our own
        return output_failed(error)
    return status


def _work(arguments: Sequence[str]) -> None:
    from utilities.inspect.commandline import parse
    from utilities.runs import RunStore

    command, options = parse(arguments)
    command.run(RunStore(options["runs"]), options)


if __name__ == "__main__":
    sys.exit(main())
