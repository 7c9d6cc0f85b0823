"""Lend one core to a run of basicServer.py: a client.

python basicClient.py 192.168.1.10
python basicClient.py --help
"""

import platform
import sys


def main() -> int:
    """Run the client and return the exit status."""
    from utilities.errors import TrainingError
    from utilities.processes import missing_package, one_core

    one_core()
    try:
        from utilities.client import lend
        from utilities.options import parse_client

        lend(parse_client(sys.argv[1:], platform.node()))
    except TrainingError as error:
        print(f"basicClient.py: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"basicClient.py: {missing_package(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
