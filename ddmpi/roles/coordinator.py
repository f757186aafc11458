"""Rank 0: profile, schedule, steer, verify. A loop that takes messages and performs what the ledger decides.

The stages after initialization are states of this loop, not collectives: no rank ever waits for another in a barrier.

    PROFILING -> DOWNLOADING -> STOPPING -> (every rank has finished) -> ended

The download begins while the slowest servers are still being profiled: their batches join it when their samples are in.
``STOPPING`` is entered when every row is final, when only parked rows are left, on a signal, near the walltime, or
when a rank cannot write. Accounting goes by published parts alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum

import msgspec
import numpy as np

from ddmpi.actions import Action, BatchCompleted, BigBatchEnded, BigBatchStarted, Scatter, Send
from ddmpi.audit import Audit
from ddmpi.control import ControlRule
from ddmpi.errors import EXIT_DONE, EXIT_PENDING
from ddmpi.io.batch_table import limits_by_group, make_plan
from ddmpi.io.schedules import write_schedule
from ddmpi.ledger import Ledger
from ddmpi.protocol import (
    Assign,
    Begin,
    Counters,
    Exit,
    Failed,
    Finished,
    LaneState,
    Progress,
    Redirected,
    Release,
    Samples,
    ServersUsed,
    SetControl,
    StealRequest,
    Stop,
    StopReason,
    StopRequested,
    ToCoordinator,
    ToDownloader,
    Yielded,
)
from ddmpi.records import INVALID_SERVER
from ddmpi.roles.admission import Admission
from ddmpi.roles.profiling import Profiler, is_sampling, targets
from ddmpi.roles.run_state import RunState
from ddmpi.roles.verifying import Verifier
from ddmpi.schedule import Plan, is_packed, lower_bound_s, report_interval_s
from ddmpi.summary import Snapshot
from ddmpi.usage import UsageTable

log = logging.getLogger(__name__)

GRACE_S = 8.0
"""What requests in flight get at a soft stop: with the commit of the parts it stays below 20 s."""
FINISH_TIMEOUT_S = 18.0
"""A rank that has not finished so long after ``Stop`` is left behind: its open parts are lost, nothing else."""
CHECKPOINT_INTERVAL_S = 10.0
LONG_PAUSE_S = 5.0
"""A pause that is longer is saved at once: whoever goes on after a kill must keep it."""
SAVE_AT_ONCE_S = 1.0
SAVES_SHARE = 0.05
"""At once means so long after the last checkpoint, or when those take up no more than this share of the time."""


class Stage(Enum):
    """What the loop is doing."""

    PROFILING = "profiling"
    DOWNLOADING = "downloading"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True)
class Bound:
    """The least time of the download, as planned when it began (``schedule.lower_bound_s``)."""

    seconds: float
    group: str
    """The group that sets it."""
    began_at: float
    """Seconds, monotonic."""


@dataclass
class Tally:
    """What people want to know about the run, from the ranks' reports."""

    counters: dict[int, Counters] = field(default_factory=dict)
    usage: UsageTable = field(default_factory=UsageTable)
    audit: Audit = field(default_factory=Audit)

    def total(self) -> Counters:
        """Sum over the ranks."""
        all_counters = self.counters.values()
        return Counters(
            sum(c.successes for c in all_counters),
            sum(c.errors for c in all_counters),
            sum(c.requests for c in all_counters),
            sum(c.bytes for c in all_counters),
            sum(c.in_flight for c in all_counters),
            sum(c.servers_active for c in all_counters),
            sum(c.memory_bytes for c in all_counters),
        )


class Coordinator:
    """The coordinator of one run over an initialized output folder.

    Args:
        state: what initialization found and made.
        workers: ranks that download.
        send, scatter: the mailbox.
        deadline: when to stop for the walltime (s, monotonic).
        control: rules that hold from the beginning.
        on_end: told how the run ends before the other ranks are: those wait only seconds for one that still works then.
    """

    def __init__(
        self,
        state: RunState,
        workers: list[int],
        send: Callable[[int, ToDownloader], None],
        scatter: Callable[[dict[int, ToDownloader]], None],
        deadline: float | None = None,
        *,
        on_end: Callable[[Exit], None] = lambda _: None,
        control: tuple[ControlRule, ...] = (),
    ) -> None:
        self.state = state
        self.tally = Tally()
        self.stage = Stage.PROFILING
        self.ledger: Ledger | None = None
        self.exit: Exit | None = None
        self.bound: Bound | None = None
        self._workers = workers
        self._send = send
        self._scatter = scatter
        self._deadline = deadline
        self._on_end = on_end
        self._control = control
        self._admission: Admission | None = None
        self._verifier = Verifier(state)
        self._finished: set[int] = set()
        self._stop_reason: StopReason | None = None
        self._stop_deadline = 0.0
        self._failure = ""
        self._is_readonly = False
        self._errors_before = int(state.errors.sum())
        self._rows_before = int(state.successes.sum()) + self._errors_before
        self._rows_left = state.rows - state.successes - state.errors
        self._began_at = 0.0
        self._checkpoint_at = 0.0
        self._may_save_at = 0.0

    # ---- stages

    def start(self, now: float) -> None:
        """Tell the ranks to begin, and send the first lanes out."""
        begin = Begin(self.state.epoch, self.state.config.to_json(), report_interval_s(len(self._workers)))
        for rank in self._workers:
            self._send(rank, begin)
        if self._control:
            self.set_control(self._control)
        self._checkpoint_at = now + CHECKPOINT_INTERVAL_S
        self._verifier.add_unverified()
        profiling = self.state.config.profiling
        wanted = []
        if profiling.mode == "measure" and not self.state.stages.get("profiled"):
            state = self.state
            wanted = targets(state.table, profiling.min_rows, state.profiles, state.is_open, state.begun_ref)
        if not wanted:
            self._start_download(now)
            return
        limits = limits_by_group(self.state.config, self.state.profiles)
        profiler = Profiler(
            wanted, limits, self.state.config.group_of, self.state.known_paces(), profiling.samples_per_server
        )
        self._admission = Admission(profiler, self.state, now)
        log.info("profiling %d servers", len(wanted))
        self._scatter(dict(profiler.lanes(self._workers)))

    def _go_on_profiling(self, admission: Admission, now: float) -> None:
        groups = admission.take(now)
        if self.ledger is None:
            self._complete_sampled()
            self._start_download(now)
        elif groups:
            admitted = admission.admit(self.ledger.plan, groups)
            self._perform(self.ledger.admit(admitted.row_times, admitted.paces, now, admitted.decided))
            self._note_bound(self.ledger.plan)
        if admission.profiler.is_drained:
            admission.finish()
            self._admission = None
            self._save(now)

    def _complete_sampled(self) -> None:
        """Batches of which an earlier run had left no more rows than are sampled belong to no big batch."""
        done = [batch_id for batch_id in self.state.parts if not self.state.is_open(batch_id)]
        for batch_id in done:
            self.state.complete(batch_id)
        self._verifier.add_apart(done)

    def _start_download(self, now: float) -> None:
        state = self.state
        limits = limits_by_group(state.config, state.profiles)
        plan = make_plan(
            state.table, state.config, rows=state.rows, profiles=state.profiles, limits=limits, ref=state.ref,
            workers=self._workers,
        )  # fmt: skip
        self._began_at = now
        state.stages["downloading"] = {"began_at": time.time(), "workers": len(self._workers)}
        self._note_bound(plan)
        self.ledger = Ledger(plan, state.successes, state.errors, state.parts)
        self.stage = Stage.DOWNLOADING
        paces = state.known_paces()
        withheld: Collection[int] = ()
        decided: dict[int, tuple[int, ...]] = {}
        if self._admission is not None:
            paces.update(self._admission.profiler.paces)
            withheld, decided = self._admission.withhold(plan), self._admission.profiler.decided()
        actions = self.ledger.start(self._verifier.next_number, paces, now, withheld, decided)
        log.info("downloading: %r", self.ledger)
        if not any(isinstance(action, Scatter) for action in actions):
            actions.append(Scatter({}))
        self._perform(actions)

    def _note_bound(self, plan: Plan) -> None:
        """By what is known of the servers by now."""
        bound_s, slowest = lower_bound_s(plan, self._rows_left)
        self.bound = Bound(bound_s, plan.group_names[slowest] if slowest >= 0 else "", self._began_at)
        self.state.stages["downloading"].update(bound_s=bound_s, bound_by=self.bound.group)

    # ---- messages

    def handle(self, rank: int, message: ToCoordinator, now: float) -> None:
        """Take a downloader's message."""
        match message:
            case Progress():
                self._on_progress(rank, message, now)
            case Samples(samples):
                if self._admission is not None:
                    self._admission.profiler.on_samples(samples)
            case ServersUsed(usages, asked):
                self.tally.usage.add(usages, now)
                self.tally.audit.add(asked)
            case StopRequested(reason):
                self.stop(reason, now)
            case Failed(text):
                self._failure = f"rank {rank}: {text}"
                self.stop(StopReason.FAILURE, now)
            case Finished():
                self._finished.add(rank)
            case _ if self.ledger is None:
                log.debug("dropped while profiling: %r", message)
            case _:
                self._steer(self.ledger, rank, message, now)

    def _steer(self, ledger: Ledger, rank: int, message: ToCoordinator, now: float) -> None:
        match message:
            case StealRequest():
                self._perform(ledger.on_steal_request(rank, message, now))
            case Yielded():
                self._perform(ledger.on_yielded(rank, message, now))
            case Redirected(errands):
                self._perform(ledger.on_redirected(rank, errands, now))
            case _:
                raise TypeError(f"unknown message {message!r}")

    def _on_progress(self, rank: int, message: Progress, now: float) -> None:
        self.tally.counters[rank] = message.counters
        if any(pace.wait_s > LONG_PAUSE_S for report in message.lanes for pace in report.paces.values()):
            self._checkpoint_at = min(self._checkpoint_at, self._may_save_at)
        sampled: list[int] = []
        if self._admission is not None:
            message, sampled = self._take_sampling(self._admission.profiler, rank, message)
        if self.ledger is not None:
            for part in message.parts:
                self.state.note_part(part)
            self._note_pauses(self.ledger, message, now)
            self._perform(self.ledger.on_progress(rank, message, now))
            self._perform(self.ledger.samples_durable(sampled))
            return
        for part in message.parts:
            self.state.add_part(part)

    def _take_sampling(self, profiler: Profiler, rank: int, message: Progress) -> tuple[Progress, list[int]]:
        """The reports on sampling lanes are the profiler's. What is left of the message is the ledger's, and so are the
        batches whose samples are in the parts now."""
        durable: list[int] = []
        released: list[int] = []
        for report in message.lanes:
            if is_sampling(report.lane_id):
                if report.state is LaneState.DRAINED:
                    durable += profiler.batches_of(report.lane_id)
                if profiler.on_lane(report):
                    released.append(report.lane_id)
        if released:
            self._send(rank, Release(tuple(released)))
        others = tuple(report for report in message.lanes if not is_sampling(report.lane_id))
        return msgspec.structs.replace(message, lanes=others), durable

    def _note_pauses(self, ledger: Ledger, message: Progress, now: float) -> None:
        """Of packed servers none is told apart, and what one of them asked for is no pause of all."""
        for report in message.lanes:
            group = ledger.lane_group(report.lane_id) if report.paces else None
            if group is not None and not is_packed(group):
                for pace in report.paces.values():
                    self.tally.usage.note_pause(group, pace.wait_s, now)

    def _perform(self, actions: Iterable[Action]) -> None:
        """Do what the ledger has decided, in order."""
        for action in actions:
            match action:
                case Send(rank, message):
                    self._deliver(rank, message)
                case Scatter(assigns):
                    if self.stage is not Stage.STOPPING:
                        self._scatter({rank: assigns.get(rank, Assign(())) for rank in self._workers})
                case BigBatchStarted(number, rows):
                    write_schedule(self.state.layout, number, rows)
                case BatchCompleted(batch_id, number=number):
                    self.state.complete(batch_id)
                    if number:
                        self._verifier.add(number, batch_id)
                case BigBatchEnded(number):
                    self._verifier.close(number)
                case _:
                    raise TypeError(f"unknown action {action!r}")

    def _deliver(self, rank: int, message: ToDownloader) -> None:
        """While the run stops, no rank gets new work."""
        if self.stage is not Stage.STOPPING or not isinstance(message, Assign):
            self._send(rank, message)

    def set_control(self, rules: tuple[ControlRule, ...]) -> None:
        """These rules hold from now on, on all ranks."""
        for rank in self._workers:
            self._send(rank, SetControl(rules))

    # ---- one turn of the loop

    def step(self, now: float) -> None:
        """What is due now."""
        is_open = self.stage in {Stage.PROFILING, Stage.DOWNLOADING}
        if is_open and self._admission is not None and self._admission.is_due(now):
            self._go_on_profiling(self._admission, now)
        if self.stage is Stage.DOWNLOADING and self.ledger is not None:
            self._perform(self.ledger.tick(now))
            self._verify_one(self.ledger, now)
            if self.ledger.is_complete:
                if self._verifier.is_idle and self._admission is None:
                    self.stop(StopReason.DONE, now)
            elif self._deadline is not None and now >= self._deadline:
                self.stop(StopReason.WALLTIME, now)
            elif self.ledger.is_stuck(now, self.state.config.final_wait_s):
                log.info("only parked servers are left")
                self.stop(StopReason.DONE, now)
        if self.stage is Stage.STOPPING:
            self._try_to_end(now)
        if now >= self._checkpoint_at and self.stage is not Stage.ENDED and not self._is_readonly:
            self._save(now)

    def _verify_one(self, ledger: Ledger, now: float) -> None:
        """Verify one batch: between two messages, so that nobody waits for a whole big batch to be read."""
        found = self._verifier.step()
        if found is not None:
            self.state.reopen(found)
            self._perform(ledger.reopen(found.batch_id, found.successes, found.errors, found.parts, now))

    @property
    def is_busy(self) -> bool:
        """Whether ``step`` has more to do at once."""
        return self.stage is Stage.DOWNLOADING and not self._verifier.is_idle

    # ---- the end

    def stop(self, reason: StopReason, now: float) -> None:
        """Stop softly; the first reason counts, a second one changes nothing."""
        if self.stage in {Stage.STOPPING, Stage.ENDED}:
            return
        self.stage = Stage.STOPPING
        self._stop_reason = reason
        self._stop_deadline = now + FINISH_TIMEOUT_S
        steals = self.ledger.steals if self.ledger is not None else 0
        log.info("stopping all ranks: %s (%d steals)", reason.value, steals)
        for rank in self._workers:
            self._send(rank, Stop(reason, 0.0 if reason is StopReason.DONE else GRACE_S))

    def fail(self, text: str, now: float) -> None:
        """Rank 0 itself cannot write: stop softly, and write nothing more (but try a report)."""
        self._failure = self._failure or text
        self._is_readonly = True
        if self.stage is Stage.STOPPING:
            self._end()
        else:
            self.stop(StopReason.FAILURE, now)

    def _try_to_end(self, now: float) -> None:
        missing = [rank for rank in self._workers if rank not in self._finished]
        if missing and now < self._stop_deadline:
            return
        if missing:
            log.error("ranks that did not finish in time: %s", missing)
        if not self._is_readonly:
            self._verifier.finish(self.ledger.open_big_batches() if self.ledger is not None else [])
            self._save(now)
        self._end()

    def _end(self) -> None:
        self.stage = Stage.ENDED
        code = EXIT_DONE if self.state.pending_rows == 0 and not self._failure else EXIT_PENDING
        self.exit = Exit(code, self._failure)
        self._on_end(self.exit)
        for rank in self._workers:
            self._send(rank, self.exit)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run stops, None while it does not."""
        return self._stop_reason

    def snapshot(self) -> Snapshot:
        """The state of the run for the progress display; rows that are fetched and not durable yet count as done."""
        state, total = self.state, self.tally.total()
        note = ""
        if self._admission is not None:
            note = "{:,} of {:,} servers profiled".format(*self._admission.profiler.progress)
        elif self.stage is Stage.DOWNLOADING and self.ledger is not None and self.ledger.rests:
            note = "waiting for servers that asked for a pause or cannot be reached"
        return Snapshot(
            stage=self.stage.value,
            rows=int(state.rows.sum()),
            rows_done=self._rows_before + total.successes + total.errors,
            errors=self._errors_before + total.errors,
            bytes=total.bytes,
            servers_active=total.servers_active,
            ranks=len(self._workers),
            note=note,
        )

    def _save(self, now: float) -> None:
        self._checkpoint_at = now + CHECKPOINT_INTERVAL_S
        paces = self.ledger.paces(now) if self.ledger is not None else self.state.known_paces()
        if self._admission is not None:
            profiler = self._admission.profiler
            paces = {**paces, **(profiler.paces if self.ledger is None else profiler.paces_out)}
        began_at = time.monotonic()
        self.state.save(paces)
        took_s = time.monotonic() - began_at
        self._may_save_at = now + max(SAVE_AT_ONCE_S, took_s / SAVES_SHARE)

    def slowest_servers(self, most: int) -> list[tuple[str, float]]:
        """Servers with rows left, and the seconds that they need at least, longest first."""
        if self.ledger is None:
            return []
        state = self.state
        left = np.bincount(
            state.table.groups,
            weights=state.rows - state.successes - state.errors,
            minlength=len(state.table.group_names),
        )
        times = left * self.ledger.plan.row_times
        order = np.argsort(-times)[:most]
        names = state.table.group_names
        return [(names[i], float(times[i])) for i in order if times[i] > 0 and names[i] != INVALID_SERVER]
