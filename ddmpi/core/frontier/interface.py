"""What the frontier asks of its shell: values that ``roles.downloader`` works off, in order. Data only.

What a frontier has to ask of the config and of the URL rules. Data only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.protocol import Handoff, StealResponse
from ddmpi.core.records import BatchRef, Failure, Limits, Task
from ddmpi.core.rules.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class LoadBatch:
    """Read the batch's rows and call ``loaded``."""

    lane_id: int
    batch: BatchRef


@dataclass(frozen=True, slots=True)
class BatchEnded:
    """No row of this batch is left here: its parts can be closed."""

    batch_id: int


@dataclass(frozen=True, slots=True)
class LaneEnded:
    """No row of this lane is left here: close its connections, commit its batches, then ask ``drained``."""

    lane_id: int
    batch_ids: frozenset[int]
    servers: tuple[str, ...]
    ending: int = 1
    """How often the lane has ended: a lane that is extended ends again."""


@dataclass(frozen=True, slots=True)
class RowsFailed:
    """Rows whose server was given up: record each (task) with the failure."""

    tasks: Sequence[Task]
    failure: Failure


@dataclass(frozen=True, slots=True)
class RowHandedOff:
    """A row that this rank may not fetch: no lane here holds a share of its new server's limits."""

    handoff: Handoff


@dataclass(frozen=True, slots=True)
class ReadyToYield:
    """Send this answer once no more than ``connections`` connections to the split lane's servers are open."""

    answer: StealResponse
    servers: tuple[str, ...] = ()
    connections: int = 0


Event = LoadBatch | BatchEnded | LaneEnded | RowsFailed | RowHandedOff | ReadyToYield


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
