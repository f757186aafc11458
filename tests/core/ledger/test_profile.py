"""What is made of a server's samples."""

from __future__ import annotations

import pytest

from ddmpi.core.ledger.profile import Profile, profile_of, server_row_time_s
from ddmpi.core.protocol import Sample
from ddmpi.core.records import Limits


def test_a_profile_summarizes_the_samples() -> None:
    samples = [
        Sample("a", True, 200, ip="192.0.2.1", http_version="2", connect_s=0.01, ttfb_s=t, total_s=2 * t, bytes=100)
        for t in (0.1, 0.2, 0.4)
    ]
    samples.append(Sample("a", False, 429, "http_status", retry_after_s=17.0))
    profile = profile_of("a", 7, 5.0, samples)
    assert (profile.success_count, profile.error_count, profile.rate_limit) == (3, 1, 5.0)
    assert (profile.ttfb_s, profile.total_s, profile.bytes) == (0.2, 0.4, 100)
    assert (profile.status_counts, profile.retry_after_s) == ("200:3 429:1", 17.0)


def test_without_samples_only_the_rate_is_known() -> None:
    assert profile_of("a", 1, 3.0, ()) == Profile("a", 1, 0, 0, 3.0, configured_rate=3.0)


@pytest.mark.parametrize(
    ("rate_limit", "configured_rate", "by_hand"),
    [
        pytest.param(5.0, 5.0, 0.0, id="as the config said"),
        pytest.param(2.0, 5.0, 2.0, id="lowered by hand"),
        pytest.param(2.0, -1.0, 2.0, id="a file that somebody has made"),
        pytest.param(0.0, -1.0, 0.0, id="which states no limit"),
    ],
)
def test_what_a_user_has_written_is_told_from_what_the_config_said(
    rate_limit: float, configured_rate: float, by_hand: float
) -> None:
    assert Profile("a", 1, 0, 0, rate_limit, configured_rate=configured_rate).rate_by_hand == by_hand


@pytest.mark.parametrize(
    ("profile", "expected_s"),
    [
        pytest.param(None, 0.05, id="the assumed latency where there is no profile"),
        pytest.param(Profile("a", 1, 0, 1, 0.0), 0.05, id="and where no sample came back"),
        pytest.param(Profile("a", 1, 1, 0, 0.0, total_s=0.8), 0.2, id="else the measured one"),
    ],
)
def test_the_time_of_a_row(profile: Profile | None, expected_s: float) -> None:
    assert server_row_time_s(Limits(0.0, 4), profile) == pytest.approx(expected_s)
