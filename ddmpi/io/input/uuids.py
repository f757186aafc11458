"""A UUID for every row that came without one: the same at every run, at about 0.2 us per row.

A UUID of version 8 (RFC 9562, 5.8: the layout is ours): one half hashes source_id and identifier, mixed with the row
number, the other half the row number mixed with that hash. The hash of a text takes eight of its bytes per step, for
all rows together: there is a loop over words, none over rows. It spreads; it is not meant to withstand an adversary.
The constants must never change: results refer to these UUIDs.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias, TypeVar, cast

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
_BLOCK_ROWS: Final = 1 << 13
"""Rows hashed at once: what is made of them stays in the cache."""
HASHED_BYTES: Final = 1 << 13
"""Of a longer text only so much counts, and its length. No URL that is fetched is longer."""
_TAIL_MASKS: Final = np.array([(1 << (8 * size)) - 1 for size in range(8)], dtype=np.uint64)
"""By the number of its bytes that belong to the text, what is left of a word."""
_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_HEX: Final = np.stack([_DIGITS[np.arange(1 << 16) >> bits & 15] for bits in (12, 8, 4, 0)], 1).view(np.uint32).ravel()
"""The four hexadecimal digits of every two bytes, read as one word."""
_HIGH_DIGITS: Final = ("a", "b", "c", "d")
_LOW_DIGITS: Final = ("e", "f", "g", "h")
_LAYOUT: Final = np.dtype(
    {
        "names": [*_HIGH_DIGITS, *_LOW_DIGITS],
        "formats": ["u4"] * 8,
        "offsets": [0, 4, 9, 14, 19, 24, 28, 32],
        "itemsize": 36,
    }
)
"""Where in a UUID's text each four of its digits stand, read as one word; hyphens are between them."""


def mix(words: _Words) -> _Words:
    """Return a word for each, quite different ones for neighbors (splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    mixed: _Words = words ^ (words >> np.uint64(31))
    return mixed


def fill_uuids(
    uuids: pa.Array[Any], source_ids: pa.Array[Any], identifiers: pa.Array[Any], row_numbers: pa.Array[Any]
) -> pa.Array[Any]:
    """Return ``uuids`` with nulls replaced by derived ones. All of equal length; strings, and int64 row numbers."""
    if not uuids.null_count:
        return uuids
    missing = pc.is_null(uuids)
    rows = np.asarray(row_numbers.filter(missing)).astype(np.uint64)
    texts = hash_texts(identifiers.filter(missing)) ^ mix(hash_texts(source_ids.filter(missing)) + _GOLDEN)
    derived = _derived(texts, rows)
    return derived if len(derived) == len(uuids) else pc.replace_with_mask(uuids, missing, derived)


def item_uuids(uuids: pa.Array[Any], numbers: pa.Array[Any], row_numbers: pa.Array[Any]) -> pa.Array[Any]:
    """Return a uuid for each item, where ``uuids`` are those of the rows that they come from: the first item of a row
    has its row's, the others have one that follows from that and from their row number. Null stays null."""
    is_later = np.asarray(numbers) > 0
    follows = is_later & (np.diff(np.asarray(row_numbers), prepend=-2) == 1)
    if uuids.null_count:
        is_later &= np.asarray(pc.is_valid(uuids))
    if not is_later.any():
        return uuids
    # Neighbors that are items of one row have one uuid.
    hashes = hash_texts(uuids.filter(pa.array(~follows)))[np.cumsum(~follows)[is_later] - 1]
    derived = _derived(hashes, np.asarray(row_numbers)[is_later].astype(np.uint64))
    return cast("pa.Array[Any]", pc.replace_with_mask(uuids, pa.array(is_later), derived))


def _derived(texts: _Words, rows: _Words) -> pa.Array[Any]:
    low = mix((rows + np.uint64(1)) * _GOLDEN)
    return _format(mix(texts ^ low), mix(texts + low))


def format_uuids(packed: pa.Array[Any]) -> pa.Array[Any]:
    """Return the text form of UUIDs given as 16 bytes each (fixed_size_binary(16))."""
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
    text = np.full((len(high), 36), ord("-"), dtype=np.uint8)
    digits = text.view(_LAYOUT)[:, 0]
    for first in range(0, len(high), _BLOCK_ROWS):
        rows = slice(first, first + _BLOCK_ROWS)
        for half, names in ((high, _HIGH_DIGITS), (low, _LOW_DIGITS)):
            pairs = np.ascontiguousarray(half[rows], "<u8").view("<u2").reshape(-1, 4)
            for place, name in enumerate(names):
                digits[name][rows] = _HEX[pairs[:, 3 - place]]
    offsets = np.arange(len(text) + 1, dtype=np.int32) * np.int32(36)
    return pa.Array.from_buffers(pa.string(), len(text), [None, _as_buffer(offsets), _as_buffer(text)])


def hash_texts(texts: pa.Array[Any]) -> _Words:
    """Return one word per text; null counts as empty."""
    flat = texts.fill_null("").cast(pa.large_string())
    _, offset_buffer, data_buffer = flat.buffers()
    offsets = _as_numpy(offset_buffer, np.int64)[flat.offset : flat.offset + len(flat) + 1]
    data = _as_numpy(data_buffer, np.uint8)
    hashes = np.empty(len(flat), dtype=np.uint64)
    for start in range(0, len(flat), _BLOCK_ROWS):
        bounds = offsets[start : start + _BLOCK_ROWS + 1]
        # Seven bytes more than there are: the last word may begin at the last byte.
        block = np.append(data[bounds[0] : bounds[-1]], np.zeros(8, np.uint8))
        hashes[start : start + _BLOCK_ROWS] = _hash_block(block, bounds - bounds[0])
    return hashes


def _hash_block(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]) -> _Words:
    words = np.ndarray(len(data) - 7, dtype="<u8", buffer=data, strides=(1,))  # one beginning at each byte
    starts, lengths = bounds[:-1], np.diff(bounds)
    hashes: _Words = lengths.astype(np.uint64) * _GOLDEN
    left = np.minimum(lengths, HASHED_BYTES)
    for step in range(int(left.min()) // 8):
        hashes = _absorb(hashes, words[starts + 8 * step])
    done = int(left.min()) // 8 * 8
    rows = np.flatnonzero(left > done)
    while len(rows):
        taken = words[starts[rows] + done]
        short = left[rows] - done
        taken = np.where(short < 8, taken & _TAIL_MASKS[np.minimum(short, 7)], taken)
        hashes[rows] = _absorb(hashes[rows], taken)
        done += 8
        rows = rows[short > 8]
    return mix(hashes)


def _absorb(hashes: _Words, words: _Words) -> _Words:
    hashes = (hashes ^ words) * _MIX_1
    absorbed: _Words = hashes ^ (hashes >> np.uint64(29))
    return absorbed


def _as_buffer(words: npt.NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(words)  # type: ignore[arg-type]  # the stubs do not know that arrays are buffers


def _as_numpy(buffer: pa.Buffer | None, word: type[_Word]) -> npt.NDArray[_Word]:
    return np.frombuffer(memoryview(buffer) if buffer else b"", dtype=word)
