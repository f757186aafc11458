"""profiles.csv: what profiling measured of each server, and the rate that follows.

The first five columns are those of distributed-downloader. A user may lower ``rate_limit`` by hand: the lower one of
this and the config's limit counts.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ddmpi.core.protocol import Sample
from ddmpi.errors import OutputError
from ddmpi.io.folder.durable import csv_bytes, write_atomically


@dataclass(frozen=True)
class Profile:
    """One row of profiles.csv. Times in seconds, sizes in bytes, medians unless named otherwise."""

    server_name: str
    total_batches: int
    success_count: int
    error_count: int
    rate_limit: float
    """Requests per second; 0 = no limit."""
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
    )


def _quantile(values: list[float], q: float) -> float:
    return round(float(np.quantile(values, q)), 6) if values else 0.0


def write_profiles(path: Path, profiles: Mapping[str, Profile], temporary: Path) -> None:
    """Write all profiles, sorted by server; first into the folder ``temporary``.

    Raises:
        StorageError: the file cannot be written.
    """
    rows = (astuple(profile) for _, profile in sorted(profiles.items()))
    write_atomically(path, csv_bytes([field.name for field in fields(Profile)], rows), temporary)


def read_profiles(path: Path) -> dict[str, Profile]:
    """Return the profiles by server; columns that are missing have their defaults.

    Raises:
        OutputError: the file is not what ``write_profiles`` wrote or a user may have made of it.
    """
    kinds = {"str": str, "int": int, "float": float}
    profiles = {}
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                values = {f.name: kinds[str(f.type)](row[f.name]) for f in fields(Profile) if f.name in row}
                profile = Profile(**values)
            except (ValueError, TypeError) as error:
                raise OutputError(f"{path}, line {line}: {error}") from error
            profiles[profile.server_name] = profile
    return profiles
