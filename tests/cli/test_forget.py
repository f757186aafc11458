"""``--forget``: withdrawn images are in no file any more, all other rows are as before, and a kill changes nothing."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import yaml

import ddmpi
from ddmpi.cli.arguments import parse_arguments
from ddmpi.cli.inspection import run
from ddmpi.config.config import Config, parse
from ddmpi.errors import DdmpiError, InputError, OutputError
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.lock import acquire
from ddmpi.io.folder.markers import Marker, parts_of, read_completed, write_completed
from ddmpi.io.folder.placeholders import Placeholder, read_placeholders, write_placeholders
from ddmpi.io.forget.names import read_forgotten
from ddmpi.io.input.table import open_input
from ddmpi.io.results import publishing
from ddmpi.io.results.outcomes import outcomes_of
from ddmpi.io.results.parts import ResultOptions
from ddmpi.io.results.publishing import Publisher, claim
from ddmpi.io.results.writer import ResultWriter
from ddmpi.io.store.part_store import PartStore
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.io.urls.writer import partition_input
from tests.io.result_data import committed, make_answer, make_failure, write_refresh
from tests.io.results.test_publishing import URI, Folder
from tests.whole.faults import Faults

ROWS = 24
"""The first 12 are of one server and all final, of the others the last three are pending."""


def body_of(row: int) -> bytes:
    return b"the picture of row %d. " % row * 30


@dataclass(frozen=True)
class Results:
    """A job's folder, and what ``--forget`` is asked of it."""

    folder: Path
    config: Config
    shared: tuple[tuple[int, ...], ...] = ()

    @property
    def layout(self) -> Layout:
        return Layout(Path(self.config.path_to_output_folder))

    def inspect(self, *options: str) -> tuple[int, str]:
        printed = io.StringIO()
        with redirect_stdout(printed):
            code = run(parse_arguments([str(self.folder / "config.yaml"), *options]), {})
        return code, printed.getvalue()

    def forget(self, *names: str) -> str:
        (self.folder / "names.txt").write_text("\n".join(names) + "\n")
        code, printed = self.inspect("--forget", str(self.folder / "names.txt"))
        assert code == 0
        return printed

    def rows(self) -> dict[int, dict[str, Any]]:
        """All outcomes by row number, and that there is one of each row that is not pending."""
        rows = ddmpi.open_results(self.layout.root).to_table().to_pylist()
        assert len({row["row_number"] for row in rows}) == len(rows)
        return {row["row_number"]: row for row in rows}

    def files_with(self, row: int) -> list[str]:
        needle = body_of(row)[:40]
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return [path.name for path in files if needle in path.read_bytes()]


def make_results(
    folder: Path, publisher: Publisher | None = None, shared: Sequence[tuple[int, ...]] = (), **keys: Any
) -> Results:
    """A job of which a run has left: a part of three row groups, errors, a part of one row, and pending rows.

    ``shared``: rows of the first server that have the file of the first one of them.
    """
    urls = [f"http://{'ab'[row >= 12]}.example/{row}" for row in range(ROWS)]
    uuids = [f"uuid-{row}" for row in range(ROWS)]
    for rows in shared:
        for row in rows:
            urls[row] = urls[rows[0]]
    pq.write_table(pa.table({"uuid": uuids, "identifier": urls, "title": uuids}), folder / "urls.parquet")
    keys = {"path_to_input": str(folder / "urls.parquet"), "path_to_output_folder": str(folder / "out"), **keys}
    (folder / "config.yaml").write_text(yaml.safe_dump(keys))
    config = parse(keys, "test")
    layout = Layout(folder / "out")
    columns = {"identifier": "identifier", "uuid": "uuid", "title": "title"}
    partition_input(open_input(keys["path_to_input"], columns, []), layout.urls, batch_size=12, small_rows=0)
    table, reader = BatchTable(layout), BatchReader(layout.urls)
    open_epoch(layout, 1)
    claim(layout, config.publish.to)
    parameters = config.downloader_parameters.model_copy(update={"memory_budget_bytes": 10_000})
    small = config.model_copy(update={"downloader_parameters": parameters})
    writer = ResultWriter(ResultOptions(small, layout, reader, 1, 0, 1, publisher), lambda: None)

    def success(batch_id: int, *rows: int) -> None:
        answer = make_answer(rows[0], body_of(rows[0]))
        answer.final_url = f"http://cdn.example/{rows[0]}"
        writer.success(table.ref(batch_id), tuple(row - 12 * batch_id for row in rows), answer)

    followers = {row for rows in shared for row in rows[1:]}
    firsts = {rows[0]: rows for rows in shared}
    for row in range(9):
        if row not in followers:
            success(0, *firsts.get(row, (row,)))
    writer.error(table.ref(0), (9, 10, 11), make_failure(), None, 1)
    success(1, 12)
    writer.error(table.ref(1), (1, 2, 3, 4, 5, 6, 7), make_failure(), None, 1)
    writer.close_parts(1)
    success(1, 20)
    writer.stop()
    parts = committed(writer.events())
    assert len(parts) == 5
    write_completed(layout, table.ref(0), Marker(12, 9, 3, {"http_status": 3}))
    layout.report.write_bytes(b"<html>" + body_of(1))
    (layout.damaged / parts[0].path).parent.mkdir(parents=True)
    (layout.damaged / parts[0].path).write_bytes(body_of(1))
    picture = Placeholder(digest_of(layout, 1), "a.example", 5, 1, urls[1], body_of(1))
    other = Placeholder("0" * 64, "a.example", 5, 1, urls[1], b"another one")
    write_placeholders(layout.placeholders, [picture, other], layout.temporary)
    return Results(folder, config, tuple(shared))


def digest_of(layout: Layout, row: int) -> str:
    rows = ddmpi.open_results(layout.root).to_table(columns=["row_number", "hashsum_original"]).to_pylist()
    return str(next(found["hashsum_original"] for found in rows if found["row_number"] == row))


NAMES = ("uuid-1", "http://a.example/3", "http://cdn.example/8", "http://b.example/20", "uuid-9", "uuid-23", "uuid-x")
"""Rows with a picture: by uuid, by URL, by where a redirect led, one alone in its part; an error; a pending one."""
PICTURES = (1, 3, 8, 20)
WITHDRAWN = {*PICTURES, 9, 23}


def assert_forgotten(results: Results, before: dict[int, dict[str, Any]]) -> None:
    """The withdrawn pictures are in no file, and the other rows as they were."""
    after = results.rows()
    for row in PICTURES:
        assert results.files_with(row) == []
    assert {row: after[row]["error_kind"] for row in WITHDRAWN} == dict.fromkeys(WITHDRAWN, "forgotten")
    assert all(after[row]["error_code"] == -2 and after[row]["uuid"] == f"uuid-{row}" for row in WITHDRAWN)
    assert {row: found for row, found in after.items() if row not in WITHDRAWN} == {
        row: found for row, found in before.items() if row not in WITHDRAWN
    }
    code, printed = results.inspect("--verify", "--rehash")
    assert "24 rows: 7 successes, 15 errors, 2 pending, 0 ignored; 0 of 2 batches damaged" in printed
    assert code == 75


def test_pictures_leave_all_files_and_nothing_else_does(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    layout = results.layout
    before = results.rows()
    (part,) = (path for path in layout.images.rglob("*.parquet") if "a.example" in str(path))
    groups = [group_rows(part, group) for group in range(pq.read_metadata(part).num_row_groups)]
    schema = pq.read_schema(part)
    assert len(groups) > 2
    assert "picture of row 1." in part.read_bytes().decode(errors="replace")
    assert ddmpi.load(layout.root, "uuid-1")["image"] == body_of(1)
    printed = results.forget(*NAMES)
    assert printed == (
        "Removed 4 images from 2 parts.\n"
        "report.html may have shown some, and is gone; the next run writes it anew.\n"
        "2 rows without an image will not be fetched either.\n"
        "1 name of no row here, kept for rows to come: uuid-x\n"
        "Copies elsewhere (exports, backups, caches) are yours to remove.\n"
    )
    assert_forgotten(results, before)
    left = [[row for row in group if row not in WITHDRAWN] for group in groups]
    assert [group_rows(part, group) for group in range(len(left))] == left
    assert pq.read_schema(part).equals(schema, check_metadata=True)
    marker = read_completed(layout, BatchTable(layout).ref(0))
    assert marker == Marker(12, 6, 6, {"http_status": 2, "forgotten": 4})
    assert [bool(each.image) for each in read_placeholders(layout.placeholders)] == [False, True]
    assert ddmpi.load(layout.root, "uuid-1")["error_kind"] == "forgotten"
    assert ddmpi.load(layout.root, "uuid-2")["image"] == body_of(2)


def group_rows(part: Path, group: int) -> list[int]:
    return [int(row or 0) for row in pq.ParquetFile(part).read_row_group(group)["row_number"].to_pylist()]


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    before = results.rows()
    results.forget(*NAMES)
    there = {path: path.read_bytes() for path in results.layout.root.rglob("*.parquet")}
    assert "Removed 0 images from 0 parts.\n" in results.forget("uuid-1")
    assert {path: path.read_bytes() for path in results.layout.root.rglob("*.parquet")} == there
    assert_forgotten(results, before)


def test_what_was_withdrawn_is_not_tried_again(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    results.forget(*NAMES)
    layout = results.layout
    parts = [layout.relative(path) for path in layout.errors.rglob("*.parquet") if "a.example" in str(path)]
    outcomes = outcomes_of(layout, parts)
    for words in (["*"], ["forgotten"], ["-2"]):
        again = outcomes.rows[outcomes.to_retry(words, 9)].tolist()
        assert again == ([10, 11] if words == ["*"] else [])


def test_rows_that_refer_to_a_withdrawn_one_keep_the_file(tmp_path: Path) -> None:
    results = make_results(tmp_path, shared=[(0, 1, 2, 5), (3, 4)], duplicates="reference")
    before = results.rows()
    assert [before[row]["same_as"] for row in (0, 1, 2, 5)] == [None, "uuid-0", "uuid-0", "uuid-0"]
    results.forget("uuid-0", "uuid-2", "uuid-3", "uuid-4")
    after = results.rows()
    assert [(after[row]["same_as"], after[row]["image"]) for row in (1, 5)] == [(None, body_of(0)), ("uuid-1", None)]
    assert ddmpi.load(results.layout.root, "uuid-5")["image"] == body_of(0)
    assert results.files_with(3) == []
    assert "0 of 2 batches damaged" in results.inspect("--verify", "--rehash")[1]
    results.forget("http://a.example/0")
    assert results.files_with(0) == []
    gone = {row for row, found in results.rows().items() if found["error_kind"] == "forgotten"}
    assert gone == {0, 1, 2, 3, 4, 5}
    for row in (1, 5, 6, 7, 8, 9):
        changed = {name for name in after[row] if after[row][name] != before[row][name]}
        assert changed <= ({"same_as", "image"} if row < 6 else set())


def test_a_part_in_a_store_is_replaced_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    store = Folder(pyarrow.fs.LocalFileSystem(), str(tmp_path / "store"), URI)
    monkeypatch.setattr(publishing, "part_store", lambda _: store)
    layout = Layout(tmp_path / "out")
    results = make_results(tmp_path, Publisher(layout, store, 1), publish={"to": URI})
    before = results.rows()
    results.forget(*NAMES)
    assert_forgotten(results, before)


@pytest.mark.parametrize(
    ("is_published", "which"),
    [
        pytest.param(False, slice(4, 5), id="the image is gone and its error is not there yet"),
        pytest.param(False, slice(None), id="all", marks=pytest.mark.slow),
        pytest.param(True, slice(None), id="all, with a store", marks=pytest.mark.slow),
    ],
)
def test_a_stop_at_any_step_is_made_good_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_published: bool, which: slice
) -> None:
    """From some call on the disk takes nothing more, as after a kill. What is on it changes by renames and deletions
    alone, so it is each of these that does not come; with a store also what follows it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    made, job = tmp_path / "made", tmp_path / "job"
    (job / "store").mkdir(parents=True)
    monkeypatch.setattr(publishing, "part_store", lambda _: store_in(job))
    publisher = Publisher(Layout(job / "out"), store_in(job), 1) if is_published else None
    results = make_results(job, publisher, publish={"to": URI if is_published else None})
    before = results.rows()
    job.rename(made)
    for at in steps(made, results, monkeypatch, after=is_published)[which]:
        shutil.copytree(made, job)
        with monkeypatch.context() as patched, pytest.raises(DdmpiError):
            Faults(patched, fail_at=at, code=errno.EIO, lasting=True)
            results.forget(*NAMES)
        assert set(results.rows()) >= {*range(21)} - WITHDRAWN, "nothing else is lost"
        results.forget(*NAMES)
        assert_forgotten(results, before)
        shutil.rmtree(job)


CHANGES = ("os_rename", "os_unlink")


def steps(made: Path, results: Results, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> list[int]:
    """Which of the calls of a whole removal change what is on the disk, or come ``after`` one that does."""
    shutil.copytree(made, results.folder)
    with monkeypatch.context() as patched:
        faults = Faults(patched)
        results.forget(*NAMES)
    shutil.rmtree(results.folder)
    changes = [place for place, name in enumerate(faults.names(), 1) if name in CHANGES]
    assert len(changes) >= 8
    return sorted({*changes, *(place + 1 for place in changes if after)})


def store_in(folder: Path) -> PartStore:
    return Folder(pyarrow.fs.LocalFileSystem(), str(folder / "store"), URI)


def test_the_file_may_be_a_table_and_has_to_name_something(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    given = tmp_path / "rows.csv"
    given.write_text("title,uuid,identifier\nx,uuid-2,http://a.example/5\n")
    assert "Removed 1 image from 1 part." in results.inspect("--forget", str(given))[1]
    assert read_forgotten(results.layout.forgotten).names == {"uuid-2"}
    given.write_text("title\nuuid-2\n")
    with pytest.raises(InputError, match="no column uuid, identifier or url"):
        results.inspect("--forget", str(given))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="names nothing"):
        results.inspect("--forget", str(tmp_path / "empty.txt"))
    with pytest.raises(InputError, match=r"absent\.txt"):
        results.inspect("--forget", str(tmp_path / "absent.txt"))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    lock = acquire(results.layout.lock, job_id="", job_is_gone=lambda _: None)
    with pytest.raises(OutputError, match="is in use by"):
        results.forget("uuid-1")
    lock.release()
    assert not results.layout.forgotten.exists()


# ---- files that a refresh has found changed


def test_all_files_that_a_row_ever_had_leave_and_checks_hold_none_back(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    layout, batch = results.layout, BatchTable(results.layout).ref(0)
    write_refresh(layout, batch, changed=[1, 2, 3], gone=[0, 8], unchanged=[4])
    write_refresh(layout, batch, changed=[1], gone=[3], epoch=3)
    bodies = [b"body of row %d in run %d " % pair for pair in ((1, 2), (1, 3), (3, 2))]
    before = results.rows()
    printed = results.forget(*NAMES)
    assert "Removed 7 images from 4 parts." in printed
    assert_forgotten(results, before)
    for body in bodies:
        assert not [path for path in results.folder.rglob("*") if path.is_file() and body in path.read_bytes()]
    marker = read_completed(layout, batch)
    assert marker == Marker(12, 6, 6, {"http_status": 2, "forgotten": 4})
    for at in (None, "2023-11-14T22:13:21Z", "2999-01-01T00:00:00Z"):
        rows = ddmpi.open_results(layout.root, at=at).to_table(columns=["row_number", "outcome"]).to_pylist()
        assert {row["outcome"] for row in rows if row["row_number"] in PICTURES} == {"error"}
    checks = ddmpi.open_checks(layout.root).to_table(columns=["row_number"]).to_pylist()
    assert sorted(row["row_number"] for row in checks) == [0, 4]
    assert ddmpi.load(layout.root, "uuid-2")["epoch"] == 2


def test_a_removal_that_was_killed_leaves_no_check_that_counts(tmp_path: Path) -> None:
    """After the files are gone, and before there are errors: the row is pending."""
    results = make_results(tmp_path)
    layout, batch = results.layout, BatchTable(results.layout).ref(0)
    write_refresh(layout, batch, unchanged=range(9))
    for part in layout.images.rglob("*.parquet"):
        if "a.example" in str(part):
            part.unlink()
    outcomes = outcomes_of(layout, parts_of(layout, batch))
    assert outcomes.rows.tolist() == [9, 10, 11]
