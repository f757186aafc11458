"""What a server says about how much it takes: the headers ``RateLimit-Policy`` and ``RateLimit``. Pure.

Must not know what is made of it (``rate_limiter``). Source: draft-ietf-httpapi-ratelimit-headers-10, whose values are
lists of structured fields (RFC 9651):

    RateLimit-Policy: "burst";q=100;w=60, "daily";q=1000;w=86400      100 requests in 60 s, and 1000 in a day
    RateLimit: "burst";r=50;t=30                                      50 of them are left, for 30 s

The drafts before it, which many servers still send, are read as well: ``RateLimit-Policy: 100;w=60`` with
``RateLimit: limit=100, remaining=50, reset=30`` (07), or with ``RateLimit-Limit``, ``RateLimit-Remaining`` and
``RateLimit-Reset`` (06). Invariant: a malformed value counts as none, and no value raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from ddmpi.core.pace.rate_limiter import LONGEST_RATE_S
from ddmpi.core.records import Quota

LONGEST_RESET_S: Final = 366 * 86_400
"""What is more are no seconds, but a date as seconds since 1970, which some servers send in ``RateLimit-Reset``."""
_ITEM: Final = r'(?:"(?:[^"\\]|\\["\\])*"|:[A-Za-z0-9+/=]*:|[\w*%!#$&\'+.^`|~/-]+)'
_PARAMETERS: Final = rf"(?:[ \t]*;[ \t]*[a-z*][a-z0-9_.*-]*(?:={_ITEM})?)*"
_MEMBER: Final = re.compile(rf"[ \t]*({_ITEM})(?:=({_ITEM}))?({_PARAMETERS})[ \t]*(?:,|\Z)", re.ASCII)
_PARAMETER: Final = re.compile(rf";[ \t]*([^=;\s]+)=({_ITEM})", re.ASCII)
_REQUESTS: Final = '"requests"'
"""The unit of a quota that names none. Others count bytes, or requests at the same time."""


def quota_of(fields: Mapping[str, str]) -> Quota | None:
    """Return what these headers say, by their lower-case names; None if they say nothing that can be used.

    The lowest rate counts of those that several policies allow, and of what is left the least for its time.
    """
    policies = _members(fields.get("ratelimit-policy") or fields.get("ratelimit-limit", ""))
    states = _members(fields.get("ratelimit", ""))
    rates_per_s, others = [], set()
    for name, _, parameters in policies:
        quota, window_s = _whole(parameters.get("q", name)), _whole(parameters.get("w"))
        if parameters.get("qu", _REQUESTS) != _REQUESTS:
            others.add(name)
        elif quota and window_s and window_s <= LONGEST_RATE_S:
            # One less in each window than there may be: at the last one the server would have us wait for a second.
            rates_per_s.append((quota - (quota > window_s)) / window_s)
    older = {name: value for name, value, _ in states}
    left = [(parameters.get("r"), parameters.get("t")) for name, _, parameters in states if name not in others]
    left.append((older.get("remaining"), older.get("reset")))
    left.append((fields.get("ratelimit-remaining"), fields.get("ratelimit-reset")))
    numbers = [(_whole(remaining), _whole(reset_s)) for remaining, reset_s in left]
    known = [(n, s) for n, s in numbers if n is not None and s and s <= LONGEST_RESET_S]
    if not rates_per_s and not known:
        return None
    least, until_s = min(known, key=lambda it: (it[0] / it[1], -it[1]), default=(math.inf, 0))
    return Quota(min(rates_per_s, default=math.inf), least, until_s)


def _members(value: str) -> list[tuple[str, str, dict[str, str]]]:
    """Return the members of a list or dictionary: name, value of a dictionary's, parameters. Empty if malformed."""
    members: list[tuple[str, str, dict[str, str]]] = []
    position = 0
    while position < len(value):
        match = _MEMBER.match(value, position)
        if match is None:
            return []
        members.append((match[1], match[2] or "", dict(_PARAMETER.findall(match[3]))))
        position = match.end()
    return members


def _whole(text: str | None) -> int | None:
    """Return a whole number; None for what is none, or has more digits than there may be."""
    if text is None or re.fullmatch(r"[0-9]{1,15}", text.strip()) is None:
        return None
    return int(text)
