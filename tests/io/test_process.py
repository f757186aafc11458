"""One allocator for all of a process, and freed memory that goes back: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def printed(program: str, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**variables, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("chosen", "used"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_arrow_uses_malloc_unless_somebody_has_said_otherwise(chosen: dict[str, str], used: str) -> None:
    assert printed(ARROW, **chosen) == used


def test_memory_between_what_is_kept_goes_back() -> None:
    assert int(printed(PIECES)) > 40, "of 62 MiB"
