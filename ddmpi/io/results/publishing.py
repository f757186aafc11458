"""Parts in an object store: in which order a part gets there, and what of it stays on disk.

The commit point is the disk's, as always: a rename in the output folder, which a later run can fence off (``fence``).
Publishing comes after it, and repeats safely:

    part durable on disk -> object whole in the store -> the part's images leave the disk -> rank 0 counts the part

A kill between two of these costs one more upload of the same bytes under the same name: ``settle`` does it before a
run counts anything. So at every moment each object of the store is a part of the folder, and at the end of a run each
part of the folder is an object. The store is never asked what is done.

What stays on disk of a part with images is the same table without the column ``image``, a *thin* part under the part's
own name: restarts and the accounting read it like any other. Its metadata say how large the object is.

``publication.json`` in the output folder says where its parts go, and an object beside them says whose they are: two
jobs never share a prefix.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.records import UNDECODABLE
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder.disk_errors import read_bytes
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.folder.layout import PART_KINDS, Layout, part_of
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.store.object_store import place_of
from ddmpi.io.store.part_store import PartStore, part_store

IMAGE: Final = "image"
_OBJECT_BYTES: Final = b"ddmpi.object_bytes"
_SETTLING_THREADS: Final = 8


class Publication(msgspec.Struct, frozen=True):
    to: str
    owner: str
    """Made up once; the store's object has the same."""


@dataclass(frozen=True)
class Publisher:
    """Brings parts to the store. One per rank; ``publish`` may be called from several threads."""

    layout: Layout
    store: PartStore
    epoch: int

    def publish(self, part: str, size_bytes: int) -> None:
        """Upload a part that is durable on disk (path relative to the output folder), then take its images off it.
        Raises StorageError: the store or the disk fails; the part on disk is as it was."""
        path = self.layout.root / part
        try:
            with path.open("rb") as file:
                # The descriptor's size, not the name's: a part that a later run has made thin must not be uploaded.
                if os.fstat(file.fileno()).st_size != size_bytes:
                    raise StorageError(f"{path} is not the part that was written: another run has taken over")
                self.store.put(part, file, size_bytes)
            if part_of(part).kind == "successes":
                self._make_thin(path, size_bytes)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"cannot publish {path}: {error}") from error

    def _make_thin(self, path: Path, size_bytes: int) -> None:
        with pq.ParquetFile(path) as full:
            fields = [field for field in full.schema_arrow if field.name != IMAGE]
            schema = pa.schema(fields, {_OBJECT_BYTES: str(size_bytes).encode()})
            thin = PartFile(self.layout.epoch_temporary(self.epoch) / path.name, schema)
            try:
                for group in range(full.num_row_groups):
                    rows = full.read_row_group(group, columns=schema.names)
                    thin.write(rows.replace_schema_metadata(schema.metadata))
                thin.commit(path)
            except BaseException:
                thin.discard()
                raise

    def settle(self, parts: Iterable[str]) -> None:
        """Publish those of these parts that a killed run has not come to publish. Raises StorageError: the store or the
        disk fails."""
        with ThreadPoolExecutor(_SETTLING_THREADS, thread_name_prefix="settling") as pool:
            for _ in pool.map(self._settle, list(parts)):
                pass

    def _settle(self, part: str) -> None:
        path = self.layout.root / part
        size_bytes = object_bytes(path)
        if part_of(part).kind != "successes":
            if self.store.size(part) != size_bytes:
                self.publish(part, size_bytes)
        elif not is_thin(path):
            self.publish(part, size_bytes)

    def clear(self) -> None:
        """Delete all parts from the store. Raises StorageError: the store fails."""
        for kind in PART_KINDS:
            self.store.clear(self.layout.relative(self.layout.parts_tree(kind)))


def make_publisher(layout: Layout, to: str | None, epoch: int) -> Publisher | None:
    """Return what brings parts to a store, if there is one. Raises SetupError: the URI is wrong, or the store does not
    answer."""
    return None if to is None else Publisher(layout, part_store(to), epoch)


def claim(layout: Layout, to: str | None) -> None:
    """Make the store's prefix this output folder's own, or find that it is.

    Raises:
        OutputError: the folder and the store do not belong together, or the store does not let us in.
        SetupError: the URI is wrong.
    """
    try:
        _claim(layout, to)
    except StorageError as error:
        raise OutputError(str(error)) from error


def _claim(layout: Layout, to: str | None) -> None:
    known = read_publication(layout)
    if to is None:
        if known is not None:
            raise OutputError(f"{layout.root} has its results in {place_of(known.to)}: set publish.to to it again")
        return
    if known is None and any(layout.parts_tree(kind).exists() for kind in PART_KINDS):
        raise OutputError(f"{layout.root} has results that are not in {place_of(to)}: publish.to needs a new folder")
    if known is not None and place_of(known.to) != place_of(to):
        raise OutputError(
            f"{layout.root} publishes its results to {place_of(known.to)}, not to {place_of(to)}; "
            "change publish.to back, or use another path_to_output_folder"
        )
    record = Publication(to, uuid.uuid4().hex if known is None else known.owner)
    store = part_store(to)
    owner = store.owner()
    if owner is None:
        trees = [layout.relative(layout.parts_tree(kind)) for kind in PART_KINDS]
        if known is None and any(store.sizes(tree) for tree in trees):
            raise OutputError(f"{place_of(to)} has results of another job; publish.to needs a prefix of its own")
    elif owner != record.owner:
        raise OutputError(f"{place_of(to)} belongs to another output folder; publish.to needs a prefix of its own")
    if record != known:
        write_atomically(layout.publication, msgspec.json.encode(record), layout.temporary)
    if owner is None:
        store.set_owner(record.owner)


def read_publication(layout: Layout) -> Publication | None:
    """Return where the folder's parts go; None where they stay.

    Raises:
        OutputError: the file is damaged.
        StorageError: it cannot be read.
    """
    data = read_bytes(layout.publication)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Publication)
    except UNDECODABLE as error:
        raise OutputError(f"{layout.publication} is damaged: {error}") from error


def store_of(layout: Layout) -> PartStore | None:
    """Return the store that has the folder's parts, if there is one; raises as ``read_publication``, and SetupError."""
    publication = read_publication(layout)
    return None if publication is None else part_store(publication.to)


def with_images(layout: Layout, part: str) -> Path | pa.NativeFile:
    """Return a part where it has all of its columns: on disk, or in the store.

    Raises:
        OSError, pa.ArrowException: the part on disk cannot be read.
        StorageError: the store's cannot.
    """
    path = layout.root / part
    store = store_of(layout)
    return path if store is None or not is_thin(path) else store.open(part)


def is_thin(path: Path) -> bool:
    """Return whether a part's images are in the store alone; raises what Arrow raises."""
    return _OBJECT_BYTES in (pq.read_schema(path).metadata or {})


def has_images(path: Path) -> bool:
    """Return whether a part on disk can be read and has its images there."""
    try:
        return not is_thin(path)
    except (OSError, pa.ArrowException):
        return False


def object_bytes(path: Path) -> int:
    """Return the size of the object that a part on disk has in the store, or is to have; raises what Arrow raises."""
    said = (pq.read_schema(path).metadata or {}).get(_OBJECT_BYTES)
    return path.stat().st_size if said is None else int(said)
