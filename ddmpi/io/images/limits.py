"""How much of an image is decoded: so many pixels, and as much memory as all threads of a rank share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MAX_PIXELS: Final = 250_000_000
"""Larger images are refused whatever they would take: seconds of a core each. The largest cameras make 150 million."""
WORKING_BYTES: Final = 224 << 20
"""Of all images that a rank decodes at one time: with all else that a rank holds it stays below 450 MB."""


class DecodeError(ValueError):
    """The body is no image that can be decoded; the text says why."""


class Memory:
    """What all threads decode with."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """Wait until so many bytes, at most all, are free, and hold them."""
        with self._changed:
            self._changed.wait_for(lambda: self._free_bytes >= size_bytes)
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size_bytes
                self._changed.notify_all()
