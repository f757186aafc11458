"""A table without a config: what is seen in it, and the config that is written for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ddmpi.cli.arguments import Arguments
from ddmpi.cli.commands import read_command
from ddmpi.cli.table_config import draft, seen, write_config, write_draft
from ddmpi.config.config import load, parse
from ddmpi.errors import DdmpiError, OutputError


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("birds.csv")
    path.write_text("photo,id,species\nhttps://a.example/1.jpg,1,Parus major\nhttps://a.example/2.jpg,2,Pica pica\n")
    return path


def asked(*words: str) -> Arguments:
    return read_command(["birds.csv", "-o", "birds", *words])


def refusal(*words: str) -> str:
    with pytest.raises(DdmpiError) as refused:
        write_config(asked(*words))
    return str(refused.value)


def test_the_config_that_is_used_is_written_into_the_output_folder(table: Path) -> None:
    words = ["--keep", "species", "--rate", "2.5", "--contact", "me@uni.example.edu", "--set", "breaker.failures=7"]
    config = load(write_config(asked(*words)))
    assert config.path_to_input == str(table.absolute())
    assert config.path_to_output_folder == str(Path("birds").absolute())
    assert config.columns.plain()["identifier"] == "photo"
    assert config.keep_columns == ("species",)
    assert config.downloader_parameters.default_rate_limit == 2.5
    assert config.user_agent == "ddmpi (+mailto:me@uni.example.edu)"
    assert config.breaker.failures == 7
    assert load(Path("birds")) == config, "the folder stands for its config"


def test_the_same_command_goes_on_and_another_one_is_refused(table: Path) -> None:
    written = write_config(asked("--rate", "2")).read_text()
    assert write_config(asked("--rate", "2")).read_text() == written
    told = refusal("--rate", "3")
    assert "with other keys (downloader_parameters). Write: ddmpi run birds" in told
    assert Path("birds/config.yaml").read_text() == written
    assert table.exists()


def test_a_trial_has_a_folder_of_its_own(table: Path) -> None:
    assert write_config(asked("--limit", "1")) == Path("birds.limit-1/config.yaml").absolute()
    assert load(Path("birds.limit-1")).path_to_output_folder == str(Path("birds.limit-1").absolute())
    write_config(asked())
    assert table.exists()


def test_a_wrong_option_is_told_as_in_a_file(table: Path) -> None:
    assert "downloader_parameters.default_rate_limit: 'fast': expected a number" in refusal("--rate", "fast")
    assert "limit: 0: expected a whole number from 1" in refusal("--limit", "0")
    assert not Path("birds").exists()
    assert table.exists()


def test_which_column_has_the_urls_is_asked_where_it_cannot_be_told(table: Path) -> None:
    table.write_text("small,large\nhttps://a.example/1.jpg,https://a.example/1-l.jpg\n")
    assert "several columns have URLs: small, large. Write: ddmpi birds.csv -o birds --url small" in refusal()
    assert load(write_config(asked("--url", "large"))).columns.plain()["identifier"] == "large"
    table.write_text("a,b\n1,2\n")
    assert "no column has URLs in its first rows; found: a, b" in refusal("--rate", "9")


def test_a_preset_that_knows_the_columns_is_named(table: Path) -> None:
    names = ["gbifID", "type", "format", "identifier", "references", "title", "description", "source", "created",
             "creator", "contributor", "publisher", "license", "rightsHolder"]  # fmt: skip
    table.write_text("\t".join(names) + "\n" + "\t".join(["1", "StillImage"] + ["x"] * 12) + "\n")
    assert refusal().endswith("Write: ddmpi birds.csv -o birds --preset gbif")


def test_a_config_in_the_place_of_a_table(table: Path) -> None:
    Path("c.yaml").write_text("path_to_input: birds.csv\n")
    with pytest.raises(DdmpiError, match=r"c\.yaml: this is a config, and no table\. Write: ddmpi run c\.yaml"):
        write_config(read_command(["c.yaml", "-o", "x"]))
    assert table.exists()


def test_a_draft_is_a_config_as_it_stands_and_says_what_was_seen(table: Path) -> None:
    text = draft(seen(str(table)), "birds")
    assert "#   photo    string  URLs  https://a.example/1.jpg\n" in text
    assert "# keep_columns: [id, species]\n" in text
    config = parse(yaml.safe_load(text), "the draft")
    assert config.columns.plain()["identifier"] == "photo"
    assert config.path_to_output_folder == "birds"
    lines = [line.removeprefix("# ") if ": " in line and "saw" not in line else line for line in text.splitlines()]
    every = "\n".join(lines).replace("  # header", "  header")
    assert parse(yaml.safe_load(every), "all of it").keep_columns == ("id", "species")


def test_a_draft_overwrites_nothing(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_draft(read_command(["init", str(table)])) == 0
    assert capsys.readouterr().out == "birds.yaml is written; read it, then: ddmpi check birds.yaml\n"
    with pytest.raises(OutputError, match=r"Write: ddmpi init birds\.csv -o ANOTHER\.yaml"):
        write_draft(read_command(["init", str(table)]))
    write_draft(read_command(["init", str(table), "-o", "-"]))
    assert capsys.readouterr().out == Path("birds.yaml").read_text()
