"""What becomes of a row after an attempt: final, tried again, handed on, or left for later. Pure.

Decides from the verdict on the attempt. It must not know when the next request starts, or what is recorded of a row.

What becomes of a request for a robots.txt when it has ended. Pure.

Decides whether the file is known now, is asked for again, or asked of another server. What its rules mean is
``robots``'s business, and which rows wait for it ``robots_gate``'s.

Invariant: a visit that is over is settled once, with what has been learned: the rows that waited have their turn again
whatever has come of it.
"""

from __future__ import annotations

import random
from collections import deque
from enum import Enum

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.intake import Feed
from ddmpi.core.frontier.interface import Event, RowHandedOff, Rules
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.settlement import Settlement, lend
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.outage import PROBE_S, Outage
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import Handoff
from ddmpi.core.records import ErrorKind, Failure, Task, error_code
from ddmpi.core.rules.robots_txt import EVERYTHING, RobotsFile, RobotsVerdict
from ddmpi.core.rules.verdict import Outcome, Verdict


class Disposition(Enum):
    """What becomes of a row after an attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    """Final: the shell records the failure that comes with it."""
    OPEN = "open"
    """Not final: it is tried again, was handed to another lane, or stays pending (sampling)."""


class AttemptHandler:
    """The rows of one rank after their attempts.

    Args:
        rng: jitter of the delays.
        events: what is asked of the shell goes here.
    """

    def __init__(
        self,
        rules: Rules,
        rng: random.Random,
        *,
        lanes: LaneTable,
        feed: Feed,
        outage: Outage,
        settlement: Settlement,
        events: deque[Event],
    ) -> None:
        self._rules = rules
        self._rng = rng
        self._lanes = lanes
        self._feed = feed
        self._outage = outage
        self._settlement = settlement
        self._events = events

    def decide(
        self, held: HeldLane, slot: Slot, task: Task, verdict: Verdict, now: float
    ) -> tuple[Disposition, Failure | None]:
        """Decide about a row that was in flight at the slot of the lane; one that is final has yet to be settled."""
        if verdict.outcome is Outcome.SUCCESS:
            return Disposition.SUCCESS, None
        if verdict.outcome is Outcome.REDIRECT:
            return self._follow(held, task, verdict.location, now)
        if held.lane.sampling and verdict.transient:
            self._settlement.settle(held, task, now)
            return Disposition.OPEN, None
        return self._try_again(slot, task, verdict, now)

    def _try_again(self, slot: Slot, task: Task, verdict: Verdict, now: float) -> tuple[Disposition, Failure | None]:
        """Whether the row waits for another try; one that our own network may have cost does not count."""
        delay_s = self._rules.retry.decide(verdict, task.attempt, self._rng)
        if verdict.signal is Signal.CONNECT_FAILED and verdict.transient and self._outage.is_suspected(now):
            slot.retry_at(task, now + (delay_s or PROBE_S))
            return Disposition.OPEN, None
        if delay_s is None:
            return Disposition.FAILURE, verdict.failure
        task.attempt += 1
        slot.retry_at(task, now + delay_s)
        return Disposition.OPEN, None

    def _follow(self, held: HeldLane, task: Task, location: str, now: float) -> tuple[Disposition, Failure | None]:
        """Queue the row in the lane of its new server; without one here, it has to go to where that lane is."""
        target = self._rules.locate(location)
        if isinstance(target, str):
            kind = ErrorKind.REDIRECT
            return Disposition.FAILURE, Failure(kind, error_code(kind, 0), f"redirect target refused: {target}")
        task.url, task.server = target
        task.redirects += 1
        group = self._rules.group_of(task.server)
        slot = self._feed.find(group, task.server)
        new = self._lanes.by_id[slot.lane_id] if slot is not None else None
        if new is None or new.ended or new.lane.sampling is not held.lane.sampling:
            if not held.lane.sampling:  # a sample stays pending, and is fetched later
                batch = self._feed.batches[task.batch_id]
                handoff = Handoff(batch, task.row, task.url, task.server, group, task.attempt, task.redirects)
                self._events.append(RowHandedOff(handoff))
            self._settlement.settle(held, task, now)
        else:
            lend(self._lanes.by_id, task, held, new)
            self._settlement.look_after(new, self._feed.hand_over(task, new, now), now)
        return Disposition.OPEN, None


class RobotsFetches:
    """The visits of one rank.

    Args:
        rng: jitter of the delays.
    """

    def __init__(
        self,
        rules: Rules,
        rng: random.Random,
        *,
        lanes: LaneTable,
        feed: Feed,
        gate: RobotsGate,
        settlement: Settlement,
    ) -> None:
        self._rules = rules
        self._rng = rng
        self._lanes = lanes
        self._feed = feed
        self._gate = gate
        self._settlement = settlement

    def finished(self, held: HeldLane, slot: Slot, task: Task, verdict: RobotsVerdict, now: float) -> None:
        """The request has ended: what the file says is known, or it is asked for again."""
        file = verdict.robots
        if verdict.outcome is Outcome.REDIRECT:
            file = self._follow(held, task, verdict.location, now)
            if file is None:
                return
        elif verdict.failure is not None:
            delay_s = self._rules.retry.decide_for_server(verdict, task.attempt, self._rng)
            if held.lane.sampling and verdict.transient:
                held.gave_up = True
            elif delay_s is not None:
                task.attempt += 1
                slot.retry_at(task, now + delay_s)
                return
            else:
                file = RobotsFile.refusing(verdict.failure)
        if file is not None:
            self._gate.learn(task.robots_of, file, now)
        self._settlement.settle(held, task, now)

    def _follow(self, held: HeldLane, task: Task, location: str, now: float) -> RobotsFile | None:
        """Ask the server to which a robots.txt was redirected, if a lane here has a share of its limits: None.

        Of others the file counts as missing; rows that are redirected there are checked against that server's own.
        """
        target = self._rules.locate(location)
        if isinstance(target, str):
            return EVERYTHING
        task.url, task.server = target
        task.redirects += 1
        slot = self._feed.find(self._rules.group_of(task.server), task.server)
        new = self._lanes.by_id[slot.lane_id] if slot is not None else None
        if slot is None or new is None or new.ended or new.gave_up:
            return EVERYTHING
        if slot.dead is not None:
            return RobotsFile.refusing(slot.dead)
        lend(self._lanes.by_id, task, held, new)
        self._settlement.look_after(new, self._feed.hand_over(task, new, now), now)
        return None
