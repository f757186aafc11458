"""The answers of a hostile web, byte for byte, and what becomes of the row behind each.

The numbers are the catalog's (``tests.hostile.catalog``); docs/errors.md is made from this list.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Final

from ddmpi.core.records import ErrorKind
from tests.hostile import http2
from tests.hostile.bodies import BROTLI_BOMB, HTML, MAX_FILE_BYTES, PICTURE, answer, bomb, chunked, picture
from tests.hostile.cases import SUCCESS, AnswerCase, Transport, at_once, retried, status
from tests.hostile.steps import Drop, Flood, Hold, NextRequest, Reset, Send

_OK: Final = answer()
_HALF: Final = len(PICTURE) // 2
_TOO_MUCH: Final = bytes(2 * MAX_FILE_BYTES)

BODIES: Final = (
    AnswerCase(
        41, "a byte per second", (Send(answer(PICTURE[:9], length=5000)), Flood(b"x", 0.5)), retried(ErrorKind.STALLED)
    ),
    AnswerCase(
        41,
        "slow, but never slow enough to stall",
        (Send(answer(b"", length=99_999)), Flood(bytes(60), 0.1)),
        retried(ErrorKind.TIMEOUT),
    ),
    AnswerCase(42, "the request is taken, and never answered", (Hold(),), retried(ErrorKind.STALLED)),
    AnswerCase(
        42,
        "some of a body, then silence",
        (Send(answer(PICTURE[:40], length=len(PICTURE))), Hold()),
        retried(ErrorKind.STALLED),
    ),
    AnswerCase(43, "connections are never accepted", (), retried(ErrorKind.UNREACHABLE), Transport.UNANSWERED),
    AnswerCase(
        44,
        "a body without an end or a length",
        (Send(answer(b"", length=None)), Flood(PICTURE)),
        at_once(ErrorKind.TOO_LARGE),
    ),
    AnswerCase(
        44,
        "chunks without an end",
        (Send(chunked(PICTURE, last_chunk=b"")), Flood(b"400\r\n" + bytes(1024) + b"\r\n")),
        at_once(ErrorKind.TOO_LARGE),
    ),
    AnswerCase(
        44,
        "a length above max_file_bytes",
        (Send(answer(PICTURE, length=MAX_FILE_BYTES + 1)), Hold()),
        at_once(ErrorKind.TOO_LARGE),
    ),
    AnswerCase(
        44,
        "a length of 19 digits",
        (Send(answer(PICTURE, length=9_223_372_036_854_775_807)), Hold()),
        at_once(ErrorKind.TOO_LARGE),
    ),
    AnswerCase(
        44, "a length of 30 digits", (Send(answer(PICTURE, length=10**29)), Hold()), at_once(ErrorKind.TOO_LARGE)
    ),
    AnswerCase(
        45,
        "fewer bytes than Content-Length",
        (Send(answer(PICTURE, length=len(PICTURE) + 9)),),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(46, "more bytes than Content-Length", (Send(answer(PICTURE + b"more", length=len(PICTURE))),), SUCCESS),
    AnswerCase(47, "a negative Content-Length", (Send(answer(length=-5)),), at_once(ErrorKind.PROTOCOL)),
    AnswerCase(47, "a Content-Length that is no number", (Send(answer(length="many")),), at_once(ErrorKind.PROTOCOL)),
    AnswerCase(
        47, "two different Content-Lengths", (Send(answer(PICTURE, "Content-Length: 5")),), at_once(ErrorKind.PROTOCOL)
    ),
    AnswerCase(48, "a chunk that is cut off", (Send(chunked(PICTURE)[:-_HALF]),), retried(ErrorKind.NETWORK)),
    AnswerCase(48, "no last chunk", (Send(chunked(PICTURE, last_chunk=b"")),), retried(ErrorKind.NETWORK)),
    AnswerCase(
        48, "a chunk size that is no number", (Send(chunked(PICTURE, size_line=b"zz")),), at_once(ErrorKind.PROTOCOL)
    ),
    AnswerCase(
        48, "a chunk size of 40 digits", (Send(chunked(PICTURE, size_line=b"f" * 40)),), at_once(ErrorKind.PROTOCOL)
    ),
    AnswerCase(
        49,
        "chunks and a Content-Length that contradicts",
        (Send(chunked(PICTURE).replace(b"\r\n\r\n", b"\r\nContent-Length: 7\r\n\r\n", 1)),),
        SUCCESS,
    ),
    AnswerCase(50, "no length: the connection's end is the body's end", (Send(answer(length=None)),), SUCCESS),
    AnswerCase(
        50,
        "no length, a JPEG that is cut off",
        (Send(answer(PICTURE[:_HALF], length=None)),),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(
        50,
        "no length, a PNG that is cut off",
        (Send(answer(picture("PNG")[:-9], content_type="image/png", length=None)),),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(
        50,
        "no length, a GIF that is cut off",
        (Send(answer(picture("GIF")[:-9], content_type="image/gif", length=None)),),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(
        50,
        "no length, a WebP that is cut off",
        (Send(answer(picture("WEBP")[:-9], content_type="image/webp", length=None)),),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(
        51,
        "a reset amid the body",
        (Send(answer(PICTURE[:_HALF], length=len(PICTURE))), Reset()),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(52, "headers that are cut off", (Send(_OK[:60]),), retried(ErrorKind.EMPTY_BODY)),
    AnswerCase(52, "a status line alone", (Send(b"HTTP/1.1 200 OK\r\n"),), retried(ErrorKind.EMPTY_BODY)),
    AnswerCase(53, "closed without an answer", (), retried(ErrorKind.NETWORK)),
    AnswerCase(53, "reset without an answer", (Reset(),), retried(ErrorKind.NETWORK)),
    AnswerCase(54, "200 with an empty body", (Send(answer(b"")),), at_once(ErrorKind.EMPTY_BODY)),
    AnswerCase(
        55,
        "a page instead of a picture",
        (Send(answer(HTML, content_type="text/html")),),
        at_once(ErrorKind.WRONG_TYPE),
    ),
    AnswerCase(55, "a page that is called a picture", (Send(answer(HTML)),), at_once(ErrorKind.WRONG_TYPE)),
    AnswerCase(55, "a picture that is called a page", (Send(answer(content_type="text/html")),), SUCCESS),
    AnswerCase(55, "a picture without a content type", (Send(answer(content_type="")),), SUCCESS),
    AnswerCase(56, "204", (Send(answer(b"", status="204 No Content", length=None)),), status(204)),
    AnswerCase(56, "205", (Send(answer(b"", status="205 Reset Content")),), status(205)),
    AnswerCase(56, "304, not asked for", (Send(answer(b"", status="304 Not Modified", length=None)),), status(304)),
    AnswerCase(
        57,
        "206, not asked for",
        (Send(answer(PICTURE[:9], f"Content-Range: bytes 0-8/{len(PICTURE)}", status="206 Partial Content")),),
        status(206),
    ),
    AnswerCase(
        58,
        "206 with a Content-Range that does not fit",
        (Send(answer(PICTURE[:9], "Content-Range: bytes 90-20/10", status="206 Partial Content")),),
        status(206),
    ),
)

HEADERS: Final = (
    AnswerCase(
        59,
        "interim answers without an end",
        (Flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),),
        at_once(ErrorKind.PROTOCOL),
    ),
    AnswerCase(
        59,
        "some interim answers before the answer",
        (Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _OK),),
        SUCCESS,
    ),
    AnswerCase(
        60, "a header of 200 KB", (Send(answer(PICTURE, "X-Long: " + "x" * 200_000)),), at_once(ErrorKind.PROTOCOL)
    ),
    AnswerCase(
        60,
        "6,000 headers",
        (Send(answer(PICTURE, *(f"X-{number}: x" for number in range(6_000)))),),
        at_once(ErrorKind.PROTOCOL),
    ),
    AnswerCase(
        60,
        "400 KB of headers",
        (Send(answer(PICTURE, *("X-Long: " + "x" * 40_000 for _ in range(10)))),),
        at_once(ErrorKind.PROTOCOL),
    ),
    AnswerCase(
        60,
        "headers without an end",
        (Send(b"HTTP/1.1 200 OK\r\n"), Flood(b"X-More: and more\r\n" * 1000)),
        at_once(ErrorKind.PROTOCOL),
    ),
    AnswerCase(
        60,
        "one header without an end",
        (Send(b"HTTP/1.1 200 OK\r\nX-Long: "), Flood(b"x" * 4096)),
        at_once(ErrorKind.PROTOCOL),
    ),
    AnswerCase(61, "a NUL in a header", (Send(answer(PICTURE, "X-Nul: a\0b")),), at_once(ErrorKind.PROTOCOL)),
    AnswerCase(
        61,
        "line breaks and terminal codes in headers",
        (Send(answer(PICTURE, 'ETag: "\x1b[2J\x07\x80"', "X-Folded: a\r\n b", "Last-Modified: \x9b1m")),),
        SUCCESS,
    ),
    AnswerCase(
        61,
        "a content type that is not UTF-8",
        (Send(answer(content_type="image/jpeg; name=\x9a\xff")),),
        SUCCESS,
    ),
    AnswerCase(
        61,
        "a Location that is not UTF-8",
        (Send(answer(b"", "Location: http://\x9a\xff/\xfe", status="302 Found")),),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(62, "HTTP/0.9", (Send(PICTURE),), at_once(ErrorKind.PROTOCOL)),
    AnswerCase(
        62, "bytes that are no HTTP", (Send(b"\x00\x01 this is not HTTP\r\n\r\n"),), at_once(ErrorKind.PROTOCOL)
    ),
    AnswerCase(62, "HTTP/3.0 in a status line", (Send(b"HTTP/3.0 200 OK\r\n\r\n" + PICTURE),), SUCCESS),
    AnswerCase(62, "another protocol's greeting", (Send(b"SSH-2.0-OpenSSH_9.9\r\n"),), at_once(ErrorKind.PROTOCOL)),
    AnswerCase(63, "status 999", (Send(answer(status="999 Denied")),), status(999)),
    AnswerCase(63, "status 099", (Send(answer(status="099 Early")),), at_once(ErrorKind.PROTOCOL)),
    AnswerCase(63, "status 1000", (Send(answer(status="1000 Late")),), at_once(ErrorKind.PROTOCOL)),
    AnswerCase(63, "status 200 without a reason", (Send(answer(status="200")),), SUCCESS),
)

ENCODINGS: Final = (
    AnswerCase(64, "a gzip bomb", (Send(answer(bomb(), "Content-Encoding: gzip")),), at_once(ErrorKind.TOO_LARGE)),
    AnswerCase(
        64,
        "a deflate bomb",
        (Send(answer(zlib.compress(bytes(20_000_000)), "Content-Encoding: deflate")),),
        at_once(ErrorKind.TOO_LARGE),
    ),
    AnswerCase(
        64,
        "a brotli bomb",
        (Send(answer(BROTLI_BOMB, "Content-Encoding: br")),),
        at_once(ErrorKind.TOO_LARGE),
    ),
    AnswerCase(
        65,
        "a bomb of two layers",
        (Send(answer(bomb(2), "Content-Encoding: gzip, gzip")),),
        at_once(ErrorKind.TOO_LARGE),
    ),
    AnswerCase(
        65,
        "six layers",
        (Send(answer(bomb(6, 1000), "Content-Encoding: gzip, gzip, gzip, gzip, gzip, gzip")),),
        at_once(ErrorKind.PROTOCOL),
    ),
    AnswerCase(66, "gzip that is none", (Send(answer(PICTURE, "Content-Encoding: gzip")),), SUCCESS),
    AnswerCase(
        66,
        "gzip that is damaged",
        (Send(answer(gzip.compress(PICTURE, mtime=0)[:10] + b"\xff" * 40, "Content-Encoding: gzip")),),
        at_once(ErrorKind.PROTOCOL),
    ),
    AnswerCase(
        66,
        "gzip that is cut off",
        (Send(answer(gzip.compress(PICTURE, mtime=0)[:-_HALF], "Content-Encoding: gzip")),),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(
        66,
        "gzip that is cut off, and a header that holds a status line",
        (Send(answer(gzip.compress(PICTURE, mtime=0)[:-_HALF], "Content-Encoding: gzip", "Via: HTTP/1.1 200 OK")),),
        retried(ErrorKind.NETWORK),
    ),
    AnswerCase(66, "an unknown encoding", (Send(answer(PICTURE, "Content-Encoding: rot13")),), SUCCESS),
    AnswerCase(
        67,
        "gzip, not asked for: decoded",
        (Send(answer(gzip.compress(PICTURE, mtime=0), "Content-Encoding: gzip")),),
        SUCCESS,
    ),
    AnswerCase(67, "identity", (Send(answer(PICTURE, "Content-Encoding: identity")),), SUCCESS),
)

REDIRECTS: Final = (
    AnswerCase(
        68,
        "a redirect to itself",
        (Send(answer(b"", "Location: /again", status="302 Found")), NextRequest()),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(
        69,
        "a redirect to a file",
        (Send(answer(b"", "Location: file:///etc/passwd", status="302 Found")),),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(
        69,
        "a redirect to ftp",
        (Send(answer(b"", "Location: ftp://127.0.0.1/x", status="302 Found")),),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(
        69,
        "a redirect to gopher",
        (Send(answer(b"", "Location: gopher://127.0.0.1:25/_HELO", status="302 Found")),),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(
        70,
        "a redirect to a cloud's metadata",
        (Send(answer(b"", "Location: http://169.254.169.254/latest/meta-data/", status="302 Found")),),
        at_once(ErrorKind.BLOCKED_ADDRESS),
    ),
    AnswerCase(
        70,
        "a redirect to a private address, as one number",
        (Send(answer(b"", "Location: http://167772161/", status="301 Moved")),),
        at_once(ErrorKind.BLOCKED_ADDRESS),
    ),
    AnswerCase(
        70,
        "a redirect to a private address in IPv6",
        (Send(answer(b"", "Location: http://[::ffff:10.0.0.1]/", status="307 Temporary Redirect")),),
        at_once(ErrorKind.BLOCKED_ADDRESS),
    ),
    AnswerCase(73, "302 without Location", (Send(answer(b"", status="302 Found")),), at_once(ErrorKind.REDIRECT)),
    AnswerCase(
        73,
        "302 with an empty Location",
        (Send(answer(b"", "Location: ", status="302 Found")),),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(
        73,
        "302 with a Location that is no URL",
        (Send(answer(b"", "Location: http://[::1", status="302 Found")),),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(
        73,
        "302 with control characters in Location",
        (Send(answer(b"", "Location: http://a.example/\x01\x1b[2J", status="302 Found")),),
        at_once(ErrorKind.REDIRECT),
    ),
    AnswerCase(
        73,
        "a redirect with a password: followed without it",
        (Send(answer(b"", "Location: http://user:hunter2@{server}/", status="302 Found")),),
        SUCCESS,
        then=(Send(_OK),),
    ),
    AnswerCase(
        72,
        "a redirect to another server",
        (Send(answer(b"", "Location: http://{picture server}/other.jpg", status="301 Moved Permanently")),),
        SUCCESS,
    ),
    AnswerCase(
        74,
        "a redirect from https to http",
        (Send(answer(b"", "Location: http://{picture server}/plain.jpg", status="302 Found")),),
        SUCCESS,
        Transport.TLS,
    ),
    AnswerCase(
        73,
        "300 with choices",
        (Send(answer(HTML, "Location: /a.jpg", status="300 Multiple Choices", content_type="text/html")),),
        status(300),
    ),
)

STATUSES: Final = (
    AnswerCase(
        75,
        "503 with Retry-After in seconds, then the picture",
        (Send(answer(b"", "Retry-After: 1", status="503 Service Unavailable")), NextRequest()),
        SUCCESS,
        then=(Send(_OK),),
    ),
    AnswerCase(
        75,
        "429 with a Retry-After that is no time, then the picture",
        (Send(answer(b"", "Retry-After: -1e9", status="429 Too Many Requests")), NextRequest()),
        SUCCESS,
        then=(Send(_OK),),
    ),
    AnswerCase(
        75,
        "429 with a Retry-After in the past, then the picture",
        (
            Send(answer(b"", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", status="429 Too Many Requests")),
            NextRequest(),
        ),
        SUCCESS,
        then=(Send(_OK),),
    ),
    *(
        AnswerCase(
            75,
            f"{code} with Retry-After in seconds, then the picture",
            (Send(answer(b"", "Retry-After: 1", status=f"{code} Later")), NextRequest()),
            SUCCESS,
            then=(Send(_OK),),
        )
        for code in (202, 403, 500)
    ),
    AnswerCase(
        76,
        "503 SlowDown of a bucket, then the picture",
        (Send(answer(b"<Error><Code>SlowDown</Code></Error>", status="503 Slow Down")), NextRequest()),
        SUCCESS,
        then=(Send(_OK),),
    ),
    AnswerCase(
        76,
        "429 without Retry-After, then the picture",
        (Send(answer(b"", status="429 Too Many Requests")), NextRequest()),
        SUCCESS,
        then=(Send(_OK),),
    ),
    *(
        AnswerCase(
            77,
            str(code),
            (Send(answer(HTML, status=f"{code} No", content_type="text/html")), NextRequest()),
            status(code),
        )
        for code in (400, 401, 403, 404, 410, 418, 451, 501)
    ),
    *(
        AnswerCase(
            78,
            str(code),
            (Send(answer(HTML, status=f"{code} Not now", content_type="text/html")), NextRequest()),
            status(code, retried=True),
        )
        for code in (408, 500, 502, 503, 504, 522, 524)
    ),
)

CONNECTIONS: Final = (
    AnswerCase(80, "an expired certificate", (Send(_OK),), at_once(ErrorKind.TLS), Transport.EXPIRED),
    AnswerCase(80, "a self-signed certificate", (Send(_OK),), at_once(ErrorKind.TLS), Transport.SELF_SIGNED),
    AnswerCase(80, "a certificate for another host", (Send(_OK),), at_once(ErrorKind.TLS), Transport.WRONG_HOST),
    AnswerCase(80, "an authority that nobody knows", (Send(_OK),), at_once(ErrorKind.TLS), Transport.UNTRUSTED),
    AnswerCase(80, "a certificate in order", (Send(_OK), NextRequest()), SUCCESS, Transport.TLS, rows=4),
    AnswerCase(80, "plain HTTP where TLS is expected", (Send(_OK),), retried(ErrorKind.UNREACHABLE), Transport.NO_TLS),
    AnswerCase(80, "no cipher that both sides know", (Send(_OK),), retried(ErrorKind.UNREACHABLE), Transport.NO_CIPHER),
    AnswerCase(
        81,
        "TLS cut off amid the body",
        (Send(answer(PICTURE[:_HALF], length=len(PICTURE))), Reset()),
        retried(ErrorKind.NETWORK),
        Transport.TLS,
    ),
    AnswerCase(
        81,
        "TLS cut off amid a body without a length",
        (Send(answer(PICTURE[:_HALF], length=None)), Drop()),
        retried(ErrorKind.NETWORK),
        Transport.TLS,
    ),
    AnswerCase(82, "a name that does not exist", (), retried(ErrorKind.DNS), Transport.NO_NAME),
    AnswerCase(84, "nothing listens", (), retried(ErrorKind.UNREACHABLE), Transport.REFUSED),
    AnswerCase(70, "a private address", (), at_once(ErrorKind.BLOCKED_ADDRESS), Transport.PRIVATE),
    AnswerCase(85, "HTTP/2 in order", (Send(http2.head() + http2.data()),), SUCCESS, Transport.HTTP2),
    AnswerCase(
        85, "HTTP/2: GOAWAY instead of an answer", (Send(http2.goaway()),), retried(ErrorKind.NETWORK), Transport.HTTP2
    ),
    AnswerCase(
        85,
        "HTTP/2: GOAWAY amid the body",
        (Send(http2.head() + http2.data(PICTURE[:_HALF], end_stream=False) + http2.goaway(1, 2)),),
        retried(ErrorKind.NETWORK),
        Transport.HTTP2,
    ),
    AnswerCase(85, "HTTP/2: the stream is reset", (Send(http2.reset()),), retried(ErrorKind.NETWORK), Transport.HTTP2),
    AnswerCase(
        85,
        "HTTP/2: the stream is reset amid the body",
        (Send(http2.head() + http2.data(PICTURE[:_HALF], end_stream=False) + http2.reset(11)),),
        retried(ErrorKind.NETWORK),
        Transport.HTTP2,
    ),
    AnswerCase(
        85, "HTTP/2: the stream is refused", (Send(http2.reset(7)),), retried(ErrorKind.NETWORK), Transport.HTTP2
    ),
    AnswerCase(
        85,
        "HTTP/2: closed amid the body",
        (Send(http2.head() + http2.data(PICTURE[:_HALF], end_stream=False)),),
        retried(ErrorKind.NETWORK),
        Transport.HTTP2,
    ),
    AnswerCase(
        85,
        "HTTP/2: an empty body",
        (Send(http2.head(end_stream=True)),),
        at_once(ErrorKind.EMPTY_BODY),
        Transport.HTTP2,
    ),
    AnswerCase(
        85,
        "HTTP/2: PING after PING, and no answer",
        (Flood(http2.frame(http2.PING, bytes(8)), 0.01),),
        retried(ErrorKind.STALLED),
        Transport.HTTP2,
    ),
    AnswerCase(
        85,
        "HTTP/2: a flood of PING",
        (Flood(1_000 * http2.frame(http2.PING, bytes(8))),),
        retried(ErrorKind.NETWORK),
        Transport.HTTP2,
    ),
    AnswerCase(
        85,
        "HTTP/2: a flood of empty headers",
        (
            Send(http2.frame(http2.HEADERS, http2.STATUS_200, stream=1)),
            Flood(http2.frame(http2.CONTINUATION, stream=1)),
        ),
        retried(ErrorKind.NETWORK),
        Transport.HTTP2,
    ),
    AnswerCase(
        85,
        "HTTP/2: a frame larger than agreed",
        (Send(http2.head() + http2.data(bytes(100_000))),),
        retried(ErrorKind.NETWORK),
        Transport.HTTP2,
    ),
    AnswerCase(
        85,
        "HTTP/2: a body without an end",
        (Send(http2.head()), Flood(http2.data(bytes(8192), end_stream=False))),
        at_once(ErrorKind.TOO_LARGE),
        Transport.HTTP2,
    ),
    AnswerCase(
        85, "HTTP/2: bytes that are no frames", (Send(b"\xff" * 500),), retried(ErrorKind.NETWORK), Transport.HTTP2
    ),
    AnswerCase(86, "closed between two requests", (Send(_OK),), SUCCESS, rows=8),
    AnswerCase(86, "reset between two requests", (Send(_OK), Reset()), SUCCESS, rows=8),
    AnswerCase(87, "one connection for all requests", (Send(_OK), NextRequest()), SUCCESS, rows=8),
)

ANSWERS: Final = (*BODIES, *HEADERS, *ENCODINGS, *REDIRECTS, *STATUSES, *CONNECTIONS)
