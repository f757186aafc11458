"""A job that needs many walltimes: ``python -m tests.cluster.walltime --kills 5``.

Slurm's shortest time limit is a minute. The job's config asks it to stop well before; run.sh puts it back into the
queue, and so on until it is done. The two minutes that Slurm lets a requeued job wait are skipped. At the end the job
is held against what the fleet served. The last line is JSON; exit code 1 if a row was lost, doubled or fetched twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from tests.chaos.evidence import examine, repeated_requests
from tests.cluster.slurm import Cluster, ClusterError, JobEnd, running_cluster
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import ROOT, Job, make_job

RUN_SH = ROOT / "run.sh"
SLURM_SBATCH = ROOT / "configs/cluster/slurm.sbatch"
TWO_NODES = ("--nodes=2", "--ntasks=4", "--ntasks-per-node=2")
NO_WARNING = "--signal=USR1@0"
"""Slurm sends its warning up to a minute early: in a job of one minute that is at once. The program asks for its end
by itself, and that is what is tested."""
SERVERS = 4
RATE_PER_S = 5
MARGIN_S = 35
"""Of the minute; what is left, less the start, is time to fetch."""
ROWS_PER_LIFE = (60 - MARGIN_S) * SERVERS * RATE_PER_S
LIFE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Result:
    """What a job has been through, and what it has left."""

    walltimes: int
    lost: int
    doubled: int
    unreadable: int
    wrong_bytes: int
    repeated_requests: int

    @property
    def is_clean(self) -> bool:
        """Every row once, and fetched once."""
        return not (self.lost or self.doubled or self.unreadable or self.wrong_bytes or self.repeated_requests)


def submit(cluster: Cluster, job: Job, *options: str, script: Path = RUN_SH) -> str:
    """``sbatch run.sh`` on both nodes, or another script with the config written into it; the job's id."""
    config = job.folder / "config.yaml"
    config.write_text(yaml.safe_dump(job.config))
    if script != RUN_SH:
        text = script.read_text().replace("config=config.yaml\n", f"config={config}\n")
        script = job.folder / script.name
        script.write_text(text)
    return cluster.submit(script, str(config), options=[*TWO_NODES, *options], folder=ROOT)


def run_through(cluster: Cluster, folder: Path, kills: int) -> tuple[JobEnd, Result, str]:
    """A job that is stopped by its walltime at least so many times. Raises ClusterError where it gets stuck."""
    rows = kills * ROWS_PER_LIFE
    with running_fleet(folder / "fleet", plain_fleet(SERVERS), rows) as fleet:
        job = make_job(
            folder / "job",
            fleet.table_path,
            downloader_parameters={"default_rate_limit": RATE_PER_S},
            walltime={"margin_s": MARGIN_S},
        )
        job_id = submit(cluster, job, "--time=1", NO_WARNING)
        end = await_last_end(cluster, job_id, (2 * kills + 1) * LIFE_TIMEOUT_S)
        restarts = cluster.restarts(job_id)
        log = fleet.finished_log()
    evidence = examine(job, fleet)
    result = Result(
        restarts,
        evidence.lost(rows),
        evidence.doubled,
        len(evidence.unreadable),
        len(evidence.wrong),
        repeated_requests(log),
    )
    return end, result, cluster.printed(job_id)


def await_last_end(cluster: Cluster, job_id: str, timeout_s: float) -> JobEnd:
    """Wait until a job is neither running nor to be started again. Raises ClusterError."""
    deadline = time.monotonic() + timeout_s
    while cluster.state(job_id) in {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}:
        cluster.hasten(job_id)
        if time.monotonic() > deadline:
            raise ClusterError(f"job {job_id} goes on and on:\n{cluster.printed(job_id)}")
        time.sleep(0.5)
    return cluster.wait(job_id, timeout_s=1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ddmpi-walltime-") as name:
        folder = Path(name)
        with running_cluster(folder / "slurm") as cluster:
            end, result, printed = run_through(cluster, folder, given.kills)
    print(printed)
    print(f"the job ended {end.state}, exit code {end.exit_code}")
    print(json.dumps(asdict(result)))
    return 0 if result.is_clean and end.state == "COMPLETED" and result.walltimes >= given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
