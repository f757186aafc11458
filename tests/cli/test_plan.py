"""What --plan and --status say of a run, over real folders and without network."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.cli.arguments import parse_arguments
from ddmpi.cli.inspection import run
from ddmpi.config.config import load
from ddmpi.errors import InputError, OutputError
from ddmpi.io.folder.checkpoint import Checkpoint, save
from ddmpi.io.folder.layout import Layout

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


def test_small_servers_are_called_by_the_first_of_them(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"https://{name}.example.net/{number}.jpg" for name in ("a", "b", "c") for number in range(3)]
    (config.parent / "urls.csv").write_text("identifier\n" + "\n".join(rows) + "\n")
    for option in ("--plan", "--status"):
        page = printed(config, capsys, option)
        assert "a.example.net and 2 more small servers" in page
        assert "__many__" not in page


def test_the_plan_says_which_host_decides_and_what_would_shorten_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = {
        "static.inaturalist.org": 600_000, "upload.wikimedia.org": 6_000, "photos.example.org": 30_000,
        "inaturalist-open-data.s3.amazonaws.com": 10_000, "mine.example.org": 5,
    }  # fmt: skip
    lines = [f"https://{host}/{number}.jpg" for host, rows in hosts.items() for number in range(rows)]
    (tmp_path / "urls.csv").write_text("identifier\n" + "\n".join(lines) + "\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"path_to_input: {tmp_path}/urls.csv\npath_to_output_folder: {tmp_path}/out\n"
        'downloader_parameters: {header: "User-Agent: tests/1.0 (+https://example.org)"}\n'
    )
    page = printed(config, capsys, "--plan")
    table = page.partition("Slowest servers")[2].splitlines()
    assert " static.inaturalist.org  " in table[1]
    assert "  600,000 rows  " in table[1]
    assert "5.0 GB/h, 24.0 GB/d" in table[1]
    assert table[1].startswith("  2.0 d "), "60 GB: two whole days, and the rest on the third"
    assert "stated: 5 GB of media an hour and 24 GB a day" in table[1]
    assert [next(host for host in hosts if host in line) for line in table[2:5]] == [
        "photos.example.org", "upload.wikimedia.org", "inaturalist-open-data.s3.amazonaws.com",
    ]  # fmt: skip
    assert "10/s" in table[2]
    assert "50 min 00 s" in table[2]
    assert table[2].rstrip().endswith("the default")
    assert "100/s" in table[4]
    assert "1 min 40 s" in table[4]
    assert "careful guess" in table[4]
    said = page.replace("\n", " ")
    assert "static.inaturalist.org decides how long the job takes. Shorter: fewer bytes" in said
    assert "a higher limit that its operator agrees to" in said
    assert "Without it the job would take 50 min 00 s." in said


def test_bytes_per_second_decide_where_files_are_large(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = "servers: [{match: fast.example.org, bytes_per_second: 10000}]\n"
    config.write_text(CONFIG.format(folder=config.parent).partition("servers:")[0] + rule)
    printed(config, capsys, "--plan")
    (config.parent / "out" / "profiles.csv").write_text(PROFILES)
    page = printed(config, capsys, "--plan", "--ranks", "2")
    assert "1 min 40 s, set by fast.example.org" in page, "200 files of 5,000 bytes"
    assert "10.0 kB/s" in page
    assert "yours (servers)" in page


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


def test_the_plan_refuses_what_the_run_refuses(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(config, capsys, "--plan")
    folder = config.parent / "out"
    checkpoint = Checkpoint(1, config_semantic=load(config).semantic())
    save(Layout(folder), checkpoint)
    with pytest.raises(OutputError, match=r"keep_columns: was \[\], is .*mine"):
        run(parse_arguments([str(config), "--plan", "--set", "keep_columns={mine: identifier}"]), {})
