"""Names and types of what comes out."""

from __future__ import annotations

from ddmpi.core.records import RESULT_COLUMNS
from ddmpi.io.folder.layout import PART_KINDS
from ddmpi.io.results.schema import result_schema


def test_no_kept_column_can_have_the_name_of_a_column_of_ours() -> None:
    assert {
        name for kind in PART_KINDS for name in result_schema(kind, refers=True, marks=True).names
    } <= RESULT_COLUMNS
