"""Which events pass while parts are uploaded, and which never do."""

from __future__ import annotations

import threading

from ddmpi.io.store.uploads import UPLOADS, Uploads


def test_a_part_whose_upload_was_called_off_is_never_told_of() -> None:
    told: list[int] = []
    last_told, may_end = threading.Event(), threading.Event()

    def emit(event: int) -> None:
        told.append(event)
        if event == UPLOADS - 1:
            last_told.set()

    def upload() -> None:
        may_end.wait(10)

    uploads: Uploads[int] = Uploads(emit, lambda: None)
    for number in range(UPLOADS + 3):
        uploads.add(number, upload)
    uploads.close()
    may_end.set()
    assert last_told.wait(10)
    assert told == list(range(UPLOADS))
    uploads.check()
