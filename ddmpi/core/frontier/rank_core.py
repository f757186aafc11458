"""The turn of a rank that downloads: messages and answers in, instructions out. Pure: no MPI, curl, files, clock.

Joins the frontier with what decides when parts close, when rank 0 is told something, when work is asked for, and how
the rank ends. ``roles.downloader`` performs the instructions, and so does the simulation in the tests. ``now`` is
monotonic seconds.

Invariants:
- a kill costs no more work than the checkpoint interval: all parts are asked to close every half of it, and while they
  are not all durable another half later (the disk is behind), no request starts;
- a lane's last report goes out after its parts are committed, and a split is answered after the connections beyond the
  smaller share are closed;
- after ``Finish`` nothing starts, loads or is reported but what ``finish`` returns.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

from ddmpi.core import protocol as msg
from ddmpi.core.frontier import interface as do
from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.frontier.held_lane import RowCursor
from ddmpi.core.frontier.interface import FrontierConfig
from ddmpi.core.frontier.memory_budget import MemoryBudget
from ddmpi.core.frontier.progress import ProgressReports
from ddmpi.core.frontier.stealing import WorkRequests
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.records import Answer, BatchRef, Task
from ddmpi.core.rules.rate_limit_fields import quota_of
from ddmpi.core.rules.robots_txt import judge_robots
from ddmpi.core.rules.verdict import Outcome, Verdict, classify


class RankCore:
    """One rank.

    Args:
        budget: memory for bodies in flight and not yet in a file.
        open_connections: how many connections to a server are open, idle ones included.
        report_interval_s: how often rank 0 is told what is not urgent.
        rng: jitter.
    """

    def __init__(
        self,
        config: FrontierConfig,
        budget: MemoryBudget,
        open_connections: Callable[[str], int],
        *,
        rng: random.Random,
        now: float,
        report_interval_s: float = msg.REPORT_INTERVAL_S,
    ) -> None:
        self.frontier = Frontier(config, rng)
        self.budget = budget
        self._config = config
        self._open_connections = open_connections
        self._closing = PartClosing(config.checkpoint_interval_s, now)
        self.reports = ProgressReports(report_interval_s, now)
        self._work_requests = WorkRequests()
        self._unanswered: list[do.LanesGiven] = []
        self.free_slots = 0
        """Requests that may still start before the next turn."""
        self._stop_at: float | None = None
        self._has_failed = False
        self._is_finishing = False

    # ---- messages

    def handle(self, message: msg.ToDownloader, now: float) -> list[do.Instruction]:
        frontier = self.frontier
        match message:
            case msg.Assign(lanes, request_id):
                self._work_requests.answered(request_id)
                if not any(lane.sampling for lane in lanes):
                    self._work_requests.allow(now)
                return self._carry_out(frontier.assign(lanes, now), now)
            case msg.NoWork(request_id, wait_s):
                self._work_requests.answered(request_id)
                self._work_requests.refuse_until(now + wait_s)
            case msg.SetControl(rules):
                return self._carry_out(frontier.set_overrides(Overrides(rules), now), now)
            case msg.Extend():
                return self._carry_out(frontier.extend(message, now), now)
            case msg.Release(lane_ids):
                frontier.release(lane_ids)
            case msg.StealRequest():
                return self._carry_out(frontier.give(message, now), now)
            case msg.Stop(_, grace_s):
                frontier.stop()
                self._stop_at = now + grace_s
            case _:
                raise TypeError(f"unknown message {message!r}")
        return []

    def ask_to_stop(self, reason: msg.StopReason) -> list[do.Instruction]:
        """Admit nothing more, and ask rank 0 to stop the whole job: this process got a signal."""
        self.frontier.stop()
        return [do.Send(msg.StopRequested(reason))]

    def fail(self, text: str) -> list[do.Instruction]:
        """Admit nothing more: nothing that is fetched from now on could be kept."""
        self._has_failed = True
        self.frontier.stop()
        return [do.Send(msg.Failed(text))]

    # ---- what the shell has done

    def loaded(
        self, lane_id: int, batch: BatchRef, cursor: RowCursor, refused: int, now: float
    ) -> list[do.Instruction]:
        """Take the rows of a batch that was asked for; ``refused`` more of it are errors, which the shell records."""
        self.reports.errors += refused
        return self._carry_out(self.frontier.loaded(lane_id, batch, cursor, now), now)

    def answered(self, answer: Answer, now: float) -> list[do.Instruction]:
        """Judge an answer: ``Finished``, and what follows from it."""
        task = answer.task
        if task.robots_of:
            verdict: Verdict = judge_robots(answer, self._config.crawler)
        else:
            verdict = self._classify(answer)
        size_bytes = len(answer.body)
        if size_bytes:
            self.budget.learn(size_bytes)
        quota = None if answer.rate_limits is None else quota_of(answer.rate_limits)
        changes = self.frontier.finished(task, verdict, now, size_bytes, answer.ttfb_s, quota=quota)
        done = changes[0]
        assert isinstance(done, do.Finished)  # noqa: S101  # it is the first of what the frontier returns
        self.reports.count(done, answer)
        return [done, *self._carry_out(changes[1:], now)] if len(changes) > 1 else [done]

    def needs_look(self, answer: Answer) -> bool:
        """Return whether what a look into the body finds decides something: another URL is left for the row, and this
        answer would end it as a success. Of a file that has not changed there is none."""
        return answer.task.has_mirror and bool(answer.body) and self._classify(answer).outcome is Outcome.SUCCESS

    def _classify(self, answer: Answer) -> Verdict:
        config, server = self._config, answer.task.server
        if answer.status == 200:  # it is no redirect, and no status to try again
            return classify(answer, config.accept, 0, ())
        return classify(answer, config.accept, config.max_redirects(server), config.retry_statuses(server))

    def batch_of(self, task: Task) -> BatchRef:
        """Return the batch of a row that is here."""
        return self.frontier.batch_of(task)

    def committed(self, part: msg.PartReport) -> None:
        """Note a part that is published: rank 0 counts what is durable."""
        self.reports.parts.append(part)

    def closed(self, ticket: int, now: float) -> None:
        """Note that all parts of this ``CloseParts`` were committed."""
        ended = self._closing.closed(ticket)
        if ended is not None:
            self.reports.add_lane(self.frontier.lanes.drained(ended.lane_id, ended.ending, now))

    # ---- requests

    def admit(self, now: float) -> list[do.Instruction]:
        """Start the next request that may start now, with what follows from it; empty where there is none.

        The clock is read anew for each call: what a turn has done before (loading batches takes milliseconds) must not
        make the time between this start and the next one look longer than the server will see it.
        """
        if self.free_slots <= 0:
            return []
        while changes := self.frontier.admit(now):
            if isinstance(changes[0], do.Start):
                self.free_slots -= 1
                self.reports.requests += 1
            if instructions := self._carry_out(changes, now):  # none where rows only leave for other ranks
                return instructions
        return []

    def _count_free_slots(self, buffered_bytes: int, now: float) -> int:
        """How many requests the rank can take on beside those in flight."""
        if self._is_finishing or self._closing.is_behind(now):
            return 0
        in_flight = self.frontier.in_flight
        return min(self._config.connections - in_flight, self.budget.may_start(buffered_bytes, in_flight))

    # ---- one turn

    def turn(self, now: float, buffered_bytes: int = 0, memory_bytes: int = 0) -> list[do.Instruction]:
        """Do everything that is due now, but for requests: ``admit`` starts those.

        Args:
            buffered_bytes: bodies that came in whole and are not in a file yet.
            memory_bytes: resident memory of the process, for people.
        """
        if self._is_finishing:
            return []
        instructions = self._closing.close_all_if_due(now)
        instructions += self._answer_splits()
        if self.reports.is_due(now):
            instructions += self._report(now, memory_bytes)
        if self.frontier.wants_work and now >= self._work_requests.due_at:
            instructions.append(do.Send(self._work_requests.make()))
        if self._stop_at is not None and (now >= self._stop_at or self._has_failed or not self.frontier.in_flight):
            self._is_finishing = True
            self.frontier.abandon()
            instructions.append(do.Finish())
        self.free_slots = self._count_free_slots(buffered_bytes, now)
        return instructions

    def wake_at(self) -> float:
        """Return when the next turn is due if nothing arrives before (s, monotonic)."""
        if self._is_finishing:
            return math.inf
        at = min(self.reports.due_at, self._closing.wake_at)
        if self.free_slots > 0:
            # Otherwise what may start now has to wait for an answer or the writer; both wake the rank.
            at = min(at, self.frontier.wake_at())
        if self.frontier.wants_work:
            at = min(at, self._work_requests.due_at)
        return at if self._stop_at is None else min(at, self._stop_at)

    def finish(self, now: float, memory_bytes: int = 0) -> list[do.Instruction]:
        """Tell rank 0 the last things, after ``Finish`` was performed."""
        self.reports.due_at = now
        return [*self._report(now, memory_bytes), do.Send(msg.Finished())]

    # ---- from what the frontier says to instructions

    def _carry_out(self, changes: Sequence[do.Change], now: float) -> list[do.Instruction]:
        """Word as instructions what the frontier says; keep what has to wait."""
        instructions: list[do.Instruction] = []
        for change in changes:
            match change:
                case do.Start() | do.Finished() | do.LoadBatch() | do.CloseConnections():
                    instructions.append(change)
                case do.BatchEnded(batch_id):
                    instructions.append(self._closing.close_batch(batch_id))
                case do.LaneEnded():
                    self.reports.add_lane(self.frontier.lanes.sampled(change.lane_id, now))
                    instructions += [do.CloseConnections(change.servers), self._closing.close_lane(change)]
                case do.RowsFailed():
                    for task in change.tasks:
                        self.reports.count_failed(task)
                    instructions.append(change)
                case do.RowHandedOff(handoff):
                    self.reports.handoffs.append(handoff)
                case do.LanesGiven():
                    self._unanswered.append(change)
                case _:
                    raise TypeError(f"unknown change {change!r}")
        return instructions

    def _answer_splits(self) -> list[do.Instruction]:
        """Answer steal requests; that of a split when the connections beyond the smaller share are closed."""
        if not self._unanswered:
            return []
        ready = [given for given in self._unanswered if self._count_open(given.servers) <= given.connections]
        self._unanswered = [given for given in self._unanswered if given not in ready]
        return [do.Send(given.answer) for given in ready]

    def _count_open(self, servers: Iterable[str]) -> int:
        return sum(self._open_connections(server) for server in servers)

    def _report(self, now: float, memory_bytes: int) -> list[do.Instruction]:
        instructions = self._carry_out(self.frontier.recount(now), now)
        return instructions + [do.Send(message) for message in self.reports.take(self.frontier, now, memory_bytes)]

    def __repr__(self) -> str:
        return f"<RankCore: {self.frontier!r}, {len(self._unanswered)} steal requests to answer>"


class PartClosing:
    """When a rank's parts close: with the last row of their batch, with their lane, and at the checkpoint interval."""

    def __init__(self, checkpoint_interval_s: float, now: float) -> None:
        # A part may close one interval late (see is_behind): two of these are what a kill may cost.
        self._interval_s = checkpoint_interval_s / 2
        self._due_at = now + self._interval_s
        self._closing = 0  # the ticket of the last closing of all parts, until they are durable; 0 = they are
        self._draining: dict[int, do.LaneEnded] = {}
        self._last_ticket = 0

    @property
    def wake_at(self) -> float:
        """When all parts have to close next (s, monotonic); inf = not before the last closing is done."""
        return math.inf if self._closing else self._due_at

    def close_batch(self, batch_id: int) -> do.CloseParts:
        """Close the parts of a batch of which no row is left here."""
        return self._close(frozenset((batch_id,)))

    def close_lane(self, ended: do.LaneEnded) -> do.CloseParts:
        """Close the parts of a lane of which no row is left here; ``closed`` gives it back."""
        close = self._close(ended.batch_ids)
        self._draining[close.ticket] = ended
        return close

    def close_all_if_due(self, now: float) -> list[do.Instruction]:
        """Close all parts, one closing after the other."""
        if now < self._due_at or self._closing:
            return []
        self._due_at = now + self._interval_s
        close = self._close(None)
        self._closing = close.ticket
        return [close]

    def _close(self, batch_ids: frozenset[int] | None) -> do.CloseParts:
        self._last_ticket += 1
        return do.CloseParts(self._last_ticket, batch_ids)

    def is_behind(self, now: float) -> bool:
        """Return whether the disk is an interval behind: a kill would cost more work than the interval allows."""
        return bool(self._closing) and now >= self._due_at

    def closed(self, ticket: int) -> do.LaneEnded | None:
        """Note that the parts of a ticket are durable; return the lane of which all is committed now."""
        if ticket == self._closing:
            self._closing = 0
        return self._draining.pop(ticket, None)
