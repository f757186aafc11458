"""A UUID for every row that came without one: the same at every run, at about 0.3 us per row.

A UUID of version 8 (RFC 9562, 5.8: the layout is ours): one half hashes source_id and identifier, mixed with the row
number, the other half the row number mixed with that hash. The hash of a text is a sum over its bytes of a random
64-bit number for the byte times an odd constant to the power of its position, modulo 2^64: it needs no loop over rows.
It spreads; it is not meant to withstand an adversary. The constants must never change: results refer to these UUIDs.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_Words: TypeAlias = npt.NDArray[np.uint64]
_Word = TypeVar("_Word", np.int64, np.uint8)

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
"""The constants of splitmix64 (Steele, Lea, Flood 2014)."""
_BASE: Final = np.uint64(0xD1342543DE82EF95)
_BASE_INVERSE: Final = np.uint64(pow(0xD1342543DE82EF95, -1, 1 << 64))
"""An odd multiplier with a good spectrum (Steele, Vigna 2021), and its inverse modulo 2^64."""
_BLOCK_BYTES: Final = 1 << 18
"""Text hashed at once: what is made of it, at 8 bytes each, stays in the cache."""
_HEX: Final = np.frombuffer(bytes(range(256)).hex().encode(), dtype=np.uint16)
"""The two hexadecimal digits of every byte, read as one word."""
_HYPHENS: Final = (8, 13, 18, 23)


def _mix(words: _Words) -> _Words:
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    mixed: _Words = words ^ (words >> np.uint64(31))
    return mixed


def _powers(base: np.uint64, count: int) -> _Words:
    powers: _Words = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    np.multiply.accumulate(powers, out=powers)
    return powers


_BYTE_WORDS: Final[_Words] = _mix(np.arange(1, 257, dtype=np.uint64) * _GOLDEN)
_POWERS: Final[_Words] = _powers(_BASE, _BLOCK_BYTES)
_INVERSES: Final[_Words] = _powers(_BASE_INVERSE, _BLOCK_BYTES)


def fill_uuids(
    uuids: pa.Array[Any], source_ids: pa.Array[Any], identifiers: pa.Array[Any], row_numbers: pa.Array[Any]
) -> pa.Array[Any]:
    """``uuids`` with nulls replaced by derived ones. All of equal length; strings, and int64 row numbers."""
    if not uuids.null_count:
        return uuids
    missing = pc.is_null(uuids)
    rows = np.asarray(row_numbers.filter(missing)).astype(np.uint64)
    texts = _hash_texts(identifiers.filter(missing)) ^ _mix(_hash_texts(source_ids.filter(missing)) + _GOLDEN)
    low = _mix((rows + np.uint64(1)) * _GOLDEN)
    derived = _format(_mix(texts ^ low), _mix(texts + low))
    return derived if len(derived) == len(uuids) else pc.replace_with_mask(uuids, missing, derived)


def format_uuids(packed: pa.Array[Any]) -> pa.Array[Any]:
    """The text form of UUIDs given as 16 bytes each (fixed_size_binary(16))."""
    octets = b"".join(value or b"" for value in packed.to_pylist())
    pairs = np.frombuffer(octets, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    texts = _text(pairs[:, 0], pairs[:, 1])
    filled: pa.Array[Any] = pc.replace_with_mask(pa.nulls(len(packed), pa.string()), pc.is_valid(packed), texts)
    return filled


def _format(high: _Words, low: _Words) -> pa.Array[Any]:
    high = (high & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x8000)
    low = (low & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    return _text(high, low)


def _text(high: _Words, low: _Words) -> pa.Array[Any]:
    octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8)
    digits = _HEX[octets].view(np.uint8)
    text = np.empty((len(octets), 36), dtype=np.uint8)
    start = 0
    for skipped, end in enumerate((*_HYPHENS, 36)):
        text[:, start:end] = digits[:, start - skipped : end - skipped]
        start = end + 1
    text[:, _HYPHENS] = ord("-")
    offsets = np.arange(len(octets) + 1, dtype=np.int32) * np.int32(36)
    return pa.Array.from_buffers(pa.string(), len(octets), [None, _as_buffer(offsets), _as_buffer(text)])


def _hash_texts(texts: pa.Array[Any]) -> _Words:
    """One word per text; null counts as empty."""
    flat = texts.fill_null("").cast(pa.large_string())
    _, offset_buffer, data_buffer = flat.buffers()
    offsets = _as_numpy(offset_buffer, np.int64)[flat.offset : flat.offset + len(flat) + 1]
    data = _as_numpy(data_buffer, np.uint8)
    hashes = np.zeros(len(flat), dtype=np.uint64)
    start = 0
    while start < len(flat):
        end = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _BLOCK_BYTES, side="right")) - 1)
        hashes[start:end] = _hash_block(data, offsets[start : end + 1])
        start = end
    return hashes


def _as_buffer(words: npt.NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(words)  # type: ignore[arg-type]  # the stubs do not know that arrays are buffers


def _as_numpy(buffer: pa.Buffer | None, word: type[_Word]) -> npt.NDArray[_Word]:
    return np.frombuffer(memoryview(buffer) if buffer else b"", dtype=word)


def _hash_block(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> _Words:
    first, last = int(offsets[0]), int(offsets[-1])
    if last - first > _BLOCK_BYTES:  # one text, longer than a block: only its first block counts, and its length
        last = first + _BLOCK_BYTES
    starts = np.minimum(offsets - first, last - first)
    sums = np.zeros(last - first + 1, dtype=np.uint64)
    np.cumsum(_BYTE_WORDS[data[first:last]] * _POWERS[: last - first], out=sums[1:])
    at = np.minimum(starts[:-1], _BLOCK_BYTES - 1)  # a text that starts at the very end is empty: any power will do
    lengths = np.diff(offsets).astype(np.uint64)
    return _mix((sums[starts[1:]] - sums[starts[:-1]]) * _INVERSES[at] + lengths * _GOLDEN)
