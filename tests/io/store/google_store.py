"""An emulator of Google Cloud Storage as a child process, for the length of a test: objects in memory, no accounts.

It speaks the JSON API with resumable uploads, as arrow's own client does; it knows no rights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pyarrow.fs

from tests.whole.nginx import free_port

START_TIMEOUT_S = 30.0
_ADDRESS = "127.0.0.1"
_POLL_INTERVAL_S = 0.1


class GoogleStoreError(Exception):
    """The emulator is missing or did not start."""


@dataclass
class GoogleStore:
    """One bucket, named ``bucket``."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> str:
        """The part of a URI that leads here."""
        return f"?scheme=http&endpoint_override={_ADDRESS}:{self.port}&retry_limit_seconds=3"

    def uri(self, path: str) -> str:
        """The URI of ``path`` in the bucket."""
        return f"gs://anonymous@bucket/{path}{self.options}"

    def files(self) -> pyarrow.fs.FileSystem:
        """For looking into it."""
        return pyarrow.fs.FileSystem.from_uri(self.uri(""))[0]

    def objects(self, prefix: str) -> list[str]:
        """Names of the objects below a prefix."""
        selector = pyarrow.fs.FileSelector(f"bucket/{prefix}", recursive=True, allow_not_found=True)
        return sorted(info.path for info in self.files().get_file_info(selector) if info.is_file)

    def stop(self) -> None:
        """It is gone, with all objects."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_google_store(folder: Path) -> Iterator[GoogleStore]:
    """Start it, and end it in the end. Raises GoogleStoreError."""
    program = shutil.which("gcp-storage-emulator", path=str(Path(sys.executable).parent))
    if program is None:
        raise GoogleStoreError("gcp-storage-emulator is not installed: pip install -e '.[stores]'")
    port = free_port(_ADDRESS)
    command = [program, "start", f"--host={_ADDRESS}", f"--port={port}", "--in-memory", "--default-bucket=bucket"]
    with (folder / "google-store.log").open("wb") as printed:
        process = subprocess.Popen(command, cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
    store = GoogleStore(port, process)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise GoogleStoreError((folder / "google-store.log").read_text())
            time.sleep(_POLL_INTERVAL_S)
        yield store
    finally:
        store.stop()


def _answers(port: int) -> bool:
    connection = HTTPConnection(_ADDRESS, port, timeout=5)
    try:
        connection.request("GET", "/storage/v1/b/bucket")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
