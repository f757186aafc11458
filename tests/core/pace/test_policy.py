"""How long a server is left alone."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.pace.policy import PacePolicy

RNG = random.Random(1)
PLAIN = PacePolicy(jitter=0.0)


@pytest.mark.parametrize(
    ("policy", "pauses_s"),
    [
        pytest.param(PLAIN, [60, 120, 240, 480, 960], id="each pause is twice the one before"),
        pytest.param(PacePolicy(1, 10, 25, 0.0), [10, 20, 25, 25, 25], id="the cap ends the doubling"),
        pytest.param(PacePolicy(1, 10, 10, 0.0), [10, 10, 10, 10, 10], id="a base at the cap stays there"),
    ],
)
def test_pauses_of_a_server_that_cannot_be_reached(policy: PacePolicy, pauses_s: list[float]) -> None:
    assert [policy.backoff_s(count, RNG) for count in range(1, 6)] == pauses_s


@pytest.mark.parametrize(
    ("policy", "pauses_s"),
    [
        pytest.param(PLAIN, [1, 4, 16, 60, 120, 240], id="four times as long until it is the base, then doubled"),
        pytest.param(PacePolicy(1, 64, 100, 0.0), [1, 4, 16, 64, 100, 100], id="a power of four is no pause too many"),
        pytest.param(PacePolicy(5, 5, 15, 0.0), [5, 10, 15, 15, 15, 15], id="brief as the base: doubled at once"),
        pytest.param(PacePolicy(90, 60, 100, 0.0), [60, 100, 100, 100, 100, 100], id="never brief above the base"),
    ],
)
def test_pauses_of_a_server_that_throttles(policy: PacePolicy, pauses_s: list[float]) -> None:
    assert [policy.throttle_pause_s(count, RNG) for count in range(1, 7)] == pauses_s


def test_an_incident_without_end_does_not_outgrow_a_float() -> None:
    assert PLAIN.backoff_s(1_000_000, RNG) == PLAIN.throttle_pause_s(1_000_000, RNG) == PLAIN.backoff_cap_s


seconds = st.floats(0.01, 1e4)
policies = st.builds(
    lambda brief_s, base_s, longer, jitter: PacePolicy(brief_s, base_s, base_s * longer, jitter),
    seconds,
    seconds,
    st.floats(1, 1e4),
    st.floats(0, 1),
)


@given(policies, st.integers(1, 100), st.integers(0, 1000))
def test_jitter_lengthens_a_pause_by_its_share_at_most(policy: PacePolicy, count: int, seed: int) -> None:
    bare = PacePolicy(policy.backoff_brief_s, policy.backoff_base_s, policy.backoff_cap_s, 0.0)
    for pause_s, bare_s in [
        (policy.backoff_s(count, random.Random(seed)), bare.backoff_s(count, RNG)),
        (policy.throttle_pause_s(count, random.Random(seed)), bare.throttle_pause_s(count, RNG)),
    ]:
        assert bare_s <= pause_s <= bare_s * (1 + policy.jitter)


@pytest.mark.parametrize(
    ("policy", "ran_s", "pauses_s"),
    [
        pytest.param(PLAIN, 60, [180 / 31 * 2**k for k in range(5)], id="three minutes at least"),
        pytest.param(PLAIN, 9_300, [30, 60, 120, 240, 480], id="a tenth of the time that the job has run"),
        pytest.param(PLAIN, 1e9, [60, 120, 240, 480, 960], id="no pause is longer than a back-off"),
        pytest.param(PacePolicy(1, 1e4, 1e6, 0.0), 1e9, [3600 / 31 * 2**k for k in range(5)], id="an hour at most"),
        pytest.param(PacePolicy(1, 60, 60, 0.0, probing_most_s=62), 1e9, [2, 4, 8, 16, 32], id="or less, by its key"),
        pytest.param(PacePolicy(1, 60, 60, 0.0, job_began_at=-9_300), 0, [30, 60, 60, 60, 60], id="over all runs"),
        pytest.param(PacePolicy(1, 60, 60, 0.0, breaker_probes=9_999), 0, [1] * 5, id="many probes are no flood"),
    ],
)
def test_pauses_of_a_server_that_is_probed(policy: PacePolicy, ran_s: float, pauses_s: list[float]) -> None:
    assert [policy.probe_pause_s(count, ran_s, RNG) for count in range(1, 6)] == pytest.approx(pauses_s)


@given(policies, st.integers(1, 100))
def test_the_next_pause_is_never_shorter(policy: PacePolicy, count: int) -> None:
    bare = PacePolicy(policy.backoff_brief_s, policy.backoff_base_s, policy.backoff_cap_s, 0.0)
    assert bare.backoff_s(count, RNG) <= bare.backoff_s(count + 1, RNG) <= bare.backoff_cap_s
    now_s, next_s = bare.throttle_pause_s(count, RNG), bare.throttle_pause_s(count + 1, RNG)
    assert now_s <= next_s * (1 + 1e-9)
    assert next_s <= bare.backoff_cap_s * (1 + 1e-9)


def test_pauses_of_many_servers_do_not_end_together() -> None:
    rng = random.Random(1)
    policy = PacePolicy(jitter=0.1)
    assert len({policy.backoff_s(1, rng) for _ in range(50)}) == 50
    assert len({policy.throttle_pause_s(1, rng) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"backoff_brief_s": 0.0},
        {"backoff_brief_s": math.inf},
        {"backoff_base_s": 0.0},
        {"backoff_base_s": 10.0, "backoff_cap_s": 5.0},
        {"backoff_cap_s": math.inf},
        {"backoff_cap_s": math.nan},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"reset_after_s": -1.0},
        {"probing_most_s": 0.0},
    ],
)
def test_a_policy_that_would_pause_for_no_time_or_for_ever_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need"):
        PacePolicy(**wrong)  # type: ignore[arg-type]  # mypy cannot see that the counts are not among the keys


@pytest.mark.parametrize("wrong", [{"breaker_failures": 0}, {"breaker_probes": 0}])
def test_a_breaker_that_counts_to_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need"):
        PacePolicy(**wrong)


@pytest.mark.parametrize("ran_s", [0.0, 10_000.0, 1e6])
def test_how_long_a_server_out_of_reach_is_probed_is_known_before(ran_s: float) -> None:
    pauses_s = [PLAIN.probe_pause_s(count, ran_s, RNG) for count in range(1, PLAIN.breaker_probes + 1)]
    for count in range(1, PLAIN.breaker_probes + 1):
        assert PLAIN.probing_left_s(count, ran_s) == pytest.approx(sum(pauses_s[count:]))
