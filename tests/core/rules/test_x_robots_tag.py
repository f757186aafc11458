"""X-Robots-Tag: which answers may be kept."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.config.config import parse
from ddmpi.core.rules.x_robots_tag import objection
from ddmpi.errors import ConfigError

HONORED = partial(objection, directives=frozenset({"noai", "noindex"}), crawler="ddmpi")


def head(*values: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    fields = "".join(f"X-Robots-Tag: {value}\r\n" for value in values)
    return f"{status}\r\nContent-Type: image/png\r\n{fields}\r\n".encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(head(), "", id="no such header"),
        pytest.param(head("noai"), "noai", id="for everybody"),
        pytest.param(head("NoAI , nofollow"), "noai", id="any case, in a list"),
        pytest.param(head("noimageai"), "", id="a directive that is not honored"),
        pytest.param(head("nofollow", "noindex"), "noindex", id="the second header"),
        pytest.param(head("none"), "noindex", id="none is noindex and nofollow"),
        pytest.param(head("all"), "", id="all"),
        pytest.param(head("ddmpi: noai"), "noai", id="for us"),
        pytest.param(head("otherbot: noai"), "", id="for somebody else"),
        pytest.param(head("otherbot: nofollow, noai"), "", id="a name counts for the rest of its line"),
        pytest.param(head("otherbot: noai, DDMPI: noai"), "noai", id="two names on one line"),
        pytest.param(head("otherbot: noai", "noai"), "noai", id="a name does not count for the next line"),
        pytest.param(head("unavailable_after: 25 Jun 2030 15:00:00 PST, noai"), "noai", id="a value with colons"),
        pytest.param(head("max-snippet: 20, noindex"), "noindex", id="a value"),
        pytest.param(head("noai", status="HTTP/2 200"), "noai", id="HTTP/2"),
        pytest.param(head("noai", status="HTTP/1.1 302 Found"), "", id="a redirect carries no file"),
        pytest.param(head("noai", status="HTTP/1.1 404 Not Found"), "", id="nor does a 404"),
        pytest.param(b"HTTP/1.1 200 OK\nx-robots-tag:noai\n\n", "noai", id="bare line feeds"),
        pytest.param(b"", "", id="nothing"),
    ],
)
def test_what_a_head_forbids(answer: bytes, expected: str) -> None:
    assert HONORED(answer) == (f"X-Robots-Tag: {expected}" if expected else "")


@given(st.binary(max_size=80))
def test_any_head_is_judged(rest: bytes) -> None:
    told = HONORED(b"HTTP/1.1 200 OK\r\nX-Robots-Tag: " + rest)
    assert told in {"", "X-Robots-Tag: noai", "X-Robots-Tag: noindex"}


@pytest.mark.parametrize("value", [["no ai"], [""], ["noai", "NOAI"], ["none"], "noai"])
def test_directives_are_checked(value: object) -> None:
    keys = {"path_to_input": "a", "path_to_output_folder": "b"}
    with pytest.raises(ConfigError, match="respect_x_robots_tag"):
        parse({**keys, "downloader_parameters": {"respect_x_robots_tag": value}}, "test")
