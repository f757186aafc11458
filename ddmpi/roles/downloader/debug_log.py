"""What a downloading rank's log says of servers, lanes and requests.

At the level "info" long pauses. At "debug" also each row, lane and pace, by a frontier that tells what has changed and
decides nothing; where the log says no more than usual there is no such object, so that a request costs nothing more.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable

from ddmpi.core.frontier.attempts import Disposition
from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.frontier.held_lane import LONG_PAUSE_S, RowCursor
from ddmpi.core.frontier.interface import LaneEnded, Rules
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.protocol import Extend, Lane, LaneReport, StealRequest
from ddmpi.core.records import BatchRef, Failure, Limits, Task
from ddmpi.core.rules.verdict import Outcome, Verdict
from ddmpi.report.formats import duration

log = logging.getLogger(__name__)

RATE_STEP = 0.05
"""Changes of a rate are told when they add up to this share of it."""
PAUSE_STEP_S = 1.0
"""A pause is told again when it has become longer by so much: each request in flight may hear of it."""
SHORT_PAUSE_S = 0.1
"""At "debug" shorter steps are told."""
MOST_PAUSES = 65_536
"""Pauses that are remembered for that."""


class PauseLog:
    """A line for each long pause of a server."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, key: str, wait_s: float, now: float) -> None:
        """Log that no request goes to the server group for ``wait_s``, as far as is known at ``now``."""
        until = now + wait_s
        if wait_s >= LONG_PAUSE_S and until > self._until.get(key, 0.0) + PAUSE_STEP_S:
            if len(self._until) >= MOST_PAUSES:
                self._until.clear()
            self._until[key] = until
            log.info("no request to %s for %s", key, duration(wait_s))


def make_frontier(rules: Rules, rng: random.Random) -> Frontier:
    """The frontier of a rank whose log is set up."""
    return TracedFrontier(rules, rng) if log.isEnabledFor(logging.DEBUG) else Frontier(rules, rng)


class TracedFrontier(Frontier):
    """The same frontier, with a line in the log for each lane, request, pause and change of a rate."""

    def __init__(self, rules: Rules, rng: random.Random) -> None:
        super().__init__(rules, rng)
        self._told_rates: dict[str, float] = {}

    # ---- lanes

    def assign(self, lanes: Iterable[Lane], now: float) -> None:
        lanes = tuple(lanes)
        for lane in lanes:
            kind = "sampling lane" if lane.sampling else "lane"
            rows = sum(batch.rows for batch in lane.batches)
            log.debug(
                "takes %s %d of %s: %d rows of batches %s, %d handoffs, %s",
                kind, lane.lane_id, lane.group, rows, [it.batch_id for it in lane.batches], len(lane.handoffs),
                _share(lane.share),
            )  # fmt: skip
        super().assign(lanes, now)

    def extend(self, message: Extend, now: float) -> None:
        super().extend(message, now)
        log.debug("lane %d goes on: %r", message.lane_id, self)

    def release(self, lane_ids: Iterable[int]) -> None:
        lane_ids = tuple(lane_ids)
        super().release(lane_ids)
        log.debug("has given back the lanes %s, which had ended: %r", lane_ids, self)

    def yield_lanes(self, message: StealRequest, now: float) -> None:
        super().yield_lanes(message, now)
        log.debug("was asked for %.1f s of work, or half of lane %d: %r", message.time_s, message.split_lane_id, self)

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> None:
        log.debug("batch %d has %d rows to fetch, in lane %d", batch.batch_id, cursor.left, lane_id)
        super().loaded(lane_id, batch, cursor, now)

    def drained(self, ended: LaneEnded, now: float) -> LaneReport | None:
        report = super().drained(ended, now)
        state = "has been extended meanwhile" if report is None else "has ended, and all of it is committed"
        log.debug("lane %d %s", ended.lane_id, state)
        return report

    # ---- requests

    def finished(
        self, task: Task, verdict: Verdict, now: float, body_bytes: int, ttfb_s: float = 0.0
    ) -> tuple[Disposition, Failure | None]:
        # A row may go elsewhere, or be tried again: what is told is the attempt that has ended.
        url, attempt, slot, took_ms = task.url, task.attempt, self._in_flight[task], 1000 * (now - task.started_at)
        rate_per_s, pause_s = slot.limiter.rate_per_s, slot.limiter.wait_s(now)
        disposition, failure = super().finished(task, verdict, now, body_bytes, ttfb_s)
        log.debug(
            "%s %d of batch %d, %s: %s, attempt %d, %.0f ms, %d bytes, lane %d, %s",
            "robots.txt for row" if task.robots_of else "row", task.row, task.batch_id, url, _what_came(verdict),
            attempt, took_ms, body_bytes, slot.lane_id, "open" if disposition is Disposition.OPEN else "final",
        )  # fmt: skip
        self._tell_pace(slot, rate_per_s, pause_s, now)
        return disposition, failure

    def _tell_pace(self, slot: Slot, before_per_s: float, before_s: float, now: float) -> None:
        pause_s, rate_per_s = slot.limiter.wait_s(now), slot.limiter.rate_per_s
        if pause_s > before_s + SHORT_PAUSE_S:
            log.debug("no request to %s for %.1f s: %r", slot.key, pause_s, slot.limiter)
        told_per_s = self._told_rates.setdefault(slot.key, before_per_s)
        if abs(rate_per_s - told_per_s) > RATE_STEP * max(rate_per_s, told_per_s):
            log.debug("%s is asked at %s instead of %s", slot.key, _rate(rate_per_s), _rate(told_per_s))
            self._told_rates[slot.key] = rate_per_s


def _what_came(verdict: Verdict) -> str:
    """Texts of servers are shown without control characters, which may mean something to a terminal."""
    if verdict.failure is not None:
        failure = verdict.failure
        return f"{failure.kind.value} {failure.code} {failure.message!a}"
    return "redirect" if verdict.outcome is Outcome.REDIRECT else "200"


def _rate(per_s: float) -> str:
    return f"{per_s:.4g} requests/s" if per_s else "full speed"


def _share(share: Limits) -> str:
    return f"{_rate(share.rate_per_s)}, {share.connections} connections"
