"""Credits: each image once, its license named, what is from outside escaped, records counted as GBIF counts them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ddmpi.export import __main__ as program
from ddmpi.export.targets import credits as target
from tests.export.tables import write_results

NASTY = '<script>alert(1)</script>, "A" \n& B'
GIVEN: dict[str, list[Any]] = {
    "license": ["http://creativecommons.org/licenses/by-nc/4.0/", "CC BY-NC 4.0", "see <b>website</b>", None, "CC0"],
    "creator": ["Ann", "Ann", NASTY, None, " "],
    "rightsHolder": [None, None, None, "A Museum", None],
    "datasetKey": ["d-one", "d-one", "d-two", None, "d-two"],
    "source_id": ["7", "7", "8", "9", None],
    "source": ["https://example.org/7", "javascript:alert(1)", "A book", None, "https://example.org/x"],
    "title": ["Lynx", "Lynx, again", NASTY, None, "Owl"],
}


def credit(results: Path, folder: Path, *options: str) -> list[dict[str, str]]:
    """The lines of ATTRIBUTION.csv, in the order of the rows."""
    assert program.main([str(results), str(folder), "--to", "credits", "--shard-bytes", "1", *options]) == 0
    with (folder / "ATTRIBUTION.csv").open(encoding="utf-8", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda line: line["file"])


def test_each_image_is_credited(tmp_path: Path) -> None:
    write_results(tmp_path / "out", GIVEN)
    lines = credit(tmp_path / "out", tmp_path / "credits")
    assert [line["license_spdx"] for line in lines] == ["CC-BY-NC-4.0", "CC-BY-NC-4.0", "", "", "CC0-1.0"]
    assert [line["license"] for line in lines] == [text or "" for text in GIVEN["license"]]
    assert [line["creator"] for line in lines] == ["Ann", "Ann", NASTY, "A Museum", ""]
    assert lines[2]["title"] == NASTY
    assert lines[0]["uuid"] == "uuid-0"
    assert (lines[4]["file"], lines[4]["url"]) == ("000000000004", "http://img.example.org:8080/4")
    assert sorted(path.name for path in (tmp_path / "credits").iterdir()) == [
        ".export", "ATTRIBUTION.csv", "credits.html", "derived-dataset.csv", "export.json",
    ]  # fmt: skip


def test_records_are_counted_by_dataset_once(tmp_path: Path) -> None:
    """Two images of record 7 are one record; a row without a source_id is one of its own."""
    write_results(tmp_path / "out", GIVEN)
    credit(tmp_path / "out", tmp_path / "credits")
    assert (tmp_path / "credits/derived-dataset.csv").read_text() == "d-two,2\nd-one,1\n"


def test_the_page_shows_what_the_table_says_as_text(tmp_path: Path) -> None:
    write_results(tmp_path / "out", GIVEN)
    credit(tmp_path / "out", tmp_path / "credits")
    page = (tmp_path / "credits/credits.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert 'href="javascript:' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert '<a href="https://spdx.org/licenses/CC-BY-NC-4.0.html">CC-BY-NC-4.0</a>' in page
    assert "not a known license" in page
    assert "src=" not in page


def test_a_long_page_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "MOST_LINES", 2)
    write_results(tmp_path / "out", GIVEN)
    credit(tmp_path / "out", tmp_path / "credits")
    page = (tmp_path / "credits/credits.html").read_text()
    assert "3 more are in ATTRIBUTION.csv" in page
    assert "2 more lines are in ATTRIBUTION.csv" in page


def test_another_column_may_name_the_creator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path / "out", {"credit_line": [["A", "B"], None]})
    lines = credit(tmp_path / "out", tmp_path / "credits", "--creator", "credit_line")
    assert [line["creator"] for line in lines] == ['["A", "B"]', ""]
    assert not (tmp_path / "credits/derived-dataset.csv").exists()
    wrong = [str(tmp_path / "out"), str(tmp_path / "x"), "--to", "credits", "--creator", "nobody"]
    assert program.main(wrong) == 2
    assert "no column nobody" in capsys.readouterr().err


def test_a_kill_before_the_end_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_results(tmp_path / "out", GIVEN)
    whole = credit(tmp_path / "out", tmp_path / "whole")
    monkeypatch.setattr(Path, "unlink", _failing(Path.unlink))
    with pytest.raises(SystemExit):
        credit(tmp_path / "out", tmp_path / "credits")
    monkeypatch.undo()
    (tmp_path / "credits/.export/lock").unlink()
    assert credit(tmp_path / "out", tmp_path / "credits") == whole
    assert not list((tmp_path / "credits").glob("*.parquet"))


def _failing(unlink: Any) -> Any:
    def unlink_no_piece(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".parquet":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    return unlink_no_piece
