"""Servers seen so far, with a number, rows, pace group and fate each. Number 0 stands for refused rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ddmpi.io.url_rows import BareRows
from ddmpi.records import INVALID_SERVER

REFUSED: Final = 0


class ServerTally:
    """Counts rows per server; a server's pace group, and whether it is ignored, are asked once, when it turns up."""

    def __init__(self, group_of: Callable[[str], str], ignored: Callable[[str], bool]) -> None:
        self._group_of = group_of
        self._ignored = ignored
        self._numbers: dict[str, int] = {}
        self.names = [INVALID_SERVER]
        self.groups = [INVALID_SERVER]
        self.rows = [0]
        self.is_ignored = [False]
        self.rejected: Counter[str] = Counter()
        """Refused rows by the first word of the reason."""

    def __repr__(self) -> str:
        return f"<ServerTally: {len(self.names) - 1} servers, {sum(self.rows)} rows, {self.rows[REFUSED]} refused>"

    def count(self, bare: BareRows) -> None:
        """Add these rows."""
        numbers = self.numbers(bare.servers)
        counts = np.bincount(numbers)
        distinct = np.flatnonzero(counts)
        for number, count in zip(distinct.tolist(), counts[distinct].tolist(), strict=True):
            self.rows[number] += count
        if bare.servers.null_count:
            reasons = bare.rows.column("reject").drop_null().to_pylist()
            self.rejected.update(reason.partition(":")[0] for reason in reasons if reason is not None)

    def numbers(self, servers: pa.DictionaryArray[Any, Any]) -> npt.NDArray[np.int32]:
        """The number of each row's server; servers not seen before get the next ones."""
        known = np.array([self._number(name) for name in servers.dictionary.to_pylist()] + [REFUSED], dtype=np.int32)
        numbers: npt.NDArray[np.int32] = known[np.asarray(servers.indices.fill_null(len(known) - 1))]
        return numbers

    def _number(self, name: str | None) -> int:
        if name is None:
            return REFUSED
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self.names)
            self.names.append(name)
            self.groups.append(self._group_of(name))
            self.rows.append(0)
            self.is_ignored.append(self._ignored(name))
        return number
