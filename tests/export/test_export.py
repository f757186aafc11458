"""The export: every success is in a shard or left out for a stated reason, whatever stops it and on any rank count."""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import webdataset as wds  # type: ignore[import-untyped]  # it has no types
from PIL import Image

from ddmpi.errors import StorageError
from ddmpi.export import __main__ as program
from ddmpi.export import shard_maker as maker
from ddmpi.export import targets
from ddmpi.export.plan import RowGroup, cut, fingerprint
from ddmpi.export.samples import suffix_of
from ddmpi.export.selection import find_duplicates, later_rows
from ddmpi.export.target import Picture, ShardWriter, Target
from ddmpi.io.folder.checkpoint import Checkpoint, save
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.schema import ROW_NUMBER
from tests.io.result_data import make_answer, make_batch, make_image, open_writer, write_outcomes, write_refresh
from tests.whole.job import ROOT

SIZES = [(40, 30), (400, 300), (80, 200), (1000, 20)]
KINDS = ["JPEG", "PNG", "GIF", "WEBP"]


def body(row: int) -> bytes:
    """Every fifth row's file is that of the row before."""
    row -= row % 5 == 4
    width, height = SIZES[row % 4]
    return make_image(width + row, height, KINDS[row // 4 % 4])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An output folder with 60 images in six parts of two batches; row 7 is no image, of row 31 no size is known."""
    layout = Layout(tmp_path / "out")
    for number, name in enumerate(("a.org", "b.org:8080")):
        batch = make_batch(number, rows=30, server_name=name)
        for part in range(3):
            writer = open_writer(layout, epoch=1, rank=part)
            for row in range(part * 10, part * 10 + 10):
                index = number * 30 + row
                image = b"GIF89a: no image" if index == 7 else b"\xff\xd8\xff?" * 10 if index == 31 else body(index)
                writer.success(batch, (row,), make_answer(index, image))
            writer.error(batch, (0,), _failure(), None, attempts=1)
            writer.stop()
    save(layout, Checkpoint(1, config_semantic={"downloader_parameters.hash_algorithm": "sha256"}))
    return layout.root


def _failure() -> Any:
    from tests.io.result_data import make_failure  # noqa: PLC0415

    return make_failure()


def row_number(index: int) -> int:
    """Of the n-th image: batches begin at multiples of 100,000."""
    return index // 30 * 100_000 + index % 30


def export(results: Path, target: Path, *options: str, shard_bytes: int = 1) -> dict[str, Any]:
    """The summary of an export in this process; one row group a shard unless said otherwise."""
    assert program.main([str(results), str(target), *options, "--shard-bytes", str(shard_bytes)]) == 0
    summary: dict[str, Any] = json.loads((target / "export.json").read_text())
    return summary


def tar_samples(target: Path) -> dict[int, dict[str, bytes]]:
    """Contents by suffix, by row number."""
    samples: dict[int, dict[str, bytes]] = {}
    for path in sorted(target.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                name, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                assert suffix not in samples.setdefault(int(name), {})
                samples[int(name)][suffix] = content.read()
    return samples


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_webdataset_shards_have_all_bytes_and_columns(results: Path, tmp_path: Path) -> None:
    before = tree(results)
    summary = export(results, tmp_path / "web", "--to", "webdataset")
    assert (summary["rows"], summary["exported"], summary["left_out"], summary["shards"]) == (60, 60, {}, 6)
    samples = tar_samples(tmp_path / "web")
    assert set(samples) == {row_number(index) for index in range(60)}
    for index in set(range(60)) - {7, 31}:
        sample = samples[row_number(index)]
        assert sample[suffix_of(body(index))] == body(index)
        described = json.loads(sample["json"])
        assert described["uuid"] == f"uuid-{row_number(index)}"
        assert described["fetched_at"].startswith("2023-11-14T22:13:20.25")
        assert "image" not in described
    assert tree(results) == before, "the results are only read"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # it leaves that to the garbage collector
def test_the_webdataset_library_reads_the_shards(results: Path, tmp_path: Path) -> None:
    export(results, tmp_path / "web", "--to", "webdataset", "--check")
    paths = [str(path) for path in sorted((tmp_path / "web").glob("*.tar"))]
    dataset = wds.WebDataset(paths, shardshuffle=False).decode("pil").to_tuple("jpg;png;gif;webp", "json", "__key__")
    seen = {int(key): (image.size, described) for image, described, key in dataset}
    gc.collect()
    assert len(seen) == 58
    for index in set(range(60)) - {7, 31}:
        size, described = seen[row_number(index)]
        assert size == Image.open(io.BytesIO(body(index))).size
        assert described["original_size"] == [size[1], size[0]]


def test_files_have_their_metadata_beside_them(results: Path, tmp_path: Path) -> None:
    summary = export(results, tmp_path / "files", "--to", "files", shard_bytes=1 << 30)
    assert summary["shards"] == 1
    folder = tmp_path / "files/shard-000000"
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 60
    assert {line["file_name"] for line in lines} == {path.name for path in folder.iterdir()} - {"metadata.jsonl"}
    assert (folder / "000000000012.webp").read_bytes() == body(12)
    assert lines[12]["identifier"] == "http://a.org/12"


def test_parquet_keeps_the_columns(results: Path, tmp_path: Path) -> None:
    export(results, tmp_path / "parquet", "--to", "parquet")
    source = ds.dataset(results / "images").to_table().sort_by("row_number")
    copied = ds.dataset(sorted((tmp_path / "parquet").glob("*.parquet"))).to_table().sort_by("row_number")
    assert copied == source


def test_rows_are_left_out_for_the_stated_reasons(results: Path, tmp_path: Path) -> None:
    options = ("--min-side", "25", "--unique", "--max-bytes", "20000", "--min-bytes", "20", "--check")
    summary = export(results, tmp_path / "web", "--to", "webdataset", *options)
    assert sum(summary["left_out"].values()) + summary["exported"] == summary["rows"] == 60
    kept: set[int] = set()
    bodies: set[bytes] = set()
    for index in set(range(60)) - {7, 31}:
        image = body(index)
        if 20 <= len(image) <= 20_000 and min(Image.open(io.BytesIO(image)).size) >= 25 and image not in bodies:
            kept.add(row_number(index))
        bodies.add(image)
    assert set(tar_samples(tmp_path / "web")) == kept
    assert summary["left_out"]["too_few_bytes"] == 1
    assert set(summary["left_out"]) == {"too_few_bytes", "too_many_bytes", "unknown_size", "too_small", "duplicate"}


@pytest.mark.parametrize("to", ["webdataset", "parquet"])
def test_resized_images_are_smaller_and_say_so(results: Path, tmp_path: Path, to: str) -> None:
    summary = export(results, tmp_path / "small", "--to", to, "--resize", "64")
    assert (summary["exported"], summary["left_out"]) == (58, {"undecodable": 2})
    assert summary["damaged_rows"] == [row_number(7), row_number(31)]
    if to == "parquet":
        rows = ds.dataset(sorted((tmp_path / "small").glob("*.parquet"))).to_table().to_pylist()
    else:
        rows = [
            {**json.loads(sample.pop("json")), "image": sample.popitem()[1]}
            for sample in tar_samples(tmp_path / "small").values()
        ]
    assert len(rows) == 58
    for row in rows:
        width, height = Image.open(io.BytesIO(row["image"])).size
        assert row["resized_size"] == [height, width]
        assert max(width, height) == min(64, max(row["original_size"]))
        is_small = max(row["original_size"]) <= 64
        assert (row["hashsum_resized"] == row["hashsum_original"]) is is_small, "small ones stay as they are"


def test_a_changed_byte_is_found(results: Path, tmp_path: Path) -> None:
    part = min((results / "images").rglob("*.parquet"))
    data = bytearray(part.read_bytes())
    at = data.find(body(3)) + len(body(3)) // 2
    data[at] ^= 1
    part.write_bytes(data)
    summary = export(results, tmp_path / "web", "--to", "webdataset", "--check")
    assert summary["damaged_rows"][0] == row_number(3)
    assert summary["left_out"]["damaged"] == 1


def test_an_export_goes_on_where_it_was_stopped(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export(results, tmp_path / "whole", "--to", "webdataset")
    made: list[str] = []
    make = maker.ShardMaker.make

    def fail_at_the_fourth(self: maker.ShardMaker, shard: Sequence[RowGroup], name: str) -> maker.ShardCounts:
        made.append(name)
        if len(made) == 4:
            raise StorageError("made for the test")
        return make(self, list(shard), name)

    monkeypatch.setattr(maker.ShardMaker, "make", fail_at_the_fourth)
    with pytest.raises(SystemExit) as stopped:
        export(results, tmp_path / "stopped", "--to", "webdataset")
    assert stopped.value.code == 75
    (tmp_path / "stopped/.export/lock").unlink()  # as after a kill: this process lives on and would hold it
    assert len(list((tmp_path / "stopped").glob("*.tar"))) == 3
    assert export(results, tmp_path / "stopped", "--to", "webdataset") == whole
    assert made == [f"shard-{number:06d}" for number in (0, 1, 2, 3, 3, 4, 5)]
    tars = [{name: data for name, data in tree(tmp_path / folder).items() if name.endswith(".tar")}
            for folder in ("whole", "stopped")]  # fmt: skip
    assert tars[0] == tars[1]
    assert not (tmp_path / "stopped/.export/tmp").exists()


def test_a_shard_whose_counts_were_not_written_is_written_again(results: Path, tmp_path: Path) -> None:
    for to in ("files", "webdataset", "parquet"):
        whole = export(results, tmp_path / to, "--to", to)
        before = tree(tmp_path / to)
        (tmp_path / to / ".export/shard-000002.json").unlink()
        assert export(results, tmp_path / to, "--to", to) == whole
        assert tree(tmp_path / to) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: ["--unique"], "was begun with other options"),
        (lambda target: (target / ".export").rename(target / "old") and [], "is not empty"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], list[str]],
    message: str,
) -> None:
    export(results, tmp_path / "web", "--to", "webdataset")
    more = change(tmp_path / "web")
    assert program.main([str(results), str(tmp_path / "web"), "--to", "webdataset", "--shard-bytes", "1", *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("unique", [False, True])
def test_rows_that_refer_to_the_bytes_of_another_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, unique: bool
) -> None:
    monkeypatch.setattr(maker, "PORTION_BYTES", 3000)
    layout = Layout(tmp_path / "out")
    writer = open_writer(layout, duplicates="reference")
    for rows in ((0, 4, 5), (1,), (2, 3)):
        writer.success(make_batch(), rows, make_answer(rows[0], body(rows[0])))
    writer.stop()
    options = ["--check", "--unique"] if unique else ["--check"]
    summary = export(layout.root, tmp_path / "web", "--to", "webdataset", *options)
    assert summary["left_out"] == ({"duplicate": 3} if unique else {})
    first_of = {0: 0, 1: 1, 2: 2} if unique else {0: 0, 1: 1, 2: 2, 3: 2, 4: 0, 5: 0}
    samples = tar_samples(tmp_path / "web")
    assert {row: sample[suffix_of(body(first_of[row]))] for row, sample in samples.items()} == {
        row: body(first) for row, first in first_of.items()
    }
    assert all("same_as" not in json.loads(sample["json"]) for sample in samples.values())


@pytest.mark.parametrize("options", [(), ("--unique",), ("--path", "{uuid}.{ext}")])
def test_a_file_that_has_changed_is_there_as_it_is_now(tmp_path: Path, options: Sequence[str]) -> None:
    layout = Layout(tmp_path / "out")
    batch = make_batch(rows=10)
    write_outcomes(layout, batch, successes=range(4))
    write_refresh(layout, batch, changed=[1], unchanged=[0], gone=[2])
    save(layout, Checkpoint(1, config_semantic={"downloader_parameters.hash_algorithm": "sha256"}))
    summary = export(layout.root, tmp_path / "files", "--to", "files", *options)
    assert (summary["rows"], summary["exported"], summary["left_out"]) == (4, 4, {})
    files = [path for path in (tmp_path / "files").rglob("*") if path.suffix == ".bin"]
    bodies = {body for path in files if (body := path.read_bytes())}
    assert len(files) == 4
    assert bodies == {b"body of row %d " % row * 20 for row in (0, 2, 3)} | {b"body of row 1 in run 2 " * 20}


def test_results_that_have_grown_are_refused(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(results, tmp_path / "web", "--to", "webdataset")
    writer = open_writer(Layout(results), epoch=2)
    writer.success(make_batch(5), (0,), make_answer(0, body(0)))
    writer.stop()
    assert program.main([str(results), str(tmp_path / "web"), "--to", "webdataset", "--shard-bytes", "1"]) == 2
    assert "when the results were others" in capsys.readouterr().err


def test_a_folder_without_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([str(tmp_path), str(tmp_path / "web"), "--to", "files"]) == 2
    assert "no images of a ddmpi job" in capsys.readouterr().err
    assert not (tmp_path / "web").exists()


@pytest.mark.parametrize("wrong", [["--to", "zip"], ["--to", "files", "--resize", "0"], []])
def test_a_wrong_command_is_refused(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        program.main([str(tmp_path), str(tmp_path / "x"), *wrong])
    assert stopped.value.code == 2


# ---- under MPI


def command(ranks: int, *arguments: str) -> list[str]:
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec") or "mpiexec"
    return [mpiexec, "-n", str(ranks), sys.executable, "-m", "ddmpi.export", *arguments]


def test_three_ranks_write_the_same_as_one(results: Path, tmp_path: Path) -> None:
    options = ("--to", "webdataset", "--unique", "--shard-bytes", "1")
    summary = export(results, tmp_path / "one", *options[:3])
    run = subprocess.run(command(3, str(results), str(tmp_path / "three"), *options), cwd=ROOT, capture_output=True,
                         text=True, timeout=60, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "three/export.json").read_text()) == summary
    assert summary["left_out"] == {"duplicate": 12}
    assert {n: d for n, d in tree(tmp_path / "one").items() if n.endswith((".tar", "export.json"))} == {
        n: d for n, d in tree(tmp_path / "three").items() if n.endswith((".tar", "export.json"))
    }


def test_a_killed_rank_ends_the_export_and_the_next_one_goes_on(results: Path, tmp_path: Path) -> None:
    arguments = (str(results), str(tmp_path / "web"), "--to", "webdataset", "--shard-bytes", "1")
    with subprocess.Popen(command(2, *arguments), cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "rank 0: 1 of" in line)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    _wait_until_unlocked(tmp_path / "web")
    again = subprocess.run(command(3, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "web/export.json").read_text())["exported"] == 60
    assert len(tar_samples(tmp_path / "web")) == 60


def _wait_until_unlocked(target: Path) -> None:
    """The ranks die with their launcher, a moment after it; or they had ended before."""
    lock = target / ".export/lock"
    if not lock.exists():
        return
    pid = json.loads(lock.read_text())["pid"]
    gone = threading.Event()
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        gone.wait(0.02)
    raise AssertionError(f"{pid} outlives its launcher")


# ---- the pure parts


def test_row_groups_are_cut_in_order_by_size() -> None:
    groups = [RowGroup("p", index, 1, size) for index, size in enumerate([4, 4, 4, 20, 1, 9, 1])]
    assert [[g.group for g in shard] for shard in cut(groups, 10)] == [[0, 1], [2], [3], [4, 5], [6]]
    assert cut([], 10) == []
    assert fingerprint(groups) != fingerprint(groups[:-1])


def test_of_equal_digests_the_first_row_stays() -> None:
    digests = [(1, 1), (1, 2), (1, 1), (2, 1), (1, 1), (2, 1)]
    entries = np.array([(*digest, row) for digest, row in zip(digests, [9, 1, 4, 8, 5, 3], strict=True)], np.uint64)
    assert sorted(later_rows(entries).tolist()) == [5, 8, 9]
    assert later_rows(np.empty((0, 3), np.uint64)).size == 0


class FakeRanks:
    """Three ranks in three threads, for what only the exchange between them shows."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, board: dict[tuple[str, int], Any]) -> None:
        self._rank, self._size, self._barrier, self._board = rank, size, barrier, board

    def Get_rank(self) -> int:  # noqa: N802
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        return self._size

    def _exchange(self, name: str, value: Any) -> list[Any]:
        self._board[name, self._rank] = value
        self._barrier.wait(20)
        found = [self._board[name, rank] for rank in range(self._size)]
        self._barrier.wait(20)
        return found

    def bcast(self, obj: Any, root: int = 0) -> Any:
        return self._exchange("bcast", obj)[root]

    def allgather(self, sendobj: Any) -> list[Any]:
        return self._exchange("allgather", sendobj)

    def alltoall(self, sendobj: Any) -> list[Any]:
        return [sent[self._rank] for sent in self._exchange("alltoall", sendobj)]

    def Abort(self, errorcode: int = 0) -> None:  # noqa: N802
        raise AssertionError(errorcode)


def test_all_ranks_find_the_same_duplicates(results: Path) -> None:
    parts = sorted(str(path.relative_to(results)) for path in (results / "images").rglob("*.parquet"))
    found: list[list[int]] = []
    for size in (1, 3):
        barrier, board = threading.Barrier(size), dict[tuple[str, int], Any]()
        answers: dict[int, list[int]] = {}

        def work(
            rank: int, size: int = size, barrier: threading.Barrier = barrier, board: Any = board, out: Any = answers
        ) -> None:
            out[rank] = find_duplicates(Layout(results), parts, FakeRanks(rank, size, barrier, board), {}).tolist()

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        found += [answers[rank] for rank in range(size)]
    assert found == [[row_number(index) for index in range(60) if index % 5 == 4]] * 4


# ---- targets


class RowNumbers(Target):
    """A target that needs no image: a text file of row numbers per shard."""

    reads_images = False

    @staticmethod
    def add_options(parser: argparse._ArgumentGroup) -> None:
        parser.add_argument("--column", default=ROW_NUMBER)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.columns = [options["column"]]

    def open(self, name: str, temporary: Path, folder: Path) -> ShardWriter:
        return NumbersShard(self.columns[0], temporary / name, folder / f"{name}.txt")

    def finish(
        self, layout: Layout, folder: Path, summary: Mapping[str, Any], shards: Sequence[tuple[str, Any]]
    ) -> None:
        del layout
        (folder / "index.json").write_text(json.dumps([summary["exported"], shards]))


class NumbersShard:
    def __init__(self, column: str, temporary: Path, final: Path) -> None:
        self._column, self._temporary, self._final = column, temporary, final
        self._numbers: list[int] = []

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        assert not pictures
        self._numbers += rows.column(self._column).to_numpy().tolist()

    def commit(self) -> int:
        self._temporary.write_text("\n".join(map(str, self._numbers)))
        self._temporary.rename(self._final)
        return len(self._numbers)

    def discard(self) -> None:
        pass


def test_a_target_is_one_module(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numbers.py").write_text("from tests.export.test_export import RowNumbers as TARGET\n")
    monkeypatch.setattr(targets, "__path__", [*targets.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "ddmpi.export.targets.numbers", raising=False)
    summary = export(results, tmp_path / "numbers", "--to", "numbers", "--min-bytes", "45")
    assert (summary["exported"], summary["left_out"]) == (58, {"too_few_bytes": 2})
    written = "\n".join(path.read_text() for path in sorted((tmp_path / "numbers").glob("*.txt")))
    assert written.split("\n") == [str(row_number(index)) for index in range(60) if index not in {7, 31}]
    exported, shards = json.loads((tmp_path / "numbers/index.json").read_text())
    assert (exported, sum(rows for _, rows in shards)) == (58, 58)


@pytest.mark.parametrize("column", ["specis", "image"])
def test_columns_that_a_target_needs_have_to_be_there(
    column: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ddmpi.export.targets.files.TARGET", RowNumbers)
    order = [str(results), str(tmp_path / "x"), "--to", "files", "--column", column]
    assert program.main(order) == 2
    assert f"no column {column}; it has uuid, " in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(SystemExit):
        program.main([*order, "--check"])
    assert "no images that --check" in capsys.readouterr().err
