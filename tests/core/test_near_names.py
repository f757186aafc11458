"""Names that may have been meant."""

from __future__ import annotations

import pytest

from ddmpi.config.messages import nearest
from ddmpi.core.near_names import near_names
from ddmpi.core.rules.retry_filter import choice_of
from ddmpi.io.input.paths import did_you_mean

KNOWN = ["rate_limit", "max_connections", "Timeout", "timeout"]


def test_the_nearest_come_first_and_capitals_do_not_count() -> None:
    assert near_names("RATE_LIMT", KNOWN) == ["rate_limit"]
    assert near_names("TIMEOUTS", KNOWN, 3) == ["Timeout"], "the first of those that differ in capitals alone"
    assert near_names("urls", ["Url", "curl", "other"], 3) == ["Url", "curl"]
    assert near_names("xyz", KNOWN) == near_names("rate", []) == []


def test_config_input_and_retries_judge_alike() -> None:
    """Each had its own bound: 0.57 was near for the config alone, and capitals counted but for columns."""
    assert nearest("RATE", ["rate_limit"]) == "rate_limit"
    assert did_you_mean("RATE", ["rate_limit"]) == " (did you mean rate_limit?)"
    with pytest.raises(ValueError, match=r"did you mean timeout\?"):
        choice_of(["tim"])
