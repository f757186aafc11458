"""Results: what is in the parts, when they appear, how much memory they hold, and what happens when the disk fails."""

from __future__ import annotations

import errno
import hashlib
import itertools
import math
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ddmpi.core.protocol import PartReport
from ddmpi.core.records import BatchRef, ErrorKind, Failure, Mirrors
from ddmpi.errors import ConfigError, StorageError
from ddmpi.io.folder import durable
from ddmpi.io.folder.layout import Layout, parse_part_name
from ddmpi.io.folder.placeholders import Placeholder, write_placeholders
from ddmpi.io.results import parts
from ddmpi.io.results.outcomes import outcomes_of
from ddmpi.io.results.rows import ErrorRow, SuccessRow
from ddmpi.io.results.schema import holders_of, result_schema
from ddmpi.io.results.writer import (
    HAND_OVER_BYTES,
    HAND_OVER_S,
    PartsClosed,
    ResultWriter,
    WriterFailed,
)
from tests.io.result_data import (
    FETCHED_AT,
    REFRESHED_AT,
    Reader,
    closed,
    committed,
    first_row_number,
    make_answer,
    make_batch,
    make_failure,
    make_image,
    open_writer,
    refreshed,
    row_numbers,
    write_outcomes,
    write_refresh,
)
from tests.whole.faults import Faults

# fmt: off
SUCCESS_COLUMNS = [
    "uuid", "source_id", "identifier", "is_license_full", "license", "source", "title", "hashsum_original",
    "hashsum_resized", "original_size", "resized_size", "image", "status", "final_url", "content_type", "bytes",
    "etag", "last_modified", "attempts", "fetched_at", "total_ms", "ttfb_ms", "ip", "usage_signals", "warnings",
    "placeholder",
]
ERROR_COLUMNS = [
    "uuid", "source_id", "identifier", "retry_count", "error_code", "error_kind", "error_msg", "final_url",
    "fetched_at", "usage_signals",
]
# fmt: on


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "out")


def files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def read_part(layout: Layout, part: PartReport) -> list[dict[str, object]]:
    table = pq.read_table(layout.root / part.path, partitioning=None)
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


TICKETS = itertools.count(1)


def wait_for_close(
    writer: ResultWriter, woken: threading.Event, batch_ids: Sequence[int] | None = None
) -> list[PartReport]:
    """Close parts; what is committed until they are durable, as the loop would gather it: woken by ``on_event``."""
    ticket = next(TICKETS)
    writer.close_parts(ticket, batch_ids)
    events = writer.events()
    while ticket not in closed(events):
        assert woken.wait(timeout=30)
        woken.clear()
        events += writer.events()
        assert not [event for event in events if isinstance(event, WriterFailed)], events
    return committed(events)


def test_schemas_have_the_columns_of_the_contract_in_their_order() -> None:
    kept = pa.field("taxon", pa.int16())
    assert result_schema("successes", [kept]).names == [*SUCCESS_COLUMNS, "row_number", "taxon"]
    assert result_schema("errors", [kept]).names == [*ERROR_COLUMNS, "row_number", "taxon"]


@pytest.mark.parametrize("name", ["status", "row_number", "image"])
def test_a_kept_column_must_not_hide_one_of_ours(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        result_schema("successes", [pa.field(name, pa.string())])


def test_a_success_is_stored_as_it_was_served(layout: Layout) -> None:
    batch = make_batch()
    body = make_image(30, 20)
    writer = open_writer(layout, Reader(extra={"taxon": pa.int16()}), keep_columns=["taxon"], epoch=3, rank=12)
    answer = replace(make_answer(6, body, attempt=2), usage_signals="x-robots-tag: noindex")
    answer.warnings = "content-encoding ignored: binary"
    writer.success(batch, (6,), answer)
    writer.stop()
    (part,) = committed(writer.events())
    name = parse_part_name(Path(part.path).name)
    assert name is not None
    assert (name.kind, name.epoch, name.rank) == ("successes", 3, 12)
    assert part.path.startswith("images/server_name=img.example.org%3A8080/partition_id=0/")
    assert (part.batch_id, part.is_errors, part.rows, part.kinds) == (0, False, 1, {})
    assert part.bytes == (layout.root / part.path).stat().st_size
    digest = hashlib.sha256(body).hexdigest()
    (row,) = read_part(layout, part)
    assert row == {
        "uuid": "uuid-6",
        "source_id": "source-6",
        "identifier": "http://img.example.org:8080/6",
        "is_license_full": True,
        "license": "CC0",
        "source": "museum",
        "title": "a title",
        "hashsum_original": digest,
        "hashsum_resized": None,
        "original_size": [20, 30],
        "resized_size": None,
        "image": body,
        "status": 200,
        "final_url": "http://h/6",
        "content_type": "image/jpeg",
        "bytes": len(body),
        "etag": '"6"',
        "last_modified": None,
        "attempts": 2,
        "fetched_at": datetime.fromtimestamp(FETCHED_AT, timezone.utc),
        "total_ms": pytest.approx(3.0),
        "ttfb_ms": pytest.approx(2.0),
        "ip": "127.0.0.1",
        "usage_signals": "x-robots-tag: noindex",
        "warnings": "content-encoding ignored: binary",
        "placeholder": False,
        "row_number": 6,
        "taxon": 6,
    }
    table = pq.read_schema(layout.root / part.path)
    assert table == result_schema("successes", [pa.field("taxon", pa.int16())])


def test_is_license_full_wants_all_three_and_not_empty(layout: Layout) -> None:
    (part,) = write_outcomes(layout, make_batch(), successes=[0, 1, 2])
    assert [row["is_license_full"] for row in read_part(layout, part)] == [True, False, False]


def test_errors_are_stored_and_counted_by_kind(layout: Layout) -> None:
    batch = make_batch(rows=10)
    writer = open_writer(layout)
    writer.error(batch, (3,), make_failure(), make_answer(3, b"<html>"), attempts=3)
    writer.error(batch, (4,), Failure(ErrorKind.BAD_URL, -2, "bad_scheme: ftp"), None, attempts=0, usage_signals="said")
    writer.error(batch, (5,), make_failure(), make_answer(5, b""), attempts=1)
    writer.stop()
    (part,) = committed(writer.events())
    assert (part.is_errors, part.rows, part.kinds) == (True, 3, {"http_status": 2, "bad_url": 1})
    assert part.path.startswith("errors/")
    first, second, _ = read_part(layout, part)
    assert first == {
        "uuid": "uuid-3",
        "source_id": None,
        "identifier": "http://img.example.org:8080/3",
        "retry_count": 2,
        "error_code": 404,
        "error_kind": "http_status",
        "error_msg": "not found",
        "final_url": "http://h/3",
        "fetched_at": datetime.fromtimestamp(FETCHED_AT, timezone.utc),
        "usage_signals": None,
        "row_number": 3,
    }
    assert (second["retry_count"], second["final_url"], second["fetched_at"]) == (0, None, None)
    assert second["usage_signals"] == "said"


def test_text_that_is_not_unicode_does_not_end_the_run(layout: Layout) -> None:
    writer = open_writer(layout)
    answer = make_answer(0, b"x")
    answer.etag = '"\udcff"'
    answer.content_type = "image/\x00jpeg"
    writer.success(make_batch(), (0,), answer)
    writer.stop()
    (part,) = committed(writer.events())
    (row,) = read_part(layout, part)
    assert (row["etag"], row["content_type"]) == ('"?"', "image/\x00jpeg")


def test_the_image_tree_is_a_clean_dataset(layout: Layout) -> None:
    for epoch, server_name in enumerate(["a.example", "b.example:81"], start=1):
        write_outcomes(layout, make_batch(epoch, server_name=server_name), successes=[0, 1], errors=[2], epoch=epoch)
    for tree, rows in ((layout.images, 4), (layout.errors, 2)):
        table = ds.dataset(tree, partitioning="hive").to_table()
        assert table.num_rows == rows
        assert set(table.column("server_name").to_pylist()) == {"a.example", "b.example:81"}
        assert all(path.suffix == ".parquet" for path in files_under(tree))
    assert files_under(layout.temporary) == []


def test_bodies_are_stored_plainly_and_pages_have_checksums(layout: Layout) -> None:
    (part,) = write_outcomes(layout, make_batch(), successes=range(50))
    group = pq.ParquetFile(layout.root / part.path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["image"].compression == "UNCOMPRESSED"
    assert not columns["image"].has_dictionary_page
    assert not columns["image"].is_stats_set
    assert columns["identifier"].compression == "ZSTD"
    assert not columns["identifier"].has_dictionary_page
    assert columns["content_type"].has_dictionary_page
    assert columns["original_size.list.element"].compression == "UNCOMPRESSED", "numbers are few and repeat"
    assert columns["row_number"].is_stats_set


def test_close_parts_closes_what_it_was_asked_for_and_says_when(layout: Layout) -> None:
    woken = threading.Event()
    writer = open_writer(layout, on_event=woken.set)
    batches = [make_batch(i) for i in range(3)]
    for batch in batches:
        writer.success(batch, (0,), make_answer(0, b"x"))
        writer.error(batch, (1,), make_failure(), None, attempts=1)
    found = wait_for_close(writer, woken, [2, 0])
    assert [(part.batch_id, part.is_errors) for part in found] == [(0, False), (0, True), (2, False), (2, True)]
    assert {path.relative_to(layout.root).as_posix() for path in files_under(layout.images)} == {
        part.path for part in found if not part.is_errors
    }
    assert wait_for_close(writer, woken, [0, 2, 99]) == [], "nothing is open there any more"
    rest = wait_for_close(writer, woken)
    assert [part.batch_id for part in rest] == [1, 1]
    writer.success(batches[0], (5,), make_answer(5, b"y"))
    writer.stop()
    (again,) = committed(writer.events())
    assert again.path not in {part.path for part in found}, "a batch that comes back gets a part of a new name"


def test_parts_close_at_their_size(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_BYTES", 10_000)
    batch = make_batch()
    writer = open_writer(layout, part_bytes=30_000)
    for row in range(40):
        writer.success(batch, (row,), make_answer(row, bytes(4_000)))
    writer.stop()
    found = committed(writer.events())
    assert len(found) >= 4
    assert all(part.bytes >= 30_000 for part in found[:-1])
    assert outcomes_of(layout, [part.path for part in found]).rows.tolist() == list(range(40))
    metadata = pq.ParquetFile(layout.root / found[0].path).metadata
    assert metadata.num_row_groups >= 2


def test_buffered_bytes_is_exact_and_falls_when_memory_is_short(layout: Layout) -> None:
    woken = threading.Event()
    writer = open_writer(layout, buffer_bytes=200_000, on_event=woken.set)
    batches = [make_batch(i) for i in range(10)]
    for row in range(10):
        for batch in batches:
            writer.success(batch, (row,), make_answer(row, bytes(10_000)))
    writer.flush()
    # Nobody asks for a close: the writer itself has to bring it below half of the budget.
    while writer.buffered_bytes > 100_000:
        assert woken.wait(timeout=30)
        woken.clear()
    assert writer.buffered_bytes % 10_000 == 0
    assert files_under(layout.images) == [], "row groups went to disk, no part closed"
    assert files_under(layout.temporary) != []
    found = wait_for_close(writer, woken)
    assert writer.buffered_bytes == 0
    assert sum(part.rows for part in found) == 100
    writer.stop()


def test_rows_are_handed_over_when_they_are_many_or_have_waited(layout: Layout) -> None:
    writer = open_writer(layout, Reader())
    assert writer.hand_over(100.0) == math.inf
    writer.success(make_batch(), (0,), make_answer(0, b"a"))
    assert writer.hand_over(100.0) == 100.0 + HAND_OVER_S
    writer.success(make_batch(), (1,), make_answer(1, b"b"))
    assert writer.hand_over(100.05) == 100.0 + HAND_OVER_S, "the first one counts"
    assert writer.hand_over(100.0 + HAND_OVER_S) == math.inf, "handed over"
    for row in range(2, 2 + 16):
        writer.success(make_batch(), (row,), make_answer(row, bytes(HAND_OVER_BYTES // 16 - 1)))
    assert writer.hand_over(200.0) == 200.0 + HAND_OVER_S
    writer.success(make_batch(), (18,), make_answer(18, bytes(16)))
    assert writer.hand_over(200.0) == math.inf
    writer.stop()
    assert sum(part.rows for part in committed(writer.events())) == 19


def test_a_body_that_is_in_a_file_is_in_memory_no_more(layout: Layout) -> None:
    """Also while others wait that were handed over together with it."""
    bodies = [bytes([number]) * parts.ROW_GROUP_BYTES for number in range(4)]
    seen: list[list[int]] = []

    def look() -> None:
        seen.append([sys.getrefcount(body) for body in bodies])

    writer = open_writer(layout, Reader(), on_event=look)
    for row in range(len(bodies)):
        writer.success(make_batch(), (row,), make_answer(row, bodies[row]))
    writer.stop()
    look()
    alone = seen.pop()
    gone = [sum(count == least for count, least in zip(references, alone, strict=True)) for references in seen]
    assert {1, 2, 3} & set(gone), "they go one by one"


@pytest.mark.parametrize("row_group_bytes", [1 << 20, 5_000], ids=["one row group", "some row groups"])
@pytest.mark.parametrize("duplicates", ["copy", "reference"])
def test_rows_of_a_url_are_in_one_part(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, duplicates: str, row_group_bytes: int
) -> None:
    """Each part closes as early as it may; bodies are 2,000 bytes, and one is larger than any row group."""
    monkeypatch.setattr(parts, "ROW_GROUP_BYTES", row_group_bytes)
    batch = make_batch(rows=60)
    writer = open_writer(layout, part_bytes=1, duplicates=duplicates)
    groups = [(0, 7, 8), (1,), tuple(range(10, 50)), (2, 3)]
    bodies = {first: bytes([first]) * (2_000 + 8_000 * (first == 2)) for first, *_ in groups}
    for rows in groups:
        writer.success(batch, rows, make_answer(rows[0], bodies[rows[0]]))
    writer.error(batch, (4, 5, 6), make_failure(), make_answer(4, b""), attempts=2)
    writer.stop()
    assert writer.buffered_bytes == 0
    found = committed(writer.events())
    *successes, errors = sorted(found, key=lambda part: part.is_errors)
    assert sum(part.rows for part in successes) == sum(map(len, groups))
    assert (errors.rows, errors.kinds) == (3, {"http_status": 3})
    assert [row["retry_count"] for row in read_part(layout, errors)] == [1, 1, 1]
    numbers = row_numbers(batch)
    holder = {numbers[row]: rows[0] for rows in groups for row in rows}
    for part in successes:
        file = pq.ParquetFile(layout.root / part.path)
        in_part = set(file.read().column("row_number").to_pylist())
        for rows in groups:
            assert len(in_part.intersection(numbers[row] for row in rows)) in {0, len(rows)}
        for index in range(file.num_row_groups):
            table = file.read_row_group(index)
            assert table.column("image").nbytes < row_group_bytes + 11_000
            images = table.column("image").take(holders_of(table)).to_pylist()
            assert images == [bodies[holder[number]] for number in table.column("row_number").to_pylist()]
    if duplicates == "reference":
        stored = [row for part in successes for row in read_part(layout, part)]
        assert {row["row_number"] for row in stored if row["image"] is not None} == {numbers[r[0]] for r in groups}
        for row in stored:
            first = holder[row["row_number"]]
            assert row["same_as"] == (None if row["row_number"] == numbers[first] else f"uuid-{first}")
            assert (row["bytes"], row["etag"]) == (len(bodies[first]), f'"{first}"')
    else:
        assert "same_as" not in read_part(layout, successes[0])[0]


def test_an_error_after_the_last_mirror_names_the_urls_before(layout: Layout) -> None:
    writer = open_writer(layout, image_size=64)
    answer = make_answer(0, b"no image")
    answer.task.mirrors = Mirrors((), "HTTP status 404; then http://h/0", attempts=3)
    writer.success(make_batch(), (0,), answer)
    writer.stop()
    (part,) = committed(writer.events())
    (row,) = read_part(layout, part)
    assert (row["error_kind"], row["retry_count"]) == ("decode", 3)
    assert row["error_msg"] == "HTTP status 404; then http://h/0: not an image, or a damaged one"


def test_a_body_may_be_looked_into_before_it_is_stored(layout: Layout) -> None:
    writer = open_writer(layout, image_size=64)
    assert writer.may_object
    bad, good = make_answer(0, b"no image"), make_answer(1, make_image(8, 8))
    (found,) = writer.look(make_batch(), bad).result(30)
    assert isinstance(found, ErrorRow)
    looked = writer.look(make_batch(), good)
    assert isinstance(looked.result(30)[0], SuccessRow)
    assert writer.buffered_bytes == 0
    writer.success(make_batch(), good.task.rows, good, looked)
    writer.stop()
    (part,) = committed(writer.events())
    assert (part.rows, part.is_errors) == (1, False)


def test_open_files_are_bounded(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_OPEN_FILES", 4)
    monkeypatch.setattr(parts, "ROW_GROUP_BYTES", 1_000)
    writer = open_writer(layout)
    for row in range(3):
        for batch in (make_batch(i, rows=5) for i in range(10)):
            writer.success(batch, (row,), make_answer(row, bytes(2_000)))
    writer.stop()
    found = committed(writer.events())
    assert len(found) > 10
    assert [part.batch_id for part in found[:3]] == [0, 1, 2], "the file that was opened first closes first"
    assert outcomes_of(layout, [part.path for part in found]).rows.size == 30


def test_input_columns_are_read_once_for_all_row_groups_of_a_batch(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_BYTES", 1_000)
    reader = Reader()
    writer = open_writer(layout, reader)
    batch = make_batch()
    for row in range(50):
        writer.success(batch, (row,), make_answer(row, bytes(2_000)))
    writer.error(batch, (50,), make_failure(), None, attempts=1)
    writer.stop()
    assert len(committed(writer.events())) == 2
    assert reader.reads == [0]


def test_rows_of_many_batches_keep_their_own_input(layout: Layout) -> None:
    writer = open_writer(layout)
    batches = [make_batch(i, rows=20) for i in range(4)]
    for row in reversed(range(20)):
        for batch in batches:
            writer.success(batch, (row,), make_answer(row, b"%d/%d" % (batch.batch_id, row)))
    writer.stop()
    for part in committed(writer.events()):
        for stored in read_part(layout, part):
            number = first_row_number(batches[part.batch_id]) + int(str(stored["final_url"]).rpartition("/")[2])
            assert stored["row_number"] == number
            assert stored["uuid"] == f"uuid-{number}"
            assert stored["image"] == b"%d/%d" % (part.batch_id, number % 100_000)


def test_a_decode_failure_becomes_an_error(layout: Layout) -> None:
    batch = make_batch()
    writer = open_writer(layout, image_size=64)
    good, cut = make_image(200, 100), make_image(200, 100)[:-40]
    writer.success(batch, (0,), make_answer(0, good))
    writer.success(batch, (1,), make_answer(1, cut, attempt=2))
    writer.success(batch, (2,), make_answer(2, b"no image"))
    writer.stop()
    assert writer.buffered_bytes == 0
    successes, errors = sorted(committed(writer.events()), key=lambda part: part.is_errors)
    assert (successes.rows, errors.rows, errors.kinds) == (1, 2, {"decode": 2})
    (row,) = read_part(layout, successes)
    assert row["original_size"] == [100, 200]
    assert row["resized_size"] == [32, 64]
    assert row["bytes"] == len(good)
    assert row["hashsum_original"] == hashlib.sha256(good).hexdigest()
    image = row["image"]
    assert isinstance(image, bytes)
    assert row["hashsum_resized"] == hashlib.sha256(image).hexdigest()
    failed = read_part(layout, errors)
    assert [(row["row_number"], row["error_code"], row["retry_count"]) for row in failed] == [(1, -2, 1), (2, -2, 0)]


def test_a_body_that_no_page_can_hold_becomes_an_error(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.io.results.rows.MAX_IMAGE_BYTES", 10)
    writer = open_writer(layout)
    writer.success(make_batch(), (0,), make_answer(0, bytes(11)))
    writer.stop()
    (part,) = committed(writer.events())
    assert (part.is_errors, part.kinds, writer.buffered_bytes) == (True, {"too_large": 1}, 0)


def run_with_fault(layout: Layout, batch_rows: int = 12) -> tuple[list[PartReport], list[WriterFailed], int]:
    writer = open_writer(layout, part_bytes=9_000)
    batch = make_batch(rows=batch_rows)
    for row in range(batch_rows):
        writer.success(batch, (row,), make_answer(row, bytes(2_000)))
    writer.error(batch, (0,), make_failure(), None, attempts=1)
    ticket = next(TICKETS)
    writer.close_parts(ticket)
    writer.success(batch, (0,), make_answer(0, bytes(500)))
    writer.stop()
    events = writer.events()
    failures = [event for event in events if isinstance(event, WriterFailed)]
    if failures:
        assert events[-1] is failures[0], "a failure is the last event"
    else:
        assert PartsClosed(ticket) in events
    return [event for event in events if isinstance(event, PartReport)], failures, writer.buffered_bytes


@pytest.mark.parametrize("lasting", [False, True], ids=["one call fails", "the disk fails for good"])
def test_a_full_disk_at_any_call_is_delivered_once_and_loses_no_committed_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_BYTES", 5_000)
    outcomes = set()
    fail_at = 0
    while True:
        fail_at += 11  # coprime to the calls of a row group: all kinds of calls get their turn
        layout = Layout(tmp_path / str(fail_at))
        layout.epoch_temporary(1).mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os_fsync", os.fstat)  # dozens of runs: only which call fails matters here
            faults = Faults(patch, fail_at, errno.ENOSPC, lasting=lasting)
            found, failures, buffered_bytes = run_with_fault(layout)
        assert buffered_bytes == 0
        assert len(failures) == faults.fired
        outcomes.add(bool(failures))
        for part in found:
            assert len(read_part(layout, part)) == part.rows
        for path in files_under(layout.images) + files_under(layout.errors):
            pq.read_table(path, partitioning=None)  # what has its final name is whole, told of or not
        if failures:
            assert isinstance(failures[0].error, StorageError)
            assert "ENOSPC" in str(failures[0].error) or "injected" in str(failures[0].error)
            if not lasting:
                assert files_under(layout.temporary) == []
        else:
            break
    assert outcomes == {True, False}


@pytest.mark.parametrize("error", [StorageError("urls file is gone"), TypeError("a bug")], ids=["disk", "bug"])
def test_whatever_ends_the_thread_is_delivered(layout: Layout, error: Exception) -> None:
    woken = threading.Event()
    writer = open_writer(layout, Reader(error=error), on_event=woken.set)
    writer.success(make_batch(), (0,), make_answer(0, bytes(100)))
    writer.close_parts(next(TICKETS))
    while not (events := writer.events()):
        assert woken.wait(timeout=30)
        woken.clear()
    assert events == [WriterFailed(error)]
    writer.success(make_batch(), (1,), make_answer(1, bytes(100)))
    writer.close_parts(next(TICKETS))
    writer.stop()
    assert writer.events() == []
    assert writer.buffered_bytes == 0
    assert files_under(layout.images) == []


def test_a_run_that_was_fenced_off_fails_instead_of_committing(layout: Layout) -> None:
    woken = threading.Event()
    orphan = open_writer(layout, epoch=1, on_event=woken.set)
    orphan.success(make_batch(), (0,), make_answer(0, b"x"))
    write_outcomes(layout, make_batch(), successes=[0], epoch=2)
    orphan.stop()
    (event,) = orphan.events()
    assert isinstance(event, WriterFailed)
    assert "ENOENT" in str(event.error)
    assert len(files_under(layout.images)) == 1


def test_stop_does_not_wait_for_ever(layout: Layout) -> None:
    release = threading.Event()

    class StuckReader(Reader):
        def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table:
            assert release.wait(timeout=30)
            return super().read(batch, columns)

    writer = open_writer(layout, StuckReader())
    writer.success(make_batch(), (0,), make_answer(0, b"x"))
    with pytest.raises(StorageError, match=r"not written within 0 s: 1 parts"):
        writer.stop(timeout_s=0.05)
    release.set()
    writer.stop()
    assert len(committed(writer.events())) == 1


def test_an_unknown_hash_algorithm_is_refused_at_once(layout: Layout) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        open_writer(layout, hash_algorithm="nonsense")


def test_the_row_numbers_of_a_batch_are_what_the_reader_says(layout: Layout) -> None:
    batch = make_batch(7, rows=5)
    found = write_outcomes(layout, batch, successes=range(5))
    assert outcomes_of(layout, [part.path for part in found]).rows.tolist() == row_numbers(batch).tolist()


def test_a_writer_that_was_not_waited_for_tells_nobody(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom it told is gone: the descriptor by which the loop is woken may be another file's by now."""
    may_go_on = threading.Event()
    told: list[str] = []
    writer = open_writer(layout, on_event=lambda: told.append(""))
    close = writer._parts.close
    monkeypatch.setattr(writer._parts, "close", lambda batch_ids: (may_go_on.wait(10.0), close(batch_ids)))
    writer.success(make_batch(), (0,), make_answer(0, b"body"))
    with pytest.raises(StorageError, match="not written within 0 s"):
        writer.stop(0.1)
    told.clear()
    may_go_on.set()
    writer._thread.join(10.0)
    assert [event for event in writer.events() if isinstance(event, PartReport)], "it was committed after all"
    assert told == []


# ---- refreshes


def checks_of(layout: Layout) -> list[dict[str, object]]:
    return pq.ParquetDataset(sorted(layout.checks.rglob("*.parquet"))).read().sort_by("row_number").to_pylist()


def test_what_a_refresh_finds_is_a_check_unless_it_is_another_file(layout: Layout) -> None:
    batch = make_batch(rows=10)
    write_outcomes(layout, batch, successes=range(5))
    parts = write_refresh(layout, batch, unchanged=[0], same_bytes=[1], changed=[2], gone=[3])
    assert [(part.rows, part.is_errors) for part in parts] == [(3, False), (1, False)]
    names = ["row_number", "check", "status", "error_code", "error_kind", "error_msg", "etag", "attempts", "file_epoch"]
    assert [tuple(row[name] for name in names) for row in checks_of(layout)] == [
        (0, "unchanged", 304, None, None, None, '"0"', 1, 1),
        (1, "unchanged", 200, None, None, None, '"1"', 1, 1),
        (3, "gone", 404, 404, "http_status", "not found", None, 3, 1),
    ]
    row = checks_of(layout)[0]
    assert (row["uuid"], row["identifier"], row["final_url"]) == (
        "uuid-0",
        f"http://{batch.server_name}/0",
        "http://h/0",
    )
    assert row["fetched_at"] == datetime.fromtimestamp(REFRESHED_AT, timezone.utc)
    assert pq.read_schema(layout.root / parts[0].path) == result_schema("checks")


def test_the_body_of_a_file_that_is_the_same_is_dropped_from_memory(layout: Layout) -> None:
    batch = make_batch(rows=10)
    body = b"a large one " * 40_000
    writer = open_writer(layout)
    writer.success(batch, (0,), make_answer(0, body))
    writer.stop()
    again = refreshed(layout, batch)
    writer = open_writer(layout, epoch=2)
    writer.success(again, (0,), make_answer(0, body))
    assert writer.buffered_bytes == len(body)
    writer.stop()
    assert writer.buffered_bytes == 0
    assert [part.path.split("/")[0] for part in committed(writer.events())] == ["checks"]


def test_nothing_that_was_asked_has_a_time_all_the_same(layout: Layout) -> None:
    """Else such a row would be asked for at each start."""
    batch = make_batch(rows=10)
    write_outcomes(layout, batch, successes=[0])
    writer = open_writer(layout, epoch=2)
    failure = Failure(ErrorKind.ROBOTS, -2, "robots.txt disallows it")
    writer.error(refreshed(layout, batch), (0,), failure, None, attempts=0)
    writer.stop()
    (row,) = checks_of(layout)
    assert (row["check"], row["status"], row["error_code"], row["attempts"]) == ("refused", None, -2, 0)
    assert row["fetched_at"] is not None


def test_a_picture_that_many_have_replaces_no_file(layout: Layout) -> None:
    batch = make_batch(rows=10)
    picture = b"no longer available " * 20
    write_outcomes(layout, batch, successes=[0])
    digest = hashlib.sha256(picture).hexdigest()
    write_placeholders(layout.placeholders, [Placeholder(digest, "h", 9, 1, "http://h/9")], layout.temporary)
    writer = open_writer(layout, epoch=2)
    writer.success(batch, (1,), make_answer(1, picture))
    writer.success(refreshed(layout, batch), (0,), make_answer(0, picture))
    writer.stop()
    (row,) = checks_of(layout)
    assert (row["row_number"], row["check"], row["error_kind"]) == (0, "gone", "placeholder")
    writer = open_writer(layout, epoch=3)
    writer.success(refreshed(layout, batch), (1,), make_answer(1, picture))
    writer.stop()
    assert [row["check"] for row in checks_of(layout)] == ["gone", "unchanged"], "it was one before"


def test_a_file_that_cannot_be_found_any_more_stops_the_run(layout: Layout) -> None:
    batch = make_batch(rows=10)
    (part,) = write_outcomes(layout, batch, successes=[0])
    again = refreshed(layout, batch)
    (layout.root / part.path).unlink()
    writer = open_writer(layout, epoch=2)
    writer.success(again, (0,), replace(make_answer(0, b""), status=304))
    writer.stop()
    (failed,) = [event for event in writer.events() if isinstance(event, WriterFailed)]
    assert isinstance(failed.error, StorageError)
