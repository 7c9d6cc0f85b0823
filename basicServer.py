"""Train a text model with evolution strategies: the server of a run.

python basicServer.py --localClients 2 --maxSeconds 60
python basicServer.py --help
"""

import sys


def main() -> int:
    """Run the server and return the exit status."""
    from utilities.errors import TrainingError
    from utilities.processes import missing_package, one_core

    one_core()
    try:
        from utilities.options import parse_server
        from utilities.serving import serve

        serve(parse_server(sys.argv[1:]))
    except TrainingError as error:
        print(f"basicServer.py: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"basicServer.py: {missing_package(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
