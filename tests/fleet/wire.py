"""HTTP/1.1 as text: the head of a request in, the bytes of an answer out.

Pure. Understands what a downloader sends (GET or HEAD without a body, keep-alive) and rejects the rest.
Invariant: every answer made here says how long its body is, so that a connection can be used again after it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple
from zlib import crc32

from tests.fleet.images import body_of, format_of
from tests.fleet.spec import Mode, ServerSpec

MAX_HEAD_BYTES = 65_536
ROBOTS_PATH = "/robots.txt"
END_OF_HEAD = b"\r\n\r\n"
GARBAGE = b"\x00\x01 this is not HTTP\r\n\r\n"
"""What a server of mode ``garbage`` sends."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_LAST_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
_HTML = b"<!DOCTYPE html>\n<title>Not an image</title>\n<p>Please accept our cookies to see this image.\n"


class BadRequestError(Exception):
    """The client sent what this server does not speak; answered 400."""


class Request(NamedTuple):
    """The head of a request, as far as it matters here."""

    method: str
    path: str
    """Request target as sent, with query."""
    keep_alive: bool
    cookie: str = ""
    """Value of that header."""


class Answer(NamedTuple):
    """The two halves of an answer; ``head`` ends with the empty line."""

    status: int
    head: bytes
    body: bytes


def parse_head(head: bytes) -> Request:
    """Read a request's head, without the empty line at its end. Raises BadRequestError."""
    line, _, fields = head.partition(b"\r\n")
    try:
        method, path, version = line.decode("ascii").split(" ")
    except ValueError:  # UnicodeDecodeError is one
        raise BadRequestError(f"not a request line: {line[:100]!r}") from None
    # A path goes into the log as it is: a tab or a line end in it would forge a line there.
    if method not in {"GET", "HEAD"} or not path.startswith("/") or not path.isprintable():
        raise BadRequestError(f"not served here: {line[:100]!r}")
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise BadRequestError(f"not HTTP/1: {line[:100]!r}")
    lowered = fields.lower()
    if b"transfer-encoding:" in lowered or (b"content-length:" in lowered and b"content-length: 0" not in lowered):
        raise BadRequestError("requests with a body are not served here")
    cookies = [line.partition(b":")[2].strip() for line in fields.split(b"\r\n") if line.lower().startswith(b"cookie:")]
    keep_alive = version == "HTTP/1.1" and b"connection: close" not in lowered
    return Request(method, path, keep_alive, b"; ".join(cookies).decode("latin-1"))


def answer_of(spec: ServerSpec, path: str, mode: Mode, status: int, location: str) -> Answer:
    """The whole answer to a request that passed the limiter. Only the modes html and empty change its bytes."""
    if status == 302:
        return make_answer(302, b"", f"Location: {location}\r\n")
    if status != 200:
        return make_answer(status, f"{status} {path}\n".encode(), "Content-Type: text/plain\r\n")
    if mode is Mode.HTML:
        return make_answer(200, _HTML, "Content-Type: text/html; charset=utf-8\r\n")
    image_fields = (
        f"Content-Type: {format_of(path).content_type}\r\n"
        f'Last-Modified: {_LAST_MODIFIED}\r\nETag: "{crc32(path.encode()):08x}"\r\n'
    )
    image_fields += "".join(f"X-Robots-Tag: {value}\r\n" for value in spec.x_robots_tag.splitlines())
    image_fields += f"Content-Usage: {spec.content_usage}\r\n" if spec.content_usage else ""
    return make_answer(200, b"" if mode is Mode.EMPTY else body_of(spec, path), image_fields)


def cookie_of(path: str) -> str:
    """The cookie that a server sets with the redirect of this path."""
    return f"visit={crc32(path.encode()):08x}"


def with_fields(answer: Answer, fields: str) -> Answer:
    """The answer with further ``fields``, each of which ends with CR LF."""
    return answer._replace(head=answer.head[:-2] + fields.encode("ascii") + b"\r\n")


def robots_of(spec: ServerSpec) -> Answer:
    """What a server with a robots.txt has there."""
    location = f"Location: {spec.robots_location}\r\n" if spec.robots_location else ""
    return make_answer(spec.robots_status, (spec.robots or "").encode(), f"Content-Type: text/plain\r\n{location}")


def refusal_of(spec: ServerSpec) -> Answer:
    """What a server says to a path that it refuses."""
    retry_after_s = spec.refused_retry_after_s
    fields = f"Retry-After: {retry_after_s}\r\n" if retry_after_s else ""
    return make_answer(spec.refused_status, spec.refused_body.encode(), f"Content-Type: application/xml\r\n{fields}")


def too_many_requests(retry_after_s: int) -> Answer:
    """429, with Retry-After unless that is 0."""
    return make_answer(429, b"too many requests\n", f"Retry-After: {retry_after_s}\r\n" if retry_after_s else "")


def make_answer(status: int, body: bytes, fields: str = "") -> Answer:
    """An answer with Content-Length and further ``fields``, each of which ends with CR LF."""
    head = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    return Answer(status, head.encode("ascii"), body)
