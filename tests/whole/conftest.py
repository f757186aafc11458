"""Jobs of a test, ended with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.whole.job import Job, MakeJob, make_job


@pytest.fixture
def new_job(tmp_path: Path) -> Iterator[MakeJob]:
    """Makes jobs below tmp_path and ends what they leave."""
    jobs: list[Job] = []

    def make(table: Path, **changes: Any) -> Job:
        jobs.append(make_job(tmp_path / f"job{len(jobs)}", table, **changes))
        return jobs[-1]

    yield make
    for job in jobs:
        job.close()
