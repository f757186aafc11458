"""Parts on their way to the store: several at once, told of in the order in which they were committed.

An event passes when the parts before it are in the store. So ``PartsClosed`` keeps its meaning, and nothing is counted
that is not published. After the first failure nothing passes any more: the parts are on disk, and the next run
publishes them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

UPLOADS: Final = 4
"""At once per rank: each holds one piece of an upload (10 MB) in memory."""

Event = TypeVar("Event")


class Uploads(Generic[Event]):
    """``add`` and ``finish`` are for one thread, the writer's.

    Args:
        emit: takes the events that pass, from any thread, one after the other.
        on_failure: told once, from any thread; ``check`` then raises.
    """

    def __init__(self, emit: Callable[[Event], None], on_failure: Callable[[], None]) -> None:
        self._emit = emit
        self._on_failure = on_failure
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="uploads")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[None] | None, Event]] = deque()
        self._failure: BaseException | None = None

    def add(self, event: Event, upload: Callable[[], None] | None = None) -> None:
        """Let ``event`` pass after all events before it, and after ``upload``, which is done by another thread."""
        future = None if upload is None else self._pool.submit(upload)
        with self._lock:
            self._waiting.append((future, event))
        if future is None:
            self._pass_on()
        else:
            future.add_done_callback(lambda _: self._pass_on())

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Wait until all uploads are done, after the last ``add``; raises what one of them has raised."""
        self._pool.shutdown()  # the threads end after their callbacks: all events that may pass have passed
        self.check()

    def close(self) -> None:
        """Begin no further upload. Events of those that had not begun never pass: their parts are not in the store."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _pass_on(self) -> None:
        with self._lock:
            while self._waiting and self._failure is None:
                future, event = self._waiting[0]
                if future is not None:
                    if not future.done() or future.cancelled():
                        return
                    self._failure = future.exception()
                    if self._failure is not None:
                        self._on_failure()
                        return
                self._waiting.popleft()
                self._emit(event)
