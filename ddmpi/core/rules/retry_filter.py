"""Which errors ``--retry-failed`` means: words for kinds, codes and servers. Pure.

Decides: what a word stands for, and which errors a list of words chooses. Must not know: where outcomes come from.
A number is a code, one of the closed list a kind, anything with a dot, colon or glob character a server. Words of one
sort add up; where kinds or codes are given beside servers, an error has to be one of them on one of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ddmpi.core.near_names import near_names
from ddmpi.core.records import ErrorKind

EVERYTHING: Final = "*"
_KINDS: Final = tuple(kind.value for kind in ErrorKind)
_CODE: Final = re.compile(r"-?\d+", re.ASCII)
_SERVER: Final = re.compile(r"[.:*?\[]")


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """Errors of one of these kinds or codes, on one of these servers; where there are none, any will do."""

    errors: frozenset[str] = frozenset()
    servers: tuple[str, ...] = ()
    """Names and globs, in lower case."""

    def means(self, kind: str, code: int) -> bool:
        """Whether it means an error of this kind and code, if the server is right. Nothing means what was withdrawn."""
        return kind != ErrorKind.FORGOTTEN.value and (
            not self.errors or kind in self.errors or str(code) in self.errors
        )


def choice_of(words: Iterable[str]) -> RetryChoice:
    """What the words mean. Raises ValueError: a word is no kind, no code and no server; the text names the nearest
    kind."""
    given = [word.lower() for word in words]
    errors = [word for word in given if word in _KINDS or _CODE.fullmatch(word)]
    servers = [word for word in given if word not in errors and word != EVERYTHING]
    unknown = [word for word in servers if not _SERVER.search(word)]
    if unknown:
        raise ValueError("; ".join(map(_complaint, unknown)))
    return RetryChoice(frozenset(errors), tuple(dict.fromkeys(servers)))


def without_servers(words: Sequence[str]) -> tuple[str, ...]:
    """The same choice where the server is known to be right."""
    return tuple(sorted(choice_of(words).errors)) or (EVERYTHING,)


def _complaint(word: str) -> str:
    near = near_names(word, _KINDS)
    hint = f"did you mean {near[0]}?" if near else f"kinds are {', '.join(_KINDS)}"
    return (
        f"{word!r} is no kind of error, no code, and no server (a name with a dot, or a glob such as '{word}*'); {hint}"
    )
