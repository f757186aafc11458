"""Profiling: which rows are sampled, and what is made of the samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.config.config import parse
from ddmpi.core.ledger.profile import Profile, profile_of
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.protocol import Counters, LaneReport, LaneState, PartReport, Progress, Sample
from ddmpi.core.records import Limits, PaceState
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.lock import acquire
from ddmpi.io.folder.profiles import read_profiles, write_profiles
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable, limits_by_group, make_plan
from ddmpi.io.urls.writer import partition_input
from ddmpi.roles.coordinator.profiling import HEAD_START_S, Admission, Profiler, is_sampling, targets
from ddmpi.roles.coordinator.run_state import RunState


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    """Three servers: two with 30 rows in two batches each, one with 5 rows."""
    rows = [f"http://{host}.example/{i}.jpg" for host, n in (("a", 30), ("b", 30), ("c", 5)) for i in range(n)]
    (tmp_path / "urls.txt").write_text("\n".join(rows) + "\n")
    config = parse(
        {"path_to_input": str(tmp_path / "urls.txt"), "path_to_output_folder": str(tmp_path / "out")}, "test"
    )
    layout = Layout(tmp_path / "out")
    layout.root.mkdir()
    table = open_input(config.path_to_input, config.columns.model_dump(), ())
    partition_input(table, layout.urls, batch_size=20, small_rows=10, group_of=config.group_of)
    return RunState(
        config=config,
        layout=layout,
        table=BatchTable(layout),
        reader=BatchReader(layout.urls),
        lock=acquire(layout.lock, job_id="", since="now", job_is_gone=lambda _: None),
        epoch=1,
        input_fingerprint="",
        stages={},
        servers={},
        saved_at=0.0,
        profiles={},
    )


def find_targets(state: RunState) -> list[str]:
    found = targets(state.table, 10, state.profiles, state.is_open, state.begun_ref)
    return [server for server, _, _ in found]


def make_profiler(state: RunState) -> Profiler:
    found = targets(state.table, 10, state.profiles, state.is_open, state.begun_ref)
    return Profiler(found, lambda _: Limits(10.0, 8), lambda server: server, {}, samples_per_server=3)


def test_only_servers_with_enough_rows_and_without_a_profile_are_sampled(state: RunState) -> None:
    assert find_targets(state) == ["a.example", "b.example"]
    state.profiles["a.example"] = Profile("a.example", 2, 3, 0, 10.0)
    assert find_targets(state) == ["b.example"]


def test_rows_that_a_killed_run_has_sampled_are_not_fetched_again(state: RunState) -> None:
    _, first, _ = targets(state.table, 10, {}, state.is_open, state.begun_ref)[0]
    part = "images/server_name=a.example/partition_id=0/successes-e0001-r00001-0001.parquet"
    state.add_part(PartReport(first.batch_id, part, 3, is_errors=False))
    lanes = [lane for assign in make_profiler(state).lanes([1, 2]).values() for lane in assign.lanes]
    sampled = {lane.group: lane.batches[0] for lane in lanes}
    assert sampled["a.example"].parts == (part,)
    assert sampled["a.example"].sample_rows == 3
    assert sampled["b.example"].parts == ()


def test_a_server_is_done_with_its_samples_and_its_lane_with_their_parts(state: RunState) -> None:
    profiler = make_profiler(state)
    first, second = (lane for assign in profiler.lanes([1, 2, 3]).values() for lane in assign.lanes)
    assert first.sampling
    assert is_sampling(first.lane_id)
    assert is_sampling(second.lane_id)
    hurt = {first.group: PaceState(incidents=1)}
    decided: dict[int, tuple[int, ...]] = {first.batches[0].batch_id: (0, 19)}
    assert not profiler.on_lane(LaneReport(first.lane_id, 0, LaneState.RUNNING))
    assert not profiler.on_lane(LaneReport(first.lane_id, 0, LaneState.SAMPLED, paces=hurt, decided=decided))
    assert (profiler.take_back(), profiler.groups_out) == ({first.group}, {second.group})
    assert (profiler.decided(), profiler.paces) == (decided, hurt)
    assert profiler.batches_of(first.lane_id) == (first.batches[0].batch_id,)
    assert profiler.on_lane(LaneReport(first.lane_id, 0, LaneState.DRAINED))
    assert profiler.decided() == {}
    progress = [(profiler.is_done, profiler.is_drained)]
    for state_of_second in (LaneState.SAMPLED, LaneState.DRAINED):
        profiler.on_lane(LaneReport(second.lane_id, 0, state_of_second))
        progress.append((profiler.is_done, profiler.is_drained))
    assert progress == [(False, False), (True, False), (True, True)]


def test_reports_on_sampling_lanes_do_not_reach_the_ledger(state: RunState) -> None:
    profiler = make_profiler(state)
    first, second = (lane for assign in profiler.lanes([1]).values() for lane in assign.lanes)
    profiler.on_lane(LaneReport(first.lane_id, 0, LaneState.SAMPLED, decided={first.batches[0].batch_id: (0,)}))
    of_ledger = LaneReport(7, 0, LaneState.DRAINED)
    reports = (
        LaneReport(first.lane_id, 0, LaneState.DRAINED),
        of_ledger,
        LaneReport(second.lane_id, 0, LaneState.RUNNING),
    )
    sorted_out = profiler.sort_out(Progress((), reports, 0.0, 0, Counters()))
    assert sorted_out.rest.lanes == (of_ledger,)
    assert sorted_out.released == (first.lane_id,)
    assert sorted_out.durable == [first.batches[0].batch_id]


def test_servers_join_when_the_head_start_is_over_or_all_are_sampled(state: RunState) -> None:
    profiler = make_profiler(state)
    first, second = (lane for assign in profiler.lanes([1]).values() for lane in assign.lanes)
    admission = Admission(profiler, state, now=100.0)
    assert not admission.is_due(100.0 + HEAD_START_S / 2)
    profiler.on_lane(LaneReport(first.lane_id, 0, LaneState.SAMPLED))
    profiler.on_samples([Sample(first.group, success=True, status=200, total_s=0.4)])
    assert admission.is_due(100.0 + HEAD_START_S)
    assert admission.take(100.5) == {first.group}
    assert state.profiles[first.group].total_s == 0.4
    plan = plan_of(state)
    assert admission.withhold(plan) == {plan.group_of_server(second.group, second.group)}
    profiler.on_lane(LaneReport(second.lane_id, 0, LaneState.SAMPLED, decided={7: (1,)}))
    assert admission.is_due(100.5)
    admitted = admission.admit(plan, admission.take(100.6))
    assert set(admitted.row_times) == {plan.group_of_server(second.group, second.group)}
    assert admitted.decided == {7: (1,)}
    admission.finish()
    assert set(read_profiles(state.layout.profiles)) == {first.group, second.group}


def plan_of(state: RunState) -> Plan:
    limits = limits_by_group(state.config, state.profiles)
    return make_plan(
        state.table, state.config, rows=state.rows, profiles=state.profiles, limits=limits, ref=state.ref, workers=[1]
    )


def test_a_profile_summarizes_the_samples_and_survives_its_file(tmp_path: Path) -> None:
    samples = [
        Sample("a", True, 200, ip="192.0.2.1", http_version="2", connect_s=0.01, ttfb_s=t, total_s=2 * t, bytes=100)
        for t in (0.1, 0.2, 0.4)
    ]
    samples.append(Sample("a", False, 429, "http_status", retry_after_s=17.0))
    profile = profile_of("a", 7, 5.0, samples)
    assert (profile.success_count, profile.error_count, profile.rate_limit) == (3, 1, 5.0)
    assert (profile.ttfb_s, profile.total_s, profile.bytes) == (0.2, 0.4, 100)
    assert (profile.status_counts, profile.retry_after_s) == ("200:3 429:1", 17.0)
    silent = profile_of("b, quoted", 1, 0.0, ())
    write_profiles(tmp_path / "profiles.csv", {"b": silent, "a": profile}, tmp_path / "tmp")
    assert read_profiles(tmp_path / "profiles.csv") == {"a": profile, "b, quoted": silent}
