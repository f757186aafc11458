"""What a hostile server does with one request: a script of steps, played in order.

Data only. Invariant: every script ends; after its last step the connection is closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

OWN_NAME = b"{server}"
"""Stands in ``Send`` for the name of the server that sends it."""
PICTURE_SERVER = b"{picture server}"
"""Likewise, for a server that has a picture under every path."""


@dataclass(frozen=True)
class Send:
    """These bytes, exactly."""

    data: bytes


@dataclass(frozen=True)
class Flood:
    """These bytes again and again, as fast as they are taken or at an interval, until the client goes away."""

    data: bytes
    interval_s: float = 0.0


@dataclass(frozen=True)
class Hold:
    """Nothing more, on an open connection, until the client goes away."""


@dataclass(frozen=True)
class Reset:
    """RST instead of FIN."""


@dataclass(frozen=True)
class Drop:
    """FIN at once; over TLS without the message that the end is meant (close_notify)."""


@dataclass(frozen=True)
class NextRequest:
    """Keep the connection, and play the script again for the next request on it."""


Step: TypeAlias = Send | Flood | Hold | Reset | Drop | NextRequest
Script: TypeAlias = tuple[Step, ...]
