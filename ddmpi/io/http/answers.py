"""What libcurl says of a request that has ended, as an ``Answer``. What it means is ``verdict``'s business.

libcurl facts that shape this file (8.23, pycurl 7.49):
- ``RETRY_AFTER`` is capped and turns garbage into 0: the header's text is handed on as it came.
- ``getinfo`` fails where a server's bytes are not UTF-8: texts are read raw.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pycurl

from ddmpi.core.records import Answer
from ddmpi.core.rules.usage_signals import joined
from ddmpi.core.rules.verdict import one_line
from ddmpi.io.http.content_encoding import EncodingError, TooLargeError, decoded
from ddmpi.io.http.easy_handle import EasyHandle

_HEADERS = frozenset({b"etag", b"last-modified", b"retry-after", b"transfer-encoding", b"content-encoding"})
"""The headers that become columns or decide something, beside those that begin with ``_LIMITS``."""
_LIMITS = b"ratelimit"
_STATUS_LINE = b"http/"
_BEGINNINGS = frozenset(
    name[:5] for name in (b"etag:", b"etag ", b"etag\t", *(_HEADERS - {b"etag"}), _LIMITS, _STATUS_LINE)
)
"""How lines begin that may have them, and the first line of a response, in lower case."""
_OK = 200
_NOT_MODIFIED = 304
_KEPT_CHARS = 512
MOST_COOKIE_BYTES = 16_384
"""Of one row: more than three cookies of the size that every client has to take (RFC 6265, 6.1). Where a row has more,
it goes on without: of rows that are redirected any number may wait."""
_FRAMED_VERSIONS = frozenset({"2", "3"})
"""Here each answer says where it ends, whether it has a Content-Length or not."""
_HTTP_VERSIONS = {1: "1.0", 2: "1.1", 3: "2", 4: "2", 5: "2", 30: "3"}


def read_answer(handle: EasyHandle, code: int, message: str) -> Answer:
    """Return the answer to the handle's request, which ended with this code of libcurl's. Raises RuntimeError: the
    handle has no request."""
    task, get_raw = handle.task, handle.curl.getinfo_raw
    if task is None:
        raise RuntimeError("libcurl finished a handle that has no task")
    get = handle.curl.getinfo
    answer = Answer(task, code, get(pycurl.RESPONSE_CODE), error=message)
    answer.body = handle.body
    content_type = get_raw(pycurl.CONTENT_TYPE) or b""
    answer.content_type = content_type.strip()[:_KEPT_CHARS].decode("latin-1")
    answer.content_length = int(get(pycurl.CONTENT_LENGTH_DOWNLOAD_T))
    answer.final_url = task.url
    answer.ip = get(pycurl.PRIMARY_IP) or handle.blocked
    answer.http_version = _HTTP_VERSIONS.get(get(pycurl.INFO_HTTP_VERSION), "")
    answer.connect_s = get(pycurl.CONNECT_TIME)
    answer.ttfb_s = get(pycurl.STARTTRANSFER_TIME)
    answer.total_s = get(pycurl.TOTAL_TIME)
    answer.fetched_at = time.time()
    answer.blocked = bool(handle.blocked) and not handle.opened
    answer.too_large = handle.too_large or code == pycurl.E_FILESIZE_EXCEEDED
    if answer.status == _NOT_MODIFIED and task.is_conditional:
        handle.hear_head()
    answer.refused = handle.refused
    answer.end_announced = answer.content_length >= 0 or answer.http_version in _FRAMED_VERSIONS
    encodings = _read_headers(answer, handle.head)
    if encodings and not code:
        _decode(answer, encodings, handle.settings.parameters.max_file_bytes)
    if task.usage_signals or handle.usage_signals:
        answer.usage_signals = joined(task.usage_signals, handle.usage_signals)
    if 300 <= answer.status < 400:
        answer.location = (get_raw(pycurl.REDIRECT_URL) or b"").decode("utf-8", "surrogateescape")
        cookies = tuple(get_raw(pycurl.INFO_COOKIELIST))
        if sum(map(len, cookies)) <= MOST_COOKIE_BYTES:
            answer.cookies = cookies
    return answer


def _read_headers(answer: Answer, head: Sequence[bytes]) -> list[str]:
    """Read the headers of the last response that become columns; return the values of Content-Encoding."""
    encodings = []
    for name, value in _last_fields(head):
        kept = _text(value)
        match name:
            case b"etag":
                answer.etag = kept
            case b"last-modified":
                answer.last_modified = kept
            case b"retry-after":
                answer.retry_after = kept
            case b"transfer-encoding":
                answer.end_announced = True
            case b"content-encoding":
                encodings.append(kept)
            case _:
                _note_limits(answer, name.decode("latin-1"), kept)
    return encodings


def _decode(answer: Answer, encodings: Sequence[str], most_bytes: int) -> None:
    """Put what is in an encoded body into its place."""
    try:
        found = decoded(answer.body, encodings, most_bytes)
    except TooLargeError:
        answer.too_large = True
        return
    except EncodingError as error:
        if answer.status == _OK:  # of another answer the status says enough
            answer.curl_code, answer.error = pycurl.E_BAD_CONTENT_ENCODING, str(error)
        return
    if found.ignored:
        answer.warnings = one_line(f"content-encoding ignored: {', '.join(found.ignored)}")
    if found.is_changed:
        answer.body = found.body
        # What was announced is the end of what was sent: that may lack an end of its own.
        answer.content_length = -1
        answer.end_announced = False


def _last_fields(head: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return those of our headers that the last response has, by their lower-case names: interim and proxy responses
    come before it."""
    fields: list[tuple[bytes, bytes]] = []
    for line in head:
        begins = line[:5].lower()
        if begins not in _BEGINNINGS:
            continue
        if begins == _STATUS_LINE:
            fields.clear()
            continue
        name, _, value = line.partition(b":")
        name = name.rstrip(b" \t").lower()
        if name in _HEADERS or name.startswith(_LIMITS):
            fields.append((name, value))
    return fields


def _note_limits(answer: Answer, name: str, value: str) -> None:
    """Note a line of a list, which may have several (RFC 9110, 5.3)."""
    fields = answer.rate_limits = answer.rate_limits or {}
    fields[name] = f"{fields[name]}, {value}" if name in fields else value


def _text(value: bytes) -> str:
    return value.strip()[:_KEPT_CHARS].decode("latin-1")
