"""What servers say of how their files may be used, and which of it is obeyed. Pure.

Decides what an answer's head and a robots.txt's rule say, in which words that is told, and whether a file must not be
stored for it. Must not know which robots.txt says what (``robots_txt``), or what becomes of the row.

Invariants: no value raises; what is told is short, printable, and the same for the same signals.

- ``X-Robots-Tag`` is in no standard but a convention of search engines: directives with commas between them, in any
  number of such headers. ``name: directive`` is meant for the crawler of that name, and so are the directives after it
  on the line. A few directives have a value after a colon themselves.
- ``Content-Usage``, as a header and as a rule of robots.txt: draft-ietf-aipref-attach-05 and draft-ietf-aipref-vocab-08
  (2026). A dictionary of structured fields (RFC 9651) of which each key is a category of use, and ``y`` or ``n`` says
  whether it is allowed. Any other value says nothing, and a value that is no dictionary says nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

ROBOTS: Final = "robots"
X_ROBOTS_TAG: Final = "x-robots-tag"
CONTENT_USAGE: Final = "content-usage"
NO_AI: Final = ("noai", "noimageai")
"""What ``x-robots-tag`` stands for: the directives that are about training, which img2dataset obeys by default."""
TRAINING: Final = ("train-ai",)
"""What ``content-usage`` stands for: the category of draft-ietf-aipref-vocab-08 that a data set for training is."""
MOST_WORDS: Final = 16
"""Of one signal, as it is told."""
_WORD: Final = re.compile(r"[a-z0-9*][a-z0-9_.*-]{0,39}")
_WITH_VALUE: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_NONE: Final = ("noindex", "nofollow")
"""What the directive ``none`` stands for."""
_UNRESTRICTED: Final = frozenset({"all"})
_CHOICE: Final = re.compile(rf"({ROBOTS})|({X_ROBOTS_TAG}|{CONTENT_USAGE})(?::({_WORD.pattern}))?")


@dataclass(frozen=True, slots=True)
class Respect:
    """Which signals of a server are obeyed."""

    robots: bool = False
    """What robots.txt allows, and its Crawl-delay."""
    directives: frozenset[str] = frozenset()
    """Of X-Robots-Tag, lower case: a file with one of these is not stored."""
    categories: frozenset[str] = frozenset()
    """Of Content-Usage: a file for which one of these is not allowed is not stored."""
    hears_robots: bool = False
    """robots.txt is asked for to tell what it says, whether it is obeyed or not."""

    @property
    def asks_robots(self) -> bool:
        """Whether robots.txt is asked for: it may have Content-Usage rules."""
        return self.robots or bool(self.categories) or self.hears_robots

    def disallowed(self, preferences: Iterable[tuple[str, bool]]) -> str:
        """Return the first category that is not allowed and counts, as ``train-ai=n``; empty if there is none."""
        return next((f"{name}=n" for name, is_allowed in preferences if not is_allowed and name in self.categories), "")


NOTHING: Final = Respect()


def is_choice(word: str) -> bool:
    """Return whether this may stand in the config's ``respect``: the name of a signal, of two of them also with a
    colon and what of it counts, lower case."""
    return _CHOICE.fullmatch(word) is not None and word != f"{X_ROBOTS_TAG}:none"


@lru_cache(maxsize=1024)
def respect_of(choices: tuple[str, ...], *, hears_robots: bool = False) -> Respect:
    """Return what the config's ``respect`` comes to. ``choices`` are such that ``is_choice`` holds."""
    directives: set[str] = set()
    categories: set[str] = set()
    for choice in choices:
        name, _, word = choice.partition(":")
        if name == X_ROBOTS_TAG:
            directives.update([word] if word else NO_AI)
        elif name == CONTENT_USAGE:
            categories.update([word] if word else TRAINING)
    return Respect(ROBOTS in choices, frozenset(directives), frozenset(categories), hears_robots)


def described(respect: Respect) -> str:
    """Return in one line what is obeyed and what is only heard, for people."""
    obeyed = []
    if respect.robots:
        obeyed.append("robots.txt")
    if respect.directives:
        obeyed.append(f"X-Robots-Tag {_listed(respect.directives)}")
    if respect.categories:
        obeyed.append(f"Content-Usage {_listed(f'{name}=n' for name in respect.categories)}")
    heard = ["other X-Robots-Tag"] if respect.directives else ["X-Robots-Tag"]
    heard.append("other Content-Usage" if respect.categories else "Content-Usage")
    if respect.asks_robots and not respect.robots:
        heard.append("robots.txt")
    told = f"obeyed: {', '.join(obeyed) or 'none'}; heard and reported: {', '.join(heard)}"
    return told if respect.asks_robots else f"{told}; robots.txt is not asked for"


def _listed(words: Iterable[str]) -> str:
    *first, last = sorted(words)
    return f"{', '.join(first)} and {last}" if first else last


# ---- an answer's head


def heard(head: bytes, crawler: str) -> str:
    """Return what the head of an answer with a file says of its use, in canonical words; empty if nothing.

    Args:
        head: from its status line on, as received.
        crawler: our name, lower case (see ``user_agent``).
    """
    if not _may_say(head):
        return ""
    found = (word for word in forbidden(head, crawler) if word not in _UNRESTRICTED and _WORD.fullmatch(word))
    return joined(told(X_ROBOTS_TAG, found), told(CONTENT_USAGE, spelled(_preferences_in(head))))


def objection(head: bytes, respect: Respect, crawler: str) -> str:
    """Return why the body must not be stored, for a person; empty if it may be, and for all answers without a file."""
    if not _may_say(head):
        return ""
    word = next((word for word in forbidden(head, crawler) if word in respect.directives), "")
    if word:
        return f"X-Robots-Tag: {word}"
    word = respect.disallowed(_preferences_in(head))
    return f"Content-Usage: {word}" if word else ""


def _may_say(head: bytes) -> bool:
    lower = head.lower()
    return (b"-robots-tag" in lower or b"content-usage" in lower) and head.split(None, 2)[1:2] == [b"200"]


def _preferences_in(head: bytes) -> tuple[tuple[str, bool], ...]:
    """Return those of the header, whose lines are one value (RFC 9110, 5.3)."""
    fields = (line.partition(b":") for line in head.split(b"\n"))
    values = [value.strip() for name, _, value in fields if name.strip().lower() == b"content-usage"]
    return preferences(b", ".join(values))


@lru_cache(maxsize=1024)
def preferences(value: bytes) -> tuple[tuple[str, bool], ...]:
    """Return the categories of a statement of preference, each with whether it is allowed; none where it is malformed
    or says neither."""
    from http_sf import StructuredFieldError, Token, parse  # noqa: PLC0415  # takes 40 ms, and few servers send it

    try:
        members = cast("Mapping[str, tuple[object, object]]", parse(value, tltype="dictionary"))
    except StructuredFieldError:
        return ()
    said = ((name, token) for name, (token, _) in members.items() if isinstance(token, Token))
    return tuple((name, str(token) == "y") for name, token in said if str(token) in ("y", "n"))


def forbidden(head: bytes, crawler: str) -> Iterator[str]:
    """Yield the directives of X-Robots-Tag in an answer's head that are meant for everybody or for us, lower case."""
    for line in head.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"x-robots-tag":
            yield from _directives(value.decode("latin-1"), crawler)


def _directives(value: str, token: str) -> Iterator[str]:
    is_ours = True
    for item in value.lower().split(","):
        name, colon, rest = (part.strip() for part in item.partition(":"))
        if colon and name not in _WITH_VALUE:
            is_ours = name == token
            name = rest.partition(":")[0].strip()
        if is_ours and name:
            yield from _NONE if name == "none" else (name,)


# ---- words


def spelled(found: Collection[tuple[str, bool]]) -> list[str]:
    """Return preferences as they are told: ``train-ai=n``."""
    return [f"{name[:40]}={'y' if is_allowed else 'n'}" for name, is_allowed in found]


def told(source: str, words: Iterable[str]) -> str:
    """Return what one source says: ``x-robots-tag: noai, noindex``; empty where it says nothing."""
    different = list(dict.fromkeys(words))[:MOST_WORDS]
    return f"{source}: {', '.join(different)}" if different else ""


def joined(*parts: str) -> str:
    """Return what several sources say, as it stands in the column ``usage_signals``."""
    return "; ".join(part for part in parts if part)
