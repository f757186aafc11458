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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from ddmpi.core.ledger.actions import Scatter
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.ledger.schedule import Plan, lower_bound_s
from ddmpi.core.protocol import (
    Begin,
    ControlOverride,
    Exit,
    Failed,
    Finished,
    HandedOff,
    Progress,
    Release,
    Samples,
    ServersUsed,
    SetControl,
    StealResponse,
    StopReason,
    StopRequested,
    ToCoordinator,
    ToDownloader,
    WorkRequest,
    report_interval_s,
)
from ddmpi.io.urls.batch_table import limits_by_group, make_plan
from ddmpi.report.data import Snapshot
from ddmpi.roles.coordinator.checkpointing import Checkpointing
from ddmpi.roles.coordinator.performer import Performer
from ddmpi.roles.coordinator.profiling import Admission
from ddmpi.roles.coordinator.run_state import RunState
from ddmpi.roles.coordinator.stopping import SoftStop
from ddmpi.roles.coordinator.tally import Tally
from ddmpi.roles.coordinator.verifier import Verifier

log = logging.getLogger(__name__)


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
        control: tuple[ControlOverride, ...] = (),
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
        self._performer = Performer(state, self._verifier, workers, send, scatter)
        self._checkpointing = Checkpointing(state)
        self._soft_stop = SoftStop(workers)
        self._errors_before = int(state.errors.sum())
        self._rows_before = int(state.successes.sum()) + self._errors_before
        self._rows_left = state.rows - state.successes - state.errors
        self._began_at = 0.0

    # ---- stages

    def start(self, now: float) -> None:
        """Tell the ranks to begin, and send the first lanes out."""
        config = self.state.config
        self._performer.tell_all(Begin(self.state.epoch, config.to_json(), report_interval_s(len(self._workers))))
        if self._control:
            self.set_control(self._control)
        self._checkpointing.begin(now)
        self._verifier.add_unverified()
        self._admission = Admission.begin(self.state, now)
        if self._admission is None:
            self._start_download(now)
        else:
            self._scatter(dict(self._admission.profiler.lanes(self._workers)))

    def _go_on_profiling(self, admission: Admission, now: float) -> None:
        groups = admission.take(now)
        if self.ledger is None:
            self._complete_sampled()
            self._start_download(now)
        elif groups:
            admitted = admission.admit(self.ledger.plan, groups)
            self._performer.perform(self.ledger.admit(admitted.row_times, admitted.paces, now, admitted.decided))
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
        log.info("downloading: %d rows are left, ranks that download: %d", self.state.pending_rows, len(self._workers))
        if not any(isinstance(action, Scatter) for action in actions):
            actions.append(Scatter({}))
        self._performer.perform(actions)

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
                self._soft_stop.failure = f"rank {rank}: {text}"
                self.stop(StopReason.FAILURE, now)
            case Finished():
                self._soft_stop.finished(rank)
            case _ if self.ledger is None:
                log.debug("dropped while profiling: %r", message)
            case _:
                self._steer(self.ledger, rank, message, now)

    def _steer(self, ledger: Ledger, rank: int, message: ToCoordinator, now: float) -> None:
        match message:
            case WorkRequest():
                self._performer.perform(ledger.on_work_request(rank, message, now))
            case StealResponse():
                self._performer.perform(ledger.on_steal_response(rank, message, now))
            case HandedOff(handoffs):
                self._performer.perform(ledger.on_handed_off(rank, handoffs, now))
            case _:
                raise TypeError(f"unknown message {message!r}")

    def _on_progress(self, rank: int, message: Progress, now: float) -> None:
        self.tally.counters[rank] = message.counters
        self._checkpointing.heed(message.lanes)
        sampled: Sequence[int] = ()
        if self._admission is not None:
            sorted_out = self._admission.profiler.sort_out(message)
            message, sampled = sorted_out.rest, sorted_out.durable
            if sorted_out.released:
                self._send(rank, Release(sorted_out.released))
        if self.ledger is None:
            for part in message.parts:
                self.state.add_part(part)
            return
        for part in message.parts:
            self.state.note_part(part)
        self.tally.note_pauses(message.lanes, self.ledger, now)
        self._performer.perform(self.ledger.on_progress(rank, message, now))
        self._performer.perform(self.ledger.samples_durable(sampled))

    def set_control(self, rules: tuple[ControlOverride, ...]) -> None:
        """These rules hold from now on, on all ranks."""
        self._performer.tell_all(SetControl(rules))

    # ---- one turn of the loop

    def step(self, now: float) -> None:
        """What is due now."""
        is_open = self.stage in {Stage.PROFILING, Stage.DOWNLOADING}
        if is_open and self._admission is not None and self._admission.is_due(now):
            self._go_on_profiling(self._admission, now)
        if self.stage is Stage.DOWNLOADING and self.ledger is not None:
            self._performer.perform(self.ledger.tick(now))
            self._verify_one(self.ledger, now)
            if self.ledger.is_complete:
                if self._verifier.is_idle and self._admission is None:
                    self.stop(StopReason.DONE, now)
            elif self._deadline is not None and now >= self._deadline:
                self.stop(StopReason.WALLTIME, now)
            elif self.ledger.is_stuck(now, self.state.config.final_wait_s):
                log.info("only servers that are paused, parked or held are left")
                self.stop(StopReason.DONE, now)
        if self.stage is Stage.STOPPING:
            self._try_to_end(now)
        if self._checkpointing.is_due(now) and self.stage is not Stage.ENDED and not self._soft_stop.is_readonly:
            self._save(now)

    def _verify_one(self, ledger: Ledger, now: float) -> None:
        """Verify one batch: between two messages, so that nobody waits for a whole big batch to be read."""
        found = self._verifier.step()
        if found is not None:
            self.state.reopen(found)
            self._performer.perform(ledger.reopen(found.batch_id, found.successes, found.errors, found.parts, now))

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
        self._performer.withholds_work = True
        steals = self.ledger.steals if self.ledger is not None else 0
        log.info("stopping all ranks: %s (%d steals)", reason.value, steals)
        self._performer.tell_all(self._soft_stop.begin(reason, now))

    def fail(self, text: str, now: float) -> None:
        """Rank 0 itself cannot write: stop softly, and write nothing more (but try a report)."""
        self._soft_stop.failure = self._soft_stop.failure or text
        self._soft_stop.is_readonly = True
        if self.stage is Stage.STOPPING:
            self._end()
        else:
            self.stop(StopReason.FAILURE, now)

    def _try_to_end(self, now: float) -> None:
        if not self._soft_stop.is_over(now):
            return
        if self._soft_stop.unfinished:
            log.error("ranks that did not finish in time: %s", self._soft_stop.unfinished)
        if not self._soft_stop.is_readonly:
            self._verifier.finish(self.ledger.open_big_batches() if self.ledger is not None else [])
            self._save(now)
        self._end()

    def _end(self) -> None:
        self.stage = Stage.ENDED
        self.exit = self._soft_stop.ending(self.state.pending_rows)
        self._on_end(self.exit)
        self._performer.tell_all(self.exit)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run stops, None while it does not."""
        return self._soft_stop.reason

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
        paces = self.ledger.paces(now) if self.ledger is not None else self.state.known_paces()
        if self._admission is not None:
            profiler = self._admission.profiler
            paces = {**paces, **(profiler.paces if self.ledger is None else profiler.paces_out)}
        self._checkpointing.save(paces, now)
