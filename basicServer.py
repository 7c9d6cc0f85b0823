# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy>=2.0.0", "tqdm>=4.64.0"]
# ///
"""Train a text model with evolution strategies: the server of a run.

python basicServer.py --localClients 2 --maxSeconds 60
python basicServer.py --help
"""

import sys

from utilities.processes import collect_seldom, one_core, run_program


def work() -> None:
    """Serve as the command line asks."""
    from utilities.crashlog import CrashLog
    from utilities.options import parse_server
    from utilities.serving import serve

    options = parse_server(sys.argv[1:])
    with CrashLog("basicServer.py", options.runs, debug=options.debug):
        serve(options)


def main() -> int:
    """Run the server and return the exit status."""
    one_core()  # before anything imports numpy
    collect_seldom()
    return run_program("basicServer.py", work)


if __name__ == "__main__":
    sys.exit(main())
