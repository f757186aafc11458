"""The engine alone, against a server in a thread: connections that are kept, and bodies that stand still."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pycurl
import pytest
import trustme

from ddmpi.config.sections import DownloaderParameters
from ddmpi.core.frontier.memory_budget import Arrival
from ddmpi.core.records import Answer, Task, Validators
from ddmpi.core.rules.urls import Parsed, parse_url
from ddmpi.io.http.answers import MOST_COOKIE_BYTES
from ddmpi.io.http.easy_handle import PIECES_BYTES, EasyHandle, ServerSettings, headers_of, keep_names
from ddmpi.io.http.transfers import Transfers
from tests.fleet.threaded import QuietHandler, serving
from tests.whole.nginx import free_port

BODY_BYTES = 30_000_000
"""More than fits into the buffers of two sockets."""


def body_of(size_bytes: int) -> bytes:
    """No two pieces of it are the same."""
    return np.arange(-(-size_bytes // 4), dtype=np.uint32).tobytes()[:size_bytes]


class Handler(QuietHandler):
    """/N: a body of N bytes; /close/N: the connection closes afterwards, unannounced. Type: what was asked for."""

    def get(self) -> None:
        size_bytes = int(self.path.rpartition("/")[2])
        self.answer(200, body_of(size_bytes), ETag=' "abc" ', Content_Type=self.path)
        self.close_connection = self.path.startswith("/close/")


@pytest.fixture
def address() -> Iterator[str]:
    with serving(Handler) as port:
        yield f"127.0.0.1:{port}"


PARAMETERS = DownloaderParameters(
    connect_timeout_s=5,
    stall_timeout_s=2,
    total_timeout_s=30,
    max_file_bytes=100_000_000,
    proxy="",
)


def new_transfers(*, kept: int = 16, **changes: object) -> Transfers:
    """An engine with these parameters, others than the tests' own."""
    parameters = PARAMETERS.model_copy(update=changes)
    return Transfers(parameters, ["User-Agent: ddmpi-tests"], kept, lambda ip: ip == "127.0.0.1")


@pytest.fixture
def transfers() -> Iterator[Transfers]:
    engine = new_transfers()
    yield engine
    engine.close()


def fetch(transfers: Transfers, address: str, path: str) -> Answer:
    transfers.start(Task(0, 0, f"http://{address}{path}", address))
    return collect(transfers, 1)[0]


def collect(transfers: Transfers, count: int) -> list[Answer]:
    answers: list[Answer] = []
    while len(answers) < count:
        answers += transfers.poll(1.0)
    return answers


def test_a_connection_is_kept_and_used_again(transfers: Transfers, address: str) -> None:
    for size_bytes in (10, 100_000, 20):
        answer = fetch(transfers, address, f"/{size_bytes}")
        assert (answer.curl_code, answer.status, len(answer.body), answer.etag) == (0, 200, size_bytes, '"abc"')
    assert transfers.connections.count(address) == 1


def test_connections_that_are_open_are_kept_where_more_servers_come_than_there_is_room_for() -> None:
    transfers = new_transfers(kept=2, connect_to=["::127.0.0.1:"])
    with serving(Handler) as port:
        servers = [f"s{number}.example.org:{port}" for number in range(4)]
        for _ in range(3):
            for server in servers:
                fetch(transfers, server, "/10")
            assert [transfers.connections.count(server) for server in servers] == [1, 1, 0, 0]
    transfers.close()


@pytest.fixture
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request, whether an old address of its server counts no more."""
    asked: list[bool] = []
    begin = EasyHandle.begin

    def noted(handle: EasyHandle, task: Task, **options: bool) -> None:
        asked.append(options["asks_anew"])
        begin(handle, task, **options)

    monkeypatch.setattr(EasyHandle, "begin", noted)
    return asked


def test_a_server_that_takes_no_connection_may_have_moved(asked_anew: list[bool], transfers: Transfers) -> None:
    gone = f"127.0.0.1:{free_port('127.0.0.1')}"
    assert [fetch(transfers, gone, "/1").curl_code for _ in range(2)] == [pycurl.E_COULDNT_CONNECT] * 2
    with serving(Handler, port=int(gone.rpartition(":")[2])):
        assert [fetch(transfers, gone, "/1").status for _ in range(2)] == [200, 200]
    assert asked_anew == [False, True, True, False]


def test_names_are_forgotten_after_many_connections(
    asked_anew: list[bool], transfers: Transfers, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_forget_at", 2)
    for _ in range(5):
        assert fetch(transfers, address, "/close/1").status == 200
    assert asked_anew == [False, False, True, False, False]


def test_names_are_kept_as_long_as_libcurl_lets_us() -> None:
    class Strict:
        """libcurl 8.16."""

        def setopt(self, option: int, value: int) -> None:
            if value < 0:
                raise pycurl.error(pycurl.E_BAD_FUNCTION_ARGUMENT, "")
            kept.append((option, value))

    kept: list[tuple[int, int]] = []
    keep_names(Strict())  # type: ignore[arg-type]
    assert kept == [(pycurl.DNS_CACHE_TIMEOUT, 86_400)]


class CookieHandler(QuietHandler):
    """A redirect with cookies, and what came of them in the header ``Content-Type``."""

    def get(self) -> None:
        self.send_response(302 if self.path.startswith("/set") else 200)
        self.send_header("Content-Type", self.headers.get("Cookie", "none"))
        self.send_header("Content-Length", "0")
        self.send_header("Location", "/next")
        self.send_header("Set-Cookie", f"visit={'x' * int(self.path.rpartition('/')[2] or 1)}; Path=/; HttpOnly")
        self.send_header("Set-Cookie", "joint=1; Domain=example.org; Secure")
        self.send_header("RateLimit-Policy", '"burst";q=20;w=1')
        self.send_header("ratelimit-policy", '"daily";q=9;w=86400')
        self.send_header("RateLimit", '"burst";r=5;t=1')
        self.send_header("Retry-After", "3")
        self.end_headers()


@pytest.fixture
def cookies() -> Iterator[Transfers]:
    """An engine with one handle, to which all names are the same server."""
    with serving(CookieHandler) as port:
        engine = new_transfers(connect_to=[f"::127.0.0.1:{port}"])
        yield engine
        engine.close()


def shown(transfers: Transfers, server: str, cookies: tuple[bytes, ...]) -> str:
    """The cookies that a request shows to the server."""
    transfers.start(Task(0, 0, f"http://{server}/", server, cookies=cookies))
    return collect(transfers, 1)[0].content_type


def test_the_cookies_of_a_redirect_are_shown_where_it_leads_to_and_to_nobody_else(cookies: Transfers) -> None:
    answer = fetch(cookies, "a.example.org", "/set/5")
    assert answer.location == "http://a.example.org/next"
    assert shown(cookies, "a.example.org", answer.cookies) == "visit=xxxxx"
    assert shown(cookies, "a.example.org", ()) == "none"
    assert shown(cookies, "b.example.org", answer.cookies) == "none", "of the host alone, and one for https"
    assert shown(cookies, "a.example.com", answer.cookies) == "none"
    assert fetch(cookies, "a.example.org", "/").cookies == (), "nobody is redirected"


def test_cookies_of_a_request_that_was_aborted_are_forgotten(cookies: Transfers) -> None:
    answer = fetch(cookies, "a.example.org", "/set/1")
    cookies.start(Task(0, 0, "http://a.example.org/", "a.example.org", cookies=answer.cookies))
    cookies.abort()
    assert shown(cookies, "a.example.org", ()) == "none"


def test_a_row_with_too_many_bytes_of_cookies_goes_on_without(cookies: Transfers) -> None:
    first = fetch(cookies, "a.example.org", "/set/4000")
    assert sum(map(len, first.cookies)) < MOST_COOKIE_BYTES
    many = tuple(f"a.example.org\tFALSE\t/\tFALSE\t0\tc{number}\t{'x' * 4000}".encode() for number in range(4))
    cookies.start(Task(0, 0, "http://a.example.org/set/4000", "a.example.org", cookies=many))
    (answer,) = collect(cookies, 1)
    assert (answer.status, answer.cookies) == (302, ())


def test_what_a_server_says_about_its_limits_is_read(cookies: Transfers, transfers: Transfers, address: str) -> None:
    answer = fetch(cookies, "a.example.org", "/")
    policies = '"burst";q=20;w=1, "daily";q=9;w=86400'
    assert answer.rate_limits == {"ratelimit-policy": policies, "ratelimit": '"burst";r=5;t=1'}
    assert answer.retry_after == "3"
    assert fetch(transfers, address, "/10").rate_limits is None


class HeaderHandler(QuietHandler):
    """Who connected, and what was shown, in the body."""

    def get(self) -> None:
        own = {name: value for name, value in self.headers.items() if name not in {"Host", "Accept", "Accept-Encoding"}}
        self.answer(200, json.dumps([self.client_address[1], self.path, sorted(own.items())]).encode())


AGENT = ("User-Agent", "ddmpi-tests")


def test_headers_are_of_their_request_alone_although_handles_and_connections_are_used_again() -> None:
    own = {"x-key": "k", "user-agent": "mine", "Cookie": "a=b"}
    with serving(HeaderHandler) as port:
        server, other = f"s.example.org:{port}", f"t.example.org:{port}"
        settings = ServerSettings(PARAMETERS.model_copy(update={"connect_to": ("::127.0.0.1:",)}), own)
        engine = Transfers(
            settings.parameters, ["User-Agent: ddmpi-tests"], 16, lambda ip: ip == "127.0.0.1",
            settings_of=lambda name: settings if name == server else None,
        )  # fmt: skip

        def asked(name: str, **task: Any) -> list[tuple[str, str]]:
            engine.start(replace(Task(0, 0, f"http://{name}/", name), **task))
            peer, _, headers = json.loads(collect(engine, 1)[0].body)
            peers.setdefault(name, set()).add(peer)
            return [(key, value) for key, value in headers]

        peers: dict[str, set[int]] = {}
        of_rule = [("Cookie", "a=b"), ("user-agent", "mine"), ("x-key", "k")]
        assert asked(server) == of_rule
        assert asked(other) == [AGENT]
        assert asked(server, is_at_origin=False) == [AGENT], "without TLS, and led there"
        assert asked(server, robots_of=f"http://{server}") == [AGENT]
        assert asked(other, headers='{"X-Key": "row", "Cookie": "c=d"}') == [("Cookie", "c=d"), AGENT, ("X-Key", "row")]
        assert asked(other) == [AGENT]
        assert asked(other, headers='{"X-Key": "row"}', is_at_origin=False) == [AGENT]
        assert asked(server, headers='{"X-Key": "row"}') == [
            ("Cookie", "a=b"),
            ("X-Key", "row"),
            ("user-agent", "mine"),
        ]
        engine.start(Task(0, 0, f"http://{server}/", server))
        engine.abort()
        assert asked(server, is_at_origin=False) == [AGENT]
        assert {name: len(found) for name, found in peers.items()} == {server: 1, other: 1}
        assert "'k'" not in repr(settings)
        engine.close()


def test_over_tls_a_rule_s_headers_go_to_its_server_whoever_has_led_there() -> None:
    own = {"X-Key": "k"}
    led = Task(0, 0, "https://a.org/", "a.org", headers='{"X-Row": "r"}', is_at_origin=False)
    assert headers_of(led, own) == own
    assert headers_of(replace(led, url="http://a.org/"), own) == {}
    assert headers_of(replace(led, is_at_origin=True), own) == {"X-Key": "k", "X-Row": "r"}
    assert headers_of(replace(led, robots_of="https://a.org"), own) == {}


def test_servers_have_proxies_and_passwords_of_their_own() -> None:
    with serving(HeaderHandler) as port:
        settings = {
            f"{user}.example.org": ServerSettings(
                PARAMETERS.model_copy(update={"proxy": f"http://{user}:p%40w@127.0.0.1:{port}"})
            )
            for user in ("a", "b")
        }
        engine = Transfers(PARAMETERS, [], 16, lambda ip: ip == "127.0.0.1", settings_of=settings.get)
        for user in ("a", "b", "a"):
            body = fetch(engine, f"{user}.example.org", "/x").body
            _, path, headers = json.loads(body)
            basic = base64.b64encode(f"{user}:p@w".encode()).decode()
            assert path == f"http://{user}.example.org/x"
            assert [value for name, value in headers if name == "Proxy-Authorization"] == [f"Basic {basic}"]
        engine.close()


def test_servers_have_tls_options_and_time_outs_of_their_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("trusting.example.org", "careless.example.org", "strict.example.org").configure_cert(context)
    changes: dict[str, dict[str, object]] = {
        "trusting": {"ca_bundle": str(tmp_path / "ca.pem")},
        "careless": {"verify_tls": False},
        "strict": {},
    }
    with serving(Handler, context) as port:
        common = PARAMETERS.model_copy(update={"connect_to": (f"::127.0.0.1:{port}",)})
        settings = {f"{name}.example.org": ServerSettings(common.model_copy(update=it)) for name, it in changes.items()}
        engine = Transfers(common, [], 16, lambda ip: ip == "127.0.0.1", settings_of=settings.get)
        codes = []
        for name in ("careless", "trusting", "strict", "careless", "strict"):
            host = f"{name}.example.org"
            engine.start(Task(0, 0, f"https://{host}/10", host))
            codes.append(collect(engine, 1)[0].curl_code)
        engine.close()
    assert codes == [0, 0, pycurl.E_PEER_FAILED_VERIFICATION, 0, pycurl.E_PEER_FAILED_VERIFICATION]


class TlsHandler(Handler):
    """``resumed`` tells of each connection whether its TLS session is an earlier one's. It serves one request."""

    resumed: ClassVar[list[bool | None]] = []

    def get(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        self.resumed.append(self.connection.session_reused)
        super().get()
        self.close_connection = True


def test_a_new_connection_resumes_the_tls_session_of_an_earlier_one(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    TlsHandler.resumed.clear()
    engine = new_transfers(ca_bundle=str(tmp_path / "ca.pem"))
    with serving(TlsHandler, context) as port:
        address = f"127.0.0.1:{port}"
        for _ in range(3):
            engine.start(Task(0, 0, f"https://{address}/10", address))
            (answer,) = collect(engine, 1)
            assert (answer.error, answer.status) == ("", 200)
        engine.close()
    assert TlsHandler.resumed == [False, True, True]


def test_dots_in_a_path_are_sent_as_they_are(transfers: Transfers, address: str) -> None:
    parsed = parse_url(f"http://{address}/a/../../b/./%zz/7#part")
    assert isinstance(parsed, Parsed)
    transfers.start(Task(0, 0, parsed.url, parsed.server))
    (answer,) = collect(transfers, 1)
    assert (answer.status, answer.content_type) == (200, "/a/../../b/./%zz/7")


def test_a_kept_connection_that_the_server_closes_is_replaced(transfers: Transfers, address: str) -> None:
    for _ in range(5):
        answer = fetch(transfers, address, "/close/10")
        assert (answer.curl_code, answer.status, len(answer.body)) == (0, 200, 10)
        transfers.poll(0.05)  # the end of the connection comes in while nobody uses it
    assert transfers.connections.count(address) <= 1


def test_a_sample_waits_less_for_a_silent_server_and_the_next_request_on_its_handle_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ddmpi.io.http.easy_handle.IMPATIENT_S", 1.0)
    transfers = new_transfers(stall_timeout_s=20, total_timeout_s=5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        task = Task(0, 0, f"http://{address}/", address)
        transfers.start(task, impatient=True)
        (sample,) = collect(transfers, 1)
        transfers.start(task)
        (patient,) = collect(transfers, 1)
    transfers.close()
    assert "Operation too slow" in sample.error, "the stall time-out"
    assert "timed out" in patient.error, "the total one"


def test_servers_that_say_nothing_are_waited_for_until_the_stall_timeout_however_many_are_asked() -> None:
    transfers = new_transfers(connect_timeout_s=20, total_timeout_s=10)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for row in range(3):
            transfers.start(Task(0, row, f"http://{address}/", address))
        errors = [answer.error for answer in collect(transfers, 3)]
    transfers.close()
    assert ["Operation too slow" in error for error in errors] == [True] * 3, errors


@pytest.mark.parametrize("size_bytes", [0, 1, PIECES_BYTES - 1, PIECES_BYTES, PIECES_BYTES + 1, 3_000_000])
def test_a_body_of_any_size_is_whole(transfers: Transfers, address: str, size_bytes: int) -> None:
    for _ in range(2):  # on the same handle
        assert fetch(transfers, address, f"/{size_bytes}").body == body_of(size_bytes)


def test_the_last_request_on_a_connection_closes_it_and_no_other(transfers: Transfers, address: str) -> None:
    transfers.start(Task(0, 0, f"http://{address}/10", address), last_on_connection=True)
    collect(transfers, 1)
    assert transfers.connections.count(address) == 0
    fetch(transfers, address, "/10")
    fetch(transfers, address, "/10")
    assert transfers.connections.count(address) == 1


def test_idle_connections_to_the_servers_of_a_group_are_closed_beyond_those_it_may_keep(address: str) -> None:
    names = {"a.test", "b.test", "c.test"}
    engine = new_transfers(connect_to=[f"::{address}"])
    try:
        for name in names:
            assert fetch(engine, name, "/10").status == 200
        (closed,) = engine.keep_idle(names, 2, about_to_use="d.test")
        assert [engine.connections.count(name) for name in (closed, *names)].count(0) == 2
        kept, other = names - {closed}
        assert engine.keep_idle(names, 1, about_to_use=kept) == set()
        assert engine.keep_idle(names, 0, about_to_use=kept) == {closed, other}
        assert engine.connections.count(kept) == 1
        for name in (kept, closed, other):
            assert fetch(engine, name, "/10").status == 200
        assert [engine.connections.count(name) for name in names] == [1, 1, 1]
    finally:
        engine.close()


def test_no_request_waits_for_the_body_of_another(transfers: Transfers, address: str) -> None:
    """Not even while it is open whether the server speaks HTTP/2."""
    for row, size_bytes in enumerate((BODY_BYTES, 10, 10, 10)):
        transfers.start(Task(0, row, f"http://{address}/{size_bytes}", address))
    while transfers.in_flight > 1:
        transfers.restrain(lambda arrivals: [arrival.announced_bytes < BODY_BYTES for arrival in arrivals])
        assert {answer.curl_code for answer in transfers.poll(0.1)} <= {0}
    transfers.restrain(only_the_first)
    (answer,) = collect(transfers, 1)
    assert len(answer.body) == BODY_BYTES


def only_the_first(arrivals: Sequence[Arrival]) -> list[bool]:
    return [position == 0 for position in range(len(arrivals))]


def await_first_bytes(transfers: Transfers) -> None:
    """Until a part of each body in flight has come in, and none has come in whole."""
    beginning = True

    def look(arrivals: Sequence[Arrival]) -> list[bool]:
        nonlocal beginning
        beginning = any(arrival.received_bytes == 0 for arrival in arrivals)
        return [arrival.received_bytes == 0 for arrival in arrivals]

    while beginning:
        transfers.restrain(look)
        assert transfers.poll(0.001) == []


def test_bodies_stand_still_and_go_on(address: str) -> None:
    """For longer than the stall time-out: standing still is our doing, not the server's."""
    stall_s = 3
    transfers = new_transfers(stall_timeout_s=stall_s)
    for row in range(4):
        transfers.start(Task(0, row, f"http://{address}/{BODY_BYTES}", address))
    await_first_bytes(transfers)
    stood_at = time.monotonic()
    while time.monotonic() - stood_at < stall_s + 0.5:
        transfers.restrain(lambda arrivals: [False] * len(arrivals))
        assert transfers.poll(0.1) == []
    for row in range(4):
        transfers.restrain(only_the_first)
        (answer,) = collect(transfers, 1)
        assert (answer.task.row, answer.curl_code, len(answer.body)) == (row, 0, BODY_BYTES)
    transfers.close()


def test_a_body_that_stands_still_is_no_idle_connection(transfers: Transfers, address: str) -> None:
    transfers.start(Task(0, 0, f"http://{address}/{BODY_BYTES}", address))
    await_first_bytes(transfers)
    transfers.restrain(lambda _: [False])
    assert transfers.keep_idle({address}, 0, about_to_use="d.test") == set()
    transfers.restrain(lambda _: [True])
    (answer,) = collect(transfers, 1)
    assert (answer.curl_code, len(answer.body)) == (0, BODY_BYTES)


def test_a_handle_that_stood_still_when_it_was_aborted_reads_the_next_body(transfers: Transfers, address: str) -> None:
    transfers.start(Task(0, 7, f"http://{address}/{BODY_BYTES}", address))
    await_first_bytes(transfers)
    transfers.restrain(lambda _: [False])
    assert transfers.in_flight == 1
    transfers.abort()
    assert transfers.in_flight == 0
    assert len(fetch(transfers, address, "/1000").body) == 1000


class ConditionHandler(QuietHandler):
    """304 where the ETag is the path; what was asked with is the header ``Content-Type`` otherwise."""

    def get(self) -> None:
        asked = [self.headers.get(name, "-") for name in ("If-None-Match", "If-Modified-Since")]
        if asked[0] == f'"{self.path}"':
            self.send_response(304)
            self.send_header("ETag", asked[0])
            self.send_header("Content-Encoding", "gzip")
            self.send_header("X-Robots-Tag", "noai")
            self.end_headers()
        else:
            self.answer(200, b"a file", Content_Type=" ".join(asked))


def test_conditions_are_sent_with_the_url_that_they_are_for_and_no_other() -> None:
    transfers = Transfers(
        PARAMETERS, ["User-Agent: ddmpi-tests"], 16, lambda _: True,
        lambda head, _: "noai is said" if b"noai" in head else "",
        hear=lambda head: "noai" if b"noai" in head else "",
    )  # fmt: skip
    with serving(ConditionHandler) as port:
        server = f"127.0.0.1:{port}"
        url = f"http://{server}/1"

        def ask(task: Task) -> Answer:
            transfers.start(task)
            return collect(transfers, 1)[0]

        same = ask(Task(0, 0, url, server, validators=Validators(url, '"/1"', "Thu")))
        assert (same.curl_code, same.status, same.body, same.etag) == (0, 304, b"", '"/1"')
        assert (same.refused, same.usage_signals) == ("noai is said", "noai"), "its head is heard all the same"
        for task, told in [
            (Task(0, 0, url, server, validators=Validators(url, '"other"', "Thu")), '"other" Thu'),
            (Task(0, 0, url, server, validators=Validators(url, "", "Thu")), "- Thu"),
            (Task(0, 0, url, server), "- -"),
            (Task(0, 0, f"{url}?", server, validators=Validators(url, '"/1"', "Thu")), "- -"),
            (Task(0, 0, url, server, robots_of=url, validators=Validators(url, '"/1"', "Thu")), "- -"),
        ]:
            found = ask(task)
            assert (found.status, found.content_type, found.refused) == (200, told, "")
        assert len(transfers._free[transfers._common_settings]) == 1, "one handle had them all"
    transfers.close()
