"""What a robots.txt allows us, and what the answer to a request for one means (RFC 9309). Pure.

Must not know when it is asked for, or who waits for it (``robots_gate``). Invariants: whatever the bytes, a file has an
answer for every URL; no answer raises.

``Content-Usage: [PATH] PREFERENCE`` rules (draft-ietf-aipref-attach-05) say how files may be used that may be fetched:
of the rules of our group that one with the longest path counts, and all of those with the same path.

What an answer means (RFC 9309, 2.3.1):

- 200 to 299: the file, of which the first ``MAX_ROBOTS_BYTES`` count.
- 300 to 399: a redirect, followed ``MAX_ROBOTS_REDIRECTS`` times; one that leads nowhere means that there is no file.
- 400 to 499: there is no file, everything is allowed; but 429 and 420 say that we should ask later.
- 500 to 599 and no answer at all: nothing is allowed for now, it is asked again. The rows fail only when the server is
  given up, or its name does not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from protego import Protego

from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.records import Answer, ErrorKind, Failure, Task, error_code
from ddmpi.core.rules.usage_signals import Respect, joined, preferences, spelled, told
from ddmpi.core.rules.verdict import Outcome, Verdict, classify

MAX_ROBOTS_BYTES: Final = 500 * 1024
"""RFC 9309, 2.5: at least so much has to be parsed."""
MAX_ROBOTS_REDIRECTS: Final = 5
"""RFC 9309, 2.3.1.2: at least so many are followed."""
LONGEST_DELAY_S: Final = 86_400.0
"""Crawl-delay is in no standard: a day is the longest pause that anybody can mean."""
MOST_USAGE_RULES: Final = 100
"""Content-Usage rules of one file: each is kept as a file of its own, which a library reads."""
OBEYED: Final = Respect(robots=True)
"""Of a crawler that obeys robots.txt, and asks nobody how the files may be used."""
DISALLOWED: Final = Failure(ErrorKind.ROBOTS, error_code(ErrorKind.ROBOTS, 0), "disallowed by robots.txt")

_ORIGIN: Final = re.compile(r"[a-z]+://[^/?#]*")
_USAGE_LINE: Final = re.compile(r"^[ \t]*content-usage[ \t]*:[ \t]*([^#\r\n]*)", re.IGNORECASE | re.MULTILINE)
_PATH_LINE: Final = re.compile(r"^[ \t]*(?:di[as]+l+[ao]w|allow)\b[^\r\n]*", re.IGNORECASE | re.MULTILINE)
"""Allow and Disallow, also as Protego takes them although they are misspelled."""
_TXT: Final = "robots.txt"
_USAGE: Final = "robots.txt content-usage"


@dataclass(frozen=True, slots=True)
class _UsageRule:
    """A Content-Usage rule that is meant for us."""

    path_bytes: int
    pattern: Protego | None
    """Disallows what the rule is about; None: that is all."""
    preferences: tuple[tuple[str, bool], ...]

    def is_about(self, url: str) -> bool:
        return self.pattern is None or not self.pattern.can_fetch(url, "*")


class RobotsFile:
    """What one origin's robots.txt says to one crawler."""

    __slots__ = ("_failure", "_rules", "_token", "_usage", "crawl_delay_s", "size_bytes")

    def __init__(
        self,
        rules: Protego | None,
        token: str,
        failure: Failure | None = None,
        size_bytes: int = 0,
        usage: tuple[_UsageRule, ...] = (),
    ) -> None:
        self._rules = rules
        self._token = token
        self._failure = failure
        self._usage = usage
        delay_s = None if rules is None else rules.crawl_delay(token)
        self.crawl_delay_s = min(delay_s or 0.0, LONGEST_DELAY_S)
        """Seconds between two requests; 0 = nothing is said about that."""
        self.size_bytes = size_bytes
        """Of its text, as far as that counts."""

    @classmethod
    def parse(cls, body: bytes, token: str) -> RobotsFile:
        """The rules that are meant for the crawler of this name (lower case), or for all."""
        head = body[:MAX_ROBOTS_BYTES]
        text = head.decode("utf-8-sig", "replace")
        return cls(Protego.parse(text), token, size_bytes=len(head), usage=_usage_rules(text, token))

    @classmethod
    def refusing(cls, failure: Failure) -> RobotsFile:
        """In place of one that could not be had. Its status is none of the rows, which were never asked for."""
        if failure.kind is ErrorKind.HTTP_STATUS:
            failure = Failure(ErrorKind.ROBOTS, error_code(ErrorKind.ROBOTS, 0), failure.message)
        return cls(None, "", failure)

    def objection(self, url: str, respect: Respect = OBEYED) -> Failure | None:
        """Why the URL must not be fetched by who obeys that, None if it may be."""
        if respect.robots and not self._allows(url):
            return self._failure or DISALLOWED
        if not self._usage or not respect.categories or not self._allows(url):
            return None
        word = respect.disallowed(self._preferences(url))
        return _failure(f"robots.txt: Content-Usage: {word}") if word else None

    def signals(self, url: str) -> str:
        """What the file says of the URL, as it stands in the column ``usage_signals``; empty if nothing."""
        if self._rules is None:
            return ""
        is_allowed = self._allows(url)
        words = [] if is_allowed else ["disallow"]
        if self.crawl_delay_s:
            words.append(f"crawl-delay={self.crawl_delay_s:g}")
        usage = spelled(self._preferences(url)) if self._usage and is_allowed else ()
        return joined(told(_TXT, words), told(_USAGE, usage)) if words or usage else ""

    def _allows(self, url: str) -> bool:
        return self._failure is None and (self._rules is None or self._rules.can_fetch(url, self._token))

    def _preferences(self, url: str) -> list[tuple[str, bool]]:
        """Of several rules with the same path that one counts which allows less (draft-ietf-aipref-vocab-08, 5.1)."""
        about = [rule for rule in self._usage if rule.is_about(url)]
        longest = max((rule.path_bytes for rule in about), default=0)
        found: dict[str, bool] = {}
        for rule in about:
            if rule.path_bytes == longest:
                for name, is_allowed in rule.preferences:
                    found[name] = is_allowed and found.get(name, True)
        return list(found.items())


def _failure(message: str) -> Failure:
    return Failure(ErrorKind.ROBOTS, error_code(ErrorKind.ROBOTS, 0), message)


def _usage_rules(text: str, token: str) -> tuple[_UsageRule, ...]:
    """Return the Content-Usage rules of the group that is meant for the crawler.

    Which group that is and which URLs a path means is for Protego to say, which does not know these rules: so each
    becomes a rule that it knows, once with a path that numbers it, and once with its own.
    """
    values = [value.strip() for value in _USAGE_LINE.findall(text)[:MOST_USAGE_RULES]]
    if not values:
        return ()
    numbers = iter(range(len(values)))
    numbered = _USAGE_LINE.sub(
        lambda _: f"Disallow: /{number}/" if (number := next(numbers, None)) is not None else "",
        _PATH_LINE.sub("Crawl-delay: 1", text),  # which ends the lines that name crawlers, too
    )
    groups = Protego.parse(numbered)
    ours = [value for number, value in enumerate(values) if not groups.can_fetch(f"http://a/{number}/", token)]
    return tuple(map(_usage_rule, ours))


def _usage_rule(value: str) -> _UsageRule:
    path, _, preference = value.replace("\t", " ").partition(" ") if value.startswith("/") else ("", "", value)
    pattern = Protego.parse(f"User-agent: *\nDisallow: {path}") if path else None
    return _UsageRule(len(path.encode()), pattern, preferences(preference.strip().encode()))


EVERYTHING: Final = RobotsFile(None, "")
"""No robots.txt: everything is allowed."""


@dataclass(slots=True, frozen=True)
class RobotsVerdict(Verdict):
    """What an answer to a request for robots.txt means. Without ``robots`` it is a redirect or a failure."""

    robots: RobotsFile | None = None


def origin_of(url: str) -> str:
    """Scheme, host and port of an acceptable URL: a robots.txt is about these alone."""
    match = _ORIGIN.match(url)
    return url if match is None else match[0]


def robots_task(origin: str, server: str) -> Task:
    """The request for an origin's robots.txt. It is no row: it has no batch, and no headers of one."""
    return Task(-1, -1, f"{origin}/robots.txt", server, robots_of=origin)


def judge_robots(answer: Answer, token: str) -> RobotsVerdict:
    verdict = classify(answer, "any", MAX_ROBOTS_REDIRECTS)
    if answer.curl_code or answer.blocked or answer.too_large or verdict.signal is Signal.THROTTLED:
        return _unknown(verdict)
    if 200 <= answer.status < 300 and not verdict.transient:
        return RobotsVerdict(Outcome.SUCCESS, Signal.OK, robots=RobotsFile.parse(answer.body, token))
    if verdict.outcome is Outcome.REDIRECT:
        return RobotsVerdict(
            Outcome.REDIRECT,
            verdict.signal,
            retry_after_s=verdict.retry_after_s,
            location=verdict.location,
            cookies=verdict.cookies,
        )
    if 300 <= answer.status < 500:
        return RobotsVerdict(Outcome.SUCCESS, verdict.signal, retry_after_s=verdict.retry_after_s, robots=EVERYTHING)
    failure = Failure(ErrorKind.ROBOTS, error_code(ErrorKind.ROBOTS, 0), f"HTTP status {answer.status}")
    # A server that cannot say what it allows is no better than one that cannot be reached: the breaker is to count it.
    return _unknown(Verdict(Outcome.FAILURE, Signal.FAILED, failure, transient=True))


def _unknown(verdict: Verdict) -> RobotsVerdict:
    failure = verdict.failure
    if failure is not None:
        failure = Failure(failure.kind, failure.code, f"robots.txt: {failure.message}")
    return RobotsVerdict(Outcome.FAILURE, verdict.signal, failure, verdict.transient, verdict.retry_after_s)
