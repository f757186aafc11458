"""What headers say about how much a server takes, in the forms that servers send."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.records import Quota
from ddmpi.core.rules.rate_limit_fields import quota_of


def fields(policy: str = "", limit: str = "", **others: str) -> dict[str, str]:
    """Headers by name; ``others`` are those of older drafts."""
    named = {"ratelimit-policy": policy, "ratelimit": limit}
    named |= {f"ratelimit-{name}": value for name, value in others.items()}
    return {name: value for name, value in named.items() if value}


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        pytest.param(fields('"default";q=100;w=60', '"default";r=50;t=30'), Quota(99 / 60, 50, 30), id="both"),
        pytest.param(fields('"default";q=20;w=1'), Quota(19.0), id="a policy alone"),
        pytest.param(fields('"slow";q=6;w=60'), Quota(0.1), id="less than one a second"),
        pytest.param(fields(limit='"default";r=50;t=30'), Quota(math.inf, 50, 30), id="what is left alone"),
        pytest.param(
            fields('"permin";q=50;w=60,"perhr";q=1000;w=3600', '"permin";r=20;t=23, "perhr";r=3;t=2402'),
            Quota(1000 / 3600, 3, 2402),
            id="the strictest of several",
        ),
        pytest.param(
            fields('"burst";q=7;w=7 , "daily";q=1000;w=86400', '"burst";r=5;t=7, "daily";r=0;t=86000'),
            Quota(1.0, 0, 86_000),
            id="a day's quota is no rate",
        ),
        pytest.param(
            fields('"peruser";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:', '"peruser";r=0;t=3'),
            None,
            id="bytes are no requests",
        ),
        pytest.param(fields('"a, b;q=9\\"";qu="requests";pk=:cHs=:;w=1;q=2'), Quota(1.0), id="a name with all in it"),
        pytest.param(
            fields("100;w=60", "limit=100, remaining=50, reset=30"), Quota(99 / 60, 50, 30), id="the seventh draft"
        ),
        pytest.param(
            {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "50", "ratelimit-reset": " 30 "},
            Quota(99 / 60, 50, 30),
            id="the sixth draft",
        ),
        pytest.param(
            {"ratelimit-remaining": "0", "ratelimit-reset": "1700000000"}, None, id="a date is no number of seconds"
        ),
        pytest.param(fields(limit='"default";r=999'), None, id="nobody knows for how long"),
        pytest.param(fields(limit='"default";r=0;t=0'), None, id="for no time"),
    ],
)
def test_what_is_understood(headers: dict[str, str], quota: Quota | None) -> None:
    assert quota_of(headers) == quota


@pytest.mark.parametrize(
    "value",
    [
        '"default;q=20;w=1',
        '"default";q=20;w=1;',
        '"default";q=20;w=1, "other";=5',
        '"default";q=-20;w=1',
        '"default";q=20.5;w=1',
        '"default";q=20;w=0',
        '"default";q=0;w=60',
        '"default";q=9999999999999999;w=1',
        '"default";q="20";w=1',
        "20",
        ";",
        "=",
        "\u0662\u0660;w=1",
    ],
)
def test_what_is_malformed_or_cannot_be_meant_says_nothing(value: str) -> None:
    assert quota_of(fields(value)) is None


def test_a_malformed_header_takes_no_other_along() -> None:
    assert quota_of(fields("{}", '"default";r=5;t=10')) == Quota(math.inf, 5, 10)


@given(st.text(alphabet='";=,:qrtw019 abc\\-\u0661\n', max_size=60), st.text(max_size=60))
def test_no_value_raises_and_what_is_said_can_be_kept(policy: str, limit: str) -> None:
    quota = quota_of(fields(policy, limit, remaining=policy, reset=limit))
    if quota is not None:
        assert quota.per_s > 0
        assert quota.left >= 0
        assert quota.left_s >= 0
