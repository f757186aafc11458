"""A downloading rank without network, disk and clock: the shell around its core, with everything taking its time. Pure.

It performs the instructions of ``RankCore`` as ``roles.downloader`` does, and decides nothing. It must not know how
messages travel or when it gets its turn: that is ``simulation``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ddmpi.core.frontier import interface as do
from ddmpi.core.frontier.interface import Disposition, FrontierConfig
from ddmpi.core.frontier.memory_budget import MemoryBudget
from ddmpi.core.frontier.rank_core import RankCore
from ddmpi.core.protocol import HandedOff, PartReport, ToCoordinator, ToDownloader
from ddmpi.core.records import INVALID_SERVER, Answer, BatchRef, Failure, Task
from tests.laws.witness import Witness
from tests.simulation.disk import Disk, Part
from tests.worlds.model import REFUSED_URL, Cursor, RankModel, World
from tests.worlds.network import Connections, Network

BUDGET_BYTES = 1 << 40


@dataclass(frozen=True)
class Surroundings:
    """What a rank needs of the simulation."""

    world: World
    network: Network
    disk: Disk
    rng: random.Random
    witness: Witness
    send: Callable[[ToCoordinator], None]
    at: Callable[[float, Callable[[float], None]], None]
    """Call back at this time (s), after what was asked for the same time before, and give the rank a turn then."""


class SimulatedRank:
    """One rank. ``receive`` takes a message, ``turn`` does what is due, ``next_turn_at`` says when to come again."""

    def __init__(
        self,
        rank: int,
        model: RankModel,
        config: FrontierConfig,
        surroundings: Surroundings,
        now: float,
        *,
        every_s: float,
    ) -> None:
        self.connections = Connections()
        self.core = RankCore(
            config, MemoryBudget(BUDGET_BYTES), self.connections.count,
            rng=surroundings.rng, now=now, report_interval_s=every_s,
        )  # fmt: skip
        self.rank = rank
        self.model = model
        self.free_at = now
        """When the rank's thread has done what it was given."""
        self.idle_wakes = 0
        """Turns that the core asked for and in which nothing was done."""
        self._in = surroundings
        self._done: list[Callable[[float], Sequence[do.Instruction]]] = []
        self._commits: list[Callable[[float], Sequence[do.Instruction]]] = []
        self._open_rows: dict[tuple[int, bool], list[int]] = {}
        self._answers: list[Answer] = []
        self._in_flight: dict[Task, bool] = {}
        self._writer_free_at = now
        self._has_finished = False

    def receive(self, message: ToDownloader) -> None:
        """A message has arrived; it is read at the next turn."""
        self._done.append(lambda now: self.core.handle(message, now))

    # ---- one turn

    def turn(self, now: float) -> None:
        """What the loop of a rank does once."""
        if self._has_finished:
            return
        wanted = self._is_admission_due(now)
        answers, self._answers = self._answers, []
        self.free_at = now + self.model.cpu_per_answer_s * len(answers)
        did = bool(answers or self._done or self._commits)
        for answer in answers:
            if answer.task in self._in_flight:
                del self._in_flight[answer.task]
                self._perform(self.core.answered(answer, now), now, answer)
        done, self._done, self._commits = self._done + self._commits, [], []
        for event in done:
            self._perform(event(now), now)
        self._perform(self.core.turn(now), now)
        while instructions := self.core.admit(now):
            did = True
            self._perform(instructions, now)
        if wanted and not did:
            self.idle_wakes += 1
        assert not self._is_admission_due(now), f"rank {self.rank} would spin at {now}: {self.core!r}"

    def _is_admission_due(self, now: float) -> bool:
        return self.core.free_slots > 0 and self.core.frontier.wake_at() <= now

    def next_turn_at(self) -> float:
        """When the rank wants its next turn if nothing arrives before."""
        if self._has_finished:
            return math.inf
        return max(self.free_at, self.free_at if self._answers or self._done or self._commits else self.core.wake_at())

    def _perform(self, instructions: Iterable[do.Instruction], now: float, answer: Answer | None = None) -> None:
        for instruction in instructions:
            match instruction:
                case do.Start():
                    self._start(instruction, now)
                case do.Finished() if answer is not None:
                    task, failure = instruction.task, instruction.failure
                    if failure or (instruction.batch and instruction.disposition is Disposition.SUCCESS):
                        self._decide(task.batch_id, task.rows, failure)
                case do.RowsFailed(tasks=tasks, failure=failure):
                    for task in tasks:
                        self._decide(task.batch_id, task.rows, failure)
                case do.LoadBatch(lane_id, batch):
                    self._load(lane_id, batch, now)
                case do.CloseParts(ticket, batch_ids):
                    self._close_parts(ticket, batch_ids, now)
                case do.CloseConnections(servers):
                    self.connections.close(servers)
                case do.Send(message):
                    for handoff in message.handoffs if isinstance(message, HandedOff) else ():
                        self._in.witness.handed_off(self.rank, handoff)
                    self._in.send(message)
                case do.Finish():
                    self._finish(now)
                case _:
                    raise TypeError(f"unknown instruction {instruction!r}")

    def _start(self, start: do.Start, now: float) -> None:
        task = start.task
        self._in.witness.started(now, self.rank, task, start.lane_id)
        if self.connections.take(task.server, self._in.world.servers_of(start.key), start.spare_connections):
            self._in.witness.opened(now, task.server)
        self._in_flight[task] = self.connections.count(task.server) <= start.connection_limit
        delay_s, answer = self._in.network.request(task, now)
        self._in.at(now + delay_s, lambda at: self._arrive(answer, at))

    def _arrive(self, answer: Answer, now: float) -> None:
        if answer.task in self._in_flight:
            keep = self._in_flight[answer.task] and not answer.curl_code
            self.connections.give_back(answer.task.server, keep=keep)
            self._in.witness.answered(now, self.rank, answer)
            self._answers.append(answer)

    def _decide(self, batch_id: int, rows: Sequence[int], failure: Failure | None) -> None:
        for row in rows:
            self._in.witness.decided(self.rank, batch_id, row, failure)
        self._open_rows.setdefault((batch_id, failure is not None), []).extend(rows)

    # ---- batches come in, parts go out

    def _load(self, lane_id: int, batch: BatchRef, now: float) -> None:
        def done(_: float) -> None:
            final = self._in.disk.final_rows(batch.parts)
            self._done.append(lambda at: self._take_loaded(lane_id, batch, final, at))

        self._in.at(now + self.model.load_s * (0.5 + self._in.rng.random()), done)

    def _take_loaded(self, lane_id: int, batch: BatchRef, final: set[int], now: float) -> Sequence[do.Instruction]:
        rows = [(row, *row_of) for row, row_of in enumerate(self._in.world.batches[batch.batch_id].rows)]
        left = [row for row in rows if row[0] not in final and row[0] not in batch.decided]
        refused = [row for row, _, _ in left if batch.server_name == INVALID_SERVER]
        cursor = Cursor([] if refused else left, batch.sample_rows, self._in.world.mirrors)
        self._in.witness.loaded(self.rank, batch.batch_id, refused or cursor.rows)
        if refused:
            self._decide(batch.batch_id, refused, REFUSED_URL)
        return self.core.loaded(lane_id, batch, cursor, len(refused), now)

    def _close_parts(self, ticket: int, batch_ids: frozenset[int] | None, now: float) -> None:
        """Commit the open rows of these batches (None: of all). One commit after the other, as one thread does it."""
        parts = self._take_parts(batch_ids)
        delay_s = self.model.commit_s * (0.5 + self._in.rng.random()) if parts else 0.0
        self._writer_free_at = max(now, self._writer_free_at) + delay_s

        def done(_: float) -> None:
            published = self._publish(parts)
            self._commits.append(lambda at: self._note(published, ticket, at))

        self._in.at(self._writer_free_at, done)

    def _take_parts(self, batch_ids: frozenset[int] | None) -> list[Part]:
        keys = [key for key in self._open_rows if batch_ids is None or key[0] in batch_ids]
        return [Part(*key, tuple(self._open_rows.pop(key))) for key in keys]

    def _publish(self, parts: Iterable[Part]) -> list[PartReport]:
        return [PartReport(it.batch_id, self._in.disk.publish(it), len(it.rows), it.is_errors) for it in parts]

    def _note(self, published: Iterable[PartReport], ticket: int, now: float) -> Sequence[do.Instruction]:
        for part in published:
            self.core.committed(part)
        self.core.closed(ticket, now)
        return ()

    def _finish(self, now: float) -> None:
        """What is open is committed after what the writer has still to do; then the rank is gone."""
        self._has_finished = True
        self._in_flight.clear()
        parts = self._take_parts(None)

        def done(at: float) -> None:
            for note in self._commits:  # what was loaded since then comes too late
                note(at)
            for part in self._publish(parts):
                self.core.committed(part)
            self._perform(self.core.finish(at), at)

        self._in.at(max(now, self._writer_free_at) + self.model.commit_s * bool(parts), done)
