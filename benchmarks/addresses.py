"""What ``per_address`` costs a table of many servers, beside the time of the resolver.

``python -m benchmarks.addresses [--servers N]``: N servers (a million), half of them alone on their address, the others
three to an address, looked up by a resolver that answers at once; then 100 times fewer by one that takes 20 ms.
Prints one JSON line: seconds for the look-up and the groups, for writing the table, and for reading it as each rank
does; and the peak of the memory (RSS).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ddmpi.config.config import parse
from ddmpi.io.http.resolver import Bounds, resolve
from ddmpi.io.urls.address_grouping import AddressGrouping
from ddmpi.io.urls.address_table import read_addresses

SLOW_S = 0.02


def address_of(host: str) -> Sequence[str]:
    number = int(host[1:].partition(".")[0])
    machine = number if number % 2 else 1_000_000_000 + number // 6
    return [f"2001:db8:{machine >> 32:x}:{machine >> 16 & 0xFFFF:x}::{machine & 0xFFFF:x}"]


def address_of_slowly(host: str) -> Sequence[str]:
    time.sleep(SLOW_S)
    return address_of(host)


def measure(servers: int, folder: Path) -> dict[str, float]:
    """All of it over so many servers."""
    config = parse(
        {
            "path_to_input": "in.parquet",
            "path_to_output_folder": str(folder),
            "servers": [{"match": "*", "per_address": True}],
            "downloader_parameters": {"allow_private_addresses": ["2001:db8::/32"]},
            "servers_from": [],
        },
        "benchmark",
    )
    names = pa.array([f"s{number}.example.org" for number in range(servers)], pa.string())
    grouping = AddressGrouping(config, lookup=address_of)
    began_at = time.perf_counter()
    grouping.groups_of(names, pa.nulls(servers, pa.string()))
    grouped_at = time.perf_counter()
    grouping.write(folder)
    written_at = time.perf_counter()
    table = read_addresses(folder)
    group = config.with_addresses(table).group_of("s0.example.org")
    read_at = time.perf_counter()
    few = names.slice(0, servers // 100).to_pylist()
    resolve([str(name) for name in few], address_of_slowly)
    slow_s = time.perf_counter() - read_at
    assert table.has(group)
    return {
        "servers": servers,
        "groups": len(table.names),
        "grouping_s": round(grouped_at - began_at, 1),
        "writing_s": round(written_at - grouped_at, 1),
        "reading_s": round(read_at - written_at, 2),
        "file_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1),
        "slow_names": len(few),
        "slow_s": round(slow_s, 1),
        "slow_bound_s": round(len(few) * SLOW_S / Bounds().threads, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options.servers, Path(folder))))


if __name__ == "__main__":
    main()
