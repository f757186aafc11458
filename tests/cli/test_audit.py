"""--audit: what an operator is told of the last run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.cli.arguments import parse_arguments
from ddmpi.cli.inspection import run
from ddmpi.core.stats.audit import AskedHost, Audited, RunAudit
from ddmpi.errors import OutputError
from ddmpi.io.folder.stats_files import write_run_audit

OBEYED = "obeyed: robots.txt (respect)"
AT = 1_893_499_200.0  # 2030-01-01 12:00 UTC
BUSY = AskedHost(
    Audited("img.example.org", 1201, 3, 110, 2, 36_000_000, 12, 2, 90.0, 1000, 34, 30_000_000), AT, AT + 600,
    ("node01", "node02"), {"x-robots-tag: noindex": (40, 0), "x-robots-tag: noai": (50, 50)},
)  # fmt: skip
QUIET = AskedHost(Audited("a.example.net", 1, 1, 1, 1), AT, AT, (), {})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    rule = "servers: [{match: img.example.org, rate_limit: 2, max_connections: 2, bytes_per_hour: 5e9}]"
    path.write_text(f"path_to_input: {tmp_path}/in.csv\npath_to_output_folder: {tmp_path}/out\n{rule}\n")
    (tmp_path / "out/logs").mkdir(parents=True)
    return path


def audited(config: Path, *options: str) -> None:
    run(parse_arguments([str(config), "--audit", *options]), {})


def write(config: Path, *hosts: AskedHost, left_out: int = 0) -> None:
    found = RunAudit(
        3, AT - 5, AT + 700, "1.2.3", "me/1 (+https://me.org)", "obeyed: robots.txt (respect)", hosts, left_out
    )
    write_run_audit(config.parent / "out/logs/last-run.json", found, config.parent / "out/batches/.tmp")


def test_an_operator_is_told_when_how_much_at_which_rate_from_where_and_by_whom(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(config, BUSY, QUIET)
    audited(config, "img.example.org")
    assert capsys.readouterr().out.splitlines() == [
        "img.example.org",
        "  when      2030-01-01 12:00:00 UTC to 2030-01-01 12:10:00 UTC, in run 3 of its job",
        "  how much  1,201 requests for 1,000 URLs, 1.20 for each; 36.0 MB received",
        "  kept      30.0 MB: 1.20 bytes fetched for each",
        "  rate      2.00/s on average, at most 3 in a second and 110 in a minute, 2 connections of one process",
        "  limit     2/s, 2 connections, 5.0 GB per hour",
        "  refused   34 answers with a status of 400 or more, 12 asked for less",
        "  paused    2 times, for 1 min 30 s",
        "  from      node01, node02",
        "  by        me/1 (+https://me.org) (ddmpi 1.2.3)",
        "  obeys     obeyed: robots.txt (respect)",
        "  heard     x-robots-tag: noai: 50 files, 50 not stored for it",
        "  heard     x-robots-tag: noindex: 40 files, stored all the same",
    ]


def test_globs_mean_several_and_without_a_name_the_busiest_are_shown(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(config, BUSY, *[QUIET] * 30, left_out=5)
    audited(config, "*.example.net")
    assert capsys.readouterr().out.count("a.example.net") == 30
    audited(config)
    page = capsys.readouterr().out
    assert page.count("example.") == 20
    assert "16 more servers were asked for less; --audit NAME or GLOB shows one" in page
    assert "nothing of how the files may be used" in page


def test_without_a_run_or_for_a_server_that_was_not_asked_that_is_said(config: Path) -> None:
    with pytest.raises(OutputError, match="no run has come far enough yet"):
        audited(config)
    write(config, BUSY)
    with pytest.raises(OutputError, match=r"has asked no server nowhere\.org"):
        audited(config, "nowhere.org")
