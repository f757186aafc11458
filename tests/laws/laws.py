"""The laws, checked at every step of a job's lives.

All of them hold over restarts: one object watches a job from the beginning of the world and keeps a ledger of what each
server was sent, by whom it was asked to wait, what rows were answered, and what is on the disk. It knows nothing of how
the cores decide.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

from protego import Protego

from ddmpi.core.ledger.known_paces import PAUSE_NEWS_S
from ddmpi.core.ledger.schedule import SPLIT_ABOVE_PER_S
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.pace.rate_limiter import BURST_S
from ddmpi.core.protocol import Handoff
from ddmpi.core.records import Answer, ErrorKind, Failure, Limits, Task, is_packed
from tests.laws.witness import COORDINATOR, Witness
from tests.simulation.disk import Disk
from tests.simulation.simulation import CHECKPOINT_S, Simulation
from tests.worlds.model import RunReport, World, server_of

CRAWLER = "ddmpi"
UNDERWAY = -2
"""In place of a rank: the row is in a message about a redirect or a mirror."""
ROUNDING = 1e-6
NEWS_S = 12.0
"""After so long every rank knows that the server has asked for a pause, even if one was stalled for 8 s."""
HOUR_S = 3600.0
DAY_S = 86_400.0
UNCLEAR_IN_A_ROW = 20
MOST_REDIRECTS = 5
"""The default of ``FrontierConfig``."""

Row = tuple[int, int]


class ServerLedger:
    """What one server group was sent since the beginning of the world, or when one server asked to wait."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[float, float]] = {}
        self._paid_at = -math.inf
        self._may_be_lost = 0
        self._bodies: deque[tuple[float, int]] = deque()  # of a day: when they came, and how large they were
        self._largest = 0
        self._lanes: dict[str, int] = {}
        self.pause_until = -math.inf
        """When the pause ends that the server has asked for."""
        self.paused_at = -math.inf
        """When it has asked for that."""

    def started(self, what: str, now: float, rate_per_s: float, burst: float) -> None:
        """At most ``rate * w + burst`` starts in every window of ``w`` seconds, as a bucket that leaks."""
        if rate_per_s <= 0:
            return
        level, at = self._levels.get(what, (0.0, now))
        level = max(0.0, level - (now - at) * rate_per_s) + 1
        self._levels[what] = (level, now)
        assert level <= burst + ROUNDING, f"{what}: {level} requests at once at {now}, {burst} allowed"

    def lanes_owing(self, what: str, now: float, rate_per_s: float, lanes: int) -> int:
        """Lanes divide a rate, and their turns may fall together: how many were out at once since nothing was owed, for
        what they have sent in excess lasts as long."""
        level, at = self._levels.get(what, (0.0, now))
        is_owed = level > (now - at) * rate_per_s
        self._lanes[what] = max(self._lanes.get(what, 0), lanes) if is_owed else lanes
        return self._lanes[what]

    def check_bytes(self, group: str, now: float, limits: Limits, planned: Limits, changed_at: float) -> None:
        """The bodies before this request are paid for, but for one on each connection, and as many for each kill since
        all was paid for: of those that came just before it nobody has been told.
        A budget that is not planned knows of those that have come since ranks have heard of it."""
        overrun = limits.connections * self._largest
        if limits.bytes_per_s > 0:
            debt_bytes = (self._paid_at - now) * limits.bytes_per_s
            lost = self._may_be_lost * limits.connections * self._largest
            self._may_be_lost *= debt_bytes > 0
            assert debt_bytes <= overrun + lost + 1, f"{group}: {debt_bytes} bytes are not paid for at {now}"
        for name, window_s in (("bytes_per_hour", HOUR_S), ("bytes_per_day", DAY_S)):
            budget = getattr(limits, name)
            since = now - window_s if getattr(planned, name) > 0 else max(now - window_s, changed_at)
            spent = sum(size for at, size in self._bodies if at > since)
            assert budget <= 0 or spent < budget + overrun, f"{group}: {spent} bytes in {window_s} s, {budget} allowed"

    def forget(self, since: float) -> None:
        """A kill came before a checkpoint could hold what has happened since then."""
        if self.paused_at > since:
            self.pause_until = -math.inf
        while self._bodies and self._bodies[-1][0] > since:
            self._bodies.pop()
        self._may_be_lost += 1

    def received(self, now: float, started_at: float, size_bytes: int, bytes_per_s: float) -> None:
        """A body has come in."""
        self._largest = max(self._largest, size_bytes)
        if bytes_per_s > 0:
            self._paid_at = max(self._paid_at, started_at) + size_bytes / bytes_per_s
        self._bodies.append((now, size_bytes))
        while self._bodies[0][0] < now - DAY_S:
            self._bodies.popleft()


class Laws(Witness):
    """Fails at the step that breaks a law. One object watches a job; ``begin_life`` comes before each of its runs."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.world = world
        self.disk = disk
        self.servers: dict[str, ServerLedger] = {}
        self.robots = {server: Protego.parse(text) for server, text in (world.robots or {}).items()}
        self.statuses: dict[Row, set[int]] = {}
        """What each row was answered."""
        self.asked_until: dict[str, float] = {}
        """When the pause ends that the server itself has asked for, of its group or of one URL."""

    def begin_life(self, simulation: Simulation) -> None:
        """A run begins: nothing is in flight, and what was not durable is lost."""
        self._simulation = simulation
        self.decided_rows = {(part.batch_id, row) for part in self.disk.parts.values() for row in part.rows}
        self.owners: dict[Row, int] = {}
        self.in_flight_rows: set[Row] = set()
        self.places: dict[Row, int] = {}
        """Which of its URLs each row was asked for last, since it was read."""
        self.in_flight: Counter[str] = Counter()
        self.said: dict[str, set[int]] = {}  # by server, to the rows that were asked for in this life
        self.own_pauses: dict[tuple[str, int], float] = {}  # by server or URL, and the rank that was told
        self.refused: set[tuple[str, int, int]] = set()
        self.refused_again: Counter[tuple[str, int]] = Counter()  # by server and rank
        self.refused_in_a_row: Counter[tuple[str, int]] = Counter()  # of others
        self.requests = 0

    def of(self, group: str) -> ServerLedger:
        """The ledger of a server group, or of a server."""
        return self.servers.setdefault(group, ServerLedger())

    # ---- accounting: every row has one owner or one outcome

    def loaded(self, rank: int, batch_id: int, rows: Sequence[int]) -> None:
        for row in rows:
            key = (batch_id, row)
            assert key not in self.decided_rows, f"row {key} is fetched again by rank {rank}"
            assert key not in self.owners, f"row {key} of rank {self.owners[key]} comes to rank {rank} as well"
            self.owners[key] = rank
            self.places.pop(key, None)

    def withdrawn(self, batch_id: int) -> None:
        for key in [key for key in self.owners if key[0] == batch_id]:
            assert key not in self.in_flight_rows, f"row {key} is in flight while nobody works on its batch"
            del self.owners[key]

    def decided(self, rank: int, batch_id: int, row: int, failure: Failure | None) -> None:
        key = (batch_id, row)
        assert key not in self.decided_rows, f"row {key} has two outcomes"
        assert self.owners.pop(key) in {rank, UNDERWAY}
        self.decided_rows.add(key)
        if failure is not None:
            self._check_failure(key, failure)

    def handed_off(self, rank: int, handoff: Handoff) -> None:
        for row in (handoff.row, *handoff.others):
            key = (handoff.batch.batch_id, row)
            assert self.owners[key] in {rank, UNDERWAY}  # it may come to a server that is given up, and leave unasked
            self.owners[key] = UNDERWAY

    # ---- isolation: what others do costs a row nothing

    def _check_failure(self, key: Row, failure: Failure) -> None:
        if failure.kind is ErrorKind.HTTP_STATUS:
            assert failure.code in self.statuses.get(key, ()), f"row {key} was never answered {failure}"
        ways = self._ways_of(key)
        if failure.kind is ErrorKind.GIVEN_UP:
            # Where a server's robots.txt was moved to one that is given up, nobody can know what may be asked.
            asked = {server for way in ways for _, server in way}
            asked |= {name for server in asked for name in self._robots_way(server)}
            assert any(map(self._is_given_up, asked)), f"row {key} was not given up"
        for way in ways:
            assert not self._is_healthy(way), f"row {key} is healthy by {way}, and an error: {failure}"

    def _ways_of(self, key: Row) -> list[list[tuple[str, str]]]:
        batch_id, row = key
        return self.world.ways_of(*self.world.batches[batch_id].rows[row])

    def _is_healthy(self, way: Sequence[tuple[str, str]]) -> bool:
        """Whether this way leads to a success whatever others do: all servers on it serve the row, and allow it, and
        the operator gives none of them up."""
        return len(way) <= MOST_REDIRECTS + 1 and all(
            server in self.world.servers and self.world.servers[server].serves(url) and self._allows(server, url)
            and not self._is_given_up(server)
            for url, server in way
        )  # fmt: skip

    def _robots_way(self, server: str) -> set[str]:
        """The servers to which the server's robots.txt leads, which may lead in a circle."""
        url, found = f"http://{server}/robots.txt", {server}
        for _ in range(MOST_REDIRECTS + 1):
            url = self.world.redirects.get(url, url)
            found.add(server_of(url))
        return found

    def _is_given_up(self, server: str) -> bool:
        """Whether the operator gives the server up in this life."""
        rules = [rule for _, some in self._simulation.cluster.controls for rule in some]
        return any(rule.give_up for rule in rules) and Overrides(rules).gives_up(server, self.world.group_of(server))

    def _allows(self, server: str, url: str) -> bool:
        """Whether the server itself says by its robots.txt, at the first try, that the URL may be fetched."""
        if self.world.robots is None:
            return True
        own = f"http://{server}/robots.txt"
        if own in self.world.redirects or self.world.servers[server].refuses(own):
            return False
        return server not in self.robots or self.robots[server].can_fetch(url, CRAWLER)

    def _check_left_over(self, committed: Counter[Row], now: float) -> None:
        """The run ended because the servers of all rows that are left wait: none of them waits for others."""
        rows = ((batch_id, row) for batch_id, batch in enumerate(self.world.batches) for row in range(len(batch.rows)))
        for key in rows:
            way = self._ways_of(key)[0]
            if key not in committed and self._is_healthy(way):
                assert any(self._waits(server, now) for _, server in way), f"row {key} of {way} is left over at {now}"

    def _waits(self, server: str, now: float) -> bool:
        """Whether the server itself has asked for a pause, the operator holds it, or its bytes may be spent; now, or as
        long ago as the end of a run may take. One that has refused every row so far may wait as well: nobody can know
        that it would not refuse the others."""
        group = self.world.group_of(server)
        has_asked = self.asked_until.get(server, -math.inf) >= now - NEWS_S or self.said.get(server) == {429}
        return has_asked or any(
            limits is None or limits.has_byte_budget for limits in self._limits_by_rules(now, group)
        )

    # ---- politeness: limits hold over all ranks and lives

    def started(self, now: float, rank: int, task: Task, lane_id: int) -> None:
        self.requests += 1
        if not task.robots_of:
            self._check_rows(rank, task)
        group = self.world.group_of(task.server)
        lanes = self._check_lease(rank, lane_id, task.server, group)
        self._check_pauses(now, rank, task.server, task.url)
        limits = self._limits_at(now, group)
        self.in_flight[group] += 1
        assert self.in_flight[group] <= limits.connections, f"{group}: {self.in_flight[group]} requests at once"
        ledger = self.of(group)
        burst = max(1.0, limits.rate_per_s * BURST_S)
        if may_have_several_lanes(limits) or may_have_several_lanes(self.world.limits_for(group)):
            burst += ledger.lanes_owing(group, now, limits.rate_per_s, lanes)  # each may have begun with a request
        ledger.started(group, now, limits.rate_per_s, burst)
        changed_at = max((at + NEWS_S for at, _ in self._simulation.cluster.controls if at <= now), default=-math.inf)
        ledger.check_bytes(group, now, limits, self.world.limits_for(group), changed_at)
        if not task.robots_of and group == task.server and group in self.robots:
            delay_s = self.robots[group].crawl_delay(CRAWLER)
            if delay_s:
                rows, rate_per_s = f"rows of {group}", 1 / delay_s
                turns = ledger.lanes_owing(rows, now, rate_per_s, lanes)
                ledger.started(rows, now, rate_per_s, float(turns))

    def _check_rows(self, rank: int, task: Task) -> None:
        rows = self.world.batches[task.batch_id].rows
        url, _ = rows[task.row]
        keys = [(task.batch_id, row) for row, (other, _) in enumerate(rows) if other == url]
        assert sorted(task.rows) == [row for _, row in keys], f"{url} is not fetched for all of its rows: {task}"
        for key in keys:
            assert key not in self.decided_rows, f"row {key} has an outcome and is fetched again"
            assert key not in self.in_flight_rows, f"row {key} is fetched twice at once"
            owner = self.owners[key]
            assert owner in {rank, UNDERWAY}, f"row {key} of rank {owner} is fetched by rank {rank}"
            self.owners[key] = rank
        self.in_flight_rows.update(keys)
        self._check_mirror(keys[0], task.url)
        robots = self.robots.get(task.server)
        assert robots is None or robots.can_fetch(task.url, CRAWLER), f"{task.url} is disallowed"

    def _check_mirror(self, key: Row, url: str) -> None:
        """A mirror is asked after the URLs before it have failed, which those that are healthy never do, and none of
        them is asked again before the row is read again (a sample stays pending)."""
        ways = self._ways_of(key)
        place = next(place for place, way in enumerate(ways) if url in (it for it, _ in way))
        assert place >= self.places.get(key, 0), f"row {key}: {url} is asked again, after its mirrors"
        self.places[key] = place
        for way in ways[:place]:
            assert not self._is_healthy(way), f"row {key}: {url} is asked, although {way} is healthy"

    def _limits_at(self, now: float, group: str) -> Limits:
        """The loosest of the limits by which a rank may still go: news of others take their time."""
        found = [limits for limits in self._limits_by_rules(now, group) if limits is not None]
        assert found, f"{group} is paused or given up, and asked at {now}"

        def loosest(values: Sequence[float]) -> float:
            return max(values) if min(values) > 0 else 0.0

        return Limits(
            loosest([it.rate_per_s for it in found]),
            max(it.connections for it in found),
            loosest([it.bytes_per_s for it in found]),
            loosest([it.bytes_per_day for it in found]),
            loosest([it.bytes_per_hour for it in found]),
        )

    def _limits_by_rules(self, now: float, group: str) -> list[Limits | None]:
        """By the operator's rules that ranks may know now; None where they hold the group, or give it up."""
        controls = [(-math.inf, ()), *self._simulation.cluster.controls]
        ends = [*(at for at, _ in controls[1:]), math.inf]
        valid = [rules for (at, rules), end in zip(controls, ends, strict=True) if at <= now < end + NEWS_S]
        overrides, planned = map(Overrides, valid), self.world.limits_for(group)
        return [None if it.gives_up(group) else it.limits(group, planned) for it in overrides]

    def _check_lease(self, rank: int, lane_id: int, server: str, group: str) -> int:
        """The lane is the rank's; how many lanes of the group are out."""
        core = self._simulation.core
        assert core.holder(lane_id) == rank, f"rank {rank} fetches from {server} under lane {lane_id}: not its own"
        served = core.lane_group(lane_id)
        assert served is not None
        assert served == group or is_packed(served), f"rank {rank} fetches from {server} under a lane of {served}"
        return max(1, len(core.ledger.lanes_of(served))) if core.ledger is not None else 1

    def opened(self, now: float, server: str) -> None:
        group = self.world.group_of(server)
        servers = self.world.servers_of(group)
        count = sum(rank.connections.count(it) for rank in self._simulation.ranks for it in servers)
        most = self._limits_at(now, group).connections
        assert count <= most, f"{group}: {count} connections are open at {now}, idle ones included, {most} allowed"

    def _check_pauses(self, now: float, rank: int, server: str, url: str) -> None:
        own_until = max(self.own_pauses.get((name, rank), -math.inf) for name in (server, url))
        assert now >= own_until - ROUNDING, f"{server} asked rank {rank} to wait until {own_until}, asked at {now}"
        ledger = self.of(server)
        until = ledger.pause_until
        if may_have_several_lanes(self.world.limits_for(self.world.group_of(server))):
            if now < ledger.paused_at + NEWS_S:
                return
            # Two pauses that differ by less than a message takes cannot be told apart: clocks of ranks are their own.
            until -= PAUSE_NEWS_S + self._simulation.cluster.most_latency_s
        assert now >= until - ROUNDING, f"{server} asked to wait until {until}, rank {rank} asks at {now}"

    def answered(self, now: float, rank: int, answer: Answer) -> None:
        task = answer.task
        if not task.robots_of:
            self.in_flight_rows.difference_update((task.batch_id, row) for row in task.rows)
            for row in task.rows:
                self.statuses.setdefault((task.batch_id, row), set()).add(answer.status)
            self.said.setdefault(task.server, set()).add(answer.status)
        group = self.world.group_of(task.server)
        self.in_flight[group] -= 1
        ledger = self.of(group)
        ledger.received(now, task.started_at, len(answer.body), self._limits_at(now, group).bytes_per_s)
        if answer.status == 429:
            asked = task.server, task.batch_id, task.row
            is_again = asked in self.refused and not task.robots_of
            counts = self.refused_again if is_again else self.refused_in_a_row
            counts[task.server, rank] += 1
            self.refused.add(asked)
        else:
            self.refused_in_a_row[task.server, rank] = 0
        if answer.status == 429 and answer.retry_after:
            self._note_pause(now, rank, task, now + float(answer.retry_after))

    def _note_pause(self, now: float, rank: int, task: Task, until: float) -> None:
        """What a server says above its limit is meant for all rows, and what it always says of a URL for that alone.
        Where it has refused two rows again, the rank cannot know before it has refused many others in a row."""
        at = task.server, rank
        is_unclear = self.refused_again[at] >= 2 and self.refused_in_a_row[at] < UNCLEAR_IN_A_ROW
        is_of_url = is_unclear or self.world.servers[task.server].refuses(task.url)
        name = task.url if is_of_url else task.server
        self.own_pauses[name, rank] = max(until, self.own_pauses.get((name, rank), until))
        self.asked_until[task.server] = max(until, self.asked_until.get(task.server, until))
        if not is_of_url:
            asked_by = self.of(task.server)
            asked_by.pause_until = max(until, asked_by.pause_until)
            asked_by.paused_at = now

    # ---- all states are sound

    def stepped(self, rank: int) -> None:
        if rank == COORDINATOR:
            self._simulation.core.validate()
        else:
            self._simulation.ranks[rank].core.frontier.validate()

    # ---- at the end of a life

    def end_life(self, report: RunReport) -> None:
        """Accounting, durability and liveness after a run; what a kill may forget is forgotten."""
        committed: Counter[Row] = Counter()
        for part in self.disk.parts.values():
            committed.update((part.batch_id, row) for row in part.rows)
        assert max(committed.values(), default=1) == 1
        if report.was_killed:
            for ledger in self.servers.values():
                ledger.forget(report.ended_at_s - NEWS_S - CHECKPOINT_S)
            return
        if report.unfinished:  # what such a rank has done since its last report is as lost as by a kill
            for ledger in self.servers.values():
                ledger.forget(report.began_at_s)
        assert set(committed) <= self.decided_rows
        assert set(committed) == self.decided_rows or report.unfinished
        assert report.idle_wakes <= 2 * self.requests + 100, f"{report.idle_wakes} wakes for nothing"
        if report.unfinished:
            return
        assert self._simulation.core.counts.rows_final == len(committed)
        full = [batch_id for batch_id, batch in enumerate(self.world.batches) if self._is_full(batch_id, committed)]
        assert len(set(report.completed)) == len(report.completed)
        assert set(report.completed) <= set(full)
        if report.was_stuck:
            self._check_left_over(committed, report.ended_at_s)
        elif report.ended_at_s < min(self._simulation.cluster.stop_at_s, self._simulation.cluster.walltime_at_s):
            assert len(committed) == self.world.rows, f"{self.world.rows - len(committed)} rows are missing"
            assert sorted(report.verified) == sorted(report.completed)

    def _is_full(self, batch_id: int, committed: Counter[Row]) -> bool:
        return all((batch_id, row) in committed for row in range(len(self.world.batches[batch_id].rows)))


def may_have_several_lanes(limits: Limits) -> bool:
    """Whether a second rank may help with the group at all (see ``schedule.lanes_for``)."""
    return not 0 < limits.rate_per_s <= SPLIT_ABOVE_PER_S


def run(simulation: Simulation, laws: Laws) -> RunReport:
    """Run the simulation under the eyes of the laws."""
    laws.begin_life(simulation)
    report = simulation.run()
    laws.end_life(report)
    return report
