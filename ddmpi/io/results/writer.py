"""Rows in, parts out: the buffer between a rank's loop, which must not wait for a disk, and the output folder.

One ``ResultWriter`` per rank. The loop's thread hands over rows and requests; the writer's thread encodes and commits,
and answers with events. One queue each way is all they share, so a request is carried out after every row that was
handed over before it. Images are decoded, and large bodies hashed, by a few more threads; the writer's thread waits
for what they make of a row when its turn comes. The loop may ``look`` first: what is found out about a body decides
whether the row's next mirror is asked.

A small body is hashed where it is, in the loop: waking another thread for it, and getting the interpreter's lock back
from it, costs as much as the hash. For the same reason rows are handed over in lists of about 1 MiB.

What it promises:

- a ``PartReport`` is delivered after the part is durable, never before; and, where there is a publisher, published;
- ``buffered_bytes`` counts every body from ``success`` until its bytes are in a file, exactly;
- an exception in the thread is delivered as ``WriterFailed``, once, as the last event. No further part appears then,
  and rows handed over afterwards are dropped: no part holds them, hence the next run fetches them.

Successes and errors of a batch are two files, which open, grow and close each on its own.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from queue import SimpleQueue
from typing import Final

import pyarrow as pa

from ddmpi.core.protocol import PartReport, PicturesRepeated
from ddmpi.core.records import Answer, BatchRef, ErrorKind, Failure, Task
from ddmpi.core.stats.repeats import SeenPictures
from ddmpi.errors import DdmpiError, StorageError
from ddmpi.io.folder.placeholders import read_placeholders
from ddmpi.io.process import give_back_freed
from ddmpi.io.results.outcomes import EarlierFile, EarlierFiles
from ddmpi.io.results.parts import InputCache, Parts, ResultOptions
from ddmpi.io.results.promises import promises_of
from ddmpi.io.results.rows import (
    NOT_MODIFIED,
    CheckRow,
    ErrorRow,
    ResultRow,
    RowMaker,
    SuccessRow,
    checked,
    compared,
    error_row,
    refused,
    unchanged_row,
)
from ddmpi.io.store.uploads import Uploads

INLINE_BYTES: Final = 128 << 10
"""Larger bodies are hashed by another thread (sha256 of that many bytes takes 80 us)."""
HAND_OVER_BYTES: Final = 1 << 20
"""Of bodies that wait in the loop for the writer's thread: woken for each turn of the loop, that is for a file or two,
it would take the interpreter's lock from the loop for each."""
HAND_OVER_S: Final = 0.1
"""No row waits longer in the loop."""
GIVE_BACK_BYTES: Final = 128 << 20
"""Of bodies that were written, until freed memory is given back: 3 ms every half second at full speed."""


@dataclass(frozen=True)
class PartsClosed:
    """All parts that ``close_parts`` with this ticket was about are durable, and their events were delivered."""

    ticket: int


@dataclass(frozen=True)
class WriterFailed:
    """The thread gave up. ``error`` is a ``StorageError`` where the disk was the reason, else a bug's exception."""

    error: Exception


WriterEvent = PartReport | PartsClosed | PicturesRepeated | WriterFailed


Rows = list[ResultRow]
"""What one answer has come to: one of them, but where the table promises its rows several things."""


@dataclass(slots=True, eq=False)
class _Row:
    batch: BatchRef
    task: Task | None
    """What a success was fetched for; None for an error."""
    made: Rows | Future[Rows]
    body_bytes: int
    is_compared: bool = True
    """Whether it is known what of a success is not as promised: a small body is compared by the writer's thread, which
    has the promises at hand."""


@dataclass(frozen=True, slots=True)
class _Close:
    batch_ids: frozenset[int] | None
    ticket: int


class _Plain(Enum):
    LOOK_AT_UPLOADS = auto()
    STOP = auto()


_Request = _Row | _Close | _Plain


class ResultWriter:
    """The results of one rank; all methods are for the loop's thread and return at once, except ``stop``.

    Rows wait in the loop until ``hand_over`` finds that it is time, ``flush``, ``close_parts`` or ``stop``.

    Args:
        on_event: called from other threads when there is an event or memory was freed: wakes the loop.
        earlier: the files that rows have already, where somebody else reads them too.

    Raises:
        SetupError: image_size > 0 without Pillow or simplejpeg.
        ValueError: an unknown hash algorithm.
    """

    def __init__(
        self, options: ResultOptions, on_event: Callable[[], None], earlier: EarlierFiles | None = None
    ) -> None:
        parameters, expected = options.config.downloader_parameters, options.config.expected
        algorithm = parameters.hash_algorithm
        self._compare = partial(compared, hash_algorithm=algorithm, keeps=expected.marks)
        self._promises: InputCache[pa.RecordBatch] | None = None
        if expected.columns:
            read = partial(promises_of, expected, hash_algorithm=algorithm)
            self._promises = InputCache(options.reader, expected.columns, read)
        self._maker = RowMaker(algorithm, parameters.image_size)
        self._earlier = earlier or EarlierFiles(options.layout, options.reader)
        self._inline_bytes = 0 if parameters.image_size else INLINE_BYTES
        self.may_object = bool(parameters.image_size or (expected.columns and not expected.marks))
        """Whether ``look`` may find something wrong with a body."""
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="rows")
        self._on_event = on_event
        self._pending: list[_Request] = []
        self._flushed_bytes = 0  # of the accepted ones
        self._flush_at = math.inf
        self._requests: SimpleQueue[list[_Request]] = SimpleQueue()
        self._events: deque[WriterEvent] = deque()
        self._publisher = options.publisher
        # Without a publisher it has no threads, and events pass at once.
        self._uploads: Uploads[WriterEvent] = Uploads(self._emit, self._on_failed_upload)
        # One writer each, the loop and the thread: the difference needs no lock.
        self._accepted_bytes = 0
        self._released_bytes = 0
        self._give_back_at = GIVE_BACK_BYTES
        self._placeholders = {it.hashsum_original for it in read_placeholders(options.layout.placeholders)}
        self._parts = Parts(options, self._placeholders, self._publish, self._release)
        self._refuses_placeholders = options.config.placeholders == "error"
        self._promises_hashes = expected.hash_column is not None
        self._seen = SeenPictures(self._placeholders)
        # A daemon: an abort must not wait for a slow disk. An orderly end goes through stop().
        self._thread = threading.Thread(target=self._run, name="results", daemon=True)
        self._thread.start()

    @property
    def buffered_bytes(self) -> int:
        """Bytes of bodies that were handed over and are not in a file yet."""
        return self._accepted_bytes - self._released_bytes

    def look(self, batch: BatchRef, answer: Answer) -> Future[Rows]:
        """Return what the rows of the answer's task would come to, which ``success`` takes then; nothing is stored."""
        return self._pool.submit(self._make, batch, answer.task.rows, answer)

    def success(
        self, batch: BatchRef, rows: tuple[int, ...], answer: Answer, looked: Future[Rows] | None = None
    ) -> None:
        """Store these rows of ``batch`` (indexes in the batch), fetched in ``answer.task.attempts`` attempts. They
        still become errors (kind decode, too_large or hash_mismatch) if the body cannot be stored or is not the one
        that was promised, and checks if they have this file already: count by the events."""
        size_bytes = len(answer.body)
        self._accepted_bytes += size_bytes
        made: Rows | Future[Rows]
        is_compared = True
        if looked is not None:
            made = looked
        elif answer.status == NOT_MODIFIED:
            made = [unchanged_row(rows, answer)]
        elif size_bytes <= self._inline_bytes:
            made, is_compared = [self._maker.row(rows, answer)], False
        else:
            made = self._pool.submit(self._make, batch, rows, answer)
        self._pending.append(_Row(batch, answer.task, made, size_bytes, is_compared))

    def _make(self, batch: BatchRef, rows: tuple[int, ...], answer: Answer) -> Rows:
        return self._compared(batch, self._maker.row(rows, answer), answer.body)

    def _compared(self, batch: BatchRef, made: ResultRow, body: bytes) -> Rows:
        if self._promises is None or not isinstance(made, SuccessRow):
            return [made]
        return self._compare(made, self._promises.read(batch), body)

    def error(
        self,
        batch: BatchRef,
        rows: tuple[int, ...],
        failure: Failure,
        answer: Answer | None,
        attempts: int,
        *,
        usage_signals: str = "",
    ) -> None:
        """Store that these rows of ``batch`` are given up after ``attempts`` requests (0: the URL was refused);
        ``usage_signals`` is what is known of them without an answer."""
        self._pending.append(_Row(batch, None, [error_row(rows, failure, answer, attempts, usage_signals)], 0))

    def close_parts(self, ticket: int, batch_ids: Iterable[int] | None = None) -> None:
        """Commit the open parts of these batches (None: of all); ``PartsClosed`` with the ticket follows."""
        self._pending.append(_Close(None if batch_ids is None else frozenset(batch_ids), ticket))
        self.flush()

    def hand_over(self, now: float) -> float:
        """Hand over the rows so far if they are many or have waited; return when (s, as ``now``) to call again."""
        if not self._pending:
            return math.inf
        if self._flush_at == math.inf:
            self._flush_at = now + HAND_OVER_S
        if now >= self._flush_at or self._accepted_bytes - self._flushed_bytes >= HAND_OVER_BYTES:
            self.flush()
        return self._flush_at

    def flush(self) -> None:
        """Hand over the rows so far."""
        self._flush_at = math.inf
        self._flushed_bytes = self._accepted_bytes
        if self._pending:
            self._requests.put(self._pending)
            self._pending = []

    def events(self) -> list[WriterEvent]:
        """Return what happened since the last call, in order."""
        events = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def stop(self, timeout_s: float = 60.0) -> None:
        """Commit all parts and end the thread; blocks. The last events are there for ``events`` afterwards. Raises
        StorageError: the disk did not take the rest within ``timeout_s``."""
        self._pending.append(_Plain.STOP)
        self.flush()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._on_event = lambda: None  # whoever is told of events goes now
            raise StorageError(f"results were not written within {timeout_s:.0f} s: {self._parts!r}")

    def _run(self) -> None:
        failed = stopped = False
        while not stopped:
            requests = deque(self._requests.get())
            while requests:
                # Not in a list that is walked through: it would keep bodies that have been written.
                request = requests.popleft()
                stopped = request is _Plain.STOP
                if not failed:
                    failed = not self._try(request)
                elif isinstance(request, _Row):
                    # ``buffered_bytes`` stays true after a failure, until the loop has seen it and stops.
                    self._release(request.body_bytes)
        self._pool.shutdown(wait=False)
        self._uploads.close()

    def _try(self, request: _Request) -> bool:
        try:
            self._handle(request)
        except Exception as error:  # noqa: BLE001  # not swallowed: it crosses to the loop, which raises it
            self._parts.discard_all()
            self._emit(WriterFailed(_as_storage_error(error)))
            return False
        return True

    def _handle(self, request: _Request) -> None:
        self._uploads.check()
        match request:
            case _Row():
                self._add(request)
            case _Close(batch_ids, ticket):
                self._tell_of_pictures()
                self._parts.close(batch_ids)
                self._uploads.add(PartsClosed(ticket))
            case _Plain.LOOK_AT_UPLOADS:
                return
            case _Plain.STOP:
                self._tell_of_pictures()
                self._parts.close(None)
                self._uploads.finish()
            case _:
                raise TypeError(f"unknown request {request!r}")

    def _add(self, request: _Row) -> None:
        made = request.made.result() if isinstance(request.made, Future) else request.made
        if not request.is_compared and isinstance(made[0], SuccessRow):
            made = self._compared(request.batch, made[0], made[0].image)
        if request.task is not None and isinstance(made[0], SuccessRow):
            made = self._without_placeholders(request, made, made[0])
        made = self._checked(request, made)
        kept_bytes = sum(len(each.image) for each in made if isinstance(each, SuccessRow))
        if kept_bytes != request.body_bytes:
            # From here on the parts count what they hold, which is not what was served.
            self._release(request.body_bytes - kept_bytes)
        for each in made:
            if request.task is not None and isinstance(each, ErrorRow | CheckRow) and each.failure is not None:
                each.failure = request.task.final(each.failure)
            self._parts.add(request.batch, each)

    def _checked(self, request: _Row, made: Rows) -> Rows:
        """Return what the rows come to if they have a file already: all rows of a URL have, or none."""
        files = self._earlier.of(request.batch)
        earlier = None if files is None else files.file(made[0].rows[0])
        if earlier is not None:
            return [checked(self._without_picture(each, earlier), earlier, time.time()) for each in made]
        if isinstance(made[0], CheckRow):
            raise StorageError(f"batch {request.batch.batch_id} lacks a file that its server was asked about")
        return made

    def _without_picture(self, made: ResultRow, earlier: EarlierFile) -> ResultRow:
        """Return an error in the place of a placeholder: no other file makes way for one."""
        if not isinstance(made, SuccessRow) or made.hashsum_original == earlier.hashsum:
            return made
        if made.hashsum_original not in self._placeholders:
            return made
        return refused(made.rows, made.answer, ErrorKind.PLACEHOLDER, _placeholder_text(made))

    def _without_placeholders(self, request: _Row, made: Rows, first: SuccessRow) -> Rows:
        """Count the file, and return what its rows come to: as they are, or errors where it is a placeholder."""
        task, digest = first.answer.task, first.hashsum_original
        is_counted = not self._is_promised(request.batch, first.rows[0])
        if is_counted and self._seen.add(
            task.asked or task.url, digest, first.original_bytes, first.image, time.monotonic()
        ):
            self._tell_of_pictures()
        if not self._refuses_placeholders or digest not in self._placeholders:
            return made
        text = _placeholder_text(first)
        return [
            refused(each.rows, each.answer, ErrorKind.PLACEHOLDER, text) if isinstance(each, SuccessRow) else each
            for each in made
        ]

    def _is_promised(self, batch: BatchRef, row: int) -> bool:
        """Return whether the table has the hash of the row's file: such a file is what is wanted."""
        if not self._promises_hashes or self._promises is None:
            return False
        return bool(self._promises.read(batch).column("digest")[row].is_valid)

    def _tell_of_pictures(self) -> None:
        pictures = self._seen.take(time.monotonic())
        if pictures:
            self._emit(PicturesRepeated(pictures))

    def _publish(self, event: PartReport) -> None:
        publisher = self._publisher
        self._uploads.add(event, None if publisher is None else partial(publisher.publish, event.path, event.bytes))

    def _on_failed_upload(self) -> None:
        """Wake the writer's thread, which may have nothing to do and would not see it; called from another one."""
        self._requests.put([_Plain.LOOK_AT_UPLOADS])

    def _emit(self, event: WriterEvent) -> None:
        self._events.append(event)
        self._on_event()

    def _release(self, size_bytes: int) -> None:
        self._released_bytes += size_bytes
        if self._released_bytes >= self._give_back_at:
            self._give_back_at = self._released_bytes + GIVE_BACK_BYTES
            give_back_freed()
        self._on_event()


def _placeholder_text(row: SuccessRow) -> str:
    return f"a placeholder: the server has these {row.original_bytes} bytes under many URLs"


def _as_storage_error(error: Exception) -> Exception:
    """Turn what the disk or Parquet reports into a StorageError; everything else is a bug and stays as it is."""
    if isinstance(error, DdmpiError):
        return error
    if isinstance(error, OSError | pa.ArrowException):
        storage_error = StorageError(f"cannot write results: {error}")
        storage_error.__cause__ = error
        return storage_error
    return error
