"""Which rows of a table a trial takes: the first ones, or some at random, by their numbers.

A random choice follows from the seed and the rows' numbers alone: each row has a word that both give it, and those with
the smallest words are taken. So it is the same at every start, however the table is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from ddmpi.core.arrays import IntArray
from ddmpi.errors import Interrupted
from ddmpi.io.input.table import InputTable
from ddmpi.io.input.uuids import mix

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def first_rows(table: InputTable, count: int) -> IntArray:
    """Return the numbers of the first rows that are taken, fewer if there are no more. Raises InputError."""
    found: list[IntArray] = [np.zeros(0, np.int64)]
    left = count
    for raw in table.raw(urls_only=True):
        found.append(raw.row_numbers[:left])
        left -= len(found[-1])
        if not left:
            break
    return np.concatenate(found)


def random_rows(table: InputTable, count: int, seed: int, should_stop: Callable[[], bool] = lambda: False) -> IntArray:
    """Return the numbers of random rows of those that are taken, ascending; all if there are no more.

    Raises:
        InputError: the table is damaged.
        Interrupted: ``should_stop`` turned true.
    """
    numbers, words = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    for batch in _row_numbers(table):
        if should_stop():
            raise Interrupted("stopped while the rows of the sample were chosen; run the same command again")
        salted = batch.astype(np.uint64) * _GOLDEN + mix(np.array([seed], np.uint64) + _GOLDEN)
        numbers, words = np.append(numbers, batch), np.append(words, mix(mix(salted)))
        if len(words) > count:
            smallest = np.argpartition(words, count)[:count]
            numbers, words = numbers[smallest], words[smallest]
    return np.sort(numbers)


def _row_numbers(table: InputTable) -> Iterator[IntArray]:
    return (raw.row_numbers for raw in table.raw(urls_only=True))
