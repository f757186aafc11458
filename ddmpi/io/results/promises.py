"""What the table promises of the files: sizes and hashes, in whatever form it has them.

Decides which values can be read as a size or a hash, by which algorithm, and whether a file is the one that was
promised. It must not know what becomes of another one (see ``rows``).

The promises of a batch have the columns of ``SCHEMA``; they are made of all of its rows at once. A value
that nobody can read is no promise that was kept: it stands in ``unread``, and is told like a mismatch.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.sections import Expected
from ddmpi.core.rules.verdict import one_line
from ddmpi.core.stats.comparison import NOT_COMPARED
from ddmpi.errors import InputError
from ddmpi.io.results.digests import make_digest

Array: TypeAlias = "pa.Array[Any]"

_FIELDS: Final[dict[str, pa.DataType]] = {
    "size": pa.int64(),
    "algorithm": pa.string(),
    "digest": pa.string(),
    "unread": pa.string(),
}
SCHEMA: Final = pa.schema(_FIELDS)
"""``digest`` is in hexadecimal, lower case; null promises nothing. ``unread`` says what could not be read."""
NO_VALUE: Final = ("", "-", "na", "n/a", "nan", "none", "null", "\\n")
"""Texts, in lower case, that stand for no value."""
ALGORITHMS: Final = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
"""Bytes of their digests."""
_FORMS: Final = (
    "hexadecimal, base64, bytes, or any of them after its algorithm (sha256:...), of md5, sha1, sha256, sha512"
)
_LOOKED_AT_ROWS: Final = 10_000
_MOST_SHOWN_CHARS: Final = 128
# Made once, see ``schema``.
_ZERO: Final = pa.scalar(0.0)
_TOO_LARGE: Final = pa.scalar(2.0**53)
_DIGITS_PER_BYTE: Final = pa.scalar(2, pa.int32())
_NUMBER: Final = r"^[0-9]+(\.[0-9]*)?([eE]\+?[0-9]{1,2})?$"
_HEX: Final = r"^[0-9A-Fa-f]+$"
_BASE64: Final = r"^[A-Za-z0-9+/_-]+={0,2}$"
_FROM_URLSAFE: Final = str.maketrans("-_", "+/")
_is_hex = re.compile(rb"[0-9A-Fa-f]+").fullmatch


def promises_of(expected: Expected, rows: pa.Table | pa.RecordBatch, hash_algorithm: str) -> pa.RecordBatch:
    """Return (n,) what the table promises in these input rows. A hash without an algorithm is one by
    ``hash_algorithm`` if its length fits, else the usual one of its length. Raises pa.ArrowException: a column has no
    text form."""
    size: Array = pa.nulls(len(rows), pa.int64())
    no_text: Array = pa.nulls(len(rows), pa.string())
    algorithm, digest = no_text, no_text
    unread_size: Array = no_text
    unread_hash: Array = no_text
    if expected.bytes_column is not None:
        size, unread_size = _sizes(_plain(rows.column(expected.bytes_column)))
    if expected.hash_column is not None:
        stated = (
            no_text if expected.algorithm_column is None else _texts(_plain(rows.column(expected.algorithm_column)))
        )
        algorithm, digest, unread_hash = _hashes(_plain(rows.column(expected.hash_column)), stated, hash_algorithm)
    return pa.record_batch([size, algorithm, digest, _first_of(unread_size, unread_hash)], schema=SCHEMA)


def objection(promises: pa.RecordBatch, row: int, size_bytes: int, digest_of: Callable[[str], str]) -> str:
    """Say what of a file is not as promised in this row, or could not be compared; "" if all is. ``digest_of`` returns
    the file's digest by an algorithm."""
    size, algorithm, digest, unread = (column[row].as_py() for column in promises.columns)
    if size is not None and size != size_bytes:
        return f"{size_bytes} bytes, the table says {size}"
    if digest is not None and digest != (found := digest_of(algorithm)):
        return f"the {algorithm} is {found}, the table says {digest}"
    return one_line(unread) if unread else ""


def check_promises(expected: Expected, rows: Callable[[], Iterable[pa.RecordBatch]], hash_algorithm: str) -> list[str]:
    """Look at input rows until each column has shown a value that can be read; ``rows`` begins anew at each call.

    Returns:
        What was seen on the way that cannot: a line for each column.

    Raises:
        InputError: a column has no such value, or no text form.
    """
    doubts: list[str] = []
    for key, column in (("bytes_column", expected.bytes_column), ("hash_column", expected.hash_column)):
        if column is not None:
            alone = expected.model_copy(update={"bytes_column": None, "hash_column": None, key: column})
            doubts += _look(key, column, alone, rows(), hash_algorithm)
    return doubts


def _look(key: str, column: str, expected: Expected, rows: Iterable[pa.RecordBatch], hash_algorithm: str) -> list[str]:
    unread: list[str] = []
    looked_at = 0
    for batch in rows:
        for start in range(0, batch.num_rows, _LOOKED_AT_ROWS):
            piece = batch.slice(start, _LOOKED_AT_ROWS)
            try:
                promises = promises_of(expected, piece, hash_algorithm)
            except pa.ArrowException as error:
                raise InputError(f"expected.{key}: the column {column} has no text form: {error}") from error
            looked_at += len(piece)
            unread += map(str, promises.column("unread").drop_null().to_pylist())
            if promises.column("size" if key == "bytes_column" else "digest").null_count < len(promises):
                told = f"expected.{key}: {len(unread)} of the first {looked_at} rows are"
                return [f"{told} {unread[0]}"] if unread else []
    if not looked_at:
        return []
    known = "a whole number" if key == "bytes_column" else _FORMS
    seen = unread[0] if unread else "no row has a value"
    raise InputError(f"expected.{key}: no value of the column {column} can be read ({known}): {seen}")


# ---- sizes


def _sizes(values: Array) -> tuple[Array, Array]:
    """Return (n,) sizes in bytes, and what is none."""
    texts = _texts(values)
    numbers = _numbers(values, texts)
    is_whole = pc.equal(pc.floor(numbers), numbers)
    is_size = pc.and_(is_whole, pc.and_(pc.greater_equal(numbers, _ZERO), pc.less(numbers, _TOO_LARGE)))
    sizes = _where(is_size, numbers).cast(pa.int64())
    return sizes, _unread(texts, sizes, "a size in bytes")


def _numbers(values: Array, texts: Array) -> Array:
    if _is_number(values.type):
        return values.cast(pa.float64(), safe=False)
    return _where(pc.match_substring_regex(texts, _NUMBER), texts).cast(pa.float64())


# ---- hashes


def _hashes(values: Array, stated: Array, hash_algorithm: str) -> tuple[Array, Array, Array]:
    """Return (n,) algorithms, digests, and what is none."""
    sizes = {**ALGORITHMS, hash_algorithm: len(make_digest(hash_algorithm)(b"")) // 2}
    texts = _digests_as_text(values, frozenset(sizes.values())) if _is_binary(values.type) else _texts(values)
    names = "|".join(re.escape(name) for name in sizes)
    pattern = rf"(?i)^(?P<algorithm>{names}|sha-1|sha-256|sha-512)\s*[:=-]\s*(?P<digest>.+)$"
    before, after = _fields(pc.extract_regex(texts, pattern), "algorithm", "digest")
    digests = _as_hex(_first_of(after, texts), sizes.values())
    size_bytes = pc.divide(_lengths(digests), _DIGITS_PER_BYTE)
    algorithms = _first_of(
        _algorithm_name(before),
        _algorithm_name(stated),
        _looked_up(size_bytes, {size: name for name, size in sizes.items()}),
    )
    fits = pc.equal(_looked_up(algorithms, sizes), size_bytes)
    digests = _where(fits, digests)
    return _where(fits, algorithms), digests, _unread(texts, digests, "a hash of a known form")


def _algorithm_name(texts: Array) -> Array:
    """Return the names of algorithms as hashlib has them: sha256 for SHA-256."""
    return pc.replace_substring_regex(pc.utf8_lower(texts), pattern=r"^sha[-_ ]", replacement="sha")


def _looked_up(keys: Array, table: Mapping[Any, Any]) -> Array:
    places: Any = pc.index_in(keys, value_set=pa.array(list(table), keys.type))
    values: Array = pa.array(list(table.values())).take(places)
    return values


def _as_hex(texts: Array, sizes: Collection[int]) -> Array:
    """Return digests of these sizes in lower-case hexadecimal, null for what is none."""
    lengths = _lengths(texts)
    has_length = pc.is_in(lengths, value_set=pa.array([2 * size for size in sizes], lengths.type))
    is_hex: Any = pc.and_(pc.match_substring_regex(texts, _HEX), has_length)
    is_other: Any = pc.and_not(pc.match_substring_regex(texts, _BASE64), is_hex).fill_null(False)
    found = _where(is_hex, pc.utf8_lower(texts))
    if not pc.any(is_other, min_count=0).as_py():
        return found
    decoded = [_from_base64(str(text), sizes) for text in texts.filter(is_other).to_pylist()]
    return cast("Array", pc.replace_with_mask(found, is_other, pa.array(decoded, pa.string())))


def _from_base64(text: str, sizes: Collection[int]) -> str | None:
    bare = text.rstrip("=").translate(_FROM_URLSAFE)
    if len(bare) % 4 == 1:
        return None
    octets = base64.b64decode(bare + "=" * (-len(bare) % 4))
    return octets.hex() if len(octets) in sizes else None


def _is_binary(type_: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(type_) for test in tests)


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)


def _digests_as_text(values: Array, sizes: Collection[int]) -> Array:
    """Return bytes as hexadecimal text if they are a digest of one of these sizes; else they are text already."""
    octets = values.to_pylist()
    digests = [each.hex() if each and len(each) in sizes and not _is_hex(each) else None for each in octets]
    others = [None if digest else each for each, digest in zip(octets, digests, strict=True)]
    return _first_of(pa.array(digests, pa.string()), _texts(pa.array(others, pa.binary())))


# ---- values


def _plain(values: Array | pa.ChunkedArray[Any]) -> Array:
    """Return values in one piece, without a dictionary, and of extension types what they are made of."""
    whole: Any = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(whole, pa.DictionaryArray):
        whole = whole.dictionary_decode()
    return cast("Array", whole.storage if isinstance(whole, pa.ExtensionArray) else whole)


def _texts(values: Array) -> Array:
    """Return values as texts without the spaces and quotation marks around them, null for what stands for no value."""
    texts: Any = pc.utf8_trim(_as_text(values), ' \t\r\n"')
    return _where(pc.invert(pc.is_in(pc.utf8_lower(texts), value_set=pa.array(NO_VALUE))), texts)


def _as_text(values: Array) -> Array:
    if not _is_binary(values.type):
        return values.cast(pa.string())
    return pa.array(
        [None if each is None else each.decode("utf-8", "replace") for each in values.to_pylist()], pa.string()
    )


def _where(condition: Any, values: Any) -> Array:
    """Return the values for which the condition is true, null for the others."""
    return cast("Array", pc.if_else(condition, values, pa.scalar(None, values.type)))


def _first_of(*columns: Array) -> Array:
    return pc.coalesce(*columns)


def _lengths(texts: Any) -> Array:
    return cast("Array", pc.utf8_length(texts))


def _fields(structs: Any, *names: str) -> tuple[Array, ...]:
    return tuple(cast("Array", pc.struct_field(structs, name)) for name in names)


def _unread(texts: Array, read: Array, what: str) -> Array:
    """Return what to tell of the texts of which nothing could be read, null for the others."""
    told = [
        f'{NOT_COMPARED}the table says "{str(text)[:_MOST_SHOWN_CHARS]}", which is not {what}'
        for text in texts.filter(pc.is_null(read)).drop_null().to_pylist()
    ]
    is_unread: Any = pc.and_(pc.is_valid(texts), pc.is_null(read))
    return cast(
        "Array", pc.replace_with_mask(pa.nulls(len(texts), pa.string()), is_unread, pa.array(told, pa.string()))
    )
