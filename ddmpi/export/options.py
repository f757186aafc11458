"""The export's command line. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

Target = Literal["webdataset", "files", "parquet"]
SHARD_BYTES: Final = 256 << 20
"""Of the source: what a shard holds of it at most, unless a single row group is larger."""


@dataclass(frozen=True)
class Options:
    """What to write, and which rows. 0 means no bound."""

    to: Target
    min_side: int = 0
    min_bytes: int = 0
    max_bytes: int = 0
    unique: bool = False
    check: bool = False
    resize: int = 0
    shard_bytes: int = SHARD_BYTES


@dataclass(frozen=True)
class Order:
    """One call of the program."""

    results: Path
    target: Path
    options: Options


def parse_order(argv: Sequence[str]) -> Order:
    """Read the command line; exits with 2 and a usage message when it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m ddmpi.export",
        description="Copy the successes of an output folder into another format; under mpiexec on all ranks. The "
        "results are only read. Run the same command again to go on after a stop.",
    )
    parser.add_argument("results", type=Path, metavar="OUT", help="output folder, or the CONFIG.yaml of its job")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write; made if it is missing")
    parser.add_argument("--to", required=True, choices=get_args(Target))
    parser.add_argument("--min-side", type=_count, default=0, metavar="PX", help="leave out images narrower or lower")
    parser.add_argument("--min-bytes", type=_count, default=0, metavar="N", help="leave out smaller files")
    parser.add_argument("--max-bytes", type=_count, default=0, metavar="N", help="leave out larger files")
    parser.add_argument("--unique", action="store_true", help="of files with the same bytes keep the first row's")
    parser.add_argument("--check", action="store_true", help="leave out what its digest or a decoder finds damaged")
    parser.add_argument("--resize", type=_count, default=0, metavar="PX", help="longest side; encodes all images again")
    parser.add_argument("--shard-bytes", type=_count, default=SHARD_BYTES, metavar="N", help="source bytes per shard")
    given = vars(parser.parse_args(argv))
    order = Order(given.pop("results"), given.pop("target"), Options(**given))
    if order.options.max_bytes and order.options.max_bytes < order.options.min_bytes:
        parser.error("--max-bytes is below --min-bytes")
    return order


def _count(text: str) -> int:
    number = int(text)  # its ValueError becomes a usage message
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: expected 1 or more")
    return number
