"""What a rank's core asks of its shell, and what it has to know of the config and of the URL rules. Data only.

``roles.downloader`` performs the instructions in order. Those that come with every request are msgspec structs, which
cost a fifth of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.protocol import Handoff, StealResponse, ToCoordinator
from ddmpi.core.records import BatchRef, Failure, Limits, Task
from ddmpi.core.rules.retry import RetryPolicy
from ddmpi.core.rules.usage_signals import Respect
from ddmpi.core.rules.verdict import RETRY_STATUSES, Verdict

CHUNK_ROWS = 256
"""Rows that become Python objects at a time: a loaded batch stays in its columns until its turn comes."""
LOW_WATER_ROWS = 2000
"""A lane with fewer loaded rows asks for its next batch: about a second of the fastest server."""


@dataclass(frozen=True)
class FrontierConfig:
    """What all lanes of a rank have in common."""

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
    respect: Callable[[str], Respect] | None = None
    """What is obeyed of a server's signals; None: no server is asked for its robots.txt."""
    accept: str = "image"
    max_redirects: Callable[[str], int] = lambda _: 5
    """How often a row on this server may be redirected."""
    retry_statuses: Callable[[str], Collection[int]] = lambda _: RETRY_STATUSES
    """With which statuses of this server a row is tried again."""
    crawler: str = "ddmpi"
    """The name by which a robots.txt may address us, lower case."""
    is_restart: bool = False
    """Whether an earlier run may have asked any server just now: none has anything to spend at the start."""
    is_ignored: Callable[[str], bool] = lambda _: False
    """Whether the operator leaves this server out: it is asked for no mirror."""
    checkpoint_interval_s: float = 60.0
    """What a kill may cost of a rank's work at most."""
    servers_at_once: int = 4_096
    """Where more servers have begun, those that are due go before new ones: so many connections are kept."""


class Disposition(Enum):
    """What becomes of a row after an attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    """Final."""
    OPEN = "open"
    """Not final: it is tried again, was handed to another lane, or stays pending (sampling)."""


# ---- requests


class Start(msgspec.Struct, frozen=True):
    task: Task
    key: str
    """The server group whose limits count; in a packed lane the server."""
    lane_id: int
    connection_limit: int
    """Connections that may be open to the slot's servers: close this one afterwards where there are more."""
    spare_connections: int
    """Connections that nothing in flight needs: keep no more idle ones than that."""
    is_sampling: bool


class Finished(msgspec.Struct, frozen=True):
    """A request has ended: note it, and record the row's outcome if the disposition is final."""

    task: Task
    url: str
    """What was asked for in this attempt; a redirect changes the task."""
    attempt: int
    server: str
    """Which was asked; a redirect changes the task."""
    key: str
    """Whose limits counted, as in ``Start``."""
    group: str
    """The server group for people: all packed servers are one."""
    lane_id: int
    verdict: Verdict
    disposition: Disposition
    failure: Failure | None
    """Of a row with the disposition FAILURE."""
    batch: BatchRef | None
    """None for a robots.txt."""
    pause_s: float
    """For how long the server is paused or parked from now on; 0 after a good answer."""
    rate_per_s: float
    """At which the server is asked from now on; 0 = no limit."""
    is_sample: bool
    """Of a row that is fetched to profile its server."""


@dataclass(frozen=True, slots=True)
class RowsFailed:
    """Record each of these rows of a batch, whose server was given up or disallows them, with the failure."""

    batch: BatchRef
    tasks: Sequence[Task]
    failure: Failure


# ---- batches and parts


@dataclass(frozen=True, slots=True)
class LoadBatch:
    """Read the batch's rows and call ``loaded``."""

    lane_id: int
    batch: BatchRef


@dataclass(frozen=True, slots=True)
class CloseParts:
    """Commit the open parts of these batches (None: of all), then call ``closed`` with the ticket."""

    ticket: int
    batch_ids: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class CloseConnections:
    """Close the idle connections to these servers, to which nothing is in flight: another rank may open its own."""

    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Send:
    message: ToCoordinator


@dataclass(frozen=True, slots=True)
class Finish:
    """Cut off what is in flight, commit everything, then call ``finish``. The rank does nothing more after it."""


Instruction = Start | Finished | RowsFailed | LoadBatch | CloseParts | CloseConnections | Send | Finish


# ---- what the frontier tells the rank's core, which words the instructions above


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
class RowHandedOff:
    """A row that this rank may not fetch: no lane here holds a share of its new server's limits."""

    handoff: Handoff


@dataclass(frozen=True, slots=True)
class LanesGiven:
    """Answer a ``StealRequest`` once no more than ``connections`` connections to the split lane's servers are open."""

    answer: StealResponse
    servers: tuple[str, ...] = ()
    connections: int = 0


Change = (
    Start | Finished | RowsFailed | LoadBatch | CloseConnections | BatchEnded | LaneEnded | RowHandedOff | LanesGiven
)
