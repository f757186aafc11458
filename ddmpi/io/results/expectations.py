"""Whether a file is the one that the table promised: by the hash or the size that it gives for the row.

Both are kept columns. A row without a value promises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from ddmpi.io.results.schema import SuccessRow


@dataclass(frozen=True)
class Expectations:
    """Names of the kept columns that hold each file's hash, as hexadecimal text, and its bytes; None: there is none."""

    hash_column: str | None = None
    bytes_column: str | None = None

    def __bool__(self) -> bool:
        return bool(self.hash_column or self.bytes_column)

    def objection(self, inputs: pa.Table, made: SuccessRow) -> str:
        """What is not as promised, empty if all is.

        Args:
            inputs: the batch's input rows, with the kept columns.
        """
        size = self._promised(inputs, self.bytes_column, made.row)
        if size and size != str(made.original_bytes):
            return f"{made.original_bytes} bytes, the table says {size[:20]}"
        digest = self._promised(inputs, self.hash_column, made.row)
        if digest and digest.lower() != made.hashsum_original:
            return f"the hash is {made.hashsum_original}, the table says {digest[:128]}"
        return ""

    @staticmethod
    def _promised(inputs: pa.Table, column: str | None, row: int) -> str:
        value = None if column is None else inputs.column(column)[row].as_py()
        return "" if value is None else str(value).strip()
