"""What profiling measured of one server, and how fast it can be asked. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ddmpi.core.ledger.schedule import DEFAULT_LATENCY_S, row_time_s
from ddmpi.core.protocol import Sample
from ddmpi.core.records import Limits

TYPICAL_FILE_BYTES = 100_000
"""Used for predictions where nothing was profiled."""


@dataclass(frozen=True)
class Profile:
    """One row of profiles.csv. Times in seconds, sizes in bytes, medians unless named otherwise."""

    server_name: str
    total_batches: int
    success_count: int
    error_count: int
    rate_limit: float
    """Requests per second; 0 = no limit. A user may lower it by hand."""
    ip: str = ""
    http_version: str = ""
    connect_s: float = 0.0
    ttfb_s: float = 0.0
    ttfb_p95_s: float = 0.0
    total_s: float = 0.0
    bytes: int = 0
    status_counts: str = ""
    """Such as ``200:2 404:1``."""
    retry_after_s: float = 0.0
    configured_rate: float = -1.0
    """What ``rate_limit`` was when this was measured, by the config of then; -1 = not known."""

    @property
    def rate_by_hand(self) -> float:
        """The rate that a user has written; 0 = none. What the config said then does not bind the config of now."""
        return 0.0 if self.rate_limit == self.configured_rate else self.rate_limit


def profile_of(server: str, total_batches: int, rate_limit: float, samples: Iterable[Sample]) -> Profile:
    """Summarize a server's samples; without any, only its rate is known."""
    taken = list(samples)
    good = [sample for sample in taken if sample.success]
    statuses = Counter(str(sample.status or sample.error_kind) for sample in taken)
    return Profile(
        server,
        total_batches,
        len(good),
        len(taken) - len(good),
        rate_limit,
        ip=next((sample.ip for sample in taken if sample.ip), ""),
        http_version=next((sample.http_version for sample in taken if sample.http_version), ""),
        connect_s=max((round(sample.connect_s, 6) for sample in taken), default=0.0),
        ttfb_s=_quantile([sample.ttfb_s for sample in good], 0.5),
        ttfb_p95_s=_quantile([sample.ttfb_s for sample in good], 0.95),
        total_s=_quantile([sample.total_s for sample in good], 0.5),
        bytes=int(_quantile([float(sample.bytes) for sample in good], 0.5)),
        status_counts=" ".join(f"{status}:{count}" for status, count in sorted(statuses.items())),
        retry_after_s=max((sample.retry_after_s for sample in taken), default=0.0),
        configured_rate=rate_limit,
    )


def _quantile(values: list[float], q: float) -> float:
    return round(float(np.quantile(values, q)), 6) if values else 0.0


def server_row_time_s(limits: Limits, profile: Profile | None) -> float:
    """Return the seconds per row of a server with these limits: by its profile's latency and sizes, or by assumed
    ones. Budgets of an hour and a day are left out: what fits into one is fetched at the rate."""
    latency_s = profile.total_s if profile is not None and profile.total_s > 0 else DEFAULT_LATENCY_S
    size_bytes = profile.bytes if profile is not None and profile.bytes else TYPICAL_FILE_BYTES
    by_bytes_s = size_bytes / limits.bytes_per_s if limits.bytes_per_s > 0 else 0.0
    return max(row_time_s(limits, latency_s), by_bytes_s)
