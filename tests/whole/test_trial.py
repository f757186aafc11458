"""A job tried on few rows: in a folder of its own, and with a word about the whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import Job, MakeJob, rows_of

ROWS = 600


def numbers(folder: Path) -> list[int]:
    found: list[int] = rows_of(folder / "images", ["row_number"]).column("row_number").to_numpy().tolist()
    return sorted(found)


@pytest.mark.parametrize(
    ("keys", "name", "text"),
    [
        ({"limit": 90}, "limit-90", "the first 90 rows"),
        pytest.param({"sample": 90, "seed": 5}, "sample-90-seed-5", "90 random rows", marks=pytest.mark.slow),
    ],
)
def test_a_trial_has_a_folder_of_its_own_and_tells_of_the_whole(
    tmp_path: Path, new_job: MakeJob, keys: dict[str, int], name: str, text: str
) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(3), ROWS) as fleet:
        job = new_job(fleet.table_path, **keys)
        code, printed = job.run(2)
        assert code == 0, printed
        folder = Path(f"{job.output}.{name}")
        assert f"Notice: a trial of {text}, in {folder}" in printed
        chosen = numbers(folder)
        assert len(chosen) == 90
        assert (chosen == list(range(90))) == ("limit" in keys)
        assert "The whole, 600 rows on 3 servers, would take about " in printed
        told = printed.partition("set by")[2].partition(" to download")[0].split()[-2:]
        assert told[1] == "MB", printed
        mean_bytes = float(rows_of(folder / "images", ["bytes"]).column("bytes").to_numpy().mean())
        assert float(told[0]) * 1e6 == pytest.approx(ROWS * mean_bytes, rel=0.2)
        code, again = job.run(2)
        assert code == 0, again
        assert numbers(folder) == chosen, "the rows are the same at every start"
        assert job.inspect("--verify")[0] == 0, "a config with a trial means its folder"
        assert not job.output.exists()
        whole = Job(job.folder, {key: value for key, value in job.config.items() if key not in keys})
        code, printed = whole.run(2)
        assert code == 0, printed
        assert numbers(job.output) == list(range(ROWS))


@pytest.mark.slow
def test_a_trial_over_an_input_that_has_changed_is_not_mixed_with_the_old_one(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(1), 60) as fleet:
        table = tmp_path / "own.parquet"
        pq.write_table(pq.read_table(fleet.table_path), table)
        job = new_job(table, sample=20)
        assert job.run(1)[0] == 0
        pq.write_table(pq.read_table(fleet.table_path).slice(1), table)
        code, printed = job.run(1)
    assert code == 2
    assert "has changed since this trial was begun: remove " in printed
