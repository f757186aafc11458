"""What becomes of a row after an attempt: final, tried again, handed on, or left for later. Pure.

Decides from the verdict on the attempt. It must not know when the next request starts, or what is recorded of a row.
"""

from __future__ import annotations

import random
from collections import deque
from enum import Enum

from ddmpi.core.frontier.departures import Departures
from ddmpi.core.frontier.feed import Feed
from ddmpi.core.frontier.frontier_rules import Rules
from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import Event, RowRedirected
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.lending import lend
from ddmpi.core.frontier.slot import Site
from ddmpi.core.pace.outage import PROBE_S, Outage
from ddmpi.core.pace.pace import Signal
from ddmpi.core.protocol import Errand
from ddmpi.core.records import ErrorKind, Failure, Task, error_code
from ddmpi.core.rules.verdict import Outcome, Verdict


class Fate(Enum):
    """What becomes of a row after an attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    """Final: the shell records the failure that comes with it."""
    OPEN = "open"
    """Not final: it is tried again, was handed to another lane, or stays pending (sampling)."""


class Fates:
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
        departures: Departures,
        events: deque[Event],
    ) -> None:
        self._rules = rules
        self._rng = rng
        self._lanes = lanes
        self._feed = feed
        self._outage = outage
        self._departures = departures
        self._events = events

    def decide(
        self, held: HeldLane, site: Site, task: Task, verdict: Verdict, now: float
    ) -> tuple[Fate, Failure | None]:
        """The fate of the row, which was in flight at the site of the lane; one that is final has yet to be settled."""
        if verdict.outcome is Outcome.SUCCESS:
            return Fate.SUCCESS, None
        if verdict.outcome is Outcome.REDIRECT:
            return self._follow(held, task, verdict.location, now)
        if held.lane.sampling and verdict.transient:
            self._departures.settle(held, task, now)
            return Fate.OPEN, None
        return self._try_again(site, task, verdict, now)

    def _try_again(self, site: Site, task: Task, verdict: Verdict, now: float) -> tuple[Fate, Failure | None]:
        """Whether the row waits for another try; one that our own network may have cost does not count."""
        delay_s = self._rules.retry.decide(verdict, task.attempt, self._rng)
        if verdict.signal is Signal.CONNECT_FAILED and verdict.transient and self._outage.is_suspected(now):
            site.retry_at(task, now + (delay_s or PROBE_S))
            return Fate.OPEN, None
        if delay_s is None:
            return Fate.FAILURE, verdict.failure
        task.attempt += 1
        site.retry_at(task, now + delay_s)
        return Fate.OPEN, None

    def _follow(self, held: HeldLane, task: Task, location: str, now: float) -> tuple[Fate, Failure | None]:
        """Queue the row in the lane of its new server; without one here, it has to go to where that lane is."""
        target = self._rules.locate(location)
        if isinstance(target, str):
            kind = ErrorKind.REDIRECT
            return Fate.FAILURE, Failure(kind, error_code(kind, 0), f"redirect target refused: {target}")
        task.url, task.server = target
        task.redirects += 1
        group = self._rules.group_of(task.server)
        site = self._feed.find(group, task.server)
        new = self._lanes.by_id[site.lane_id] if site is not None else None
        if new is None or new.ended or new.lane.sampling is not held.lane.sampling:
            if not held.lane.sampling:  # a sample stays pending, and is fetched later
                batch = self._feed.batches[task.batch_id]
                errand = Errand(batch, task.row, task.url, task.server, group, task.attempt, task.redirects)
                self._events.append(RowRedirected(errand))
            self._departures.settle(held, task, now)
        else:
            lend(self._lanes.by_id, task, held, new)
            self._departures.look_after(new, self._feed.hand_over(task, new, now), now)
        return Fate.OPEN, None
