"""``sbatch run.sh CONFIG.yaml`` on a real Slurm of two nodes: walltime, cancellation, a warning signal, a lost node."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chaos.evidence import examine, repeated_requests
from tests.cluster.processes import ranks_of_job
from tests.cluster.slurm import NODES, Cluster, ClusterError, running_cluster, wait_for
from tests.cluster.walltime import NO_WARNING, RUN_SH, SLURM_SBATCH, await_last_end, run_through, submit
from tests.fleet.log import NOTE_LIMITED, requests_during_pause
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import Mode, ServerSpec, plain_fleet
from tests.whole.job import ROOT, Job, assert_every_row_once, make_job, outcomes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LOGGER = logging.getLogger(__name__)

ROWS = 800
SERVERS = 8
WAITING_ROWS = 120
WALLTIMES = 2
NEWS_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path / "fleet", plain_fleet(SERVERS), ROWS) as running:
        yield running


@pytest.fixture
def job(tmp_path: Path, fleet: RunningFleet) -> Job:
    return make_job(tmp_path / "job", fleet.table_path, downloader_parameters={"default_rate_limit": 5})


def await_first_part(cluster: Cluster, job: Job, job_id: str) -> None:
    wait_for(lambda: bool(outcomes(job)), NEWS_TIMEOUT_S, lambda: cluster.printed(job_id))
    assert cluster.state(job_id) == "RUNNING"


def assert_completed(cluster: Cluster, job: Job, fleet: RunningFleet, job_id: str) -> int:
    """All rows are there, as served; how many were fetched twice."""
    end = await_last_end(cluster, job_id, timeout_s=240)
    assert (end.state, end.exit_code) == ("COMPLETED", 0), cluster.printed(job_id)
    assert_every_row_once(job, ROWS)
    assert examine(job, fleet).is_sound
    return repeated_requests(fleet.finished_log())


def test_a_submitted_job_has_ranks_on_both_nodes(cluster: Cluster, job: Job, fleet: RunningFleet) -> None:
    job_id = submit(cluster, job, "--time=5")
    await_first_part(cluster, job, job_id)
    assert sorted(ranks_of_job(job_id).values()) == sorted([*NODES, *NODES])
    assert assert_completed(cluster, job, fleet, job_id) == 0


def test_a_job_goes_back_into_the_queue_until_it_is_done(cluster: Cluster, tmp_path: Path) -> None:
    end, result, printed = run_through(cluster, tmp_path, WALLTIMES)
    LOGGER.info("%s\n%s", result, printed)
    assert (end.state, end.exit_code) == ("COMPLETED", 0), printed
    assert result.walltimes >= WALLTIMES
    assert result.is_clean
    assert printed.count("run the same command again") == result.walltimes


def test_a_job_that_waits_for_servers_goes_back_until_it_is_done(cluster: Cluster, tmp_path: Path) -> None:
    """A dead host, one that answers 403 to everything, one that asks for pauses of 30 s, and nobody at the keyboard."""
    pausing = ServerSpec("127.30.1.3", rate_limit_per_s=0.2, burst=1, retry_after_s=30, row_weight=0.05)
    specs = [
        *plain_fleet(2),
        ServerSpec("127.30.1.1", mode=Mode.REFUSED, row_weight=0.4),
        ServerSpec("127.30.1.2", refused_prefix="/", refused_status=403, row_weight=0.4),
        pausing,
    ]
    with running_fleet(tmp_path / "fleet", specs, WAITING_ROWS) as fleet:
        # No run waits: each ends as soon as only servers are left that are waited for.
        job = make_job(tmp_path / "job", fleet.table_path, final_wait_s=0, parked_wait_s=0)
        job_id = submit(cluster, job, "--time=5", NO_WARNING)
        end = cluster.wait(job_id, timeout_s=400)
        log = fleet.finished_log()
    printed = cluster.printed(job_id)
    assert (end.state, end.exit_code) == ("COMPLETED", 0), printed
    assert_every_row_once(job, WAITING_ROWS)
    assert 1 <= cluster.restarts(job_id) == printed.count("goes back into the queue by itself")
    assert any(event.note == NOTE_LIMITED for event in log), "it has asked for a pause"
    assert requests_during_pause(log, pausing.name(fleet.port), grace_s=0.5) == 0


def test_a_canceled_job_stops_softly_and_stays_canceled(cluster: Cluster, job: Job, fleet: RunningFleet) -> None:
    job_id = submit(cluster, job, "--time=5", NO_WARNING)
    await_first_part(cluster, job, job_id)
    cluster.call("scancel", job_id)
    end = cluster.wait(job_id, timeout_s=60)
    assert end.state == "CANCELLED", cluster.printed(job_id)
    assert cluster.restarts(job_id) == 0
    assert 0 < len(outcomes(job)) < ROWS
    assert assert_completed(cluster, job, fleet, submit(cluster, job, "--time=5", NO_WARNING)) == 0


def test_srun_without_an_mpi_is_refused_before_any_request(cluster: Cluster, job: Job, fleet: RunningFleet) -> None:
    config = job.folder / "config.yaml"
    config.write_text(yaml.safe_dump(job.config))
    srun = ("srun", "--mpi=none", f"--nodes={len(NODES)}", f"--ntasks={2 * len(NODES)}")
    with pytest.raises(ClusterError, match="exit code 2") as refused:
        cluster.call(*srun, sys.executable, "-m", "ddmpi", str(config), folder=ROOT)
    assert 1 <= str(refused.value).count("MPI sees only one") <= len(NODES), "once on each node"
    assert not job.output.exists()
    assert not fleet.finished_log()


@pytest.mark.parametrize("script", [RUN_SH, SLURM_SBATCH], ids=lambda path: path.name)
def test_a_warning_signal_stops_softly(cluster: Cluster, job: Job, fleet: RunningFleet, script: Path) -> None:
    # 100 s: Slurm looks at limits twice a minute, and a busy machine looks late.
    job.config["downloader_parameters"]["default_rate_limit"] = 1
    job_id = submit(cluster, job, "--time=10", "--signal=B:USR1@60", script=script)
    await_first_part(cluster, job, job_id)
    # The signal is due a minute before the end, and comes up to a minute early: at Slurm's next look.
    cluster.call("scontrol", "update", f"JobId={job_id}", "TimeLimit=2")
    wait_for(lambda: cluster.restarts(job_id) == 1, 110.0, lambda: cluster.printed(job_id))
    assert "run the same command again" in cluster.printed(job_id)
    assert "stopping all ranks: signal" in (job.output / "logs/rank-00000.log").read_text()
    assert 0 < len(outcomes(job)) < ROWS
    cluster.call("scontrol", "update", f"JobId={job_id}", "TimeLimit=10")
    job.config["downloader_parameters"]["default_rate_limit"] = 20
    (job.folder / "config.yaml").write_text(yaml.safe_dump(job.config))
    assert assert_completed(cluster, job, fleet, job_id) == 0


def test_a_lost_node_costs_seconds_of_work(cluster: Cluster, job: Job, fleet: RunningFleet) -> None:
    job_id = submit(cluster, job, "--time=5", NO_WARNING)
    await_first_part(cluster, job, job_id)
    cluster.kill_node(NODES[1], job_id)
    wait_for(lambda: cluster.restarts(job_id) == 1, NEWS_TIMEOUT_S, lambda: cluster.printed(job_id))
    cluster.start_node(NODES[1])
    repeated = assert_completed(cluster, job, fleet, job_id)
    LOGGER.info("%d of %d rows fetched twice", repeated, ROWS)
