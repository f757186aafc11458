"""What rank 0 counts of an output folder, opens again, remembers of servers, and wants to profile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from ddmpi.core.ledger.profile import Profile
from ddmpi.core.protocol import PartReport
from ddmpi.core.records import ErrorKind, PaceState
from ddmpi.errors import InputError
from ddmpi.io.folder.checkpoint import load
from ddmpi.io.folder.markers import Marker, read_completed, write_completed
from ddmpi.roles.coordinator.run_state import RunState, unix_time
from tests.io.result_data import FETCHED_AT, REFRESHED_AT, write_refresh
from tests.roles.coordinator.states import commit, make_state

SIZES = {"a.org": 10}
TWO_KINDS = {ErrorKind.DNS: [6, 7], ErrorKind.HTTP_STATUS: [8, 9]}


def restarted(tmp_path: Path, epoch: int) -> RunState:
    return make_state(tmp_path, SIZES, epoch=epoch)


def marker_of(state: RunState) -> Marker | None:
    return read_completed(state.layout, state.table.ref(0))


# ---- errors are fetched again


def failed_twice(tmp_path: Path) -> None:
    """One batch that is complete, with errors of two kinds."""
    commit(make_state(tmp_path, SIZES), 0, range(6), TWO_KINDS)


def test_errors_that_are_fetched_again_count_no_longer(tmp_path: Path) -> None:
    failed_twice(tmp_path)
    state = restarted(tmp_path, 2)
    assert state.counts.error_kinds == {"dns": 2, "http_status": 2}
    assert state.retry_failed(("dns",)) == 2
    counts = state.counts
    assert (counts.pending, int(counts.errors[0]), counts.error_kinds) == (2, 2, {"http_status": 2})
    assert (counts.is_open(0), counts.incomplete, marker_of(state)) == (True, 1, None)
    assert state.ref(0).retry == ("dns",)
    state.save({})
    checkpoint, _ = load(state.layout)
    assert checkpoint is not None
    told = {"rows": 10, "successes": 6, "errors": 2, "ignored": 0, "fetched": 8, "errors.http_status": 2}
    assert checkpoint.counters == told


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        pytest.param({}, {"http_status": 2}, id="the server is mended"),
        pytest.param({ErrorKind.DNS: [6, 7]}, {"dns": 2, "http_status": 2}, id="the server is not"),
        pytest.param({ErrorKind.TIMEOUT: [6, 7]}, {"http_status": 2, "timeout": 2}, id="it fails otherwise"),
    ],
)
def test_one_kind_is_fetched_again_and_then_the_other(
    tmp_path: Path, again: Mapping[ErrorKind, list[int]], expected: dict[str, int]
) -> None:
    failed_twice(tmp_path)
    state = restarted(tmp_path, 2)
    state.retry_failed(("dns",))
    commit(state, 0, [] if again else [6, 7], again)
    part = PartReport(0, "p", 2, is_errors=bool(again), kinds={str(k.value): len(rows) for k, rows in again.items()})
    state.counts.add_part(part)
    state.counts.complete(0)
    state.write_marker(0)
    assert state.counts.error_kinds == expected
    marker = marker_of(state)
    assert marker is not None
    assert (marker.rows, marker.errors, marker.kinds) == (10, sum(expected.values()), expected)
    state = restarted(tmp_path, 3)
    assert state.counts.error_kinds == expected
    assert state.retry_failed(("http_status",)) == 2
    del expected["http_status"]
    assert state.counts.error_kinds == expected


def test_kinds_that_an_earlier_version_has_lost_are_read_from_the_parts(tmp_path: Path) -> None:
    failed_twice(tmp_path)
    state = make_state(tmp_path, SIZES)
    write_completed(state.layout, state.table.ref(0), Marker(10, 6, 4, {"dns": 2}))
    state = restarted(tmp_path, 2)
    assert state.counts.error_kinds == {"dns": 2, "http_status": 2}
    assert marker_of(state) == Marker(10, 6, 4, {"dns": 2, "http_status": 2})
    assert state.retry_failed(("http_status",)) == 2


# ---- files are asked for again


def test_old_files_are_opened_again_until_they_have_a_new_outcome(tmp_path: Path) -> None:
    failed_twice(tmp_path)
    state = restarted(tmp_path, 2)
    assert state.refresh(FETCHED_AT) == 0
    assert marker_of(state) is not None, "none is as old as that"
    assert (state.ref(0).stale_before, state.stale_before) == (0.0, FETCHED_AT)
    assert state.refresh(REFRESHED_AT) == 6
    counts = state.counts
    assert (counts.pending, int(counts.successes[0]), counts.error_kinds) == (6, 0, {"dns": 2, "http_status": 2})
    assert (marker_of(state), state.ref(0).stale_before) == (None, REFRESHED_AT)
    write_refresh(state.layout, state.table.ref(0), unchanged=[0, 1], changed=[2], gone=[3])
    assert state.content(0).successes == 4, "what this run has asked for is final"
    state = restarted(tmp_path, 3)
    assert (state.counts.pending, marker_of(state)) == (0, Marker(10, 6, 4, {"dns": 2, "http_status": 2}))
    assert state.refresh(REFRESHED_AT) == 2, "a kill in between costs nothing"
    assert state.counts.pending == 2
    write_refresh(state.layout, state.table.ref(0), unchanged=[4, 5], epoch=3)
    state = restarted(tmp_path, 4)
    assert state.refresh(REFRESHED_AT) == 0
    assert marker_of(state) is not None


def test_errors_and_files_may_be_fetched_again_together(tmp_path: Path) -> None:
    failed_twice(tmp_path)
    state = restarted(tmp_path, 2)
    assert state.retry_failed(("dns",)) == 2
    assert state.refresh(REFRESHED_AT) == 6
    assert (state.counts.pending, state.counts.error_kinds) == (8, {"http_status": 2})
    assert (state.ref(0).retry, state.ref(0).stale_before) == (("dns",), REFRESHED_AT)


def test_a_damaged_part_that_a_refresh_comes_upon_costs_its_own_rows(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    successes, _ = commit(state, 0, range(7), {ErrorKind.DNS: [7, 8, 9]})
    write_refresh(state.layout, state.table.ref(0), gone=[0, 1], changed=[2])
    assert restarted(tmp_path, 3).counts.pending == 0
    successes.write_bytes(b"")
    state = restarted(tmp_path, 4)
    assert state.refresh(REFRESHED_AT + 1) == 7
    assert (state.layout.damaged / state.layout.relative(successes)).exists()
    assert (state.counts.pending, marker_of(state)) == (7, None)


# ---- what was learned of servers


def test_all_that_was_learned_of_a_server_comes_back_from_the_checkpoint(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    pace = PaceState(
        2.5, wait_s=100.0, incidents=3, open_count=1, throttles=4, spent_hour=((1800.0, 1e6),),
        spent_day=((1800.0, 1e6), (80_000.0, 4e6)),
    )  # fmt: skip
    state.save({"a.org": pace})
    checkpoint, _ = load(state.layout)
    assert checkpoint is not None
    state.servers = dict(checkpoint.servers)
    found = state.known_paces()["a.org"]
    assert (found.rate_per_s, found.incidents, found.open_count, found.throttles) == (2.5, 3, 1, 4)
    assert 90.0 < found.wait_s <= 100.0
    assert [size for _, size in found.spent_hour] == [1e6]
    assert [size for _, size in found.spent_day] == [1e6, 4e6]
    for (left_s, _), (before_s, _) in zip(found.spent_day, pace.spent_day, strict=True):
        assert before_s - 10 < left_s <= before_s


def test_bytes_that_count_no_longer_are_forgotten(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    state.save({"a.org": PaceState(spent_hour=((-1.0, 5.0), (1000.0, 7.0)))})
    assert [size for _, size in state.known_paces()["a.org"].spent_hour] == [7.0]


# ---- whom to profile

LARGE = {"a.org": 30, "b.org": 30, "c.org": 5}


def test_servers_with_enough_rows_and_without_a_profile_are_profiled(tmp_path: Path) -> None:
    state = make_state(tmp_path, LARGE)
    assert [(server, batches) for server, _, batches in state.targets()] == [("a.org", 2), ("b.org", 2)]
    state.profiles["a.org"] = Profile("a.org", 2, 3, 0, 10.0)
    assert [server for server, _, _ in state.targets()] == ["b.org"]
    state.stages["profiled"] = True
    assert state.targets() == []


def test_rows_that_a_killed_run_has_sampled_are_not_fetched_again(tmp_path: Path) -> None:
    state = make_state(tmp_path, LARGE)
    _, first, _ = state.targets()[0]
    commit(state, first.batch_id, [0, 1, 2])
    targets = {server: ref for server, ref, _ in make_state(tmp_path, LARGE, epoch=2).targets()}
    (part,) = targets["a.org"].parts
    assert part.startswith("images/server_name=a.org/partition_id=0/successes-")
    assert targets["b.org"].parts == ()


def test_a_server_whose_first_batch_is_complete_is_not_profiled(tmp_path: Path) -> None:
    state = make_state(tmp_path, LARGE)
    commit(state, state.targets()[0][1].batch_id, range(20))
    assert [server for server, _, _ in make_state(tmp_path, LARGE, epoch=2).targets()] == ["b.org"]


def test_a_damaged_part_of_a_batch_that_is_open_costs_its_own_rows(tmp_path: Path) -> None:
    state = make_state(tmp_path, {"a.org": 10})
    successes, errors = commit(state, 0, range(4), {ErrorKind.DNS: [8, 9]})
    successes.write_bytes(successes.read_bytes()[:-9])
    state = restarted(tmp_path, 2)
    assert (state.counts.final(0), state.counts.pending) == (2, 8)
    assert state.counts.parts == {0: [state.layout.relative(errors)]}
    assert (state.layout.damaged / state.layout.relative(successes)).exists()


def test_a_damaged_part_that_a_retry_comes_upon_costs_its_own_rows(tmp_path: Path) -> None:
    state = make_state(tmp_path, {"a.org": 10})
    successes, _ = commit(state, 0, range(7), {ErrorKind.DNS: [7, 8, 9]})
    state = restarted(tmp_path, 2)
    assert marker_of(state) is not None
    successes.write_bytes(b"")
    state = restarted(tmp_path, 3)
    assert state.counts.pending == 0, "its marker speaks for it"
    assert state.retry_failed(("dns",)) == 10
    assert (state.counts.pending, marker_of(state)) == (10, None)
    assert state.content(0).errors == 0, "those that are fetched again do not count"


# ---- servers that are not waited for


def test_servers_are_given_up_by_name_or_because_the_last_run_has_waited_for_them(tmp_path: Path) -> None:
    sizes = {"a.org": 10, "b.org": 10, "c.org": 10}
    state = make_state(tmp_path, sizes)
    assert state.give_up(()) == []
    state.save({"a.org": PaceState(open_count=1), "b.org": PaceState(wait_s=600.0), "c.org": PaceState(wait_s=2.0)})
    assert state.give_up(()) == ["a.org", "b.org"], "c.org is asked again at once"
    assert state.give_up(("C.org", "*.org")) == ["c.org", "*.org"]
    with pytest.raises(InputError, match=r"no server of the table is called d\.org"):
        state.give_up(("a.org", "d.org"))


def test_a_pause_ends_at_one_moment_whenever_it_is_told(tmp_path: Path) -> None:
    """The status and the end of a run name it, in whole seconds."""
    state = make_state(tmp_path, {"a.org": 10})
    state.save({"a.org": PaceState(wait_s=600.0, why="429")}, unix_s=1_000.0)
    checkpoint, _ = load(state.layout)
    assert checkpoint is not None
    later = state.waiting({"a.org": PaceState(wait_s=580.0, why="429")}, 1_020.0)
    assert [wait.until for told in (checkpoint.waiting, later) for wait in told.listed] == [1_600.0, 1_600.0]
    now = time.monotonic()
    assert unix_time(now + 30.0) - unix_time(now) == pytest.approx(30.0, abs=0.01)
