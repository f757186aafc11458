"""Which split (train, test ...) a row belongs to: what a column says, or a share by a hash of a key.

A split depends on the row alone: it is the same in each export, on any number of ranks, and after the table has grown.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa

SplitOf = Callable[[pa.Table], "list[str]"]
"""Returns (n,) names of splits, one for each row."""
WHOLE: Final = "train"
"""What the Hub calls data that is in no split."""
_NO_VALUE: Final = "none"
_OTHER_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_]+")
_LONGEST: Final = 60


def whole(rows: pa.Table) -> list[str]:
    """Return one split for all."""
    return [WHOLE] * len(rows)


def by_column(column: str) -> SplitOf:
    """Return a function that names a split as the row's value, with ``_`` for what the Hub takes for no part of a name;
    ``none`` where there is no value."""

    def split_of(rows: pa.Table) -> list[str]:
        return [_as_name(value) for value in rows.column(column).to_pylist()]

    return split_of


def by_hash(shares: Sequence[tuple[str, float]], key: str) -> SplitOf:
    """Return a function that gives each split its share of the values of ``key``: rows with the same value are in the
    same split. A row without a value goes by its URL.

    Args:
        shares: (name, part of 1); they add up to 1.
    """
    ends = list(accumulate(share for _, share in shares))[:-1]
    names = [name for name, _ in shares]

    def split_of(rows: pa.Table) -> list[str]:
        keys, urls = rows.column(key).to_pylist(), rows.column("identifier").to_pylist()
        return [
            names[bisect_right(ends, _place(url if of is None else of))] for of, url in zip(keys, urls, strict=True)
        ]

    return split_of


def read_shares(text: str) -> list[tuple[str, float]]:
    """Read ``train=0.9,test=0.1``. Raises argparse.ArgumentTypeError: that is not what it is."""
    shares = []
    for item in text.split(","):
        name, _, share = item.partition("=")
        try:
            shares.append((name.strip(), float(share)))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{item!r}: expected NAME=SHARE, as in train=0.9,test=0.1") from error
    names = [name for name, _ in shares]
    if any(name != _as_name(name) for name in names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: names of splits are letters, digits and _, each once")
    if not all(share > 0 for _, share in shares) or abs(sum(share for _, share in shares) - 1) > 1e-6:
        raise argparse.ArgumentTypeError(f"{text!r}: the shares have to be above 0 and add up to 1")
    return shares


def _place(key: object) -> float:
    """Return where a key lies between 0 and 1."""
    return int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big") / 2**64


def _as_name(value: Any) -> str:
    return _OTHER_CHARACTERS.sub("_", "" if value is None else str(value)).strip("_")[:_LONGEST] or _NO_VALUE
