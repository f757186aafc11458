"""A set is published as a recipe and fetched again elsewhere, after its servers have changed."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import ddmpi
from ddmpi.export import __main__ as export
from tests.fleet.images import body_of
from tests.fleet.process import running_fleet
from tests.fleet.spec import Mode, ServerSpec, plain_fleet
from tests.fleet.table import path_of
from tests.fleet.verdict import is_changed, is_missing, verdict_of
from tests.whole.job import Job, MakeJob

LICENSES = {"http://creativecommons.org/licenses/by/4.0/": "CC-BY-4.0", "see website": "see website"}
SHARES = {"same": 70, "changed": 10, "gone": 15, "refused": 5}
"""Percent of each server's files under each license."""
ROWS = 40
"""Of each server under each license."""


def become(spec: ServerSpec, path: str) -> str:
    """What becomes of a file when the server is so."""
    if is_missing(spec, path):
        return "gone"
    if verdict_of(spec, path, 1).mode is Mode.HTML:
        return "refused"
    return "changed" if is_changed(spec, path) else "same"


def chosen(later: ServerSpec, first_row: int) -> dict[int, str]:
    """Row numbers with what becomes of their files, so many of each class as the shares say."""
    left = Counter({name: ROWS * percent // 100 for name, percent in SHARES.items()})
    rows: dict[int, str] = {}
    number = first_row
    while left.total():
        class_ = become(later, path_of(number))
        if left[class_]:
            left[class_] -= 1
            rows[number] = class_
        number += 1
    return rows


def counts_of(path: Path) -> dict[tuple[str, str], dict[str, int]]:
    with path.open(newline="") as file:
        return {
            (line.pop("server_name"), line.pop("license")): {name: int(count) for name, count in line.items()}
            for line in csv.DictReader(file)
        }


@pytest.mark.slow
def test_a_rebuilt_set_says_what_is_the_same_changed_gone_and_refused(new_job: MakeJob, tmp_path: Path) -> None:
    now = plain_fleet(3)
    shares: dict[str, Any] = {"changed_share": 0.2, "not_found_share": 0.2, "mode": Mode.HTML, "mode_share": 0.1}
    later = [replace(spec, **shares) for spec in now]
    with running_fleet(tmp_path / "fleet", now) as fleet:
        port, table = fleet.port, tmp_path / "urls.parquet"
        becomes = _write_table(table, later, port)
        first = new_job(table, keep_columns=["species"], profiling={"mode": "uniform"})
        code, printed = first.run(1)
        assert code == 0, printed
    assert export.main([str(first.output), str(tmp_path / "recipe"), "--to", "recipe"]) == 0
    config = yaml.safe_load((tmp_path / "recipe/rebuild.yaml").read_text())
    parameters = config.pop("downloader_parameters")
    rows = str(tmp_path / "recipe" / config.pop("path_to_input"))
    del config["path_to_output_folder"]  # both are relative to the recipe's folder
    with running_fleet(tmp_path / "later", later, port=port):
        again = new_job(Path(rows), downloader_parameters=parameters, profiling={"mode": "uniform"}, **config)
        code, printed = again.run(1)
    assert code == 0, printed
    whole = len(now) * len(LICENSES) * ROWS
    same, changed, gone, refused = (whole * percent // 100 for percent in SHARES.values())
    told = f"{same} the same, {changed} changed, {gone} gone, {refused} refused"
    assert f"Compared with the table: {told}; by server and license: comparison.csv" in printed
    line = {"rows": ROWS, "failed": 0, "unchecked": 0} | {name: ROWS * share // 100 for name, share in SHARES.items()}
    assert counts_of(again.output / "comparison.csv") == {
        (spec.name(port), license_): line for spec in now for license_ in LICENSES.values()
    }
    _check_rows(again, later, becomes)
    page = (again.output / "report.html").read_text()
    assert "Compared with the table" in page
    assert told in page


def _write_table(table: Path, later: list[ServerSpec], port: int) -> dict[str, str]:
    """Write the first table; returns what is to become of the file under each URL."""
    lines: list[dict[str, str]] = []
    becomes: dict[str, str] = {}
    for spec in later:
        for number, license_ in enumerate(LICENSES):
            for row, class_ in chosen(spec, number * 10_000).items():
                url = spec.url(port, path_of(row))
                becomes[url] = class_
                lines.append({"identifier": url, "license": license_, "species": f"species {row}"})
    pq.write_table(pa.Table.from_pylist(lines), table)
    return becomes


def _check_rows(job: Job, later: list[ServerSpec], becomes: dict[str, str]) -> None:
    specs = {spec.address: spec for spec in later}
    found = ddmpi.open_results(job.output).to_table().to_pylist()
    assert {row["identifier"] for row in found} == set(becomes)
    for row in found:
        class_ = becomes[row["identifier"]]
        path = "/" + row["identifier"].rpartition("/")[2]
        assert row["species"] == f"species {path[1:].partition('.')[0]}"
        if class_ in {"same", "changed"}:
            address = row["identifier"].split("/")[2].partition(":")[0]
            assert row["image"] == body_of(specs[address], path)
            assert (row["expected_mismatch"] is not None) == (class_ == "changed")
        else:
            assert row["error_kind"] == ("http_status" if class_ == "gone" else "wrong_type")
