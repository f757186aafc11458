"""JSON documents, Arrow files, endings and formats, and which files of a folder are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from ddmpi.config.input_section import InputSection
from ddmpi.errors import InputError
from ddmpi.io.input.table import InputTable, open_input

URLS = [f"http://a.com/{number}" for number in range(3)]


def opened(path: Path, keep: tuple[str, ...] = (), **keys: Any) -> InputTable:
    return open_input(str(path), {}, keep, None, InputSection(**keys))


def column(table: InputTable, name: str = "identifier") -> list[Any]:
    values: list[Any] = pa.Table.from_batches(table.batches(), table.schema).column(name).to_pylist()
    return values


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# ---- JSON documents


@pytest.mark.parametrize("records", [None, "data", "data.items"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_place_of_the_array(tmp_path: Path, records: str | None, mark: bytes) -> None:
    rows: Any = [{"identifier": url, "n": n, "tags": ["x"] * n} for n, url in enumerate(URLS)]
    for key in reversed((records or "").split(".") if records else []):
        rows = {"before": [{"identifier": "no"}], key: rows, "after": [[1, [2]], {}]}
    path = written(tmp_path / "in.json", mark + json.dumps(rows, indent=2).encode())
    table = opened(path, ("n", "tags"), records=records)
    assert column(table) == URLS
    assert column(table, "tags") == [["x"] * n for n in range(3)]


def test_a_document_in_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.io.sources.json_rows.BLOCK_BYTES", 100)
    urls = [f"http://a.com/{number}" for number in range(50)]
    path = written(tmp_path / "in.json", json.dumps({"rows": [{"identifier": url} for url in urls]}))
    table = opened(path, records="rows")
    assert column(table) == urls
    assert column(table, "row_number") == list(range(50))


def test_an_array_of_urls(tmp_path: Path) -> None:
    assert column(opened(written(tmp_path / "in.json", json.dumps(URLS)))) == URLS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"identifier": "x"}, {"ident', "is not one JSON document"),
        ('[{"identifier": "x"}] trailing', "is not one JSON document"),
        ("", "is not one JSON document"),
        ("[1, 2]", "record 1 is no object: 1"),
        ('{"a": 1}', "is not an array; it has no array of objects"),
        ('{"a": [{"b": 1}], "c": [{"identifier": 1}]}', r"write input: \{format: json, records: c\}.*a \(b\); c"),
        ('[{"identifier": "x"}, {"identifier": 5}]', r"rows counted from record 1"),
    ],
)
def test_what_is_wrong_with_a_document(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path / "in.json", text)
    with pytest.raises(InputError, match=told) as raised:
        column(opened(path))
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_an_array_without_elements_is_a_table_without_rows(tmp_path: Path) -> None:
    assert column(opened(written(tmp_path / "in.json", '{"rows": []}'), records="rows")) == []


# ---- Arrow files


@pytest.mark.parametrize("name", ["in.arrow", "in.feather", "in.ipc", "stream.arrow"])
def test_arrow_files(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.io.sources.columnar.BATCH_ROWS", 2)
    table = pa.table({"identifier": URLS, "n": [1, 2, 3]})
    path = tmp_path / name
    if name == "in.feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        new = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    found = opened(path, ("n",))
    assert column(found) == URLS
    assert column(found, "n") == [1, 2, 3]
    whole = path.read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"FEA1" + whole):
        with pytest.raises(InputError, match=rf"{name}: "):
            column(opened(written(path, data)))


# ---- endings, formats, folders


@pytest.mark.parametrize("name", ["in.pq", "in.parq", "in.data"])
def test_parquet_by_other_names(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"identifier": URLS}), tmp_path / name)
    assert column(opened(tmp_path / name, format="parquet" if name == "in.data" else "auto")) == URLS


@pytest.mark.parametrize(("name", "format_"), [("in.ndjson", "auto"), ("in.log", "jsonl")])
def test_json_lines_by_other_names(tmp_path: Path, name: str, format_: str) -> None:
    path = written(tmp_path / name, "".join(f'{{"identifier": "{url}"}}\n' for url in URLS))
    assert column(opened(path, format=format_)) == URLS


def test_an_unknown_ending_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in.log: not a known kind of file .*write input.format"):
        opened(written(tmp_path / "in.log", "x"))


def test_tables_in_txt_files_are_told(tmp_path: Path) -> None:
    lines = "gbifID\tidentifier\n" + "".join(f"{n}\t{url}\n" for n, url in enumerate(URLS))
    path = written(tmp_path / "multimedia.txt", lines)
    with pytest.raises(InputError, match=r"line 1 is no URL, but has tabs, .*write input: \{format: tsv\}$"):
        opened(path)
    assert column(opened(path, format="tsv")) == URLS
    assert len(column(opened(path, format="txt"))) == 4


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder, url in ((data / "a", URLS[0]), (other / "b", URLS[1])):
        folder.mkdir(parents=True)
        written(folder / "in.txt", f"{url}\n")
    (data / "linked").symlink_to(other)
    (data / "again").symlink_to(other)
    (data / "a" / "loop").symlink_to(data)
    (other / "b" / "loop").symlink_to(other)
    table = opened(data)
    assert column(table) == URLS[:2]
    assert column(opened(data)) == column(table)


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    for name in ("in.csv", "notes.docx", "_old.csv", ".hidden.csv", "stats.json"):
        written(tmp_path / name, "identifier\nhttp://a.com/1\n")
    table = opened(tmp_path)
    assert column(table) == ["http://a.com/1"]
    assert table.passed_over == "3 files of other kinds are passed over: _old.csv, notes.docx, stats.json"
    stored = open_input(f"file://{tmp_path}", {}, [])
    assert stored.passed_over == table.passed_over


def test_files_that_are_read_alike_are_told_in_one_line(tmp_path: Path) -> None:
    for number in range(3):
        written(tmp_path / f"{number}.csv", "identifier,n\nhttp://a.com/1,2\n")
    written(tmp_path / "3.csv", "identifier\tn\nhttp://a.com/1\t2\n")
    assert opened(tmp_path).descriptions() == [
        "0.csv and 2 others: CSV, separator comma, quotes, header, UTF-8; 1 of 2 columns used",
        "3.csv: CSV, separator tab, no quoting, header, UTF-8; 1 of 2 columns used",
    ]


def test_how_a_file_is_read_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", "identifier,n\nhttp://a.com/1,2\n")
    usual = opened(path).fingerprint()
    assert opened(path, separator=",", quote='"').fingerprint() == usual
    assert opened(path, quote="none").fingerprint() != usual
    assert opened(path, encoding="cp1252").fingerprint() != usual


def test_json_lines_may_all_be_empty(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"identifier": "http://a.com/1"}\n')
    (tmp_path / "2.jsonl").write_text("\n \n\n")
    assert column(opened(tmp_path)) == ["http://a.com/1"]
