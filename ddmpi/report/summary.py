"""What people are told of a run, as numbers: while it goes on, and at its end. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Snapshot:
    """The state of the run at one moment."""

    stage: str
    rows: int
    rows_done: int
    errors: int
    bytes: int
    servers_active: int
    ranks: int
    note: str = ""
    """What a person would wonder about: why there is no speed, or why it says little yet."""
    unit: str = "rows"


@dataclass(frozen=True)
class Summary:
    """The end of a run."""

    rows: int
    successes: int
    errors: int
    pending: int
    kinds: Mapping[str, int]
    fetched_bytes: int
    fetched_rows: int
    requests: int
    seconds: float
    slowest: Sequence[tuple[str, float]]
    output: str
    ending: str
    ignored: int = 0
    """Rows on servers that the ignored table names: neither successes nor errors nor pending."""
    report: str = ""
    """Path of the report; empty where there is none."""
