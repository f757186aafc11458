"""One owner of the output folder: who may take over, who may not, and who is named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder import lock as lock_module
from ddmpi.io.folder.lock import STALE_AFTER_S, Holder, JobIsGone, OutputLock, acquire, acquire_for_job

OTHER = "another acquisition"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


def must_not_ask(job_id: str) -> bool | None:
    pytest.fail(f"Slurm was asked about {job_id}")


def test_a_job_that_was_requeued_takes_the_lock_of_its_earlier_self(tmp_path: Path) -> None:
    environment = {"SLURM_JOB_ID": "77"}
    earlier = acquire_for_job(tmp_path / "lock", environment)
    seen = json.loads((tmp_path / "lock").read_text())
    assert (seen["job_id"], seen["restart"]) == ("77", 0)
    (tmp_path / "lock").write_text(json.dumps({**seen, "host": "another", "boot_id": "another"}))
    acquire_for_job(tmp_path / "lock", {**environment, "SLURM_RESTART_COUNT": "1"}).release()
    with pytest.raises(StorageError, match="was lost"):
        earlier.release()


def take(path: Path, job_is_gone: JobIsGone = must_not_ask, restart: int = 0) -> OutputLock:
    return acquire(path, job_id="77", job_is_gone=job_is_gone, restart=restart)


def plant(path: Path, *, age_s: float = 0.0, **changes: object) -> Holder:
    """A lock as another process would have left it, ``age_s`` after its last heartbeat."""
    own = take(path)
    holder = msgspec.structs.replace(own.holder, token=OTHER, **changes)
    path.write_bytes(msgspec.json.encode(holder))
    modified = path.stat().st_mtime - age_s
    os.utime(path, (modified, modified))
    return holder


def ended_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def only_the_lock_is_left(path: Path) -> bool:
    return [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_lock_is_taken_kept_and_released(path: Path) -> None:
    held = take(path)
    assert held.holder.pid == os.getpid()
    os.utime(path, (1.0, 1.0))
    held.touch()
    assert path.stat().st_mtime > 1.0
    assert only_the_lock_is_left(path)
    held.release()
    assert list(path.parent.iterdir()) == []
    take(path).release()


def test_a_running_holder_is_named_however_old_its_heartbeat(path: Path) -> None:
    since = take(path).holder.since
    assert datetime.fromisoformat(since).tzinfo is not None
    os.utime(path, (1.0, 1.0))
    with pytest.raises(OutputError) as caught:
        take(path)
    text = str(caught.value)
    for part in ("job 77", f"process {os.getpid()} on ", f"since {since}", "sign of life", str(path)):
        assert part in text
    assert only_the_lock_is_left(path)


def test_a_holder_whose_process_ended_on_this_machine_is_replaced_at_once(path: Path) -> None:
    plant(path, pid=ended_process())
    held = take(path)
    held.touch()
    assert only_the_lock_is_left(path)


def test_a_killed_holder_that_nobody_has_waited_for_is_replaced_at_once(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        plant(path, pid=child.pid, start_ticks=ticks)
        with pytest.raises(OutputError, match="its process is running"):
            take(path)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        take(path).touch()
    assert only_the_lock_is_left(path)


def test_a_reused_process_id_is_no_disguise(path: Path) -> None:
    plant(path, start_ticks=1)
    take(path).touch()


ANSWERS: dict[str, bool | None] = {"gone": True, "running": False, "unknown": None}


@pytest.mark.parametrize(
    ("age_s", "changes", "answer", "is_replaced"),
    [
        pytest.param(0, {"job_id": "5"}, "gone", False, id="fresh heartbeat: Slurm is not believed"),
        pytest.param(STALE_AFTER_S - 5, {"job_id": "5"}, "gone", False, id="nearly old heartbeat"),
        pytest.param(STALE_AFTER_S + 5, {"job_id": "5"}, "gone", True, id="old heartbeat and the job is gone"),
        pytest.param(STALE_AFTER_S + 5, {"job_id": "5"}, "running", False, id="old heartbeat but the job runs"),
        pytest.param(STALE_AFTER_S + 5, {"job_id": "5"}, "unknown", False, id="old heartbeat, Slurm does not answer"),
        pytest.param(STALE_AFTER_S * 99, {"job_id": ""}, "gone", False, id="no job: nobody to ask"),
    ],
)
def test_a_holder_on_another_host(
    path: Path, age_s: float, changes: dict[str, str], answer: str, is_replaced: bool
) -> None:
    plant(path, age_s=age_s, host="node-b", boot_id="another", **changes)

    def squeue(job_id: str) -> bool | None:
        assert job_id == "5"
        return ANSWERS[answer]

    if is_replaced:
        take(path, squeue).touch()
    else:
        with pytest.raises(OutputError, match="on node-b"):
            take(path, squeue)
    assert only_the_lock_is_left(path)


def test_a_requeued_job_takes_over_from_its_earlier_start_on_another_node(path: Path) -> None:
    plant(path, host="node-b", boot_id="another", restart=1)
    with pytest.raises(OutputError, match="on node-b"):
        take(path, restart=1)  # a second run within the same job
    take(path, restart=2).touch()
    assert only_the_lock_is_left(path)


def test_a_holder_in_another_container_is_not_judged_by_its_process_id(path: Path) -> None:
    plant(path, namespace="pid:[1]", pid=ended_process(), job_id="")
    with pytest.raises(OutputError, match="a heartbeat is old after 600 s only"):
        take(path)


def test_a_reboot_ends_all_holders_but_only_with_an_old_heartbeat(path: Path) -> None:
    plant(path, boot_id="before", job_id="")
    with pytest.raises(OutputError):
        take(path)
    path.unlink()
    plant(path, boot_id="before", job_id="", age_s=STALE_AFTER_S + 5)
    take(path).touch()


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_lock_that_says_nothing_counts_for_ten_minutes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(OutputError, match="did not say who it is"):
        take(path)
    old = path.stat().st_mtime - STALE_AFTER_S - 5
    os.utime(path, (old, old))
    take(path).touch()


def test_a_lost_lock_is_noticed_and_left_to_its_new_owner(path: Path) -> None:
    held = take(path)
    holder = msgspec.structs.replace(held.holder, token=OTHER, host="node-b")
    path.write_bytes(msgspec.json.encode(holder))
    for call in (held.touch, held.release):
        with pytest.raises(StorageError, match="taken over by job 77"):
            call()
    assert path.exists()
    path.unlink()
    for call in (held.touch, held.release):
        with pytest.raises(StorageError, match="was lost"):
            call()


def test_a_folder_that_cannot_be_written_is_said_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*args: object, **kwargs: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", read_only)
    with pytest.raises(OutputError, match=r"cannot write to the output folder: .*Read-only file system"):
        take(path)


def test_a_full_disk_leaves_no_empty_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(OutputError, match="No space left"):
        take(path)
    assert not path.exists()


@pytest.fixture(params=["hard links", "no hard links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test as on both kinds of file systems."""

    def refuse(_source: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "no hard links":
        monkeypatch.setattr("os.link", refuse)


def test_a_lock_appears_with_its_content(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed while it writes its lock leaves none that would keep the next one out."""
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        assert not path.exists()
        return write(fd, data)

    monkeypatch.setattr("os.write", watched)
    held = take(path)
    assert msgspec.json.decode(path.read_bytes(), type=Holder) == held.holder
    assert only_the_lock_is_left(path)


def test_a_link_whose_answer_was_lost_is_made_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr("os.link", repeated)
    take(path).touch()
    with pytest.raises(OutputError, match="its process is running"):
        take(path)


@pytest.mark.usefixtures("links")
def test_a_second_run_is_kept_out_and_leaves_nothing(path: Path) -> None:
    held = take(path)
    with pytest.raises(OutputError, match="its process is running"):
        take(path)
    assert only_the_lock_is_left(path)
    held.release()
    take(path).release()


def test_a_run_whose_file_the_new_owner_has_cleaned_up_is_kept_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        Path(source).unlink()
        with monkeypatch.context() as patch:
            patch.setattr("os.link", link)
            take(path)
        link(source, target)

    monkeypatch.setattr("os.link", late)
    with pytest.raises(OutputError, match="its process is running"):
        take(path)


@pytest.mark.usefixtures("links")
def test_of_many_that_find_a_stale_lock_one_gets_it(path: Path) -> None:
    for _ in range(20):
        plant(path, pid=ended_process())
        barrier = threading.Barrier(8)
        held: list[OutputLock] = []

        def contend(barrier: threading.Barrier = barrier, held: list[OutputLock] = held) -> None:
            barrier.wait()
            try:
                held.append(take(path))
            except OutputError:
                return

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        owners = []
        for lock in held:
            try:
                lock.touch()
            except StorageError:
                continue
            owners.append(lock)
        assert len(owners) == 1
        path.unlink(missing_ok=True)
        assert list(path.parent.iterdir()) == []


def test_a_takeover_that_came_too_late_leaves_the_new_lock_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(path, pid=ended_process())
    winner = msgspec.json.encode(Holder("node-b", 1, 1, "b", "n", "9", "now", "winner"))
    judge = lock_module._why_held

    def slow_judge(found: Holder | None, own: Holder, age_s: float, job_is_gone: JobIsGone) -> str:
        answer = judge(found, own, age_s, job_is_gone)
        path.write_bytes(winner)  # the other one has replaced the stale lock in the meantime
        return answer

    monkeypatch.setattr(lock_module, "_why_held", slow_judge)
    with pytest.raises(OutputError, match="job 9, process 1 on node-b"):
        take(path)
    assert path.read_bytes() == winner
    assert only_the_lock_is_left(path)


def test_a_takeover_that_was_killed_halfway_is_taken_over_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(path, pid=ended_process())
    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "_hold", kill_after_hold(lock_module._hold, path))
        with pytest.raises(KeyboardInterrupt):
            take(path)
    (removal,) = (entry for entry in path.parent.iterdir() if entry != path)
    holder = msgspec.json.decode(removal.read_bytes(), type=Holder)
    removal.write_bytes(msgspec.json.encode(msgspec.structs.replace(holder, pid=ended_process())))
    take(path).touch()
    assert only_the_lock_is_left(path)


def kill_after_hold(
    hold: Callable[[Path, Holder, JobIsGone], None], lock_path: Path
) -> Callable[[Path, Holder, JobIsGone], None]:
    def killed(path: Path, own: Holder, job_is_gone: JobIsGone) -> None:
        hold(path, own, job_is_gone)
        if path != lock_path:
            raise KeyboardInterrupt

    return killed
