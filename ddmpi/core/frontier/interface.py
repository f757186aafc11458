"""What the frontier asks of its shell: values that ``roles.downloader`` works off, in order. Data only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddmpi.core.protocol import Errand, Yielded
from ddmpi.core.records import BatchRef, Failure, Task


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
class RowRedirected:
    """A row that this rank may not fetch: no lane here holds a share of its new server's limits."""

    errand: Errand


@dataclass(frozen=True, slots=True)
class ReadyToYield:
    """Send this answer once no more than ``connections`` connections to the split lane's servers are open."""

    answer: Yielded
    servers: tuple[str, ...] = ()
    connections: int = 0


Event = LoadBatch | BatchEnded | LaneEnded | RowsFailed | RowRedirected | ReadyToYield
