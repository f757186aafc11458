"""Ignored servers: left out, counted, and back as soon as the ignored table no longer names them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ddmpi.config.config import parse
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, Orders
from ddmpi.errors import OutputError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output
from ddmpi.roles.coordinator.run_state import RunState
from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec, plain_fleet
from tests.whole.job import Job, MakeJob, outcomes, repeated_fetches, rows_of


def start(tmp_path: Path, ignored: str | None = None) -> RunState:
    """Initialize a run over one large server (25 rows in 3 batches), four small ones and two refused rows."""
    sizes = {"large.org": 25, "a.net": 2, "b.net": 3, "c.net": 1, "d.org": 2}
    urls = [f"http://{server}/{row}" for server, rows in sizes.items() for row in range(rows)]
    if not (tmp_path / "urls.txt").exists():
        (tmp_path / "urls.txt").write_text("\n".join([*urls, "x", "y"]))
    keys = {"path_to_input": str(tmp_path / "urls.txt"), "path_to_output_folder": str(tmp_path / "out")}
    keys |= {"downloader_parameters": {"batch_size": 10}, "profiling": {"min_rows": 5}}  # type: ignore[dict-item]
    config, layout = parse(keys, "test"), Layout(tmp_path / "out")
    lock = own_output(layout, {})
    layout.ignored.unlink(missing_ok=True)
    if ignored is not None:
        layout.ignored.write_text(ignored)
    reporting = InitCallbacks(lambda _: None, lambda _: None, lambda: False)
    state = initialize(config, layout, lock, Orders(), reporting)
    lock.release()
    return state


def by_server(state: RunState) -> dict[str, int]:
    """Rows that are to become final, by the batches' server_name."""
    rows: Counter[str] = Counter()
    for batch_id, count in enumerate(state.counts.rows.tolist()):
        rows[state.table.server_of(batch_id)] += count
    return dict(rows)


def test_rows_of_matching_servers_are_counted_apart(tmp_path: Path) -> None:
    state = start(tmp_path, "server_name\nlarge.org\n*.net\nabsent.org\n")
    assert by_server(state) == {"large.org": 0, MANY_SERVERS: 2, INVALID_SERVER: 2}
    assert (state.ignored_rows, state.counts.pending, state.table.ignored_server_count) == (31, 4, 4)
    assert not any(state.counts.is_open(batch_id) for batch_id in range(3))
    (pack,) = [batch_id for batch_id in range(len(state.table)) if state.table.server_of(batch_id) == MANY_SERVERS]
    assert state.ref(pack).ignored == ("a.net", "b.net", "c.net")
    assert state.counts.is_open(pack)


def test_servers_come_back_without_partitioning_anew(tmp_path: Path) -> None:
    start(tmp_path, "*.net\n")
    made_at = (tmp_path / "out/urls/batches.parquet").stat().st_mtime_ns
    state = start(tmp_path)
    assert (state.ignored_rows, state.counts.pending) == (0, 35)
    assert (tmp_path / "out/urls/batches.parquet").stat().st_mtime_ns == made_at


def test_an_ignored_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    layout = start(tmp_path).layout
    layout.ignored.write_bytes(b"\xff\xff\n")
    with pytest.raises(OutputError, match=r"ignored\.csv: cannot be read"):
        BatchTable(layout)


def servers_of(job: Job, text: str) -> None:
    job.output.mkdir(parents=True, exist_ok=True)
    (job.output / "ignored.csv").write_text(text)


@pytest.mark.parametrize(
    "small",
    [pytest.param(False, id="a server's own batches", marks=pytest.mark.slow), pytest.param(True, id="packed servers")],
)
def test_a_run_ends_complete_without_them_and_a_later_one_fetches_them(
    tmp_path: Path, new_job: MakeJob, small: bool
) -> None:
    rows, servers = 200, 5
    with running_fleet(tmp_path / "fleet", plain_fleet(servers), rows) as fleet:
        names = [spec.name(fleet.port) for spec in fleet.specs]
        profiling = {"min_rows": 60 if small else 20, "samples_per_server": 1}
        job = new_job(fleet.table_path, profiling=profiling)
        servers_of(job, f"{names[0]}\n{names[1]}\n")
        code, printed = job.run(2)
        assert code == 0, printed
        assert "Ignored: 80 rows on 2 servers, by ignored.csv" in printed
        assert sum(outcomes(job).values()) == 120
        for option in ("--verify", "--status"):
            code, printed = job.inspect(option)
            assert code == 0, printed
            assert "80" in printed.partition("ignored")[2 if option == "--status" else 0], printed

        # One comes back, one that is fetched already is ignored: what there is of it stays.
        servers_of(job, f"{names[1]}\n{names[2]}\n")
        assert job.inspect("--status")[0] == 75
        code, printed = job.run(1)
        assert code == 0, printed
        assert sum(outcomes(job).values()) == 160
        (job.output / "ignored.csv").unlink()
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert outcomes(job) == Counter(range(rows))
    assert job.inspect("--verify")[0] == 0
    assert repeated_fetches(log) == 0


@pytest.mark.slow
def test_a_table_that_the_config_names_counts_beside_the_ignored_one(tmp_path: Path, new_job: MakeJob) -> None:
    excluded = tmp_path / "excluded.csv"
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 40) as fleet:
        names = [spec.name(fleet.port) for spec in fleet.specs]
        job = new_job(fleet.table_path, excluded_servers_path=str(excluded))
        code, printed = job.run(2)
        assert code == 2, printed
        assert f"{excluded}: cannot be read" in printed.replace("\n", "")

        excluded.write_text(f"server_name\n{names[0]}\n")
        servers_of(job, f"{names[1]}\n")
        code, printed = job.run(2)
        assert code == 0, printed
        assert "Ignored: 20 rows on 2 servers, by ignored.csv or excluded.csv" in printed
        assert sum(outcomes(job).values()) == 20
        assert job.inspect("--verify")[0] == 0

        excluded.write_text("server_name\n")
        assert job.run(2)[0] == 0
    assert sum(outcomes(job).values()) == 30


@pytest.mark.slow
def test_errors_of_an_ignored_server_are_not_retried(tmp_path: Path, new_job: MakeJob) -> None:
    first, second = plain_fleet(2)
    with running_fleet(tmp_path / "fleet", [first, ServerSpec(second.address, not_found_share=1.0)], 40) as fleet:
        job = new_job(fleet.table_path)
        assert job.run(2)[0] == 0
        servers_of(job, f"{fleet.specs[1].name(fleet.port)}\n")
        code, printed = job.run(2, "--retry-failed")
        requests = [event for event in fleet.finished_log() if event.kind is EventKind.REQUEST]
    assert code == 0, printed
    assert outcomes(job) == Counter(range(40))
    assert len(rows_of(job.output / "errors", ["row_number"])) == 20
    assert len(requests) == 40
