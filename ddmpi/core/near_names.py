"""Which known names may have been meant by one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

_LEAST_ALIKE: Final = 0.55
"""difflib's ratio: ``rate`` is still taken for ``rate_limit`` (0.57)."""


def near_names(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that are written most like ``name``, capitals or not, at most ``most``, the nearest
    first."""
    by_lower: dict[str, str] = {}
    for other in known:
        by_lower.setdefault(other.lower(), other)
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=most, cutoff=_LEAST_ALIKE)
    return [by_lower[lower] for lower in near]
