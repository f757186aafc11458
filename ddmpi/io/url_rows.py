"""The columns of the urls folder, and how a record batch of any input becomes rows of it.

Rows travel in two forms. *Bare* rows hold what the input gave (row number, the columns that it has, the reason for
refusal): they are what is kept in memory or spilled. ``complete`` adds what follows from them: servers' names, derived
UUIDs, and nulls for absent columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.io.row_uuids import fill_uuids, format_uuids
from ddmpi.partition import servers_of

Array: TypeAlias = "pa.Array[Any]"
Field: TypeAlias = "pa.Field[Any]"

TEXT_COLUMNS: Final = ("uuid", "source_id", "identifier", "license", "source", "title")
"""The columns of an input that have a meaning here; the keys of ``columns`` in the config."""
BAD_ENCODING: Final = "bad_encoding: not UTF-8"

_BASE_FIELDS: Final[tuple[tuple[str, pa.DataType], ...]] = (
    ("row_number", pa.int64()),
    ("server_name", pa.string()),
    *((name, pa.string()) for name in TEXT_COLUMNS),
    ("reject", pa.string()),
)
BASE_COLUMNS: Final = tuple(name for name, _ in _BASE_FIELDS)


def urls_schema(keep: Sequence[Field] = ()) -> pa.Schema:
    """Columns of ``urls/*.parquet``; ``keep`` are the further input columns, with their own types.

    ``row_number`` is the position in the input (from 0, files in name order), ``identifier`` the URL as given,
    ``server_name`` is null where the URL is refused, and ``reject`` null where it is not.
    """
    return pa.schema([pa.field(name, type_) for name, type_ in _BASE_FIELDS] + list(keep))


class BareRows(NamedTuple):
    """Bare rows, and the server of each (a dictionary array of strings, null where the URL is refused)."""

    rows: pa.RecordBatch
    servers: pa.DictionaryArray[Any, Any]


def bare_rows(raw: pa.RecordBatch, first_row: int, texts: Mapping[str, str], keep: Sequence[Field]) -> BareRows:
    """Rows of one input batch. ``texts`` maps our names to those of columns in ``raw``; identifier must be there.
    ``keep`` are further columns in ``raw``; strings among them may come as bytes.

    Raises pa.ArrowInvalid where a column has no text form.
    """
    identifier, broken = as_text(raw.column(texts["identifier"]))
    servers, rejects = servers_of(identifier)
    if broken is not None:
        servers = pc.if_else(broken, pa.scalar(None, pa.string()), servers)
        rejects = pc.if_else(broken, BAD_ENCODING, rejects)
    row_numbers = np.arange(first_row, first_row + raw.num_rows, dtype=np.int64)
    columns: dict[str, Array] = {"row_number": pa.array(row_numbers)}
    for name in TEXT_COLUMNS:
        if name in texts:
            columns[name] = identifier if name == "identifier" else as_text(raw.column(texts[name]))[0]
    columns["reject"] = rejects
    for field in keep:
        values = raw.column(field.name)
        columns[field.name] = as_text(values)[0] if pa.types.is_string(field.type) else values
    return BareRows(pa.RecordBatch.from_pydict(columns), servers.dictionary_encode())


def complete(bare: pa.Table, servers: Array, schema: pa.Schema) -> pa.Table:
    """Rows of the urls folder: bare ones (one chunk), each with its server's name. ``schema`` is ``urls_schema``'s."""
    columns = {name: bare.column(name).combine_chunks() for name in bare.column_names}
    columns["server_name"] = servers
    for name in TEXT_COLUMNS:
        columns.setdefault(name, pa.nulls(bare.num_rows, pa.string()))
    columns["uuid"] = fill_uuids(columns["uuid"], columns["source_id"], columns["identifier"], columns["row_number"])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def as_text(values: Array) -> tuple[Array, Array | None]:
    """Values as valid UTF-8 strings, and which of them were not (those have U+FFFD for what was broken), if any.

    Raises pa.ArrowInvalid or pa.ArrowNotImplementedError for values without a text form (nested ones).
    """
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_fixed_size_binary(values.type):
        if values.type.byte_width == 16:
            return format_uuids(values), None
        values = values.cast(pa.binary())
    try:
        texts = values.cast(pa.string())
        texts.validate(full=True)  # arrow's readers do not look at the encoding of what a file calls a string
    except pa.ArrowInvalid:
        if not is_text(values.type):
            raise
        return _repair(values)
    return texts, None


def is_text(type_: pa.DataType) -> bool:
    """Whether values are strings or bytes, of whatever width, plain or in a dictionary."""
    if isinstance(type_, pa.DictionaryType):
        type_ = type_.value_type
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_null,
    )
    return any(test(type_) for test in tests)


def _repair(values: Array) -> tuple[Array, Array]:
    octets: list[bytes | None] = values.cast(pa.large_binary()).to_pylist()
    texts = [None if value is None else value.decode("utf-8", "replace") for value in octets]
    broken = [
        value is not None and text is not None and text.encode() != value
        for value, text in zip(octets, texts, strict=True)
    ]
    return pa.array(texts, pa.string()), pa.array(broken, pa.bool_())
