"""How lanes start on a rank and rows come to their sites, until the rank stops. Pure.

Decides when a queued lane starts, and sees to it that a lane has rows before it runs out of them: ``lane_table`` knows
which lane is next, ``feed`` brings the rows. It must not know requests or answers.

Invariant: each site that gets rows is looked after: they wait for their turn, or leave at once if there will be none.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddmpi.core.frontier.departures import Departures
from ddmpi.core.frontier.feed import Feed
from ddmpi.core.frontier.held_lane import HeldLane, RowCursor
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.slot import Site
from ddmpi.core.protocol import Errand
from ddmpi.core.records import BatchRef


class Arrivals:
    """The lanes and rows that come into one rank."""

    def __init__(self, lanes: LaneTable, feed: Feed, departures: Departures) -> None:
        self._lanes = lanes
        self._feed = feed
        self._departures = departures
        self._stopped = False

    def stop(self) -> None:
        """Start and load nothing more."""
        self._stopped = True

    def start_lanes(self, now: float) -> None:
        """Start queued lanes while the connections of the rank are not all spoken for."""
        while not self._stopped and (held := self._lanes.start_next(now)) is not None:
            self.open(held, now)
            self._departures.check_ended(held)

    def open(self, held: HeldLane, now: float) -> None:
        """The lane has just been started."""
        if not held.lane.packed:
            self._feed.site(held, held.lane.group, now)
        self.load_more(held)

    def load_more(self, held: HeldLane) -> None:
        """Ask for the lane's next batch if few rows are left."""
        if not self._stopped:
            self._feed.load_more(held)

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> None:
        """The rows of a batch that was asked for."""
        held = self._lanes.by_id[lane_id]
        self._feed.loaded(held, batch, cursor)
        self._refill(held, now)
        held.expect()
        if held.started:
            self._lanes.count_demand(held)
        self._departures.check_batch(batch.batch_id)
        self.load_more(held)
        self._departures.check_ended(held)
        self.start_lanes(now)

    def _refill(self, held: HeldLane, now: float) -> None:
        for site in self._feed.refill(held, now):
            self._departures.look_after(held, site, now)

    def add_errands(self, held: HeldLane, errands: Sequence[Errand], now: float) -> None:
        """Rows that other ranks have sent."""
        for errand in errands:
            self._departures.look_after(held, self._feed.add_errand(held, errand, now), now)

    def bring_in(self, held: HeldLane, site: Site, now: float) -> None:
        """Keep rows at the site, and batches in the lane, before they run out."""
        if held.cursors and not site.queue:
            self._refill(held, now)
        self.load_more(held)
