"""Parts in a store (here a folder): the order of things, what a killed run leaves, and who owns a prefix."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import OutputError, StorageError
from ddmpi.export.plan import reading
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.results import publishing
from ddmpi.io.results.dataset import current_outcomes
from ddmpi.io.results.publishing import Publisher, claim, is_thin, object_bytes
from ddmpi.io.results.verification import check_batch
from ddmpi.io.store.part_store import PartStore
from ddmpi.io.store.uploads import Uploads
from tests.io.result_data import Reader, make_batch, write_outcomes, write_refresh

BATCH = make_batch(rows=10)
URI = "s3://bucket/set"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PartStore:
    """Makes the missing folders of a name, as an object store needs none."""
    (tmp_path / "store").mkdir()
    store = Folder(pyarrow.fs.LocalFileSystem(), str(tmp_path / "store"), URI)
    monkeypatch.setattr(publishing, "part_store", lambda _: store)
    return store


class Folder(PartStore):
    def put(self, name: str, file: io.BufferedIOBase, size_bytes: int) -> None:  # type: ignore[override]
        Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
        super().put(name, file, size_bytes)  # type: ignore[arg-type]


@pytest.fixture
def layout(tmp_path: Path, store: PartStore) -> Layout:
    layout = Layout(tmp_path / "out")
    layout.root.mkdir()
    claim(layout, URI)
    open_epoch(layout, 1)
    return layout


def written(layout: Layout) -> tuple[str, str]:
    """A part of successes and one of errors, durable on disk."""
    write_outcomes(layout, BATCH, successes=range(7), errors=range(7, 10))
    successes, errors = parts_of(layout, BATCH)
    return successes, errors


def test_a_published_part_leaves_its_table_without_images(layout: Layout, store: PartStore) -> None:
    part, _ = written(layout)
    path = layout.root / part
    full = pq.read_table(path, partitioning=None)
    size_bytes = path.stat().st_size
    Publisher(layout, store, 1).publish(part, size_bytes)
    assert pq.read_table(path, partitioning=None).equals(full.drop_columns(["image"]))
    assert is_thin(path)
    assert object_bytes(path) == size_bytes == store.size(part)
    assert pq.read_table(store.open(part)).equals(full)
    assert not list(layout.epoch_temporary(1).iterdir())


def test_what_a_killed_run_left_is_settled_once(layout: Layout, store: PartStore) -> None:
    parts = written(layout)
    open_epoch(layout, 2)
    publisher = Publisher(layout, store, 2)
    publisher.settle(parts)
    there = {name: store.size(name) for name in parts}
    assert there == {name: object_bytes(layout.root / name) for name in parts}
    before = {name: Path(store.path(name)).stat().st_mtime_ns for name in parts}
    publisher.settle(parts)
    assert {name: Path(store.path(name)).stat().st_mtime_ns for name in parts} == before


def test_an_orphan_does_not_upload_what_is_thin_by_now(layout: Layout, store: PartStore) -> None:
    part, _ = written(layout)
    size_bytes = (layout.root / part).stat().st_size
    open_epoch(layout, 2)
    Publisher(layout, store, 2).settle([part])
    with pytest.raises(StorageError, match="another run has taken over"):
        Publisher(layout, store, 1).publish(part, size_bytes)
    assert store.size(part) == size_bytes


def test_a_store_that_fails_leaves_the_part_as_it_was(
    layout: Layout, store: PartStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, _ = written(layout)
    data = (layout.root / part).read_bytes()
    monkeypatch.setattr(store, "size", lambda _: len(data) - 1)
    with pytest.raises(StorageError, match=f"cannot upload {URI}/images/.*: the object has"):
        Publisher(layout, store, 1).publish(part, len(data))
    assert (layout.root / part).read_bytes() == data


def test_readers_find_the_images_where_they_are(layout: Layout, store: PartStore) -> None:
    parts = written(layout)
    Publisher(layout, store, 1).settle(parts)
    table = current_outcomes(layout).to_table(filter=pc.field("outcome") == "success")
    assert table.num_rows == 7
    assert all(table.column("image").to_pylist())
    with reading(layout, parts[0]) as source:
        assert pq.read_table(source).column("image").null_count == 0


def test_verification_compares_with_the_store(layout: Layout, store: PartStore) -> None:
    parts = written(layout)
    reader = Reader()
    assert check_batch(layout, reader, BATCH, 0, objects={}).unreadable[0].endswith("yet: start the job again")
    Publisher(layout, store, 1).settle(parts)
    objects = {name: store.size(name) or 0 for name in parts}
    check = check_batch(layout, reader, BATCH, 0, rehash="sha256", objects=objects)
    assert (check.ok, check.successes, check.errors) == (True, 7, 3)
    found = check_batch(layout, reader, BATCH, 0, objects={parts[1]: 1}).unreadable
    assert found[0] == f"{parts[0]}: is not in the store"
    assert found[1].startswith(f"{parts[1]}: has 1 bytes in the store, not ")
    Path(store.path(parts[0])).unlink()
    assert "cannot read s3://bucket/set" in check_batch(layout, reader, BATCH, 0, rehash="sha256").unreadable[0]


def test_a_prefix_belongs_to_one_folder(layout: Layout, tmp_path: Path) -> None:
    claim(layout, URI + "?region=eu-west-1")  # options may change
    with pytest.raises(OutputError, match=r"change publish\.to back"):
        claim(layout, "s3://bucket/other")
    with pytest.raises(OutputError, match=r"set publish\.to to it again"):
        claim(layout, None)
    other = Layout(tmp_path / "other")
    with pytest.raises(OutputError, match="belongs to another output folder"):
        claim(other, URI)
    assert not other.publication.exists()


def test_a_folder_with_results_is_not_published_later(tmp_path: Path, store: PartStore) -> None:
    layout = Layout(tmp_path / "out")
    write_outcomes(layout, BATCH, successes=range(7), errors=range(0))
    with pytest.raises(OutputError, match=r"publish\.to needs a new folder"):
        claim(layout, URI)
    assert store.owner() is None


def test_events_pass_in_order_after_their_uploads() -> None:
    emitted: list[str] = []
    may_end = threading.Event()
    uploads: Uploads[str] = Uploads(emitted.append, lambda: emitted.append("failed"))
    uploads.add("slow", _waiting(may_end))
    uploads.add("quick", lambda: None)
    uploads.add("closed")
    assert emitted == []
    may_end.set()
    uploads.finish()
    assert emitted == ["slow", "quick", "closed"]
    uploads.close()


def test_after_a_failed_upload_nothing_passes() -> None:
    emitted: list[str] = []
    failures: list[int] = []
    uploads: Uploads[str] = Uploads(emitted.append, lambda: failures.append(1))

    def fail() -> None:
        raise StorageError("the store is gone")

    uploads.add("first", lambda: None)
    uploads.add("broken", fail)
    uploads.add("later", lambda: None)
    uploads.add("closed")
    with pytest.raises(StorageError, match="the store is gone"):
        uploads.finish()
    assert (emitted, failures) == (["first"], [1])
    uploads.close()


def _waiting(may_end: threading.Event) -> Callable[[], None]:
    def upload() -> None:
        assert may_end.wait(10)

    return upload


def test_checks_are_published_like_errors_and_new_files_like_all_others(layout: Layout, store: PartStore) -> None:
    parts = written(layout)
    Publisher(layout, store, 1).settle(parts)
    write_refresh(layout, BATCH, changed=[0], unchanged=[1], gone=[2])
    publisher = Publisher(layout, store, 2)
    publisher.settle(parts_of(layout, BATCH))
    newest = [part for part in parts_of(layout, BATCH) if "e0002" in part]
    assert [is_thin(layout.root / part) for part in newest] == [True, False]
    objects = {part: store.size(part) or 0 for part in parts_of(layout, BATCH)}
    assert all(objects.values())
    assert check_batch(layout, Reader(), BATCH, 0, objects=objects).ok
    rows = current_outcomes(layout).to_table(columns=["row_number", "image"]).sort_by("row_number").to_pylist()
    assert rows[0]["image"] == b"body of row 0 in run 2 " * 20
    assert len(rows) == 10
    publisher.clear()
    assert store.sizes("checks") == {}
