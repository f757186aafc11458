"""What types have in common, and which of them travel."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ddmpi.core.rules.column_types import common_type, plain_type, settled_type

TEXT = pa.string()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.null(), pa.list_(TEXT), pa.list_(TEXT)),
        (TEXT, pa.null(), TEXT),
        (TEXT, pa.large_string(), TEXT),
        (pa.large_string(), pa.large_string(), pa.large_string()),
        (pa.list_(pa.null()), pa.large_list(TEXT), pa.list_(TEXT)),
        (
            pa.struct([("a", pa.int8())]),
            pa.struct([("b", TEXT), ("a", pa.int16())]),
            pa.struct([("a", pa.int16()), ("b", TEXT)]),
        ),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.int64(), TEXT, None),
        (pa.bool_(), pa.int64(), None),
        (TEXT, pa.binary(), None),
        (pa.list_(TEXT), TEXT, None),
    ],
    ids=str,
)
def test_numbers_widen_null_fits_and_text_is_text(
    one: pa.DataType, other: pa.DataType, expected: pa.DataType | None
) -> None:
    assert common_type(one, other) == expected
    if expected is None or not pa.types.is_struct(expected):
        assert common_type(other, one) == expected


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (pa.dictionary(pa.int8(), pa.string_view()), TEXT),
        (pa.uuid(), TEXT),
        (pa.json_(), TEXT),
        (pa.bool8(), pa.int8()),
        (pa.run_end_encoded(pa.int32(), pa.int64()), pa.int64()),
        (pa.list_view(pa.binary_view()), pa.list_(pa.binary())),
        (pa.list_(pa.uuid(), 2), pa.list_(pa.binary(16), 2)),
        (pa.map_(TEXT, pa.dictionary(pa.int8(), TEXT)), pa.map_(TEXT, TEXT)),
        (pa.struct([("a", pa.string_view())]), pa.struct([("a", TEXT)])),
        (pa.timestamp("ns", "UTC"), pa.timestamp("ns", "UTC")),
    ],
    ids=str,
)
def test_what_not_every_reader_knows_is_decoded(type_: pa.DataType, expected: pa.DataType) -> None:
    assert plain_type(type_) == expected


def test_what_is_null_in_all_files_is_text() -> None:
    assert settled_type(pa.struct([("a", pa.list_(pa.null()))])) == pa.struct([("a", pa.list_(TEXT))])
