"""Whether a refusal (429, or 503 with Retry-After) is the server's word, or meant for its URL alone. Pure.

A CDN that has cached a 429 for one object, a thumbnail in a size that is not made, an original that only some may have:
asking more slowly helps nobody there. Decides from what becomes of rows that were refused once. Where the server had no
time for them, most are answered well at another try; where it refuses their URLs, they are refused again, while others
are answered well. It must not know rates or pauses.
"""

from __future__ import annotations

import math
from typing import Final

SURE: Final = 2
"""So many rows were refused again, more than were answered well at another try."""
MOST: Final = 4
"""More of them than this count no more: a server may begin to refuse on its own account."""
NEWEST_SHARE: Final = 0.1
"""What the newest answer counts for in the share of good ones: about the last ten count."""
LEAST_GOOD: Final = 0.5
"""Where fewer of the rows are answered well that were not refused before, the server means all of them."""


class RefusalJudge:
    """The refusals of one server, as one lane sees them. Times are seconds, monotonic."""

    __slots__ = ("_again", "_good_share", "good_at")

    def __init__(self) -> None:
        self._again = 0
        self._good_share = 1.0
        self.good_at = -math.inf
        """When the last request was answered well."""

    def good(self, now: float, refused_at: float) -> None:
        """A row was answered well that had been refused at that time, or never: -inf."""
        self.good_at = now
        self._good_share += NEWEST_SHARE * (1 - self._good_share)
        if refused_at > -math.inf:
            self._again = max(0, self._again - 1)

    def refused(self, refused_at: float) -> bool:
        """A row was refused that had been refused before, or not: -inf. Whether that is for its URL alone."""
        if refused_at < self.good_at and refused_at > -math.inf:
            self._again = min(MOST, self._again + 1)
        else:
            self._good_share *= 1 - NEWEST_SHARE
        return self._again >= SURE and self._good_share >= LEAST_GOOD
