"""The audit: what several ranks noted, merged, beside a count over all starts; and the file that people read."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.records import Limits
from ddmpi.core.stats.audit import (
    LATE_S,
    MERGE_S,
    MOST_SIGNALS,
    OTHER_SIGNALS,
    AskedHost,
    AskedNotes,
    Audit,
    Audited,
    RunAudit,
)
from ddmpi.io.folder.stats_files import read_audit, read_run_audit, write_audit, write_run_audit

AT = 1_700_000_000.0


def busiest(starts: list[int], window_ms: int) -> int:
    return max(sum(start <= other < start + window_ms for other in starts) for start in starts)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 40, 400, 9_000])), min_size=1, max_size=150),
    reports_each=st.integers(1, 40),
)
def test_windows_over_several_ranks_are_those_of_all_starts_together(
    steps: list[tuple[int, int]], reports_each: int
) -> None:
    ranks, audit = [AskedNotes() for _ in range(3)], Audit()
    starts, milliseconds = [], 0
    for number, (rank, gap_ms) in enumerate(steps, start=1):
        milliseconds += gap_ms
        starts.append(AT + milliseconds / 1000)
        ranks[rank].started("s", starts[-1])
        if number % reports_each == 0:
            for notes in reversed(ranks):
                audit.add(notes.take(starts[-1]))
    for notes in ranks:
        audit.add(notes.take(starts[-1]))
    (row,) = audit.rows()
    assert row.requests == len(starts)
    # In whole milliseconds, as floats of this size would decide by chance what is a second apart.
    whole = [round((start - AT) * 1000) for start in starts]
    assert row.highest_1s == busiest(whole, 1000)
    assert row.highest_60s == busiest(whole, 60_000)


def test_of_a_long_run_only_the_last_minute_is_kept_and_the_highest_is_not_forgotten() -> None:
    audit, notes = Audit(), AskedNotes()
    for second in range(2000):
        for number in range(7 if second == 400 else 2):
            notes.started("s", AT + second + number / 100)
        if second % 10 == 0:
            audit.add(notes.take(AT + second))
    audit.add(notes.take(AT + 2000))
    (row,) = audit.rows()
    assert (row.requests, row.highest_1s, row.highest_60s) == (4005, 7, 125)
    kept = sum(len(it.windows._kept) for it in audit._groups.values() if it.windows)
    assert kept <= 2 * (60 + LATE_S + MERGE_S) + 10


def test_sums_of_all_ranks() -> None:
    first, second, audit = AskedNotes(), AskedNotes(), Audit()
    for notes, size_bytes in ((first, 100), (second, 1000)):
        notes.answered("s", size_bytes, throttled=False)
        notes.answered("s", 0, throttled=True)
        notes.connected("s", 3)
        notes.connected("s", size_bytes // 50)
        audit.add(notes.take(AT))
    assert audit.rows() == [Audited("s", connections=20, bytes=1100, throttled=2)]


def test_a_pause_that_is_known_is_not_another_one_also_over_a_report() -> None:
    notes = AskedNotes()
    notes.paused("s", AT, 10.0)
    notes.paused("s", AT + 1, 9.0)
    (asked,) = notes.take(AT + 2)
    assert (asked.pauses, asked.paused_s) == (1, 10.0)
    notes.paused("s", AT + 3, 12.0)
    notes.paused("s", AT + 20, 1.0)
    (asked,) = notes.take(AT + 30)
    assert (asked.pauses, asked.paused_s) == (1, 6.0)
    assert notes.take(AT + 40) == ()


def test_the_table_goes_on_over_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "politeness.csv"
    before = Audited("s", 10, 4, 10, 2, 5000, 1, 1, 2.5, 8, 2, 2500)
    write_audit(path, [before, Audited("t", 1)], lambda _: Limits(4.0, 2, bytes_per_hour=9))
    assert path.read_text().splitlines()[:2] == [
        "server_name,rate_limit,max_connections,bytes_per_second,bytes_per_hour,bytes_per_day,requests,highest_1s,"
        "highest_60s,connections,bytes,throttled,pauses,paused_s,urls,refused,kept_bytes,requests_per_url,"
        "bytes_per_kept_byte",
        "s,4.0,2,0.0,9,0.0,10,4,10,2,5000,1,1,2.5,8,2,2500,1.25,2.0",
    ]
    notes = AskedNotes()
    notes.started("s", AT)
    notes.connected("s", 3)
    audit = Audit(read_audit(path))
    audit.add(notes.take(AT))
    assert audit.rows() == [Audited("s", 11, 4, 10, 3, 5000, 1, 1, 2.5, 8, 2, 2500), Audited("t", 1)]
    assert audit.rows() == audit.rows(), "it may be asked for while the run goes on"


def test_a_table_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "politeness.csv"
    path.write_text(
        "server_name,rate_limit,requests,highest_1s,highest_60s,connections,bytes,throttled,pauses,paused_s\n"
        "s,4.0,10,4,10,2,5000,1,1,2.5\n"
    )
    assert read_audit(path) == {"s": Audited("s", 10, 4, 10, 2, 5000, 1, 1, 2.5)}


def test_the_run_alone_is_told_with_its_times_machines_and_signals(tmp_path: Path) -> None:
    audit = Audit({"s": Audited("s", 1000, 50), "old": Audited("old", 5)})
    for node, second in (("b", 0.0), ("a", 5.0)):
        notes = AskedNotes()
        notes.started("s", AT + second)
        notes.answered("s", 300, throttled=False, is_done=True)
        notes.started("s", AT + second + 1)
        notes.answered("s", 30, throttled=True, refused=True)
        notes.heard("s", "x-robots-tag: noai", 2, is_obeyed=node == "a")
        audit.add(notes.take(AT), node)
    audit.keep("s", 500)
    audit.keep("t", 7)
    host, other = audit.hosts()
    assert host == AskedHost(
        Audited("s", 4, 1, 4, bytes=660, throttled=2, urls=2, refused=2, kept_bytes=500), AT, AT + 6, ("a", "b"),
        {"x-robots-tag: noai": (4, 2)},
    )  # fmt: skip
    assert (host.audited.requests_per_url, host.audited.bytes_per_kept_byte) == (2.0, 1.32)
    assert other == AskedHost(Audited("t", kept_bytes=7), 0.0, 0.0, (), {})
    assert (audit.total.requests, audit.total.kept_bytes, audit.signals) == (4, 507, {"x-robots-tag: noai": (4, 2)})
    found = RunAudit(3, AT, AT + 9, "1.0", "me/1", "all", audit.hosts())
    write_run_audit(tmp_path / "last-run.json", found, tmp_path / "tmp")
    assert read_run_audit(tmp_path / "last-run.json") == found
    assert read_run_audit(tmp_path / "missing.json") is None
    (tmp_path / "damaged.json").write_bytes(b"{")
    assert read_run_audit(tmp_path / "damaged.json") is None


def test_signals_of_very_many_kinds_are_counted_together() -> None:
    notes, audit = AskedNotes(), Audit()
    for number in range(MOST_SIGNALS + 10):
        notes.heard("s", f"x-robots-tag: {number}", 1, is_obeyed=False)
    audit.add(notes.take(AT))
    assert len(audit.signals) == MOST_SIGNALS + 1
    assert audit.signals[OTHER_SIGNALS] == (10, 0)


def test_a_damaged_table_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "politeness.csv"
    path.write_text("server_name,requests\ns,many\n")
    assert read_audit(path) == {}
    assert read_audit(tmp_path / "missing.csv") == {}
