"""Names and types of what comes out."""

from __future__ import annotations

import pyarrow as pa

from ddmpi.core.records import RESULT_COLUMNS
from ddmpi.io.folder.layout import PART_KINDS
from ddmpi.io.results.schema import result_schema, with_all_columns


def test_no_kept_column_can_have_the_name_of_a_column_of_ours() -> None:
    assert {
        name for kind in PART_KINDS for name in result_schema(kind, refers=True, marks=True).names
    } <= RESULT_COLUMNS


def test_rows_of_an_earlier_version_get_the_columns_of_now_in_their_order() -> None:
    names = [name for name in result_schema("successes").names if name != "image"]
    now = pa.table({name: pa.array([name]) for name in [*names, "taxon"]})
    earlier = now.drop_columns(["usage_signals", "warnings"])
    assert with_all_columns(now).equals(now)
    completed = with_all_columns(earlier)
    assert completed.column_names == now.column_names
    assert completed.column("usage_signals").to_pylist() == completed.column("warnings").to_pylist() == [None]
    assert completed.drop_columns(["usage_signals", "warnings"]).equals(earlier)
