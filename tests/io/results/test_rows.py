"""Files that the table promises by hash and size, and what becomes of others."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ddmpi
from ddmpi.config.config import parse
from ddmpi.config.sections import Expected
from ddmpi.core.records import ErrorKind, Failure
from ddmpi.errors import ConfigError
from ddmpi.io.results import rows as rows_module
from ddmpi.io.results.digests import Digest, make_digest
from ddmpi.io.results.promises import promises_of
from ddmpi.io.results.rows import ErrorRow, SuccessRow, compared
from tests.fleet.images import body_of
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.io.result_data import make_answer
from tests.whole.job import assert_every_row_once, make_job, rows_of

WRONG_HASH, WRONG_SIZE, UNKNOWN, UNREADABLE = 3, 7, 11, 13
BODY = b"a file"


def served(fleet: RunningFleet) -> tuple[pa.Table, list[bytes]]:
    """The fleet's table, and the file of each row."""
    table = pq.read_table(fleet.table_path)
    specs = {spec.name(fleet.port): spec for spec in fleet.specs}
    urls = [str(url).removeprefix("http://").partition("/") for url in table.column("identifier").to_pylist()]
    return table, [body_of(specs[server], f"/{path}") for server, _, path in urls]


def test_files_that_are_not_what_the_table_says_are_errors(tmp_path: Path) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(2), 30) as fleet:
        table, bodies = served(fleet)
        hashes: list[str | None] = [hashlib.md5(body, usedforsecurity=False).hexdigest().upper() for body in bodies]
        sizes: list[int | None] = [len(body) for body in bodies]
        hashes[WRONG_HASH], sizes[WRONG_SIZE] = "0" * 32, 1
        hashes[UNKNOWN] = sizes[UNKNOWN] = None
        promised = table.append_column("md5", pa.array(hashes)).append_column("file_size", pa.array(sizes))
        pq.write_table(promised, tmp_path / "promised.parquet")
        job = make_job(
            tmp_path / "job",
            tmp_path / "promised.parquet",
            downloader_parameters={"hash_algorithm": "md5"},
            keep_columns=["md5", "file_size"],
            expected={"hash_column": "md5", "bytes_column": "file_size"},
        )
        code, printed = job.run(2)
    assert code == 0, printed
    assert_every_row_once(job, 30)
    errors = {row["row_number"]: row for row in rows_of(job.output / "errors", _ERROR_COLUMNS).to_pylist()}
    assert set(errors) == {WRONG_HASH, WRONG_SIZE}
    assert {(row["error_kind"], row["error_code"], row["retry_count"]) for row in errors.values()} == {
        ("hash_mismatch", -2, 0)
    }
    assert errors[WRONG_HASH]["error_msg"].endswith(f"the table says {'0' * 32}")
    assert errors[WRONG_SIZE]["error_msg"] == f"{len(bodies[WRONG_SIZE])} bytes, the table says 1"


_ERROR_COLUMNS = ["row_number", "error_kind", "error_code", "error_msg", "retry_count"]


def test_files_that_are_not_what_the_table_says_are_kept_and_say_so(tmp_path: Path) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(2), 30) as fleet:
        table, bodies = served(fleet)
        hashes: list[str | None] = [base64.b64encode(hashlib.md5(body).digest()).decode() for body in bodies]  # noqa: S324
        sizes: list[float | None] = [float(len(body)) for body in bodies]
        hashes[WRONG_HASH], sizes[WRONG_SIZE], hashes[UNREADABLE] = "A" * 22, 1.0, "see below"
        hashes[UNKNOWN] = sizes[UNKNOWN] = None
        promised = table.append_column("md5", pa.array(hashes)).append_column("file_size", pa.array(sizes))
        pq.write_table(promised, tmp_path / "promised.parquet")
        job = make_job(
            tmp_path / "job",
            tmp_path / "promised.parquet",
            keep_columns=["md5", "file_size"],
            expected={"hash_column": "md5", "bytes_column": "file_size", "on_mismatch": "keep"},
        )
        code, printed = job.run(2)
    assert code == 0, printed
    assert_every_row_once(job, 30)
    rows = {it["row_number"]: it for it in ddmpi.open_results(job.output).to_table().to_pylist()}
    assert [rows[number]["image"] for number in range(30)] == bodies
    marks = {number: row["expected_mismatch"] for number, row in rows.items() if row["expected_mismatch"]}
    assert marks == {
        WRONG_HASH: f"the md5 is {hashlib.md5(bodies[WRONG_HASH]).hexdigest()}, the table says {'0' * 32}",  # noqa: S324
        WRONG_SIZE: f"{len(bodies[WRONG_SIZE])} bytes, the table says 1",
        UNREADABLE: 'not compared: the table says "see below", which is not a hash of a known form',
    }
    assert job.inspect("--verify", "--rehash")[0] == 0
    job.config["expected"]["on_mismatch"] = "refuse"
    assert job.run(1)[0] == 2


def test_a_column_of_which_no_value_can_be_read_stops_the_job(tmp_path: Path) -> None:
    table = pa.table({"identifier": ["http://127.0.0.1:9/1"], "size": ["6 KB"]})
    pq.write_table(table, tmp_path / "promised.parquet")
    job = make_job(
        tmp_path / "job", tmp_path / "promised.parquet", keep_columns=["size"], expected={"bytes_column": "size"}
    )
    code, printed = job.run(1)
    assert code == 2
    assert "expected.bytes_column: no value of the column size can be read" in printed
    assert '"6 KB"' in printed


def made(rows: tuple[int, ...], body: bytes = BODY) -> SuccessRow:
    return SuccessRow(rows, make_answer(0, body), body, make_digest("sha256")(body), None, len(body), None, None)


def promises(**columns: list[Any]) -> pa.RecordBatch:
    expected = {{"hash": "hash_column", "size": "bytes_column"}[name]: name for name in columns}
    return promises_of(Expected.model_validate(expected), pa.table(columns), "sha256")


def test_a_row_that_was_promised_another_file_is_an_error_of_its_own() -> None:
    right, wrong = compared(made((0, 1, 2)), promises(size=[6, 4, None]), BODY, "sha256", keeps=False)
    assert (right.rows, wrong.rows) == ((0, 2), (1,))
    assert isinstance(wrong, ErrorRow)
    assert wrong.failure == Failure(ErrorKind.HASH_MISMATCH, -2, "6 bytes, the table says 4")


def test_a_row_that_was_promised_another_file_says_so_where_it_is_kept() -> None:
    rows = compared(made((0, 1, 2)), promises(size=["4", "6", "?"]), BODY, "sha256", keeps=True)
    assert [(row.rows, row.mismatch) for row in rows if isinstance(row, SuccessRow)] == [
        ((1,), ""),
        ((0,), "6 bytes, the table says 4"),
        ((2,), 'not compared: the table says "?", which is not a size in bytes'),
    ]


def test_nothing_is_hashed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counted(algorithm: str) -> Digest:
        hashed.append(algorithm)
        return make_digest(algorithm)

    digests = [make_digest(name)(BODY) for name in ("sha256", "md5", "md5", "sha1")]
    monkeypatch.setattr(rows_module, "make_digest", counted)
    assert len(compared(made((0, 1, 2, 3)), promises(hash=digests), BODY, "sha256", keeps=False)) == 1
    assert hashed == ["md5", "sha1"]


def test_expected_columns_have_to_be_kept() -> None:
    keys = {"path_to_input": "a.parquet", "path_to_output_folder": "out", "expected": {"hash_column": "md5"}}
    with pytest.raises(ConfigError, match="missing there: md5"):
        parse(keys, "test")
    assert parse({**keys, "keep_columns": ["md5"]}, "test").expected.columns == ("md5",)


def test_an_algorithm_needs_a_hash() -> None:
    keys = {"path_to_input": "a.parquet", "path_to_output_folder": "out", "expected": {"algorithm_column": "kind"}}
    with pytest.raises(ConfigError, match=r"expected: .*hash_column"):
        parse({**keys, "keep_columns": ["kind"]}, "test")
