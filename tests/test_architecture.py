"""Which module may know which, and what none of them does."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "utilities"
SCRIPTS = {"basicServer.py": 100, "basicClient.py": 80}  # and their lines at most
MODULE_LINES = 520
FUNCTION_LINES = 60

# A module imports from rows above its own; within a row only what is listed below.
ROWS = (
    (
        *("errors", "misc", "disk", "addresses", "descriptors", "causes", "manners"),
        *("machine", "complaints", "joincodes"),
    ),
    ("hints", "doctor"),
    ("progress", "config"),
    ("model", "noise", "data"),  # these three do not know each other
    (
        *("outputs", "population", "whitening", "rewards", "nodes", "products"),
        *("evolution", "losses", "scoring"),
        *("sums", "selftest", "kept", "growth"),
        *("engine", "scheduling", "generation", "textfiles"),
        "unknown",
    ),
    (
        *("plaindata", "moulds", "frames", "protocol", "wire"),
        *("handshake", "sealing"),
        "sessions",
    ),
    (
        *("history", "events", "peers", "ledger", "agreement", "audits", "lateness"),
        *("steps", "blocks", "opening", "acceptance", "pacing", "aggregation"),
        *("tally", "summing", "outbox", "returning", "orders", "names"),
        *("coordinator", "worker"),
    ),
    (
        *("outgoing", "lines", "communication", "connection", "codefiles", "reach"),
        "lastserver",
        *("runfiles", "logfiles", "records", "statefiles"),
        *("checkpoints", "scales", "curves", "plots", "svgplot", "trained"),
        *("runs", "runlogs", "credits", "journal", "recovery", "yardsticks"),
        *("export", "downloads"),
        *("sessionfiles", "follow", "feed", "page", "pageserver"),
    ),
    (
        *("joinoptions", "options", "clientoptions", "configfiles"),
        *("setup", "stages", "admission", "display"),
        *(
            "reporting",
            "crashlog",
            "processes",
            "shelf",
            "team",
            "identity",
            "checkup",
            "client",
        ),
        "serving",
    ),
    (
        *("inspect.console", "inspect.asking", "inspect.textplot", "inspect.words"),
        *("inspect.summary", "inspect.comparison", "inspect.forecast"),
        "inspect.stopping",
        *("inspect.outlook", "inspect.pngplot"),
        *("inspect.samples", "inspect.bits", "inspect.chat"),
        "inspect.modelfolder",
        *("inspect.report", "inspect.filecommands", "inspect.modelcommands"),
        *("inspect.proofs", "inspect.pagecommand", "inspect.commandline"),
        "inspect.__main__",
    ),
)
WITHIN = {
    "config": {"progress"},
    "addresses": {"errors"},
    "doctor": {"hints"},
    "joincodes": {"errors", "misc"},
    "population": {"outputs"},
    "scoring": {"outputs", "population", "whitening", "products", "evolution"},
    "kept": {"products", "evolution"},
    "sums": {"rewards", "nodes", "evolution"},
    "growth": {"evolution"},
    "nodes": {"whitening", "rewards"},
    "products": {"nodes"},
    "evolution": {"whitening", "rewards", "nodes", "products"},
    "losses": {"rewards", "evolution"},
    "selftest": {"whitening", "nodes"},
    "engine": {"whitening", "rewards", "evolution", "scoring", "kept"},
    "scheduling": {"whitening", "rewards", "evolution", "scoring", "engine"},
    "moulds": {"plaindata"},
    "wire": {"plaindata", "moulds", "frames", "protocol"},
    "sealing": {"frames"},
    "sessions": {"frames", "protocol", "wire", "handshake", "sealing"},
    "tally": {"aggregation", "audits", "pacing"},
    "ledger": {"history", "peers"},
    "lateness": {"events", "peers"},
    "agreement": {"peers"},
    "audits": {"agreement", "events", "peers", "ledger"},
    "steps": {"agreement", "peers", "audits", "lateness"},
    "blocks": {"agreement", "peers", "audits", "lateness", "steps"},
    "opening": {"audits", "steps", "blocks"},
    "acceptance": {"events", "history", "peers", "ledger"},
    "summing": {"peers", "audits", "ledger", "lateness", "aggregation"},
    "outbox": {"events", "peers", "ledger"},
    "coordinator": {
        *("events", "peers", "lateness", "steps", "ledger", "acceptance", "pacing"),
        *("tally", "aggregation", "summing", "outbox", "audits", "opening"),
        *("history", "returning", "orders", "names"),
    },
    "names": {"peers"},
    "orders": {
        *("audits", "events", "ledger", "outbox", "returning", "summing", "tally"),
    },
    "communication": {"outgoing", "lines"},
    "connection": {"outgoing", "lines"},
    "returning": {"events", "history", "ledger", "outbox", "peers", "tally"},
    "worker": {"history"},
    "logfiles": {"runfiles"},
    "statefiles": {"runfiles"},
    "curves": {"scales"},
    "plots": {"scales", "curves"},
    "svgplot": {"scales", "curves", "plots"},
    "runs": {
        *("runfiles", "logfiles", "records", "statefiles", "checkpoints"),
        *("scales", "curves", "svgplot", "trained"),
    },
    "runlogs": {"runfiles", "logfiles", "runs"},
    "journal": {"runfiles"},
    "recovery": {"runfiles", "runs", "checkpoints", "journal"},
    "credits": {"runfiles", "logfiles", "runs"},
    "yardsticks": {"plots", "runs"},
    "sessionfiles": {"logfiles"},
    "follow": {"runfiles", "logfiles", "scales", "curves"},
    "feed": {
        *("logfiles", "scales", "curves", "plots", "runs", "credits"),
        *("sessionfiles", "follow"),
    },
    "export": {"runs", "trained"},
    "downloads": {"export", "runlogs", "runs", "svgplot"},
    "page": {"downloads", "runfiles", "runs", "yardsticks", "feed"},
    "pageserver": {"lines", "page"},
    "options": {"joinoptions"},
    "clientoptions": {"options", "joinoptions"},
    "setup": {"options", "configfiles"},
    "stages": {"options"},
    "admission": {"clientoptions", "options"},
    "reporting": {"options", "setup", "admission", "display"},
    "crashlog": {"setup"},
    "team": {"shelf"},
    "checkup": {
        *("clientoptions", "setup", "admission", "display", "processes", "identity"),
    },
    "client": {
        *("clientoptions", "setup", "admission", "display", "processes", "team"),
        "identity",
    },
    "serving": {
        *("options", "setup", "stages", "admission", "display", "reporting"),
        "processes",
    },
}
# The same within the package inspect, for its modules by their short names.
WITHIN_INSPECT = {
    "asking": {"console"},
    "summary": {"textplot", "words"},
    "comparison": {"summary", "words"},
    "outlook": {"forecast", "summary", "words"},
    "bits": {"console", "words"},
    "chat": {"words"},
    "report": {"console", "samples", "summary", "words"},
    "filecommands": {
        *("asking", "comparison", "console", "forecast", "outlook", "pngplot"),
        *("summary", "textplot", "words"),
    },
    "modelcommands": {
        *("asking", "bits", "chat", "console", "filecommands", "forecast"),
        *("modelfolder", "outlook", "report", "samples", "stopping", "summary"),
        "words",
    },
    "pagecommand": {"asking", "console"},
    "commandline": {
        *("asking", "console", "filecommands", "modelcommands", "proofs"),
        "pagecommand",
    },
    "proofs": {"asking", "console", "filecommands"},
    "__main__": {"commandline", "console"},
}
WITHIN |= {
    f"inspect.{module}": {f"inspect.{other}" for other in others}
    for module, others in WITHIN_INSPECT.items()
}
ROW_OF = {module: number for number, row in enumerate(ROWS) for module in row}
SOURCES = {  # of the modules by their dotted names below utilities
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}
SCRIPT_PATHS = [ROOT / name for name in SCRIPTS]
PROGRAM = [*sorted(PACKAGE.rglob("*.py")), *SCRIPT_PATHS]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of all that a file imports, wherever it does."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def neighbours(path: Path) -> set[str]:
    """Return the modules of the program that a file imports."""
    found = set()
    for name in imported(path):
        package, _, inside = name.partition(".")
        if package == "utilities":
            # What is imported is a module, or something in one.
            found.add(inside if inside in SOURCES else inside.rpartition(".")[0])
    return found


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_module_has_its_row() -> None:
    assert ROW_OF.keys() == SOURCES.keys()
    assert sum(map(len, ROWS)) == len(ROW_OF)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_one_way(module: str) -> None:
    others = neighbours(SOURCES[module])
    above = {other for other in others if ROW_OF[other] < ROW_OF[module]}

    assert others - above <= WITHIN.get(module, set())


def test_what_is_allowed_within_a_row_is_needed_and_has_no_circles() -> None:
    for module, others in WITHIN.items():
        assert others <= neighbours(SOURCES[module]), module
        assert all(ROW_OF[other] == ROW_OF[module] for other in others)
    left = dict(WITHIN)
    while left:
        free = [module for module, others in left.items() if not others & left.keys()]
        assert free, f"a circle among {', '.join(left)}"
        for module in free:
            del left[module]


def test_nobody_outside_imports_from_inspect() -> None:
    outside = [path for module, path in SOURCES.items() if "." not in module]
    for path in (*outside, *SCRIPT_PATHS, *(ROOT / "benchmarks").glob("*.py")):
        inside = [n for n in imported(path) if n.startswith("utilities.inspect")]
        assert not inside, path


@pytest.mark.parametrize("path", PROGRAM, ids=named)
def test_only_lines_talks_to_sockets_and_two_others_wait_for_them(path: Path) -> None:
    network = {"socket", "selectors", "ssl", "asyncio", "socketserver", "http"}
    uses = {name.split(".")[0] for name in imported(path)} & network
    may = {
        "lines": {"socket", "ssl"},
        "communication": {"selectors"},
        "connection": {"selectors"},
        "reach": {"socket"},
        # The page is for browsers: its connections are those of the standard
        # library's server, on a socket that `lines` opens.
        "pageserver": {"http"},
    }

    assert uses <= may.get(path.stem, set())


@pytest.mark.parametrize("path", PROGRAM, ids=named)
def test_nobody_reads_pickles_but_our_own_decoder(path: Path) -> None:
    readers = {"load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"}
    pickles = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill"}
    for name in imported(path):
        module, _, what = name.partition(".")
        assert module not in pickles or (module == "pickle" and what not in readers)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert not (node.value.id in pickles and node.attr in readers)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


@pytest.mark.parametrize("path", PROGRAM, ids=named)
def test_names_are_imported_one_by_one(path: Path) -> None:
    assert not [name for name in imported(path) if name.endswith(".*")]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", PROGRAM, ids=named)
def test_functions_fit_a_screen(path: Path) -> None:
    long = {
        f.name: lines
        for f in functions(path)
        if (lines := (f.end_lineno or 0) - f.lineno + 1) > FUNCTION_LINES
    }

    assert long == {}


@pytest.mark.parametrize("path", PROGRAM, ids=named)
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= SCRIPTS.get(path.name, MODULE_LINES)


@pytest.mark.parametrize("path", PROGRAM, ids=named)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path))


# Imports modules one by one while an audit hook listens; prints what each does besides.
IMPORTING = """
import importlib, json, logging, os, sys, threading
READ_BY_IMPORT = (".py", ".pyc", ".so", ".pyd", ".pth")
effects = None

def listen(event, arguments):
    if effects is None:
        return
    if event == "open":
        path, mode = str(arguments[0]), arguments[1]
        if mode not in ("r", "rb", None) or not path.endswith(READ_BY_IMPORT):
            effects.append([event, path, str(mode)])
    elif event.startswith(("socket.", "subprocess.", "os.", "shutil.", "_thread.")):
        if event != "os.listdir":
            effects.append([event, *map(repr, arguments)])

def state():
    handlers = list(logging.getLogger().handlers)
    return dict(os.environ), handlers, threading.active_count()

# What others do when they are imported is theirs.
import argparse, concurrent.futures.thread, gzip, numpy, platform, random, secrets
import getpass, hmac, ipaddress, ssl, urllib.parse
import selectors, shutil, socket, subprocess, tempfile, tqdm, zipfile
sys.addaudithook(listen)
found = {}
for module in sys.argv[1:]:
    before, effects = state(), []
    importlib.import_module(module)
    found[module], effects = effects, None
    if state() != before:
        found[module].append("environment, logging or threads")
print(json.dumps(found))
"""


def run(code: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def effects(*modules: str) -> dict[str, list[object]]:
    found = json.loads(run(IMPORTING, *modules))
    assert isinstance(found, dict)
    return found


def test_importing_a_module_does_nothing_else() -> None:
    modules = [f"utilities.{module}" for row in ROWS for module in row]
    scripts = [Path(name).stem for name in SCRIPTS]

    assert effects(*modules, *scripts) == {name: [] for name in modules + scripts}


def test_what_a_module_does_at_import_would_be_found(tmp_path: Path) -> None:
    # In the order of the modules below; the last one does nothing.
    sources = {
        "opens": "open(__file__ + '.txt', 'w').close()",
        "reads": f"open({str(ROOT / 'LICENSE')!r}).close()",
        "starts": "import threading\nthreading.Timer(0.5, print).start()",
        "sets": "import os; os.environ['A'] = 'b'",
        "logs": "import logging; logging.getLogger().addHandler(logging.NullHandler())",
        "harmless": "import utilities.errors",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{IMPORTING}"
    found = json.loads(run(code, *sources))

    assert [name for name in sources if not found[name]] == ["harmless"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_keeps_to_one_core_before_it_loads_numpy(script: str) -> None:
    code = f"import sys, {Path(script).stem}; print('numpy' in sys.modules)"

    assert run(code) == "False\n"
