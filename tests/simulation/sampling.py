"""The profiling stage of a simulated run: what ``roles.profiling`` and ``roles.admission`` do around the ledger. Pure.

Decides which servers are sampled, by which rank, and when they join. A server joins as soon as its own samples are in:
no round, no head start, so that the ledger sees every order of events.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ddmpi.core.arrays import IntArray
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.protocol import Assign, Lane, LaneReport, LaneState, Progress
from ddmpi.core.records import INVALID_SERVER, PaceState, is_packed


class Sampling:
    """The sampling lanes of a run.

    Args:
        rows_left: (B,) rows of each batch that are not final.
        parts: of each batch that is begun, as published.
        samples: rows of each group that are fetched at most, of its first batch.
    """

    def __init__(self, plan: Plan, rows_left: IntArray, parts: dict[int, list[str]], samples: int) -> None:
        self._plan = plan
        self._lanes: dict[int, tuple[Lane, int]] = {}
        self._committing: dict[int, int] = {}
        first = {int(group): batch_id for batch_id, group in reversed(list(enumerate(plan.batch_group.tolist())))}
        for index, batch_id in sorted(first.items()):
            group = plan.group_names[index]
            if is_packed(group) or group == INVALID_SERVER or not rows_left[batch_id]:
                continue
            ref = msgspec.structs.replace(plan.ref(batch_id), sample_rows=samples, parts=tuple(parts.get(batch_id, ())))
            lane_id = -1 - len(self._lanes)
            lane = Lane(lane_id, group, False, plan.limits(group), (ref,), {}, sampling=True)
            self._lanes[lane_id] = lane, plan.workers[len(self._lanes) % len(plan.workers)]

    def assigns(self, paces: dict[str, PaceState]) -> dict[int, Assign]:
        """The lanes of each rank; ``paces`` is what is known of servers."""
        dealt: dict[int, list[Lane]] = {}
        for lane, rank in self._lanes.values():
            known = {lane.group: paces[lane.group]} if lane.group in paces else {}
            dealt.setdefault(rank, []).append(msgspec.structs.replace(lane, paces=known))
        return {rank: Assign(tuple(lanes)) for rank, lanes in dealt.items()}

    @property
    def groups_out(self) -> list[int]:
        """Indexes of the groups that are being sampled."""
        return [self._index(lane) for lane, _ in self._lanes.values()]

    def _index(self, lane: Lane) -> int:
        index = self._plan.group_of_server(lane.group, lane.group)
        assert index is not None  # it was found by its index
        return index

    def holder(self, lane_id: int) -> int | None:
        """The rank that holds the lane, None if it has ended."""
        return self._lanes[lane_id][1] if lane_id in self._lanes else None

    def lane_group(self, lane_id: int) -> str | None:
        """The group that the lane samples, None if it has ended."""
        return self._lanes[lane_id][0].group if lane_id in self._lanes else None

    def split(self, message: Progress) -> tuple[Progress, Sequence[LaneReport]]:
        """What the ledger gets of a report, and the reports on sampling lanes that have ended."""
        others = tuple(report for report in message.lanes if report.lane_id > 0)
        states = {LaneState.SAMPLED, LaneState.DRAINED}
        ended = [report for report in message.lanes if report.lane_id < 0 and report.state in states]
        return msgspec.structs.replace(message, lanes=others), ended

    def end(self, report: LaneReport) -> tuple[int, int]:
        """The lane fetches no more: the index of its group, and the batch that it sampled."""
        lane, _ = self._lanes.pop(report.lane_id)
        self._committing[report.lane_id] = lane.batches[0].batch_id
        return self._index(lane), lane.batches[0].batch_id

    def commit(self, report: LaneReport) -> int:
        """The lane is gone: the batch whose samples are durable."""
        return self._committing.pop(report.lane_id)
