"""A message as one line of a log: its name and its fields, shortened. Pure.

Decides what of a message is worth reading: defaults are left out, of many items the first ones are shown and all are
counted. It must not know who sends or logs it.

Invariant: the line has at most ``MOST_CHARACTERS``, and no control characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import islice

import msgspec

MOST_CHARACTERS = 1_000
MOST_ITEMS = 4
"""Of one list or mapping."""


def line_of(message: msgspec.Struct) -> str:
    """Such as ``StealRequest(request_id=3, time_s=12.5)``."""
    text = _text(message)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _text(value: object) -> str:
    match value:
        case msgspec.Struct():
            text = f"{type(value).__name__}({', '.join(_fields(value))})"
        case Enum():
            text = str(value.value)
        case bytes():
            text = f"<{len(value)} bytes>"  # the config, which may hold passwords
        case float():
            text = f"{value:.6g}"
        case str():
            text = ascii(value)
        case Mapping():
            text = f"{{{_few((f'{_text(key)}: {_text(item)}' for key, item in value.items()), len(value))}}}"
        case tuple():
            text = f"[{_few(map(_text, value), len(value))}]"
        case _:
            text = str(value)
    return text


def _fields(struct: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        # What is empty or zero is nearly always the default.
        if field.required or (value and value != field.default):
            yield f"{field.name}={_text(value)}"


def _few(texts: Iterator[str], count: int) -> str:
    shown = ", ".join(islice(texts, MOST_ITEMS))
    return f"{shown}, ... {count} in all" if count > MOST_ITEMS else shown
