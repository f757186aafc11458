"""A job whose table is the answer of a query: run once, run again after a kill, and when the files have grown."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import Job, MakeJob, assert_every_row_once, rows_of, wait_until

ROWS = 60
JOIN = """
SELECT m.identifier, o.species
FROM read_csv('{folder}/multimedia.txt', delim='\t', quote='') m
JOIN read_csv('{folder}/occurrence.txt', delim='\t', quote='') o USING (gbifID)
{where}
ORDER BY m.n"""
SLOW = "WHERE (SELECT count(*) FROM range(200000) a, range(200000) b WHERE hash(a, b) % 5 = m.n) >= 0"


def write_archive(folder: Path, urls: list[str]) -> None:
    """A Darwin Core archive: two images of each occurrence, and an occurrence without one; nothing is quoted."""
    images = [f'{n}\t{n // 2}\t{url}\ta "nice bird' for n, url in enumerate(urls)]
    (folder / "multimedia.txt").write_text("\n".join(["n\tgbifID\tidentifier\ttitle", *images]) + "\n")
    occurrences = [f"{n}\tSpecies {n}" for n in range(len(urls) // 2 + 2)]
    (folder / "occurrence.txt").write_text("\n".join(["gbifID\tspecies", *occurrences]) + "\n")


def query_job(new_job: MakeJob, folder: Path, where: str = "") -> Job:
    job = new_job(folder / "unused", input={"sql": JOIN.format(folder=folder, where=where)}, keep_columns=["species"])
    del job.config["path_to_input"]
    return job


def species(job: Job, fleet: RunningFleet) -> dict[str, str]:
    rows = rows_of(job.output / "images", ["identifier", "species"]).to_pylist()
    return {row["identifier"]: row["species"] for row in rows}


def test_a_join_is_downloaded_and_the_query_is_run_once(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(2), ROWS) as fleet:
        urls = fleet.urls()
        write_archive(tmp_path, urls[:40])
        job = query_job(new_job, tmp_path)
        code, printed = job.run(2)
        assert code == 0, printed
        assert printed.count("Running the query of input.sql") == 1
        assert species(job, fleet) == {url: f"Species {n // 2}" for n, url in enumerate(urls[:40])}
        code, printed = job.run(2)
        assert (code, "Running the query" in printed) == (0, False)
        write_archive(tmp_path, urls)
        code, printed = job.run(2)
        assert (code, "Running the query" in printed) == (0, True), printed
        assert species(job, fleet) == {url: f"Species {n // 2}" for n, url in enumerate(urls)}
        assert_every_row_once(job, ROWS)
        asked = [event for event in fleet.finished_log() if event.kind.name == "REQUEST"]
    assert len(asked) <= ROWS + 2 * 2 * 3, "the rows of before are not asked for again, but by profiling"


@pytest.mark.slow
def test_files_that_changed_before_their_end_are_told(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(1), ROWS) as fleet:
        write_archive(tmp_path, fleet.urls())
        job = query_job(new_job, tmp_path)
        assert job.run(1)[0] == 0
        write_archive(tmp_path, fleet.urls()[1:])
        code, printed = job.run(1)
    assert code == 2
    assert "has changed since this output folder was begun" in printed
    assert "a query without ORDER BY may give its rows in another order" in printed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_stopped_while_the_query_runs_begins_anew(
    tmp_path: Path, new_job: MakeJob, number: signal.Signals
) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(1), ROWS) as fleet:
        write_archive(tmp_path, fleet.urls())
        slow = query_job(new_job, tmp_path, SLOW)
        process = slow.start(1)
        wait_until(lambda: any((slow.output / "batches").rglob("query-*")), process)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == (-9 if number is signal.SIGKILL else 75), printed
        assert not (slow.output / "query.parquet").exists()
        slow.config["input"] = {"sql": JOIN.format(folder=tmp_path, where="")}
        code, printed = slow.run(2)
        assert code == 0, printed
    assert_every_row_once(slow, ROWS)
    assert not list((slow.output / "batches").rglob("query-*")), "what the killed run left is taken away"
