"""An object store as the place where parts end up: what is assumed of it, and how a part gets there whole.

What is assumed (S3 since December 2020, Google Cloud Storage, Ceph, MinIO and SeaweedFS hold to it):

- an object is seen when its upload is complete, and then it is whole: a killed upload leaves nothing under the name;
- after that every reader sees it at once, also in listings (strong consistency);
- an upload under a name that exists replaces the object, atomically;
- what is acknowledged is durable.

What is missing there and a run needs (rename, exclusive creation, fsync order) is never asked for: see ``publishing``.
Not assumed: that two runs cannot write at once (names of parts differ by run and rank, and equal names mean equal
bytes), and that an aborted upload frees its pieces (a lifecycle rule of the bucket does).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any, Final, cast

import pyarrow as pa
import pyarrow.fs

from ddmpi.errors import StorageError
from ddmpi.io.store.object_store import STORE_ERRORS, open_store, place_of, store_reason

_CHUNK_BYTES: Final = 4 << 20
_OWNER_NAME: Final = "ddmpi-publication.json"
_OWNER_MAX_BYTES: Final = 4_096


class PartStore:
    """One prefix of a store. Names are relative to it, with ``/``. May be used from several threads. All methods raise
    StorageError, with the object and the store's reason."""

    def __init__(self, files: pyarrow.fs.FileSystem, base: str, place: str) -> None:
        self.files = files
        """For readers, too; ``path`` gives the names in it."""
        self._base = base.rstrip("/")
        self.place = place
        """The URI without options, for messages."""

    def path(self, name: str) -> str:
        """Return ``name`` as the file system calls it."""
        return f"{self._base}/{name}"

    def put(self, name: str, file: IO[bytes], size_bytes: int) -> None:
        """Upload the rest of ``file``; returns when the object is there with all of its bytes."""
        with self._named("cannot upload", name):
            self._upload(name, file, size_bytes)
            found = self.size(name)
            if found != size_bytes:
                raise OSError(f"the object has {found} of {size_bytes} bytes")

    def _upload(self, name: str, file: IO[bytes], size_bytes: int) -> None:
        stream = self.files.open_output_stream(self.path(name))
        try:
            shutil.copyfileobj(file, cast("IO[bytes]", stream), _CHUNK_BYTES)
        except BaseException:
            self._give_up(name, stream, size_bytes)
            raise
        stream.close()

    def _give_up(self, name: str, stream: pa.NativeFile, size_bytes: int) -> None:
        """Remove what came of a failed upload. Arrow has no way to abort one: it completes what it closes or collects,
        so that half a part may appear. A part that is whole comes from an earlier upload, and is as good."""
        with contextlib.suppress(*STORE_ERRORS):
            stream.close()
        with contextlib.suppress(*STORE_ERRORS, StorageError):
            if self.size(name) not in {None, size_bytes}:
                self.files.delete_file(self.path(name))

    def open(self, name: str) -> pa.NativeFile:
        """Open the object for reading at any place."""
        with self._named("cannot read", name):
            return self.files.open_input_file(self.path(name))

    def size(self, name: str) -> int | None:
        """Return bytes of an object; None where there is none."""
        with self._named("cannot ask for", name):
            found = self.files.get_file_info(self.path(name))
            return int(found.size) if found.type is pyarrow.fs.FileType.File else None

    def sizes(self, tree: str) -> dict[str, int]:
        """Return all objects below ``tree`` and their bytes."""
        with self._named("cannot list", tree):
            selector = pyarrow.fs.FileSelector(self.path(tree), recursive=True, allow_not_found=True)
            found: list[Any] = self.files.get_file_info(selector)
            files = [info for info in found if info.type is pyarrow.fs.FileType.File]
            return {info.path[len(self._base) + 1 :]: int(info.size) for info in files}

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        if self.size(name) is not None:
            with self._named("cannot delete", name):
                self.files.delete_file(self.path(name))

    def clear(self, tree: str) -> None:
        """Delete all objects below ``tree``."""
        if self.sizes(tree):
            with self._named("cannot delete", tree):
                self.files.delete_dir(self.path(tree))

    def owner(self) -> str | None:
        """Return whose the prefix is; None where no run has said so."""
        if self.size(_OWNER_NAME) is None:
            return None
        with self._named("cannot read", _OWNER_NAME), self.files.open_input_stream(self.path(_OWNER_NAME)) as stream:
            return stream.read(_OWNER_MAX_BYTES).decode("utf-8", "replace")

    def set_owner(self, owner: str) -> None:
        """Say whose it is."""
        with self._named("cannot write", _OWNER_NAME), self.files.open_output_stream(self.path(_OWNER_NAME)) as stream:
            stream.write(owner.encode())

    @contextlib.contextmanager
    def _named(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            raise StorageError(f"{what} {self.place}/{name}: {store_reason(error)}") from error


@lru_cache(maxsize=8)
def part_store(uri: str) -> PartStore:
    """Return the store behind a URI; at each call the one object, with its connections. Raises SetupError: the URI is
    wrong, or the store does not answer."""
    files, base = open_store(uri)
    return PartStore(files, base, place_of(uri))
