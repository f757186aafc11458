"""What the parts of a download cost by themselves: ``python -m benchmarks.floor JOB URLS TARGET``.

One thread with pycurl's multi interface and 64 handles over the URLs of a Parquet table: no limits, lanes, retries or
messages, only three columns, nothing is synced. ``benchmarks.throughput`` runs it as a program beside others. JOB is

- ``fetch``: the bodies, and nothing else;
- ``hash``: the same, and SHA-256;
- ``store``: the same, and a Parquet file TARGET with URL, hash and body.

Prints how many files that were.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pycurl

HANDLES: Final = 64
ROW_GROUP_BYTES: Final = 8 << 20
WAIT_S: Final = 0.01
_FIELDS: Final[list[pa.Field[Any]]] = [
    pa.field("url", pa.string()),
    pa.field("hash", pa.string()),
    pa.field("image", pa.large_binary()),
]
_SCHEMA: Final = pa.schema(_FIELDS)


def bodies_of(urls: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Each URL with its body, in the order of their ends. Raises RuntimeError where a fetch fails."""
    multi = pycurl.CurlMulti()
    free = [_handle() for _ in range(HANDLES)]
    busy: dict[pycurl.Curl, tuple[str, list[bytes]]] = {}
    waiting = iter(urls)
    left = len(urls)
    while left:
        while free and (url := next(waiting, None)) is not None:
            curl, pieces = free.pop(), list[bytes]()
            curl.setopt(pycurl.URL, url)
            curl.setopt(pycurl.WRITEFUNCTION, pieces.append)
            busy[curl] = url, pieces
            multi.add_handle(curl)
        multi.perform()
        more = 1
        while more:
            more, done, failed = multi.info_read()
            if failed:
                raise RuntimeError(failed[0][2])
            for curl in done:
                url, pieces = busy.pop(curl)
                multi.remove_handle(curl)
                free.append(curl)
                left -= 1
                yield url, b"".join(pieces)
        multi.select(WAIT_S)


def _handle() -> pycurl.Curl:
    curl = pycurl.Curl()
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.TCP_NODELAY, 1)
    curl.setopt(pycurl.FAILONERROR, 1)
    return curl


def fetch(urls: Sequence[str], _target: Path) -> None:
    for _ in bodies_of(urls):
        pass


def digest(urls: Sequence[str], _target: Path) -> None:
    for _, body in bodies_of(urls):
        hashlib.sha256(body).hexdigest()


def store(urls: Sequence[str], target: Path) -> None:
    rows: list[tuple[str, str, bytes]] = []
    size_bytes = 0
    with pq.ParquetWriter(
        target, _SCHEMA, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
    ) as writer:
        for url, body in bodies_of(urls):
            rows.append((url, hashlib.sha256(body).hexdigest(), body))
            size_bytes += len(body)
            if size_bytes >= ROW_GROUP_BYTES:
                writer.write_table(_table(rows))
                rows, size_bytes = [], 0
        writer.write_table(_table(rows))


def _table(rows: Sequence[tuple[str, str, bytes]]) -> pa.Table:
    columns = [pa.array([row[number] for row in rows], field.type) for number, field in enumerate(_SCHEMA)]
    return pa.table(columns, schema=_SCHEMA)


JOBS: Final[dict[str, Callable[[Sequence[str], Path], None]]] = {"fetch": fetch, "hash": digest, "store": store}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__.partition("\n")[0])
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("urls", type=Path, help="a Parquet file with a column identifier")
    parser.add_argument("target", type=Path)
    given = parser.parse_args(argv)
    urls = [str(url) for url in pq.read_table(given.urls).column("identifier").to_pylist()]
    JOBS[given.job](urls, given.target)
    print(len(urls))


if __name__ == "__main__":
    main(sys.argv[1:])
