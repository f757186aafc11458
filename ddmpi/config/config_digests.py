"""Which keys of a config differ from those of an earlier run, without keeping their values: one may hold a password."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ddmpi.config.config import Config

_DIGITS: Final = 16
_NO_KEYS: Final = frozenset({"notices", "contact_missing"})
"""Fields of the loaded config that nobody writes."""


def digests(config: Config) -> dict[str, str]:
    """A digest of each value, by dotted name."""
    values = config.model_dump(mode="json")
    return {
        key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGITS]
        for key, value in _flat(values, "")
        if key not in _NO_KEYS
    }


def changed_keys(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Dotted names of the keys whose values are others than before; none where nothing is known of before."""
    return [key for key in now if before and before.get(key) != now[key]]


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
