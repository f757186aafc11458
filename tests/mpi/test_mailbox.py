"""The mailbox under a real MPI, at whatever number of ranks mpiexec starts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mpi4py import MPI

from ddmpi.core.protocol import Assign, Counters, Finished, Lane, Message, NoWork, PartReport, Progress, WorkRequest
from ddmpi.core.records import BatchRef, Limits
from ddmpi.io.mpi.mailbox import Mailbox

pytestmark = pytest.mark.mpi
TIMEOUT_S = 20.0


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(MPI.COMM_WORLD)
    yield box
    part(box)
    box.close()


def receive(box: Mailbox, count: int) -> list[tuple[int, Message]]:
    """Poll until so many messages are there."""
    deadline = time.monotonic() + TIMEOUT_S
    got: list[tuple[int, Message]] = []
    while len(got) < count:
        got += box.poll()
        if time.monotonic() > deadline:
            raise AssertionError(f"rank {box.rank} has {len(got)} of {count} messages")
    return got


def part(box: Mailbox) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not box.parted():
        if time.monotonic() > deadline:
            raise AssertionError(f"rank {box.rank} waits for the others")


def poll_until(box: Mailbox, condition: Callable[[], bool]) -> None:
    """Poll until ``condition`` holds; until then no message comes out."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert box.poll() == []
        if time.monotonic() > deadline:
            raise AssertionError(f"rank {box.rank} has waited in vain; {box.unsent} messages were not taken")


def complete(request: MPI.Request) -> None:
    """Wait without a look at the mailbox."""
    deadline = time.monotonic() + TIMEOUT_S
    while not request.Test():
        assert time.monotonic() < deadline, "waited in vain"


def settle(box: Mailbox) -> None:
    """All ranks have sent and received everything."""
    barrier = MPI.COMM_WORLD.Ibarrier()
    poll_until(box, lambda: barrier.Test() and not box.unsent)


def lane_of(rank: int, batches: int) -> Lane:
    refs = tuple(BatchRef(i, f"server{rank}", i, "urls-00000.parquet", 0, 100 * i, 100) for i in range(batches))
    return Lane(rank, f"server{rank}", False, Limits(10.0, 4), refs)


def test_messages_of_one_sender_arrive_whole_and_in_order(mailbox: Mailbox) -> None:
    sent = [WorkRequest(number) for number in range(1, 51)]
    for message in sent:
        mailbox.send(0, message)
    if mailbox.rank == 0:
        got = receive(mailbox, 50 * mailbox.size)
        for rank in range(mailbox.size):
            assert [message for source, message in got if source == rank] == sent
    settle(mailbox)


def test_a_message_of_a_megabyte_arrives(mailbox: Mailbox) -> None:
    parts = tuple(PartReport(i, "images/" + "x" * 100, 10, False) for i in range(8000))
    message = Progress(parts, (), 1.0, 0, Counters())
    target = (mailbox.rank + 1) % mailbox.size
    mailbox.send(target, message)
    source = (mailbox.rank - 1) % mailbox.size
    assert receive(mailbox, 1) == [(source, message)]
    settle(mailbox)


def test_a_message_does_not_overtake_the_scatter_before_it(mailbox: Mailbox) -> None:
    rounds = 20
    shares = {rank: Assign((lane_of(rank, 200),)) for rank in range(mailbox.size)}
    if mailbox.rank == 0:
        for number in range(1, rounds + 1):
            mailbox.scatter(shares)
            for rank in range(mailbox.size):
                mailbox.send(rank, NoWork(number, 1.0))
    complete(MPI.COMM_WORLD.Ibarrier())
    expected = [message for number in range(1, rounds + 1) for message in (shares[mailbox.rank], NoWork(number, 1.0))]
    assert [message for _, message in receive(mailbox, 2 * rounds)] == expected
    settle(mailbox)


class LateComm:
    """A communicator whose scatters begin when they are told to: a message can be there before the share it follows."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm
        self._begin: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    def Iscatterv(self, sent: Any, received: Any, root: int) -> LateRequest:  # noqa: N802  # mpi4py's name
        request = LateRequest()
        self._begin.append(lambda: request.begin(self._comm.Iscatterv(sent, received, root)))
        return request

    def begin(self) -> None:
        """Start the scatters so far, in order."""
        while self._begin:
            self._begin.pop(0)()


class LateRequest:
    def __init__(self) -> None:
        self._request: MPI.Request | None = None

    def begin(self, request: MPI.Request) -> None:
        self._request = request

    def Test(self) -> bool:  # noqa: N802  # mpi4py's name
        return self._request is not None and self._request.Test()


def test_a_message_that_is_there_before_the_share_it_follows_waits_for_it(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = LateComm(mailbox._comm)
    if mailbox.rank == 0:
        monkeypatch.setattr(mailbox, "_comm", late)
        mailbox.scatter({rank: Assign((lane_of(rank, 200),), 1) for rank in range(1, mailbox.size)})
        for rank in range(1, mailbox.size):
            mailbox.send(rank, NoWork(2, 1.0))
    else:
        poll_until(mailbox, lambda: mailbox._received == 2)
    everybody_has_the_message = MPI.COMM_WORLD.Ibarrier()
    poll_until(mailbox, everybody_has_the_message.Test)
    # Who has not seen that yet still polls, and would get what may come from now on.
    everybody_knows = MPI.COMM_WORLD.Ibarrier()
    complete(everybody_knows)
    late.begin()
    if mailbox.rank:
        assert receive(mailbox, 2) == [(0, Assign((lane_of(mailbox.rank, 200),), 1)), (0, NoWork(2, 1.0))]
    settle(mailbox)


def test_a_scatter_gives_each_rank_its_own_share(mailbox: Mailbox) -> None:
    shares = {rank: Assign((lane_of(rank, 3 + 500 * rank),)) for rank in range(mailbox.size)}
    if mailbox.rank == 0:
        mailbox.scatter(shares)
    assert receive(mailbox, 1) == [(0, shares[mailbox.rank])]
    settle(mailbox)


def test_ranks_without_a_share_notice_nothing_of_a_scatter(mailbox: Mailbox) -> None:
    last = mailbox.size - 1
    if mailbox.rank == 0:
        mailbox.scatter({last: Assign((lane_of(last, 2),))})
    if mailbox.rank == last:
        assert receive(mailbox, 1) == [(0, Assign((lane_of(last, 2),)))]
    settle(mailbox)


def test_scatters_and_messages_may_cross(mailbox: Mailbox) -> None:
    if mailbox.rank == 0:
        for round_number in range(1, 6):
            mailbox.scatter({rank: Assign((), round_number) for rank in range(mailbox.size)})
            for rank in range(mailbox.size):
                mailbox.send(rank, NoWork(round_number, 1.0))
    got = [message for _, message in receive(mailbox, 10)]
    assert [m.request_id for m in got if isinstance(m, Assign)] == [1, 2, 3, 4, 5]
    assert [m.request_id for m in got if isinstance(m, NoWork)] == [1, 2, 3, 4, 5]
    settle(mailbox)


def test_a_rank_that_is_stopped_holds_up_nobody(mailbox: Mailbox, tmp_path: Path) -> None:
    """The last rank makes no MPI call until the others have had their shares and answered."""
    answered = Path(MPI.COMM_WORLD.bcast(str(tmp_path / "answered"), root=0))
    last = mailbox.size - 1
    if mailbox.rank == 0:
        mailbox.scatter({rank: Assign((lane_of(rank, 1000),)) for rank in range(mailbox.size)})
        others = range(1, last)
        assert len(receive(mailbox, 1 + len(others))) == 1 + len(others)
        answered.touch()
    elif mailbox.rank == last:
        wait_for(answered)
        receive(mailbox, 1)
    else:
        receive(mailbox, 1)
        mailbox.send(0, Finished())
    settle(mailbox)


@pytest.mark.parametrize("entries", [1, 20_000])
def test_what_nobody_listened_to_does_not_hold_up_the_end(entries: int, caplog: pytest.LogCaptureFixture) -> None:
    """Rank 0 ends with a failure while the others still report, and they while it still assigns."""
    box = Mailbox(MPI.COMM_WORLD)
    parts = tuple(PartReport(i, "images/" + "x" * 100, 10, False) for i in range(entries))
    if box.rank == 0:
        box.scatter({rank: Assign((lane_of(rank, entries),)) for rank in range(box.size)})
    for rank in range(box.size):
        box.send(rank, Progress(parts, (), 1.0, 0, Counters()))
    with caplog.at_level(logging.DEBUG, "ddmpi.io.mpi.mailbox"):
        part(box)
    box.close()
    assert sum(text.startswith("too late") for text in caplog.messages) == box.size + 1


def wait_for(path: Path) -> None:
    """Without MPI: as a process does that is stopped or deep in a computation."""
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
