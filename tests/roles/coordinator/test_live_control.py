"""Rules of control.yaml that would change nothing; what else becomes of the file is in tests/core/pace."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.config.config import parse
from ddmpi.roles.coordinator.live_control import doubt_about
from tests.roles.coordinator.states import make_state


@pytest.mark.parametrize(
    ("match", "doubt"),
    [
        ("a.example.org", ""),
        ("*.example.org", ""),
        ("b.example.net", "it shares the limits of shared: write that name"),
        ("shared", ""),
        ("a.exmaple.org", "no server of this job is called so; did you mean a.example.org?"),
        ("*.nowhere.org", "no server of this job is called so"),
    ],
)
def test_a_rule_that_would_change_nothing_is_doubted(tmp_path: Path, match: str, doubt: str) -> None:
    rule = {"match": "*.example.net", "group": "shared"}
    keys = {"path_to_input": "x", "path_to_output_folder": "y", "servers": [rule]}
    config = parse(keys, "test")
    state = make_state(
        tmp_path, {"a.example.org": 12, "b.example.net": 12, "c.example.net": 12}, group_of=config.group_of
    )
    assert doubt_about(match, state.table, config) == doubt
