"""What a person sees while the table is clustered and at the end."""

from __future__ import annotations

import io
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from ddmpi.core.stats.audit import Audited
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.address_grouping import AddressSummary
from ddmpi.io.urls.writer import PartitionProgress, PartitionSummary
from ddmpi.report.console import LOOKING_UP, PARTITIONING, Console
from ddmpi.report.data import Snapshot, Summary
from ddmpi.roles.coordinator.reporter import ConsoleReporter


def new_console() -> Console:
    """One without a terminal; it keeps the stdout that it finds, which is only captured while a test runs."""
    return Console(columns=None)


def clustering(rows_done: int, rows: int) -> Snapshot:
    return Snapshot(PARTITIONING, rows, rows_done, 0, 0, 0)


def test_clustering_shows_rows_per_second_and_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    console = new_console()
    for now, rows_done in ((0.0, 0), (5.0, 500_000), (10.0, 1_000_000)):
        console.show(clustering(rows_done, 4_000_000), now)
    assert capsys.readouterr().out.splitlines() == [
        "clustering the table: 500,000 of 4,000,000 rows (12.5 %), 100,000 rows/s, ETA 35.0 s",
    ]


def test_there_is_no_line_before_there_is_something_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    console = new_console()
    for now in (0.0, 0.3, 0.6, 0.9):
        console.show(clustering(int(1_000 * now), 1_000), now)
    profiling = Snapshot("profiling", 5_000, 30, 1, 60_000, 3, "1 of 40 servers profiled")
    for now in (2, 2.5, 3):
        console.show(replace(profiling, rows_done=round(100 * now), bytes=int(1e6 * now)), now)
    assert capsys.readouterr().out.splitlines() == [
        "profiling: 300 of 5,000 rows (6.0 %), 100 files/s, 1.0 MB/s, 1 error, 3 servers active, "
        "1 of 40 servers profiled",
    ], "no rate within the first second, and how fast a few rows come does not say when all have come"


def test_the_speed_of_another_stage_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    console = new_console()
    for now in range(10):
        console.show(Snapshot("profiling", 5_000, 100 * now, 0, 0, 1, "1 of 40 servers profiled"), now)
    for now, rows in ((10, 900), (12, 901)):
        console.show(Snapshot("downloading", 5_000, rows, 0, 0, 1), now)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "downloading: 901 of 5,000 rows (18.0 %), 0.5 files/s, 0.0 MB/s, ETA 2 h 16 min, 0 errors, 1 server active"
    )


def test_of_text_files_the_end_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    console = new_console()
    for now, rows_done in ((0.0, 0), (5.0, 500_000), (20.0, 2_000_000)):
        console.show(clustering(rows_done, 0), now)
    assert capsys.readouterr().out.splitlines()[-1] == ("clustering the table: 2,000,000 rows so far, 100,000 rows/s")


def test_the_reporter_tells_the_stage_and_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter(new_console(), ranks=4, started_at=0.0)
    reporter.on_rows(PartitionProgress(rows=5, total=None))
    assert not capsys.readouterr().out
    servers = [(f"s{number}.org", 1000 - number) for number in range(10)]
    reporter.on_partitioned(PartitionSummary(5000, 7, 12, 3, {"empty": 2, "bad_host": 1}, servers, 61.0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "Input: 5,000 rows on 12 servers in 3 batches, 3 refused (bad_host 1, empty 2), 7 more left out by the filter; "
        "1 min 01 s"
    )
    assert lines[1] == "Largest servers: " + ", ".join(f"{name} {rows:,}" for name, rows in servers)


def test_the_reporter_tells_how_the_input_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("identifier\tn\nhttp://a.com/1\t2\n")
    (tmp_path / "_notes").write_text("x")
    ConsoleReporter(new_console(), ranks=4, started_at=0.0).on_input(open_input(str(tmp_path), {}, []))
    assert capsys.readouterr().out.splitlines() == [
        "in.csv: CSV, separator tab, no quoting, header, UTF-8; 1 of 2 columns used",
        "Warning: 1 file of other kinds is passed over: _notes",
    ]


def test_the_reporter_tells_of_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter(new_console(), ranks=4, started_at=0.0)
    reporter.on_grouped(AddressSummary(servers=5000, unknown=0, shared=3000, groups=1))
    reporter.on_grouped(AddressSummary(servers=1, unknown=1, shared=0, groups=0))
    assert capsys.readouterr().out.splitlines() == [
        "Addresses: 3,000 of 5,000 servers share one, in 1 group",
        "Addresses: 0 of 1 server share one, in 0 groups; "
        "1 have no address that could be found, or may be contacted: on their own",
    ]
    console = new_console()
    for now, done in ((0.0, 0), (2.0, 1000)):
        console.show(Snapshot(LOOKING_UP, 5000, done, 0, 0, 0, unit="names"), now)
    assert capsys.readouterr().out.splitlines() == [
        "looking up addresses: 1,000 of 5,000 names (20.0 %), 500 names/s, ETA 8.0 s"
    ]


def test_one_answer_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    waste = Audited("", 12, urls=10, refused=1)
    new_console().finish(Summary(1, 1, 0, 0, {}, 0, 0, 0, 1.0, [], "out", "Done.", waste=waste))
    assert "Waste: 1.20 requests per URL, 1 answer refused\n" in capsys.readouterr().out


def test_no_part_of_a_path_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    output = "/scratch/" + "a_long_name/" * 12 + "out"
    console = new_console()
    console.finish(Summary(1, 1, 0, 0, {}, 0, 0, 0, 1.0, [], output, "Done."))
    assert output in "".join(capsys.readouterr().out.split())


def test_the_summary_has_ignored_rows_waste_and_signals_if_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary(
        10, 5, 1, 0, {}, 0, 0, 0, 1.0, [], "out", "Done.", ignored=4,
        waste=Audited("", 12, urls=10, bytes=300, kept_bytes=200, refused=2),
        signals={"x-robots-tag: noai": (3, 3), "content-usage: train-ai=n": (4, 0)},
    )  # fmt: skip
    console = new_console()
    console.finish(summary)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ignored", "4", "40.00", "%"] in lines
    said = [" ".join(line) for line in lines]
    assert "Waste: 1.20 requests per URL, 1.50 bytes fetched per byte kept, 2 answers refused" in said
    assert said[-3:] == [
        "Heard: content-usage: train-ai=n: 4 rows, stored all the same",
        "Heard: x-robots-tag: noai: 3 rows, 3 not stored, as respect says",
        "Done.",
    ]
    console.finish(replace(summary, ignored=0))
    assert "ignored" not in capsys.readouterr().out


# ---- a terminal

RUNNING = Snapshot(
    "downloading", 1_234_567, 700_000, 12_345, 9_000_000_000, 40, durable=690_000,
    slowest=[("slow.example.org", 7_200.0), ("b.example.org", 60.0)],
)  # fmt: skip
ESCAPE = "\x1b"


def shown(columns: int, snapshot: Snapshot) -> list[str]:
    """The lines of a terminal so wide, ten seconds after it showed 12,340 rows less."""
    console = Console(columns)
    before = replace(snapshot, rows_done=snapshot.rows_done - 12_340, bytes=snapshot.bytes - 150_000_000)
    console._history.extend([(0.0, before), (10.0, snapshot)])  # stdout is no terminal here
    screen = RichConsole(file=io.StringIO(), width=columns, soft_wrap=True, color_system=None)
    with screen.capture() as captured:
        screen.print(screen.render_str(""), end="")
        for line in screen.render_lines(console.screen(snapshot), pad=False):
            screen.print("".join(segment.text for segment in line))
    return captured.get().splitlines()


def test_at_80_columns_there_is_all_that_matters() -> None:
    (line,) = shown(80, RUNNING)
    assert re.fullmatch(r"downloading [━╸╺ ]+ 56\.7 % 1,234 files/s, ETA 7 min 13 s, 12,345 errors *", line)
    assert len(line) <= 80
    assert line.count("━") >= 8


def test_on_a_wide_terminal_there_are_bytes_and_the_slowest_servers() -> None:
    line, slowest = shown(160, RUNNING)
    assert "700,000 of 1,234,567 rows, 690,000 durable, 1,234 files/s, 15.0 MB/s, ETA 7 min 13 s, 12,345 errors" in line
    assert len(line) <= 160
    assert slowest == "slowest: slow.example.org (2 h 00 min), b.example.org (1 min 00 s)"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_who_is_waited_for_is_told_whole_however_narrow_the_terminal(columns: int) -> None:
    note = "waiting for 1 server until 12:00:30: 1,204 for static.example.org until 12:00:30 (429, Retry-After 86400 s)"
    for snapshot in (replace(RUNNING, note=note), replace(RUNNING, waiting=note, rows_waiting=1_204)):
        lines = shown(columns, snapshot)
        assert all(len(line) <= columns for line in lines)
        assert note.replace(" ", "") in "".join(lines).replace(" ", "")


def test_no_server_is_called_inactive_while_files_come_in(capsys: pytest.CaptureFixture[str]) -> None:
    """Ranks say who was asked since their last report, which may have come a moment ago."""
    console = new_console()
    for now, active in ((0.0, 0), (1.0, 0), (8.0, 3), (11.0, 0)):
        console.show(replace(RUNNING, rows_done=int(39 * now), servers_active=active), now)
    lines = capsys.readouterr().out.splitlines()
    assert "active" not in lines[0]
    assert lines[1].endswith("errors, 3 servers active")


def test_a_terminal_without_a_size_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(0)
    for now in range(12):
        console.show(replace(RUNNING, rows_done=100 * now, waiting="x", rows_waiting=7), now)
    console.finish(Summary(10, 5, 1, 0, {}, 0, 0, 0, 1.0, [], "out", "Done."))
    printed = capsys.readouterr().out
    assert ESCAPE not in printed
    assert printed.count("\ndownloading: ") + printed.startswith("downloading: ") == 2
    assert "7 waiting for their servers" in printed


def test_a_run_that_waits_for_hours_does_not_say_so_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    console = new_console()
    for now in range(200):
        console.show(replace(RUNNING, note="waiting for 1 server"), now)
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("no_color", [False, True])
def test_colors_are_left_out_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, no_color: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1" if no_color else "")
    console = Console(80)
    for now in (0.0, 2.0):
        console.show(replace(RUNNING, rows_done=int(1_000 * now)), now)
    console.finish(Summary(10, 5, 1, 0, {}, 0, 0, 0, 1.0, [], "out", "Done."))
    printed = capsys.readouterr().out
    assert "ETA" in printed
    assert bool(re.search(rf"{ESCAPE}\[(3[0-7]|38;|9[0-7])", printed)) is not no_color


class _Closed(io.StringIO):
    """A terminal that was closed."""

    def write(self, _text: str) -> int:
        raise OSError(5, os.strerror(5))

    flush = write  # type: ignore[assignment]


@pytest.mark.parametrize("columns", [None, 80])
def test_all_that_is_said_is_logged_also_when_the_terminal_is_gone(
    columns: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", _Closed())
    logged: list[str] = []
    console = Console(columns)
    console.say("before there is a log")
    console.log_to(logged.append)
    for now in range(22):
        console.show(replace(RUNNING, rows_done=100 * now), now)
    console.finish(Summary(10, 5, 1, 0, {}, 0, 0, 0, 1.0, [], "out", "Done."))
    assert logged[0] == "before there is a log"
    assert [line.partition(":")[0] for line in logged[1:4]] == ["downloading"] * 3
    assert "100 files/s" in logged[2]
    assert ["successes", "5", "50.00", "%"] in [line.split() for line in logged]
    assert logged[-1] == "Done."
