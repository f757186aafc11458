"""Rank 0's shell: takes messages, lets ``Rank0Core`` decide, and carries its instructions out, one ``match`` arm each.

Decides when the checkpoint is written, and verifies one batch between two messages; all else is the core's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable

import msgspec

from ddmpi.config.secrets import Variables
from ddmpi.core import protocol as msg
from ddmpi.core.ledger import actions as act
from ddmpi.core.ledger.batch_counts import BatchContent
from ddmpi.core.ledger.rank0_core import Rank0Config, Rank0Core, Stage
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.records import group_of_shared
from ddmpi.core.stats.metrics import Tally
from ddmpi.core.stats.timeline import Timelines
from ddmpi.io.folder.profiles import write_profiles
from ddmpi.io.folder.schedules import write_schedule
from ddmpi.io.urls.batch_table import limits_by_group, make_plan
from ddmpi.report.formats import counted
from ddmpi.roles.coordinator.placeholders import Placeholders
from ddmpi.roles.coordinator.run_state import RunState, unix_time
from ddmpi.roles.coordinator.verifier import Verifier

log = logging.getLogger(__name__)


class Coordinator:
    """The coordinator of one run over an initialized output folder.

    Args:
        state: what initialization found and made.
        workers: ranks that download.
        send, scatter: the mailbox.
        deadline: when to stop for the walltime (s, monotonic).
        overrides: rules that hold from the beginning.
        variables: what the environment has of those that the config names.
        on_end: told how the run ends before the other ranks are: those wait only seconds for one that still works then.

    Raises:
        StorageError: what earlier runs have verified cannot be read.
    """

    def __init__(
        self,
        state: RunState,
        workers: list[int],
        send: Callable[[int, msg.ToDownloader], None],
        scatter: Callable[[dict[int, msg.ToDownloader]], None],
        deadline: float = math.inf,
        *,
        on_end: Callable[[msg.Exit], None] = lambda _: None,
        overrides: tuple[msg.ControlOverride, ...] = (),
        variables: Variables = Variables(),  # noqa: B008  # frozen
    ) -> None:
        self.state = state
        self.tally = Tally(timelines=Timelines(time.time()))
        self.placeholders = Placeholders(state.layout)
        self.damage = ""
        """What the verification has found that fetching rows again does not mend."""
        self._rows_before = state.counts.rows_final
        self._workers = workers
        self._send = send
        self._scatter = scatter
        self._on_end = on_end
        self._overrides = overrides
        self._variables = variables
        self._saves = SaveTimer()
        self._verifier = Verifier(state)
        self._verifier.add_unverified()
        config = state.config
        limits = limits_by_group(config, state.profiles)
        self.core = Rank0Core(
            Rank0Config(
                workers, limits, config.profiled_rate, config.group_of, config.parked_wait_s, config.final_wait_s,
                deadline, config.profiling.samples_per_server,
            ),
            state.counts,
            make_plan=lambda profiles: make_plan(
                state.table, config, rows=state.counts.rows, profiles=profiles, limits=limits, ref=state.ref,
                workers=workers,
            ),
            targets=state.targets(),
            profiles=state.profiles,
            paces=state.known_paces(),
            next_number=self._verifier.next_number,
            now=time.monotonic(),
        )  # fmt: skip

    # ---- what the loop calls; all times are seconds, monotonic

    def start(self, now: float) -> None:
        """Tell the ranks to begin, and send the first lanes out."""
        config = self.state.config.model_dump_json().encode()
        begin = msg.Begin(
            self.state.epoch,
            config,
            msg.report_interval_s(len(self._workers)),
            self.state.ran_s,
            msgspec.json.encode(dict(self._variables.values)),
        )
        for rank in self._workers:
            self._send(rank, begin)
        if self._overrides:
            self.set_overrides(self._overrides)
        self._saves.begin(now)
        self._perform(self.core.start(now), now)
        if self.core.sampling is not None:
            log.info("profiling the servers of %d groups", self.core.sampling.progress[1])

    def handle(self, rank: int, message: msg.ToCoordinator, now: float) -> None:
        match message:
            case msg.Progress(counters=counters):
                self.tally.counters[rank] = counters
                self.tally.next_requests[rank] = [(now + it.wait_s, it.server, it.rows) for it in message.next_requests]
                for part in message.parts:
                    for server, size_bytes in part.kept_bytes.items():
                        self.tally.audit.keep(self.state.config.group_of(server), size_bytes)
                self._note_waits(message.lanes)
            case msg.ServersUsed(usages, asked, node):
                self.tally.usage.add(usages, now)
                self.tally.audit.add(asked, node)
                for one in asked:
                    self.tally.timelines.add(one, time.time())
            case msg.PicturesRepeated(pictures):
                self.placeholders.add(pictures)
        self._perform(self.core.handle(rank, message, now), now)

    def _note_waits(self, lanes: Iterable[msg.LaneReport]) -> None:
        paces = [(server, pace) for lane in lanes for server, pace in lane.paces.items()]
        at = time.time() if paces else 0.0
        for server, pace in paces:
            group = group_of_shared(server) or self.state.config.group_of(server)
            self.tally.timelines.wait(group, at, pace.wait_s, is_parked=pace.open_count > 0)

    def step(self, now: float) -> None:
        if self._may_verify:
            match self._verifier.step():
                case BatchContent() as found:
                    self._perform(self.core.reopen(found, now), now)
                case str(text):
                    self.damage = self.damage or text
                    self.core.damaged(text)
        verifying = not (self._verifier.is_idle or self.core.soft_stop.is_readonly)
        self._perform(self.core.turn(now, verifying=verifying), now)
        if self._saves.is_due(now) and self.core.stage is not Stage.ENDED and not self.core.soft_stop.is_readonly:
            self._save(now)

    def set_overrides(self, rules: tuple[msg.ControlOverride, ...]) -> None:
        """Let these rules hold from now on, on all ranks."""
        self.state.overrides = Overrides(rules)
        self._perform(self.core.set_overrides(rules), 0.0)

    def stop(self, reason: msg.StopReason, now: float) -> None:
        """Stop softly; the first reason counts, a second one changes nothing."""
        self._perform(self.core.stop(reason, now), now)

    def fail(self, text: str, now: float) -> None:
        """Rank 0 itself cannot write: stop softly, and write nothing more (but try a report)."""
        self._perform(self.core.fail(text, now), now)

    @property
    def rows_done(self) -> int:
        """Rows that are done with, durable or not."""
        total = self.tally.total()
        return self._rows_before + total.successes + total.errors

    @property
    def is_busy(self) -> bool:
        """Whether ``step`` has more to do at once."""
        return self.core.is_ending or (self._may_verify and not self._verifier.is_idle)

    @property
    def _may_verify(self) -> bool:
        """A batch is verified between two messages, so that no rank waits for a whole big batch to be read."""
        return self.core.stage in {Stage.DOWNLOADING, Stage.STOPPING} and not self.core.soft_stop.is_readonly

    # ---- the ladder

    def _perform(self, actions: Iterable[act.Action], now: float) -> None:
        """Carry out what the core has decided, in order. Raises StorageError: a file cannot be written."""
        for action in actions:
            match action:
                case act.Send(rank, message):
                    self._send(rank, message)
                case act.Scatter(assigns):
                    self._scatter({rank: assigns.get(rank, msg.Assign(())) for rank in self._workers})
                case act.GroupPaused(group, wait_s):
                    self.tally.usage.note_pause(group, wait_s, now)
                case act.RunEnded(ending, unfinished):
                    if unfinished:
                        log.error("ranks that did not finish in time: %s", list(unfinished))
                    self._on_end(ending)
                case act.DownloadBegan():
                    self.state.stages["downloading"] = {"began_at": time.time(), "workers": len(self._workers)}
                    log.info("downloading: %s not complete", counted(self.core.counts.incomplete, "batch"))
                case act.StopBegan(reason, is_stuck):
                    stuck = ": only parked servers are left" if is_stuck else ""
                    log.info("stopping all ranks: %s%s (%d steals)", reason.value, stuck, self.core.steals)
                case _:
                    self._write(action, now)

    def _write(self, action: act.FileAction, now: float) -> None:
        state = self.state
        match action:
            case act.BigBatchStarted(number, rows):
                write_schedule(state.layout, number, rows)
            case act.BatchCompleted(batch_id, number):
                state.write_marker(batch_id)
                self._verifier.add(number, batch_id)
            case act.BigBatchEnded(number):
                self._verifier.close(number)
            case act.VerifyRest(big_batches):
                self._verifier.add_rest(big_batches)
            case act.SaveCheckpoint(soon=True):
                self._saves.hurry()
            case act.SaveCheckpoint():
                self._save(now)
            case act.ProfilingEnded():
                write_profiles(state.layout.profiles, state.profiles, state.layout.temporary)
                state.stages["profiled"] = True
            case _:
                raise TypeError(f"unknown action {action!r}")

    def _save(self, now: float) -> None:
        began_at = time.monotonic()
        self._saves.begin(now)
        if (bound := self.core.bound) is not None:
            self.state.stages["downloading"].update(bound_s=bound.seconds, bound_by=bound.group)
        self.placeholders.save()
        self.state.save(self.core.paces(now), self.rows_done, unix_time(now))
        self._saves.saved(now, time.monotonic() - began_at)


class SaveTimer:
    """When the checkpoint is written: now and then, and soon after a server has asked for a long pause."""

    INTERVAL_S = 10.0
    SOON_S = 1.0
    SHARE = 0.05
    """Soon means this long after the last checkpoint, or when those take up no more than this share of the time."""

    def __init__(self) -> None:
        self._due_at = 0.0
        self._may_save_at = 0.0

    def begin(self, now: float) -> None:
        """Count from here: a checkpoint was just written, or is about to be."""
        self._due_at = now + self.INTERVAL_S

    def saved(self, now: float, took_s: float) -> None:
        """Note how long (s) that one took."""
        self._may_save_at = now + max(self.SOON_S, took_s / self.SHARE)

    def hurry(self) -> None:
        """Save soon."""
        self._due_at = min(self._due_at, self._may_save_at)

    def is_due(self, now: float) -> bool:
        return now >= self._due_at
