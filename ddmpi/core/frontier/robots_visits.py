"""What becomes of a request for a robots.txt when it has ended. Pure.

Decides whether the file is known now, is asked for again, or asked of another server. What its rules mean is
``robots``'s business, and which rows wait for it ``robots_gate``'s.

Invariant: a visit that is over is settled once, with what has been learned: the rows that waited have their turn again
whatever has come of it.
"""

from __future__ import annotations

import random

from ddmpi.core.frontier.departures import Departures
from ddmpi.core.frontier.feed import Feed
from ddmpi.core.frontier.frontier_rules import Rules
from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.lending import lend
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.slot import Site
from ddmpi.core.records import Task
from ddmpi.core.rules.robots_txt import EVERYTHING, RobotsFile, RobotsVerdict
from ddmpi.core.rules.verdict import Outcome


class RobotsVisits:
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
        departures: Departures,
    ) -> None:
        self._rules = rules
        self._rng = rng
        self._lanes = lanes
        self._feed = feed
        self._gate = gate
        self._departures = departures

    def finished(self, held: HeldLane, site: Site, task: Task, verdict: RobotsVerdict, now: float) -> None:
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
                site.retry_at(task, now + delay_s)
                return
            else:
                file = RobotsFile.refusing(verdict.failure)
        if file is not None:
            self._gate.learn(task.robots_of, file, now)
        self._departures.settle(held, task, now)

    def _follow(self, held: HeldLane, task: Task, location: str, now: float) -> RobotsFile | None:
        """Ask the server to which a robots.txt was redirected, if a lane here has a share of its limits: None.

        Of others the file counts as missing; rows that are redirected there are checked against that server's own.
        """
        target = self._rules.locate(location)
        if isinstance(target, str):
            return EVERYTHING
        task.url, task.server = target
        task.redirects += 1
        site = self._feed.find(self._rules.group_of(task.server), task.server)
        new = self._lanes.by_id[site.lane_id] if site is not None else None
        if site is None or new is None or new.ended or new.gave_up:
            return EVERYTHING
        if site.dead is not None:
            return RobotsFile.refusing(site.dead)
        lend(self._lanes.by_id, task, held, new)
        self._departures.look_after(new, self._feed.hand_over(task, new, now), now)
        return None
