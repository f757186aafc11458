"""Bodies as an Arrow column without growing buffers: each is copied once, into memory that is used again.

``pa.array`` of a list of bodies grows its buffer by doubling, in memory that the system clears first: that took a
quarter of the writer's time. A large body is not copied at all, and makes a chunk of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

WHOLE_BYTES: Final = 1 << 20
"""From this size on a body is a chunk of its own, in its own memory."""
_TYPE: Final = pa.large_binary()


class BodyColumn:
    """Columns of bodies; the memory of one column is that of the next, which must not be made before the first
    has been written."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def make(self, bodies: Sequence[bytes | None]) -> pa.ChunkedArray[Any]:
        """Return the bodies in their order, as ``large_binary``."""
        size_bytes = sum(len(body) for body in bodies if body is not None and len(body) < WHOLE_BYTES)
        if size_bytes > len(self._memory):
            self._memory = bytearray(size_bytes)
        return pa.chunked_array(self._chunks(bodies), _TYPE)

    def _chunks(self, bodies: Sequence[bytes | None]) -> Iterator[pa.Array[Any]]:
        run: list[bytes | None] = []
        used_bytes = 0
        for body in bodies:
            if body is None or len(body) < WHOLE_BYTES:
                run.append(body)
                continue
            if run:
                yield self._copied(run, used_bytes)
                used_bytes += sum(len(each or b"") for each in run)
                run = []
            yield _array([body], pa.py_buffer(body))
        if run:
            yield self._copied(run, used_bytes)

    def _copied(self, bodies: Sequence[bytes | None], at: int) -> pa.Array[Any]:
        start = at
        with memoryview(self._memory) as memory:
            for body in filter(None, bodies):
                memory[at : at + len(body)] = body
                at += len(body)
        return _array(bodies, pa.py_buffer(self._memory).slice(start, at - start))


def _array(bodies: Sequence[bytes | None], data: pa.Buffer) -> pa.Array[Any]:
    """Return bodies that stand one after the other in ``data``."""
    offsets = np.zeros(len(bodies) + 1, np.int64)
    np.cumsum([len(body or b"") for body in bodies], out=offsets[1:])
    validity = pa.array([body is not None for body in bodies]).buffers()[1] if None in bodies else None
    return pa.Array.from_buffers(_TYPE, len(bodies), [validity, pa.py_buffer(offsets.tobytes()), data])
