"""What `basicClient.py --doctor` finds: checks, one table, one verdict, what to do.

Each check is a small function of readings that returns a `Row`; none of them reads
anything itself. `checkup` takes the readings. A further check is a further row: the
first one that fails gives the exit code.
"""

import json
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from utilities.errors import IncompatibleError, NetworkError, TrainingError
from utilities.hints import on_the_way

OK, WARN, FAIL, LEFT_OUT = "ok", "warn", "FAIL", "-"
NAME_WIDTH, STATE_WIDTH, WIDTH = 11, 6, 80

# Trials a second of the default model (32 units) on one core, as measured on one
# processor (AMD EPYC), the faster instructions switched off for the others.
EXPECTED = ((710_000, "AVX-512"), (550_000, "AVX2"), (210_000, "SSE only"))
SLOW = 25_000  # trials a second below which a machine helps little
MOST_BUSY = 0.5  # of the cores, that other programs may take before it is told
ONE_CORE = 1.3  # cores that a matrix product of one core may seem to take
LEAST_FREE = 50 << 20  # bytes
COARSE = 0.05  # seconds: a clock that is read less exactly cannot time a step
FIRST_YEAR, LAST_YEAR = 2024, 2100


@dataclass(frozen=True)
class Row:
    """What one check has found."""

    name: str
    state: str
    found: str
    advice: tuple[str, ...] = ()
    exit_code: int = 0  # of a failure


def failed(name: str, error: TrainingError, advice: Sequence[str] = ()) -> Row:
    """Return the row of a check that ended with an error."""
    return Row(name, FAIL, str(error), tuple(advice), error.exit_code)


def left_out(names: Collection[str], why: str) -> list[Row]:
    """Return rows of checks that make no sense after a failure."""
    return [Row(name, LEFT_OUT, why) for name in names]


# This machine.


def versions(program: str, python: str, numpy: str) -> Row:
    """Say what runs here."""
    return Row("program", OK, f"version {program}, Python {python}, numpy {numpy}")


def numbers(*, noise: bool, arithmetic: bool) -> Row:
    """Judge whether this machine computes what all others do.

    Args:
        noise: the noise self-test gives what is expected.
        arithmetic: the arithmetic self-test does.
    """
    if noise and arithmetic:
        return Row("numbers", OK, "noise and arithmetic as on all other machines")
    wrong = " and ".join(
        name
        for name, well in (("noise", noise), ("arithmetic", arithmetic))
        if not well
    )
    return Row(
        "numbers",
        FAIL,
        f"{wrong} differ from that of other machines",
        ("upgrade numpy: python -m pip install -U numpy",),
        IncompatibleError.exit_code,
    )


def cores(count: int, product: float, load: float | None) -> Row:
    """Judge how many cores there are, and who else uses them.

    Args:
        count: that this process may use.
        product: cores that one matrix product takes.
        load: programs that want a core, by the system's one-minute average; None: it
            does not tell.
    """
    noun = "core" if count == 1 else "cores"
    found = f"{count} {noun}, one for each matrix product"
    if load is not None:
        found += f"; other programs take {load:.1f}"
    if product > ONE_CORE:
        return Row(
            "cores",
            WARN,
            f"{count} {noun}; one matrix product takes {product:.1f}",
            ("several workers would wait for each other: set OPENBLAS_NUM_THREADS=1",),
        )
    if load is not None and load > MOST_BUSY * count:
        return Row(
            "cores", WARN, found, ("the machine is busy: --hours, or fewer --workers",)
        )
    return Row("cores", OK, found)


def speed(trials: float) -> Row:
    """Judge the speed of one core by what is usual.

    Args:
        trials: a second, of the default model.
    """
    usual = ", ".join(f"{number:,} with {what}" for number, what in EXPECTED)
    found = f"{trials:,.0f} trials/s on one core (measured elsewhere: {usual})"
    if trials >= SLOW:
        return Row("speed", OK, found)
    return Row("speed", WARN, found, ("slow, but welcome: its share will be small",))


def clocks(resolution: float, moved: float, today: datetime) -> Row:
    """Judge the two clocks.

    Args:
        resolution: seconds, of the one that only goes forward.
        moved: seconds that it went on during some work.
        today: what the clock on the wall says.
    """
    found = f"steady, exact to {1000 * resolution:.3g} ms; it is {today:%Y-%m-%d %H:%M}"
    if moved <= 0 or resolution > COARSE:
        return Row(
            "clock",
            WARN,
            f"{found}; the steady one hardly moves",
            ("times of steps will be wrong",),
        )
    if not FIRST_YEAR <= today.year < LAST_YEAR:
        return Row("clock", WARN, found, ("set the date: --hours goes by it",))
    return Row("clock", OK, found)


def power(battery: bool | None) -> Row:
    """Say whether the machine has mains."""
    if battery is None:
        return Row("power", OK, "the system does not tell whether it is on mains")
    if battery:
        return Row(
            "power", WARN, "on battery", ("--noBattery pauses until it has mains",)
        )
    return Row("power", OK, "on mains")


def disk(free: int, settings: str, *, kept: bool) -> Row:
    """Judge the space for what a client writes: next to nothing.

    Args:
        free: bytes.
        settings: the folder of the identity, as it is shown.
        kept: it could be written.
    """
    found = f"{free / 1e9:.1f} GB free"
    if free < LEAST_FREE:
        return Row("disk", WARN, found, ("free some space: Python itself needs it",))
    if not kept:
        return Row(
            "disk",
            WARN,
            f"{found}; {settings} cannot be written",
            ("it may be called by another name after a restart: give it a --name",),
        )
    return Row("disk", OK, f"{found}; who it is, is kept in {settings}")


# The way to the server, and the server.


def names(host: str, found: Sequence[str]) -> Row:
    """Say what addresses a name has."""
    words = ", ".join(found)
    return Row("name", OK, "is an address" if [host] == list(found) else words)


def route(own: str, other: str) -> Row:
    """Say which way leads there."""
    where = "this machine itself" if own == other else f"from {own} to {other}"
    return Row("route", OK, where)


def no_route(other: str, why: str) -> Row:
    """Say that no way leads to an address."""
    advice = ("is this machine connected (cable, Wi-Fi, VPN)?",)
    found = f"none to {other}: {why}"
    return Row("route", FAIL, found, advice, NetworkError.exit_code)


def connection(seconds: float) -> Row:
    """Say how long a connection took."""
    return Row("connection", OK, f"within {1000 * seconds:.3g} ms")


def no_connection(error: TrainingError, port: int) -> Row:
    """Say why none came about, and how a firewall in between is opened."""
    advice = ["is basicServer.py running there, and does it print this address?"]
    if isinstance(error.__cause__, TimeoutError):
        advice += [
            "a firewall may be in between; on the server's machine",
            *on_the_way(port),
        ]
    return failed("connection", error, advice)


def server(step: int, model: str, weights: int, seconds: float) -> Row:
    """Say what the server has welcomed us to."""
    found = f"step {step} of {model}, {weights:,} weights, {seconds:.2f} s to join"
    return Row("server", OK, found)


def server_waits(seconds: float) -> Row:
    """Say that the server has taken the hello and not answered yet."""
    found = f"it listens, and has sent nothing for {seconds:.0f} s"
    advice = ("its steps may be long; try again, or just start the client",)
    return Row("server", WARN, found, advice)


# All together.


def exit_code(rows: Sequence[Row]) -> int:
    """Return 0, or the code of the first check that failed."""
    return next((row.exit_code for row in rows if row.state == FAIL), 0)


def verdict(rows: Sequence[Row]) -> str:
    """Return the conclusion in one line."""
    bad = [row.name for row in rows if row.state == FAIL]
    if bad:
        return f"Verdict: this machine cannot take part yet ({', '.join(bad)})."
    odd = [row.name for row in rows if row.state == WARN]
    more = f" Worth a look: {', '.join(odd)}." if odd else ""
    return f"Verdict: this machine can take part.{more}"


def table(where: str, rows: Sequence[Row]) -> list[str]:
    """Return what is shown: a line for each check, the verdict, what to do.

    Lines fit 80 columns, but for commands.

    Args:
        where: the server's address.
        rows: in the order of the checks.
    """
    lines = [f"From this machine to {where}"]
    indent = " " * (NAME_WIDTH + STATE_WIDTH)
    for row in rows:
        start = f"{row.name:{NAME_WIDTH}}{row.state:{STATE_WIDTH}}"
        lines += _wrapped(row.found, start, indent)
    lines += ["", verdict(rows)]
    if any(row.advice for row in rows):
        lines.append("What to do:")
    for row in rows:
        for number, each in enumerate(row.advice):
            start = "" if number else f"{row.name}:"
            lines += _advice(each, f"  {start:{NAME_WIDTH + 1}}")
    return lines


def _advice(text: str, start: str) -> list[str]:
    """Return a piece of advice; a command stays in one line, to be copied."""
    if text.startswith("  "):
        return [start + text]
    return _wrapped(text, start, " " * len(start))


def _wrapped(text: str, start: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]


def as_json(where: str, rows: Sequence[Row]) -> str:
    """Return the same as one line of JSON in ASCII."""
    return json.dumps(
        {
            "address": where,
            "checks": [
                {
                    "exitCode" if key == "exit_code" else key: value
                    for key, value in asdict(row).items()
                }
                for row in rows
            ],
            "verdict": verdict(rows),
            "exitCode": exit_code(rows),
        }
    )
