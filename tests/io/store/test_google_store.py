"""The whole program with its input and its results in Google Cloud Storage, as an emulator plays it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

import ddmpi
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.io.store.google_store import GoogleStore, running_google_store
from tests.whole.job import Job, finish, make_job, ranks_of, wait_until

pytestmark = pytest.mark.slow
ROWS = 400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GoogleStore]:
    with running_google_store(tmp_path) as store:
        yield store


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path / "fleet", plain_fleet(8), ROWS) as fleet:
        yield fleet


@pytest.fixture
def job(tmp_path: Path, fleet: RunningFleet, store: GoogleStore) -> Iterator[Job]:
    """Its input is in the bucket, and so are its results to be."""
    with store.files().open_output_stream("bucket/tables/urls.parquet") as stream:
        stream.write(fleet.table_path.read_bytes())
    made = make_job(
        tmp_path / "job",
        fleet.table_path,
        publish={"to": store.uri("results")},
        downloader_parameters={"default_rate_limit": 20},
    )
    made.config["path_to_input"] = store.uri("tables/*.parquet")
    yield made
    made.close()


def published_rows(store: GoogleStore) -> Counter[int]:
    images = ds.dataset("bucket/results/images", filesystem=store.files(), partitioning="hive")
    return Counter(images.to_table(columns=["row_number"]).column("row_number").to_numpy().tolist())


def test_killed_while_it_publishes_and_gone_on_with(job: Job, store: GoogleStore) -> None:
    process = job.start(2)
    wait_until(lambda: len(store.objects("results/images")) > 8, process)
    for pid in [*ranks_of(process), process.pid]:
        os.kill(pid, signal.SIGKILL)
    finish(process)
    assert max(published_rows(store).values()) == 1, "whole, and at most once, at every moment"
    code, printed = job.run(3)
    assert code == 0, printed
    assert published_rows(store) == Counter(range(ROWS))
    code, printed = job.run(1, "--verify", "--rehash")
    assert code == 0, printed
    results = ddmpi.open_results(job.output)
    images = results.to_table(columns=["row_number", "image"], filter=pc.field("outcome") == "success")
    assert images.num_rows == ROWS
    assert all(images.column("image").to_pylist())


def test_a_store_that_goes_away_stops_the_run_softly(job: Job, store: GoogleStore) -> None:
    process = job.start(2)
    wait_until(lambda: len(store.objects("results/images")) > 3, process)
    store.stop()
    code, printed = finish(process)
    assert code == 75, printed
    code, printed = job.run(1)
    assert code == 2, printed
    assert "gs://anonymous@bucket/" in printed
