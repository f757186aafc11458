"""What is known of each server's pace, as of all lanes of its group together. Pure.

A lane reports the pace of its share; what is kept is scaled to the whole group, so that the next lane, the checkpoint
and the lanes beside it can use it. Waits are durations from when they were learned, and run down. Bytes are counted by
lane: they add up, and those of a lane that has ended are shared by the lanes that come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from ddmpi.core.pace.byte_limits import Spent
from ddmpi.core.records import NOTHING_LEARNED, PaceState, group_of_shared

PAUSE_NEWS_S = 0.01
"""A pause that lasts so much longer than was known is told to the other lanes of the group."""


class KnownPaces:
    """Paces by server, kept by the group that serves it. ``group_of``: server -> that group."""

    def __init__(self, group_of: Callable[[str], str]) -> None:
        self._group_of = group_of
        self._by_group: dict[str, dict[str, tuple[PaceState, float]]] = {}
        self._lanes: dict[str, dict[int, _LaneAccount]] = {}  # by group
        self._told_until: dict[tuple[str, str], float] = {}  # by group and server: the pause that all lanes know of

    def learn(self, paces: Mapping[str, PaceState], now: float) -> None:
        """Keep what is known from profiling and earlier runs."""
        for name, state in paces.items():
            group = group_of_shared(name) or self._group_of(name)
            self._by_group.setdefault(group, {})[name] = (state, now)
            self._told_until[group, name] = now + state.wait_s

    def report(
        self, group: str, part: float, paces: Mapping[str, PaceState], now: float, lane_id: int = 0
    ) -> dict[str, float]:
        """Keep what a lane with ``part`` of the group's limits has learned; 0 is the only one of its group.

        Returns:
            The pauses (s) among them that were not known before, by server.
        """
        news: dict[str, float] = {}
        known = self._by_group.setdefault(group, {})
        for name, state in paces.items():
            before, learned_at = known.get(name, (NOTHING_LEARNED, now))
            left_s = max(0.0, before.wait_s - (now - learned_at))
            learned = _scaled(state, 1 / part)
            if lane_id:
                account = self._lanes.setdefault(group, {}).setdefault(lane_id, _LaneAccount(part))
                account.spent[name] = (state.spent_hour, state.spent_day, now)
                others = aged(before, now - learned_at)
                learned = msgspec.structs.replace(learned, spent_hour=others.spent_hour, spent_day=others.spent_day)
            if left_s > state.wait_s:
                learned = msgspec.structs.replace(learned, wait_s=left_s, why=before.why)
            debt_s = max(learned.debt_s, before.debt_s - (now - learned_at))
            learned = msgspec.structs.replace(learned, debt_s=debt_s, body_bytes=state.body_bytes or before.body_bytes)
            known[name] = (learned, now)
            # A lane that backs off again and again may have none but rows that are refused for their URLs. The other
            # lanes find out by themselves; what the server has asked for holds for all of them.
            is_own = state.throttles > 1 and not state.open_count
            told_s = state.asked_s if is_own else state.wait_s
            # Of what was told: many pauses, each a little longer than the one before, add up to a long one.
            until = now + told_s
            if until > max(now, self._told_until.get((group, name), now)) + PAUSE_NEWS_S:
                self._told_until[group, name] = until
                news[name] = told_s
        return news

    def share(self, group: str, part: float, now: float, lane_id: int = 0) -> dict[str, PaceState]:
        """What a lane with ``part`` of the group's limits has to know. Of the bytes that no lane answers for it takes
        its part, and answers for them from now on; 0 stands for all lanes."""
        if not lane_id:
            return {name: _scaled(state, part) for name, state in self._of(group, now).items()}
        lanes = self._lanes.setdefault(group, {})
        taken = min(1.0, part / max(part, 1.0 - sum(lane.part for lane in lanes.values())))
        account = lanes[lane_id] = _LaneAccount(part)
        known = self._by_group.get(group, {})
        for name, (state, at) in known.items():
            it = aged(state, now - at)
            account.spent[name] = (_times(it.spent_hour, taken), _times(it.spent_day, taken), now)
            known[name] = (_with_spent(it, _times(it.spent_hour, 1 - taken), _times(it.spent_day, 1 - taken)), now)
        return {name: _scaled(_with_spent(state, *account.spent[name][:2]), part) for name, (state, _) in known.items()}

    def ended(self, group: str, lane_id: int) -> bool:
        """No rank has the lane any longer: nobody answers for its bytes. Return whether it has spent some that still
        count."""
        lanes = self._lanes.get(group, {})
        account = lanes.pop(lane_id, None)
        if account is None:
            return False
        if not lanes:  # most groups have a lane once, and there may be a million of them
            del self._lanes[group]
        for name, spent in account.spent.items():
            known = self._by_group[group]
            state, learned_at = known[name]
            now = max(learned_at, spent[2])
            known[name] = (_and_spent(aged(state, now - learned_at), spent, now), now)
        return any(hour or day for hour, day, _ in account.spent.values())

    def all(self, now: float) -> dict[str, PaceState]:
        """What is known of every server's pace, with the waits that are left."""
        return {name: state for group in self._by_group for name, state in self._of(group, now).items()}

    def _of(self, group: str, now: float) -> dict[str, PaceState]:
        states = {name: aged(state, now - at) for name, (state, at) in self._by_group.get(group, {}).items()}
        for account in self._lanes.get(group, {}).values():
            for name, spent in account.spent.items():
                states[name] = _and_spent(states[name], spent, now)
        return states


@dataclass(slots=True)
class _LaneAccount:
    """A lane's part of its group's limits, and what it has spent: of an hour and a day, and when it said so."""

    part: float
    spent: dict[str, tuple[Spent, Spent, float]] = field(default_factory=dict)


def aged(state: PaceState, age_s: float) -> PaceState:
    """Return the state ``age_s`` seconds later: less to wait for, and bytes that count no longer."""
    return msgspec.structs.replace(
        state,
        wait_s=max(0.0, state.wait_s - age_s),
        asked_s=max(0.0, state.asked_s - age_s),
        debt_s=max(0.0, state.debt_s - age_s),
        since_s=state.since_s + age_s if state.open_count else 0.0,
        spent_hour=_left(state.spent_hour, age_s),
        spent_day=_left(state.spent_day, age_s),
    )


def _left(spent: Spent, age_s: float) -> Spent:
    return tuple((left_s - age_s, size_bytes) for left_s, size_bytes in spent if left_s > age_s)


def _times(spent: Spent, factor: float) -> Spent:
    return tuple((left_s, size_bytes * factor) for left_s, size_bytes in spent) if factor > 0 else ()


def _with_spent(state: PaceState, spent_hour: Spent, spent_day: Spent) -> PaceState:
    return msgspec.structs.replace(state, spent_hour=spent_hour, spent_day=spent_day)


def _and_spent(state: PaceState, spent: tuple[Spent, Spent, float], now: float) -> PaceState:
    """The state with what a lane has spent beside it; slots are in the order in which they end."""
    hour, day, at = spent
    hours, days = sorted(state.spent_hour + _left(hour, now - at)), sorted(state.spent_day + _left(day, now - at))
    return _with_spent(state, tuple(hours), tuple(days))


def _scaled(state: PaceState, factor: float) -> PaceState:
    return msgspec.structs.replace(state, rate_per_s=state.rate_per_s * factor)
