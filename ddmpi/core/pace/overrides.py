"""Limits that change while a run goes on: what the person who watches it has asked for. Pure.

Decides what a server group may do under some control rules, and what a lane with a share of the group's limits may. It
must not know where the rules come from, or which lanes there are.

A lane's share stays in units of the limits that were planned, so that steals and splits need not know of any control;
what it really may use is the same part of the limits that hold now, and of their connections those that are its own
by number. Hence the parts of a group's lanes add up to those limits. A lane that is left without a connection is on
hold until another one ends and leaves it its share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ddmpi.core.protocol import ControlOverride
from ddmpi.core.records import Limits, is_meant

_GLOB: Final = re.compile(r"[*?\[]")
HOLD_S = 10 * 365 * 86_400.0
"""What a lane on hold reports as its wait: nobody knows when it will be let go."""


class Overrides:
    """Some rules; the first one that matches a name counts, but for those that give servers up: each of them does."""

    def __init__(self, rules: Sequence[ControlOverride] = ()) -> None:
        self.rules = tuple(rules)
        self._limiting = [rule for rule in rules if not rule.give_up]
        given_up = [rule.match for rule in rules if rule.give_up]
        self._names_given_up = frozenset(given_up)
        self._globs_given_up = [match for match in given_up if _GLOB.search(match)]

    def gives_up(self, *names: str) -> bool:
        """Return whether a server is given up; ``names`` are its own and its group's."""
        if not self._names_given_up:
            return False
        return not self._names_given_up.isdisjoint(names) or any(
            is_meant(name, glob) for glob in self._globs_given_up for name in names
        )

    def limits(self, name: str, planned: Limits) -> Limits | None:
        """The group's limits now; None: it is paused. What is given up is not paused: its rows have to be read."""
        rule = next((rule for rule in self._limiting if is_meant(name, rule.match)), None)
        if rule is None or (rule.pause and self.gives_up(name)):
            return planned
        if rule.pause:
            return None
        changes = {
            "rate_per_s": rule.rate_per_s,
            "connections": rule.connections,
            "bytes_per_s": rule.bytes_per_s,
            "bytes_per_day": rule.bytes_per_day,
            "bytes_per_hour": rule.bytes_per_hour,
        }
        return msgspec.structs.replace(planned, **{key: value for key, value in changes.items() if value is not None})

    def share(self, name: str, whole: Limits, share: Limits) -> Limits | None:
        """What a lane may use now whose share of the planned limits (``whole``) is ``share``; None: it is on hold."""
        limits = self.limits(name, whole)
        if limits is None or share.connections == whole.connections:
            return limits
        if limits == whole:
            return share
        connections = share.connections_of(limits.connections, whole.connections)
        if connections < 1:
            return None
        part = share.part_of(whole)
        return msgspec.structs.replace(
            limits,
            connections=connections,
            rate_per_s=_part_of(limits.rate_per_s, whole.rate_per_s, share.rate_per_s, part),
            bytes_per_s=_part_of(limits.bytes_per_s, whole.bytes_per_s, share.bytes_per_s, part),
            bytes_per_day=_part_of(limits.bytes_per_day, whole.bytes_per_day, share.bytes_per_day, part),
            bytes_per_hour=_part_of(limits.bytes_per_hour, whole.bytes_per_hour, share.bytes_per_hour, part),
        )

    def __repr__(self) -> str:
        return f"<Overrides: {len(self.rules)} rules>"


def _part_of(limit: float, planned: float, share: float, part: float) -> float:
    """The share of a limit that did not change, else the same part of the new one. A limit of 0 has shares of 0."""
    return share if limit == planned else limit * part


NO_OVERRIDES = Overrides()


def describe_changes(before: Sequence[ControlOverride], after: Sequence[ControlOverride]) -> list[str]:
    """What is different, a line per rule that came, changed or went."""
    old, new = {rule.match: rule for rule in before}, {rule.match: rule for rule in after}
    lines = [f"{match}: {_described(rule)}" for match, rule in new.items() if old.get(match) != rule]
    return lines + [f"{match}: limits as configured again" for match in old if match not in new]


def _described(rule: ControlOverride) -> str:
    if rule.give_up:
        return "given up: its rows become errors"
    if rule.pause:
        return "held"
    named = (
        ("requests/s", rule.rate_per_s),
        ("connections", rule.connections),
        ("bytes/s", rule.bytes_per_s),
        ("bytes/hour", rule.bytes_per_hour),
        ("bytes/day", rule.bytes_per_day),
    )
    parts = [f"{_limit(value)} {name}" for name, value in named if value is not None]
    return "now " + ", ".join(parts) if parts else "limits as configured"


def _limit(value: float) -> str:
    return "unlimited" if value == 0 or math.isinf(value) else f"{value:g}"
