"""What --check says of an input, and that it asks nobody and leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ddmpi.cli.arguments import parse_arguments
from ddmpi.cli.inspection import run
from ddmpi.errors import InputError, OutputError

TABLES = Path(__file__).parents[1] / "io" / "input" / "tables"


def checked(folder: Path, capsys: pytest.CaptureFixture[str], **keys: object) -> str:
    """What --check prints of a job in this folder."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"path_to_output_folder": str(folder / "out"), **keys}))
    try:
        assert run(parse_arguments([str(config), "--check"]), {}) == 0
    finally:
        printed = capsys.readouterr().out
        assert not list(folder.glob("out*")), "nothing is written"
    return printed


def test_a_table_that_is_refused_as_a_whole_is_named_with_what_was_perhaps_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (TABLES / "imagenet-id-tab-url-txt" / "fall11_urls.txt").read_bytes().splitlines()
    table = tmp_path / "lines.parquet"
    pq.write_table(pa.table({"identifier": pa.array(lines, pa.binary())}), table)
    with pytest.raises(InputError, match="all 50 rows are refused") as caught:
        checked(tmp_path, capsys, path_to_input=str(table))
    assert "allow_refused: true" in str(caught.value)
    page = checked(tmp_path, capsys, path_to_input=str(table), allow_refused=True)
    assert "rows      50, 50 of them refused" in page
    assert r"control_character 49, e.g. row 0: 'n00004475_6590\thttp://farm4" in page
    assert "bad_encoding 1, e.g. row 49" in page
    assert "input: {format: tsv, header: false, names: [column_1, identifier]}" in page
    assert "0 URLs on 0 servers" in page


def test_the_urls_are_shown_as_they_will_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["HTTP://A.example:80/ä.jpg#x", " https://a.example/1.jpg ", "https://a.example/1.jpg", "https://c.example/"]
    (tmp_path / "urls.txt").write_text("\n".join(rows) + "\n")
    page = checked(tmp_path, capsys, path_to_input=str(tmp_path / "urls.txt"))
    asked = ["http://a.example/%C3%A4.jpg", "https://a.example/1.jpg", "https://a.example/1.jpg"]
    lines = [line.split()[-1] for line in page.splitlines() if ".example/" in line]
    assert lines == asked
    assert "largest   a.example 3, c.example 1" in page


def test_columns_types_uses_and_what_the_filter_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = [f"https://a.example/{number % 4}.jpg" for number in range(10)]
    table = pa.table({"url": urls, "year": pa.array(range(10), pa.int16()), "other": ["x"] * 10})
    pq.write_table(table, tmp_path / "one.parquet")
    keys = {"path_to_input": str(tmp_path / "one.parquet"), "columns": {"identifier": "url"}, "keep_columns": ["year"]}
    page = checked(tmp_path, capsys, **keys, filter="year < 3 or year > 5")
    assert "url string (identifier), year int16 (kept, filter), other string" in page
    assert "rows      7, 0 of them refused; 3 more left out by the filter (the first: row 3)" in page
    assert "4 URLs on 1 server" in page


def test_each_file_has_an_account_and_their_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number, bad in enumerate(["", "ftp://a.example/x", "https://a.example/0.jpg"]):
        lines = [f"https://a.example/{row}.jpg" for row in range(3)]
        (tmp_path / "in" / f"part-{number}.csv").write_text("\n".join(["identifier", *lines, f'"{bad}"']) + "\n")
    (tmp_path / "in" / "part-3.csv").write_text("identifier\n")
    page = checked(tmp_path, capsys, path_to_input=str(tmp_path / "in"))
    assert page.count("rows      4, 1 of them refused") == 2
    assert "rows      0, 0 of them refused" in page
    assert "all 4 files\n  rows      12, 2 of them refused" in page
    assert "empty 1, e.g. row 3: ''" in page
    assert "bad_scheme 1, e.g. row 7: 'ftp://a.example/x'" in page
    assert "3 URLs on 1 server" in page


def test_of_many_files_the_first_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(25):
        (tmp_path / "in" / f"{number:02d}.txt").write_text(f"https://a.example/{number}.jpg\n")
    page = checked(tmp_path, capsys, path_to_input=str(tmp_path / "in"))
    assert "19.txt" in page
    assert "20.txt" not in page
    assert "and 5 more files" in page
    assert "25 URLs on 1 server" in page


def test_a_wrong_column_is_found_in_the_row_that_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("identifier,photo\n1,https://a.example/1.jpg\n2,https://a.example/2.jpg\n")
    page = checked(tmp_path, capsys, path_to_input=str(tmp_path / "t.csv"), allow_refused=True)
    assert "perhaps the column photo has URLs: columns: {identifier: photo}" in page


def test_passwords_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("identifier,also\nhttps://me:secret@a.example/1.jpg,https://me:secret@a.example/\n")
    page = checked(tmp_path, capsys, path_to_input=str(tmp_path / "t.csv"), allow_refused=True)
    assert "credentials 1, e.g. row 0: 'https://a.example/1.jpg'" in page
    assert "secret" not in page


def test_two_parallel_files_are_joined_by_a_query(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TABLES / "sbu-two-files", tmp_path / "sbu")
    monkeypatch.chdir(tmp_path / "sbu")
    sql = """
        WITH urls AS (SELECT row_number() OVER () AS n, identifier FROM read_csv(
            'SBU_captioned_photo_dataset_urls.txt', header=false, delim='\x01', quote='', names=['identifier'])),
        captions AS (SELECT row_number() OVER () AS n, caption FROM read_csv(
            'SBU_captioned_photo_dataset_captions.txt', header=false, delim='\x01', quote='', names=['caption']))
        SELECT identifier, caption FROM urls JOIN captions USING (n) ORDER BY n"""
    lines = (tmp_path / "sbu" / "SBU_captioned_photo_dataset_urls.txt").read_text().splitlines()
    page = checked(tmp_path, capsys, input={"sql": sql}, keep_columns=["caption"])
    assert f"rows      {len(lines)}, 0 of them refused" in page
    assert f"URLs      {lines[0]}" in page
    assert "caption string (kept)" in page


def test_a_folder_that_was_begun_with_another_config_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("identifier,year\nhttps://a.example/1.jpg,2000\n")
    config = tmp_path / "config.yaml"
    keys = {"path_to_input": str(tmp_path / "t.csv"), "path_to_output_folder": str(tmp_path / "out")}
    config.write_text(yaml.safe_dump(keys))
    run(parse_arguments([str(config), "--plan"]), {})
    config.write_text(yaml.safe_dump({**keys, "keep_columns": ["year"]}))
    for option in ("--check", "--plan"):
        with pytest.raises(OutputError, match=r"keep_columns: was \[\], is \['year'\]"):
            run(parse_arguments([str(config), option]), {})
    capsys.readouterr()
