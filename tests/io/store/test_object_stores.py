"""The whole program with its input and its results in an object store: SeaweedFS, which others wrote."""

from __future__ import annotations

import io
import logging
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import ddmpi
from ddmpi.errors import SetupError, StorageError
from ddmpi.io.store.object_store import open_store
from ddmpi.io.store.part_store import PartStore, part_store
from tests.fleet.images import body_of
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.fleet.table import path_of
from tests.io.store.seaweed import KEYS, ObjectStore, running_store
from tests.whole.job import Job, finish, make_job, ranks_of, wait_until

pytestmark = pytest.mark.slow
LOGGER = logging.getLogger(__name__)
ROWS = 3_000


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with running_store() as store:
        yield store


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path / "fleet", plain_fleet(20), ROWS) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    be("writer", monkeypatch)
    part_store.cache_clear()


def be(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = KEYS[who]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def publishing_job(folder: Path, fleet: RunningFleet, store: ObjectStore, prefix: str, **changes: Any) -> Job:
    return make_job(folder, fleet.table_path, publish={"to": store.uri(prefix)}, **changes)


def published(store: ObjectStore, prefix: str) -> pa.Table:
    """What any reader of Parquet finds in the bucket."""
    images = ds.dataset(f"bucket/{prefix}/images", filesystem=store.files(), partitioning="hive")
    return images.to_table(columns=["row_number", "final_url", "image"])


def assert_each_row_once_as_served(store: ObjectStore, prefix: str, fleet: RunningFleet) -> None:
    by_address = {spec.address: spec for spec in fleet.specs}
    table = published(store, prefix)
    assert Counter(table.column("row_number").to_pylist()) == Counter(range(ROWS))
    for row in table.to_pylist():
        address = row["final_url"].split("/")[2].partition(":")[0]
        assert row["image"] == body_of(by_address[address], path_of(row["row_number"]))


def local_images(job: Job) -> list[Path]:
    return sorted((job.output / "images").rglob("*.parquet"))


def test_input_and_results_in_a_bucket(fleet: RunningFleet, tmp_path: Path, store: ObjectStore) -> None:
    table = pq.read_table(fleet.table_path)
    for number in range(3):
        with store.files().open_output_stream(f"bucket/tables/part={number}/urls.parquet") as stream:
            pq.write_table(table.slice(number * 1_000, 1_000), stream)
    job = publishing_job(tmp_path / "job", fleet, store, "whole/set", keep_columns=["part"])
    job.config["path_to_input"] = store.uri("tables/*/*.parquet")
    code, printed = job.run(3)
    assert code == 0, printed
    assert_each_row_once_as_served(store, "whole/set", fleet)

    thin = local_images(job)
    assert {path.relative_to(job.output).as_posix() for path in thin} < store.objects("whole/set").keys()
    assert all("image" not in pq.read_schema(path).names for path in thin)
    size_bytes, objects_bytes = sum(p.stat().st_size for p in thin), sum(store.objects("whole/set/images").values())
    LOGGER.info("%d bytes in the bucket, %d of them left on disk", objects_bytes, size_bytes)

    code, printed = job.run(1, "--verify", "--rehash")
    assert code == 0, printed
    results = ddmpi.open_results(job.output)
    images = results.to_table(columns=["row_number", "image", "part"], filter=pc.field("outcome") == "success")
    assert images.num_rows == ROWS
    assert all(images.column("image").to_pylist())
    assert set(images.column("part").to_pylist()) == {"0", "1", "2"}

    assert job.run(2)[0] == 0  # the same again changes nothing
    assert_each_row_once_as_served(store, "whole/set", fleet)


def test_what_is_wrong_in_the_bucket_is_found(fleet: RunningFleet, tmp_path: Path, store: ObjectStore) -> None:
    job = publishing_job(tmp_path / "job", fleet, store, "damaged")
    assert job.run(2)[0] == 0
    names = sorted(store.objects("damaged/images"))
    store.files().delete_file(f"bucket/damaged/images/{names[0]}")
    with store.files().open_output_stream(f"bucket/damaged/images/{names[1]}") as stream:
        stream.write(b"short")
    with store.files().open_output_stream(f"bucket/damaged/images/{names[2]}.copy") as stream:
        stream.write(b"strange")
    code, printed = job.run(1, "--verify")
    assert code == 75
    assert f"images/{names[0]}: is not in the store" in printed
    assert f"images/{names[1]}: has 5 bytes in the store" in printed
    assert f"in the store, but no part of this job: images/{names[2]}.copy" in printed

    code, printed = job.run(2, "--reset-batched", "--yes-delete-results")
    assert code == 0, printed
    assert_each_row_once_as_served(store, "damaged", fleet)
    assert job.run(1, "--verify")[0] == 0


@pytest.mark.parametrize("seed", range(2))
def test_killed_while_it_publishes(fleet: RunningFleet, tmp_path: Path, store: ObjectStore, seed: int) -> None:
    rng = random.Random(seed)
    prefix = f"killed/{seed}"
    job = publishing_job(tmp_path / "job", fleet, store, prefix, downloader_parameters={"default_rate_limit": 25})
    killed = 0
    for ranks in rng.sample([1, 2, 3, 4], 3):
        there = len(store.objects(prefix))
        process = job.start(ranks)
        wait_until(lambda there=there: len(store.objects(prefix)) > there + 60, process)  # type: ignore[misc]
        pause_s = rng.uniform(0.0, 0.5)
        deadline = time.monotonic() + pause_s
        wait_until(lambda deadline=deadline: time.monotonic() >= deadline, process)  # type: ignore[misc]
        for pid in [*ranks_of(process), process.pid]:
            os.kill(pid, signal.SIGKILL)
        finish(process)
        # What is there is whole and counted at most once, at every moment.
        rows = published(store, prefix).column("row_number").to_pylist()
        assert len(rows) == len(set(rows))
        killed += 1
        LOGGER.info("killed %d ranks after %.2f s with %d rows in the bucket", ranks, pause_s, len(rows))
    code, printed = job.run(rng.choice([2, 3, 5]))
    assert killed == 3
    assert code == 0, printed
    assert_each_row_once_as_served(store, prefix, fleet)
    code, printed = job.run(1, "--verify", "--rehash")
    assert code == 0, printed


@pytest.mark.timeout(240)
def test_a_store_that_goes_away_stops_the_run_softly(tmp_path: Path, fleet: RunningFleet) -> None:
    with running_store() as store:
        job = publishing_job(tmp_path / "job", fleet, store, "away", downloader_parameters={"default_rate_limit": 20})
        process = job.start(3)
        wait_until(lambda: len(store.objects("away")) > 3, process)
        store.stop()
        stopped_at = time.monotonic()
        code, printed = finish(process)
        LOGGER.info("ended %.1f s after the store", time.monotonic() - stopped_at)
        assert code == 75, printed
        assert re.search("cannot (upload|ask for) s3://bucket/away/", printed), printed
        assert "Traceback" not in printed
        code, printed = job.run(2)
        assert code == 2, printed
        assert "the store cannot be reached" in printed
        store.start()
        code, printed = job.run(2)
        assert code == 0, printed
        assert_each_row_once_as_served(store, "away", fleet)


@pytest.mark.parametrize(
    ("changes", "who", "message"),
    [
        ({"publish": "s3://nowhere/set"}, "writer", "no such bucket"),
        ({"publish": "s3://bucket/readonly"}, "reader", "access was denied; credentials come from the environment"),
        ({"path_to_input": "s3://nowhere/urls.csv"}, "writer", "no such bucket"),
        ({"path_to_input": "s3://bucket/nothing/*.csv"}, "writer", "s3://bucket/nothing/"),
        ({"path_to_input": "s3://bucket/urls.csv"}, "nobody", "access was denied; credentials come from"),
    ],
)
def test_what_does_not_work_is_told_before_anything_starts(
    tmp_path: Path,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    who: str,
    message: str,
) -> None:
    (tmp_path / "urls.csv").write_text("identifier\nhttp://127.0.0.1:1/x.jpg\n")
    job = make_job(tmp_path / "job", tmp_path / "urls.csv")
    for key, uri in changes.items():
        full = uri + store.options
        job.config[key] = {"to": full} if key == "publish" else full
    if who == "nobody":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    else:
        be(who, monkeypatch)
    code, printed = job.run(2)
    assert code == 2, printed
    assert message in printed
    assert "secret" not in printed


def test_two_jobs_do_not_share_a_prefix(fleet: RunningFleet, tmp_path: Path, store: ObjectStore) -> None:
    assert publishing_job(tmp_path / "first", fleet, store, "shared").run(1)[0] == 0
    code, printed = publishing_job(tmp_path / "second", fleet, store, "shared").run(1)
    assert code == 2
    assert "belongs to another output folder" in printed


class _BreaksOff(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise OSError(5, "Input/output error")
        return data


def test_an_object_of_several_pieces_is_whole_or_not_there(store: ObjectStore) -> None:
    files, base = open_store(store.uri("pieces"))
    target = PartStore(files, base, "s3://bucket/pieces")
    data = random.Random(1).randbytes(33 << 20)
    with pytest.raises(StorageError, match=r"cannot upload s3://bucket/pieces/a: .*Input/output error"):
        target.put("a", _BreaksOff(data), len(data) + 1)
    assert target.size("a") is None
    target.put("a", io.BytesIO(data), len(data))
    with target.open("a") as file:
        assert file.read() == data
    target.clear("")
    assert store.objects("pieces") == {}


def test_a_bucket_is_named(store: ObjectStore) -> None:
    with pytest.raises(SetupError, match="no bucket"):
        open_store("s3://" + store.options)
