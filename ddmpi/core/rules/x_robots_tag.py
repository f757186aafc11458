"""What the X-Robots-Tag of an answer forbids us to keep. Pure.

Decides which directives of an answer's head are meant for us. Must not know what becomes of the answer.

There is no standard but a convention of search engines: directives with commas between them, in any number of such
headers. ``name: directive`` is meant for the crawler of that name, and so are the directives after it on the line. A
few directives have a value after a colon themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

_WITH_VALUE: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_NONE: Final = frozenset({"noindex", "nofollow"})
"""What the directive ``none`` stands for."""


def objection(head: bytes, *, directives: Collection[str], crawler: str) -> str:
    """Why the body must not be kept, for a person; empty if it may be, and for all answers that carry no file.

    Args:
        head: of the answer, from its status line on, as received.
        directives: those that are honored, lower case.
        crawler: our name, lower case (see ``user_agent``).
    """
    if b"-robots-tag" not in head.lower() or head.split(None, 2)[1:2] != [b"200"]:
        return ""
    return next((f"X-Robots-Tag: {word}" for word in forbidden(head, crawler) if word in directives), "")


def forbidden(head: bytes, token: str) -> Iterator[str]:
    """The directives of an answer's head that are meant for everybody or for us, lower case."""
    for line in head.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"x-robots-tag":
            yield from _directives(value.decode("latin-1"), token)


def _directives(value: str, token: str) -> Iterator[str]:
    is_ours = True
    for item in value.lower().split(","):
        name, colon, rest = (part.strip() for part in item.partition(":"))
        if colon and name not in _WITH_VALUE:
            is_ours = name == token
            name = rest.partition(":")[0].strip()
        if is_ours and name:
            yield from _NONE if name == "none" else (name,)
