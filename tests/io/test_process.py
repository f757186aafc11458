"""The process of a rank: one allocator, memory that goes back, no life after its launcher, a share of the cores."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from ddmpi.io import process
from ddmpi.io.process import share_of_cores, terminal_columns

ARROW = """
import os
from ddmpi.io.process import use_one_allocator
use_one_allocator(os.environ)
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""
PIECES = """
import os
from ddmpi.io.process import give_back_freed, resident_bytes
pieces = [bytes([number % 256]) * 16_384 for number in range(4_000)]
kept = pieces[::50]
del pieces
before = resident_bytes(os.getpid())
give_back_freed()
print((before - resident_bytes(os.getpid())) >> 20)
"""
PAGES = """
import os, resource, sys
from ddmpi.io.process import keep_freed
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if sys.argv[1:] == ["keep"]:
    keep_freed()
before = faults()
for turn in range(5):
    pages = [bytes([turn]) * (1 << 20) for _ in range(40)]
    del pages
print((faults() - before) * os.sysconf("SC_PAGE_SIZE") >> 20)
"""
RANK = """
import os, sys, time
from ddmpi.io.process import die_with_launcher
die_with_launcher(os.environ)
os.write(1, b"ready\\n")
sys.stdin.read()
os.write(1, b"lives on")
"""
LAUNCHER = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {RANK!r}]))"
ALL = frozenset(range(8))


def printed(program: str, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**variables, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("chosen", "used"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_arrow_uses_malloc_unless_somebody_has_said_otherwise(chosen: dict[str, str], used: str) -> None:
    assert printed(ARROW, **chosen) == used


def test_memory_that_was_freed_is_kept_for_what_comes_next() -> None:
    anew_mib, kept_mib = (int(printed(PAGES.replace("sys.argv[1:]", repr(words)))) for words in ([], ["keep"]))
    assert kept_mib < 60, "40 MiB, once"
    assert anew_mib > 150, "40 MiB, five times"


def test_memory_between_what_is_kept_goes_back() -> None:
    assert int(printed(PIECES)) > 40, "of 62 MiB"


@pytest.mark.parametrize(
    ("variable", "lives"), [("PMI_RANK", False), ("OMPI_COMM_WORLD_RANK", False), ("SLURM_STEP_ID", False), ("A", True)]
)
def test_a_rank_dies_with_its_launcher_and_a_plain_program_does_not(variable: str, lives: bool) -> None:
    environment = {**os.environ, variable: "0"}
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        launcher.kill()
        launcher.wait()
        # The rank holds the other ends of both pipes: its output ends with it, and its input only now.
        if lives:
            launcher.stdin.close()
        assert launcher.stdout.read() == ("lives on" if lives else "")


@pytest.mark.parametrize(
    ("own", "others", "share"),
    [
        pytest.param(ALL, [], 8, id="alone it has all"),
        pytest.param(ALL, [ALL, ALL, ALL], 2, id="without pinning it has its part"),
        pytest.param(ALL, [ALL, ALL], 2, id="a third of eight, in whole cores"),
        pytest.param(frozenset({2}), [frozenset({0}), frozenset({1})], 1, id="pinned to one core each"),
        pytest.param(frozenset({0, 1, 2, 3}), [frozenset({4, 5, 6, 7})], 4, id="pinned to sockets"),
        pytest.param(frozenset({0, 1}), [frozenset({0, 1})] * 7, 1, id="never less than one"),
        pytest.param(ALL, [frozenset()], 8, id="a rank that does not download counts for nothing"),
    ],
)
def test_share_of_cores(own: frozenset[int], others: list[frozenset[int]], share: int) -> None:
    assert share_of_cores(own, [own, *others]) == share


def test_pyarrow_does_not_load_pandas_where_it_is_left_out() -> None:
    code = "leave_out_pandas(); pa.array([1, None]); pa.scalar('x'); pa.table({'a': [1.5]}).to_pylist()"
    imports = "import sys; import pyarrow as pa; from ddmpi.io.process import leave_out_pandas"
    printed = subprocess.check_output([sys.executable, "-c", f"{imports}; {code}; print('pandas' in sys.modules)"])
    assert printed == b"False\n"


PLUGINS = """
import importlib.metadata, os
from ddmpi.io.process import leave_out_plugins
leave_out_plugins(os.environ)
importlib.metadata.entry_points = lambda **_: print("looked for plugins") or ()
import ddmpi.config.config
"""


def test_pydantic_looks_for_no_plugins() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    assert subprocess.check_output([sys.executable, "-c", PLUGINS], env=environment) == b""


@pytest.mark.parametrize(
    ("columns", "kind", "expected"),
    [
        pytest.param(132, "xterm", 132, id="a terminal"),
        pytest.param(0, "xterm", None, id="Open MPI gives its ranks one of 0 x 0"),
        pytest.param(132, "dumb", None, id="one that cannot move its cursor"),
    ],
)
def test_how_wide_the_terminal_is(
    monkeypatch: pytest.MonkeyPatch, columns: int, kind: str, expected: int | None
) -> None:
    monkeypatch.setattr(process, "_launcher_output", lambda _: "")
    monkeypatch.setenv("TERM", kind)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    with os.fdopen(leader), os.fdopen(follower, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert terminal_columns() == expected


def test_a_rank_with_a_terminal_of_no_size_looks_at_its_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    own_leader, own = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 99, 0, 0))
    monkeypatch.setattr(process, "_launcher_output", lambda _: os.ttyname(follower))
    with os.fdopen(leader), os.fdopen(follower, "w"), os.fdopen(own_leader), os.fdopen(own, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert terminal_columns() == 99
