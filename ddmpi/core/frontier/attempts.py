"""What becomes of a row, or of the request for a robots.txt, after an attempt. Pure.

Decides from the verdict on the attempt: final, tried again, handed to the lane of another server, or left for later.
A row whose URL has failed for good moves on to its next mirror by the road that redirects take.
It must not know when the next request starts, what is recorded of a row, what a robots.txt means (``robots_txt``) or
which rows wait for it (``robots_gate``).

Invariant: the request for a robots.txt that is over is settled once, with what has been learned: the rows that waited
have their turn again whatever has come of it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Final

from ddmpi.core.frontier.held_lane import HeldLane, LaneStage
from ddmpi.core.frontier.intake import Intake
from ddmpi.core.frontier.interface import Disposition, FrontierConfig, RowHandedOff
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.settlement import Changes, OpenBatches, Settlement
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.outage import PROBE_S, Outage
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import Handoff
from ddmpi.core.records import ErrorKind, Failure, Mirrors, Task, error_code
from ddmpi.core.rules.retry import DNS_WAIT_S
from ddmpi.core.rules.robots_txt import EVERYTHING, RobotsFile, RobotsVerdict
from ddmpi.core.rules.urls import Parsed, keeps_origin
from ddmpi.core.rules.verdict import Outcome, Verdict, one_line

UNLIMITED_PER_S: Final = 1_000.0
"""What a server without a limit is taken to answer."""


@dataclass(frozen=True, eq=False)
class AttemptHandler:
    """The rows of one rank after their attempts."""

    config: FrontierConfig
    rng: random.Random
    """Jitter of the delays."""
    lanes: LaneTable
    intake: Intake
    batches: OpenBatches
    outage: Outage
    gate: RobotsGate | None
    """None where no server's robots.txt counts."""
    settlement: Settlement
    changes: Changes

    # ---- rows

    def row(
        self, lane: HeldLane, slot: Slot, task: Task, verdict: Verdict, now: float, *, is_of_url: bool = False
    ) -> tuple[Disposition, Failure | None]:
        """Decide about a row that was in flight at the slot of the lane, and settle it if it leaves the lane. Where it
        was refused, ``is_of_url`` says that this was for its URL alone."""
        if verdict.outcome is Outcome.SUCCESS:
            disposition, failure = Disposition.SUCCESS, None
        else:
            disposition, failure = self._decide(lane, slot, task, verdict, now, is_of_url=is_of_url)
        if failure is not None:
            failure = self.move_on(lane, task, failure, task.attempt, now)
            if failure is None:
                return Disposition.OPEN, None
        if disposition is not Disposition.OPEN:
            self.settlement.note_decided(lane, task)
            self.settlement.settle(lane, task)
        return disposition, failure

    def move_on(self, lane: HeldLane, task: Task, failure: Failure, attempts: int, now: float) -> Failure | None:
        """Send the row on to its next mirror, as a redirect does, now that its URL has failed after so many attempts:
        None. Return what the row fails with where no mirror is left that can be asked."""
        failure = task.final(failure)
        if task.mirrors is None or not task.mirrors.left:
            return failure
        told = failure.message
        for place, mirror in enumerate(task.mirrors.left, start=1):
            told = f"{told}; then {one_line(mirror)}"
            target = self._locate_mirror(mirror)
            if not isinstance(target, str):
                task.mirrors = Mirrors(task.mirrors.left[place:], told, task.mirrors.attempts + attempts)
                task.url, task.server = target
                task.attempt, task.redirects, task.cookies, task.refused_at = 1, 0, (), -math.inf
                task.asked = ""
                task.is_at_origin, task.headers = True, ""  # the headers are for the table's first URL
                self._send_on(lane, task, now)
                return None
            told = f"{told}: {target}"
        return replace(failure, message=told)

    def _locate_mirror(self, mirror: str) -> tuple[str, str] | str:
        """Return the URL to fetch and its server, or why it is not asked."""
        target = self.config.locate(mirror)
        if isinstance(target, str):
            return f"refused: {target}"
        return "not asked: its server is ignored" if self.config.is_ignored(target[1]) else target

    def least_time_s(self, server: str, rows: int) -> float:
        """Return the time that the server takes for so many rows, if it has no others."""
        rate_per_s = self.config.limits_for(self.config.group_of(server)).rate_per_s
        return rows / (rate_per_s or UNLIMITED_PER_S)

    def _decide(
        self, lane: HeldLane, slot: Slot, task: Task, verdict: Verdict, now: float, *, is_of_url: bool
    ) -> tuple[Disposition, Failure | None]:
        if verdict.outcome is Outcome.REDIRECT:
            return self._follow(lane, task, verdict, now)
        if lane.is_sampling and verdict.transient:
            self.settlement.settle(lane, task)
            return Disposition.OPEN, None
        return self._try_again(slot, task, verdict, now, is_of_url=is_of_url)

    def _try_again(
        self, slot: Slot, task: Task, verdict: Verdict, now: float, *, is_of_url: bool
    ) -> tuple[Disposition, Failure | None]:
        """Queue the row for another try if it has one; an attempt that our own network may have cost does not count."""
        delay_s = self.config.retry.decide(verdict, task.attempt, self.rng, is_of_url=is_of_url)
        if verdict.signal is Signal.CONNECT_FAILED and verdict.transient and self.outage.is_suspected(now):
            slot.retry_at(task, now + (delay_s or PROBE_S))
            return Disposition.OPEN, None
        if delay_s is None:
            return Disposition.FAILURE, verdict.failure
        task.attempt += 1
        slot.retry_at(task, now + delay_s, is_last=is_of_url)
        return Disposition.OPEN, None

    def has_no_address(self, slot: Slot, task: Task, verdict: Verdict, now: float) -> bool:
        """Note a look-up of the slot's server that found nothing; return whether it is the second one, while other
        names are found: the server does not exist."""
        if verdict.failure is None or verdict.failure.kind is not ErrorKind.DNS:
            return False
        since, slot.unresolved_since = slot.unresolved_since, min(slot.unresolved_since, now)
        is_second = task.started_at - since >= DNS_WAIT_S
        return is_second and self.outage.resolves_names(since) and not self.outage.is_suspected(now)

    def _follow(self, lane: HeldLane, task: Task, verdict: Verdict, now: float) -> tuple[Disposition, Failure | None]:
        """Send the row on to where it is redirected."""
        refused = self._redirect(task, verdict)
        if refused:
            kind = ErrorKind.REDIRECT
            return Disposition.FAILURE, Failure(kind, error_code(kind, 0), f"redirect target refused: {refused}")
        self._send_on(lane, task, now)
        return Disposition.OPEN, None

    def _send_on(self, lane: HeldLane, task: Task, now: float) -> None:
        """Queue the row in the lane of the server that it points to now; without one here, it has to go to where that
        lane is."""
        group = self.config.group_of(task.server)
        taker = self.intake.find(group, task.server)
        if taker is not None and taker.stage is not LaneStage.ENDED and taker.is_sampling is lane.is_sampling:
            self._pass_on(task, lane, taker, now)
            return
        if not lane.is_sampling:  # a sample stays pending, and is fetched later
            batch = self.batches[task.batch_id]
            handoff = Handoff(
                batch, task.row, task.url, task.server, group, task.attempt, task.redirects, task.cookies, task.others,
                task.mirrors, task.asked, task.validators,
            )  # fmt: skip
            self.changes.told.append(RowHandedOff(handoff))
        self.settlement.settle(lane, task)

    def _redirect(self, task: Task, verdict: Verdict) -> str:
        """Point the task at a redirect's target; return why that is refused, if it is."""
        target = self.config.locate(verdict.location)
        if isinstance(target, str):
            return target
        if target[1] != task.server:
            task.refused_at = -math.inf
        task.asked = task.asked or task.url
        if not keeps_origin(Parsed(task.server, task.url), Parsed(target[1], target[0])):
            task.is_at_origin, task.headers = False, ""
        task.url, task.server = target
        task.redirects += 1
        task.cookies = verdict.cookies
        return ""

    def _pass_on(self, task: Task, lane: HeldLane, taker: HeldLane, now: float) -> None:
        self.settlement.hand_off(task, lane, taker)
        self.changes.touch(taker, self.intake.take_task(taker, task, now))

    # ---- requests for a robots.txt

    def robots(
        self, lane: HeldLane, slot: Slot, task: Task, verdict: RobotsVerdict, now: float, *, is_of_url: bool = False
    ) -> None:
        """Have the gate learn what the file says, ask for it again, or ask the server to which it was redirected. Where
        it was refused, ``is_of_url`` says that its server is not paused for it."""
        file = verdict.robots
        if verdict.outcome is Outcome.REDIRECT:
            file = self._follow_robots(lane, task, verdict, now)
            if file is None:
                return
        elif verdict.failure is not None:
            delay_s = self.config.retry.decide_for_server(verdict, task.attempt, self.rng, is_of_url=is_of_url)
            if self.gate is not None and not self.gate.needs(task.server):
                file = EVERYTHING  # it was to be heard, and says nothing now
            elif lane.is_sampling and verdict.transient:
                lane.gave_up = True
            elif delay_s is not None:
                task.attempt += 1
                slot.retry_at(task, now + delay_s)
                return
            else:
                file = RobotsFile.refusing(verdict.failure)
        if file is not None and self.gate is not None:
            self.gate.learn(task.robots_of, file, now)
        self.settlement.settle(lane, task)

    def _follow_robots(self, lane: HeldLane, task: Task, verdict: Verdict, now: float) -> RobotsFile | None:
        """Ask the server to which a robots.txt was redirected, if a lane here has a share of its limits: None. Of
        others the file counts as missing; rows that are redirected there are checked against that server's own."""
        if self._redirect(task, verdict):
            return EVERYTHING
        taker = self.intake.find(self.config.group_of(task.server), task.server)
        if taker is None or taker.stage is LaneStage.ENDED or taker.gave_up:
            return EVERYTHING
        slot = taker.slots.get(task.server)
        if slot is not None and slot.given_up is not None:
            return RobotsFile.refusing(slot.given_up)
        self._pass_on(task, lane, taker, now)
        return None
