"""What a rank tells the ledger about its lanes: which are parked, and what their paces went through. Pure.

Only news is told: a report per lane and half second would be a thousand messages a second on a large job.
"""

from __future__ import annotations

from collections.abc import Iterable

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import LaneEnded
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.slot import Site
from ddmpi.core.protocol import LaneReport, LaneState
from ddmpi.core.records import PaceState


def running(lanes: LaneTable, touched: Iterable[Site], now: float) -> list[LaneReport]:
    """The state of each started lane that is worth telling: parked ones, and those with ``touched`` sites."""
    paces: dict[int, dict[str, PaceState]] = {}
    for site in touched:
        paces.setdefault(site.lane_id, {})[site.key] = site.pace.snapshot(now)
    reports = []
    for lane_id, held in lanes.started.items():
        wait_s = held.rest_s(lanes.by_id.__getitem__, now)
        state = LaneState.PARKED if wait_s else LaneState.PROBING if held.is_probing(now) else LaneState.RUNNING
        if not wait_s and held.reported == (state, held.version) and lane_id not in paces:
            continue
        held.reported = (state, held.version)
        reports.append(LaneReport(lane_id, held.version, state, wait_s, paces.get(lane_id, {})))
    return reports


def drained(lanes: LaneTable, ended: LaneEnded, now: float) -> LaneReport | None:
    """The last report of a lane, once what it has fetched is committed.

    None when it was extended meanwhile: then it has ended again since, with results that may not be committed yet, or
    will end.
    """
    held = lanes.by_id.get(ended.lane_id)
    if held is None or not held.ended or held.endings != ended.ending:
        return None
    return LaneReport(ended.lane_id, held.version, LaneState.DRAINED, 0.0, _last_paces(held, now))


def sampled(held: HeldLane, now: float) -> LaneReport | None:
    """The report with which a sampling lane gives its limits back; None of any other lane."""
    if not held.lane.sampling:
        return None
    decided: dict[int, tuple[int, ...]] = {}
    for batch_id, row in held.decided:
        decided[batch_id] = (*decided.get(batch_id, ()), row)
    return LaneReport(held.lane_id, held.version, LaneState.SAMPLED, 0.0, _last_paces(held, now), decided)


def _last_paces(held: HeldLane, now: float) -> dict[str, PaceState]:
    return {key: site.pace.snapshot(now) for key, site in held.sites.items() if _matters(site, now)}


def _matters(site: Site, now: float) -> bool:
    """Whether the next holder has to know: a pace without a state would let its first request start at once."""
    state = site.pace.snapshot(now)
    return bool(
        state.incidents
        or state.rate_per_s
        or state.parkings
        or site.pace.has_byte_budget
        or site.pace.ready_at(now) > now
    )
