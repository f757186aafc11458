"""X-Robots-Tag: which answers may be kept, and that the others are cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.config.config import parse
from ddmpi.core.rules.x_robots_tag import TagRule
from ddmpi.errors import ConfigError
from tests.fleet.log import NOTE_CUT, EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import assert_every_row_once, make_job, rows_of

HONORED = TagRule(frozenset({"noai", "noindex"}), "ddmpi")


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
    objection = HONORED(b"HTTP/1.1 200 OK\r\nX-Robots-Tag: " + rest)
    assert objection in {"", "X-Robots-Tag: noai", "X-Robots-Tag: noindex"}


@pytest.mark.parametrize("value", [["no ai"], [""], ["noai", "NOAI"], ["none"], "noai"])
def test_directives_are_checked(value: object) -> None:
    keys = {"path_to_input": "a", "path_to_output_folder": "b"}
    with pytest.raises(ConfigError, match="respect_x_robots_tag"):
        parse({**keys, "downloader_parameters": {"respect_x_robots_tag": value}}, "test")


def test_a_file_that_may_not_be_kept_is_an_error_and_its_body_is_not_waited_for(tmp_path: Path) -> None:
    free = ServerSpec("127.60.0.1", x_robots_tag="otherbot: noai\nnofollow")
    forbidden = ServerSpec("127.60.0.2", x_robots_tag="ddmpi-tests: noai")
    slow = ServerSpec("127.60.0.3", x_robots_tag="noimageai", body_bytes_per_s=100, row_weight=0.1)
    with running_fleet(tmp_path / "fleet", [free, forbidden, slow], 60) as fleet:
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            downloader_parameters={"respect_x_robots_tag": ["noai", "NoImageAI"]},
        )
        code, printed = job.run(1)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, 60)
    errors = rows_of(job.output / "errors", ["error_kind", "error_code", "error_msg", "final_url"]).to_pylist()
    assert {(row["error_kind"], row["error_code"]) for row in errors} == {("robots", -2)}
    by_server = {name: {row["error_msg"] for row in errors if name in str(row["final_url"])} for name in ("0.2", "0.3")}
    assert by_server == {"0.2": {"X-Robots-Tag: noai"}, "0.3": {"X-Robots-Tag: noimageai"}}
    urls = [str(url) for url in rows_of(job.output / "images", ["final_url"]).column("final_url").to_pylist()]
    assert urls
    assert all(free.address in url for url in urls)
    answers = [event for event in log if event.kind is EventKind.ANSWER and event.server == slow.name(fleet.port)]
    assert answers
    assert {event.note for event in answers} == {NOTE_CUT}
