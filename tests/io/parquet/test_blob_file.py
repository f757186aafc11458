"""Files with a column of bodies, read by three readers; and whatever byte is changed, one that checks finds it."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.io.parquet import blob_column
from ddmpi.io.parquet.blob_file import BlobFile

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("size", pa.list_(pa.int32())),
        ("image", pa.large_binary()),
        ("number", pa.int64()),
        ("record", pa.struct([("x", pa.int32()), ("image", pa.binary())])),
    ]
)


def random_table(rng: random.Random, rows: int) -> pa.Table:
    sizes = rng.choice([[0, 1, 40], [30_000], [10, 3_000, 200_000, 300_000]])
    return pa.table(
        {
            "name": [rng.choice(["a", "bc", None]) for _ in range(rows)],
            "size": [rng.choice([None, [], [rng.randrange(9), 2]]) for _ in range(rows)],
            "image": [None if rng.random() < 0.2 else rng.randbytes(rng.choice(sizes)) for _ in range(rows)],
            "number": [rng.randrange(2**60) for _ in range(rows)],
            "record": [rng.choice([None, {"x": 3, "image": b"\0"}, {"x": None, "image": None}]) for _ in range(rows)],
        },
        schema=SCHEMA,
    )


def written(tables: Sequence[pa.Table]) -> bytes:
    """A file with a row group for each table."""
    memory = io.BytesIO()
    file = BlobFile(memory, SCHEMA, "image")
    for table in tables:
        file.write(table.drop_columns(["image"]), table.column("image").to_pylist())
    file.close()
    return memory.getvalue()


def read(data: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()


@pytest.mark.parametrize("seed", range(25))
def test_three_readers_find_what_was_written(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(blob_column, "PAGE_BYTES", rng.choice([1, 1_000, 1 << 20]))
    monkeypatch.setattr(blob_column, "PAGE_VALUES", rng.choice([3, 8_192]))
    tables = [random_table(rng, rng.randrange(1, 60)) for _ in range(rng.randrange(1, 6))]
    whole = pa.concat_tables(tables)
    data = written(tables)
    path = tmp_path / "file.parquet"
    path.write_bytes(data)
    assert read(data).equals(whole)
    assert duckdb.read_parquet(str(path)).fetchall() == [tuple(row.values()) for row in whole.to_pylist()]
    assert pl.read_parquet(path).to_dicts() == whole.to_pylist()
    image = rng.randrange(len(tables))
    group = pq.ParquetFile(path).read_row_group(image, ["image"])
    assert group.column("image").to_pylist() == tables[image].column("image").to_pylist()


def test_the_metadata_is_as_arrow_s_own() -> None:
    rng = random.Random(5)
    tables = [random_table(rng, 30) for _ in range(3)]
    memory = io.BytesIO()
    with pq.ParquetWriter(memory, SCHEMA, write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)
    theirs = pq.ParquetFile(memory).metadata
    data = written(tables)
    ours = pq.ParquetFile(pa.BufferReader(data)).metadata
    assert ours.schema.equals(theirs.schema)
    assert (ours.num_rows, ours.num_row_groups, ours.metadata) == (90, 3, theirs.metadata)
    ends = []
    for group in range(3):
        mine = ours.row_group(group)
        columns = [mine.column(number) for number in range(mine.num_columns)]
        assert [column.path_in_schema for column in columns] == [
            theirs.row_group(group).column(number).path_in_schema for number in range(mine.num_columns)
        ]
        assert mine.total_byte_size == sum(column.total_uncompressed_size for column in columns)
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        ends += [(start, start + column.total_compressed_size) for start, column in zip(starts, columns, strict=True)]
    ends.sort()
    assert ends[0][0] == len(b"PAR1")
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends)), "no gap, no overlap"


def test_whatever_byte_of_a_page_is_changed_a_reader_that_checks_finds_it() -> None:
    rng = random.Random(2)
    table = random_table(rng, 12)
    data = written([table])
    column = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(2)
    assert column.path_in_schema == "image"
    start, size = column.data_page_offset, column.total_compressed_size
    places = range(start, start + size) if size < 1_000 else rng.sample(range(start, start + size), 1_000)
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        try:
            found = read(bytes(changed))
        except (OSError, pa.ArrowException):
            continue
        # A header has fields that decide nothing, such as the encoding of levels that the column does not have.
        assert found.equals(table), place


def test_a_schema_without_bodies_is_all_arrow_s() -> None:
    memory = io.BytesIO()
    table = pa.table({"number": [1, 2]})
    file = BlobFile(memory, table.schema, "image")
    file.write(table, ())
    file.close()
    assert read(memory.getvalue()).equals(table)


def test_as_many_rows_as_bodies_are_wanted() -> None:
    file = BlobFile(io.BytesIO(), SCHEMA, "image")
    with pytest.raises(ValueError, match="2 bodies in a row group of 1 rows"):
        file.write(random_table(random.Random(1), 1).drop_columns(["image"]), [b"a", b"b"])
    file.abandon()


def test_the_first_column_of_a_row_group_is_its_first_byte() -> None:
    """Or Spark takes its rows to be beyond the end of the file: the middle of a row group is where parquet-mr looks."""
    rng = random.Random(3)
    data = written([random_table(rng, 20) for _ in range(3)])
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    for number in range(3):
        group = metadata.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        assert starts[0] == min(starts)
        assert starts[0] + sum(column.total_compressed_size for column in columns) // 2 < len(data)
