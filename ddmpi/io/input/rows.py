"""The columns of the urls folder, and how a record batch of any input becomes rows of it.

Rows travel in two forms. *Bare* rows hold what the input gave (row number, the columns that it has, the reason for
refusal; for columns with a dictionary codes instead of texts): they are what is kept in memory or spilled. ``complete``
adds what follows from them: texts, servers' names, derived UUIDs, and nulls for absent columns.

Licenses, sources and the like are half of a table's text and say little: where the file itself says that a column has
few values (``SourceFile.repeated``), a ``Dictionary`` lets rows carry four bytes each instead of a text. A dictionary
only grows, so that codes stay what they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.partition import Servers, servers_of
from ddmpi.core.records import REQUEST_HEADERS, REQUESTED
from ddmpi.io.input.uuids import fill_uuids, format_uuids, hash_texts, item_uuids

Array: TypeAlias = "pa.Array[Any]"
Field: TypeAlias = "pa.Field[Any]"

TEXT_COLUMNS: Final = ("uuid", "source_id", "identifier", "license", "source", "title")
"""The columns of an input that have a meaning here; the keys of ``columns`` in the config."""
CREDENTIALS: Final = (
    r"(?s)^(\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]*)"
    r"(?:[^/?#\\]*(?:@|%40)|[^/?#:\\]*:[0-9]*[^0-9/?#\\@].*(?:@|%40))"
)
"""Where a URL that is refused may have a user name and a password, for RE2: before an ``@`` in its host, written as
``%40`` or not, with a scheme or without; or behind a colon that no port follows, if there is an ``@`` anywhere later
(a slash in a password ends the host)."""
BAD_ENCODING: Final = "bad_encoding: not UTF-8"
ITEM_NUMBER: Final = "item_number"
"""Which of the items of its row a row was made of, from 0; only in tables that are made of items."""
REQUESTED_FIELD: Final = pa.field(REQUESTED, pa.string())
BAD_HEADERS: Final = "bad_headers: "
"""How the text of headers begins that cannot be sent; no JSON begins so."""
REASON: Final = "__reason__"
"""Column of raw rows: why a row has no URL, where more can be said than that it has none."""

_NO_HEADERS: Final = pa.scalar(None, pa.string())

_BASE_FIELDS: Final[tuple[tuple[str, pa.DataType], ...]] = (
    ("row_number", pa.int64()),
    ("server_name", pa.string()),
    *((name, pa.string()) for name in TEXT_COLUMNS),
    ("reject", pa.string()),
)
BASE_COLUMNS: Final = tuple(name for name, _ in _BASE_FIELDS)


def urls_schema(keep: Sequence[Field] = (), *, has_items: bool = False) -> pa.Schema:
    """Return the columns of ``urls/*.parquet``; ``keep`` are the further input columns, with their own types.

    ``row_number`` is the position in the input (from 0, files in name order), ``identifier`` the URL as given,
    ``server_name`` is null where the URL is refused, and ``reject`` null where it is not.
    """
    items = [pa.field(ITEM_NUMBER, pa.int32())] if has_items else []
    return pa.schema([pa.field(name, type_) for name, type_ in _BASE_FIELDS] + items + list(keep))


class BareRows(NamedTuple):
    """Bare rows, and the server of each (null where the URL is refused)."""

    rows: pa.RecordBatch
    servers: pa.DictionaryArray[Any, Any]


class UrlFacts(NamedTuple):
    """What is known of some rows' URLs alone: the server, or why it is refused (see ``Servers``), and a hash."""

    servers: pa.DictionaryArray[Any, Any]
    rejects: Array
    hashes: npt.NDArray[np.uint64]


def url_facts(raw: pa.RecordBatch) -> UrlFacts:
    """Return the facts of raw rows; only identifier has to be there. Raises pa.ArrowInvalid: it has no text form."""
    texts, broken = as_text(asked_urls(raw))
    servers, rejects = _without_bad_headers(_servers_of(texts, broken), raw)
    return UrlFacts(servers, _explained(rejects, raw), hash_texts(texts))


def bare_rows(
    raw: pa.RecordBatch,
    row_numbers: IntArray,
    keep: Sequence[Field],
    dictionaries: Mapping[str, Dictionary],
    *,
    refused: Array | None = None,
    uuids_repeat: bool = False,
    on_repaired: Callable[[str, int], None] = lambda _column, _count: None,
) -> BareRows:
    """Return the bare rows of one input batch.

    Args:
        raw: has identifier, and of our other columns those that the input has.
        keep: further columns in ``raw``; strings among them may come as bytes.
        dictionaries: of the columns that come as dictionary arrays.
        refused: which rows are refused, where that is known already: only for those it is asked again why, and no
            servers come back but nulls.
        uuids_repeat: a row's uuid is that of all of its items, and comes as a text.
        on_repaired: told of columns besides the URL's that have values with broken characters, and how many.

    Raises:
        pa.ArrowInvalid: a column has no text form.
    """
    asked, broken = as_text(asked_urls(raw))
    found = _servers_of(asked, broken) if refused is None else _refused(asked, broken, refused)
    servers, rejects = _without_bad_headers(found, raw)
    identifier = _without_passwords(as_text(raw.column("identifier"))[0], rejects)
    columns: dict[str, Array] = {"row_number": pa.array(row_numbers)}
    for name in TEXT_COLUMNS:
        if name in raw.schema.names:
            is_url = name == "identifier"
            columns[name] = identifier if is_url else _text_or_codes(raw, name, dictionaries, on_repaired)
    columns["reject"] = _explained(rejects, raw)
    if ITEM_NUMBER in raw.schema.names:
        columns[ITEM_NUMBER] = raw.column(ITEM_NUMBER)
    if uuids_repeat:  # here, where items of one row are neighbors
        columns["uuid"] = item_uuids(columns["uuid"], columns[ITEM_NUMBER], columns["row_number"])
    for field in keep:
        is_string = pa.types.is_string(field.type)
        own = raw.column(field.name)
        if field.name == REQUESTED:
            columns[REQUESTED] = _without_passwords(as_text(own)[0], rejects)
            continue
        columns[field.name] = _text_or_codes(raw, field.name, dictionaries, on_repaired) if is_string else own
    if REQUEST_HEADERS in columns:
        columns[REQUEST_HEADERS] = pc.if_else(pc.is_null(rejects), columns[REQUEST_HEADERS], _NO_HEADERS)
    return BareRows(pa.RecordBatch.from_pydict(columns), servers)


def asked_urls(rows: pa.RecordBatch | pa.Table) -> Any:
    """Return (n,) what is asked for: the table's URL, or another one in its place."""
    urls = rows.column("identifier")
    return pc.coalesce(rows.column(REQUESTED), urls) if REQUESTED in rows.schema.names else urls


def _explained(rejects: Array, raw: pa.RecordBatch) -> Array:
    """Say more of rows without a URL, or with another one, where more is known. (Where it is not asked why, nothing is
    said.)"""
    if REQUESTED in raw.schema.names and rejects.null_count < len(rejects):
        made: Any = without_credentials(as_text(raw.column(REQUESTED))[0])
        rejects = pc.coalesce(pc.binary_join_element_wise(rejects, made, pa.scalar(": rewritten to ")), rejects)
    if REASON not in raw.schema.names:
        return rejects
    told = pc.and_(pc.is_valid(rejects), pc.is_valid(raw.column(REASON)))
    return cast("Array", pc.if_else(told, raw.column(REASON), rejects))


def _without_passwords(urls: Array, rejects: Array) -> Array:
    """Take what may be a password out of refused URLs. Accepted ones have none."""
    is_refused = pc.is_valid(rejects)
    if not pc.any(is_refused, min_count=0).as_py():
        return urls
    return cast("Array", pc.replace_with_mask(urls, is_refused, without_credentials(urls.filter(is_refused))))


def without_credentials(urls: Array) -> Array:
    """Return texts without what may be a user name and password in them."""
    return pc.replace_substring_regex(urls, pattern=CREDENTIALS, replacement=r"\1")


def _text_or_codes(
    raw: pa.RecordBatch, column: str, dictionaries: Mapping[str, Dictionary], on_repaired: Callable[[str, int], None]
) -> Array:
    def text(values: Array) -> Array:
        texts, broken = as_text(values)
        if broken is not None:
            on_repaired(column, int(pc.sum(broken).as_py() or 0))
        return texts

    values = raw.column(column)
    if column in dictionaries:
        return dictionaries[column].codes(cast("pa.DictionaryArray[Any, Any]", values), text)
    return text(values)


def _servers_of(identifier: Array, broken: Array | None) -> Servers:
    servers, rejects = servers_of(identifier)
    if broken is None:
        return Servers(servers, rejects)
    names = pc.if_else(broken, pa.scalar(None, pa.string()), servers.dictionary_decode())
    return Servers(names.dictionary_encode(), pc.if_else(broken, BAD_ENCODING, rejects))


def _without_bad_headers(found: Servers, raw: pa.RecordBatch) -> Servers:
    """Refuse rows whose headers cannot be sent."""
    if REQUEST_HEADERS not in raw.schema.names:
        return found
    texts = raw.column(REQUEST_HEADERS)
    bad = np.asarray(pc.starts_with(texts, BAD_HEADERS).fill_null(False)) & np.asarray(pc.is_null(found.rejects))
    if not bad.any():
        return found
    names = pc.if_else(pa.array(bad), _NO_HEADERS, found.names.dictionary_decode())
    return Servers(names.dictionary_encode(), pc.if_else(pa.array(bad), texts, found.rejects))


def _refused(identifier: Array, broken: Array | None, refused: Array) -> Servers:
    servers = pa.nulls(len(identifier), pa.string()).dictionary_encode()
    rejects = pa.nulls(len(identifier), pa.string())
    if pc.any(refused, min_count=0).as_py():
        asked = _servers_of(identifier.filter(refused), None if broken is None else broken.filter(refused))
        rejects = pc.replace_with_mask(rejects, refused, asked.rejects)
    return Servers(servers, rejects)


def complete(
    bare: pa.Table,
    servers: Array,
    schema: pa.Schema,
    dictionaries: Mapping[str, Dictionary],
) -> pa.Table:
    """Return rows of the urls folder: bare ones, each with its server's name. ``schema`` is ``urls_schema``'s;
    ``dictionaries`` go by the names in it."""
    columns = {name: bare.column(name).combine_chunks() for name in bare.column_names}
    for name, dictionary in dictionaries.items():
        columns[name] = dictionary.texts(columns[name])
    columns["server_name"] = servers
    for name in TEXT_COLUMNS:
        columns.setdefault(name, pa.nulls(bare.num_rows, pa.string()))
    columns["uuid"] = fill_uuids(columns["uuid"], columns["source_id"], columns["identifier"], columns["row_number"])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def as_text(values: Array) -> tuple[Array, Array | None]:
    """Return values as valid UTF-8 strings, and which of them were not (those have U+FFFD for what was broken), if any.
    Raises pa.ArrowInvalid or pa.ArrowNotImplementedError for values without a text form (nested ones)."""
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
    """Return whether values are strings or bytes, of whatever width, plain or in a dictionary."""
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
    octets = values.cast(pa.large_binary())
    texts = [None if value is None else value.decode("utf-8", "replace") for value in octets.to_pylist()]
    repaired = pa.array(texts, pa.string())
    return repaired, pc.not_equal(repaired.cast(pa.large_binary()), octets).fill_null(False)


class Dictionary:
    """The texts of one column. May be used from several threads; which code a text gets depends on who comes first."""

    def __init__(self) -> None:
        self._texts: Array = pa.array([], pa.string())
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Dictionary: {len(self._texts)} texts>"

    def codes(self, values: pa.DictionaryArray[Any, Any], as_text: Callable[[Array], Array]) -> Array:
        """Return an int32 per value, null for null. ``as_text`` makes strings of the values' own dictionary."""
        own = as_text(values.dictionary)
        with self._lock:
            known = pc.index_in(own, value_set=self._texts)
            if known.null_count:
                new = pc.unique(own.filter(pc.is_null(known)).drop_null())
                self._texts = pa.concat_arrays([self._texts, new])
                known = pc.index_in(own, value_set=self._texts)
        return known.take(values.indices)

    def texts(self, codes: Array) -> Array:
        """Return the values that these codes stand for."""
        return self._texts.take(codes)
