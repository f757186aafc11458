"""What the downloading ranks say of their work, summed over all of them, for the people who watch a run.

Nothing here decides anything: accounting goes by published parts alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.protocol import Counters, LaneReport
from ddmpi.core.records import is_packed
from ddmpi.core.stats.audit import Audit
from ddmpi.core.stats.usage import UsageTable


@dataclass
class Tally:
    """The ranks' reports on one run."""

    counters: dict[int, Counters] = field(default_factory=dict)
    """What each rank has done since it began."""
    usage: UsageTable = field(default_factory=UsageTable)
    audit: Audit = field(default_factory=Audit)

    def total(self) -> Counters:
        """Sum over the ranks."""
        all_counters = self.counters.values()
        return Counters(
            sum(c.successes for c in all_counters),
            sum(c.errors for c in all_counters),
            sum(c.requests for c in all_counters),
            sum(c.bytes for c in all_counters),
            sum(c.in_flight for c in all_counters),
            sum(c.servers_active for c in all_counters),
            sum(c.memory_bytes for c in all_counters),
        )

    def note_pauses(self, reports: Iterable[LaneReport], ledger: Ledger, now: float) -> None:
        """Of packed servers none is told apart, and what one of them asked for is no pause of all."""
        for report in reports:
            group = ledger.lane_group(report.lane_id) if report.paces else None
            if group is not None and not is_packed(group):
                for pace in report.paces.values():
                    self.usage.note_pause(group, pace.wait_s, now)
