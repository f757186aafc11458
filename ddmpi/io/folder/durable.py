"""The commit points: how a file gets its final name, whole or not at all.

What is assumed of the file system (ext4, XFS, Btrfs, Lustre, GPFS and NFS hold to it):

- ``rename`` within one file system is atomic: the name shows the old file or the new one, never a mixture or nothing.
  The output folder is one file system; a rename across two fails with EXDEV and is reported.
- After ``fsync`` of a file its bytes survive a power cut; after ``fsync`` of a folder so do the names in it, and the
  names of the folders above it that were made before (journals keep their order, NFS servers write through).
- ``fsync`` may lie afterwards: once it has failed, the kernel marks the pages clean, and a second call succeeds
  although the bytes are gone. Hence a failed one is final for its file: the file is thrown away, never synced again.
- The errors of earlier writes are reported to the descriptor that wrote: that one is synced, not a second one.
- On NFS a rename whose reply was lost is sent again and answered with ENOENT although it worked: both names are
  looked at before that counts as a failure.

Nothing is assumed of locks, of the order of two writes without an fsync between them, or of file time stamps.

Everything is written below ``Layout.temporary`` and renamed out of it: what a killed run has left unfinished is there,
and nowhere else. ``fence`` takes it away from the run that follows.

All system calls go through the ``os_`` functions, so that tests can make the n-th call fail.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ddmpi.io.folder.disk_errors import named_disk_errors, storage_error

_BUFFER_BYTES: Final = 256 << 10
"""Parquet writers hand over page headers and small columns one by one: a hundred calls for a part of a few rows."""
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def os_open(path: Path, flags: int) -> int:
    return os.open(path, flags, 0o666)


def os_write(fd: int, data: memoryview) -> int:
    return os.write(fd, data)


def os_fsync(fd: int) -> None:
    os.fsync(fd)


def os_close(fd: int) -> None:
    os.close(fd)


def os_rename(source: Path, target: Path) -> None:
    os.rename(source, target)  # noqa: PTH104  # Path.rename hides nothing, but tests replace this one call


def os_mkdir(path: Path) -> None:
    os.mkdir(path)  # noqa: PTH102  # as above


def os_unlink(path: Path) -> None:
    os.unlink(path)  # noqa: PTH108  # as above


class NewFile(io.RawIOBase):
    """A file under construction: a writable stream whose ``commit`` gives it the final name.

    Only ``commit`` makes anything visible. ``discard`` removes the file; after a failed ``commit`` it has been removed.
    Raises ``OSError`` from ``write`` (Arrow passes it through), ``StorageError`` from the constructor and ``commit``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._fd: int | None = None
        self._position = 0
        self._buffer = bytearray()
        with named_disk_errors("cannot create", path):
            self._fd = os_open(path, _NEW_FILE)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        """Return bytes that were handed over; the last of them may still be in memory."""
        return self._position

    def write(self, data: object, /) -> int:
        """Take all of ``data``, a bytes-like object: Parquet writers do not look at short counts."""
        if self._fd is None:
            raise ValueError(f"{self.path} is closed")
        with memoryview(data) as view, view.cast("B") as taken:  # type: ignore[arg-type]
            if len(self._buffer) + taken.nbytes > _BUFFER_BYTES:
                self._write_buffer(self._fd)
            if taken.nbytes > _BUFFER_BYTES:
                _write_all(self._fd, taken)
            else:
                self._buffer += taken
            self._position += taken.nbytes
            return taken.nbytes

    def commit(self, final: Path) -> None:
        """Write the rest, fsync, close, rename to ``final``, fsync its folder; missing folders are made, durably."""
        fd, self._fd = self._fd, None
        if fd is None:
            raise ValueError(f"{self.path} is closed")
        try:
            try:
                self._write_buffer(fd)
                os_fsync(fd)
                inode = os.fstat(fd).st_ino
            finally:
                os_close(fd)
            _rename_durably(self.path, final, inode)
        except OSError as error:
            self.discard()
            raise storage_error("cannot commit", final, error) from error
        finally:
            self.close()

    def discard(self) -> None:
        """Close and remove; a file that cannot be removed stays for ``open_epoch``, since nothing looks at it."""
        fd, self._fd = self._fd, None
        # The bytes are not wanted, and the caller has the error that led here: a second one would hide it.
        if fd is not None:
            with contextlib.suppress(OSError):
                os_close(fd)
        with contextlib.suppress(OSError):
            os_unlink(self.path)
        self.close()

    def _write_buffer(self, fd: int) -> None:
        with memoryview(self._buffer) as rest:
            _write_all(fd, rest)
        self._buffer.clear()


def write_atomically(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Replace ``path`` by ``data``, durably; a reader sees the old bytes or the new ones.

    Args:
        temporary: where it is written first (``Layout.temporary``), made if missing; None: beside ``path``, for files
            that may be on another file system, or that no run has to be fenced off from.

    Raises:
        StorageError: with path and reason; ``path`` is then as it was, or (where only the last fsync failed) new.
    """
    make_folders(path.parent if temporary is None else temporary)
    # A name of its own: an orphan and its successor must never write into one file.
    new = NewFile(_beside(path) if temporary is None else temporary / f"{path.name}.{uuid.uuid4().hex}")
    try:
        new.write(data)
    except OSError as error:
        new.discard()
        raise storage_error("cannot write", path, error) from error
    new.commit(path)


def write_whole(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Replace ``path`` by ``data`` without waiting for the disk: for what may be lost.

    A reader sees the old bytes or the new ones; after a power cut it may find fewer of them, or no file. Arguments and
    what is raised are as for ``write_atomically``.
    """
    with named_disk_errors("cannot write", path):
        new = _beside(path)
        if temporary is not None:
            _make_folders(temporary, is_synced=False)
            new = temporary / f"{path.name}.{uuid.uuid4().hex}"
        _make_folders(path.parent, is_synced=False)
        fd = os_open(new, _NEW_FILE)
        try:
            try:
                _write_all(fd, memoryview(data))
                inode = os.fstat(fd).st_ino
            finally:
                os_close(fd)
            _rename(new, path, inode)
        except OSError:
            with contextlib.suppress(OSError):  # the caller has the error that led here
                os_unlink(new)
            raise


def csv_bytes(names: Iterable[str], rows: Iterable[Iterable[object]]) -> bytes:
    """Return a table as CSV with a header, for ``write_atomically``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()


def _beside(path: Path) -> Path:
    """Return a name beside ``path``, one and the same each time, so that a killed run's file does not stay."""
    temporary = path.with_name(f".{path.name}.tmp")
    with named_disk_errors("cannot remove", temporary), contextlib.suppress(FileNotFoundError):
        os_unlink(temporary)
    return temporary


def _write_all(fd: int, data: memoryview) -> None:
    done = 0
    while done < data.nbytes:
        done += os_write(fd, data[done:])


def publish(tmp: Path, final: Path) -> None:
    """Give a file or folder that other code wrote and closed its final name: fsync, rename, fsync the folder.

    A folder's files must have been synced before. ``NewFile.commit`` is stricter: it syncs the writing descriptor.
    Raises StorageError: with path and reason; ``tmp`` may still exist and must not be published again.
    """
    with named_disk_errors("cannot commit", final):
        fsync_path(tmp)
        _rename_durably(tmp, final, tmp.stat().st_ino)


def make_folders(folder: Path) -> None:
    """Make ``folder`` and its missing ancestors; each new name is synced into its parent. Raises StorageError: with
    path and reason."""
    with named_disk_errors("cannot create folder", folder):
        _make_folders(folder)


def fsync_path(path: Path) -> None:
    """Call fsync on a closed file or a folder; ``OSError`` as it comes."""
    fd = os_open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os_fsync(fd)
    except OSError as error:
        # Some network file systems have no fsync for folders and say so; their servers write names through.
        if error.errno not in {errno.EINVAL, errno.EBADF} or not path.is_dir():
            raise
    finally:
        os_close(fd)


def _rename_durably(source: Path, target: Path, inode: int) -> None:
    _make_folders(target.parent)
    _rename(source, target, inode)
    fsync_path(target.parent)


def _rename(source: Path, target: Path, inode: int) -> None:
    try:
        os_rename(source, target)
    except FileNotFoundError:
        # Only the inode tells the new file from one that the name had before.
        if not target.exists() or target.stat().st_ino != inode:
            raise


def _make_folders(folder: Path, *, is_synced: bool = True) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        try:
            os_mkdir(new)
        except FileExistsError:
            if not new.is_dir():
                raise
        if is_synced:  # also when another rank was first: it may not have come to its fsync yet
            fsync_path(new.parent)
