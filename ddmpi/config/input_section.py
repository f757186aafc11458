"""The section ``input``: how the rows of the table are had.

Decides which values it may hold. Invariants as in ``sections``.
"""

from __future__ import annotations

from pydantic import Field

from ddmpi.config.sections import Section
from ddmpi.config.value_types import Text


class InputSection(Section):
    """How the table is read."""

    sql: Text | None = Field(
        None,
        examples=["SELECT * FROM 'urls.parquet' ORDER BY id"],
        description="A query of DuckDB whose rows are the table, instead of `path_to_input`; files in it are relative "
        "to the folder in which the program is started (needs ddmpi[sql]).",
    )
