"""What a robots.txt allows us, and what the answer to a request for one means (RFC 9309). Pure.

Must not know when it is asked for, or who waits for it (``robots_gate``). Invariants: whatever the bytes, a file has an
answer for every URL; no answer raises.

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
from ddmpi.core.rules.verdict import Outcome, Verdict, classify

MAX_ROBOTS_BYTES: Final = 500 * 1024
"""RFC 9309, 2.5: at least so much has to be parsed."""
MAX_ROBOTS_REDIRECTS: Final = 5
"""RFC 9309, 2.3.1.2: at least so many are followed."""
LONGEST_DELAY_S: Final = 86_400.0
"""Crawl-delay is in no standard: a day is the longest pause that anybody can mean."""
DISALLOWED: Final = Failure(ErrorKind.ROBOTS, error_code(ErrorKind.ROBOTS, 0), "disallowed by robots.txt")

_ORIGIN: Final = re.compile(r"[a-z]+://[^/?#]*")


class RobotsFile:
    """What one origin's robots.txt says to one crawler."""

    __slots__ = ("_failure", "_rules", "_token", "crawl_delay_s", "size_bytes")

    def __init__(self, rules: Protego | None, token: str, failure: Failure | None = None, size_bytes: int = 0) -> None:
        self._rules = rules
        self._token = token
        self._failure = failure
        delay_s = None if rules is None else rules.crawl_delay(token)
        self.crawl_delay_s = min(delay_s or 0.0, LONGEST_DELAY_S)
        """Seconds between two requests; 0 = nothing is said about that."""
        self.size_bytes = size_bytes
        """Of its text, as far as that counts."""

    @classmethod
    def parse(cls, body: bytes, token: str) -> RobotsFile:
        """The rules that are meant for the crawler of this name (lower case), or for all."""
        head = body[:MAX_ROBOTS_BYTES]
        return cls(Protego.parse(head.decode("utf-8-sig", "replace")), token, size_bytes=len(head))

    @classmethod
    def refusing(cls, failure: Failure) -> RobotsFile:
        """In place of one that could not be had. Its status is none of the rows, which were never asked for."""
        if failure.kind is ErrorKind.HTTP_STATUS:
            failure = Failure(ErrorKind.ROBOTS, error_code(ErrorKind.ROBOTS, 0), failure.message)
        return cls(None, "", failure)

    def objection(self, url: str) -> Failure | None:
        """Why the URL must not be fetched, None if it may be."""
        if self._failure is not None or self._rules is None:
            return self._failure
        return None if self._rules.can_fetch(url, self._token) else DISALLOWED


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
