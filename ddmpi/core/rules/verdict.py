"""Whether an answer is a success, and if not, what kind of failure: the only place that says so.

Decides: success, redirect or failure; transient or permanent; and what the answer says about its server (``Signal``).
Must not know: how often a row may be tried (``retry``), when (``pace``), where a redirect leads (``urls``).

Invariants: success takes libcurl's code 0, status 200 and a body that passes, or status 304 where it was asked whether
the file has changed; libcurl also returns 0 for headers that
were cut off, for an unasked 204, 206 or 304, and for a redirect without a target. Every other answer has exactly one
failure, whose message is one printable line without credentials. No answer raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from ddmpi.core.pace.rate_limiter import RETRY_AFTER_MAX_S, Signal
from ddmpi.core.records import Answer, ErrorKind, Failure, error_code
from ddmpi.core.rules.image_bytes import begins_like_image, image_is_cut_off

MESSAGE_CHARS = 300
RETRY_STATUSES: Final = (
    *(408, 420, 425, 429, 500, 502, 503, 504, 509),
    *(520, 521, 522, 523, 524, 529, 530),
)
"""Where the config does not say otherwise: what ``curl --retry`` tries again, 425 (too early), 420 and 529 (other names
of 429), 509 (bandwidth exceeded), and 520 to 524 and 530 (a CDN that cannot reach the origin)."""


class Outcome(Enum):
    SUCCESS = "success"
    REDIRECT = "redirect"
    FAILURE = "failure"


@dataclass(slots=True, frozen=True)
class Verdict:
    """How one answer counts. ``failure`` is set for failures only, ``location`` (as the server sent it, maybe
    relative) for redirects only; ``signal`` and ``retry_after_s`` are for the pace, whatever the outcome."""

    outcome: Outcome
    signal: Signal
    failure: Failure | None = None
    transient: bool = False
    """Another try may end differently."""
    retry_after_s: float | None = None
    location: str = ""
    cookies: tuple[bytes, ...] = ()
    """What the requests after a redirect may have to show."""

    @property
    def said(self) -> str:
        """Its HTTP status, or how it failed, in a word for people; empty for what is no failure."""
        if self.failure is None:
            return ""
        is_http = self.failure.kind is ErrorKind.HTTP_STATUS
        return str(self.failure.code) if is_http else self.failure.kind.value


SUCCESS: Final = Verdict(Outcome.SUCCESS, Signal.OK)
NOT_MODIFIED: Final = Verdict(Outcome.SUCCESS, Signal.OK)
"""There is no body: the file is as it was."""
_NOT_MODIFIED_STATUS: Final = 304


def classify(
    answer: Answer, accept: str, max_redirects: int, retry_statuses: Collection[int] = RETRY_STATUSES
) -> Verdict:
    """Judge an answer.

    Args:
        accept: what a body has to be: "image" (by its first bytes) or "any" (not empty).
        max_redirects: a row that was redirected so often already is not redirected again.
        retry_statuses: with these a row is tried again.

    Raises KeyError for another ``accept``.
    """
    check_body = _BODY_CHECKS[accept]
    if answer.objection is not None:
        return Verdict(Outcome.FAILURE, Signal.OK, answer.objection)
    if answer.blocked or answer.refused or answer.too_large:
        return _judge_our_own(answer)
    if answer.curl_code:
        return _judge_transfer(answer)
    if answer.status == 200:
        return _judge_body(answer, check_body)
    if answer.status in REDIRECT_STATUSES:
        return _judge_redirect(answer, max_redirects)
    return _judge_status(answer, retry_statuses)


def _judge_our_own(answer: Answer) -> Verdict:
    """What this side has ended, whatever libcurl says of it."""
    if answer.blocked:
        message = f"{answer.ip or 'the address'} is not public, and not in allow_private_addresses"
        return _failure(ErrorKind.BLOCKED_ADDRESS, message, Signal.LOCAL)
    if answer.refused:
        return _failure(ErrorKind.ROBOTS, answer.refused, Signal.OK)
    return _failure(ErrorKind.TOO_LARGE, answer.error or "body exceeds max_file_bytes", Signal.OK)


def _failure(
    kind: ErrorKind,
    message: str,
    signal: Signal,
    *,
    transient: bool = False,
    status: int = 0,
    retry_after_s: float | None = None,
) -> Verdict:
    failure = Failure(kind, error_code(kind, status), one_line(message) or kind.value)
    return Verdict(Outcome.FAILURE, signal, failure, transient, retry_after_s)


# ---- transfers that libcurl gave up

_TRANSFERS: Final[dict[int, tuple[ErrorKind, bool, Signal]]] = {
    # CURLE_ code: kind, transient, what it says about the server when no status came
    1: (ErrorKind.PROTOCOL, False, Signal.FAILED),  # UNSUPPORTED_PROTOCOL; also an answer that is not HTTP/1
    3: (ErrorKind.BAD_URL, False, Signal.LOCAL),  # URL_MALFORMAT
    5: (ErrorKind.CONNECT, True, Signal.CONNECT_FAILED),  # COULDNT_RESOLVE_PROXY; not DNS: no fault of the row's host
    6: (ErrorKind.DNS, True, Signal.CONNECT_FAILED),  # COULDNT_RESOLVE_HOST
    7: (ErrorKind.CONNECT, True, Signal.CONNECT_FAILED),  # COULDNT_CONNECT
    8: (ErrorKind.PROTOCOL, False, Signal.FAILED),  # WEIRD_SERVER_REPLY: lengths that contradict, NUL in a header
    16: (ErrorKind.NETWORK, True, Signal.FAILED),  # HTTP2: framing layer, GOAWAY
    18: (ErrorKind.NETWORK, True, Signal.FAILED),  # PARTIAL_FILE
    23: (ErrorKind.NETWORK, True, Signal.LOCAL),  # WRITE_ERROR: our callback stopped it
    27: (ErrorKind.NETWORK, True, Signal.LOCAL),  # OUT_OF_MEMORY
    35: (ErrorKind.TLS, True, Signal.CONNECT_FAILED),  # SSL_CONNECT_ERROR: no common version, or cut off in between
    42: (ErrorKind.NETWORK, True, Signal.LOCAL),  # ABORTED_BY_CALLBACK
    47: (ErrorKind.REDIRECT, False, Signal.OK),  # TOO_MANY_REDIRECTS
    51: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # 60 before libcurl 7.62
    52: (ErrorKind.NETWORK, True, Signal.FAILED),  # GOT_NOTHING
    55: (ErrorKind.NETWORK, True, Signal.FAILED),  # SEND_ERROR
    56: (ErrorKind.NETWORK, True, Signal.FAILED),  # RECV_ERROR: reset; also headers above 300 KB, bad chunk sizes
    58: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # SSL_CERTPROBLEM: client certificate
    59: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # SSL_CIPHER
    60: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # PEER_FAILED_VERIFICATION: expired, self-signed, wrong host
    61: (ErrorKind.PROTOCOL, False, Signal.FAILED),  # BAD_CONTENT_ENCODING
    63: (ErrorKind.TOO_LARGE, False, Signal.OK),  # FILESIZE_EXCEEDED
    77: (ErrorKind.TLS, True, Signal.CONNECT_FAILED),  # SSL_CACERT_BADFILE: ours to repair, so rows are not burnt
    80: (ErrorKind.TLS, True, Signal.FAILED),  # SSL_SHUTDOWN_FAILED
    83: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # SSL_ISSUER_ERROR
    90: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # SSL_PINNEDPUBKEYNOTMATCH
    91: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # SSL_INVALIDCERTSTATUS
    92: (ErrorKind.NETWORK, True, Signal.FAILED),  # HTTP2_STREAM: RST_STREAM
    94: (ErrorKind.PROTOCOL, False, Signal.FAILED),  # AUTH_ERROR
    95: (ErrorKind.NETWORK, True, Signal.FAILED),  # HTTP3
    96: (ErrorKind.CONNECT, True, Signal.CONNECT_FAILED),  # QUIC_CONNECT_ERROR
    97: (ErrorKind.CONNECT, True, Signal.CONNECT_FAILED),  # PROXY: handshake
    98: (ErrorKind.TLS, False, Signal.CONNECT_FAILED),  # SSL_CLIENTCERT
    100: (ErrorKind.PROTOCOL, False, Signal.FAILED),  # TOO_LARGE: a header line
}
_VIOLATIONS: Final = (
    # What libcurl 8.23 says with code 56 where the answer came, but is no answer: another try would get the same.
    "Too large response headers",
    "chunk hex-length",
    "Illegal or missing hexadecimal sequence",
    "Malformed encoding found in chunked-encoding",
)
_MESSAGES: Final = {
    # Where libcurl 8.23 itself says nothing.
    18: "the body ended early",
    100: "a header is longer than 100 KB",
}
_UNKNOWN_TRANSFER: Final = (ErrorKind.NETWORK, True, Signal.FAILED)
_TIMED_OUT: Final = 28  # OPERATION_TIMEDOUT


def _judge_transfer(answer: Answer) -> Verdict:
    if answer.curl_code == _TIMED_OUT:
        kind, transient, signal = _judge_timeout(answer)
    else:
        kind, transient, signal = _TRANSFERS.get(answer.curl_code, _UNKNOWN_TRANSFER)
        if kind is ErrorKind.NETWORK and answer.error.startswith(_VIOLATIONS):
            kind, transient = ErrorKind.PROTOCOL, False
    if answer.status and signal is Signal.FAILED:
        signal = Signal.SERVER_ERROR  # it did answer, if not to the end
    told = answer.error.strip() or _MESSAGES.get(answer.curl_code, "")
    return _failure(kind, told or f"libcurl error {answer.curl_code}", signal, transient=transient)


def _judge_timeout(answer: Answer) -> tuple[ErrorKind, bool, Signal]:
    """libcurl has one code for all timeouts. Its text tells how far it came; the times do not: a connection that is
    used again has a connect time of 0 too (8.23), and a connect timeout a time to first byte."""
    if answer.error.startswith("Operation too slow"):
        return ErrorKind.STALLED, True, Signal.FAILED
    told = bool(answer.error)
    connected = answer.error.startswith("Operation ") if told else answer.connect_s > 0 or bool(answer.ip)
    signal = Signal.FAILED if connected or answer.status else Signal.CONNECT_FAILED
    return ErrorKind.TIMEOUT, True, signal


# ---- statuses other than 200

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_THROTTLED: Final = frozenset({420, 429})
"""420 is not registered; GBIF sends it for 429."""
_LATER: Final = frozenset({202, 403})
"""Tried again where Retry-After says when: a file that is being made, and a 403 in place of a 429."""
_SLOW_DOWN: Final = (b"<Code>SlowDown</Code>", b"reduce your request rate")
"""What a 503 of S3 says, and of those that speak its language, where others send 429."""
_FORBIDDEN: Final = 403
_REFUSED_BY_BUCKET: Final = (b"<Code>AccessDenied</Code>", b"<Code>NoSuchKey</Code>")
"""S3 and Google Cloud Storage answer 403 for a key that is missing to whoever may not list the bucket."""
_BUCKET_ANSWER_BYTES: Final = 4096
"""Of an answer's body, as far as it is searched."""
_UNWELCOME: Final = frozenset({401, 408, 451})
"""Permanent or not, more of these faster is not what the server wants."""


def _judge_redirect(answer: Answer, max_redirects: int) -> Verdict:
    if not answer.location.strip():
        return _failure(ErrorKind.REDIRECT, f"status {answer.status} without Location", Signal.OK)
    if answer.task.redirects >= max_redirects:
        return _failure(ErrorKind.REDIRECT, f"more than {max_redirects} redirects", Signal.OK)
    retry_after_s = retry_after_seconds(answer.retry_after, answer.fetched_at)
    return Verdict(
        Outcome.REDIRECT,
        Signal.SERVER_ERROR if retry_after_s else Signal.OK,
        retry_after_s=retry_after_s,
        location=answer.location.strip(),
        cookies=answer.cookies,
    )


def _judge_status(answer: Answer, retry_statuses: Collection[int]) -> Verdict:
    status = answer.status
    if status == _NOT_MODIFIED_STATUS and answer.task.is_conditional:
        return NOT_MODIFIED
    if not 100 <= status <= 999:
        return _failure(ErrorKind.PROTOCOL, f"answer with status {status}", Signal.FAILED)
    retry_after_s = retry_after_seconds(answer.retry_after, answer.fetched_at)
    transient = status in retry_statuses or (status in _LATER and retry_after_s is not None)
    if _is_throttled(answer) or (transient and retry_after_s and status >= 400):
        signal = Signal.THROTTLED
    elif status == _FORBIDDEN:
        signal = Signal.OK if _says(answer, _REFUSED_BY_BUCKET) else Signal.FORBIDDEN
    elif status >= 500 or status in _UNWELCOME or retry_after_s:
        signal = Signal.SERVER_ERROR
    else:
        signal = Signal.OK
    return _http(status, signal, transient=transient, retry_after_s=retry_after_s)


def _is_throttled(answer: Answer) -> bool:
    if answer.status == 503:
        return bool(answer.retry_after.strip()) or _says(answer, _SLOW_DOWN)
    return answer.status in _THROTTLED


def _says(answer: Answer, texts: Collection[bytes]) -> bool:
    return any(text in answer.body[:_BUCKET_ANSWER_BYTES] for text in texts)


def _http(status: int, signal: Signal, *, transient: bool, retry_after_s: float | None) -> Verdict:
    return _failure(
        ErrorKind.HTTP_STATUS,
        f"HTTP status {status}",
        signal,
        transient=transient,
        status=status,
        retry_after_s=retry_after_s,
    )


def failure_of_given_up(verdict: Verdict) -> Failure:
    """Return what rows fail with that wait for a server, as this verdict on a probe was the last one of it."""
    failure = verdict.failure
    if failure is not None and failure.kind is ErrorKind.ROBOTS:
        return failure
    if verdict.signal is Signal.FORBIDDEN:
        kind, told = ErrorKind.SERVER_REFUSED, f"the server has answered {_FORBIDDEN} again and again"
    else:
        last = "" if failure is None else f", at last: {failure.kind.value}, {failure.message}"
        kind, told = ErrorKind.UNREACHABLE, f"the server has not answered any probe{last}"
    return Failure(kind, error_code(kind, 0), one_line(told))


def retry_after_seconds(value: str, now_wall: float) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, 10.2.3) asks for, at most RETRY_AFTER_MAX_S.

    ``now_wall`` is the wall clock, seconds since the epoch, for the form that is a date. None for what is neither a
    whole number of seconds nor a date that is still to come.
    """
    text = value.strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text), RETRY_AFTER_MAX_S)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000", or no zone at all: HTTP dates are in GMT
            moment = moment.replace(tzinfo=timezone.utc)
        delay_s = moment.timestamp() - now_wall
    except (ValueError, OverflowError):
        return None
    return min(delay_s, RETRY_AFTER_MAX_S) if delay_s >= 0 else None


# ---- bodies of a 200


def _judge_body(answer: Answer, check_body: Callable[[Answer], str]) -> Verdict:
    size_bytes = len(answer.body)
    if size_bytes < answer.content_length:
        message = f"{size_bytes} of {answer.content_length} bytes"
        return _failure(ErrorKind.NETWORK, message, Signal.SERVER_ERROR, transient=True)
    if size_bytes == 0:
        # Then the headers themselves may have been cut off, which libcurl does not report (8.23).
        cut_off = answer.content_length < 0 and not answer.end_announced
        signal = Signal.SERVER_ERROR if cut_off else Signal.OK
        return _failure(ErrorKind.EMPTY_BODY, "status 200 with an empty body", signal, transient=cut_off)
    objection = check_body(answer)
    if objection:
        return _failure(ErrorKind.WRONG_TYPE, objection, Signal.OK)
    if answer.content_length < 0 and not answer.end_announced and image_is_cut_off(answer.body):
        message = f"the image ends early, after {size_bytes} bytes, and no length was announced"
        return _failure(ErrorKind.NETWORK, message, Signal.SERVER_ERROR, transient=True)
    return SUCCESS


def _image_objection(answer: Answer) -> str:
    """Why the body is no image; empty if it is one. Its bytes say so, not its content type: PHP calls all that it sends
    text/html, buckets call it whatever the uploader did."""
    if begins_like_image(answer.body):
        return ""
    content_type = answer.content_type
    essence = content_type.partition(";")[0].strip().lower()
    if essence and not essence.startswith("image/") and essence not in _OPAQUE_TYPES:
        return f"content type {essence}"
    return f"content type {content_type or 'missing'}, but the first bytes are {answer.body[:12].hex(' ')}"


_OPAQUE_TYPES: Final = frozenset({"application/octet-stream", "binary/octet-stream"})
"""What servers say that do not know; the last one is the default of S3."""
_BODY_CHECKS: Final[dict[str, Callable[[Answer], str]]] = {"image": _image_objection, "any": lambda _: ""}


# ---- messages


def one_line(text: str) -> str:
    """``text`` as one printable line of at most MESSAGE_CHARS characters, without the credentials and queries of the
    URLs in it: servers and libcurl quote what they were asked."""
    head = text[: 4 * MESSAGE_CHARS]
    printable = "".join(character if character.isprintable() else " " for character in head)
    without_users = re.sub(r"//[^\s/@]*@", "//", printable)
    without_queries = re.sub(r"(https?://[^\s?]*)\?\S*", r"\1?...", without_users)
    line = " ".join(without_queries.split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 3] + "..."
