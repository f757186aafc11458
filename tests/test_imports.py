"""Who may import what: the pure core knows no MPI, curl, file, clock, thread or environment."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
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
    "core/pace/pace.py": {"sys"},  # sys.maxsize
}
CORE = sorted(str(path.relative_to(PACKAGE)) for path in (PACKAGE / "core").rglob("*.py"))
CLOCKS = frozenset({"now", "utcnow", "today", "fromtimestamp"})
"""Methods of datetime and date that read a clock or the local time zone."""
GLOBAL_RANDOM = frozenset({"Random", "SystemRandom"})
"""What may be taken from ``random``: the generator is a parameter, the module's own is a hidden one."""


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


def test_only_the_transfers_make_requests() -> None:
    parts = {"io/http/answers.py", "io/http/easy_handle.py", "io/http/socket_events.py"}  # of the transfers
    others = {"core/rules/urls.py", "roles/downloader/build.py"}  # CurlUrl; the version
    assert files_importing("pycurl") == {"io/http/transfers.py", *parts, *others}


def test_only_the_mailbox_and_the_program_itself_know_mpi() -> None:
    assert files_importing("mpi4py") == {"api.py", "io/mpi/mailbox.py", "io/mpi/starting.py", "roles/program.py"}


@pytest.mark.parametrize("command", [["-c", "import ddmpi"], ["-m", "ddmpi", "--help"]], ids=["import", "help"])
def test_a_start_that_only_says_what_there_is_loads_nothing_heavy(command: list[str]) -> None:
    """Python tells each module that it loads on stderr; ``--help`` would else take seconds on a network file system."""
    run = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "ddmpi" in loaded
    assert not loaded & {"mpi4py", "numpy", "pyarrow", "pycurl", "pydantic", "rich", "yaml"}


def test_the_names_of_the_interface_are_there() -> None:
    assert {"download", "open_results", "__version__"} <= set(dir(ddmpi))
    assert ddmpi.download.__module__ == ddmpi.open_results.__module__ == "ddmpi.api"
    with pytest.raises(AttributeError, match="no attribute 'downlaod'"):
        _ = ddmpi.downlaod
