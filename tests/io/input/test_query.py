"""The table as the answer of a query: what is read, when it is run again, and what is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import InputError, Interrupted, StorageError
from ddmpi.io.input.query import Query

MEMORY_BYTES = 64 << 20
JOIN = """
SELECT m.identifier, o.species -- a comment; with a semicolon
FROM read_csv('multimedia.txt', delim='\t', quote='') m
JOIN read_csv('occurrence.txt', delim='\t', quote='') o USING (gbifID)
ORDER BY gbifID; -- and one at the end"""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Darwin Core archive, in which the program is started: 3 images of 2 occurrences; no quoting."""
    (tmp_path / "multimedia.txt").write_text(
        'gbifID\tidentifier\ttitle\n7\thttp://a.example/1.jpg\ta "small bird\n'
        "7\thttp://a.example/2.jpg\tx\n9\thttp://b.example/3.jpg\ty\n"
    )
    (tmp_path / "occurrence.txt").write_text('gbifID\tspecies\n7\tParus "major\n9\tSitta europaea\n11\tCorvus corax\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(sql: str, folder: Path) -> Path:
    path = folder / "out" / "query.parquet"
    Query(sql, MEMORY_BYTES).answer(path, folder / "out" / "temporary")
    return path


def test_a_join_is_read_once_and_leaves_nothing_else_behind(archive: Path) -> None:
    path = answer(JOIN, archive)
    assert pq.read_table(path).to_pydict() == {
        "identifier": ["http://a.example/1.jpg", "http://a.example/2.jpg", "http://b.example/3.jpg"],
        "species": ['Parus "major', 'Parus "major', "Sitta europaea"],
    }
    assert list((archive / "out" / "temporary").iterdir()) == []
    assert Query(JOIN, MEMORY_BYTES).is_answered_by(path)
    assert Query(JOIN, 2 * MEMORY_BYTES).is_answered_by(path), "the budget decides nothing about the rows"


@pytest.mark.parametrize("name", ["multimedia.txt", "occurrence.txt"])
def test_the_answer_is_that_of_the_files_as_they_were(archive: Path, name: str) -> None:
    path = answer(JOIN, archive)
    with (archive / name).open("a") as file:
        file.write("11\tx\n")
    assert not Query(JOIN, MEMORY_BYTES).is_answered_by(path)


def test_another_query_has_another_answer(archive: Path) -> None:
    path = answer(JOIN, archive)
    assert not Query(JOIN.replace("ORDER BY gbifID", "ORDER BY species"), MEMORY_BYTES).is_answered_by(path)
    assert not Query(JOIN, MEMORY_BYTES).is_answered_by(archive / "nothing.parquet")
    (archive / "text.parquet").write_text("no parquet")
    assert not Query(JOIN, MEMORY_BYTES).is_answered_by(archive / "text.parquet")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM 'parts/*.parquet'",
        "FROM read_parquet(['parts/0.parquet', 'parts/1.parquet'], union_by_name=true)",
        "WITH p AS (FROM parquet_scan('parts/*.parquet')) FROM p WHERE n IN (SELECT max(n) FROM 'parts/*.parquet')",
        "SELECT * FROM read_csv('occurrence.txt', delim='\t') WHERE EXISTS (FROM 'parts/0.parquet')",
        "SELECT size FROM read_blob('parts/*.parquet')",
    ],
)
def test_files_are_found_wherever_the_query_names_them(archive: Path, sql: str) -> None:
    (archive / "parts").mkdir()
    for number in range(2):
        duckdb.sql(f"COPY (SELECT {number} AS n) TO 'parts/{number}.parquet'")
    path = answer(sql, archive)
    assert Query(sql, MEMORY_BYTES).is_answered_by(path)
    os.utime(archive / "parts" / "0.parquet", ns=(1, 1))
    assert not Query(sql, MEMORY_BYTES).is_answered_by(path)


def test_other_texts_of_a_query_are_no_names_of_files(archive: Path) -> None:
    sql = """
        SELECT replace(identifier, '*', '') AS identifier, 'other.csv' AS source
        FROM read_csv('multimedia.txt', delim='\t', quote='*')
        WHERE identifier LIKE '**' OR regexp_matches(identifier, '.*')"""
    path = answer(sql, archive)
    (archive / "other.csv").write_text("x")
    assert Query(sql, MEMORY_BYTES).is_answered_by(path)


def test_a_file_that_comes_to_a_wildcard_is_seen(archive: Path) -> None:
    duckdb.sql("COPY (SELECT 1 AS n) TO 'part-1.parquet'")
    path = answer("FROM 'part-*.parquet'", archive)
    duckdb.sql("COPY (SELECT 2 AS n) TO 'part-2.parquet'")
    assert not Query("FROM 'part-*.parquet'", MEMORY_BYTES).is_answered_by(path)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", "syntax error"),
        ("", "one SELECT is expected"),
        ("SELECT 1; SELECT 2", "one SELECT is expected"),
        ("COPY (SELECT 1) TO 'stolen.csv'", "one SELECT is expected"),
        ("ATTACH 'other.db'", "one SELECT is expected"),
        ("INSTALL httpfs", "one SELECT is expected"),
        ("FROM 'nowhere.parquet'", "No files found"),
        ("FROM read_csv('multimedia.txt') WHERE colour = 1", "colour"),
        ("SELECT identifier::INT FROM read_csv('multimedia.txt', delim='\t', quote='')", "Could not convert string"),
        ("FROM read_csv('multi' || 'media.txt')", "which it does not name in one text"),
        ("FROM 'https://a.example/x.parquet'", "reads local files alone"),
        ("FROM read_parquet('s3://bucket/x.parquet')", "reads local files alone"),
        ("FROM read_xlsx('sheet.xlsx')", "Spreadsheets need an extension"),
        ("FROM sheet", "Table with name sheet does not exist"),
        ("SELECT list(range) FROM range(100000000)", "more memory than initialization.memory_bytes"),
    ],
)
def test_what_cannot_be_run_is_said_without_a_traceback(archive: Path, sql: str, reason: str) -> None:
    sheet = "a variable of Python"
    assert sheet
    with pytest.raises(InputError, match=r"^input\.sql") as caught:
        answer(sql, archive)
    assert reason in str(caught.value)
    assert "SET " not in str(caught.value), "settings are not the user's"
    assert not (archive / "stolen.csv").exists()
    assert [path.name for path in (archive / "out").rglob("*")] == ["temporary"]


def test_without_duckdb_it_is_said_what_to_install(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(InputError, match=r'pip install "ddmpi\[sql\]"'):
        answer(JOIN, archive)


def test_a_stop_ends_the_query_and_leaves_the_earlier_answer(archive: Path) -> None:
    path = answer(JOIN, archive)
    before = path.read_bytes()
    endless = Query(
        "SELECT count(*) FROM range(10000000000) a, range(10000000000) b WHERE hash(a, b) = 7", MEMORY_BYTES
    )
    with pytest.raises(Interrupted):
        endless.answer(path, archive / "out" / "temporary", lambda: True)
    assert path.read_bytes() == before
    assert list((archive / "out" / "temporary").iterdir()) == []


def test_how_far_the_query_is_is_told_while_it_runs(archive: Path) -> None:
    told: list[float] = []
    counted = Query("SELECT sum(hash(a.range)) FROM range(20000000000) a", MEMORY_BYTES)
    with pytest.raises(Interrupted):  # once it is on its way
        counted.answer(archive / "out" / "q", archive / "out" / "temporary", lambda: told[-1] > 0, told.append)
    assert told == sorted(told)
    assert told[0] < 1


def test_a_disk_that_takes_no_more_is_no_fault_of_the_query(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=0))
    temporary = archive / "out" / "temporary"
    temporary.mkdir(parents=True)
    (temporary / f"query-{UUID(int=0).hex}").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        answer("SELECT 1 AS n", archive)
