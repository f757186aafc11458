"""A rank that an MPI launcher started does not outlive it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RANK = """
import os, sys, time
from ddmpi.io.process import die_with_launcher
die_with_launcher(os.environ)
os.write(1, b"ready\\n")
sys.stdin.read()
os.write(1, b"lives on")
"""
LAUNCHER = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {RANK!r}]))"


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
