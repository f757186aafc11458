"""Messages and their bytes."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from ddmpi.core import protocol
from ddmpi.core.protocol import Asked, ControlOverride, Message, Tag, Usage, decode, encode, report_interval_s
from ddmpi.core.records import BatchRef, Limits, PaceState

BATCH = BatchRef(3, "s", 1, "urls/0.parquet", 2, 100, 10, ("images/a.parquet",), 0)
ERRAND = protocol.Handoff(BATCH, 4, "http://t/x", "t", "t", 2, 1)
SHARE = Limits(2.5, 3, 1e6, 1e9)
PACE = PaceState(1.0, 2.0, 3, 4, 5, ((5.0, 6.0),), ((7.0, 8.0), (9.0, 10.0)))
LANE = protocol.Lane(7, "s", False, SHARE, (BATCH,), {"s": PACE}, 6.0, True, 8, (ERRAND,))
REPORT = protocol.LaneReport(7, 8, protocol.LaneState.PARKED, 9.0, {"s": PaceState(1.0)})

MESSAGES: list[Message] = [
    protocol.Begin(4, b"{}", 50.0),
    protocol.Assign((LANE,), 5),
    protocol.Extend(7, 9, SHARE, (BATCH,), (ERRAND,), {"a.org": 3.5}),
    protocol.SetControl((ControlOverride("*.org", True, 0.5, 2, 1e6, 1e9),)),
    protocol.NoWork(5, 2.0),
    protocol.StealRequest(6, 10.0, 7),
    protocol.Release((7, 8)),
    protocol.Stop(protocol.StopReason.WALLTIME, 8.0),
    protocol.Exit(75, "no space left"),
    protocol.Progress(
        (protocol.PartReport(3, "images/b.parquet", 6, False, 1000, {"http_status": 2}),),
        (REPORT,),
        11.0,
        2,
        protocol.Counters(1, 2, 3, 4, 5, 6, 7),
    ),
    protocol.WorkRequest(5),
    protocol.StealResponse(6, (8,), 7, (3,), SHARE),
    protocol.HandedOff((ERRAND,)),
    protocol.Samples((protocol.Sample("s", True, 200, "", "127.0.0.1", "1.1", 0.1, 0.2, 0.3, 100, 4.0),)),
    protocol.ServersUsed(
        (Usage("a", 3, 1, 1000, 5.0, 0.5, {2: 2, 7: 1}),), (Asked("a", 1.7e9, b"\0\0\0\0", 1000, 1, 2, 1, 60.0),)
    ),
    protocol.PicturesRepeated((protocol.RepeatedPicture("s", "ab12", 3, "http://s/1", (1, 2), 4, b"gif"),)),
    protocol.StopRequested(protocol.StopReason.SIGNAL),
    protocol.Failed("disk full"),
    protocol.Finished(),
]


def test_every_message_is_tried_here() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(Message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_journey(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_may_come_in_any_buffer(kind: type) -> None:
    assert decode(kind(encode(protocol.Finished()))) == protocol.Finished()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00", id="no message"),
        pytest.param(msgspec.msgpack.encode({"type": "Surprise"}), id="a message that nobody knows"),
        pytest.param(msgspec.msgpack.encode({"type": "NoWork", "request_id": "5", "wait_s": 1.0}), id="a wrong type"),
        pytest.param(msgspec.msgpack.encode({"type": "NoWork", "request_id": 5}), id="a missing field"),
        pytest.param(encode(protocol.WorkRequest(5))[:-1], id="a message that was cut off"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data)


def test_tags_are_what_mpi_guarantees() -> None:
    assert all(0 <= tag <= 32767 for tag in Tag)
    assert len({int(tag) for tag in Tag}) == len(Tag)


def test_a_progress_report_without_news_is_small() -> None:
    quiet = protocol.Progress((), (), 0.0, 0, protocol.Counters())
    assert len(encode(quiet)) < 200


@pytest.mark.parametrize(("workers", "interval_s"), [(1, 0.5), (100, 0.5), (1_000, 5.0), (10_000, 50.0)])
def test_all_ranks_together_report_at_most_two_hundred_times_a_second(workers: int, interval_s: float) -> None:
    assert report_interval_s(workers) == interval_s
