"""Metadata in Thrift's compact protocol: what comes in goes out again, byte by byte."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.io.parquet.compact_protocol import Elements, Field, Kind, Struct, decode, encode, i32, i64, varint

BITS: dict[int, int] = {Kind.I16: 15, Kind.I32: 31, Kind.I64: 63}
TABLE = pa.table(
    {
        "number": pa.array([1, None, -3]),
        "text": pa.array(["a", "é", None]),
        "size": pa.array([[1, 2], None, []], pa.list_(pa.int32())),
        "flag": pa.array([True, False, None]),
        "at": pa.array([0, 1, 2], pa.timestamp("us", tz="UTC")),
        "real": pa.array([0.5, None, float("nan")]),
        "record": pa.array([{"x": 1, "y": "z"}, None, {"x": None, "y": None}]),
    }
)


def footer_of(table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=1, **options)  # type: ignore[arg-type]  # options of the test's own
    data = sink.getvalue().to_pybytes()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "none", "use_dictionary": False}, {"write_page_index": True, "sorting_columns": None}],
    ids=["defaults", "plain", "with an index"],
)
def test_the_metadata_of_a_file_is_the_same_after_both_ways(options: dict[str, object]) -> None:
    footer = footer_of(TABLE, **options)
    assert encode(decode(footer)) == footer


def random_field(rng: random.Random, depth: int) -> Field:
    kinds = [Kind.TRUE, Kind.FALSE, Kind.BYTE, Kind.I16, Kind.I32, Kind.I64, Kind.DOUBLE, Kind.BINARY]
    kind = rng.choice([*kinds, Kind.LIST, Kind.SET, Kind.STRUCT] if depth else kinds)
    return Field(kind, random_value(rng, kind, depth))


def random_value(rng: random.Random, kind: int, depth: int) -> object:
    if kind in {Kind.LIST, Kind.SET}:
        of = random_field(rng, 0).kind
        count = rng.choice([0, 1, 14, 15, 16, 300])
        return Elements(of, [rng.randrange(2) if of < Kind.BYTE else random_value(rng, of, 0) for _ in range(count)])
    if kind == Kind.STRUCT:
        return random_struct(rng, depth - 1)
    if kind in BITS:
        return rng.choice([0, -1, 1, 63, -64, 64, 2 ** BITS[kind] - 1, -(2 ** BITS[kind])])
    others: dict[int, object] = {
        Kind.TRUE: True, Kind.FALSE: False, Kind.BYTE: rng.randrange(128), Kind.DOUBLE: rng.random(),
        Kind.BINARY: rng.randbytes(rng.choice([0, 1, 200])),
    }  # fmt: skip
    return others[kind]


def random_struct(rng: random.Random, depth: int) -> Struct:
    numbers = sorted(rng.sample(range(1, 400), rng.randrange(8)))
    return {number: random_field(rng, depth) for number in numbers}


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_written_is_read_again(seed: int) -> None:
    fields = random_struct(random.Random(seed), 3)
    assert decode(encode(fields)) == fields


@pytest.mark.parametrize("seed", range(200))
def test_structs_that_are_deeper_than_wanted_stay_as_they_are(seed: int) -> None:
    fields = random_struct(random.Random(seed), 4)
    data = encode(fields)
    for depth in range(4):
        found = decode(data, depth)
        assert encode(found) == data
        assert _depth_of(found) == min(depth, _depth_of(fields))


def _depth_of(fields: Struct) -> int:
    inner = [it.value for it in fields.values() if it.kind == Kind.STRUCT and isinstance(it.value, dict)]
    return max((1 + _depth_of(it) for it in inner), default=0)


def test_what_is_written_is_what_the_protocol_says() -> None:
    # The examples of the protocol's own text: a field header has the step and the type; 50399 is df 89 03.
    assert varint(50_399) == b"\xdf\x89\x03"
    assert encode({1: i32(-1), 20: i64(1)}) == b"\x15\x01\x06\x28\x02\x00"
    assert encode({2: Field(Kind.TRUE, value=True)}) == b"\x21\x00"


def test_metadata_that_ends_early_is_told() -> None:
    footer = footer_of(TABLE)
    for size in range(0, len(footer), 97):
        for depth in (-1, 0, 1):
            with pytest.raises(ValueError, match="ends early"):
                decode(footer[:size], depth)


def test_a_type_that_parquet_does_not_use_is_told() -> None:
    with pytest.raises(ValueError, match="type 11"):
        decode(b"\x1b\x00")
    with pytest.raises(ValueError, match="type 11"):
        decode(b"\x1c\x1b\x00\x00\x00", 0)
