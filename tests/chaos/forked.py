"""Runs of ddmpi in one process each, started in a tenth of a second: forked from a process that has everything loaded.

Thousands of runs with a fault each are only affordable without Python's start. The process is started with a library
preloaded (``faults``); each child takes its own environment, so that the library counts and fails in it alone.
MPI is loaded in the child: it does not survive a fork.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ddmpi
from ddmpi.report import page

RUN_TIMEOUT_S = 60.0
_WITH_MPI = {"ddmpi.roles.program", "ddmpi.io.mpi.mailbox", "ddmpi.roles.rank0", "ddmpi.roles.loop"}
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ForkedRun:
    """How a run ended: its exit code, or minus the number of the signal that killed it."""

    code: int
    printed: str


class Forker:
    """Starts runs, one after the other."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process = process
        self._output = output

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> ForkedRun:
        """``python -m ddmpi ARGUMENTS`` to its end. Raises AssertionError where it does not come."""
        order = {"arguments": list(arguments), "environment": dict(environment), "output": str(self._output)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"no run, and no process to start one: exit code {self._process.wait()}")
        printed = self._output.read_text(errors="replace")
        code = json.loads(answer)
        if code is None:
            raise AssertionError(f"{order} did not end within {RUN_TIMEOUT_S:.0f} s:\n{printed}")
        return ForkedRun(code, printed)


@contextmanager
def forker(folder: Path, preloaded: Path) -> Iterator[Forker]:
    """A process to fork runs from, with a library in ``LD_PRELOAD``."""
    environment = {**os.environ, "LD_PRELOAD": str(preloaded)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.forked"],
        cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Forker(process, folder / "printed.txt")
        finally:
            process.kill()


def main() -> int:
    """Take orders from standard input, one line each; answer with the code of each run, null where it hung.

    In a child this returns ddmpi's own code, so that it ends as a program does, MPI and all.
    """
    for module in pkgutil.walk_packages(ddmpi.__path__, "ddmpi."):
        if module.name not in _WITH_MPI and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # Half of what such a short run computes itself: what is loaded on demand, and the report's template.
    importlib.import_module("pyarrow.dataset")
    page._template()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            return _run(order["arguments"], order["environment"], order["output"])
        print(json.dumps(_await(child)), flush=True)
    return 0


def _run(arguments: Sequence[str], environment: Mapping[str, str], output: str) -> int:
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(source, target)
    os.environ.update(environment)
    ctypes.CDLL(None).faults_arm()
    program = importlib.import_module("ddmpi.__main__")
    code = program.main(arguments)
    assert isinstance(code, int)
    return code


def _await(child: int) -> int | None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            # Named by MPICH after a process that is alone; nobody else removes it after a SIGKILL.
            Path(f"/dev/shm/mpich_shm_{child:x}_0").unlink(missing_ok=True)  # noqa: S108  # the name is not ours
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
