"""One owner of the output folder, without file locks: Lustre and NFS often have none, or local ones only.

The lock is a file that appears with its content: it is written under a name of its own and linked to the lock's, which
fails where there is one already. File systems without hard links get it by O_EXCL; there a kill between creating and
writing leaves a lock that says nothing. It says who holds it; its modification time is the heartbeat. A lock is taken
over only where its owner is certainly gone:

- its process ran on this kernel (same boot, same process namespace) and is not there any more,
- it was an earlier start of the same Slurm job, which Slurm ends before it starts the job again, on whatever nodes, or
- its heartbeat is old, by the file server's own clock, and either its scheduler says that its job is gone or this
  machine has been booted since.

In all other cases the user decides: the error names the holder and the file to delete. A pause of the owner beyond
the heartbeat's limit cannot corrupt anything: it finds at its next ``touch`` that the lock is not its own, and its
parts are fenced off by the epoch (see ``durable``).
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from ddmpi.core.records import UNDECODABLE
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.schedulers.detection import job_is_gone, job_of

STALE_AFTER_S: Final = 600.0
"""Ten minutes without a heartbeat: longer than any checkpoint interval and any hiccup of a file server seen."""

_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})
"""What link(2) answers on file systems that have no hard links."""

JobIsGone = Callable[[str], bool | None]
"""Asks a scheduler whether a job has ended; None where that cannot be told."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock. ``start_ticks`` is the process's start since boot, so that a reused pid is no disguise."""

    host: str
    pid: int
    start_ticks: int
    boot_id: str
    namespace: str
    """Process namespace: pids of another container mean nothing here."""
    job_id: str
    since: str
    """Local time as text, for people."""
    token: str
    """Tells this acquisition from all others."""
    restart: int = 0
    """How often Slurm had requeued the job."""


class OutputLock:
    """A held lock; made by ``acquire``."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder

    def touch(self) -> None:
        """Renew the heartbeat; call it about once a minute. Raises StorageError: the lock was taken over or removed:
        this run must end at once without committing more."""
        self._check_own()
        try:
            os.utime(self.path)
        except OSError as error:
            raise StorageError(f"cannot refresh {self.path}: {error}") from error

    def release(self) -> None:
        """Release the folder. A lock that another run holds by now stays. Raises StorageError: the lock was lost, or
        cannot be removed."""
        self._check_own()
        try:
            self.path.unlink()
        except OSError as error:
            raise StorageError(f"cannot remove {self.path}: {error}") from error

    def _check_own(self) -> None:
        try:
            found = _decode(self.path.read_bytes())
        except OSError as error:
            raise StorageError(f"the lock {self.path} was lost: {error}") from error
        if found is None or found.token != self.holder.token:
            raise StorageError(f"the lock {self.path} was taken over by {_describe(found)}")


def acquire_for_job(path: Path, environment: Mapping[str, str]) -> OutputLock:
    """Take the lock for this process's batch job, if it is in one; see ``acquire``."""
    restart = int(environment.get("SLURM_RESTART_COUNT") or 0)
    return acquire(path, job_id=job_of(environment), job_is_gone=job_is_gone, restart=restart)


def acquire(path: Path, *, job_id: str, job_is_gone: JobIsGone, restart: int = 0) -> OutputLock:
    """Take the lock at ``path``, whose folder exists.

    Args:
        job_id: this run's batch job, or "".
        job_is_gone: asked only about the holder of a lock with an old heartbeat.
        restart: how often Slurm has requeued this job.

    Raises:
        OutputError: another run holds the folder (the text names the holder), or it cannot be written.
    """
    holder = _this_process(job_id, restart)
    try:
        _hold(path, holder, job_is_gone)
        _clean_up(path)
    except OSError as error:
        raise OutputError(f"cannot write to the output folder: {path}: {error.strerror or error}") from error
    return OutputLock(path, holder)


def _hold(path: Path, own: Holder, job_is_gone: JobIsGone) -> None:
    for _ in range(3):  # each further turn means that another lock came or went in between
        if _create(path, msgspec.json.encode(own)):
            return
        _remove_if_stale(path, own, job_is_gone)
    raise OutputError(f"several runs want {path} at once; start one of them again")


def _clean_up(path: Path) -> None:
    """Remove what killed takeovers have left. One that is under way fails there, as it has to: the lock is held."""
    for left in path.parent.glob(f"{path.name}.*"):
        left.unlink(missing_ok=True)


def _create(path: Path, data: bytes) -> bool:
    """Return whether there was no such lock, and now there is ours."""
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        _write(own, data)
        return _link(own, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    finally:
        own.unlink(missing_ok=True)
    try:
        _write(path, data)
    except FileExistsError:
        return False
    return True


def _link(own: Path, path: Path) -> bool:
    try:
        try:
            os.link(own, path)
        except FileExistsError:
            # NFS sends a request again whose answer was lost, and the second one fails although the first did not.
            return own.stat().st_nlink > 1
    except FileNotFoundError:
        return False  # who has got the lock meanwhile has cleaned up
    return True


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.write(fd, data)
        os.fsync(fd)
    except OSError:
        path.unlink()  # an empty lock would keep everybody out for ten minutes
        raise
    finally:
        os.close(fd)


def _remove_if_stale(path: Path, own: Holder, job_is_gone: JobIsGone) -> None:
    try:
        data = path.read_bytes()
        age_s = _server_now(path, own.token) - path.stat().st_mtime
    except FileNotFoundError:
        return  # released meanwhile
    found = _decode(data)
    reason = "" if _is_earlier_start(found, own) else _why_held(found, own, age_s, job_is_gone)
    if reason:
        raise OutputError(
            f"the output folder is in use by {_describe(found)}; last sign of life {age_s:.0f} s ago; {reason}. "
            f"If that run is certainly gone, delete {path}"
        )
    _remove_as_only_successor(path, data, own, job_is_gone)


def _remove_as_only_successor(path: Path, data: bytes, own: Holder, job_is_gone: JobIsGone) -> None:
    """Remove the lock with the content ``data``, whose owner is gone.

    Two runs may find the same stale lock, and the slower one must not remove what the faster one has put there. So
    there is a lock on the removal, named after the content to be removed: while it is held no other run removes that
    content, and a look at the file tells whether it is still there. It is a lock like the first one: if its owner
    was killed, it is taken over in the same way.
    """
    removal = path.with_name(f"{path.name}.{hashlib.sha256(data).hexdigest()[:16]}")
    _hold(removal, own, job_is_gone)
    try:
        if path.read_bytes() == data:
            path.unlink()
    except FileNotFoundError:
        return  # the faster one has finished, and released its lock already
    finally:
        removal.unlink(missing_ok=True)  # the new owner cleans up


def _is_earlier_start(found: Holder | None, own: Holder) -> bool:
    """Return whether Slurm has requeued the holder's job since, as what this process is part of."""
    return found is not None and bool(own.job_id) and found.job_id == own.job_id and found.restart < own.restart


def _why_held(found: Holder | None, own: Holder, age_s: float, job_is_gone: JobIsGone) -> str:
    """Return why the lock counts; "" if its owner is gone."""
    if found is not None and (found.boot_id, found.namespace) == (own.boot_id, own.namespace):
        return "its process is running" if _start_ticks(found.pid) == found.start_ticks else ""
    if age_s <= STALE_AFTER_S:
        return f"a heartbeat is old after {STALE_AFTER_S:.0f} s only"
    if found is None:
        return ""  # damaged, or killed between creating and writing it, at least ten minutes ago
    if found.host == own.host and found.namespace == own.namespace:
        return ""  # the same machine, booted since
    if found.job_id and job_is_gone(found.job_id):
        return ""
    return f"no scheduler says that job {found.job_id} has ended" if found.job_id else "it cannot be asked from here"


def _server_now(path: Path, token: str) -> float:
    """Return the time as the file server sees it: clocks of two nodes may differ by more than a heartbeat."""
    probe = path.with_name(f"{path.name}.{token}.probe")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)  # the new owner cleans up


def _this_process(job_id: str, restart: int) -> Holder:
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        start_ticks=_start_ticks(os.getpid()),
        boot_id=_read_text(Path("/proc/sys/kernel/random/boot_id")),
        namespace=_namespace(),
        job_id=job_id,
        since=datetime.now().astimezone().isoformat(timespec="seconds"),
        token=uuid.uuid4().hex,
        restart=restart,
    )


def _start_ticks(pid: int) -> int:
    """Return field 22 of /proc/PID/stat, clock ticks since boot (proc(5)); -1 if there is no such process. A killed
    process that its parent has not waited for yet (state Z) is gone: it neither runs nor writes."""
    stat = _read_text(Path(f"/proc/{pid}/stat"))
    # The command name is in parentheses and may hold anything, blanks and parentheses too; fields count from its end.
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]) if fields and fields[0] not in {"Z", "X"} else -1


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _decode(data: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(data, type=Holder)
    except UNDECODABLE:
        return None


def _describe(holder: Holder | None) -> str:
    if holder is None:
        return "a run that did not say who it is"
    job = f"job {holder.job_id}, " if holder.job_id else ""
    return f"{job}process {holder.pid} on {holder.host}, since {holder.since}"
