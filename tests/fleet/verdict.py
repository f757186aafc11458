"""What one request is answered with: the server's rate limit and the faults of its spec.

Pure: ``now`` (seconds, monotonic) is a parameter and chance is a hash, so that every run of a test sees the same
faults and a test can compute them beforehand. Knows no socket and no HTTP text.
Invariant: the verdict depends on the spec, the path and how often the limiter let that path pass; on nothing else.
"""

from __future__ import annotations

import math
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from tests.fleet.log import NOTE_LIMITED, NOTE_PAUSED
from tests.fleet.spec import Mode, ServerSpec

_HASH_RANGE = 2.0**64


class Admission(str, Enum):
    """What the limiter says; the value is the note of the request in the log."""

    PASSED = ""
    LIMITED = NOTE_LIMITED
    PAUSED = NOTE_PAUSED


class Limiter:
    """Token bucket of ``spec.burst_at``, refilled at ``spec.limit_at``, with the pauses of Retry-After.

    A request that is answered 429 takes no token.
    """

    __slots__ = ("_first_at", "_pause_s", "_paused_until", "_refilled_at", "_spec", "_tokens")

    def __init__(self, spec: ServerSpec) -> None:
        self._spec = spec
        self._first_at = math.inf
        self._pause_s = spec.retry_after_s
        self._tokens = float(spec.burst_at(0.0))
        self._refilled_at = -math.inf
        self._paused_until = -math.inf

    def admit(self, now: float) -> Admission:
        """Decide on a request that arrives at ``now``; ``now`` must not decrease from call to call."""
        if not self._spec.rate_limit_per_s:
            return Admission.PASSED
        if now < self._paused_until:
            return Admission.PAUSED
        self._first_at = min(self._first_at, now)
        age_s = now - self._first_at
        refilled = self._tokens + (now - self._refilled_at) * self._spec.limit_at(age_s)
        self._tokens = min(float(self._spec.burst_at(age_s)), refilled)
        self._refilled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return Admission.PASSED
        if self._pause_s:
            self._paused_until = now + self._pause_s
        return Admission.LIMITED

    def retry_after_s(self, now: float) -> int:
        """The Retry-After of a 429 at ``now``: whole seconds, rounded up; 0 means that no such header is sent."""
        return max(0, math.ceil(self._paused_until - now)) if self._pause_s else 0

    @property
    def stated(self) -> tuple[int, int, int]:
        """What RateLimit-Policy and RateLimit say: requests in a second, those left, seconds until there are more."""
        limit_per_s = math.floor(self._spec.rate_limit_per_s)
        return limit_per_s, math.floor(self._tokens), 1


class Verdict(NamedTuple):
    """How a request that passed the limiter ends: as ``mode`` says, or with ``status`` where mode is OK."""

    mode: Mode
    status: int


def is_missing(spec: ServerSpec, path: str) -> bool:
    """Whether ``path`` answers 404 for ever."""
    return _chance("missing", spec.address, path) < spec.not_found_share


def is_changed(spec: ServerSpec, path: str) -> bool:
    """Whether another image is under ``path`` than without ``changed_share``."""
    return _chance("changed", spec.address, path) < spec.changed_share


def verdict_of(spec: ServerSpec, path: str, try_number: int) -> Verdict:
    """The verdict on the ``try_number``-th (from 1) request for ``path`` that passed the limiter."""
    if spec.not_found_share and is_missing(spec, path):
        return Verdict(Mode.OK, 404)
    if spec.error_rate:
        chance = _chance("error", spec.address, path, try_number)
        if chance < spec.error_rate:
            return Verdict(Mode.OK, spec.error_statuses[int(chance / spec.error_rate * len(spec.error_statuses))])
    if spec.mode is not Mode.OK and _chance("mode", spec.address, path, try_number) < spec.mode_share:
        return Verdict(spec.mode, 200)
    return Verdict(Mode.OK, 302 if spec.redirect_to else 200)


def _chance(*key: str | int) -> float:
    # A keyed hash in 0..1, 1 excluded: 64 bits do not survive the conversion to float, the top 53 do.
    digest = blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11 << 11) / _HASH_RANGE
