"""Who may import what: the core is pure, and the arrows between rooms point in one direction."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ddmpi

PACKAGE = Path(ddmpi.__file__).parent
SHELL = frozenset(
    {
        "asyncio", "concurrent", "ctypes", "fcntl", "getpass", "glob", "http", "io", "logging", "mmap", "mpi4py",
        "multiprocessing", "os", "pathlib", "platform", "pycurl", "queue", "resource", "select", "selectors", "shutil",
        "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "yaml",
    }
)  # fmt: skip
"""Modules through which the outside world comes in."""
EXEMPT = {
    "core/rules/urls.py": {"pycurl"},  # CurlUrl: the parser that connects decides which server a URL belongs to
    "core/pace/rate_limiter.py": {"sys"},  # sys.maxsize
}
CORE = sorted(str(path.relative_to(PACKAGE)) for path in (PACKAGE / "core").rglob("*.py"))
CLOCKS = frozenset({"now", "utcnow", "today", "fromtimestamp"})
"""Methods of datetime and date that read a clock or the local time zone."""
GLOBAL_RANDOM = frozenset({"Random", "SystemRandom"})
"""What may be taken from ``random``: the generator is a parameter, the module's own is a hidden one."""
DATA = ("errors", "_version", "core/arrays", "core/near_names", "core/records", "core/protocol")
"""What every room may import."""
ARROWS = {
    "core/pace": (),
    "core/stats": (),
    "core/rules": ("core/pace",),
    "core/partition": ("core/rules",),
    "core/frontier": ("core/rules", "core/pace"),
    "core/ledger": ("core/rules", "core/pace"),
    "core/forecast": ("core/frontier", "core/ledger", "core/rules", "core/pace"),
    "config": ("core",),
    "report": ("core",),
    "io/process": (),
    "io/schedulers": (),
    "io/mpi": ("core", "config", "report", "io/process", "io/schedulers"),
    "io/http": ("core", "config", "report", "io/process", "io/schedulers"),
    "io/store": ("core", "config", "report", "io/process", "io/schedulers"),
    "io/folder": ("core", "config", "report", "io/process", "io/schedulers"),
    "io/parquet": (),
    "io/sources": ("core", "config", "report", "io/process", "io/schedulers", "io/store", "io/folder"),
    "io/input": ("core", "config", "report", "io/process", "io/schedulers", "io/sources", "io/store", "io/folder"),
    "io/results": ("core", "config", "report", "io/process", "io/schedulers", "io/store", "io/folder", "io/parquet"),
    "io/lookup": ("core", "config", "io/store", "io/folder", "io/parquet", "io/results"),
    "io/forget": ("core", "config", "io/store", "io/folder", "io/parquet", "io/results", "io/sources"),
    "io/urls": (
        "core", "config", "report", "io/process", "io/schedulers", "io/sources", "io/input", "io/results", "io/http",
        "io/folder", "io/forget",
    ),
    "roles/signals": ("core",),
    "roles/coordinator": ("core", "config", "report", "io"),
    "roles/downloader": ("core", "config", "report", "io"),
    "roles/loop": ("core", "config", "report", "io", "roles/coordinator", "roles/downloader", "roles/signals"),
    "roles/rank0": ("core", "config", "report", "io", "roles"),
    "roles/program": ("core", "config", "report", "io", "roles"),
    "cli": ("core", "config", "report", "io", "roles"),
    "export": ("core", "config", "report", "io"),
    "export/targets": ("core", "config", "report", "io", "export"),
    "api": ("core", "config", "report", "io", "roles"),
    "__main__": ("core", "config", "report", "io", "roles", "cli"),
    "__init__": ("api",),
}  # fmt: skip
"""Room -> the rooms that it may import, beside itself and ``DATA``. A room is a package or a module beside them."""
MOST_FILES = 15
MOST_ENTRIES = 13


def imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a file calls."""
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def impurities(name: str, tree: ast.Module) -> list[str]:
    """What the file would have to do without to be pure."""
    forbidden = SHELL - EXEMPT.get(name, set())
    found = [imported for imported in imports(tree) if any(is_within(imported, module) for module in forbidden)]
    found += [imported for imported in imports(tree) if imported.startswith("ddmpi.") and not is_pure(imported)]
    found += [call for call in calls(tree) if call.split(".")[0] in {"open", "input", "print"}]
    found += [call for call in calls(tree) if call.rpartition(".")[2] in CLOCKS and "date" in call]
    found += [call for call in calls(tree) if re.fullmatch(r"random\.\w+", call) and call[7:] not in GLOBAL_RANDOM]
    return found


def is_within(imported: str, module: str) -> bool:
    return f"{imported}.".startswith(f"{module}.")


def is_pure(imported: str) -> bool:
    return imported.split(".")[1] in {"core", "errors"}


def files_importing(module: str) -> set[str]:
    """Files of the package that import the module, by their path in it."""
    return {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(imported.split(".")[0] == module for imported in imports(parsed(path)))
    }


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_nothing_of_the_shell(name: str) -> None:
    assert impurities(name, parsed(PACKAGE / name)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os.path",
        "from os import path",
        "def f():\n    import time",
        "from ddmpi.io.folder import layout",
        "from ddmpi.roles.loop import Loop",
        "import random\nrandom.random()",
        "from datetime import datetime\ndatetime.now()",
        "open('x')",
    ],
)
def test_the_check_finds(source: str) -> None:
    assert impurities("some", ast.parse(source))


def modules() -> dict[str, Path]:
    """Every module of the package by its path in it, without the suffix."""
    return {str(path.relative_to(PACKAGE).with_suffix("")): path for path in PACKAGE.rglob("*.py")}


def imported_modules(path: Path, known: Collection[str]) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for imported in imports(parsed(path)):
        names = imported.split(".")
        if names[0] == "ddmpi":
            whole, module = "/".join(names[1:]), "/".join(names[1:-1])
            found |= {name for name in (whole, module) if name in known}
    return found


def room_of(module: str) -> str:
    """The room of a module: its package, or itself where it lies beside packages."""
    folder = module.rpartition("/")[0]
    return module if folder in {"", "core", "io", "roles"} else folder


def may_import(room: str, target: str) -> bool:
    allowed = (*DATA[: DATA.index(room)], *ARROWS.get(room, ())) if room in DATA else (room, *DATA, *ARROWS[room])
    return any(f"{target}/".startswith(f"{name}/") for name in allowed)


@pytest.mark.parametrize("module", sorted(modules()))
def test_arrows_between_rooms_point_in_one_direction(module: str) -> None:
    room = room_of(module)
    if module.endswith("/__init__"):
        assert not imported_modules(modules()[module], modules()), "a door says what the room is, and imports nothing"
        return
    wrong = {other for other in imported_modules(modules()[module], modules()) if not may_import(room, room_of(other))}
    assert not wrong


def test_no_file_imports_itself_by_way_of_others() -> None:
    paths = modules()
    graph = {name: imported_modules(path, paths) - {"__init__"} for name, path in paths.items()}
    order = TopologicalSorter(graph)
    order.prepare()  # raises CycleError, which names the cycle


def test_a_room_can_be_held_in_ones_head() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__"]
    assert {
        str(path): len(list(path.glob("*.py"))) for path in folders if len(list(path.glob("*.py"))) > MOST_FILES
    } == {}


def test_only_the_transfers_make_requests() -> None:
    parts = {"io/http/answers.py", "io/http/easy_handle.py", "io/http/socket_events.py"}  # of the transfers
    others = {"core/rules/urls.py", "roles/downloader/build.py"}  # CurlUrl; the version
    assert files_importing("pycurl") == {"io/http/transfers.py", *parts, *others}


def test_only_the_mailbox_and_the_program_itself_know_mpi() -> None:
    assert files_importing("mpi4py") == {"api.py", "io/mpi/mailbox.py", "io/mpi/launcher.py", "roles/program.py"}


@pytest.mark.parametrize("command", [["-c", "import ddmpi"], ["-m", "ddmpi", "--help"]], ids=["import", "help"])
def test_a_start_that_only_says_what_there_is_loads_nothing_heavy(command: list[str]) -> None:
    """Python tells each module that it loads on stderr; ``--help`` would else take seconds on a network file system."""
    run = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "ddmpi" in loaded
    assert not loaded & {"mpi4py", "numpy", "pyarrow", "pycurl", "msgspec", "pydantic", "rich", "yaml"}


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("program", {"ddmpi.core.ledger.rank0_core", "ddmpi.io.input.table", "ijson", "imagesize", "jinja2", "rich"}),
        ("rank0", {"jinja2", "rich"}),
    ],
)
def test_a_rank_loads_only_what_its_start_needs(module: str, unneeded: set[str]) -> None:
    code = f"import mpi4py; mpi4py.rc.initialize = False; import ddmpi.roles.{module}, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert f"ddmpi.roles.{module}" in loaded
    assert not loaded & unneeded


def test_the_names_of_the_interface_are_there() -> None:
    assert {"download", "open_results", "__version__"} <= set(dir(ddmpi))
    assert ddmpi.download.__module__ == ddmpi.open_results.__module__ == "ddmpi.api"
    with pytest.raises(AttributeError, match="no attribute 'downlaod'"):
        _ = ddmpi.downlaod
