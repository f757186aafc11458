"""How long a run will take, and what it asks of rank 0: the ledger over ranks that work by the batch. Pure.

The ledger is the real one, and so are the messages. Only the ranks are models (``coarse_rank``). A run of a million
batches is a few million events.

Invariants: the same arguments give the same result; a forecast that makes no progress ends with ``ForecastError``.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping

from ddmpi.core.arrays import IntArray
from ddmpi.core.forecast.coarse_rank import CoarseModel, CoarseRank
from ddmpi.core.ledger.actions import Action, BatchCompleted, BigBatchEnded, BigBatchStarted, Scatter, Send
from ddmpi.core.ledger.batch_counts import BatchCounts
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.protocol import Assign, Progress, StealResponse, ToCoordinator, ToDownloader, WorkRequest

MESSAGE_S = 0.0005
"""What a message takes from one rank's loop to the other's: both look at their mailbox now and then."""
NOTHING = Assign(())
EVENTS_PER_BATCH = 2_000
EVENTS_PER_RANK = 100_000
"""Bounds on the events of a forecast: a batch that takes a day has its parts closed a thousand times."""


class ForecastError(Exception):
    """The forecast does not come to an end: a bug in ddmpi."""


class Forecast:
    """One run.

    Args:
        rows_final: (B,) rows of each batch that are final before it.
        model: what the ranks are like; ``models`` by rank, where some differ.
    """

    def __init__(
        self,
        plan: Plan,
        rows_final: IntArray,
        model: CoarseModel | None = None,
        models: Mapping[int, CoarseModel] | None = None,
    ) -> None:
        self.ledger = Ledger(plan, BatchCounts(plan.batch_rows, rows_final))
        self.messages = 0
        """Messages that rank 0 took."""
        self.now = 0.0
        self._workers = plan.workers
        self._most_events = EVENTS_PER_BATCH * len(plan.batch_rows) + EVENTS_PER_RANK * len(plan.workers)
        common, special = model or CoarseModel(), models or {}
        self._ranks = {rank: CoarseRank(rank, special.get(rank, common)) for rank in plan.workers}
        self._wakes = dict.fromkeys(plan.workers, math.inf)
        self._heap: list[tuple[float, int, int, ToDownloader | None, ToCoordinator | None]] = []
        self._sequence = itertools.count()

    def run(self) -> float:
        """From the first big batch to the last row: the seconds. Raises ForecastError: it does not end."""
        self._perform(self.begin())
        events = 0
        while not self.ledger.is_complete:
            events += 1
            if not self._heap or events > self._most_events:
                raise ForecastError(f"no end after {events} events, at {self.now} s: {self.ledger!r}")
            self.now, _, rank, order, news = heapq.heappop(self._heap)
            if news is not None:
                self.messages += 1
                self._perform(self.decide(rank, news))
            else:
                self._give_turn(rank, order)
        return self.now

    def begin(self) -> list[Action]:
        """The first big batch. A benchmark measures this."""
        return self.ledger.start(1, {}, self.now)

    def _give_turn(self, rank: int, order: ToDownloader | None) -> None:
        """A message has come to a rank, or it wanted to be woken now (unless it has changed its mind)."""
        it = self._ranks[rank]
        if order is not None:
            self._send_up(rank, it.handle(order, self.now))
        elif self._wakes[rank] != self.now:
            return
        self._send_up(rank, it.step(self.now))
        at = self._wakes[rank] = it.next_at()
        if at < math.inf:
            heapq.heappush(self._heap, (at, next(self._sequence), rank, None, None))

    def _send_up(self, rank: int, messages: list[ToCoordinator]) -> None:
        for message in messages:
            heapq.heappush(self._heap, (self.now + MESSAGE_S, next(self._sequence), rank, None, message))

    def _send_down(self, rank: int, message: ToDownloader) -> None:
        heapq.heappush(self._heap, (self.now + MESSAGE_S, next(self._sequence), rank, message, None))

    def decide(self, rank: int, message: ToCoordinator) -> list[Action]:
        """What rank 0 does with a message. A benchmark measures this."""
        match message:
            case Progress():
                return self.ledger.on_progress(rank, message, self.now)
            case WorkRequest():
                return self.ledger.on_work_request(rank, message, self.now)
            case StealResponse():
                return self.ledger.stealing.on_steal_response(rank, message, self.now)
            case _:
                raise TypeError(f"unknown message {message!r}")

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(rank, message):
                    self._send_down(rank, message)
                case Scatter(assigns):
                    for rank in self._workers:
                        self._send_down(rank, assigns.get(rank, NOTHING))
                case BatchCompleted() | BigBatchEnded() | BigBatchStarted():
                    pass
                case _:
                    raise TypeError(f"unknown action {action!r}")
