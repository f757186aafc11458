"""A few threads for arrow's and numpy's work, which releases the interpreter's lock, and memory for it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

import pyarrow as pa

MAX_THREADS: Final = 4
"""More only wait: reading is one thread, and the parts in Python take turns."""

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


class Workers:
    """Threads, as many as this process may use cores (an MPI launcher may have pinned it to one), up to a maximum."""

    def __init__(self) -> None:
        self.threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="partition")

    def close(self) -> None:
        """Wait for the calls under way, drop the others and end the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[[_Item], _Done], items: Iterable[_Item]) -> Iterator[_Done]:
        """Yield the results in order; only a few items are taken ahead, so that memory stays bounded."""
        under_way: deque[Future[_Done]] = deque()
        for item in items:
            under_way.append(self.pool.submit(work, item))
            if len(under_way) > 2 * self.threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


@contextmanager
def recycled_memory() -> Iterator[None]:
    """Let arrow take its memory from malloc, which keeps what is freed for the next batch.

    Arrow's own default, mimalloc, gives it back to the system at once: for 5 million rows the page faults that follow
    were a fifth of all time.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
