"""The whole program with memory for a few bodies only: slower, but to the end, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.process import running_fleet
from tests.fleet.spec import Mode, ServerSpec, Size
from tests.whole.job import assert_bodies_as_served, assert_every_row_once, make_job

LARGEST_BYTES = 150_000


@pytest.mark.slow
def test_a_budget_of_a_few_bodies_is_enough(tmp_path: Path) -> None:
    rows = 240
    servers = [ServerSpec(f"127.29.0.{number}", size=Size.NORMAL) for number in range(1, 6)]
    servers.append(ServerSpec("127.29.0.9", mode=Mode.TRUNCATED, row_weight=0.1))
    with running_fleet(tmp_path / "fleet", servers, rows) as fleet:
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            downloader_parameters={"max_file_bytes": LARGEST_BYTES, "memory_budget_bytes": LARGEST_BYTES},
        )
        code, printed = job.run(1)
        assert code == 0, printed
        assert_every_row_once(job, rows)
        assert 0 < assert_bodies_as_served(job, fleet) < rows
