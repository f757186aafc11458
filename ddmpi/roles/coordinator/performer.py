"""What rank 0 does when the ledger has decided: messages, a big batch's files, markers, and what is to be verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ddmpi.core.ledger.actions import Action, BatchCompleted, BigBatchEnded, BigBatchStarted, Scatter, Send
from ddmpi.core.protocol import Assign, ToDownloader
from ddmpi.io.folder.schedules import write_schedule
from ddmpi.roles.coordinator.run_state import RunState
from ddmpi.roles.coordinator.verifier import Verifier


class Performer:
    """Performs the ledger's actions.

    Args:
        workers: ranks that download.
        send, scatter: the mailbox.
    """

    def __init__(
        self,
        state: RunState,
        verifier: Verifier,
        workers: Sequence[int],
        send: Callable[[int, ToDownloader], None],
        scatter: Callable[[dict[int, ToDownloader]], None],
    ) -> None:
        self._state = state
        self._verifier = verifier
        self._workers = workers
        self._send = send
        self._scatter = scatter
        self.withholds_work = False
        """While the run stops, no rank gets new work."""

    def perform(self, actions: Iterable[Action]) -> None:
        """Do what the ledger has decided, in order.

        Raises:
            StorageError: a schedule, a marker or a verification cannot be written.
        """
        for action in actions:
            match action:
                case Send(rank, message):
                    if not (self.withholds_work and isinstance(message, Assign)):
                        self._send(rank, message)
                case Scatter(assigns):
                    if not self.withholds_work:
                        self._scatter({rank: assigns.get(rank, Assign(())) for rank in self._workers})
                case BigBatchStarted(number, rows):
                    write_schedule(self._state.layout, number, rows)
                case BatchCompleted(batch_id, number=number):
                    self._state.complete(batch_id)
                    if number:
                        self._verifier.add(number, batch_id)
                case BigBatchEnded(number):
                    self._verifier.close(number)
                case _:
                    raise TypeError(f"unknown action {action!r}")

    def tell_all(self, message: ToDownloader) -> None:
        """Send the message to each rank that downloads."""
        for rank in self._workers:
            self._send(rank, message)
