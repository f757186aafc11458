"""What servers say of their files' use: how it is told, and what is obeyed of it."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.rules.usage_signals import (
    MOST_WORDS,
    Respect,
    described,
    forbidden,
    heard,
    is_choice,
    objection,
    preferences,
    respect_of,
)

DEFAULT = respect_of(("x-robots-tag",))
USAGE = respect_of(("content-usage",))


def head(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, "Content-Type: image/png", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], ""),
        (["X-Robots-Tag: noai"], "x-robots-tag: noai"),
        (["X-Robots-Tag: NoIndex, noai, noindex", "x-robots-tag: nofollow"], "x-robots-tag: noindex, noai, nofollow"),
        (["X-Robots-Tag: all"], ""),
        (["X-Robots-Tag: none"], "x-robots-tag: noindex, nofollow"),
        (["X-Robots-Tag: other: noai, noindex"], ""),
        (["X-Robots-Tag: ddmpi: noai"], "x-robots-tag: noai"),
        (["X-Robots-Tag: unavailable_after: 25 Jun 2030 15:00:00 PST"], "x-robots-tag: unavailable_after"),
        (["X-Robots-Tag: \x01\u00e9 ;x"], ""),
        (["Content-Usage: train-ai=n"], "content-usage: train-ai=n"),
        (["content-usage: train-ai=y, search=n;why=\"x\""], "content-usage: train-ai=y, search=n"),
        (["Content-Usage: train-ai=n", "Content-Usage: search=y"], "content-usage: train-ai=n, search=y"),
        (["Content-Usage: train-ai=n, train-ai=y"], "content-usage: train-ai=y"),
        (["Content-Usage: train-ai, search=\"n\", other=1"], ""),
        (["Content-Usage: Train-AI=n"], ""),
        (["Content-Usage: train-ai=n,"], ""),
        (["X-Robots-Tag: noai", "Content-Usage: train-ai=n"], "x-robots-tag: noai; content-usage: train-ai=n"),
    ],
)  # fmt: skip
def test_what_is_heard(fields: list[str], expected: str) -> None:
    assert heard(head(*fields), "ddmpi") == expected


def test_only_an_answer_with_a_file_says_how_it_may_be_used() -> None:
    fields = ["X-Robots-Tag: noai", "Content-Usage: train-ai=n"]
    everything = respect_of(("x-robots-tag", "content-usage"))
    for status in ("HTTP/1.1 404 Not Found", "HTTP/2 302", "HTTP/1.1 206 Partial Content"):
        assert heard(head(*fields, status=status), "ddmpi") == ""
        assert objection(head(*fields, status=status), everything, "ddmpi") == ""
    assert heard(head(*fields, status="HTTP/2 200"), "ddmpi") != ""


@pytest.mark.parametrize(
    ("respect", "field", "expected"),
    [
        (DEFAULT, "X-Robots-Tag: noai", "X-Robots-Tag: noai"),
        (DEFAULT, "X-Robots-Tag: noimageai", "X-Robots-Tag: noimageai"),
        (DEFAULT, "X-Robots-Tag: noindex", ""),
        (DEFAULT, "Content-Usage: train-ai=n", ""),
        (USAGE, "Content-Usage: train-ai=n", "Content-Usage: train-ai=n"),
        (USAGE, "Content-Usage: train-ai=y", ""),
        (USAGE, "Content-Usage: search=n", ""),
        (USAGE, "X-Robots-Tag: noai", ""),
        (respect_of(("content-usage:search",)), "Content-Usage: train-ai=n, search=n", "Content-Usage: search=n"),
        (respect_of(("x-robots-tag:noindex",)), "X-Robots-Tag: noindex", "X-Robots-Tag: noindex"),
        (respect_of(("x-robots-tag:noindex",)), "X-Robots-Tag: noai", ""),
        (respect_of(("x-robots-tag", "x-robots-tag:noindex")), "X-Robots-Tag: noai", "X-Robots-Tag: noai"),
        (respect_of(()), "X-Robots-Tag: noai", ""),
    ],
)  # fmt: skip
def test_what_is_obeyed(respect: Respect, field: str, expected: str) -> None:
    assert objection(head(field), respect, "ddmpi") == expected


def test_robots_txt_is_asked_for_where_it_counts_or_is_to_be_heard() -> None:
    assert not DEFAULT.asks_robots
    assert USAGE.asks_robots, "it may have Content-Usage rules"
    assert respect_of(("robots",)).asks_robots
    assert respect_of((), hears_robots=True).asks_robots


@given(st.binary(max_size=80))
def test_any_head_is_heard(rest: bytes) -> None:
    everything = respect_of(("x-robots-tag", "content-usage"))
    for name in (b"X-Robots-Tag: ", b"Content-Usage: "):
        answer = b"HTTP/1.1 200 OK\r\n" + name + rest
        text = heard(answer, "ddmpi")
        assert text.isprintable()
        assert len(text) <= 2 * 42 * (MOST_WORDS + 1)
        assert objection(answer, everything, "ddmpi").isprintable()
    assert isinstance(preferences(rest), tuple)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("robots", True), ("x-robots-tag", True), ("content-usage", True), ("x-robots-tag:noindex", True),
        ("content-usage:search", True), ("robots:noai", False), ("x-robots-tag:none", False), ("x-robots-tag:", False),
        ("noai", False), ("x-robots-tag:no ai", False), ("", False),
    ],
)  # fmt: skip
def test_choices(word: str, expected: bool) -> None:
    assert is_choice(word) is expected


def test_the_choice_in_one_line() -> None:
    assert described(DEFAULT) == (
        "obeyed: X-Robots-Tag noai and noimageai; heard and reported: other X-Robots-Tag, Content-Usage; robots.txt is "
        "not asked for"
    )
    assert described(respect_of(("robots", "content-usage"))) == (
        "obeyed: robots.txt, Content-Usage train-ai=n; heard and reported: X-Robots-Tag, other Content-Usage"
    )
    assert described(respect_of((), hears_robots=True)) == (
        "obeyed: none; heard and reported: X-Robots-Tag, Content-Usage, robots.txt"
    )


# ---- X-Robots-Tag

HONORED = partial(objection, respect=Respect(directives=frozenset({"noai", "noindex"})), crawler="ddmpi")


def tagged(*values: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    fields = "".join(f"X-Robots-Tag: {value}\r\n" for value in values)
    return f"{status}\r\nContent-Type: image/png\r\n{fields}\r\n".encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(tagged(), "", id="no such header"),
        pytest.param(tagged("noai"), "noai", id="for everybody"),
        pytest.param(tagged("NoAI , nofollow"), "noai", id="any case, in a list"),
        pytest.param(tagged("noimageai"), "", id="a directive that is not honored"),
        pytest.param(tagged("nofollow", "noindex"), "noindex", id="the second header"),
        pytest.param(tagged("none"), "noindex", id="none is noindex and nofollow"),
        pytest.param(tagged("all"), "", id="all"),
        pytest.param(tagged("ddmpi: noai"), "noai", id="for us"),
        pytest.param(tagged("otherbot: noai"), "", id="for somebody else"),
        pytest.param(tagged("otherbot: nofollow, noai"), "", id="a name counts for the rest of its line"),
        pytest.param(tagged("otherbot: noai, DDMPI: noai"), "noai", id="two names on one line"),
        pytest.param(tagged("otherbot: noai", "noai"), "noai", id="a name does not count for the next line"),
        pytest.param(tagged("unavailable_after: 25 Jun 2030 15:00:00 PST, noai"), "noai", id="a value with colons"),
        pytest.param(tagged("max-snippet: 20, noindex"), "noindex", id="a value"),
        pytest.param(tagged("noai", status="HTTP/2 200"), "noai", id="HTTP/2"),
        pytest.param(tagged("noai", status="HTTP/1.1 302 Found"), "", id="a redirect carries no file"),
        pytest.param(tagged("noai", status="HTTP/1.1 404 Not Found"), "", id="nor does a 404"),
        pytest.param(b"HTTP/1.1 200 OK\nx-robots-tag:noai\n\n", "noai", id="bare line feeds"),
        pytest.param(b"", "", id="nothing"),
    ],
)
def test_what_a_head_forbids(answer: bytes, expected: str) -> None:
    assert HONORED(answer) == (f"X-Robots-Tag: {expected}" if expected else "")


@given(st.binary(max_size=80))
def test_any_tag_is_judged(rest: bytes) -> None:
    told = HONORED(b"HTTP/1.1 200 OK\r\nX-Robots-Tag: " + rest)
    assert told in {"", "X-Robots-Tag: noai", "X-Robots-Tag: noindex"}


def test_all_directives_for_us_in_their_order() -> None:
    answer = tagged("noai, other: noindex, nofollow", "ddmpi: noimageai, max-snippet: 20")
    assert list(forbidden(answer, "ddmpi")) == ["noai", "noimageai", "max-snippet"]
