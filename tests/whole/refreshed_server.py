"""A server whose files change between two runs: what was asked of it is counted, and so are the bytes of its bodies."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

from tests.fleet.images import body_of
from tests.fleet.spec import ServerSpec
from tests.fleet.threaded import QuietHandler, running

SPEC = ServerSpec("127.0.0.1")
LAST_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
LATER = "Fri, 02 Jan 2026 00:00:00 GMT"
ETAG, DATE, NEITHER, MOVED = "etag", "date", "neither", "moved"
"""Kinds of files, by what is given with them to tell whether they have changed; the last ones are redirected."""
SAME, CHANGED, GONE, HTML, BROKEN, PICTURE = "same", "changed", "gone", "html", "broken", "picture"
"""What becomes of them."""


@dataclass
class Web:
    """What the server has, and what it was asked."""

    port: int = 0
    is_later: bool = False
    """Whether what becomes of the files has come to be."""
    asked: Counter[str] = field(default_factory=Counter)
    """Requests by path."""
    conditions: Counter[str] = field(default_factory=Counter)
    """Those of them that asked whether the file has changed."""
    statuses: Counter[int] = field(default_factory=Counter)
    body_bytes: int = 0
    """Of files."""
    served_before_gate: int = -1
    """So many requests more are answered before the gate closes; -1: any number."""
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, kind: str, fate: str, number: int) -> str:
        return f"http://127.0.0.1:{self.port}/{kind}/{fate}/{number}.jpg"

    def urls(self, kind: str, fate: str, count: int) -> list[str]:
        return [self.url(kind, fate, number) for number in range(count)]

    def forget_requests(self) -> None:
        self.asked.clear()
        self.conditions.clear()
        self.statuses.clear()
        self.body_bytes = 0

    def file(self, path: str) -> bytes:
        """What is there now."""
        _, fate, _ = path.strip("/").split("/")
        if self.is_later and fate == PICTURE:
            return body_of(SPEC, "/no-longer-available.jpg")
        return body_of(SPEC, path + "?later" if self.is_later and fate == CHANGED else path)


class Handler(QuietHandler):
    server: WebServer

    def get(self) -> None:
        web = self.server.web
        if self.path.startswith("/at/"):
            self._serve(web, self.path.removeprefix("/at"))
            return
        with web.lock:
            web.asked[self.path] += 1
            is_held = web.served_before_gate == 0
            web.served_before_gate -= web.served_before_gate > 0
        if is_held:
            web.gate.wait(60)
        if self.path.startswith(f"/{MOVED}/"):
            assert "If-None-Match" not in self.headers, "it is another URL's"
            self.answer(302, b"", Location="/at" + self.path)
        elif self.path == "/robots.txt":
            assert "If-None-Match" not in self.headers
            self.answer(404, b"")
        else:
            self._serve(web, self.path)

    def _serve(self, web: Web, path: str) -> None:
        kind, fate, _ = path.strip("/").split("/")
        condition = self.headers.get("If-None-Match") or self.headers.get("If-Modified-Since") or ""
        if web.is_later and fate in {GONE, BROKEN, HTML}:
            self._tell(web, path, {GONE: 404, BROKEN: 500, HTML: 200}[fate], b"<html>gone</html>", condition)
            return
        body = web.file(path)
        is_other = web.is_later and fate in {CHANGED, PICTURE}
        etag, date = f'"{path}{is_other}"', LATER if is_other else LAST_MODIFIED
        given = {}
        if kind in {ETAG, MOVED}:
            given = {"ETag": etag, "Last_Modified": date}
            is_known = self.headers.get("If-None-Match") == etag
        elif kind == DATE:
            given = {"Last_Modified": date}
            is_known = self.headers.get("If-Modified-Since") == date
        else:
            is_known = False
        if is_known:
            self._tell(web, path, 304, b"", condition, **given)
        else:
            self._tell(web, path, 200, body, condition, Content_Type="image/jpeg", **given)

    def _tell(self, web: Web, path: str, status: int, body: bytes, condition: str, **headers: str) -> None:
        with web.lock:
            web.statuses[status] += 1
            web.conditions[path] += bool(condition)
            web.body_bytes += len(body) if status == 200 else 0
        if status == 304:
            self.send_response(304)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
        else:
            self.answer(status, body, **headers)


class WebServer(ThreadingHTTPServer):
    def __init__(self, web: Web) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.web = web


@contextmanager
def web_server() -> Iterator[Web]:
    """Have it answer on 127.0.0.1 until the end of the block."""
    web = Web()
    server = WebServer(web)
    web.port = server.server_port
    with running(server):
        try:
            yield web
        finally:
            web.gate.set()
