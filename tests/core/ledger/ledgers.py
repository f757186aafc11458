"""Ledgers over small tables, and the messages that ranks send them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ddmpi.core.ledger.actions import Action, Scatter, Send
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.protocol import (
    Assign,
    Counters,
    Handoff,
    Lane,
    LaneReport,
    LaneState,
    PartReport,
    Progress,
    ToDownloader,
    WorkRequest,
)
from ddmpi.core.records import Limits, PaceState
from tests.worlds.at_random import table
from tests.worlds.model import ServerModel, World

FAST = Limits(0.0, 8)


def world(sizes: Mapping[str, int], limits: Mapping[str, Limits] | None = None, small_rows: int = 0) -> World:
    """Batches of 10 rows; 10 requests per second and 4 connections per server, or ``limits``."""
    batches = table(dict(sizes), {}, batch_size=10, small_rows=small_rows)
    return World(batches, {name: ServerModel() for name in sizes}, limits or {}, Limits(10.0, 4))


Make = Callable[..., Ledger]


def lanes_of(actions: list[Action]) -> dict[int, list[Lane]]:
    """Lanes that these actions lease, by rank."""
    found: dict[int, list[Lane]] = {}
    for action in actions:
        if isinstance(action, Scatter):
            for rank, assign in action.assigns.items():
                found.setdefault(rank, []).extend(assign.lanes)
        elif isinstance(action, Send) and isinstance(action.message, Assign):
            found.setdefault(action.rank, []).extend(action.message.lanes)
    return found


def started(ledger: Ledger) -> dict[int, list[Lane]]:
    return lanes_of(ledger.start(1, {}, 0.0))


def only_lane_of(actions: list[Action]) -> tuple[int, Lane]:
    """The one lane that these actions lease: (rank, lane)."""
    ((rank, (lane,)),) = lanes_of(actions).items()
    return rank, lane


def only_lane(ledger: Ledger) -> tuple[int, Lane]:
    """Start a ledger that leases one lane: (rank, lane)."""
    ((rank, (lane,)),) = started(ledger).items()
    return rank, lane


def progress(
    *lanes: LaneReport, parts: tuple[PartReport, ...] = (), remaining_s: float = 0.0, unstarted: int = 0
) -> Progress:
    return Progress(parts, lanes, remaining_s, unstarted, Counters())


def drained(lane: Lane, version: int = 0, paces: Mapping[str, PaceState] | None = None) -> LaneReport:
    return LaneReport(lane.lane_id, version, LaneState.DRAINED, 0.0, dict(paces or {}))


def part(batch_id: int, rows: int = 10, path: str = "p", *, is_errors: bool = False) -> PartReport:
    return PartReport(batch_id, path, rows, is_errors)


def ended_lane(ledger: Ledger, rank: int, lane: Lane, version: int = 0) -> list[Action]:
    """All batches of the lane become final and it is drained."""
    parts = tuple(part(batch.batch_id, batch.rows) for batch in lane.batches)
    return ledger.on_progress(rank, progress(drained(lane, version), parts=parts), 1.0)


def handoff_to(group: str, batch: int, ledger: Ledger, server: str = "") -> Handoff:
    return Handoff(ledger.plan.ref(batch), 1, f"http://{server or group}/x", server or group, group, 1, 1)


def steal(ledger: Ledger, rank: int, request_id: int = 1, now: float = 0.0) -> Send:
    (action,) = ledger.on_work_request(rank, WorkRequest(request_id), now)
    assert isinstance(action, Send)
    return action


def sent_by(actions: list[Action]) -> list[tuple[int, ToDownloader]]:
    """The messages that these actions send: (rank, message)."""
    return [(action.rank, action.message) for action in actions if isinstance(action, Send)]
