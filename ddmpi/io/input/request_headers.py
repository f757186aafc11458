"""The headers that rows bring along, as the urls folder has them: JSON objects of texts.

Decides which cells are such headers. A cell that is none costs its own row: it is refused, with a reason that has
nothing of the cell in it, as that may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import pyarrow as pa

from ddmpi.config.secrets import PROXY_AUTHORIZATION, header_objection
from ddmpi.core.records import UNDECODABLE
from ddmpi.io.input.paths import Array, decoded
from ddmpi.io.input.rows import BAD_HEADERS, is_text

MOST_HEADER_BYTES: Final = 8_192
"""Of one row: about what nginx and Apache take of a request's head by default."""
_SHAPE: Final = "no JSON object of texts by the names of headers"


def can_be_headers(type_: pa.DataType) -> bool:
    """Return whether a column can hold headers: text, a map of texts, or a struct of texts."""
    if pa.types.is_map(type_):
        return is_text(type_.key_type) and is_text(type_.item_type)
    if pa.types.is_struct(type_):
        return all(is_text(field.type) for field in type_)
    return is_text(type_)


def header_texts(values: Array) -> Array:
    """Return (n,) the headers of rows as JSON objects with sorted names; null where there are none. Where a value
    cannot be used the text is ``BAD_HEADERS`` with why.

    Args:
        values: of a type that ``can_be_headers``; nulls and empty texts are no headers.
    """
    return pa.array(map(_header_text, decoded(values).to_pylist()), pa.string())


def _header_text(value: Any) -> str | None:
    if isinstance(value, (str, bytes)):
        if not value.strip():
            return None
        try:
            value = msgspec.json.decode(value, type=dict[str, str | None])
        except UNDECODABLE:
            return f"{BAD_HEADERS}{_SHAPE}"
    if value is None:
        return None
    headers = {name: text for name, text in _pairs(value) if text}
    objection = _objection(headers)
    text = json.dumps(headers, sort_keys=True)
    if objection is None and len(text) > MOST_HEADER_BYTES:
        objection = f"more than {MOST_HEADER_BYTES:,} bytes"
    if objection is not None:
        return f"{BAD_HEADERS}{objection}"
    return text if headers else None


def _pairs(value: Mapping[str, Any] | Iterable[tuple[Any, Any]]) -> Iterable[tuple[str, str]]:
    """Yield name and text of each header of a struct or map; bytes that are not ASCII have no place in one."""
    for name, text in value.items() if isinstance(value, Mapping) else value:
        yield _text(name), _text(text)


def _text(part: Any) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else str(part or "")


def _objection(headers: Mapping[str, str]) -> str | None:
    lowered = {name.lower() for name in headers}
    if len(lowered) < len(headers):
        return "a header that stands twice"
    if PROXY_AUTHORIZATION in lowered:
        return "Proxy-Authorization is for no server"
    if any(header_objection(name, text) for name, text in headers.items()):
        return "a header that is not ASCII on one line, or that ddmpi sets itself (Host, Range and the like)"
    return None
