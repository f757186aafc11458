"""The page of a run: whole, safe, small; and the lines of its table."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ddmpi.config import config as config_module
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.core.protocol import Asked
from ddmpi.core.records import Orders, PaceState, Picture
from ddmpi.core.stats.audit import Audited
from ddmpi.core.stats.metrics import MOST_POINTS, Tally
from ddmpi.core.stats.timeline import BINS, Timeline
from ddmpi.core.stats.timeline import Wait as Pause
from ddmpi.core.stats.usage import GroupUsage, UsageCounter
from ddmpi.io.folder.layout import Layout
from ddmpi.report import data
from ddmpi.report.data import Failures, FileTable, Point, Report, Rest, RunLine, ServerLine, Summary
from ddmpi.report.page import render
from ddmpi.roles.coordinator import report_data
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output
from ddmpi.roles.coordinator.report_data import file_table, server_table
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
ENDED_AT = 1_893_456_000.0
WAITING = Waiting(
    tuple(Wait(f"{number}.example.org", 8, ENDED_AT + 60.0, "Retry-After 60 s") for number in range(5)), 5, 40,
    ENDED_AT + 60.0,
)  # fmt: skip
REPORT = Report(
    summary=SUMMARY,
    exit_code=75,
    ended_at=ENDED_AT,
    origin="Run 3 over urls.parquet",
    places={"the files": "images", "what was measured": "my profiles.csv"},
    points=[
        Point(0.0, 0, 0),
        Point(4.0, 100, 2_000_000),
        Point(10.0, 500, 12_000_000, {"http_status": 40, "connect": 20}, 500),
    ],
    bound_s=8.0,
    bound_by="slow.example.org",
    download_s=9.0,
    servers=[
        ServerLine(
            "slow.example.org", 600, 500, 60, failure="http_status 404", waits="12:00:00 (Retry-After 60 s)",
            limit_per_s=0.5, size_bytes=30_000, reached_per_s=0.48, usage=USAGE,
            audited=Audited("slow.example.org", 600, throttled=3),
        ),
        ServerLine("a.archive.org", 300, 300, 0, shared_with="archive.org (122 servers)"),
        ServerLine("small.example.org", 100, 0, 0, is_known=False, limit_per_s=10.0),
    ],
    rest=None,
    server_count=3,
    failures={
        ("slow.example.org", "http_status", 404): Failures(30, ("https://slow.example.org/a", "javascript:alert(1)")),
        ("other.example.org", "http_status", 403): Failures(10, ("http://other.example.org/b?x=1&y=2",)),
        ("slow.example.org", "connect", -1): Failures(20, ()),
    },
    timelines=[
        Timeline("slow.example.org", (5,) * BINS, (4,) * BINS, (Pause(ENDED_AT - 30.0, ENDED_AT, is_parked=True),))
    ],
    timeline_span=(ENDED_AT - 59.5, 1.0),
)  # fmt: skip


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


def table_of(text: str) -> dict[str, dict[str, object]]:
    """The table of servers as the script gets it: name -> column -> value."""
    found = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[0])
    table: dict[str, dict[str, object]] = {name: {} for name in found["names"]}
    for column in found["columns"]:
        values = column["values"] or [0] * len(table)
        values = [column["texts"][value] for value in values] if "texts" in column else values
        for cells, value in zip(table.values(), values, strict=True):
            cells[column["name"]] = value
    return table


def test_the_page_is_well_formed_and_says_what_happened() -> None:
    text = render(REPORT)
    page = Page(text)
    assert page.tags["html"] == 1
    assert page.tags["svg"] == 4 + 2 + 1, "charts, the legend of two kinds of errors, a timeline"
    for told in (
        "40 rows are pending; run the same command again", "Run 3 over urls.parquet", "/data/out", "900 90.00 %",
        "60 6.00 %", "12.0 MB", "1.2 MB/s", "50.0 rows/s", "http_status 40 (66.67 %) connect 20 (33.33 %)",
        "40 rows are pending, so the run says nothing about it yet", "slow.example.org 40.0 s",
        "download, predicted 8.0 s download 9.0 s whole run 10.0 s", "300 requests, 240 done, parked 30.0 s",
        "successes 900 errors 60 pending 40", "Servers (3)",
    ):  # fmt: skip
        assert told in page.text, told
    assert page.rows[-4:] == [
        ["server", "rows", "successes", "errors", "pending", "most errors", "waits until"],
        ["slow.example.org", "600", "500", "60", "40", "http_status 404", "12:00:00 (Retry-After 60 s)"],
        ["a.archive.org", "300", "300", "0", "0", "", ""],
        ["small.example.org", "100", "?", "?", "?", "", ""],
    ]
    table = table_of(text)
    assert list(table) == ["slow.example.org", "a.archive.org", "small.example.org"]
    assert table["slow.example.org"].items() >= {
        "rows": 600, "pending": 40, "limit /s": 0.5, "reached /s": 0.48, "p50": 250, "p95": 1500, "429s": 3,
        "paused or parked": 90.0, "median file": 30_000, "requests": 600,
    }.items()  # fmt: skip
    assert table["a.archive.org"]["limits shared with"] == "archive.org (122 servers)"
    assert (table["small.example.org"]["errors"], table["small.example.org"]["p50"]) == (None, 0)
    assert "kept" not in table["slow.example.org"], "what is nowhere known has no column"


def test_errors_are_told_apart_by_code_and_server_with_links() -> None:
    page = Page(render(REPORT))
    assert page.rows[:4] == [
        ["kind", "code", "rows", "servers", "most on", "examples"],
        ["http_status", "404", "30", "1", "slow.example.org", "https://slow.example.org/a javascript:alert(1) "],
        ["connect", "-1", "20", "1", "slow.example.org", ""],
        ["http_status", "403", "10", "1", "other.example.org", "http://other.example.org/b?x=1&y=2 "],
    ]
    links = [value for name, value in page.attributes if name == "href" and not value.startswith("./")]
    assert links == ["https://slow.example.org/a", "http://other.example.org/b?x=1&y=2"] * 2, (
        "nothing but http and https"
    )
    unread = Page(render(replace(REPORT, unread_errors=1_234)))
    assert "1,234 errors were not looked at" in unread.text


@pytest.mark.parametrize(
    ("change", "title", "look"),
    [
        ({"exit_code": 0}, "Done", "good"),
        ({}, "40 rows pending", "open"),
        ({"waiting": WAITING}, "40 rows wait", "open"),
        ({"waiting": WAITING, "is_failed": True}, "Stopped", "bad"),
        ({"damage": "batch 3 is damaged", "is_failed": True}, "Damaged", "bad"),
    ],
)
def test_the_verdict_comes_first(change: dict[str, object], title: str, look: str) -> None:
    text = render(replace(REPORT, **change))  # type: ignore[arg-type]
    assert f'<header class="{look}"><h1>{title}</h1>' in text
    assert Page(text).text.startswith(f"{title}: /data/out (ddmpi)")
    told = "0.example.org : 8 rows, asked again at"
    assert (told in Page(text).text) == ("waiting" in change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bound_s": None}, "ended before the download was planned"),
        ({"bound_s": 0.0}, "Nothing was left to fetch"),
        ({"summary": replace(SUMMARY, pending=0)}, "took 1.12 times as long"),
        ({"summary": replace(SUMMARY, pending=0), "download_s": 7.0}, "took less"),
        ({"summary": replace(SUMMARY, kinds={})}, "Errors by kind None."),
        ({"summary": replace(SUMMARY, ignored=7)}, "ignored 7 0.70 %"),
        ({"changes": ["a.org: paused"]}, "Changed while this run was on a.org: paused"),
        (
            {"compared": "7 the same, 1 gone", "comparison": FileTable(("server_name", "gone"), [("a.org", "1")], 8)},
            "Compared with the table 7 the same, 1 gone The first 1 lines; 8 more are in the file. server_name gone",
        ),
        (
            {"runs": [RunLine(2, "2030-01-01 00:00", 60.0, 4, 900, 950, 10**9, "now")] * 2},
            "2030-01-01 00:00 1 min 00 s 4 900",
        ),
        (
            {"rest": Rest(9_000, 12_345, 12_000, 300, 5)},
            "9,000 more servers have 12,345 rows: 12,000 successes, 300 errors, 40 pending",
        ),
    ],
)
def test_the_page_fits_the_run(change: dict[str, object], told: str) -> None:
    assert told in Page(render(replace(REPORT, **change))).text  # type: ignore[arg-type]


def test_a_run_that_fetched_nothing_has_a_page() -> None:
    nothing = Summary(0, 0, 0, 0, {}, 0, 0, 0, 0.0, [], "out", "Done: every row is final.")
    report = Report(nothing, 0, ENDED_AT, "", {}, [Point(0.0, 0, 0)], None, "", 0.0, [], None, 0)
    assert "Done: every row is final." in Page(render(report)).text


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    text = render(REPORT)
    page = Page(text)
    loaded = {value for name, value in page.attributes if name in {"src", "srcset", "href", "data", "action"}}
    assert {it for it in loaded if not it.startswith("http")} == {"./images", "./my%20profiles.csv"}, "a click follows"
    assert "url(" not in text.replace("data:", "")
    assert "@import" not in text
    policy = _policy(page)
    assert policy["default-src"] == "'none'"
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert page.tags["script"] == len(script) + 1, "and data"
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
        servers=[ServerLine(HOSTILE, 1, 1, 0, failure=HOSTILE, waits=HOSTILE, shared_with=HOSTILE)],
        points=[Point(0.0, 0, 0), Point(1.0, 1, 1, {HOSTILE: 3})],
        runs=[RunLine(1, HOSTILE, 1.0, 1, 1, 1, 1, HOSTILE)] * 2,
        changes=[HOSTILE],
        pictures=[Picture("data:image/png;base64,AA==", HOSTILE)],
        waiting=Waiting((Wait(HOSTILE, 1, 0.0, HOSTILE),) * 4, 4, 4),
        damage=HOSTILE,
        failures={(HOSTILE, HOSTILE, 404): Failures(3, ("https://" + HOSTILE, HOSTILE))},
        timelines=[Timeline(HOSTILE, (1,) * BINS, (1,) * BINS, ())],
    )
    text = render(report)
    page, plain = Page(text), Page(render(REPORT))
    assert page.tags["script"] == plain.tags["script"]
    assert page.tags["img"] == 1
    assert {name for name, _ in page.attributes} <= {name for name, _ in plain.attributes} | {"src", "alt"}
    assert table_of(text)[HOSTILE].items() >= {"most errors": HOSTILE, "waits until": HOSTILE}.items()
    # title, ending, four waits with two texts each, origin, results, a place and what it is, an error chart's legend,
    # prediction, most time left, error kind, two tables of errors with kind, server and two URLs each, a timeline, a
    # server with failure and wait, a change, two runs with two texts each, a caption; damage is in the ending
    assert "".join(page.texts).count(HOSTILE) == 1 + 1 + 8 + 1 + 1 + 2 + 1 + 1 + 1 + 1 + 8 + 1 + 3 + 1 + 4 + 1


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


def tally_of(group: str) -> Tally:
    """A server was asked eleven times in ten seconds."""
    counter, tally = UsageCounter(), Tally()
    for second in range(11):
        counter.add(group, float(second), second + 0.1, 100, throttled=False)
    tally.usage.add(counter.take(11.0), 11.0)
    return tally


def test_every_server_has_a_line_small_ones_too(make_state: MakeState) -> None:
    small = {f"s{number}.net": 2 for number in range(9)}
    state = make_state(
        {"big.org": 60, "a.many.org": 30, "b.many.org": 25, **small},
        profiling={"min_rows": 10},
        downloader_parameters={"batch_size": 20, "default_rate_limit": 7},
        servers=[{"match": "*.many.org", "group": "many.org", "rate_limit": 2}],
    )
    state.profiles["big.org"] = Profile("big.org", 3, 2, 0, 7.0, bytes=4_000)
    tally = tally_of("big.org")
    tally.audit.add([Asked("s3.net", 100.0, b"\0\0\0\0" + (300_000).to_bytes(4, "little"), 5, 0, 1, 0, 0.0)])
    wait = Wait("big.org", 60, 1e9, "Retry-After 60 s")
    paces = {"s4.net": PaceState(wait_s=30.0, why="HTTP status 503")}
    table = server_table(state, tally, paces, Waiting((wait,), 1, 60, 1e9), 12.0, budget_s=10.0)
    assert (table.rest, table.count) == (None, 12)
    lines = {line.name: line for line in table.lines}
    assert {name: line.rows for name, line in lines.items()} == {
        "big.org": 60,
        "a.many.org": 30,
        "b.many.org": 25,
        **small,
    }
    assert [line.rows for line in table.lines[:4]] == [60, 30, 25, 2]
    assert sum(line.pending for line in table.lines) == state.counts.pending == 133
    assert {line.limit_per_s for name, line in lines.items() if "many" not in name} == {7.0}
    assert (lines["a.many.org"].limit_per_s, lines["a.many.org"].shared_with) == (2.0, "many.org (2 servers)")
    assert (lines["big.org"].size_bytes, lines["big.org"].shared_with) == (4_000, "")
    assert lines["big.org"].reached_per_s == pytest.approx(10 / 10.1)
    assert lines["s3.net"].reached_per_s == pytest.approx(1 / 30), "two requests, 30 s apart"
    assert lines["s3.net"].audited is not None
    assert [name for name, line in lines.items() if line.waits] == ["big.org", "s4.net"]
    assert "(HTTP status 503)" in lines["s4.net"].waits


def test_ignored_rows_are_not_pending(make_state: MakeState, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/ignored.csv").write_text("left.out\ntiny.out\n")
    state = make_state({"big.org": 60, "left.out": 60, "tiny.out": 2, "tiny.org": 2}, profiling={"min_rows": 10})
    table = server_table(state, Tally(), {}, Waiting(), 0.0, budget_s=10.0)
    assert {line.name: (line.pending, line.ignored) for line in table.lines} == {
        "big.org": (60, 0), "left.out": (0, 60), "tiny.out": (0, 2), "tiny.org": (2, 0),
    }  # fmt: skip
    assert sum(line.pending for line in table.lines) == state.counts.pending


def test_the_largest_and_the_notable_servers_are_listed(make_state: MakeState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "MOST_SERVERS", 100)
    monkeypatch.setattr(report_data, "NOTABLE", 10)
    sizes = {f"{number:05d}.org": 3 for number in range(150)}
    state = make_state(sizes | {"waiting.org": 1}, downloader_parameters={"batch_size": 3}, profiling={"min_rows": 1})
    state.counts.successes[:] = state.table.rows
    names = [state.table.server_of(batch_id) for batch_id in range(len(state.table))]
    state.counts.successes[names.index("waiting.org")] = 0
    table = server_table(state, Tally(), {}, Waiting(), 0.0, budget_s=10.0)
    assert (len(table.lines), table.count) == (100, 151)
    assert table.rest == Rest(51, 153, 153, 0, 0)
    assert table.lines[-1].name == "waiting.org"
    assert table.lines[-1].pending == 1


def test_a_page_of_very_many_servers_is_small() -> None:
    servers = [replace(REPORT.servers[0], name=f"images{number:05d}.example.org") for number in range(5_000)]
    points = [Point(1e5 * number, 10**9 + number, 10**14) for number in range(MOST_POINTS)]
    page = render(replace(REPORT, servers=servers, points=points))
    assert len(page.encode()) * data.MOST_SERVERS / 5_000 < 15_000_000
    assert len(Page(page).rows) < 80, "the script shows the others"


def test_a_table_in_a_file_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert file_table(path) is None
    path.write_text("server,limit\n" + "a.org,10\n" * 600)
    found = file_table(path)
    assert found is not None
    assert (found.columns, found.rows[0], len(found.rows), found.left_out) == (
        ["server", "limit"],
        ["a.org", "10"],
        500,
        100,
    )
