"""Whether our own network has failed: many servers that have answered before cannot be reached at once. Pure.

Decides when everything pauses, when to probe, and when to go on. It must not know rows or lanes.

Only servers that have answered before count as witnesses: a run whose last servers are all dead is no outage. While one
lasts nothing is asked but a probe now and then, and what cannot be reached is nobody's fault: rows keep their tries,
and breakers do not advance. The first answer of any kind ends it. After ``LONGEST_S`` the servers are taken at their
word, and their breakers decide.
"""

from __future__ import annotations

import math

WITNESSES = 5
"""So many servers have to fail."""
WINDOW_S = 10.0
"""Within so long, with no answer from any server since the first of them: as long as the default connect timeout."""
PROBE_S = 2.0
"""From one probe to the next one, half as long again each time up to ``PROBE_MOST_S``."""
PROBE_MOST_S = 15.0
LONGEST_S = 1_800.0


class Outage:
    """What one rank sees of the network. All times are seconds, monotonic."""

    __slots__ = ("_failed", "_given_up", "_good", "_named", "_probe_gap_s", "_resolved_at", "began_at", "probe_at")

    def __init__(self) -> None:
        self.began_at = math.inf
        """When the first witness failed; inf: there is no outage."""
        self.probe_at = -math.inf
        """When the next request may start."""
        self._good: set[str] = set()
        self._named: set[str] = set()  # those of them that have a name, not an address
        self._resolved_at = -math.inf  # when one of these has answered last
        self._failed: dict[str, float] = {}
        self._probe_gap_s = PROBE_S
        self._given_up = False

    @property
    def is_on(self) -> bool:
        return self.began_at < math.inf

    def answered(self, server: str, now: float) -> None:
        """Any answer: the network is there, and the server will be a witness."""
        if server not in self._good:
            self._good.add(server)
            if server[0] != "[" and any(map(str.isalpha, server)):
                self._named.add(server)
        if server in self._named:
            self._resolved_at = now
        if self._failed or self.began_at < math.inf or self._given_up:
            self._failed.clear()
            self._end()
            self._given_up = False

    def unreachable(self, server: str, now: float) -> bool:
        """No connection to the server, or no address; whether an outage begins with this."""
        if self.is_on:
            if now - self.began_at > LONGEST_S:
                self._end()
                self._given_up = True
            return False
        if self._given_up or server not in self._good:
            return False
        self._failed = {name: at for name, at in self._failed.items() if now - at < WINDOW_S}
        self._failed.setdefault(server, now)
        if len(self._failed) < WITNESSES:
            return False
        self.began_at = min(self._failed.values())
        self.probe_at = now + PROBE_S
        self._probe_gap_s = PROBE_S
        return True

    def is_suspected(self, now: float) -> bool:
        """Whether a failure that looks final may be the first sign of one: no row should be given up on it."""
        return self.is_on or sum(now - at < WINDOW_S for at in self._failed.values()) > 1

    def resolves_names(self, since: float) -> bool:
        """Whether a server that has to be looked up has answered since then: a name that is not found is wrong."""
        return self._resolved_at > since

    def started(self, now: float) -> None:
        """A request starts during the outage: the next one has to wait for its end, or for a while."""
        self._probe_gap_s = min(PROBE_MOST_S, 1.5 * self._probe_gap_s)
        self.probe_at = now + self._probe_gap_s

    def _end(self) -> None:
        self.began_at = math.inf
        self.probe_at = -math.inf
