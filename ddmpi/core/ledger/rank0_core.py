"""Rank 0's state machine: profile, schedule, steer, end. Pure: messages in, instructions (``actions``) out.

Decides what follows from each message and from the time that passes. It must not know MPI, files or clocks: its shell,
``roles.coordinator.coordinator``, carries the instructions out, in order, and reads back what the files hold.

The stages after initialization are states of this machine, not collectives: no rank waits for another in a barrier.

    PROFILING -> DOWNLOADING -> STOPPING -> (every rank has finished) -> ENDED

The download begins while the slowest servers are still being profiled: their batches join it when their samples are in.
``STOPPING`` is entered when every row is final, when only parked rows are left, on a signal, near the walltime, or
when a rank cannot write. Accounting goes by published parts alone.

Invariants: while the run stops no rank gets new work; each published part is counted once; the first reason to stop
counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ddmpi.core import protocol as msg
from ddmpi.core.ledger import actions as act
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.known_paces import KnownPaces
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.ledger.sampling import Sampling, Target
from ddmpi.core.ledger.schedule import Plan, lower_bound_s
from ddmpi.core.records import Limits, PaceState, is_packed
from ddmpi.errors import EXIT_DONE, EXIT_PENDING

GRACE_S = 8.0
"""What requests in flight get at a soft stop: with the commit of the parts it stays below 20 s."""
LONG_PAUSE_S = 5.0
"""A pause that is longer is saved soon: a run that goes on after a kill must keep it."""


class Stage(Enum):
    PROFILING = "profiling"
    DOWNLOADING = "downloading"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True)
class Rank0Config:
    """What rank 0 has to know of config and environment."""

    workers: Sequence[int]
    """Ranks that download."""
    limits: Callable[[str], Limits]
    """The limits of a server group, as config and profiles say."""
    profiled_rate: Callable[[str], float]
    """The rate limit of a server group once it is profiled (1/s)."""
    group_of: Callable[[str], str]
    """The server group of a server."""
    parked_wait_s: float
    """How long a run waits where only parked servers are left."""
    final_wait_s: float = 0.0
    """How long it waits for pauses that servers have asked for, or that end with a probe."""
    deadline: float = math.inf
    """When to stop for the walltime (s, monotonic)."""
    samples_per_server: int = 0
    grace_s: float = GRACE_S


class SoftStop:
    """Why the run stops, which ranks have finished, and how it ends. A stop is soft: each rank commits what it has and
    says so, and none is waited for longer than ``protocol.FINISH_TIMEOUT_S``."""

    def __init__(self, workers: Sequence[int]) -> None:
        self.reason: msg.StopReason | None = None
        """None while the run does not stop."""
        self.failure = ""
        """What went wrong on some rank, for the person who started the run."""
        self.is_readonly = False
        """Rank 0 itself cannot write."""
        self._unfinished = dict.fromkeys(workers)
        self._deadline = 0.0

    def begin(self, reason: msg.StopReason, now: float) -> None:
        """The ranks are told now."""
        self.reason = reason
        self._deadline = now + msg.FINISH_TIMEOUT_S

    def finished(self, rank: int) -> None:
        """The rank has committed what it had, and does nothing more."""
        self._unfinished.pop(rank, None)

    @property
    def unfinished(self) -> tuple[int, ...]:
        """The ranks that have not finished."""
        return tuple(self._unfinished)

    def is_over(self, now: float) -> bool:
        """Whether no rank is waited for any longer."""
        return self.reason is not None and (not self._unfinished or now >= self._deadline)

    def ending(self, pending_rows: int) -> msg.Exit:
        return msg.Exit(EXIT_DONE if pending_rows == 0 and not self.failure else EXIT_PENDING, self.failure)


class Rank0Core:
    """The decisions of one run.

    Args:
        counts: what is final, as found in the output folder; changed in place.
        make_plan: makes the plan when the download begins, from what is known of servers then.
        targets: the servers to profile first; none where that is done or not wanted.
        profiles: what is known of servers, by name; those that are profiled are added in place.
        paces: what earlier runs have learned.
        next_number: of the next big batch.
        now: seconds, monotonic, as in all methods.
    """

    def __init__(
        self,
        config: Rank0Config,
        counts: BatchCounts,
        *,
        make_plan: Callable[[Mapping[str, Profile]], Plan],
        targets: Sequence[Target],
        profiles: dict[str, Profile],
        paces: Mapping[str, PaceState],
        next_number: int,
        now: float,
    ) -> None:
        self.stage = Stage.PROFILING
        self.counts = counts
        self.profiles = profiles
        self.ledger: Ledger | None = None
        """None before the download begins."""
        self.sampling: Sampling | None = None
        """None where no server is being profiled."""
        self.bound: act.Bound | None = None
        self.exit: msg.Exit | None = None
        """How the run ended, None before."""
        self._config = config
        self._make_plan = make_plan
        self._targets = targets
        self._paces = KnownPaces(config.group_of)
        self._paces.learn(paces, now)
        self._next_number = next_number
        self._rows_left = counts.rows_left()
        self._began_at = now
        self.soft_stop = SoftStop(config.workers)
        self._last_steps: Iterator[list[act.Action]] | None = None

    # ---- stages

    def start(self, now: float) -> list[act.Action]:
        """Send the first lanes out: those that sample, else those of the first big batch. All ranks have begun."""
        if not self._targets:
            return self._start_download(now)
        config = self._config
        self.sampling = Sampling(
            self._targets, config.limits, config.group_of, config.samples_per_server, paces=self._paces, now=now
        )
        return [act.Scatter(self.sampling.lanes(config.workers, now))]

    def _go_on_sampling(self, sampling: Sampling, now: float) -> list[act.Action]:
        """Let those servers join the download that have been sampled."""
        groups = sampling.take(now)
        self.profiles.update(sampling.profiles(groups, self._config.profiled_rate))
        actions: list[act.Action] = []
        if self.ledger is None:
            actions += self._complete_sampled()
            actions += self._start_download(now)
        elif groups:
            row_times = sampling.admit(self.ledger.plan, groups, self.profiles)
            actions += self.ledger.admit(row_times, self._paces_of(groups, now), now, sampling.decided())
            self._note_bound(self.ledger.plan)
        if sampling.is_drained:
            self.sampling = None
            actions += [act.ProfilingEnded(), act.SaveCheckpoint()]
        return actions

    def _complete_sampled(self) -> list[act.Action]:
        """Batches of which an earlier run had left no more rows than are sampled make a big batch of their own."""
        due = self.counts.due()
        if not due:
            return []
        number, self._next_number = self._next_number, self._next_number + 1
        for batch_id in due:
            self.counts.complete(batch_id)
        return [*(act.BatchCompleted(batch_id, number) for batch_id in due), act.BigBatchEnded(number, tuple(due))]

    def _start_download(self, now: float) -> list[act.Action]:
        plan = self._make_plan(self.profiles)
        self._began_at = now
        self.ledger = Ledger(plan, self.counts)
        self.stage = Stage.DOWNLOADING
        paces = self._paces.all(now)
        withheld: Collection[int] = ()
        decided: dict[int, tuple[int, ...]] = {}
        if self.sampling is not None:
            withheld, decided = self.sampling.withhold(plan), self.sampling.decided()
        actions = self.ledger.start(self._next_number, paces, now, withheld, decided)
        if not any(isinstance(action, act.Scatter) for action in actions):
            actions.append(act.Scatter({}))
        self._note_bound(plan)
        return [act.DownloadBegan(), *actions]

    def _note_bound(self, plan: Plan) -> None:
        """Note the least time by what is known of the servers by now."""
        bound_s, slowest = lower_bound_s(plan, self._rows_left)
        self.bound = act.Bound(bound_s, plan.group_names[slowest] if slowest >= 0 else "", self._began_at)

    # ---- messages

    def handle(self, rank: int, message: msg.ToCoordinator, now: float) -> list[act.Action]:
        ledger = self.ledger
        actions: list[act.Action] = []
        match message:
            case msg.Progress():
                actions = self._on_progress(rank, message, now)
            case msg.Samples(samples):
                if self.sampling is not None:
                    self.sampling.on_samples(samples)
            case msg.StopRequested(reason):
                actions = self.stop(reason, now)
            case msg.Failed(text):
                self.soft_stop.failure = self.soft_stop.failure or f"rank {rank}: {text}"
                actions = self.stop(msg.StopReason.FAILURE, now)
            case msg.Finished():
                self.soft_stop.finished(rank)
            case msg.WorkRequest() if ledger is not None:
                actions = ledger.on_work_request(rank, message, now)
            case msg.StealResponse() if ledger is not None:
                actions = ledger.stealing.on_steal_response(rank, message, now)
            case msg.HandedOff(handoffs) if ledger is not None:
                actions = ledger.on_handed_off(rank, handoffs, now)
            case msg.WorkRequest() | msg.StealResponse() | msg.HandedOff():
                pass  # no lane is out before there is a ledger from which they could follow
            case msg.ServersUsed() | msg.PicturesRepeated():
                pass  # for people, who have tables of their own
            case _:
                raise TypeError(f"unknown message {message!r}")
        return self._allowed(actions)

    def _on_progress(self, rank: int, message: msg.Progress, now: float) -> list[act.Action]:
        actions: list[act.Action] = []
        paces = (pace for report in message.lanes for pace in report.paces.values())
        if any(max(pace.wait_s, pace.debt_s) > LONG_PAUSE_S for pace in paces):
            actions.append(act.SaveCheckpoint(soon=True))
        sampled: Sequence[int] = ()
        if self.sampling is not None:
            sorted_out = self.sampling.sort_out(message, now)
            message, sampled = sorted_out.rest, sorted_out.durable
            if sorted_out.released:
                actions.append(act.Send(rank, msg.Release(sorted_out.released)))
        if self.ledger is None:
            for part in message.parts:
                self.counts.add_part(part)
            return actions
        actions += self._pauses(self.ledger, message.lanes)
        actions += self.ledger.on_progress(rank, message, now)
        actions += self.ledger.batches.samples_durable(sampled)
        return actions

    @staticmethod
    def _pauses(ledger: Ledger, reports: Sequence[msg.LaneReport]) -> Iterator[act.GroupPaused]:
        """Of packed servers none is told apart, and what one of them asked for is no pause of all."""
        for report in reports:
            group = ledger.lane_group(report.lane_id) if report.paces else None
            if group is not None and not is_packed(group):
                yield from (act.GroupPaused(group, pace.wait_s) for pace in report.paces.values())

    def _allowed(self, actions: list[act.Action]) -> list[act.Action]:
        """While the run stops, no rank gets new work."""
        if self.stage is not Stage.STOPPING:
            return actions
        return [
            action
            for action in actions
            if not (isinstance(action, act.Send) and isinstance(action.message, msg.Assign))
        ]

    def set_overrides(self, rules: Sequence[msg.ControlOverride]) -> list[act.Action]:
        """Tell all ranks the rules that hold from now on."""
        return self._to_all(msg.SetControl(tuple(rules)))

    def _to_all(self, message: msg.ToDownloader) -> list[act.Action]:
        return [act.Send(rank, message) for rank in self._config.workers]

    # ---- time passes

    def turn(self, now: float, *, verifying: bool) -> list[act.Action]:
        """Return what is due although no message came.

        Args:
            verifying: the shell has complete batches that it has not verified.
        """
        actions: list[act.Action] = []
        is_running = self.stage in {Stage.PROFILING, Stage.DOWNLOADING}
        if is_running and self.sampling is not None and self.sampling.is_due(now):
            actions += self._go_on_sampling(self.sampling, now)
        if self.stage is Stage.DOWNLOADING and self.ledger is not None:
            actions += self.ledger.tick(now)
            verifying = verifying or any(isinstance(action, act.BatchCompleted) for action in actions)
            actions += self._stop_if_done(self.ledger, now, verifying=verifying)
        elif self.stage is Stage.STOPPING and not verifying and self.soft_stop.is_over(now):
            self._last_steps = self._last_steps or self._end_in_steps()
            actions += next(self._last_steps)
        return actions

    def _stop_if_done(self, ledger: Ledger, now: float, *, verifying: bool) -> list[act.Action]:
        if ledger.is_complete:
            return [] if verifying or self.sampling is not None else self.stop(msg.StopReason.DONE, now)
        config = self._config
        if now >= config.deadline:
            return self.stop(msg.StopReason.WALLTIME, now)
        if ledger.is_stuck(now, config.parked_wait_s, config.final_wait_s, config.deadline):
            return self.stop(msg.StopReason.DONE, now, is_stuck=True)
        return []

    def reopen(self, found: BatchContent, now: float) -> list[act.Action]:
        """Verification found rows of a complete batch missing: fetch them again, in this run if it goes on."""
        if self.ledger is None:
            self.counts.set(found)
            return []
        return self.ledger.reopen(found, now)

    def damaged(self, text: str) -> None:
        """Verification found what cannot be mended by fetching rows again: the run does not end as done."""
        self.soft_stop.failure = self.soft_stop.failure or text

    # ---- the end

    def stop(self, reason: msg.StopReason, now: float, *, is_stuck: bool = False) -> list[act.Action]:
        """Stop softly; the first reason counts, a second one changes nothing."""
        if self.stage in {Stage.STOPPING, Stage.ENDED}:
            return []
        self.stage = Stage.STOPPING
        self.soft_stop.begin(reason, now)
        if self.ledger is not None:
            self.ledger.stop()
        grace_s = 0.0 if reason is msg.StopReason.DONE else self._config.grace_s
        return [act.StopBegan(reason, is_stuck), *self._to_all(msg.Stop(reason, grace_s))]

    def fail(self, text: str, now: float) -> list[act.Action]:
        """Rank 0 itself cannot write: stop softly, and write nothing more (but try a report)."""
        self.soft_stop.failure = self.soft_stop.failure or text
        self.soft_stop.is_readonly = True
        return self._end() if self.stage is Stage.STOPPING else self.stop(msg.StopReason.FAILURE, now)

    def _end_in_steps(self) -> Iterator[list[act.Action]]:
        """Yield the last steps, for a turn each: if the disk fails at one of them, the run still ends."""
        if not self.soft_stop.is_readonly:
            big_batches = self.ledger.batches.open_big_batches() if self.ledger is not None else ()
            yield [act.VerifyRest(tuple(big_batches))]
            yield [act.SaveCheckpoint()]
        yield self._end(self.soft_stop.unfinished)

    def _end(self, unfinished: tuple[int, ...] = ()) -> list[act.Action]:
        self.stage = Stage.ENDED
        self.exit = self.soft_stop.ending(self.counts.pending)
        return [act.RunEnded(self.exit, unfinished), *self._to_all(self.exit)]

    # ---- what there is

    @property
    def is_ending(self) -> bool:
        """Whether the last steps are taken: ``turn`` is due at once."""
        return self.stage is Stage.STOPPING and self._last_steps is not None

    @property
    def steals(self) -> int:
        """Steals that moved work."""
        return 0 if self.ledger is None else self.ledger.stealing.steals

    def paces(self, now: float) -> dict[str, PaceState]:
        """Return what is known of every server's pace: what a checkpoint holds."""
        if self.ledger is None:
            return self._paces.all(now)
        apart = self.sampling.groups_apart if self.sampling is not None else ()
        return self.ledger.paces.all(now) | self._paces_of(apart, now)

    def _paces_of(self, groups: Iterable[str], now: float) -> dict[str, PaceState]:
        """What sampling and earlier runs have learned of these groups' servers."""
        return {name: pace for group in groups for name, pace in self._paces.share(group, 1.0, now).items()}

    def holder(self, lane_id: int) -> int | None:
        """Return the rank that fetches with this lane, None if none does."""
        lanes = self.sampling if lane_id < 0 else self.ledger
        return None if lanes is None else lanes.holder(lane_id)

    def lane_group(self, lane_id: int) -> str | None:
        """Return the group that a lane serves, None if the lane is not out."""
        lanes = self.sampling if lane_id < 0 else self.ledger
        return None if lanes is None else lanes.lane_group(lane_id)

    def validate(self) -> None:
        """Check the invariants (tests call this after every step). Raises AssertionError: with what breaks."""
        self.counts.validate()
        if self.ledger is not None:
            self.ledger.validate()
