"""Names of the output folder: any server name is a folder of its own, inside its tree, and readable by hive readers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddmpi.io.folder.layout import (
    PART_KINDS,
    Layout,
    PartKind,
    PartName,
    batch_folder,
    parse_part_name,
    part_name,
    server_folder,
    server_of_folder,
)

SERVER_NAMES = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="./\\~%=_-a\x00é😀", max_size=40),
    st.sampled_from(
        ["", ".", "..", "../../etc", "__many__", "__invalid__", "[::1]:8080", "127.0.0.1:8080", "a" * 5000]
    ),
)


def is_shortened(server_name: str) -> bool:
    return "~" in server_folder(server_name)


@given(SERVER_NAMES)
def test_a_server_name_is_one_folder_name_that_every_file_system_takes(server_name: str) -> None:
    folder = server_folder(server_name)
    assert Path(folder).parts == (folder,)
    assert folder not in {".", ".."}
    assert len(folder.encode()) <= 255
    assert folder.isascii()
    assert not set(folder) & set('/\\\x00:*?"<>| ')


@given(SERVER_NAMES)
def test_a_server_name_stays_inside_the_output_folder(server_name: str) -> None:
    layout = Layout(Path("/out"))
    for path in (*(layout.parts_folder(kind, server_name, 0) for kind in PART_KINDS), layout.completed(server_name, 0)):
        assert path.resolve().is_relative_to("/out")
        assert path.resolve() == path


@given(SERVER_NAMES)
def test_a_server_name_comes_back_unless_it_was_shortened(server_name: str) -> None:
    if not is_shortened(server_name):
        assert server_of_folder(server_folder(server_name)) == server_name


@given(SERVER_NAMES, SERVER_NAMES)
def test_two_server_names_never_share_a_folder(first: str, second: str) -> None:
    assert (server_folder(first) == server_folder(second)) == (first == second)


def test_long_names_with_a_common_beginning_keep_apart() -> None:
    long_names = ["é" * 300, "é" * 301, "a" * 400, "a" * 401, "a" * 159 + "é" * 100]
    assert len({server_folder(name) for name in long_names}) == len(long_names)
    for name in long_names:
        stem, _, digest = server_folder(name).rpartition("~")
        assert len(digest) == 64
        assert "%" not in stem[-2:], "cut inside an escape"


def test_the_longest_names_of_dns_that_fit_are_not_shortened() -> None:
    assert not is_shortened("a" * 243)
    assert is_shortened("a" * 244)
    assert is_shortened("__HIVE_DEFAULT_PARTITION__"), "hive readers would read null"


@settings(max_examples=40, deadline=None)
@given(SERVER_NAMES)
@example("0" + "\x80" * 21 + "\u0800" * 13)  # was cut inside a character
def test_pyarrow_reads_the_server_name_back(server_name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        parts = layout.parts_folder("successes", server_name, 7)
        parts.mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), parts / part_name("successes", 1, 0, 0))
        # Types are given, since pyarrow would guess a number for a server called "7".
        schema = pa.schema([pa.field("server_name", pa.string())]).append(pa.field("partition_id", pa.int64()))
        partitioning = ds.HivePartitioning(schema, segment_encoding="uri")
        found = ds.dataset(layout.images, partitioning=partitioning).to_table().to_pylist()
    expected = server_of_folder(server_folder(server_name)) if is_shortened(server_name) else server_name
    assert found == [{"x": 1, "server_name": expected, "partition_id": 7}]


def test_pyarrow_reads_the_name_back_with_its_default_hive_partitioning(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for server_name in ("127.0.0.1:8080", "bücher.example", "a%20b", "__many__"):
        parts = layout.parts_folder("successes", server_name, 0)
        parts.mkdir(parents=True)
        pq.write_table(pa.table({"given": [server_name]}), parts / part_name("successes", 1, 0, 0))
    rows = ds.dataset(layout.images, partitioning="hive").to_table().to_pylist()
    assert len(rows) == 4
    assert all(row["given"] == row["server_name"] for row in rows)


@given(
    st.sampled_from(PART_KINDS),
    st.integers(0, 10**6),
    st.integers(0, 10**7),
    st.integers(0, 10**8),
)
def test_part_names_round_trip(kind: PartKind, epoch: int, rank: int, number: int) -> None:
    name = part_name(kind, epoch, rank, number)
    assert parse_part_name(name) == PartName(kind, epoch, rank, number)


def test_part_names_look_as_documented() -> None:
    assert part_name("successes", 1, 2, 3) == "successes-e0001-r00002-0003.parquet"


@pytest.mark.parametrize(
    "name",
    [
        "successes-e0001-r00002-0003.parquet.tmp",
        "x-successes-e0001-r00002-0003.parquet",
        "images-e0001-r00002-0003.parquet",
        "successes-e1-r00002-0003.parquet",
        "successes-e000\u0661-r00002-0003.parquet",
        "completed",
        "",
    ],
)
def test_other_files_are_no_parts(name: str) -> None:
    assert parse_part_name(name) is None


@pytest.mark.parametrize("name", ["urls", "partition_id=3", "server_nam=x"])
def test_other_folders_are_no_servers(name: str) -> None:
    assert server_of_folder(name) is None


def test_paths_are_where_the_design_puts_them() -> None:
    layout = Layout(Path("/out"))
    batch = batch_folder("img.example.org", 4)
    assert batch == "server_name=img.example.org/partition_id=4"
    assert layout.relative(layout.parts_folder("successes", "img.example.org", 4)) == f"images/{batch}"
    assert layout.relative(layout.parts_folder("errors", "img.example.org", 4)) == f"errors/{batch}"
    assert layout.relative(layout.completed("img.example.org", 4)) == f"batches/{batch}/completed"
    assert layout.relative(layout.batches_table) == "urls/batches.parquet"
    assert layout.relative(layout.schedule(12)) == "schedules/0012"
    assert layout.relative(layout.checkpoint) == "checkpoint.json"
    assert layout.relative(layout.previous_checkpoint) == "checkpoint.json.previous"
    assert layout.relative(layout.epoch_temporary(3)) == "batches/.tmp/e0003"
