"""A table of which more than half is refused ends the program before anything is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import MakeJob, assert_every_row_once

ROWS = 40


def test_a_table_that_is_mostly_refused_has_to_be_allowed(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(2), ROWS) as fleet:
        urls = fleet.urls()
        table = tmp_path / "urls.csv"
        table.write_text("identifier,url\n" + "".join(f"{n},{url}\n" for n, url in enumerate(urls)))
        job = new_job(table)
        code, printed = job.run(2)
        assert code == 2
        assert "all 40 rows are refused" in printed
        assert "perhaps the column url has URLs: columns: {identifier: url}" in printed
        assert not (job.output / "urls").exists()
        job.config["columns"] = {"identifier": "url"}
        code, printed = job.run(2)
        assert code == 0, "the folder takes the config that was meant"
        assert_every_row_once(job, ROWS)
        table.write_text("identifier,url\n" + "".join(f"{n},{url}\n" for n, url in enumerate([*urls, *["x"] * 41])))
        code, printed = job.run(2)
        assert code == 2
        assert "all 41 rows are refused" in printed, "of the rows that were added"
        job.config["allow_refused"] = True
        code, printed = job.run(2)
    assert code == 0, printed
    assert_every_row_once(job, ROWS + 41)


@pytest.mark.slow
def test_a_few_bad_rows_may_be_added_to_a_good_table(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(1), ROWS) as fleet:
        table = tmp_path / "urls.txt"
        table.write_text("\n".join(fleet.urls()) + "\n")
        job = new_job(table)
        assert job.run(1)[0] == 0
        table.write_text("\n".join([*fleet.urls(), "no URL"]) + "\n")
        code, printed = job.run(1)
    assert code == 0, printed
    assert_every_row_once(job, ROWS + 1)
