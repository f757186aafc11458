"""What a frontier has to ask of the config and of the URL rules. Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.records import Limits
from ddmpi.core.rules.retry import RetryPolicy

CHUNK_ROWS = 256
"""Rows that become Python objects at a time: a loaded batch stays in its columns until its turn comes."""
LOW_WATER_ROWS = 2000
"""A lane with fewer loaded rows asks for its next batch: about a second of the fastest server."""


@dataclass(frozen=True)
class Rules:
    """The same for all lanes of a rank."""

    limits_for: Callable[[str], Limits]
    group_of: Callable[[str], str]
    locate: Callable[[str], tuple[str, str] | str]
    """A redirect's target -> (URL to fetch, server), or the reason why it is refused."""
    pace: PacePolicy
    retry: RetryPolicy
    connections: int = 256
    """What the rank as a whole may have in flight."""
    chunk_rows: int = CHUNK_ROWS
    low_water_rows: int = LOW_WATER_ROWS
    obeys_robots: Callable[[str], bool] | None = None
    """Whether a server's robots.txt counts; None: no server's does."""
