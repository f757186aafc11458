"""Relative URLs, resolved against a base as RFC 3986 (5.2) has it.

Plain ones (``train/cat/0.jpg``, ``/img/0.jpg``) are joined for all rows together; dot segments, queries without a path
and other servers (``//cdn.example.org/0.jpg``) are resolved one by one. Absolute URLs, null and empty texts stay.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import urljoin

import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = Any
"""An arrow array: the stubs of pyarrow.compute have no overload for arrays of any type."""

_ABSOLUTE: Final = r"^\s*[A-Za-z][A-Za-z0-9+.\-]*:"
_PLAIN: Final = r"^[^/?#.\s\\][^?#\s\\]*$"
_PLAIN_FROM_ROOT: Final = r"^/[^/?#\s\\][^?#\s\\]*$"
_DOT_SEGMENT: Final = "/."


def resolve(urls: Array, base: str) -> Array:
    """Return URLs given as bytes as absolute ones, as far as they are relative; ``base`` is absolute."""
    absolute = pc.match_substring_regex(urls, pattern=_ABSOLUTE)
    empty: Any = pc.equal(urls, pa.scalar(b""))
    relative = pc.invert(pc.or_(absolute, empty))
    if not pc.any(relative, min_count=0).as_py():
        return urls
    no_dots = pc.invert(pc.match_substring(urls, pattern=_DOT_SEGMENT))
    for pattern, prefix in ((_PLAIN, urljoin(base, "x")[:-1]), (_PLAIN_FROM_ROOT, urljoin(base, "/x")[:-2])):
        plain = pc.and_(pc.and_(relative, no_dots), pc.match_substring_regex(urls, pattern=pattern))
        joined = pc.binary_join_element_wise(pa.scalar(prefix.encode()), urls, pa.scalar(b""))
        urls = pc.if_else(plain.fill_null(False), joined, urls)
        relative = pc.and_not(relative, plain)
    odd = relative.fill_null(False)
    if not pc.any(odd, min_count=0).as_py():
        return urls
    answers = [_joined(base, url or b"") for url in urls.filter(odd).to_pylist()]
    return pc.replace_with_mask(urls, odd, pa.array(answers, urls.type))


def _joined(base: str, url: bytes) -> bytes:
    # As Latin-1 every byte is a character, so that broken ones are still there to be found.
    text = url.decode("latin-1").strip(" \t\r\n")
    try:
        return urljoin(base.encode().decode("latin-1"), text).encode("latin-1") if text else url
    except ValueError:  # such as an open bracket in //[host: it stays as it is, and is refused as a URL
        return url
