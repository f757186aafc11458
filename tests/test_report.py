"""The page of a run: whole, safe, small; and the lines of its table."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ddmpi import config as config_module
from ddmpi.history import MOST_POINTS
from ddmpi.io.layout import Layout
from ddmpi.io.profiles import Profile
from ddmpi.report import MOST_SERVERS, Point, Report, ServerLine, render
from ddmpi.roles.initialization import Orders, Reporting, initialize, own_output
from ddmpi.roles.reporting import server_lines
from ddmpi.roles.run_state import RunState
from ddmpi.summary import Summary

MakeState = Callable[..., RunState]

VOID = {"meta"}
HOSTILE = """</title></style></script><script>alert(1)</script><img src=x onerror="alert('2')">&amp;"""

SUMMARY = Summary(
    rows=1_000,
    successes=900,
    errors=60,
    pending=40,
    kinds={"connect": 20, "http_status": 40, "dns": 0},
    fetched_bytes=12_000_000,
    fetched_rows=500,
    requests=555,
    seconds=10.0,
    slowest=[("slow.example.org", 40.0)],
    output="/data/out",
    ending="40 rows are pending; run the same command again to go on.",
)
REPORT = Report(
    summary=SUMMARY,
    exit_code=75,
    origin="Run 3 over urls.parquet",
    places={"the files": "images", "what was measured": "my profiles.csv"},
    points=[Point(0.0, 0, 0), Point(4.0, 100, 2_000_000), Point(10.0, 500, 12_000_000)],
    bound_s=8.0,
    bound_by="slow.example.org",
    download_s=9.0,
    servers=[
        ServerLine("slow.example.org", 1, 600, 500, 60, limit_per_s=0.5, latency_s=0.25, size_bytes=30_000),
        ServerLine("archive.org", 122, 300, 300, 0, limit_per_s=0.0),
        ServerLine("__many__", 50, 100, 100, 0),
    ],
    rest=None,
)


class Page(HTMLParser):
    """Parses a page and notes what it is made of. Raises AssertionError where a tag is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if {"th", "td"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


# ---- the page


def test_the_page_is_well_formed_and_says_what_happened() -> None:
    page = Page(render(REPORT))
    assert page.tags["html"] == page.tags["table"] == 1
    assert page.tags["svg"] == 2
    for told in (
        "40 rows are pending; run the same command again", "Run 3 over urls.parquet", "/data/out", "900 90.00 %",
        "60 6.00 %", "12.0 MB", "1.2 MB/s", "50.0 rows/s", "http_status 40 66.67 % connect 20 33.33 %",
        "the download's time cannot be compared", "slow.example.org 40.0 s",
    ):  # fmt: skip
        assert told in page.text, told
    assert page.rows == [
        ["server", "rows", "successes", "errors", "pending", "limit /s", "latency", "size"],
        ["slow.example.org", "600", "500", "60", "40", "0.5", "250 ms", "30.0 kB"],
        ["archive.org (122 servers)", "300", "300", "0", "0", "none", "", ""],
        ["__many__ (50 servers)", "100", "100", "0", "0", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bound_s": None}, "ended before the download was planned"),
        ({"bound_s": 0.0}, "Nothing was left to fetch"),
        ({"summary": replace(SUMMARY, pending=0)}, "took 1.12 times as long"),
        ({"summary": replace(SUMMARY, pending=0), "download_s": 7.0}, "took less"),
        ({"summary": replace(SUMMARY, kinds={})}, "Errors by kind None."),
        ({"rest": ServerLine("", 9_000, 12_345, 12_000, 300)}, "9,000 more servers have 12,345 rows: 12,000 successes"),
    ],
)
def test_the_page_fits_the_run(change: dict[str, object], told: str) -> None:
    assert told in Page(render(replace(REPORT, **change))).text  # type: ignore[arg-type]


def test_a_run_that_fetched_nothing_has_a_page() -> None:
    nothing = Summary(0, 0, 0, 0, {}, 0, 0, 0, 0.0, [], "out", "Done: every row is final.")
    report = Report(nothing, 0, "", {}, [Point(0.0, 0, 0)], None, "", 0.0, [], None)
    assert "Done: every row is final." in Page(render(report)).text


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    text = render(REPORT)
    page = Page(text)
    loaded = {value for name, value in page.attributes if name in {"src", "srcset", "href", "data", "action"}}
    assert loaded == {"./images", "./my%20profiles.csv"}, "links into the output folder, which a click follows"
    assert "url(" not in text
    assert "@import" not in text
    policy = _policy(page)
    assert policy["default-src"] == "'none'"
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in script]
    assert [policy["script-src"]] == [f"'sha256-{digest}'" for digest in digests]


def _policy(page: Page) -> dict[str, str]:
    content = next(value for name, value in page.attributes if name == "content" and "-src" in value)
    return {name: value for name, _, value in (part.partition(" ") for part in content.split("; "))}


def test_hostile_names_stay_text() -> None:
    summary = replace(
        SUMMARY, kinds={HOSTILE: 3}, slowest=[(HOSTILE, 1.0)], output=HOSTILE, ending=HOSTILE, pending=0, errors=3
    )  # fmt: skip
    report = replace(
        REPORT,
        summary=summary,
        origin=HOSTILE,
        places={HOSTILE: HOSTILE},
        bound_by=HOSTILE,
        servers=[ServerLine(HOSTILE, 1, 1, 1, 0)],
    )
    page, plain = Page(render(report)), Page(render(REPORT))
    assert page.tags["script"] == 1
    assert page.tags["img"] == 0
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}
    assert page.rows[1][0] == HOSTILE
    # title, ending, origin, results, a place and what it is, least time, most time left, error kind, server
    assert "".join(page.texts).count(HOSTILE) == 10


# ---- the table's lines


@pytest.fixture
def make_state(tmp_path: Path) -> MakeState:
    """Makes a run over servers with so many rows each: initialized, nothing fetched. ``changes`` are config keys."""

    def make(rows_of: dict[str, int], **changes: object) -> RunState:
        table = tmp_path / "urls.csv"
        urls = [f"https://{name}/{row}.jpg" for name, rows in rows_of.items() for row in range(rows)]
        table.write_text("identifier\n" + "\n".join(urls) + "\n")
        data = {"path_to_input": str(table), "path_to_output_folder": str(tmp_path / "out"), **changes}
        config = config_module.parse(data, "test")
        layout = Layout(Path(config.path_to_output_folder), config.output_structure)
        lock = own_output(layout, {})
        try:
            return initialize(config, layout, lock, Orders(), Reporting(lambda _: None, lambda _: None, lambda: False))
        finally:
            lock.release()

    return make


def test_the_lines_are_pace_groups_and_packed_servers_are_one(make_state: MakeState) -> None:
    small = {f"s{number}.net": 2 for number in range(9)}
    state = make_state(
        {"big.org": 60, "a.many.org": 30, "b.many.org": 25, **small},
        profiling={"min_rows": 10},
        downloader_parameters={"batch_size": 20, "default_rate_limit": 7},
        servers=[{"match": "*.many.org", "group": "many.org", "rate_limit": 2}],
    )
    state.successes[:] = state.table.rows
    state.successes[0] -= 5
    state.errors[0] = 3
    state.profiles["big.org"] = Profile("big.org", 3, 2, 0, 7.0, total_s=0.125, bytes=4_000)
    lines, rest = server_lines(state)
    assert rest is None
    first = state.table.group_names[int(state.table.groups[0])]
    assert {(line.name, line.servers, line.rows, line.limit_per_s) for line in lines} == {
        ("big.org", 1, 60, 7.0), ("many.org", 2, 55, 2.0), ("__many__", 9, 18, None),
    }  # fmt: skip
    assert [line.rows for line in lines] == [60, 55, 18]
    assert {line.name: (line.errors, line.pending) for line in lines if line.errors} == {first: (3, 2)}
    assert [(line.latency_s, line.size_bytes) for line in lines] == [(0.125, 4_000), (0.0, 0), (0.0, 0)]


def test_ten_thousand_servers_make_a_small_page(make_state: MakeState) -> None:
    # about as long as a host name can be
    suffix = ".".join(["l" * 60] * 4)
    state = make_state(
        {f"{number:05d}.{suffix}": 3 if number < 100 else 1 for number in range(10_000)}, profiling={"min_rows": 1}
    )
    lines, rest = server_lines(state)
    assert len(lines) == MOST_SERVERS
    assert [line.rows for line in lines[:101]] == [3] * 100 + [1]
    assert rest is not None
    assert (rest.servers, rest.rows, rest.pending) == (9_000, 9_000, 9_000)
    points = [Point(1e5 * number, 10**9 + number, 10**14) for number in range(MOST_POINTS)]
    page = render(replace(REPORT, servers=lines, rest=rest, points=points))
    assert len(Page(page).rows) == MOST_SERVERS + 1
    assert len(page.encode()) < 2_000_000
