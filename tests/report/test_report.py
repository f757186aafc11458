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

from ddmpi.config import config as config_module
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.records import Orders, Picture
from ddmpi.core.stats.metrics import MOST_POINTS
from ddmpi.core.stats.usage import GroupUsage, UsageCounter, UsageTable
from ddmpi.io.folder.layout import Layout
from ddmpi.report.data import MOST_SERVERS, Audit, Point, Report, RunLine, ServerLine, Summary
from ddmpi.report.page import render
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output
from ddmpi.roles.coordinator.report_data import audit, server_lines
from ddmpi.roles.coordinator.run_state import RunState

MakeState = Callable[..., RunState]

VOID = {"meta", "img", "input", "wbr"}
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
USAGE = GroupUsage(600, 3, 12_000_000, span_s=1_250.0, paused_s=90.0, p50_s=0.25, p95_s=1.5)
REPORT = Report(
    summary=SUMMARY,
    exit_code=75,
    origin="Run 3 over urls.parquet",
    places={"the files": "images", "what was measured": "my profiles.csv"},
    points=[
        Point(0.0, 0, 0),
        Point(4.0, 100, 2_000_000),
        Point(10.0, 500, 12_000_000, {"http_status": 40, "connect": 20}),
    ],
    bound_s=8.0,
    bound_by="slow.example.org",
    download_s=9.0,
    servers=[
        ServerLine("slow.example.org", 1, 600, 500, 60, limit_per_s=0.5, size_bytes=30_000, usage=USAGE),
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
        self._goes_on = False  # a word that may be broken where this text begins
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._goes_on = tag == "wbr"
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
        if self._goes_on:
            self.texts[-1] += data
        else:
            self.texts.append(data)
        self._goes_on = False
        if {"th", "td"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


# ---- the page


def test_the_page_is_well_formed_and_says_what_happened() -> None:
    page = Page(render(REPORT))
    assert page.tags["html"] == page.tags["table"] == 1
    assert page.tags["svg"] == 4 + 2, "charts, and the legend of two kinds of errors"
    for told in (
        "40 rows are pending; run the same command again", "Run 3 over urls.parquet", "/data/out", "900 90.00 %",
        "60 6.00 %", "12.0 MB", "1.2 MB/s", "50.0 rows/s", "http_status 40 (66.67 %) connect 20 (33.33 %)",
        "40 rows are pending, so the run says nothing about it yet", "slow.example.org 40.0 s",
    ):  # fmt: skip
        assert told in page.text, told
    assert page.rows == [
        ["server", "rows", "successes", "errors", "pending", "limit /s", "reached /s", "p50", "p95", "429s", "paused",
         "size"],
        ["slow.example.org", "600", "500", "60", "40", "0.5", "0.48", "250 ms", "1,500 ms", "3", "1 min 30 s",
         "30.0 kB"],
        ["archive.org (122 servers)", "300", "300", "0", "0", "none", "", "", "", "", "", ""],
        ["__many__ (50 servers)", "100", "100", "0", "0", "", "", "", "", "", "", ""],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bound_s": None}, "ended before the download was planned"),
        ({"bound_s": 0.0}, "Nothing was left to fetch"),
        ({"summary": replace(SUMMARY, pending=0)}, "took 1.12 times as long"),
        ({"summary": replace(SUMMARY, pending=0), "download_s": 7.0}, "took less"),
        ({"summary": replace(SUMMARY, kinds={})}, "Errors None."),
        ({"summary": replace(SUMMARY, ignored=7)}, "ignored 7 0.70 %"),
        ({"changes": ["a.org: paused"]}, "Changed while this run was on a.org: paused"),
        ({"audit": Audit(("server", "429s"), [("a.org", "5")], 8)}, "The first 1 lines; 8 more are in the file."),
        (
            {"compared": "7 the same, 1 gone", "comparison": Audit(("server_name", "gone"), [("a.org", "1")])},
            "Compared with the table 7 the same, 1 gone server_name gone a.org 1",
        ),
        (
            {"runs": [RunLine(2, "2030-01-01 00:00", 60.0, 4, 900, 950, 10**9, "now")] * 2},
            "2030-01-01 00:00 1 min 00 s 4 900",
        ),
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
    assert "url(" not in text.replace("data:", "")
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
        points=[Point(0.0, 0, 0), Point(1.0, 1, 1, {HOSTILE: 3})],
        runs=[RunLine(1, HOSTILE, 1.0, 1, 1, 1, 1, HOSTILE)] * 2,
        changes=[HOSTILE],
        pictures=[Picture("data:image/png;base64,AA==", HOSTILE)],
        audit=Audit([HOSTILE], [[HOSTILE]]),
    )
    page, plain = Page(render(report)), Page(render(REPORT))
    assert page.tags["script"] == 1
    assert page.tags["img"] == 1
    assert {name for name, _ in page.attributes} <= {name for name, _ in plain.attributes} | {"src", "alt"}
    assert page.rows[-3][0] == HOSTILE
    # title, ending, origin, results, a place and what it is, least time, most time left, error kind twice, two runs
    # with two texts each, a change, a server, the audit's head and cell, a caption
    assert "".join(page.texts).count(HOSTILE) == 19


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
            return initialize(
                config, layout, lock, Orders(), InitCallbacks(lambda _: None, lambda _: None, lambda: False)
            )
        finally:
            lock.release()

    return make


def usage_of(group: str) -> UsageTable:
    counter, table = UsageCounter(), UsageTable()
    counter.add(group, 0.0, 1.0, 100, throttled=False)
    table.add(counter.take(1.0), 1.0)
    return table


def test_the_lines_are_pace_groups_and_packed_servers_are_one(make_state: MakeState) -> None:
    small = {f"s{number}.net": 2 for number in range(9)}
    state = make_state(
        {"big.org": 60, "a.many.org": 30, "b.many.org": 25, **small},
        profiling={"min_rows": 10},
        downloader_parameters={"batch_size": 20, "default_rate_limit": 7},
        servers=[{"match": "*.many.org", "group": "many.org", "rate_limit": 2}],
    )
    state.counts.successes[:] = state.table.rows
    state.counts.successes[0] -= 5
    state.counts.errors[0] = 3
    state.profiles["big.org"] = Profile("big.org", 3, 2, 0, 7.0, bytes=4_000)
    lines, rest = server_lines(state, usage_of("big.org"), 10.0)
    assert rest is None
    first = state.table.group_names[int(state.table.groups[0])]
    assert {(line.name, line.servers, line.rows, line.limit_per_s) for line in lines} == {
        ("big.org", 1, 60, 7.0), ("many.org", 2, 55, 2.0), ("__many__", 9, 18, None),
    }  # fmt: skip
    assert [line.rows for line in lines] == [60, 55, 18]
    assert {line.name: (line.errors, line.pending) for line in lines if line.errors} == {first: (3, 2)}
    assert [line.size_bytes for line in lines] == [4_000, 0, 0]
    assert [line.usage is not None and line.usage.requests for line in lines] == [1, False, False]


def test_more_servers_than_are_listed_make_a_small_page(make_state: MakeState) -> None:
    # about as long as a host name can be
    suffix = ".".join(["l" * 60] * 4)
    state = make_state(
        {f"{number:05d}.{suffix}": 3 if number < 100 else 1 for number in range(2 * MOST_SERVERS)},
        profiling={"min_rows": 1},
    )
    lines, rest = server_lines(state, UsageTable(), 0.0)
    assert len(lines) == MOST_SERVERS
    assert [line.rows for line in lines[:101]] == [3] * 100 + [1]
    assert rest is not None
    assert (rest.servers, rest.rows, rest.pending) == (MOST_SERVERS, MOST_SERVERS, MOST_SERVERS)
    points = [Point(1e5 * number, 10**9 + number, 10**14) for number in range(MOST_POINTS)]
    page = render(replace(REPORT, servers=lines, rest=rest, points=points))
    assert len(Page(page).rows) == MOST_SERVERS + 1
    assert len(page.encode()) < 2_000_000


def test_small_servers_with_many_errors_or_pending_rows_are_listed(make_state: MakeState) -> None:
    sizes = {f"{number:05d}.org": 2 for number in range(MOST_SERVERS + 500)}
    state = make_state(sizes | {"failing.org": 1, "waiting.org": 1}, downloader_parameters={"batch_size": 2},
                       profiling={"min_rows": 1})  # fmt: skip
    state.counts.successes[:] = state.table.rows
    names = state.table.group_names
    groups = {names[int(group)]: batch_id for batch_id, group in enumerate(state.table.groups)}
    for name, column in (("failing.org", state.counts.errors), ("waiting.org", None)):
        if name in groups:
            state.counts.successes[groups[name]] = 0
            if column is not None:
                column[groups[name]] = 1
    lines, rest = server_lines(state, UsageTable(), 0.0)
    assert len(lines) == MOST_SERVERS
    assert rest is not None
    assert sum(line.servers for line in lines) + rest.servers == MOST_SERVERS + 502
    listed = {line.name: line for line in lines}
    assert (listed["failing.org"].errors, listed["waiting.org"].pending) == (1, 1)
    assert [line.rows for line in lines] == sorted((line.rows for line in lines), reverse=True)


def test_the_audit_is_the_table_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "politeness.csv"
    assert audit(path) is None
    path.write_text("server,limit\n" + "a.org,10\n" * 600)
    found = audit(path)
    assert found is not None
    assert (found.columns, found.rows[0], len(found.rows), found.left_out) == (
        ["server", "limit"],
        ["a.org", "10"],
        500,
        100,
    )
