"""Which sockets libcurl asks for, and which of them it gets: private addresses in every disguise. Nothing is contacted.

A server list is harmless until a name in it resolves to the cluster's own network. So what is recorded here is what the
last step before a packet sees: the address that libcurl wants to connect to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pycurl
import pytest

from ddmpi.config.sections import DownloaderParameters
from ddmpi.core.records import Answer, ErrorKind, Task
from ddmpi.core.rules.addresses import address_rule
from ddmpi.core.rules.urls import Parsed, parse_url
from ddmpi.core.rules.verdict import classify
from ddmpi.io.http.transfers import Transfers

CLOSED = "127.40.255.254"
"""On port 9 of this address nothing listens."""
TIMEOUT_S = 10.0
PARAMETERS = DownloaderParameters(
    connect_timeout_s=2,
    stall_timeout_s=2,
    total_timeout_s=5,
    max_file_bytes=1000,
    proxy="",
)


class Guarded:
    """Transfers that record what they are asked to open."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self._rule = address_rule([])
        self.transfers = Transfers(PARAMETERS, ["User-Agent: ddmpi-tests"], 4, self._may_connect)

    def _may_connect(self, address: str) -> bool:
        allowed = self._rule(address) or address == CLOSED
        self.asked.append((address, allowed))
        # Whatever the rule says: in a test nothing but loopback may be contacted.
        return allowed and ip_address(address.partition("%")[0]).is_loopback

    def resolving(self, *addresses: str) -> None:
        """The next request's name resolves to these, without a look-up."""
        handle = self.transfers._free_handle(self.transfers._common_settings)
        handle.curl.setopt(pycurl.RESOLVE, ["-name.example:9", f"name.example:9:{','.join(addresses)}"])
        self.transfers._recycle(handle)

    def answer(self, url: str) -> Answer:
        parsed = parse_url(url)
        assert isinstance(parsed, Parsed), parsed
        self.transfers.start(Task(0, 0, parsed.url, parsed.server))
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            for answer in self.transfers.poll(0.5):
                return answer
        raise AssertionError(f"{url}: no answer")


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.transfers.close()


def kind_of(answer: Answer) -> ErrorKind:
    failure = classify(answer, "any", 5).failure
    assert failure is not None
    return failure.kind


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://%31%32%37.0.0.1/",
        "http://127.0.0.1./",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://127\u30020\u30020\u30021/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b::10.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:a00:1::1]/",
        "http://[fd00::1]/",
        "http://[fec0::1]/",
        "http://0/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://10.0.0.1/",
        "http://167772161/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
        "http://100.64.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
    ],
    ids=ascii,
)
def test_no_spelling_of_a_private_address_gets_a_socket(guarded: Guarded, url: str) -> None:
    answer = guarded.answer(url)
    assert kind_of(answer) is ErrorKind.BLOCKED_ADDRESS
    assert not any(allowed for _, allowed in guarded.asked)
    assert answer.ip
    assert answer.total_s < 1


@pytest.mark.parametrize(
    "url", ["http://[fe80::1]/", "http://[fe80::1%25lo]/", "http://[::1%25lo]/", "http://[::%31]/"]
)
def test_link_local_addresses_and_zones_are_refused_before(url: str) -> None:
    assert not isinstance(parse_url(url), Parsed)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "127.0.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"])
def test_a_name_that_resolves_to_a_private_address_gets_no_socket(guarded: Guarded, address: str) -> None:
    guarded.resolving(f"[{address}]" if ":" in address else address)
    answer = guarded.answer("http://name.example:9/")
    assert kind_of(answer) is ErrorKind.BLOCKED_ADDRESS
    assert [allowed for _, allowed in guarded.asked] == [False]


def test_each_connection_is_judged_anew(guarded: Guarded) -> None:
    """A name that is public at the first look-up and private at the second one."""
    guarded.resolving(CLOSED)
    assert kind_of(guarded.answer("http://name.example:9/")) is ErrorKind.CONNECT
    guarded.resolving("10.0.0.1")
    assert kind_of(guarded.answer("http://name.example:9/")) is ErrorKind.BLOCKED_ADDRESS
    assert guarded.asked == [(CLOSED, True), ("10.0.0.1", False)]


@pytest.mark.parametrize("addresses", [("10.0.0.1", CLOSED), (CLOSED, "10.0.0.1")])
def test_of_several_addresses_the_public_ones_decide(guarded: Guarded, addresses: tuple[str, str]) -> None:
    guarded.resolving(*addresses)
    answer = guarded.answer("http://name.example:9/")
    assert kind_of(answer) is ErrorKind.CONNECT
    assert sorted(guarded.asked) == sorted([("10.0.0.1", False), (CLOSED, True)])


def test_a_name_with_nothing_but_an_unreachable_ipv6_address_fails_at_once(guarded: Guarded) -> None:
    """On a machine without IPv6 libcurl does not even ask for a socket."""
    guarded._rule = address_rule([ip_network("::1/128")])
    guarded.resolving("[::1]")
    answer = guarded.answer("http://name.example:9/")
    assert kind_of(answer) is ErrorKind.CONNECT
    assert guarded.asked in [[], [("::1", True)]]
    assert answer.total_s < PARAMETERS.connect_timeout_s


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "dict", "smb", "telnet", "ldap", "rtsp", "imap", "scp"])
def test_libcurl_itself_takes_no_other_scheme(guarded: Guarded, scheme: str) -> None:
    """The second line: the URL rules refuse these before."""
    assert not isinstance(parse_url(f"{scheme}://127.0.0.1/etc/passwd"), Parsed)
    guarded.transfers.start(Task(0, 0, f"{scheme}://127.0.0.1/etc/passwd", "127.0.0.1"))
    answers: list[Answer] = []
    while not answers:
        answers = guarded.transfers.poll(1.0)
    assert answers[0].curl_code == pycurl.E_UNSUPPORTED_PROTOCOL
    assert guarded.asked == []
    assert answers[0].body == b""
