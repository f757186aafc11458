"""From an answer to the row that will be stored: digests, sizes, the smaller image where one is wanted.

Decides which bodies cannot be stored, and what becomes of a file that is not the one that the table promised. It must
not know Parquet (see ``schema``), or when a row is written (see ``parts``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from ddmpi.core.records import Answer, ErrorKind, Failure, error_code
from ddmpi.core.stats.comparison import UNCHANGED, class_of_error
from ddmpi.io.results.digests import make_digest
from ddmpi.io.results.images import DecodeError, header_size, make_shrink
from ddmpi.io.results.outcomes import EarlierFile
from ddmpi.io.results.promises import objection

MAX_IMAGE_BYTES: Final = (1 << 31) - (32 << 20)
"""A Parquet page ends at 2 GiB, and one row group holds a body and up to 8 MiB of others."""


NOT_MODIFIED: Final = 304


@dataclass(slots=True, eq=False)
class SuccessRow:
    """A success that waits for its row group. Sizes are (height, width) in pixels. ``image`` is what will be stored;
    ``answer.body`` is the same object, or empty. It is that of one URL, for all of its rows."""

    rows: tuple[int, ...]
    answer: Answer
    image: bytes
    hashsum_original: str
    hashsum_resized: str | None
    original_bytes: int
    original_size: tuple[int, int] | None
    resized_size: tuple[int, int] | None
    mismatch: str = ""
    """What is not as the table promises these rows, where such files are kept."""


@dataclass(slots=True, eq=False)
class ErrorRow:
    """An error that waits for its row group, for all rows of its URL. It holds no answer, since that would hold its
    body."""

    rows: tuple[int, ...]
    failure: Failure
    attempts: int
    final_url: str = ""
    fetched_at: float = 0.0
    mirrors_left: int | None = None
    """How many URLs of the rows were left to ask; None: nothing was fetched, or there was one."""
    usage_signals: str = ""


@dataclass(slots=True, eq=False)
class CheckRow:
    """What a refresh has found of a file that its rows keep: ``check`` is one of ``comparison.CHECKS``."""

    rows: tuple[int, ...]
    check: str
    attempts: int
    file_epoch: int = 0
    """The run that the file is from."""
    status: int = 0
    """Of the answer; 0 where there is none, or where the failure is not about it."""
    failure: Failure | None = None
    """Why there is no file to compare with; None where it is unchanged."""
    final_url: str = ""
    etag: str = ""
    last_modified: str = ""
    fetched_at: float = 0.0
    mirrors_left: int | None = None
    usage_signals: str = ""


ResultRow = SuccessRow | ErrorRow | CheckRow


class RowMaker:
    """Make rows from answers, in any thread: hashing and decoding let go of the interpreter's lock.

    Raises:
        SetupError: image_size > 0 without Pillow or simplejpeg, or a hash algorithm without its library.
        ValueError: an unknown hash algorithm.
    """

    def __init__(self, hash_algorithm: str, image_size: int) -> None:
        self._digest = make_digest(hash_algorithm)
        self._shrink = make_shrink(image_size) if image_size > 0 else None

    def row(self, rows: tuple[int, ...], answer: Answer) -> ResultRow:
        """Return a success, or an error where the body cannot be stored or decoded."""
        body = answer.body
        if len(body) > MAX_IMAGE_BYTES:
            return refused(rows, answer, ErrorKind.TOO_LARGE, f"{len(body)} bytes do not fit into a Parquet page")
        if self._shrink is None:
            return SuccessRow(rows, answer, body, self._digest(body), None, len(body), header_size(body), None)
        try:
            shrunk = self._shrink(body)
        except DecodeError as error:
            return refused(rows, answer, ErrorKind.DECODE, str(error))
        if shrunk.warnings:
            answer = replace(answer, warnings="; ".join(filter(None, (answer.warnings, shrunk.warnings))))
        if not shrunk.content_type:
            return SuccessRow(rows, answer, body, self._digest(body), None, len(body), shrunk.original_size, None)
        return SuccessRow(
            rows,
            # Without the served bytes, which would stay in memory, uncounted.
            replace(answer, body=b"", content_type=shrunk.content_type),
            shrunk.image,
            self._digest(body),
            self._digest(shrunk.image),
            len(body),
            shrunk.original_size,
            shrunk.resized_size,
        )


def refused(rows: tuple[int, ...], answer: Answer, kind: ErrorKind, message: str) -> ErrorRow:
    """Return the error row of an answer whose body cannot be kept."""
    failure = Failure(kind, error_code(kind, answer.status), message)
    return error_row(rows, failure, answer, answer.task.attempts)


def error_row(
    rows: tuple[int, ...], failure: Failure, answer: Answer | None, attempts: int, usage_signals: str = ""
) -> ErrorRow:
    """Return the row of a failure; ``answer`` is None where nothing was fetched (a refused URL, one that robots.txt
    disallows: ``usage_signals`` is what that says)."""
    if answer is None:
        return ErrorRow(rows, failure, attempts, usage_signals=usage_signals)
    left = answer.task.mirrors_left
    return ErrorRow(rows, failure, attempts, answer.final_url, answer.fetched_at, left, answer.usage_signals)


def unchanged_row(rows: tuple[int, ...], answer: Answer) -> CheckRow:
    """Return the row of a file that its server has as it was; ``checked`` says which file that is."""
    return CheckRow(
        rows,
        UNCHANGED,
        answer.task.attempts,
        status=answer.status,
        final_url=answer.final_url,
        etag=answer.etag,
        last_modified=answer.last_modified,
        fetched_at=answer.fetched_at,
        mirrors_left=answer.task.mirrors_left,
        usage_signals=answer.usage_signals,
    )


def checked(made: ResultRow, earlier: EarlierFile, now: float) -> ResultRow:
    """Return what a row comes to that has a file already: a success only where this is another file.

    Args:
        now: seconds since 1970, where nothing was asked for.
    """
    if isinstance(made, ErrorRow):
        failure = made.failure
        return CheckRow(
            made.rows,
            class_of_error(failure.kind.value, failure.code),
            made.attempts,
            earlier.epoch,
            max(0, failure.code),
            failure,
            made.final_url,
            fetched_at=made.fetched_at or now,
            mirrors_left=made.mirrors_left,
            usage_signals=made.usage_signals,
        )
    if isinstance(made, SuccessRow):
        if made.hashsum_original != earlier.hashsum:
            return made
        made = unchanged_row(made.rows, made.answer)
    made.file_epoch = earlier.epoch
    if made.status == NOT_MODIFIED:
        # Servers need not repeat what they were asked with.
        made.etag = made.etag or earlier.etag
        made.last_modified = made.last_modified or earlier.last_modified
    return made


def compared(
    made: SuccessRow, promises: pa.RecordBatch, body: bytes, hash_algorithm: str, *, keeps: bool
) -> list[ResultRow]:
    """Return a success for the rows to which the table promises this file or nothing. Each other one is an error of its
    own, or with ``keeps`` a success that says what is not as promised.

    Args:
        promises: of the rows of the batch.
        body: the file as it was served.
        hash_algorithm: that of ``made.hashsum_original``: nothing is hashed twice.
    """
    digests = {hash_algorithm: made.hashsum_original}

    def digest_of(algorithm: str) -> str:
        if algorithm not in digests:
            digests[algorithm] = make_digest(algorithm)(body)
        return digests[algorithm]

    told = [(row, objection(promises, row, made.original_bytes, digest_of)) for row in made.rows]
    right = tuple(row for row, text in told if not text)
    others: list[ResultRow] = [
        replace(made, rows=(row,), mismatch=text)
        if keeps
        else refused((row,), made.answer, ErrorKind.HASH_MISMATCH, text)
        for row, text in told
        if text
    ]
    return [replace(made, rows=right), *others] if right else others
