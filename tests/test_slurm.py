"""``sbatch run.sh CONFIG.yaml`` on a real Slurm of two nodes: ranks on both, and a soft stop before the time limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.slurm import NODES, Cluster, running_cluster
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.job import ROOT, Job, assert_bodies_as_served, assert_every_row_once, make_job, outcomes, repeated_fetches

pytestmark = pytest.mark.slow
LOGGER = logging.getLogger(__name__)

RUN_SH = ROOT / "run.sh"
TWO_NODES = ("--nodes=2", "--ntasks=4", "--ntasks-per-node=2")
NO_WARNING = "--signal=USR1@0"
"""Slurm sends its warning up to a minute early: in a job of one minute that is at once. The program asks for its end
by itself, and that is what is tested."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def submit(cluster: Cluster, job: Job, *options: str) -> str:
    config = job.folder / "config.yaml"
    config.write_text(yaml.safe_dump(job.config))
    return cluster.submit(RUN_SH, str(config), options=[*TWO_NODES, *options])


def nodes_of_ranks(job_id: str) -> list[str]:
    """The node of each rank of a running job, as the environment of its process says."""
    nodes = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is another user's
        if command[0].endswith(b"python") and b"ddmpi" in command and f"SLURM_JOB_ID={job_id}" in environment:
            nodes += [line.partition("=")[2] for line in environment if line.startswith("SLURMD_NODENAME=")]
    return sorted(nodes)


@pytest.mark.timeout(180)
def test_a_submitted_job_has_ranks_on_both_nodes(cluster: Cluster, tmp_path: Path) -> None:
    rows = 800
    with running_fleet(tmp_path / "fleet", plain_fleet(8), rows) as fleet:
        job = make_job(tmp_path / "job", fleet.table_path, downloader_parameters={"default_rate_limit": 10})
        job_id = submit(cluster, job, "--time=5")
        deadline = time.monotonic() + 60
        while not outcomes(job):
            assert time.monotonic() < deadline, cluster.printed(job_id)
            assert cluster.state(job_id) in {"PENDING", "RUNNING"}, cluster.printed(job_id)
            time.sleep(0.2)
        nodes = nodes_of_ranks(job_id)
        end = cluster.wait(job_id, timeout_s=90)
        log = fleet.finished_log()
    assert nodes == sorted([*NODES, *NODES])
    assert (end.state, end.exit_code) == ("COMPLETED", 0), cluster.printed(job_id)
    assert_every_row_once(job, rows)
    assert repeated_fetches(log) == 0


@pytest.mark.timeout(300)
def test_a_job_stops_softly_before_its_limit_and_the_next_one_completes_it(cluster: Cluster, tmp_path: Path) -> None:
    rows, rate, servers = 2_000, 5, 4
    alone_s = rows / rate / servers
    assert alone_s > 60
    with running_fleet(tmp_path / "fleet", plain_fleet(servers), rows) as fleet:
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            downloader_parameters={"default_rate_limit": rate},
            walltime={"margin_s": 20},
        )
        first = submit(cluster, job, "--time=1", NO_WARNING)
        end = cluster.wait(first, timeout_s=100)
        fetched_first = len(outcomes(job))
        second = submit(cluster, job, "--time=5", NO_WARNING)
        completed = cluster.wait(second, timeout_s=150)
        log = fleet.finished_log()
    LOGGER.info("%d of %d rows in %d s; the rest in %d s", fetched_first, rows, end.run_time_s, completed.run_time_s)
    assert (end.state, end.exit_code) == ("FAILED", 75), cluster.printed(first)
    assert end.run_time_s < 60
    assert "run the same command again" in cluster.printed(first)
    assert 0 < fetched_first < rows
    assert (completed.state, completed.exit_code) == ("COMPLETED", 0), cluster.printed(second)
    assert_every_row_once(job, rows)
    assert assert_bodies_as_served(job, fleet) == rows
    assert repeated_fetches(log) == 0
