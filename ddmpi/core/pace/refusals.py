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
UNSEEN_SHARE: Final = 0.5
"""What it says where no other row was left to be answered well in between: a pause has passed, each longer than the one
before."""
NEWEST_SHARE: Final = 0.05
"""What the newest answer counts for in the share of good ones: about the last twenty count."""
LEAST_GOOD: Final = 0.4
"""Where fewer of the rows are answered well that were not refused before, the server means all of them."""


class RefusalJudge:
    """The refusals of one server, as one lane sees them. Times are seconds, monotonic."""

    __slots__ = ("_again", "_good_share", "good_at")

    def __init__(self) -> None:
        self._again = 0.0
        self._good_share = 1.0
        self.good_at = -math.inf
        """When the last request started that was answered well."""

    @property
    def is_sure(self) -> bool:
        """Whether refusals of rows that were not refused before are for their URLs alone, too."""
        return self._again >= SURE and self._good_share >= LEAST_GOOD

    def good(self, started_at: float, refused_at: float) -> None:
        """A request was answered well whose row had been refused at that time, or never: -inf."""
        self.good_at = max(self.good_at, started_at)
        self._good_share += NEWEST_SHARE * (1 - self._good_share)
        if refused_at > -math.inf:
            self._again = max(0.0, self._again - 1)

    def refused(self, refused_at: float) -> bool:
        """A row was refused that had been refused at that time before, or never: -inf. Whether that is for its URL
        alone: others that were asked for since then were answered well, or it is known of the server."""
        if refused_at == -math.inf:
            self._good_share *= 1 - NEWEST_SHARE
            return self.is_sure
        is_seen = refused_at < self.good_at
        if self._good_share >= LEAST_GOOD and self.good_at > -math.inf:
            self._again = min(MOST, self._again + (1.0 if is_seen else UNSEEN_SHARE))
        return self.is_sure or (is_seen and self._good_share >= LEAST_GOOD)
