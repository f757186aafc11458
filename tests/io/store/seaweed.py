"""A SeaweedFS as a child process, for the length of a test: an object store in production use, with the S3 protocol.

It checks signatures and rights, listens on loopback addresses alone, and keeps its data in one folder, from which it
goes on when it is started again.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pyarrow.fs

from tests.whole.nginx import free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.1
_ADDRESS = "127.0.0.1"
_SERVICES = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
KEYS = {"writer": ("write-key", "write-secret"), "reader": ("read-key", "read-secret")}


class SeaweedError(Exception):
    """SeaweedFS is missing or did not start; the text holds what it printed."""


@dataclass
class ObjectStore:
    """One bucket, named ``bucket``."""

    folder: Path
    port: int = field(default_factory=lambda: free_port(_ADDRESS))
    _others: list[int] = field(default_factory=lambda: [free_port(_ADDRESS) for _ in range(len(_SERVICES) + 1)])
    _process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> str:
        """The part of a URI that leads here."""
        return f"?scheme=http&endpoint_override={_ADDRESS}:{self.port}"

    def uri(self, path: str) -> str:
        """The URI of ``path`` in the bucket."""
        return f"s3://bucket/{path}{self.options}"

    def files(self) -> pyarrow.fs.S3FileSystem:
        """With the right to write and to make buckets."""
        key, secret = KEYS["writer"]
        return pyarrow.fs.S3FileSystem(
            access_key=key,
            secret_key=secret,
            endpoint_override=f"{_ADDRESS}:{self.port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def objects(self, prefix: str) -> dict[str, int]:
        """Names relative to the prefix, and sizes."""
        selector = pyarrow.fs.FileSelector(f"bucket/{prefix}", recursive=True, allow_not_found=True)
        found = self.files().get_file_info(selector)
        start = len(f"bucket/{prefix}/")
        return {info.path[start:]: info.size for info in found if info.type is pyarrow.fs.FileType.File}

    def start(self) -> None:
        """Raises SeaweedError where it does not answer."""
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if program is None:
            raise SeaweedError("weed is not installed (pip install -e '.[stores]')")
        ports = [f"-{name}={port}" for name, port in zip(_SERVICES, self._others, strict=False)]
        sockets = [f"-{name}.localSocket={self.folder}/{name}" for name in ("filer", "s3")]
        command = [
            program, "-logtostderr=true", "server", f"-dir={self.folder}", f"-ip={_ADDRESS}", f"-ip.bind={_ADDRESS}",
            "-filer", "-s3", f"-s3.port={self.port}", f"-s3.port.grpc={self._others[-1]}", "-s3.port.iceberg=0",
            "-s3.port.lance=0", "-s3.iam=false", "-s3.autoCreateBucket=false", f"-s3.config={self._identities()}",
            "-master.volumeSizeLimitMB=64", "-volume.max=64", *ports, *sockets,
        ]  # fmt: skip
        with (self.folder / "printed").open("ab") as printed:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=printed, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._has_bucket():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SeaweedError((self.folder / "printed").read_text(errors="replace")[-4_000:])
            time.sleep(_POLL_INTERVAL_S)

    def stop(self) -> None:
        """End it; a second call does nothing."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _identities(self) -> Path:
        actions = {"writer": ["Admin", "Read", "List", "Tagging", "Write"], "reader": ["Read", "List"]}
        identities = [
            {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions[name]}
            for name, (key, secret) in KEYS.items()
        ]
        path = self.folder / "s3.json"
        path.write_text(json.dumps({"identities": identities}))
        return path

    def _has_bucket(self) -> bool:
        """Whether it takes objects: the gateway answers before the services behind it do."""
        connection = HTTPConnection(_ADDRESS, self.port, timeout=_POLL_INTERVAL_S)
        try:
            connection.request("GET", "/")
            connection.getresponse()
            files = self.files()
            files.create_dir("bucket")
            with files.open_output_stream("bucket/ready") as stream:
                stream.write(b"ready")
        except OSError:
            return False
        finally:
            connection.close()
        return True


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """A store from when it takes objects until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="weed") as folder:  # short: the paths of sockets have to be
        store = ObjectStore(Path(folder))
        try:
            store.start()
            yield store
        finally:
            store.stop()
