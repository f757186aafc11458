"""What --plan and --status say of a run, over real folders and without network."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.cli.arguments import parse_arguments
from ddmpi.cli.inspection import run
from ddmpi.errors import InputError

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


def test_one_rank_is_one_rank(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(config, capsys, "--plan", "--ranks", "1")
    assert [line.split(" with ")[1].strip() for line in page.splitlines() if " with " in line] == ["1 rank"]


def test_a_new_input_is_described_first(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(config, capsys, "--plan")
    assert "rows      300, 0 of them refused" in page
    assert "largest   fast.example.org 200, slow.example.org 100" in page
    assert "of them refused" not in printed(config, capsys, "--plan"), "it is known now"


def test_a_table_that_is_refused_is_not_planned(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, text = config.parent / "urls.csv", config.read_text()
    table.write_text("identifier\n" + "no URL\n" * 20 + "https://fast.example.org/1.jpg\n" * 19)
    with pytest.raises(InputError, match="20 of 39 rows are refused"):
        printed(config, capsys, "--plan")
    assert not (config.parent / "out" / "urls").exists(), "another config may still be tried in this folder"
    config.write_text(text + "allow_refused: true\n")
    page = printed(config, capsys, "--plan")
    assert "39 in 2 batches, 20 refused, 0 ignored" in page
    assert "about 1.9 MB to download" in page, "what is refused is not downloaded"


def test_nothing_but_refused_rows_is_no_download(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "urls.csv").write_text("identifier\n" + "no URL\n" * 20)
    config.write_text(config.read_text() + "allow_refused: true\n")
    page = printed(config, capsys, "--plan")
    assert "20 in 1 batch, 20 refused" in page
    assert "nothing to download" in page


def test_a_plan_leaves_the_object_store_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text() + "publish: {to: 's3://bucket/prefix?endpoint_override=127.0.0.1:9'}\n")
    assert "300 in 6 batches" in printed(config, capsys, "--plan")
    assert not (config.parent / "out" / "publication.json").exists(), "the prefix is not claimed"


def test_a_plan_over_a_query_runs_it_once(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    query = "input: {sql: \"FROM read_csv('urls.csv', header=true, delim=',') ORDER BY identifier\"}"
    config.write_text(config.read_text().replace(f"path_to_input: {config.parent}/urls.csv", query))
    assert "Running the query" in printed(config, capsys, "--plan")
    page = printed(config, capsys, "--plan")
    assert "300 in 6 batches" in page
    assert "Running the query" not in page
    with (config.parent / "urls.csv").open("a") as table:
        table.write("https://z.example.org/1.jpg\n")
    page = printed(config, capsys, "--plan")
    assert "not in this plan" in page.replace("\n", " ")
