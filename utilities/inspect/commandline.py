"""The command line of `python -m utilities.inspect`: all commands, told apart.

Owns: which commands there are, and the --help of all. Does not own what they do:
`filecommands` read what a run has logged, `modelcommands` have its model do something,
`proofs` hold its checkpoints and its journal against each other, `pagecommand` shows
runs in a browser.

A new command is a function of the runs and the options, and a row of the `COMMANDS` of
its module.
"""

from collections.abc import Sequence

from utilities.inspect import filecommands, modelcommands, pagecommand, proofs
from utilities.inspect.asking import EXIT_CODES, Command, Options, add_runs_folder
from utilities.inspect.console import PROGRAM
from utilities.misc import RUNS
from utilities.options import Parser

COMMANDS = {
    command.name: command  # in the order of --help
    for module in (filecommands, modelcommands, proofs, pagecommand)
    for command in module.COMMANDS
}
_DESCRIPTION = f"""\
Look at training runs, also while they train: figures, pictures, forecasts,
and what their models write. N is the number of a run; without it, the newest.

examples
  {PROGRAM} list
  {PROGRAM} show 3
  {PROGRAM} plot 3 7 9 --by time -o loss.svg
  {PROGRAM} generate 3 --prompt "The "
  {PROGRAM} COMMAND --help"""


def parse(arguments: Sequence[str]) -> tuple[Command, Options]:
    """Return what was asked, with checked options.

    Raises:
        ConfigError: a command, option or value is not acceptable.
        SystemExit: after --help.
    """
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND [N] [options]",
        description=_DESCRIPTION,
        epilog=EXIT_CODES,
    )
    add_runs_folder(parser, parser, RUNS)
    choices = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", prog=PROGRAM
    )
    parsers = {name: command.add_to(choices) for name, command in COMMANDS.items()}
    values, unknown = parser.parse_known_args(list(arguments))
    if values.command is None:
        parser.error(f"expected a command: {', '.join(COMMANDS)}; see --help")
    if unknown:
        # The command's own parser knows which option was nearly meant.
        parsers[values.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return COMMANDS[values.command], vars(values)
