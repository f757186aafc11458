"""Messages between ranks over MPI: send, poll, scatter. Apart from ``__main__`` the only file that imports mpi4py.

Nothing here blocks: a rank that is slow, or stopped, holds up no other. Sends are ``isend``s that are kept until they
complete; receives are ``improbe``s (``irecv`` fails for large messages, and a blocking receive spins a whole core);
the scatter is an ``Iscatterv`` whose requests are tested in ``poll`` like everything else, and what comes after it
waits for it: an extension must not overtake its lane. A message to the own rank goes through a queue, so that one
process can play both roles.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from ddmpi.core.protocol import Message, Tag, decode, encode, line_of

log = logging.getLogger(__name__)
Bytes = npt.NDArray[np.uint8]


class Mailbox:
    """The messages of one rank.

    Args:
        comm: the job's communicator; the mailbox talks on duplicates of it, which ``close`` frees.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm.Dup()
        # Collectives must start in the same order on all ranks, and a rank may part before it has heard of the last
        # scatter.
        self._parting_comm = comm.Dup()
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self._sent = np.zeros(self.size, np.int64)
        self._received = 0
        self._parting: Parting | None = None
        self._local: deque[tuple[int, Message]] = deque()
        self._outbox: deque[tuple[MPI.Request, object]] = deque()
        self._arrived: deque[tuple[int, Bytes, MPI.Request | None]] = deque()
        """In order of arrival; with a request, a share of a scatter that may still be on its way."""

    def send(self, rank: int, message: Message) -> None:
        """Send to a rank, the own one included. Messages between two ranks arrive in order, scatters included."""
        if rank == self.rank:
            _log("to", rank, Tag.MESSAGE, message)
            self._local.append((rank, message))
            return
        data = encode(message)
        _log("to", rank, Tag.MESSAGE, message, len(data))
        self._isend(rank, data, Tag.MESSAGE)

    def _isend(self, rank: int, data: bytes, tag: Tag) -> None:
        self._outbox.append((self._comm.Isend([data, MPI.BYTE], dest=rank, tag=tag), data))
        self._sent[rank] += 1

    def scatter(self, messages: Mapping[int, Message]) -> None:
        """Give each rank its message with one MPI scatter (from this rank); ranks without one take part unnoticed. Each
        receiver learns of the scatter by a small message that says how many bytes its share has."""
        chunks = [encode(messages[r]) if r in messages and r != self.rank else b"" for r in range(self.size)]
        own = messages.get(self.rank)
        if own is not None:
            _log("to", self.rank, Tag.SCATTER, own)
            self._local.append((self.rank, own))
        if self.size == 1:
            return
        counts = [len(chunk) for chunk in chunks]
        for rank in range(self.size):
            if rank != self.rank:
                self._isend(rank, str(counts[rank]).encode(), Tag.SCATTER)
        log.debug("to all ranks, SCATTER, %d bytes for %d of them", sum(counts), np.count_nonzero(counts))
        data = np.frombuffer(b"".join(chunks), np.uint8)
        offsets = np.concatenate([[0], np.cumsum(counts[:-1])]).tolist()
        nothing = np.empty(0, np.uint8)
        request = self._comm.Iscatterv([data, counts, offsets, MPI.BYTE], [nothing, 0, MPI.BYTE], root=self.rank)
        self._outbox.append((request, (data, nothing)))

    def _join_scatter(self, source: int, size: int) -> None:
        share = np.empty(size, np.uint8)
        request = self._comm.Iscatterv(None, [share, size, MPI.BYTE], root=source)
        self._arrived.append((source, share, request))

    def poll(self) -> list[tuple[int, Message]]:
        """Return the messages that have arrived, as (source rank, message). Never waits."""
        arrived = list(self._local)
        self._local.clear()
        if self.size > 1:
            status = MPI.Status()
            while (probe := self._comm.Improbe(MPI.ANY_SOURCE, MPI.ANY_TAG, status)) is not None:
                data = np.empty(status.Get_count(MPI.BYTE), np.uint8)
                probe.Recv([data, MPI.BYTE])
                self._received += 1
                if status.Get_tag() == Tag.SCATTER:
                    self._join_scatter(status.Get_source(), int(data.tobytes()))
                else:
                    self._arrived.append((status.Get_source(), data, None))
            arrived += self._whole_messages()
            # Sends end nearly in order: looking at the oldest keeps this cheap.
            while self._outbox and self._outbox[0][0].Test():
                self._outbox.popleft()
        return arrived

    def _whole_messages(self) -> Iterator[tuple[int, Message]]:
        """Yield the messages that have arrived, up to the first share of a scatter that has not."""
        while self._arrived:
            source, data, request = self._arrived[0]
            if request is not None and not request.Test():
                return
            self._arrived.popleft()
            if len(data):
                message = decode(data.tobytes())
                _log("from", source, Tag.MESSAGE if request is None else Tag.SCATTER, message, len(data))
                yield source, message

    @property
    def has_local(self) -> bool:
        """Whether a message to the own rank waits for ``poll``."""
        return bool(self._local)

    @property
    def unsent(self) -> int:
        """Messages that have not left yet."""
        return len(self._outbox)

    def parted(self) -> bool:
        """Return whether all ranks want to part and have received whatever was sent to them. Never waits: ask again.
        Collective; this rank sends nothing any more. What arrives meanwhile comes too late to matter: it is dropped."""
        if self._parting is None:
            self._parting = Parting(self._parting_comm, self._sent)
        for source, message in self.poll():
            log.debug("too late from rank %d: %s", source, line_of(message))
        return self._parting.is_over(self._received, not (self._arrived or self._outbox))

    def close(self) -> None:
        """Free the communicators; collective, after all have ``parted``: MPI refuses it while messages wait."""
        self._comm.Free()
        self._parting_comm.Free()


class Parting:
    """How all ranks leave together: each learns how many messages were sent to it, and waits until the others know too.

    A rank that ends with a failure does not listen to the end, so that its peers' last words may still be on their way.
    """

    def __init__(self, comm: MPI.Intracomm, sent: npt.NDArray[np.int64]) -> None:
        self._comm = comm
        self._due = np.zeros(1, np.int64)
        self._sums = comm.Ireduce_scatter_block(sent, self._due, op=MPI.SUM)
        self._barrier: MPI.Request | None = None

    def is_over(self, received: int, idle: bool) -> bool:
        """Return whether all may leave.

        Args:
            received: messages so far.
            idle: no message is on its way from or to this rank, as far as it knows.
        """
        if self._barrier is None:
            if not self._sums.Test() or received < self._due[0] or not idle:
                return False
            self._barrier = self._comm.Ibarrier()
        return self._barrier.Test()


def _log(way: str, rank: int, tag: Tag, message: Message, size_bytes: int = 0) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s rank %d, %s, %d bytes: %s", way, rank, tag.name, size_bytes, line_of(message))


def cores_of_downloaders(comm: MPI.Intracomm) -> list[frozenset[int]]:
    """Return the cores that each downloading rank on this node may use. Collective: all ranks call it together."""
    downloads = comm.Get_rank() > 0 or comm.Get_size() == 1
    cores = frozenset(os.sched_getaffinity(0) if downloads else ())
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    found = node.allgather(cores)
    node.Free()
    return found
