"""Rows to servers, servers to batches.

Decides: which server each row belongs to, and which rows form a batch. All of it follows from the rows per server (and
section) alone, so it is the same at every run, whatever fits into memory.
Must not know: files, formats, threads, rates. It works on arrow and numpy arrays: a million servers are some columns,
not a million objects.

Invariants: batches cover all rows, once; their rows are consecutive in the output, servers in name order, large ones
first, then packed small ones, then refused rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.sections import Sections, fill
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS
from ddmpi.core.rules.urls import (
    PLAIN_MAX_SERVER_CHARS,
    PLAIN_MAX_URL_BYTES,
    PLAIN_NOT_ENDING,
    PLAIN_SERVER,
    Parsed,
    Rejected,
    parse_url,
)

_SCAN_BYTES: Final = 1 << 18
"""Bytes that are looked at in one step: what numpy makes of them stays in the cache."""
_SIMPLE_NAME: Final = r"^[A-Za-z0-9._:-]{1,255}$"
"""A name of these characters is all of a URL's authority, and decides alone whether the URL is acceptable."""
_ODD_CHARACTERS: Final = r"[\x00-\x20\x7f\\]"


class Servers(NamedTuple):
    """Per row of the input: the server (null if refused) and why the URL is refused (null if it is not). ``names`` is a
    dictionary array of strings, ``rejects`` an array of strings."""

    names: pa.DictionaryArray[Any, Any]
    rejects: pa.Array[Any]


def servers_of(urls: pa.Array[Any]) -> Servers:
    """What ``parse_url`` says of each URL (string or large_string, valid UTF-8).

    Plain ones (see ``urls.PLAIN_SERVER``) are seen to by arrow: names are judged once per distinct name, and the
    characters of all URLs together. Ports, addresses and capitals are judged once per distinct name as well; only what
    is odd beyond that is looked at row by row.
    """
    names = _before_path(urls)
    encoded = names.dictionary_encode()
    odd = _odd_texts(urls, encoded)
    plain = _are_plain(encoded.dictionary)
    if pc.all(plain, min_count=0).as_py() and odd is None:
        return Servers(encoded, pa.nulls(len(urls), pa.string()))
    simple = pc.match_substring_regex(encoded.dictionary, pattern=_SIMPLE_NAME)
    others = pc.fill_null(pc.invert(simple).take(encoded.indices), True)
    odd = others if odd is None else pc.or_(odd, others)
    names, rejects = _judged_by_name(urls, encoded, pc.and_not(simple, plain))
    answers = [parse_url(url) for url in urls.filter(odd).to_pylist()]
    return Servers(
        pc.replace_with_mask(names, odd, _servers_in(answers)).dictionary_encode(),
        pc.replace_with_mask(rejects, odd, _reasons_in(answers)),
    )


def _judged_by_name(urls: Any, names: Any, chosen: Any) -> tuple[Any, Any]:
    """Servers and reasons of all rows, by their names alone; ``chosen`` are the distinct names that are not plain."""
    texts = names.dictionary.filter(chosen).to_pylist()
    servers, rejects = {}, {}
    for scheme in ("http", "https"):
        answers = [parse_url(f"{scheme}://{text}/") for text in texts]
        servers[scheme] = pc.replace_with_mask(names.dictionary, chosen, _servers_in(answers)).take(names.indices)
        nothing = pa.nulls(len(names.dictionary), pa.string())
        rejects[scheme] = pc.replace_with_mask(nothing, chosen, _reasons_in(answers)).take(names.indices)
    is_https = pc.fill_null(pc.starts_with(urls, pattern="https://"), False)
    return tuple(pc.if_else(is_https, of["https"], of["http"]) for of in (servers, rejects))


def _servers_in(answers: Sequence[Parsed | Rejected]) -> Any:
    return pa.array([answer.server if isinstance(answer, Parsed) else None for answer in answers], pa.string())


def _reasons_in(answers: Sequence[Parsed | Rejected]) -> Any:
    return pa.array([None if isinstance(answer, Parsed) else answer.reason for answer in answers], pa.string())


def _before_path(urls: Any) -> Any:
    """What stands between ``http://`` or ``https://`` and the next slash; null where a URL does not begin like that."""
    try:
        # Two thirds of the time of the regular expression.
        names = pc.list_element(pc.split_pattern(urls, pattern="/", max_splits=3), 2).cast(pa.string())
    except pa.ArrowInvalid:  # a text with fewer than two slashes
        return pc.extract_regex(urls, pattern="^https?://(?P<server>[^/]*)").field("server").cast(pa.string())
    begin = pc.or_(pc.starts_with(urls, pattern="https://"), pc.starts_with(urls, pattern="http://"))
    return names if pc.all(begin, skip_nulls=False).as_py() else pc.if_else(begin, names, pa.scalar(None, pa.string()))


def _odd_texts(urls: Any, names: pa.DictionaryArray[Any, Any]) -> Any:
    """Which rows are not plain whatever their names are; None if there is none."""
    # Any, since the stubs of pyarrow.compute have no overload for "string or large_string"
    odd = pc.is_null(names)
    if not _has_plain_characters(urls):
        odd = pc.or_(odd, pc.fill_null(pc.match_substring_regex(urls, pattern=_ODD_CHARACTERS), True))
    lengths: Any = pc.binary_length(urls)
    if (pc.max(lengths).as_py() or 0) > PLAIN_MAX_URL_BYTES:
        too_long = pc.greater(lengths, pa.scalar(PLAIN_MAX_URL_BYTES, lengths.type))
        odd = pc.or_(odd, pc.fill_null(too_long, True))
    return odd if pc.any(odd, min_count=0).as_py() else None


def _are_plain(names: Any) -> Any:
    plain = pc.match_substring_regex(names, pattern=f"^{PLAIN_SERVER}$")
    plain = pc.and_(plain, pc.less_equal(pc.binary_length(names), PLAIN_MAX_SERVER_CHARS))  # type: ignore[call-overload]
    for ending in PLAIN_NOT_ENDING:
        plain = pc.and_not(plain, pc.ends_with(names, pattern=ending))
    return plain


def _has_plain_characters(urls: pa.Array[Any]) -> bool:
    """Whether no URL has a control character, a space or a backslash: one look at all bytes, four times as fast as a
    regular expression per row."""
    _, offsets, data = urls.buffers()
    if data is None or offsets is None:
        return True
    word = np.int64 if pa.types.is_large_string(urls.type) else np.int32
    bounds = np.frombuffer(memoryview(offsets), word)[urls.offset : urls.offset + len(urls) + 1]
    octets = np.frombuffer(memoryview(data), np.uint8)
    for start in range(int(bounds[0]), int(bounds[-1]), _SCAN_BYTES):
        block = octets[start : min(start + _SCAN_BYTES, int(bounds[-1]))]
        if block.min() <= 0x20 or (block == 0x7F).any() or (block == 0x5C).any():
            return False
    return True


class ServerTable(NamedTuple):
    """The servers of an input, as columns of equal length, in any order."""

    names: pa.Array[Any]
    """Strings, all different."""
    rows: IntArray
    groups: pa.Array[Any]
    """Strings: the server group that a rule puts the server into, null where the server is on its own."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The batches, as columns of equal length; and for each server (by its place in the input) where it went."""

    server_names: pa.Array[Any]
    groups: pa.Array[Any]
    """The server group of the batch; for packed servers without one a name of its own, ``__many__/N``."""
    partition_ids: IntArray
    rows: IntArray
    order: IntArray
    """Places of the servers in the order of their rows in the output; refused rows follow."""
    first_batch: IntArray
    batch_counts: IntArray

    def __len__(self) -> int:
        return len(self.rows)


def cut_batches(
    servers: ServerTable,
    *,
    invalid_rows: int,
    batch_size: int,
    small_rows: int,
    first_pack: int = 0,
    sections: Sections | None = None,
) -> Cut:
    """Cut servers into batches of up to ``batch_size`` rows; pack those with fewer than ``small_rows`` rows.

    Where a server has ``sections`` (by name, as the servers are), no batch has rows of two of them; one of a section
    with more rows, which is one URL's, may have up to ``MOST_ROWS`` rows.
    A server of a group is packed only with servers of that group. A server that has more rows than a batch holds is
    never packed, whatever ``small_rows`` says, and nor is one whose group has its own name. Packs without a group are
    numbered from ``first_pack`` on. Raises ValueError if ``batch_size`` < 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} < 1")
    rows, sections = servers.rows, sections or Sections.none(len(servers.rows))
    by_name = np.asarray(pc.sort_indices(servers.names)).astype(np.int64)
    is_alone = np.asarray(pc.equal(servers.groups, servers.names).fill_null(False))
    is_small = (rows < small_rows) & (rows <= batch_size) & ~is_alone
    large = by_name[~is_small[by_name]]
    small, segment_ends = _in_groups(by_name[is_small[by_name]], servers.groups)
    pieces = -(-rows[large] // batch_size)
    section_rows, section_pieces = sections.batch_rows(batch_size)
    has_sections = sections.places[large] >= 0
    pieces[has_sections] = section_pieces
    pack_starts = np.fromiter(fill(np.cumsum(rows[small]), segment_ends, batch_size), np.int64)
    packs, invalid = len(pack_starts), -(-invalid_rows // batch_size)
    pack_of = np.searchsorted(pack_starts, np.arange(len(small)), side="right") - 1

    first_batch, batch_counts = np.zeros(len(rows), np.int64), np.ones(len(rows), np.int64)
    first_batch[large], batch_counts[large] = np.cumsum(pieces) - pieces, pieces
    first_batch[small] = pieces.sum() + pack_of
    owners = np.repeat(large, pieces)
    partition_ids = np.concatenate([_ramps(pieces), np.arange(packs), np.arange(invalid)])
    piece_rows = np.minimum(batch_size, rows[owners] - partition_ids[: len(owners)] * batch_size)
    piece_rows[np.repeat(has_sections, pieces)] = section_rows
    pack_rows = np.bincount(pack_of, weights=rows[small], minlength=packs).astype(np.int64)
    invalid_pieces = np.minimum(batch_size, invalid_rows - np.arange(invalid) * batch_size)
    many = pa.array([f"{MANY_SERVERS}/{number}" for number in range(first_pack, first_pack + packs)], pa.string())
    own_groups = pc.coalesce(servers.groups, servers.names)
    return Cut(
        _joined(servers.names.take(owners), [MANY_SERVERS] * packs, [INVALID_SERVER] * invalid),
        _joined(
            own_groups.take(owners),
            pc.coalesce(servers.groups.take(small[pack_starts]), many),
            [INVALID_SERVER] * invalid,
        ),
        partition_ids,
        np.concatenate([piece_rows, pack_rows, invalid_pieces]).astype(np.int64),
        np.concatenate([large, small]),
        first_batch,
        batch_counts,
    )


def _in_groups(small: IntArray, groups: pa.Array[Any]) -> tuple[IntArray, IntArray]:
    """Small servers, which come by name, as they are packed: those on their own first, then group by group, in the
    order of the groups' names; and where each of these segments ends."""
    encoded = groups.take(small).dictionary_encode()
    ranks = np.asarray(pc.rank(encoded.dictionary)).astype(np.int64)
    keys = np.append(ranks, 0)[np.asarray(encoded.indices.fill_null(len(ranks)))]
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    return small[order], np.append(ends, len(small))


def _ramps(counts: IntArray) -> IntArray:
    """0, 1 ... n - 1 for each n of ``counts``, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def _joined(*parts: pa.Array[Any] | Sequence[str]) -> pa.Array[Any]:
    return pa.concat_arrays([part if isinstance(part, pa.Array) else pa.array(part, pa.string()) for part in parts])
