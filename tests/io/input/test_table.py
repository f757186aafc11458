"""Input tables of every kind, and what is said of those that cannot be used."""

from __future__ import annotations

import gzip
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import InputError
from ddmpi.io.input.rows import TEXT_COLUMNS, as_text
from ddmpi.io.input.table import InputTable, open_input

SAME = {name: name for name in TEXT_COLUMNS}
BOM = b"\xef\xbb\xbf"


def opened(path: Path | str, columns: Mapping[str, str] = SAME, keep: Sequence[str] = ()) -> InputTable:
    return open_input(str(path), columns, keep)


def rows_of(table: InputTable) -> pa.Table:
    return pa.Table.from_batches(table.batches(), table.schema)


def column(table: InputTable, name: str) -> list[Any]:
    return rows_of(table).column(name).to_pylist()


def urls_of(path: Path, columns: Mapping[str, str] = SAME) -> list[Any]:
    return column(opened(path, columns), "identifier")


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


URLS = ["http://a.com/1", "http://b.org/2", "x"]


def test_parquet_has_all_columns(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "in.parquet", url=URLS, gbifID=[7, None, 9], license=["cc0", None, "by"], extra=[1.5, 2, 3]
    )
    table = opened(
        path, {"identifier": "url", "source_id": "gbifID", "license": "license", "title": "absent"}, ["extra"]
    )
    assert table.rows == 3
    rows = rows_of(table)
    derived = rows.column("uuid").to_pylist()
    assert rows.drop_columns(["uuid"]).to_pydict() == {
        "row_number": [0, 1, 2],
        "server_name": ["a.com", "b.org", None],
        "source_id": ["7", None, "9"],
        "identifier": URLS,
        "license": ["cc0", None, "by"],
        "source": [None] * 3,
        "title": [None] * 3,
        "reject": [None, None, "bad_scheme: none given"],
        "extra": [1.5, 2.0, 3.0],
    }
    assert len({uuid.UUID(text) for text in derived}) == 3
    assert rows.schema.equals(table.schema)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("packed", ["", "gz", "zst"])
def test_delimited_text(tmp_path: Path, ending: str, packed: str) -> None:
    comma = "," if ending == "csv" else "\t"
    lines = ["identifier,title,n", "http://a.com/1,one,1", ',"two ""2""\nlines",2', "http://c.net/3,,3"]
    data = BOM + "\r\n".join(lines).replace(",", comma).encode()
    path = tmp_path / ".".join(filter(None, ["in", ending, packed]))
    path.write_bytes(compress(data, packed))
    rows = rows_of(opened(path, keep=["n"]))
    assert rows.column("identifier").to_pylist() == ["http://a.com/1", None, "http://c.net/3"]
    assert rows.column("title").to_pylist() == ["one", 'two "2"\nlines', None]
    assert rows.column("n").to_pylist() == ["1", "2", "3"]
    assert rows.column("reject").to_pylist() == [None, "null_url", None]


def compress(data: bytes, packed: str) -> bytes:
    if packed == "zst":
        return bytes(pa.compress(data, codec="zstd", asbytes=True))
    return gzip.compress(data) if packed == "gz" else data


@pytest.mark.parametrize("packed", ["", "gz", "zst"])
def test_lines(tmp_path: Path, packed: str) -> None:
    path = tmp_path / ".".join(filter(None, ["in", "txt", packed]))
    path.write_bytes(compress(BOM + b'http://a.com/1\r\n\nhttp://b.org/,\x01"2\nhttp://c.net', packed))
    rows = rows_of(opened(path, {"identifier": "url"}))
    assert rows.column("identifier").to_pylist() == ["http://a.com/1", "", 'http://b.org/,\x01"2', "http://c.net"]
    assert rows.column("reject").to_pylist() == [None, "empty", "control_character: 0x01", None]


@pytest.mark.parametrize("packed", ["", "gz", "zst"])
def test_json_lines(tmp_path: Path, packed: str) -> None:
    path = tmp_path / ".".join(filter(None, ["in", "jsonl", packed]))
    lines = ['{"identifier": "http://a.com/1", "source_id": 5, "title": "2020-01-01"}', '{"title": "ü", "k": [1]}']
    path.write_bytes(compress(BOM + "\n".join(lines).encode(), packed))
    rows = rows_of(opened(path, keep=["k"]))
    assert rows.column("identifier").to_pylist() == ["http://a.com/1", None]
    assert rows.column("source_id").to_pylist() == ["5", None]
    assert rows.column("title").to_pylist() == ["2020-01-01", "ü"]
    assert rows.column("k").to_pylist() == [None, [1]]


def test_text_in_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.io.sources.text_lines.BLOCK_BYTES", 40)
    urls = [f"http://a.com/{number}" for number in range(100)]
    lines = written(tmp_path / "in.txt", "\n".join(urls).encode())
    assert urls_of(lines) == urls
    json = written(tmp_path / "in.jsonl", "".join(f'{{"identifier": "{url}"}}\n' for url in urls).encode())
    assert column(opened(json), "row_number") == list(range(100))
    assert urls_of(json) == urls
    late = "".join(f'{{"identifier": "{url}"}}\n' for url in urls) + '{"identifier": "x", "title": "late"}\n'
    assert column(opened(written(tmp_path / "late.jsonl", late.encode())), "title")[-1] == "late"


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.io.sources.text_lines.BLOCK_BYTES", 40)
    monkeypatch.setattr("ddmpi.io.sources.text_lines.LINE_MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"in\.txt: line 2 has more than 100 bytes"):
        urls_of(written(tmp_path / "in.txt", b"http://a.com\n" + b"x" * 500))


@pytest.mark.parametrize(
    "type_",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)
def test_types_of_the_url_column(tmp_path: Path, type_: pa.DataType) -> None:
    path = parquet(tmp_path / "in.parquet", identifier=pa.array([*URLS, None]).cast(type_))
    assert urls_of(path) == [*URLS, None]


@pytest.mark.parametrize("type_", [pa.int64(), pa.list_(pa.string()), pa.struct([("a", pa.string())])], ids=str)
def test_a_url_column_that_is_not_text(tmp_path: Path, type_: pa.DataType) -> None:
    path = parquet(tmp_path / "in.parquet", identifier=pa.array([None, None], type_))
    with pytest.raises(InputError, match=r"in\.parquet: column identifier must be text"):
        opened(path)


def test_bytes_that_are_not_utf8_refuse_their_row_alone(tmp_path: Path) -> None:
    data = pa.array([b"http://a.com/1", b"http://a.com/\xff", b"http://a.com/\xef\xbf\xbd"], pa.binary())
    claimed = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    for name, urls in (("bytes", data), ("claimed text", claimed)):
        rows = rows_of(opened(parquet(tmp_path / f"{name}.parquet", identifier=urls, title=urls)))
        assert rows.column("reject").to_pylist() == [None, "bad_encoding: not UTF-8", None]
        assert rows.column("server_name").to_pylist() == ["a.com", None, "a.com"]
        assert rows.column("identifier")[1].as_py() == rows.column("title")[1].as_py() == "http://a.com/\ufffd"
    csv = written(tmp_path / "in.csv", b"identifier\nhttp://a.com/\xff\nhttp://b.org\n")
    assert column(opened(csv), "server_name") == [None, "b.org"]


def test_credentials_are_not_kept(tmp_path: Path) -> None:
    urls = ["http://me:pw@a.com/x", "ftp://me:pw@a.com/", "http:/me@a.com", "http://a.com/x@y", "mailto:me@a.com", None]
    rows = rows_of(opened(parquet(tmp_path / "in.parquet", identifier=urls)))
    kept = ["http://a.com/x", "ftp://a.com/", "http:/a.com", "http://a.com/x@y", "mailto:a.com", None]
    assert rows.column("identifier").to_pylist() == kept
    assert rows.column("server_name").to_pylist() == [None, None, None, "a.com", None, None]
    assert rows.column("reject")[0].as_py() == "credentials"


@pytest.mark.parametrize("name", ["in.parquet", "in.csv", "in.jsonl", "in.csv.gz", "in.jsonl.zst", "in.txt"])
def test_no_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "in.parquet":
        parquet(path, identifier=pa.nulls(0, pa.string()))
    else:
        path.write_bytes(compress(b"identifier\n" if "csv" in name else b"", name.rpartition(".")[2]))
    assert rows_of(opened(path)).num_rows == 0


@pytest.mark.parametrize("header", [b"identifier", BOM + b"identifier", b'"title","identifier"', b"identifier\r"])
@pytest.mark.parametrize("packed", ["", "gz"])
def test_a_header_without_a_line_feed_is_a_table_without_rows(tmp_path: Path, header: bytes, packed: str) -> None:
    path = written(tmp_path / ".".join(filter(None, ["in", "csv", packed])), compress(header, packed))
    assert rows_of(opened(path)).num_rows == 0


@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in.jsonl", "in.tsv.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encodings_than_utf8_are_told(tmp_path: Path, name: str, encoding: str) -> None:
    text = "identifier\nhttp://a.com/\n".encode(encoding)
    path = written(tmp_path / name, compress(text, name.rpartition(".")[2]))
    with pytest.raises(InputError, match="is not in UTF-8, but in UTF-16 or UTF-32"):
        opened(path)


def hive(folder: Path) -> Path:
    """Two files below folders whose names give them the columns ``kind`` and ``year``."""
    for year, kind, url in (("2023", "a%2Fb", "http://a.com/1"), ("2024", "__HIVE_DEFAULT_PARTITION__", "x")):
        below = folder / "in" / f"year={year}" / f"kind={kind}"
        below.mkdir(parents=True)
        parquet(below / "part.parquet", identifier=[url, url], n=[1, 2])
    return folder / "in"


def test_folders_named_name_and_value_give_columns(tmp_path: Path) -> None:
    table = opened(hive(tmp_path), {"identifier": "identifier", "title": "kind"}, keep=["year", "n"])
    rows = rows_of(table)
    assert rows.column("title").to_pylist() == ["a/b", "a/b", None, None]
    assert rows.column("year").to_pylist() == ["2023", "2023", "2024", "2024"]
    assert rows.column("n").to_pylist() == [1, 2, 1, 2]
    assert table.rows == 4


def test_a_glob_gives_the_columns_of_the_folders_that_it_leaves_open(tmp_path: Path) -> None:
    pattern = hive(tmp_path) / "year=*" / "*" / "*.parquet"
    assert column(opened(pattern, keep=["year"]), "year") == ["2023", "2023", "2024", "2024"]
    one = tmp_path / "in" / "year=2023" / "*" / "*.parquet"
    with pytest.raises(InputError, match="no column year"):
        opened(one, keep=["year"])


def test_a_column_of_the_file_is_preferred_to_one_of_its_folder(tmp_path: Path) -> None:
    below = tmp_path / "in" / "n=9"
    below.mkdir(parents=True)
    written(below / "in.csv", b"identifier,n\nhttp://a.com/,1\n")
    assert column(opened(tmp_path / "in", keep=["n"]), "n") == ["1"]


def test_the_fingerprint_follows_the_folders_names(tmp_path: Path) -> None:
    folder = hive(tmp_path)
    before = opened(folder).fingerprint()
    (folder / "year=2023").rename(folder / "year=2022")
    assert opened(folder).fingerprint() != before


def test_missing_columns_are_told_with_those_found(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", url=URLS, size=[1, 2, 3])
    with pytest.raises(InputError, match=r"in\.parquet: no column identifier, kept; found: url, size"):
        opened(path, keep=["kept"])


def test_columns_that_cannot_be_kept(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", identifier=URLS, reject=URLS)
    with pytest.raises(InputError, match="keep_columns: reject"):
        opened(path, keep=["reject"])
    with pytest.raises(InputError, match="each column once"):
        opened(path, {"identifier": "reject"}, keep=["identifier", "identifier"])


def test_a_nested_column_has_no_text(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", identifier=URLS, title=[["a"], [], None])
    with pytest.raises(InputError, match="column title has no text form"):
        opened(path)


def test_a_column_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than one column is named identifier"):
        opened(written(tmp_path / "in.csv", b"identifier,identifier\na,b\n"))


def damaged_group(tmp_path: Path) -> bytes:
    path = parquet(tmp_path / "whole", identifier=[f"http://a.com/{number}" for number in range(1000)])
    data = bytearray(path.read_bytes())
    data[10:60] = bytes(50)
    return bytes(data)


DAMAGED: dict[str, Callable[[Path], bytes]] = {
    "zero.parquet": lambda _: b"",
    "cut.parquet": lambda folder: parquet(folder / "whole", identifier=URLS).read_bytes()[:-20],
    "magic.parquet": lambda _: b"PAR0" * 10,
    "group.parquet": damaged_group,
    "zero.csv": lambda _: b"",
    "cut.csv.gz": lambda _: gzip.compress(b"identifier\n" + os.urandom(9000).hex().encode())[:-100],
    "plain.csv.gz": lambda _: b"identifier\nhttp://a.com\n",
    "plain.txt.zst": lambda _: b"http://a.com\n",
    "cut.jsonl": lambda _: b'{"identifier": "http://a.com"}\n{"identifier":\n',
    "array.jsonl": lambda _: b"[1]\n",
    "mixed.jsonl": lambda _: b'{"identifier": "http://a.com"}\n{"identifier": 5}\n',
    "in.xlsx": lambda _: b"identifier",
    "in.parquet.gz": lambda _: gzip.compress(b"PAR1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, DAMAGED[name](tmp_path))
    with pytest.raises(InputError) as raised:
        urls_of(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("row", [b"only one", b"http://a.com,2,3"])
def test_a_ragged_row_is_told_with_its_line(tmp_path: Path, row: bytes) -> None:
    path = written(
        tmp_path / "in.csv", b'identifier,title\nhttp://a.com,"two\nlines"\n\n' + row + b"\nhttp://b.org,4\n"
    )
    with pytest.raises(InputError, match=r"in\.csv: line 5 has \d values? where 2 are expected .*input.bad_lines"):
        urls_of(path)


def test_a_json_line_with_a_fault_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.io.sources.text_lines.BLOCK_BYTES", 40)
    path = written(tmp_path / "in.jsonl", b'{"identifier": "http://a.com"}\n' * 3 + b"{broken\n")
    with pytest.raises(InputError, match=r"in\.jsonl: JSON parse error: .*\(rows counted from line 3\)"):
        urls_of(path)


def test_used_columns_of_types_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", identifier=URLS, title=URLS)
    parquet(tmp_path / "b.parquet", identifier=URLS, title=[1, 2, 3], more=URLS)
    with pytest.raises(InputError, match=r"b\.parquet: other columns than in .*a\.parquet: title: string / int64"):
        opened(tmp_path)


def test_a_folder_in_name_order_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for number, name in enumerate(["b.txt", "a.txt", "sub/c.txt", "_d.txt", ".hidden/e.txt", "notes.md"]):
        written(tmp_path / name, f"http://a.com/{number}\n".encode())
    table = opened(tmp_path)
    assert column(table, "identifier") == ["http://a.com/1", "http://a.com/0", "http://a.com/2"]
    assert column(table, "row_number") == [0, 1, 2]


def test_a_glob(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.csv"):
        written(tmp_path / name, f"http://{name}/\n".encode())
    assert urls_of(tmp_path / "*.txt") == ["http://a.txt/", "http://b.txt/"]


@pytest.mark.parametrize("name", ["absent.csv", "*.csv", "."])
def test_no_input_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        opened(tmp_path / name)


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", identifier=URLS)
    first = opened(path).fingerprint()
    assert opened(path).fingerprint() == first
    assert opened(tmp_path).fingerprint() == first
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert opened(path).fingerprint() != first
    parquet(tmp_path / "b.parquet", identifier=URLS)
    assert len({first, opened(path).fingerprint(), opened(tmp_path).fingerprint()}) == 3


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    path = written(tmp_path / "in.txt", b"http://a.com\n")
    table = opened(path)
    written(path, b"http://a.com\nhttp://b.org\n")
    with pytest.raises(InputError, match=r"in\.txt: changed while it was read"):
        rows_of(table)


def test_a_file_that_disappears(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", identifier=URLS)
    table = opened(path)
    path.unlink()
    with pytest.raises(InputError, match=r"in\.parquet: No such file or directory$"):
        rows_of(table)


def test_uuids_given_are_kept_and_missing_ones_derived(tmp_path: Path) -> None:
    given = str(uuid.uuid4())
    path = parquet(tmp_path / "in.parquet", identifier=["http://a.com"] * 4, uuid=[given, None, None, None])
    first = column(opened(path), "uuid")
    assert first[0] == given
    assert len(set(first)) == 4
    assert {uuid.UUID(text).version for text in first[1:]} == {8}
    assert column(opened(path), "uuid") == first


def test_a_derived_uuid_depends_on_source_id_url_and_row_alone(tmp_path: Path) -> None:
    def uuids(name: str, **columns: Any) -> list[Any]:
        return column(opened(parquet(tmp_path / f"{name}.parquet", **columns)), "uuid")

    # The first value is part of the format: results of earlier runs refer to it.
    base = uuids("a", identifier=["http://a.com/x", "http://a.com/x"], source_id=["1", "1"])
    assert base[0] == GOLDEN_UUID
    changed = uuids("b", identifier=["http://a.com/x", "http://a.com/y"], source_id=["1", "1"], title=["t", "u"])
    assert changed[0] == base[0]
    assert changed[1] != base[1]
    assert uuids("c", identifier=["http://a.com/x", "http://a.com/x"], source_id=["1", "2"])[1] != base[1]


GOLDEN_UUID = "babf20a4-4d85-85db-bc27-7f80a93b33dd"


def test_uuids_as_sixteen_bytes(tmp_path: Path) -> None:
    known = uuid.uuid4()
    packed = pa.array([known.bytes, None], pa.binary(16))
    assert as_text(packed)[0].to_pylist() == [str(known), None]
    path = parquet(tmp_path / "in.parquet", identifier=URLS[:2], uuid=packed)
    assert column(opened(path), "uuid")[0] == str(known)
