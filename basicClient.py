# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy>=2.0.0", "tqdm>=4.64.0"]
# ///
"""Lend cores to a run of basicServer.py: a client.

python basicClient.py 192.168.1.10
python basicClient.py --help
"""

import platform
import sys

from utilities.processes import one_core, run_program, slow_start


def work() -> int:
    """Take part as the command line asks, or check whether that would work."""
    with slow_start("basicClient.py"):
        from utilities.checkup import report
        from utilities.client import lend
        from utilities.clientoptions import parse_client
        from utilities.crashlog import CrashLog
        from utilities.lastserver import last_server
        from utilities.machine import config_folder

    machine = platform.node()
    folder = config_folder()
    options = parse_client(sys.argv[1:], machine, last_server(folder, machine))
    with CrashLog("basicClient.py", folder, debug=options.debug):
        if options.doctor:
            return report(options)
        lend(options)
    return 0


def main() -> int:
    """Run the client and return the exit status."""
    one_core()  # before anything imports numpy
    return run_program("basicClient.py", work)


if __name__ == "__main__":
    sys.exit(main())
