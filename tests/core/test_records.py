"""Limits and their shares, error codes, and the names of groups."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.records import (
    UNDECODABLE,
    ErrorKind,
    Limits,
    error_code,
    is_packed,
)

NETWORK = {"dns", "connect", "tls", "timeout", "stalled", "network", "protocol", "unreachable"}
LOCAL = {
    "too_large", "wrong_type", "empty_body", "redirect", "blocked_address", "bad_url", "decode", "hash_mismatch",
    "robots", "server_refused", "placeholder", "forgotten", "given_up",
}  # fmt: skip


@pytest.mark.parametrize("kind", list(ErrorKind), ids=lambda kind: kind.value)
def test_the_code_of_an_error_tells_network_content_and_status_apart(kind: ErrorKind) -> None:
    expected = {**dict.fromkeys(NETWORK, -1), **dict.fromkeys(LOCAL, -2), "http_status": 404}
    assert error_code(kind, 404) == expected[kind.value]


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"{", id="cut off"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="too many open brackets"),
        pytest.param(b'{"rate_per_s": "fast"}', id="a field of another type"),
    ],
)
def test_whatever_is_wrong_with_an_input_it_is_undecodable(damaged: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(damaged, type=Limits if b"rate" in damaged else object)


@pytest.mark.parametrize(
    ("limits", "has_budget"),
    [
        pytest.param(Limits(1.0, 1, 1.0), False, id="rates alone"),
        pytest.param(Limits(bytes_per_day=1.0), True, id="bytes of a day"),
        pytest.param(Limits(bytes_per_hour=1.0), True, id="bytes of an hour"),
    ],
)
def test_a_group_whose_bytes_are_counted(limits: Limits, has_budget: bool) -> None:
    assert limits.has_byte_budget is has_budget


shares = st.builds(
    Limits, st.floats(0, 1e6), st.integers(1, 1000), st.floats(0, 1e9), st.floats(0, 1e12), st.floats(0, 1e11)
)


def test_there_are_as_many_shares_as_connections_at_most() -> None:
    assert [share.connections for share in Limits(connections=3).divided(3)] == [1, 1, 1]
    with pytest.raises(ValueError, match="4 lanes cannot share 3 connections"):
        Limits(connections=3).divided(4)


@given(shares, st.integers(1, 1000))
def test_shares_add_up_to_the_limits(limits: Limits, parts: int) -> None:
    if parts > limits.connections:
        with pytest.raises(ValueError, match="cannot share"):
            limits.divided(parts)
        return
    divided = limits.divided(parts)
    assert len(divided) == parts
    assert sum(share.connections for share in divided) == limits.connections
    assert min(share.connections for share in divided) >= 1
    assert sum(share.rate_per_s for share in divided) == pytest.approx(limits.rate_per_s)
    assert sum(share.bytes_per_s for share in divided) == pytest.approx(limits.bytes_per_s)
    assert sum(share.bytes_per_day for share in divided) == pytest.approx(limits.bytes_per_day)
    assert sum(share.bytes_per_hour for share in divided) == pytest.approx(limits.bytes_per_hour)


@given(shares.filter(lambda limits: limits.connections >= 2))
def test_what_is_joined_can_be_taken_away_again(limits: Limits) -> None:
    share, other = limits.divided(2)
    back = share.plus(other).minus(other)
    assert (back.connections, back.numbers) == (share.connections, share.numbers)
    assert back.rate_per_s == pytest.approx(share.rate_per_s, abs=1e-9)
    assert back.bytes_per_s == pytest.approx(share.bytes_per_s, abs=1e-6)
    assert back.bytes_per_day == pytest.approx(share.bytes_per_day, abs=1e-3)
    assert back.bytes_per_hour == pytest.approx(share.bytes_per_hour, abs=1e-3)


@given(shares, st.integers(1, 40), st.integers(1, 2000), st.data())
def test_connections_are_shared_by_number_whatever_their_count(
    limits: Limits, parts: int, now: int, data: st.DataObject
) -> None:
    divided = limits.divided(min(parts, limits.connections))
    counts = [share.connections_of(now, limits.connections) for share in divided]
    assert sum(counts) == now
    fewer = data.draw(st.integers(1, now))
    lower = [share.connections_of(fewer, limits.connections) for share in divided]
    assert all(few <= many for few, many in zip(lower, counts, strict=True)), "no lane gets what another one still uses"


def test_packs_are_told_by_their_name() -> None:
    assert is_packed("__many__/3")
    assert not is_packed("__many__")
    assert not is_packed("many.example.org")
