"""Files that are kept by column and carry their types: Parquet, and Arrow's own (IPC files and streams, Feather)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.errors import InputError
from ddmpi.io.sources.files import StoredFile
from ddmpi.io.sources.source_file import BATCH_BYTES, BATCH_ROWS, SourceFile

_REPEATED_BYTES: Final = 1.7
"""Bytes per value, dictionary included, that tell a column with few values: up to some 4,000 in 500,000 rows."""
_ARROW_MAGIC: Final = b"ARROW1"
_FEATHER_1_MAGIC: Final = b"FEA1"


class ParquetSource(SourceFile):
    @property
    def description(self) -> str:
        return "Parquet"

    def _open(self, as_dictionary: Collection[str] = ()) -> pq.ParquetFile:
        if self.size_bytes == 0:
            raise InputError(f"{self.path}: is empty (0 bytes), not a Parquet file")
        return pq.ParquetFile(
            self.path.files.open_input_file(self.path.path) if isinstance(self.path, StoredFile) else self.path,
            page_checksum_verification=True,
            read_dictionary=list(as_dictionary),
            pre_buffer=isinstance(self.path, StoredFile),  # neighboring columns in one request
        )

    def _read_schema(self) -> pa.Schema:
        with self._open() as file:
            self.row_count = file.metadata.num_rows
            schema = file.schema_arrow
            texts = {field.name for field in schema if pa.types.is_string(field.type)}
            self._column_bytes, repeated = _facts_of(file.metadata)
            self.repeated = frozenset(texts & repeated)
            return schema

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:
        with self._open(as_dictionary) as file:
            # Group by group: memory is then bounded by one group, and no later one is read ahead.
            for group in range(file.metadata.num_row_groups):
                rows = _batch_rows(file.metadata.row_group(group), columns)
                yield from file.iter_batches(rows, row_groups=[group], columns=list(columns))

    def expected_bytes(self, columns: Sequence[str]) -> int:
        return sum(self._column_bytes.get(name, 0) for name in columns)


def _bytes_of(group: pq.RowGroupMetaData, columns: Collection[str]) -> int:
    chunks = map(group.column, range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns)


def _batch_rows(group: pq.RowGroupMetaData, columns: Collection[str]) -> int:
    row_bytes = _bytes_of(group, columns) / max(1, group.num_rows)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1.0, row_bytes))))


def _facts_of(metadata: pq.FileMetaData) -> tuple[dict[str, int], set[str]]:
    """Return bytes by column, and the columns whose values take next to nothing in every row group: numbers into a
    small dictionary."""
    size_bytes: dict[str, int] = {}
    large = set()
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    for chunk in (group.column(index) for group in groups for index in range(group.num_columns)):
        path, chunk_bytes = chunk.path_in_schema, chunk.total_uncompressed_size
        name = path.partition(".")[0]
        size_bytes[name] = size_bytes.get(name, 0) + chunk_bytes
        if not chunk.has_dictionary_page or chunk_bytes > _REPEATED_BYTES * chunk.num_values:
            large.add(name)
    return size_bytes, size_bytes.keys() - large


class ArrowSource(SourceFile):
    """An IPC file (which Feather 2 is), or a stream."""

    @property
    def description(self) -> str:
        return "Arrow"

    def _open(self) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        if isinstance(self.path, StoredFile):
            source = self.path.files.open_input_file(self.path.path)
        else:
            source = cast("pa.NativeFile", pa.memory_map(str(self.path)))
        magic = source.read(len(_ARROW_MAGIC))
        source.seek(0)
        if magic.startswith(_FEATHER_1_MAGIC):
            raise InputError(f"{self.path}: is in the first version of Feather, which Arrow no longer reads")
        return pa.ipc.open_file(source) if magic == _ARROW_MAGIC else pa.ipc.open_stream(source)

    def _read_schema(self) -> pa.Schema:
        if self.size_bytes == 0:
            raise InputError(f"{self.path}: is empty (0 bytes), not an Arrow file")
        with self._open() as reader:
            return reader.schema

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        with self._open() as reader:
            for batch in _batches_of(reader):
                chosen = batch.select(list(columns))
                step = max(1, min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(1, chosen.get_total_buffer_size())))
                for start in range(0, batch.num_rows, step):
                    rows = chosen.slice(start, step)
                    rows.validate(full=True)  # a reader of Arrow's own form believes what it finds
                    yield rows


def _batches_of(reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from map(reader.get_batch, range(reader.num_record_batches))
    else:
        yield from reader
