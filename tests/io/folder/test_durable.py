"""The commit points: whole or not at all, whatever call fails, and in an order that a power cut cannot undo."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ddmpi.errors import StorageError
from ddmpi.io.folder import durable
from ddmpi.io.folder.durable import NewFile, make_folders, publish, write_atomically, write_whole
from tests.whole.faults import Faults

MORE_CALLS_THAN_ANY_COMMIT = 40


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "target")


def test_write_atomically_makes_folders_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "target"
    write_atomically(target, b"old", tmp_path / "tmp")
    write_atomically(target, b"new", tmp_path / "tmp")
    assert target.read_bytes() == b"new"
    assert leftovers(tmp_path) == []


def test_a_file_that_is_written_beside_its_place_leaves_nothing_there(tmp_path: Path) -> None:
    target = tmp_path / "a" / "target"
    write_atomically(target, b"old")
    (tmp_path / "a" / ".target.tmp").write_bytes(b"half of what a killed run wr")
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert leftovers(tmp_path) == []


def test_the_order_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    faults = Faults(monkeypatch)
    new = NewFile(tmp_path / "tmp" / "part")
    new.write(b"12345")
    new.commit(tmp_path / "a" / "b" / "target")
    assert faults.names() == [
        *("os_open", "os_write", "os_fsync", "os_close"),
        *("os_mkdir", "os_open", "os_fsync", "os_close"),  # a, made durable in its parent
        *("os_mkdir", "os_open", "os_fsync", "os_close"),  # b
        "os_rename",
        *("os_open", "os_fsync", "os_close"),  # the new name
    ]
    opened = [path for name, path in faults.calls if name == "os_open"]
    assert opened[1:] == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]


@pytest.mark.parametrize("lasting", [False, True], ids=["one call fails", "the disk fails for good"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize(("write", "calls"), [(write_atomically, 7), (write_whole, 5)])
def test_a_fault_at_any_call_leaves_the_old_or_the_new_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    lasting: bool,
    write: Callable[[Path, bytes, Path], None],
    calls: int,
) -> None:
    failed = 0
    for fail_at in range(1, MORE_CALLS_THAN_ANY_COMMIT):
        folder = tmp_path / str(fail_at)
        target = folder / "target"
        folder.mkdir()
        target.write_bytes(b"old")
        with monkeypatch.context() as patch:
            faults = Faults(patch, fail_at, code, lasting=lasting)
            try:
                write(target, b"new", folder / "tmp")
            except StorageError as error:
                failed += 1
                assert str(folder) in str(error)
                assert errno.errorcode[code] in str(error)
                assert target.read_bytes() in {b"old", b"new"}
            else:
                assert target.read_bytes() == b"new"
                if not faults.fired:
                    break
        if not lasting:
            assert leftovers(folder) == []
        write(target, b"later", folder / "tmp")  # whatever was left does not stand in the way
        assert target.read_bytes() == b"later"
    else:
        pytest.fail("the commit never came to an end")
    assert failed >= calls


def test_what_may_be_lost_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(monkeypatch)
    target = tmp_path / "a" / "b" / "target"
    write_whole(target, b"old", tmp_path / "tmp")
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert leftovers(tmp_path) == []
    assert "os_fsync" not in faults.names()


def test_a_failed_fsync_is_final_for_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = NewFile(tmp_path / "part")
    new.write(b"bytes that the kernel lost")
    faults = Faults(monkeypatch, fail_at=2, code=errno.EIO)
    with pytest.raises(StorageError, match="EIO"):
        new.commit(tmp_path / "target")
    assert faults.names()[:2] == ["os_write", "os_fsync"]
    assert faults.names().count("os_fsync") == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        new.commit(tmp_path / "target")


def test_small_writes_go_to_disk_together_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(monkeypatch)
    new = NewFile(tmp_path / "part")
    pieces = [bytes([i]) * size for i, size in enumerate([1, 2, 3, 1_000_000, 4, 200_000, 100_000, 5])]
    for piece in pieces:
        new.write(piece)
    assert new.tell() == sum(map(len, pieces))
    new.commit(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"".join(pieces)
    assert faults.names().count("os_write") == 4  # three small ones, the large one, two that fit together, the rest


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "os_write", lambda fd, data: os.write(fd, data[:3]))
    new = NewFile(tmp_path / "part")
    assert new.write(b"0123456789") == 10
    assert new.tell() == 10
    new.commit(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"0123456789"


def test_a_rename_that_worked_although_nfs_says_enoent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resent(source: Path, target: Path) -> None:
        source.rename(target)
        raise FileNotFoundError(errno.ENOENT, "lost reply")

    monkeypatch.setattr(durable, "os_rename", resent)
    (tmp_path / "target").write_bytes(b"old")
    write_atomically(tmp_path / "target", b"x", tmp_path / "tmp")
    assert (tmp_path / "target").read_bytes() == b"x"


def test_a_file_that_was_taken_away_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    new = NewFile(tmp_path / "part")
    new.write(b"new")
    (tmp_path / "part").unlink()  # as the fence of a later run does
    with pytest.raises(StorageError, match="ENOENT"):
        new.commit(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"old"


def test_a_rename_that_failed_is_not_taken_for_one_that_worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "no")

    (tmp_path / "target").write_bytes(b"old")
    monkeypatch.setattr(durable, "os_rename", refused)
    with pytest.raises(StorageError, match="ENOENT"):
        write_atomically(tmp_path / "target", b"new", tmp_path / "tmp")
    assert (tmp_path / "target").read_bytes() == b"old"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF])
def test_a_file_system_without_fsync_of_folders_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def only_files(fd: int) -> None:
        if not os.get_blocking(fd) or Path(f"/proc/self/fd/{fd}").readlink().is_dir():
            raise OSError(code, "not for folders")
        os.fsync(fd)

    monkeypatch.setattr(durable, "os_fsync", only_files)
    write_atomically(tmp_path / "a" / "target", b"x", tmp_path / "tmp")
    assert (tmp_path / "a" / "target").read_bytes() == b"x"


def test_publish_moves_a_folder_that_somebody_else_wrote(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_bytes(b"x")
    publish(tmp_path / "new", tmp_path / "in" / "final")
    assert (tmp_path / "in" / "final" / "file").read_bytes() == b"x"


def test_publish_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="final"):
        publish(tmp_path / "nothing", tmp_path / "final")


def test_two_ranks_may_make_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(path: Path) -> None:
        path.mkdir()  # the other rank
        raise FileExistsError(errno.EEXIST, "exists")

    monkeypatch.setattr(durable, "os_mkdir", too_late)
    make_folders(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot create folder"):
        make_folders(tmp_path / "a" / "b")
