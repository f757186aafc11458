"""How a scheduler's program is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.io.schedulers import scheduler
from ddmpi.io.schedulers.scheduler import call
from tests.io.schedulers.conftest import Says


def test_a_program_that_hangs_has_said_nothing(says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "ANSWER_TIMEOUT_S", 0.2)
    says("qstat")
    (tmp_path / "qstat").write_text("#!/bin/sh\nexec sleep 60\n")
    assert call("qstat") == ("", "qstat does not answer")


def test_a_script_that_is_not_there_is_told(says: Says, tmp_path: Path) -> None:
    says("bsub")
    assert "absent.sh" in call("bsub", stdin=tmp_path / "absent.sh").problem
