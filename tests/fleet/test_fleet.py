"""The fleet as its clients see it: answers, faults and limits over real sockets, and the log of all that."""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.images import FORMATS, body_of
from tests.fleet.log import Event, EventKind, most_connections, requests_during_pause, requests_per_path
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import Mode, ServerSpec, Size
from tests.fleet.verdict import is_missing, verdict_of
from tests.fleet.wire import GARBAGE, answer_of

TIMEOUT_S = 10.0
SILENCE_S = 0.2
OK = ServerSpec("127.20.0.1")
BIG = ServerSpec("127.20.0.2", size=Size.NORMAL, latency_s=0.05)
STRICT = ServerSpec("127.20.0.3", rate_limit_per_s=0.01, burst=3, retry_after_s=60)
MUTE = ServerSpec("127.20.0.4", rate_limit_per_s=0.01, burst=1)
FLAKY = ServerSpec("127.20.0.5", error_rate=0.5)
GAPPY = ServerSpec("127.20.0.6", not_found_share=0.5)
SLOW = ServerSpec("127.20.0.7", body_bytes_per_s=10_000)
MOVED = ServerSpec("127.20.0.8", redirect_to=OK.address)
BUCKET = ServerSpec("127.20.0.9", refused_prefix="/no/", refused_status=403, refused_body="<Code>AccessDenied</Code>")
CACHED = ServerSpec("127.20.0.10", refused_prefix="/no/", refused_retry_after_s=2)
FAULTS = {mode: ServerSpec(f"127.20.1.{number}", mode=mode) for number, mode in enumerate(Mode)}
ALL = (OK, BIG, STRICT, MUTE, FLAKY, GAPPY, SLOW, MOVED, BUCKET, CACHED, *FAULTS.values())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), ALL) as running:
        yield running


class Client:
    """One kept-alive connection to one server."""

    def __init__(self, fleet: RunningFleet, spec: ServerSpec) -> None:
        address, port = spec.name(fleet.port).split(":")
        self.connection = http.client.HTTPConnection(address, int(port), timeout=TIMEOUT_S)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def get(self, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
        self.connection.request(method, path)
        response = self.connection.getresponse()
        return response, response.read()


def raw_answer(fleet: RunningFleet, spec: ServerSpec, request: bytes) -> bytes:
    """All bytes until the server closes the connection, which it has to do."""
    received = b""
    with socket.create_connection((spec.address, fleet.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        while piece := connection.recv(65_536):
            received += piece
    return received


def answer_before_silence(fleet: RunningFleet, spec: ServerSpec, expected_bytes: int) -> bytes:
    """What comes up to ``expected_bytes``, and whatever follows within ``SILENCE_S``; the connection stays open."""
    received = b""
    with socket.create_connection((spec.address, fleet.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(get_head("/1.jpg"))
        while len(received) < expected_bytes or select.select([connection], [], [], SILENCE_S)[0]:
            piece = connection.recv(65_536)
            assert piece, "closed"
            received += piece
    return received


def get_head(path: str, fields: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode()


@pytest.mark.parametrize("suffix", FORMATS)
def test_bodies_are_those_that_body_of_computes(fleet: RunningFleet, suffix: str) -> None:
    for spec in (OK, BIG):
        with Client(fleet, spec) as client:
            response, body = client.get(f"/17.{suffix}")
            assert (response.status, body) == (200, body_of(spec, f"/17.{suffix}"))
            assert response.headers["Content-Type"] == FORMATS[suffix].content_type


def test_head_has_the_fields_of_get_and_no_body(fleet: RunningFleet) -> None:
    with Client(fleet, OK) as client:
        head, nothing = client.get("/1.jpg", "HEAD")
        response, body = client.get("/1.jpg")
        assert (head.status, nothing, int(head.headers["Content-Length"])) == (200, b"", len(body))
        assert head.headers["ETag"] == response.headers["ETag"]


def test_pipelined_requests_are_answered_in_order(fleet: RunningFleet) -> None:
    received = raw_answer(fleet, OK, get_head("/1.jpg") + get_head("/2.jpg", "Connection: close\r\n"))
    assert 0 < received.find(body_of(OK, "/1.jpg")) < received.find(body_of(OK, "/2.jpg"))


@pytest.mark.parametrize(
    "request_line",
    ["POST /1.jpg HTTP/1.1", "GET http://127.20.0.1/ HTTP/1.1", "GET /a\tb HTTP/1.1", "GET /1.jpg HTTP/2", "GET"],
)
def test_what_is_not_spoken_is_answered_400_and_closed(fleet: RunningFleet, request_line: str) -> None:
    received = raw_answer(fleet, OK, f"{request_line}\r\nHost: x\r\n\r\n".encode())
    assert received.startswith(b"HTTP/1.1 400 ")


def test_latency_passes_before_the_answer(fleet: RunningFleet) -> None:
    with Client(fleet, BIG) as client:
        started = time.monotonic()
        client.get("/1.jpg")
        # Timers of asyncio may fire early by the resolution of its clock.
        assert time.monotonic() - started > BIG.latency_s - 0.002


def test_above_the_limit_comes_429_with_retry_after_and_a_pause(fleet: RunningFleet) -> None:
    with Client(fleet, STRICT) as client:
        answers = [client.get(f"/{number}.jpg")[0] for number in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].headers["Retry-After"] == "60"
    assert 0 < int(answers[4].headers["Retry-After"]) <= 60


def test_above_the_limit_of_a_mute_server_comes_429_without_retry_after(fleet: RunningFleet) -> None:
    with Client(fleet, MUTE) as client:
        answers = [client.get("/1.jpg")[0] for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert "Retry-After" not in answers[1].headers


def test_errors_by_chance_are_those_that_verdict_of_computes(fleet: RunningFleet) -> None:
    with Client(fleet, FLAKY) as client:
        statuses = [client.get("/1.jpg")[0].status for _ in range(40)]
    assert statuses == [verdict_of(FLAKY, "/1.jpg", number).status for number in range(1, 41)]
    assert set(statuses) == {200, 500, 503}


def test_missing_paths_stay_missing(fleet: RunningFleet) -> None:
    paths = [f"/{number}.jpg" for number in range(20)]
    expected = [404 if is_missing(GAPPY, path) else 200 for path in paths]
    with Client(fleet, GAPPY) as client:
        for _ in range(2):
            assert [client.get(path)[0].status for path in paths] == expected
    assert set(expected) == {200, 404}


def test_refused_paths_stay_refused_and_no_other_is(fleet: RunningFleet) -> None:
    with Client(fleet, BUCKET) as client:
        for _ in range(2):
            response, body = client.get("/no/1.jpg")
            assert (response.status, response.headers["Retry-After"], body) == (403, None, b"<Code>AccessDenied</Code>")
        assert client.get("/1.jpg")[0].status == 200
    with Client(fleet, CACHED) as client:
        for _ in range(2):
            response, body = client.get("/no/1.jpg")
            assert (response.status, response.headers["Retry-After"], body) == (429, "2", b"")
            assert client.get("/no.jpg")[1] == body_of(CACHED, "/no.jpg")


def test_a_slow_body_takes_its_time_and_is_whole(fleet: RunningFleet) -> None:
    body = body_of(SLOW, "/1.jpg")
    with Client(fleet, SLOW) as client:
        started = time.monotonic()
        assert client.get("/1.jpg")[1] == body
    # The first piece, 20 ms' worth, comes at once; timers may be early by some milliseconds.
    assert time.monotonic() - started > (len(body) / SLOW.body_bytes_per_s - 0.02) * 0.8


def test_a_redirect_leads_to_the_same_path_of_the_other_server(fleet: RunningFleet) -> None:
    with Client(fleet, MOVED) as client:
        response, body = client.get("/7.jpg")
    assert (response.status, response.headers["Location"], body) == (302, OK.url(fleet.port, "/7.jpg"), b"")


def test_a_refusing_server_refuses(fleet: RunningFleet) -> None:
    with Client(fleet, FAULTS[Mode.REFUSED]) as client, pytest.raises(ConnectionRefusedError):
        client.get("/1.jpg")


@pytest.mark.parametrize("address", [FAULTS[Mode.REFUSED].address, "127.20.9.9"])
def test_addresses_that_serve_nothing_reset_connections_to_the_port(fleet: RunningFleet, address: str) -> None:
    with pytest.raises(ConnectionResetError):
        raw_answer(fleet, ServerSpec(address), get_head("/1.jpg"))


def test_a_resetting_server_resets(fleet: RunningFleet) -> None:
    with pytest.raises(ConnectionResetError):
        raw_answer(fleet, FAULTS[Mode.RESET], get_head("/1.jpg"))


def test_servers_that_close_early(fleet: RunningFleet) -> None:
    closed, cut, garbage = (
        raw_answer(fleet, FAULTS[mode], get_head("/1.jpg")) for mode in (Mode.CLOSE, Mode.TRUNCATED, Mode.GARBAGE)
    )
    body = body_of(FAULTS[Mode.TRUNCATED], "/1.jpg")
    assert closed == b""
    assert f"Content-Length: {len(body)}\r\n".encode() in cut
    assert cut.endswith(b"\r\n\r\n" + body[: len(body) // 2])
    assert garbage == GARBAGE


def test_servers_that_fall_silent(fleet: RunningFleet) -> None:
    stalling = FAULTS[Mode.STALL]
    answer = answer_of(stalling, "/1.jpg", Mode.STALL, 200, "")
    half = answer.head + answer.body[: len(answer.body) // 2]
    assert answer_before_silence(fleet, stalling, len(half)) == half
    assert answer_before_silence(fleet, FAULTS[Mode.BLACKHOLE], 0) == b""


def test_servers_whose_200_is_no_image(fleet: RunningFleet) -> None:
    with Client(fleet, FAULTS[Mode.HTML]) as client:
        response, body = client.get("/1.jpg")
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert body.startswith(b"<!DOCTYPE html>")
    with Client(fleet, FAULTS[Mode.EMPTY]) as client:
        response, body = client.get("/1.jpg")
        assert (response.status, response.headers["Content-Type"], body) == (200, "image/jpeg", b"")


def test_the_log_has_each_event_once(tmp_path: Path) -> None:
    specs = (OK, STRICT, MOVED, FAULTS[Mode.TRUNCATED], FAULTS[Mode.BLACKHOLE])
    with running_fleet(tmp_path, specs) as fleet:
        with Client(fleet, OK) as first, Client(fleet, OK) as second:
            first.get("/1.jpg")
            second.get("/2.jpg")
            first.get("/1.jpg")
        with Client(fleet, STRICT) as client:
            for number in range(5):
                client.get(f"/{number}.jpg")
        with Client(fleet, MOVED) as client:
            client.get("/3.jpg")
        raw_answer(fleet, FAULTS[Mode.TRUNCATED], get_head("/4.jpg"))
        answer_before_silence(fleet, FAULTS[Mode.BLACKHOLE], 0)
        log = fleet.finished_log()
        ok, strict, moved, cut, silent = (spec.name(fleet.port) for spec in specs)
    assert most_connections(log, ok) == 2
    assert requests_per_path(event for event in log if event.server == ok) == {"/1.jpg": 2, "/2.jpg": 1}
    assert [event.note for event in of_kind(log, EventKind.REQUEST, strict)] == ["", "", "", "limited", "paused"]
    assert requests_during_pause(log, strict) == 1
    assert [event.status for event in of_kind(log, EventKind.ANSWER, moved)] == [302]
    assert [event[4:] for event in of_kind(log, EventKind.ANSWER, cut)] == [("/4.jpg", 200, 0, "cut")]
    assert [event[4:] for event in of_kind(log, EventKind.ANSWER, silent)] == [("/1.jpg", 0, 0, "cut")]
    check_shape(log)


def of_kind(log: list[Event], kind: EventKind, server: str) -> list[Event]:
    return [event for event in log if event.kind is kind and event.server == server]


def check_shape(log: list[Event]) -> None:
    """Assert what the docstring of ``tests.fleet.log`` promises of a finished log."""
    assert [event.time_s for event in log] == sorted(event.time_s for event in log)
    for connection in {event.connection for event in log}:
        kinds = [event.kind for event in log if event.connection == connection]
        middle = [EventKind.REQUEST, EventKind.ANSWER] * ((len(kinds) - 2) // 2)
        assert kinds == [EventKind.OPEN, *middle, EventKind.CLOSE]


def test_an_answer_nobody_reads_is_logged_as_cut(tmp_path: Path) -> None:
    spec = ServerSpec(OK.address, body_bytes_per_s=100, size=Size.NORMAL)
    with running_fleet(tmp_path, [spec]) as fleet:
        with socket.create_connection((spec.address, fleet.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(get_head("/1.jpg"))
            assert connection.recv(1024).startswith(b"HTTP/1.1 200 OK\r\n")
        log = fleet.finished_log()
    assert [event[4:] for event in log if event.kind is EventKind.ANSWER] == [("/1.jpg", 200, 0, "cut")]
    assert not requests_per_path(log)
