"""What has become of files that were promised by hash or size: the same, changed, gone, refused. Pure.

Decides how an outcome counts, and adds up by server and license. It must not know where outcomes come from. A row that
has an outcome is in exactly one class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ddmpi.core.records import ErrorKind

CLASSES: Final = ("same", "changed", "gone", "refused", "failed", "unchecked")
"""``failed``: nobody can say, the network or the server had a bad day. ``unchecked``: a file of which nothing was
promised, or nothing that could be read."""
UNCHANGED: Final = "unchanged"
CHECKS: Final = (UNCHANGED, "changed", "gone", "refused", "failed")
"""What a refresh finds of a file that its row keeps; ``changed``: there is another file, which was refused."""
REFRESHED: Final = (*CHECKS, "new")
"""What it finds of all rows that have a file."""
NOT_COMPARED: Final = "not compared: "
"""How ``expected_mismatch`` begins where the promise could not be read."""
_GONE_STATUSES: Final = frozenset({404, 410})
_FAILED_KINDS: Final = frozenset({"connect", "tls", "timeout", "stalled", "network", "protocol", "unreachable"})
_GONE_KINDS: Final = frozenset({"dns", "empty_body", "placeholder"})
_CLASS_OF_KIND: Final[dict[str, str]] = {
    **{kind.value: "refused" for kind in ErrorKind},
    **dict.fromkeys(_FAILED_KINDS, "failed"),
    **dict.fromkeys(_GONE_KINDS, "gone"),
    ErrorKind.HASH_MISMATCH.value: "changed",
}


def class_of_error(kind: str, code: int) -> str:
    """Return the class of an error, by its kind and code."""
    if kind != ErrorKind.HTTP_STATUS.value:
        return _CLASS_OF_KIND[kind]
    return "gone" if code in _GONE_STATUSES else "failed" if code >= 500 else "refused"


def class_of_success(mismatch: str | None, *, is_promised: bool) -> str:
    """Return the class of a file that came; ``mismatch`` is its ``expected_mismatch``."""
    if mismatch is not None:
        return "unchecked" if mismatch.startswith(NOT_COMPARED) else "changed"
    return "same" if is_promised else "unchecked"


class Line(NamedTuple):
    """The files of a server under one license; ``counts`` go by the classes that are counted."""

    server_name: str
    license: str
    counts: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(self.counts)


class Comparison:
    """Counts of these classes by server and license."""

    def __init__(self, classes: Sequence[str] = CLASSES) -> None:
        self.classes = classes
        self._places = {name: place for place, name in enumerate(classes)}
        self._counts: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(classes))

    def add(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Count rows: server, license, class."""
        for server_name, license_, class_ in rows:
            self._counts[server_name, license_][self._places[class_]] += 1

    def lines(self) -> list[Line]:
        """Return all lines, the largest first."""
        found = [Line(*key, tuple(counts)) for key, counts in self._counts.items()]
        return sorted(found, key=lambda line: (-line.rows, line.server_name, line.license))

    def total(self) -> dict[str, int]:
        """Return rows by class."""
        sums = [sum(values) for values in zip(*self._counts.values(), strict=True)] or [0] * len(self.classes)
        return dict(zip(self.classes, sums, strict=True))


def total_text(total: dict[str, int]) -> str:
    """Return the sums in words: "70 the same, 10 changed, 15 gone, 5 refused"; the last two classes only where there
    are such."""
    told = [f"{total['same']:,} the same", *(f"{total[name]:,} {name}" for name in ("changed", "gone", "refused"))]
    told += [f"{total[name]:,} {name}" for name in ("failed", "unchecked") if total[name]]
    return ", ".join(told)


def refreshed_text(total: dict[str, int]) -> str:
    """Return the sums of a refresh in words: "17,000 unchanged, 2,000 changed, 900 gone, 100 refused"; the last two
    classes only where there are such."""
    told = [f"{total[name]:,} {name}" for name in (UNCHANGED, "changed", "gone", "refused")]
    told += [f"{total[name]:,} {name}" for name in ("failed", "new") if total[name]]
    return ", ".join(told)
