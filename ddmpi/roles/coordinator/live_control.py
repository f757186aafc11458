"""Rank 0 looks at control.yaml and at the ignored table every few seconds, and passes changes on to all ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ddmpi.config.config import Config
from ddmpi.config.control_file import ControlFile, parse_control
from ddmpi.core.near_names import near_names
from ddmpi.core.pace.overrides import describe_changes
from ddmpi.core.partition.server_patterns import matching_servers, patterns_in
from ddmpi.core.protocol import ControlOverride, StopReason
from ddmpi.errors import ConfigError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.urls.batch_table import BatchTable

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 2.0
MOST_COMPARED = 2_000
"""Of more servers none is looked for that is called much alike: rank 0 has other work."""


class Controlled(Protocol):
    """What a controller steers: the coordinator."""

    def set_overrides(self, rules: tuple[ControlOverride, ...]) -> None: ...
    def stop(self, reason: StopReason, now: float) -> None: ...


class Controller:
    """What the person who watches a run asks for.

    Args:
        say: tells that person what has become of it.
        doubt: what is wrong with the servers that a rule is for (see ``doubt_about``).
        given_up: servers that the command line does not want to wait for.
    """

    def __init__(
        self,
        layout: Layout,
        say: Callable[[str], None],
        doubt: Callable[[str], str] = lambda _match: "",
        given_up: Sequence[str] = (),
    ) -> None:
        self.changes: list[str] = []
        """All that was changed in this run, in order."""
        self._control = _Watched(layout.control)
        self._ignored = _Watched(layout.ignored)
        self._say = say
        self._doubt = doubt
        self._look_at = 0.0
        self._file = ControlFile()
        self._given = self._rules = tuple(ControlOverride(name, give_up=True) for name in given_up)
        # The run leaves these servers out by itself; names that are added from now on are paused until the next one.
        self._ignored.has_changed()
        self._known_ignored = set(patterns_in(self._ignored.text))

    def first_rules(self) -> tuple[ControlOverride, ...]:
        """What holds when the run begins."""
        self._read()
        if self._file.stop:
            self._say(f"Notice: {self._control.path.name} says stop; that counts when it is written while a run is on")
        self._update()
        return self._rules

    def on_turn(self, coordinator: Controlled, now: float) -> None:
        """Called in each turn of the loop; looks at the files now and then."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_INTERVAL_S
        stopped_before = self._file.stop
        if not self._read():
            return
        if self._update():
            coordinator.set_overrides(self._rules)
        if self._file.stop and not stopped_before:
            self._tell("stop")
            coordinator.stop(StopReason.CONTROL, now)

    def _read(self) -> bool:
        """Read what has changed; whether anything has."""
        changed = [self._control.has_changed(), self._ignored.has_changed()]
        if changed[0]:
            try:
                self._file = parse_control(self._control.text, str(self._control.path))
            except ConfigError as error:
                log.warning("%s", error)
                self._say(str(error))
        return any(changed)

    def _update(self) -> bool:
        """The rules that follow from both files; whether they are others than before."""
        names = [name for name in patterns_in(self._ignored.text) if name not in self._known_ignored]
        rules = (*self._given, *(ControlOverride(name, pause=True) for name in names), *self._file.rules())
        if rules == self._rules:
            return False
        for line in describe_changes(self._rules, rules):
            self._tell(line)
        known = {rule.match for rule in self._rules}
        for rule in self._file.rules():
            if rule.match not in known and (doubt := self._doubt(rule.match)):
                self._say(f"Warning: {self._control.path.name}: {rule.match}: {doubt}")
        self._rules = rules
        return True

    def _tell(self, change: str) -> None:
        log.info("control: %s", change)
        self.changes.append(change)
        self._say(f"Control: {change}")


def doubt_about(match: str, table: BatchTable, config: Config) -> str:
    """Return why a rule of control.yaml for these servers would change nothing, "" if it would."""
    servers, groups = table.server_names.values, table.group_names.values
    if matching_servers(groups, [match]).any():
        return ""
    found = np.flatnonzero(matching_servers(servers, [match]))
    if not len(found):
        near = near_names(match, map(str, servers)) if len(servers) <= MOST_COMPARED else []
        return "no server of this job is called so" + (f"; did you mean {near[0]}?" if near else "")
    server = table.server_names[int(found[0])]
    group = config.group_of(server)
    return "" if group == server else f"it shares the limits of {group}: write that name"


class _Watched:
    """A file that somebody may edit at any time, or that is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = ""
        """Its content at the last look; empty if it is not there."""
        self._stamp: tuple[int, int, int] | None = None

    def has_changed(self) -> bool:
        """Whether its content is another than at the last look."""
        try:
            status = self.path.stat()
        except OSError:
            stamp = None
        else:
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        before, self.text = self.text, self._read()
        return self.text != before

    def _read(self) -> str:
        """A file that cannot be read, say because it is being replaced, asks for nothing new."""
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeError) as error:
            log.warning("%s cannot be read: %s", self.path, error)
            return self.text
