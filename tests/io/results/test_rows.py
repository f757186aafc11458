"""Files that the table promises by hash and size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import parse
from ddmpi.errors import ConfigError
from tests.fleet.images import body_of
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import assert_every_row_once, make_job, rows_of

WRONG_HASH, WRONG_SIZE, UNKNOWN = 3, 7, 11


def test_files_that_are_not_what_the_table_says_are_errors(tmp_path: Path) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(2), 30) as fleet:
        table = pq.read_table(fleet.table_path)
        specs = {spec.name(fleet.port): spec for spec in fleet.specs}
        urls = [str(url).removeprefix("http://").partition("/") for url in table.column("identifier").to_pylist()]
        bodies = [body_of(specs[server], f"/{path}") for server, _, path in urls]
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


def test_expected_columns_have_to_be_kept() -> None:
    keys = {"path_to_input": "a.parquet", "path_to_output_folder": "out", "expected": {"hash_column": "md5"}}
    with pytest.raises(ConfigError, match="missing there: md5"):
        parse(keys, "test")
    assert parse({**keys, "keep_columns": ["md5"]}, "test").expected.columns == ("md5",)
