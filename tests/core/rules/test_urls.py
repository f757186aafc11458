"""URLs as they turn up in tables, and what becomes of them."""

from __future__ import annotations

import re

import pycurl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.rules.urls import MAX_URL_BYTES, Parsed, Rejected, parse_odd_url, parse_url

ACCEPTED = {
    "http://a.com": ("a.com", "http://a.com/"),
    "http://a.com/x/y.jpg?size=1&b=%20": ("a.com", "http://a.com/x/y.jpg?size=1&b=%20"),
    "HTTP://IMG.Example.ORG/Path": ("img.example.org", "http://img.example.org/Path"),
    "http://a.com./x": ("a.com", "http://a.com/x"),
    "http://a.com:80/x": ("a.com", "http://a.com/x"),
    "https://a.com:443/x": ("a.com", "https://a.com/x"),
    "http://a.com:443/x": ("a.com:443", "http://a.com:443/x"),
    "https://a.com:80/x": ("a.com:80", "https://a.com:80/x"),
    "http://a.com:/x": ("a.com", "http://a.com/x"),
    "http://a.com:8080/x": ("a.com:8080", "http://a.com:8080/x"),
    "http://a.com:0008080/x": ("a.com:8080", "http://a.com:8080/x"),
    "http://a.com:65535": ("a.com:65535", "http://a.com:65535/"),
    "http://localhost:9/x": ("localhost:9", "http://localhost:9/x"),
    "http://under_score.example.org/": ("under_score.example.org", "http://under_score.example.org/"),
    "http://a.com?x=1": ("a.com", "http://a.com/?x=1"),
    "http://a.com/x#part": ("a.com", "http://a.com/x"),
    "http://a.com#part": ("a.com", "http://a.com/"),
    "  http://a.com/x\n": ("a.com", "http://a.com/x"),
    "\u00a0http://a.com/x\u00a0": ("a.com", "http://a.com/x"),
    "http://a.com/../b/./c": ("a.com", "http://a.com/../b/./c"),
    "http://a.com/%zz%": ("a.com", "http://a.com/%zz%"),
    "http://a.com/ü?q=日": ("a.com", "http://a.com/%C3%BC?q=%E6%97%A5"),
    "http://bücher.example/x": ("xn--bcher-kva.example", "http://xn--bcher-kva.example/x"),
    "http://b%C3%BCcher.example/": ("xn--bcher-kva.example", "http://xn--bcher-kva.example/"),
    "http://BÜCHER.example/": ("xn--bcher-kva.example", "http://xn--bcher-kva.example/"),
    "http://straße.example/": ("xn--strae-oqa.example", "http://xn--strae-oqa.example/"),
    "http://日本。jp/": ("xn--wgv71a.jp", "http://xn--wgv71a.jp/"),
    "http://日本google.jp/": ("xn--google-ol2mm8f.jp", "http://xn--google-ol2mm8f.jp/"),
    "http://a%2Ecom/": ("a.com", "http://a.com/"),
    "http://127.1/": ("127.0.0.1", "http://127.0.0.1/"),
    "http://0x7f000001/": ("127.0.0.1", "http://127.0.0.1/"),
    "http://2130706433:8080/": ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
    "http://0177.0.0.1/": ("127.0.0.1", "http://127.0.0.1/"),
    "http://%31%32%37.1/": ("127.0.0.1", "http://127.0.0.1/"),
    "http://\uff11\uff12\uff17.\uff11/": ("127.0.0.1", "http://127.0.0.1/"),
    "http://[::ffff:127.0.0.1]/": ("127.0.0.1", "http://127.0.0.1/"),
    "http://[::1]:80/": ("[::1]", "http://[::1]/"),
    "http://[2001:DB8:0::1]:8080/x": ("[2001:db8::1]:8080", "http://[2001:db8::1]:8080/x"),
}

REJECTED = {
    "": "empty",
    " \t ": "empty",
    "http://\ud800.com/": "bad_encoding",
    "http://a.com/\udcff": "bad_encoding",
    "host/x": "bad_scheme",
    "//host/x": "bad_scheme",
    "file:///etc/passwd": "bad_scheme",
    "gopher://a.com/": "bad_scheme",
    "ftp://a.com/": "bad_scheme",
    "dict://a.com/": "bad_scheme",
    "smtp://a.com/": "bad_scheme",
    "scp://a.com/": "bad_scheme",
    "tftp://a.com/": "bad_scheme",
    "data:image/png;base64,AAAA": "bad_scheme",
    "javascript:alert(1)": "bad_scheme",
    "http:a.com": "malformed",
    "https:/h/": "malformed",
    "http:///x": "bad_host",
    "http://": "bad_host",
    "http://?x": "bad_host",
    "http://:80/": "bad_host",
    "http://./": "bad_host",
    "http://a..com/": "bad_host",
    "http://a.com../": "bad_host",
    f"http://{'a' * 64}.com/": "bad_host",
    f"http://{'a.' * 127}com/": "bad_host",
    f"http://{'ü' * 64}.com/": "bad_host",
    "http://p\u0430ypal.com/": "bad_host",  # the second letter is Cyrillic
    "http://\u202ea.com/": "bad_host",
    "http://\u2488ü.com/": "bad_host",
    "http://a%FF.com/": "bad_host",
    "http://a%2Fb.com/": "bad_host",
    "http://a%00.com/": "bad_host",
    "http://a~b.com/": "bad_host",
    "http://a,b.com/": "bad_host",
    "http://1.2.3.256/": "bad_host",
    "http://1.2.3.4.5/": "bad_host",
    "http://4294967296/": "bad_host",
    "http://example.0x/": "bad_host",
    "http://[fe80::1]/": "bad_host",
    "http://[::1%25lo]/": "bad_host",
    "http://[::1/": "bad_host",
    "http://[::1]x/": "bad_host",
    "http://[v1.x]/": "bad_host",
    "http://__many__/": "bad_host",
    "http://__INVALID__/": "bad_host",
    "http://a.com:0/": "bad_port",
    "http://a.com:99999/": "bad_port",
    f"http://a.com:{'9' * 5000}/": "bad_port",
    "http://a.com:80abc/": "bad_port",
    "http://a.com:\uff18\uff10/": "bad_port",
    "http://a.com:80:80/": "bad_port",
    "http://[::1]:x/": "bad_port",
    "http://u:p@a.com/": "credentials",
    "http://u@a.com/": "credentials",
    "http://@a.com/": "credentials",
    "http://a.com/a\rb": "control_character",
    "http://a.com/a\nb": "control_character",
    "http://a.com/a\tb": "control_character",
    "http://a\t.com/": "control_character",
    "http://a.com/\x00": "control_character",
    "http://a.com/\x7f": "control_character",
    "http://a.com/a b": "malformed",
    "http://a .com/": "malformed",
    "http://a.com\\@b.com/": "malformed",
    "http://a.com/\\b": "malformed",
    "http://a.com/" + "x" * MAX_URL_BYTES: "too_long",
    "http://a.com/" + "ü" * (MAX_URL_BYTES // 6): "too_long",
    "http://" + "x" * 9_000_000: "too_long",
}


@pytest.mark.parametrize(("url", "expected"), ACCEPTED.items(), ids=[ascii(url) for url in ACCEPTED])
def test_accepted(url: str, expected: tuple[str, str]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(("url", "word"), REJECTED.items(), ids=[ascii(url)[:60] for url in REJECTED])
def test_rejected(url: str, word: str) -> None:
    answer = parse_url(url)
    assert isinstance(answer, Rejected)
    assert answer.reason.partition(":")[0] == word
    assert len(answer.reason) < 200


def test_null() -> None:
    assert parse_url(None) == Rejected("null_url")


def test_a_reason_never_tells_the_password() -> None:
    answer = parse_url("http://user:hunter2@a.com:99999/")
    assert answer == Rejected("credentials")


def test_the_longest_url_is_accepted() -> None:
    url = "http://a.com/" + "x" * (MAX_URL_BYTES - len("http://a.com/"))
    assert parse_url(url) == Parsed("a.com", url)
    assert parse_url(url + "#" + "y" * MAX_URL_BYTES) == Parsed("a.com", url)


NAMES = ["a.com", "A.com", "a.com.", "a-.b-c.org", "-a.com", "x.y1", "1.x", "ü.de", "a_b.c", "a.com_", "a", "xn--a.b"]
LENGTHS = [f"{'a' * 60}.com", f"{'a' * 70}.com", f"{'a' * 61}.a:1"]
NUMBERS = ["1.2.3.4", "1.2.3.04", "127.1", "[::1]", "256.1.1.1", "a.1", "0.0.0.9", "a.0x1"]
hosts = st.sampled_from([*NAMES, *LENGTHS, *NUMBERS])
ports = st.sampled_from(["", ":", ":80", ":443", ":8080", ":0", ":080", ":65536", ":x", "@b.com"])
schemes = st.sampled_from(["http://", "https://", "HTTP://", "http:/", "http:///", "ftp://", "", " http://"])
rests = st.text(st.sampled_from("/?#.a1:@ü\u00a0\x85 \\\t\x00%\u2028\ud800"), max_size=6)
url_like = st.builds("{}{}{}{}".format, schemes, hosts, ports, rests) | st.text(max_size=30)


@settings(derandomize=True)
@given(url_like)
def test_plain_urls_get_the_answer_of_the_careful_way(url: str) -> None:
    assert parse_url(url) == parse_odd_url(url.strip())


@settings(derandomize=True)
@given(url_like)
def test_the_parser_that_connects_reads_the_same_host_and_port(url: str) -> None:
    parsed = parse_url(url)
    if isinstance(parsed, Parsed):
        assert parsed.url.isascii()
        parts = pycurl.CurlUrl(parsed.url)
        assert parts.host is not None
        assert parsed.server == parts.host + (f":{parts.port}" if parts.port else "")


@settings(derandomize=True)
@given(url_like)
def test_parsing_what_was_parsed_changes_nothing(url: str) -> None:
    parsed = parse_url(url)
    if isinstance(parsed, Parsed):
        assert parse_url(parsed.url) == parsed


CONTACTED = "127.0.0.1"
"""The address that libcurl is told for the server's own name; every other name has the next one."""
OTHER = "127.0.0.2"


def contacted(parsed: Parsed) -> tuple[str, int]:
    """Address and port that libcurl wants to open for the URL. No name is looked up and nothing is connected."""
    opened: list[tuple[str, int]] = []

    def record(_purpose: int, address: tuple[int, int, int, tuple[str, int]]) -> int:
        opened.append(address[3][:2])
        return pycurl.SOCKET_BAD

    host, port = host_and_port(parsed)
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, parsed.url.encode())
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.NOSIGNAL, 1)
    if not is_address(host):
        others = [f"*:{other}:{OTHER}" for other in {port, 80, 443}]
        curl.setopt(pycurl.RESOLVE, [f"{host}:{port}:{CONTACTED}", *others])
    curl.setopt(pycurl.OPENSOCKETFUNCTION, record)
    with pytest.raises(pycurl.error):
        curl.perform()
    curl.close()
    assert len(opened) == 1
    return opened[0]


def is_address(host: str) -> bool:
    return re.fullmatch(r"[0-9.]+", host) is not None


def host_and_port(parsed: Parsed) -> tuple[str, int]:
    """Of the server, without the brackets of an IPv6 address."""
    default = 443 if parsed.url.startswith("https:") else 80
    match = re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d+))?", parsed.server)
    assert match is not None
    return match[1].strip("[]"), int(match[2] or default)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(url_like)
def test_libcurl_contacts_the_server_that_is_assigned(url: str) -> None:
    assert_contacted(url)


@pytest.mark.parametrize("url", ACCEPTED, ids=ascii)
def test_libcurl_contacts_the_server_of_every_accepted_case(url: str) -> None:
    assert_contacted(url)


def assert_contacted(url: str) -> None:
    parsed = parse_url(url)
    if isinstance(parsed, Parsed):
        host, port = host_and_port(parsed)
        if ":" in host:  # libcurl asks for no such socket on a machine without IPv6
            assert pycurl.CurlUrl(parsed.url).host == f"[{host}]"
        else:
            assert contacted(parsed) == (host if is_address(host) else CONTACTED, port)
