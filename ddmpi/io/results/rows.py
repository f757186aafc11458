"""From an answer to the row that will be stored: digests, sizes, and the smaller image where one is wanted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from ddmpi.core.records import Answer, ErrorKind, Failure, error_code
from ddmpi.io.results.images import DecodeError, header_size, make_shrink
from ddmpi.io.results.schema import ErrorRow, ResultRow, SuccessRow, error_row

MAX_IMAGE_BYTES: Final = (1 << 31) - (32 << 20)
"""A Parquet page ends at 2 GiB, and one row group holds a body and up to 8 MiB of others."""


class RowMaker:
    """Called from the writer's thread: hashing and decoding let go of the interpreter's lock.

    Raises:
        SetupError: image_size > 0 without OpenCV.
        ValueError: an unknown hash algorithm.
    """

    def __init__(self, hash_algorithm: str, image_size: int) -> None:
        self._hash_algorithm = hash_algorithm
        self._shrink = make_shrink(image_size) if image_size > 0 else None
        self._digest(b"")

    def row(self, row: int, answer: Answer) -> ResultRow:
        """A success, or an error where the body cannot be stored or decoded."""
        body = answer.body
        if len(body) > MAX_IMAGE_BYTES:
            return refused(row, answer, ErrorKind.TOO_LARGE, f"{len(body)} bytes do not fit into a Parquet page")
        if self._shrink is None:
            return SuccessRow(row, answer, body, self._digest(body), None, len(body), header_size(body), None)
        try:
            shrunk = self._shrink(body)
        except DecodeError as error:
            return refused(row, answer, ErrorKind.DECODE, str(error))
        return SuccessRow(
            row,
            replace(answer, body=b""),  # the served bytes would stay in memory, uncounted
            shrunk.image,
            self._digest(body),
            self._digest(shrunk.image),
            len(body),
            shrunk.original_size,
            shrunk.resized_size,
        )

    def _digest(self, data: bytes) -> str:
        return hashlib.new(self._hash_algorithm, data, usedforsecurity=False).hexdigest()


def refused(row: int, answer: Answer, kind: ErrorKind, message: str) -> ErrorRow:
    """The error that becomes of a body which cannot be kept."""
    failure = Failure(kind, error_code(kind, answer.status), message)
    return error_row(row, failure, answer, answer.task.attempt)
