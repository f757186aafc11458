"""Which rows wait for whom, until when and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from ddmpi.core.ledger import waiting as module
from ddmpi.core.ledger.waiting import Wait, Waiting, servers_waited_for, waiting
from ddmpi.core.records import Limits, PaceState

NAMES = ["a", "b", "__many__/7", "joint"]
GROUPS = {"a": 0, "b": 1, "tiny": 2, "small": 2, "joint": 3}
NOW = 1000.0
ANY = Limits()
ASKED = PaceState(wait_s=30.0, why="Retry-After 40 s")
SILENT = PaceState(wait_s=60.0, open_count=2, why="out of reach", since_s=100.0)


def found(
    paces: Mapping[str, PaceState],
    rows: Mapping[str, int],
    held: Sequence[int] = (),
    limits: Limits = ANY,
    most: int = module.MOST_LISTED,
    undone: int = 1_000,
) -> Waiting:
    left = np.array([rows.get(name, 0) for name in NAMES], np.int64)
    return waiting(
        NAMES, left, paces, group_of=GROUPS.get, limits=lambda _: limits, held=held,
        probing_left_s=lambda count: 100.0 * (5 - count), now=NOW, undone=undone, most=most,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pace", "expected"),
    [
        pytest.param(ASKED, Wait("a", 5, 1030.0, "Retry-After 40 s"), id="it has said so"),
        pytest.param(SILENT, Wait("a", 5, 1060.0, "out of reach", 900.0, given_up_at=1360.0), id="out of reach"),
        pytest.param(
            PaceState(open_count=1, why="connect, out of reach", since_s=5.0),
            Wait("a", 5, 1000.0, "connect, out of reach", 995.0, given_up_at=1400.0),
            id="it is being probed",
        ),
        pytest.param(
            PaceState(wait_s=10.0, why="Retry-After 10 s", spent_day=((500.0, 60.0), (900.0, 60.0))),
            Wait("a", 5, 1500.0, "its bytes are spent"),
            id="the bytes of a day are spent for longer than the pause",
        ),
    ],
)
def test_what_a_server_is_waited_for(pace: PaceState, expected: Wait) -> None:
    it = found({"a": pace}, {"a": 5}, limits=Limits(bytes_per_day=100.0))
    assert it == Waiting((expected,), 1, 5, expected.until)


@pytest.mark.parametrize(
    ("server", "pace"),
    [
        pytest.param("a", PaceState(rate_per_s=3.0, incidents=2), id="it may be asked"),
        pytest.param("b", ASKED, id="all of its rows are final"),
        pytest.param("elsewhere", ASKED, id="no row is on it"),
        pytest.param("a", PaceState(spent_day=((500.0, 60.0),)), id="there is room in its budget"),
    ],
)
def test_who_is_not_waited_for(server: str, pace: PaceState) -> None:
    assert found({server: pace}, {"a": 5}, limits=Limits(bytes_per_day=100.0)) == Waiting()


def test_rows_of_a_group_are_counted_once_and_named_by_the_server_that_comes_first() -> None:
    it = found({"tiny": SILENT, "small": ASKED}, {"__many__/7": 9})
    assert it == Waiting((Wait("small", 9, 1030.0, "Retry-After 40 s", servers=2),), 2, 9, 1030.0)


def test_the_bytes_that_servers_of_a_group_share_are_the_groups() -> None:
    it = found({"*joint": PaceState(spent_hour=((500.0, 60.0),))}, {"joint": 4}, limits=Limits(bytes_per_hour=50.0))
    assert it == Waiting((Wait("joint", 4, 1500.0, "its bytes are spent"),), 1, 4, 1500.0)


def test_what_the_operator_holds_waits_for_nothing_else() -> None:
    it = found({"a": ASKED}, {"a": 5, "b": 7}, held=[0])
    assert it == Waiting((Wait("a", 5, 0.0, "held by control.yaml"),), 1, 5, 0.0)


def test_the_groups_with_the_most_rows_are_listed_and_all_are_counted() -> None:
    rows = {"a": 1, "b": 4, "__many__/7": 3, "joint": 2}
    it = found({"a": ASKED, "b": ASKED, "tiny": SILENT, "joint": ASKED}, rows)
    assert [wait.server for wait in it.listed] == ["b", "tiny", "joint", "a"]
    assert (it.servers, it.rows, it.until) == (4, 10, 1030.0)
    it = found({"a": ASKED, "b": ASKED, "tiny": SILENT, "joint": ASKED}, rows, most=2)
    assert ([wait.server for wait in it.listed], it.servers, it.rows) == (["b", "tiny"], 4, 10)


def test_rows_that_are_fetched_and_not_durable_yet_wait_for_nobody() -> None:
    it = found({"tiny": SILENT, "b": ASKED}, {"__many__/7": 120, "b": 5}, undone=40)
    assert [(wait.server, wait.rows) for wait in it.listed] == [("tiny", 40), ("b", 5)]
    assert it.rows == 40
    assert found({"tiny": SILENT}, {"__many__/7": 120}, held=[0], undone=0) == Waiting()


def test_which_servers_are_waited_for_longer_than_every_run_waits() -> None:
    paces = {"a": ASKED, "b": SILENT, "*joint": PaceState(debt_s=90.0), "tiny": PaceState(rate_per_s=2.0)}
    assert list(servers_waited_for(paces, lambda _: ANY)) == ["a", "b", "joint"]
    assert list(servers_waited_for(paces, lambda _: ANY, least_s=30.0)) == ["b", "joint"]
