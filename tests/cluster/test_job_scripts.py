"""The job scripts of configs/cluster, with stand-ins for run.sh and for the program that starts the job again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ddmpi.io.schedulers.detection import SCHEDULERS
from tests.whole.job import ROOT

SCRIPTS = ROOT / "configs/cluster"
NAMES = ("slurm.sbatch", "pbs.sh", "lsf.sh", "flux.sh")
RUN_SH = '#!/bin/sh\necho "$DDMPI_MPIEXEC|$*" > started\n{}\nexit 75\n'
PYTHON = '#!/bin/sh\necho "$*" > requeued\n'
CANCELED = "kill -TERM $PPID\nsleep 0.2"
"""A program takes its time to stop: of one that ends in the instant of the signal bash may lose the code (255)."""
WARNED = """
trap 'told=yes' USR1
kill -USR1 $PPID
for _ in $(seq 1000); do if [ "$told" ]; then break; fi; sleep 0.01; done
sleep 0.2
echo "$told" > told"""
"""A program that takes its time to stop, once it is told."""


def run(folder: Path, name: str, ending: str = "") -> int:
    """A job script in the folder of a repository with stand-ins; its exit code."""
    nodes = folder / "nodes"
    nodes.write_text("n1\nn1\nn2\nn2\n")
    programs = {"run.sh": RUN_SH.format(ending), ".venv/bin/python": PYTHON, "flux": "#!/bin/sh\necho 4\n"}
    for path, text in programs.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        (folder / path).chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(folder), "SLURM_NTASKS": "4",
        "PBS_O_WORKDIR": str(folder), "PBS_NODEFILE": str(nodes),
        "LS_SUBCWD": str(folder), "LSB_DJOB_NUMPROC": "4",
    }  # fmt: skip
    return subprocess.run(["bash", str(SCRIPTS / name)], cwd=folder, env=environment, check=False).returncode


def test_there_is_a_script_for_each_scheduler() -> None:
    assert sorted(path.name for path in SCRIPTS.iterdir()) == sorted(NAMES)
    assert len(NAMES) == len(SCHEDULERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_has_not_ended_is_started_again(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, name) == 75
    launcher, _, arguments = (tmp_path / "started").read_text().strip().partition("|")
    assert arguments == "config.yaml -n 4"
    assert launcher == ("flux run" if name == "flux.sh" else "")
    # Slurm keeps the script; the others submit it again, under the name that its head says to give it.
    script = "" if name == "slurm.sbatch" else f" job.{name.removesuffix('.sh')}"
    assert (tmp_path / "requeued").read_text().strip() == f"-m ddmpi.cli.requeue config.yaml 75{script}"
    assert f"as {script.strip() or 'job.sbatch'}, fill in" in (SCRIPTS / name).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_canceled_job_is_not_started_again(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, name, CANCELED) == 75
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "slurm.sbatch"])
def test_a_warning_signal_leaves_the_script_running(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, name, "kill -USR1 $PPID") == 75
    assert (tmp_path / "requeued").exists()


def test_under_slurm_the_script_hands_the_warning_on_and_waits(tmp_path: Path) -> None:
    assert run(tmp_path, "slurm.sbatch", WARNED) == 75
    assert (tmp_path / "told").read_text() == "yes\n"
    assert (tmp_path / "requeued").exists()
