"""The chaos scripts, in the size that continuous integration can afford."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

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
@pytest.mark.parametrize(
    ("main", "options"),
    [
        pytest.param(io_faults.main, ["--sample", "60"], id="no fault of the disk costs a row"),
        pytest.param(soft_stop.main, ["--stops", "20"], id="soft stops cost nothing"),
        pytest.param(damage_loop.main, ["--times", "20"], id="damaged parts are fetched again or named"),
    ],
)
def test_what_is_tormented_stays_whole(
    capsys: pytest.CaptureFixture[str], main: Callable[[Sequence[str]], int], options: list[str]
) -> None:
    code = main(options)
    printed = capsys.readouterr().out
    LOGGER.info("%s", printed)
    assert code == 0, printed
