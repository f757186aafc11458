"""What --plan and --status say of a run, over real folders and without network."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.cli.arguments import parse_arguments
from ddmpi.cli.inspection import run

CONFIG = """
path_to_input: {folder}/urls.csv
path_to_output_folder: {folder}/out
downloader_parameters: {{default_rate_limit: 0, batch_size: 50}}
servers: [{{match: slow.example.org, rate_limit: 2}}]
"""
PROFILES = """server_name,total_batches,success_count,error_count,rate_limit,bytes
slow.example.org,2,3,0,2,1000
fast.example.org,4,1,1,0,5000
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A job over 100 rows of a slow server and 200 of a fast one."""
    rows = [f"https://slow.example.org/{number}.jpg" for number in range(100)]
    rows += [f"https://fast.example.org/{number}.jpg" for number in range(200)]
    (tmp_path / "urls.csv").write_text("identifier\n" + "\n".join(rows) + "\n")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def printed(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    run(parse_arguments([str(config), *options]), {})
    return capsys.readouterr().out


def test_the_plan_names_the_slowest_server_and_what_is_expected(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = printed(config, capsys, "--plan", "--ranks", "4")
    assert "300 in 6 batches, 0 refused, 0 ignored" in page
    assert "50.0 s, set by slow.example.org" in page
    assert "with 4 ranks" in page
    assert "2 ranks: more would only wait for the servers" in page
    assert "about 30.0 MB to download" in page
    assert "Nothing is profiled yet" in page


def test_the_plan_says_that_it_leaves_added_rows_out(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(config, capsys, "--plan")
    assert "not in this plan" not in printed(config, capsys, "--plan")
    with (config.parent / "urls.csv").open("a") as table:
        table.write("https://fast.example.org/200.jpg\n")
    page = printed(config, capsys, "--plan")
    assert "300 in 6 batches" in page
    assert "rows that were added since then are not in this plan" in page.replace("\n", " ")


def test_the_plan_counts_what_was_profiled(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(config, capsys, "--plan")
    (config.parent / "out" / "profiles.csv").write_text(PROFILES)
    page = printed(config, capsys, "--plan", "--ranks", "2")
    # 100 files of 1,000 bytes, and every other one of 200 files of 5,000.
    assert "about 600.0 kB to download" in page
    assert "52.1 s with 2 ranks" in page, "50 s of requests, 2 s around them, and the last commit"
    assert "Nothing is profiled yet" not in page
