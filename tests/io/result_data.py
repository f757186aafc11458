"""Batches, answers and a reader for tests of what is written and verified."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import pyarrow as pa
from PIL import Image

from ddmpi.config.config import parse
from ddmpi.core.protocol import PartReport
from ddmpi.core.records import Answer, BatchRef, ErrorKind, Failure, Task
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import PART_KINDS, Layout
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.results.parts import ResultOptions
from ddmpi.io.results.writer import PartsClosed, ResultWriter, WriterEvent, WriterFailed

FETCHED_AT = 1_700_000_000.25


def make_batch(batch_id: int = 0, rows: int = 100, server_name: str = "img.example.org:8080") -> BatchRef:
    return BatchRef(batch_id, server_name, batch_id, "0.parquet", 0, 0, rows)


def first_row_number(batch: BatchRef) -> int:
    return batch.batch_id * 100_000


def row_numbers(batch: BatchRef) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(first_row_number(batch), first_row_number(batch) + batch.rows, dtype=np.int64)


@dataclass
class Reader:
    """Makes up input rows; every third has a license, every third an empty one."""

    extra: dict[str, pa.DataType] = field(default_factory=dict)
    reads: list[int] = field(default_factory=list)
    error: Exception | None = None

    def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table:
        self.reads.append(batch.batch_id)
        if self.error is not None:
            raise self.error
        numbers = row_numbers(batch).tolist()
        texts = pa.string()
        data: dict[str, pa.Array[pa.Scalar[pa.DataType]] | list[object]] = {
            "row_number": pa.array(numbers, pa.int64()),
            "server_name": pa.array([batch.server_name] * batch.rows, texts),
            "uuid": pa.array([f"uuid-{n}" for n in numbers], texts),
            "source_id": pa.array([None if n % 2 else f"source-{n}" for n in numbers], texts),
            "identifier": pa.array([f"http://{batch.server_name}/{n}" for n in numbers], texts),
            "license": pa.array(["CC0" if n % 3 == 0 else "" if n % 3 == 1 else None for n in numbers], texts),
            "source": pa.array(["museum"] * batch.rows, texts),
            "title": pa.array(["a title"] * batch.rows, texts),
            "reject": pa.nulls(batch.rows, texts),
        }
        table = pa.table(data)
        for name, data_type in self.extra.items():
            table = table.append_column(name, pa.array(numbers).cast(data_type))
        return table if columns is None else table.select(list(columns))


def make_answer(row: int, body: bytes, attempt: int = 1) -> Answer:
    return Answer(
        Task(0, row, f"http://h/{row}", "h", attempt=attempt),
        status=200,
        body=body,
        content_type="image/jpeg",
        etag=f'"{row}"',
        final_url=f"http://h/{row}",
        ip="127.0.0.1",
        ttfb_s=0.002,
        total_s=0.003,
        fetched_at=FETCHED_AT,
    )


def make_failure(kind: ErrorKind = ErrorKind.HTTP_STATUS, code: int = 404) -> Failure:
    return Failure(kind, code, "not found")


def make_image(width: int, height: int, image_format: str = "JPEG", mode: str = "RGB", orientation: int = 1) -> bytes:
    """A left-to-right gradient whose upper left quarter is black: rotations and mirrorings are seen in it."""
    across = np.tile(np.linspace(60, 255, width, dtype=np.uint8), (height, 1))
    across[: height // 2, : width // 2] = 0
    image = Image.fromarray(across).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, image_format, exif=exif)
    return stream.getvalue()


def open_writer(
    layout: Layout,
    reader: Reader | None = None,
    *,
    epoch: int = 1,
    rank: int = 0,
    hash_algorithm: str = "sha256",
    image_size: int = 0,
    keep_columns: Sequence[str] = (),
    part_bytes: int = 1 << 30,
    buffer_bytes: int = 1 << 30,
    duplicates: str = "copy",
    on_event: Callable[[], None] = lambda: None,
) -> ResultWriter:
    open_epoch(layout, epoch)
    config = parse({"path_to_input": "urls.txt", "path_to_output_folder": str(layout.root)}, "test")
    # Not parsed: a config does not take every value that is tried here.
    parameters = config.downloader_parameters.model_copy(
        update={
            "hash_algorithm": hash_algorithm,
            "image_size": image_size,
            "part_bytes": part_bytes,
            "memory_budget_bytes": buffer_bytes,
        }
    )
    config = config.model_copy(
        update={"downloader_parameters": parameters, "keep_columns": tuple(keep_columns), "duplicates": duplicates}
    )
    return ResultWriter(ResultOptions(config, layout, reader or Reader(), epoch, rank, threads=2), on_event)


def committed(events: Sequence[WriterEvent]) -> list[PartReport]:
    """The parts in ``events``, which must hold no failure."""
    assert not [event for event in events if isinstance(event, WriterFailed)]
    return [event for event in events if isinstance(event, PartReport)]


def closed(events: Sequence[WriterEvent]) -> list[int]:
    return [event.ticket for event in events if isinstance(event, PartsClosed)]


def write_outcomes(
    layout: Layout,
    batch: BatchRef,
    *,
    successes: Sequence[int] = (),
    errors: Sequence[int] = (),
    epoch: int = 1,
    rank: int = 0,
) -> list[PartReport]:
    """One run that gives these rows of ``batch`` their outcomes."""
    writer = open_writer(layout, epoch=epoch, rank=rank)
    for row in successes:
        writer.success(batch, (row,), make_answer(row, b"body of row %d " % row * 20))
    for row in errors:
        writer.error(batch, (row,), make_failure(), make_answer(row, b""), attempts=3)
    writer.stop()
    return committed(writer.events())


REFRESHED_AT = FETCHED_AT + 1_000_000


def write_refresh(
    layout: Layout,
    batch: BatchRef,
    *,
    unchanged: Sequence[int] = (),
    same_bytes: Sequence[int] = (),
    changed: Sequence[int] = (),
    gone: Sequence[int] = (),
    epoch: int = 2,
    at: float = REFRESHED_AT,
) -> list[PartReport]:
    """One run that finds this of the files of ``batch``: unchanged by a 304, or as they send the same bytes again."""
    batch = refreshed(layout, batch, at)
    writer = open_writer(layout, epoch=epoch)
    for row in unchanged:
        writer.success(batch, (row,), replace(make_answer(row, b""), status=304, etag="", fetched_at=at))
    for row in same_bytes:
        writer.success(batch, (row,), replace(make_answer(row, b"body of row %d " % row * 20), fetched_at=at))
    for row in changed:
        body = b"body of row %d in run %d " % (row, epoch) * 20
        writer.success(batch, (row,), replace(make_answer(row, body), etag=f'"{row} {epoch}"', fetched_at=at))
    for row in gone:
        answer = replace(make_answer(row, b""), fetched_at=at)
        writer.error(batch, (row,), make_failure(), answer, attempts=3)
    writer.stop()
    return committed(writer.events())


def refreshed(layout: Layout, batch: BatchRef, before: float = REFRESHED_AT) -> BatchRef:
    """The batch as a rank gets it that is to ask for its files again."""
    return msgspec.structs.replace(batch, parts=parts_of(layout, batch), stale_before=before)


def touch_part(layout: Layout, name: str, server_name: str = "s", partition_id: int = 0) -> None:
    """A part by name only, without content."""
    kind = next((kind for kind in PART_KINDS if name.startswith(kind)), PART_KINDS[0])
    folder = layout.parts_folder(kind, server_name, partition_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
