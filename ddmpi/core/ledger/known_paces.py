"""What is known of each server's pace, as of all lanes of its group together. Pure.

A lane reports the pace of its share; what is kept is scaled to the whole group, so that the next lane, the checkpoint
and the lanes beside it can use it. Waits are durations from when they were learned, and run down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        self._told_until: dict[tuple[str, str], float] = {}  # by group and server: the pause that all lanes know of

    def learn(self, paces: Mapping[str, PaceState], now: float) -> None:
        """Keep what is known from profiling and earlier runs."""
        for name, state in paces.items():
            group = group_of_shared(name) or self._group_of(name)
            self._by_group.setdefault(group, {})[name] = (state, now)
            self._told_until[group, name] = now + state.wait_s

    def report(self, group: str, part: float, paces: Mapping[str, PaceState], now: float) -> dict[str, float]:
        """Keep what a lane with ``part`` of the group's limits has learned.

        Returns:
            The pauses (s) among them that were not known before, by server.
        """
        news: dict[str, float] = {}
        known = self._by_group.setdefault(group, {})
        for name, state in paces.items():
            before, learned_at = known.get(name, (NOTHING_LEARNED, now))
            left_s = max(0.0, before.wait_s - (now - learned_at))
            learned = _scaled(state, 1 / part)
            if left_s > state.wait_s:
                learned = msgspec.structs.replace(learned, wait_s=left_s, why=before.why)
            known[name] = (learned, now)
            # Of what was told: many pauses, each a little longer than the one before, add up to a long one.
            until = now + state.wait_s
            if until > max(now, self._told_until.get((group, name), now)) + PAUSE_NEWS_S:
                self._told_until[group, name] = until
                news[name] = state.wait_s
        return news

    def share(self, group: str, part: float, now: float) -> dict[str, PaceState]:
        """What a lane with ``part`` of the group's limits has to know."""
        return {name: _scaled(state, part) for name, state in self._of(group, now).items()}

    def all(self, now: float) -> dict[str, PaceState]:
        """What is known of every server's pace, with the waits that are left."""
        return {name: state for group in self._by_group for name, state in self._of(group, now).items()}

    def _of(self, group: str, now: float) -> dict[str, PaceState]:
        return {name: aged(state, now - at) for name, (state, at) in self._by_group.get(group, {}).items()}


def aged(state: PaceState, age_s: float) -> PaceState:
    """Return the state ``age_s`` seconds later: less to wait for, and bytes that count no longer."""
    return msgspec.structs.replace(
        state,
        wait_s=max(0.0, state.wait_s - age_s),
        since_s=state.since_s + age_s if state.open_count else 0.0,
        spent_hour=_left(state.spent_hour, age_s),
        spent_day=_left(state.spent_day, age_s),
    )


def _left(spent: Spent, age_s: float) -> Spent:
    return tuple((left_s - age_s, size_bytes) for left_s, size_bytes in spent if left_s > age_s)


def _scaled(state: PaceState, factor: float) -> PaceState:
    """Bytes are not shared: a group with a byte budget has one lane."""
    return msgspec.structs.replace(state, rate_per_s=state.rate_per_s * factor)
