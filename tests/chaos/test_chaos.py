"""The chaos scripts, in the size that continuous integration can afford."""

from __future__ import annotations

import json
import logging

import pytest

from tests.chaos import damage_loop, io_faults, kill_loop, soft_stop

pytestmark = pytest.mark.slow
LOGGER = logging.getLogger(__name__)

REPEATED_S = 10.0


@pytest.mark.timeout(600)
def test_fifty_kills_cost_seconds_and_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    code = kill_loop.main(["--kills", "50"])
    printed = capsys.readouterr().out
    LOGGER.info("%s", printed)
    result = json.loads(printed.splitlines()[-1])
    assert code == 0
    assert result["kills"] >= 50
    assert [result[key] for key in ("lost", "doubled", "unreadable", "wrong_bytes")] == [0, 0, 0, 0]
    assert result["repeated_s_median"] < REPEATED_S


@pytest.mark.timeout(600)
def test_no_fault_of_the_disk_costs_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    code = io_faults.main(["--sample", "60"])
    printed = capsys.readouterr().out
    LOGGER.info("%s", printed)
    assert code == 0, printed


@pytest.mark.timeout(600)
def test_soft_stops_cost_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = soft_stop.main(["--stops", "20"])
    printed = capsys.readouterr().out
    LOGGER.info("%s", printed)
    assert code == 0, printed


@pytest.mark.timeout(600)
def test_damaged_parts_are_fetched_again_or_named(capsys: pytest.CaptureFixture[str]) -> None:
    code = damage_loop.main(["--times", "20"])
    printed = capsys.readouterr().out
    LOGGER.info("%s", printed)
    assert code == 0, printed
