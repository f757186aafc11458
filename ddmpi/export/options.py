"""The export's command line. Loads only the target that was asked for, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddmpi.export.target import load_target, target_names


@dataclass(frozen=True)
class Options:
    """What to write, and which rows. 0 means no bound."""

    to: str
    shard_bytes: int
    min_side: int = 0
    min_bytes: int = 0
    max_bytes: int = 0
    unique: bool = False
    check: bool = False
    resize: int = 0
    own: dict[str, Any] = field(default_factory=dict)
    """The options that only this target has."""


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
        allow_abbrev=False,  # --to is looked for before the others are known
        description="Copy the successes of an output folder into another format; under mpiexec on all ranks. The "
        "results are only read. Run the same command again to go on after a stop.",
        epilog="Options of a target's own: --to NAME --help.",
    )
    parser.add_argument("results", type=Path, metavar="OUT", help="output folder, or the CONFIG.yaml of its job")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write; made if it is missing")
    parser.add_argument("--to", required=True, choices=target_names())
    parser.add_argument("--min-side", type=_count, default=0, metavar="PX", help="leave out images narrower or lower")
    parser.add_argument("--min-bytes", type=_count, default=0, metavar="N", help="leave out smaller files")
    parser.add_argument("--max-bytes", type=_count, default=0, metavar="N", help="leave out larger files")
    parser.add_argument("--unique", action="store_true", help="of files with the same bytes keep the first row's")
    parser.add_argument("--check", action="store_true", help="leave out what its digest or a decoder finds damaged")
    parser.add_argument("--resize", type=_count, default=0, metavar="PX", help="longest side; encodes all images again")
    parser.add_argument("--shard-bytes", type=_count, metavar="N", help="source bytes per shard")
    name = _target_of(argv)
    if name not in target_names():
        parser.parse_args(argv)  # exits
    target = load_target(name)
    target.add_options(parser.add_argument_group(f"options of --to {name}"))
    given = vars(parser.parse_args(argv))
    results, folder, shard_bytes = given.pop("results"), given.pop("target"), given.pop("shard_bytes")
    common = {name: given.pop(name) for name in list(given) if name in Options.__dataclass_fields__}
    options = Options(**common, shard_bytes=shard_bytes or target.shard_bytes, own=given)
    if options.max_bytes and options.max_bytes < options.min_bytes:
        parser.error("--max-bytes is below --min-bytes")
    if not target.reads_images and (options.check or options.resize):
        parser.error(f"--to {name} has no images that --check or --resize could look at")
    try:
        target(options.own)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    return Order(results, folder, options)


def _target_of(argv: Sequence[str]) -> str:
    """Return what ``--to`` says, "" for nothing: which options there are depends on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--to", nargs="?")
    return parser.parse_known_args(argv)[0].to or ""


def _count(text: str) -> int:
    number = int(text)  # its ValueError becomes a usage message
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: expected 1 or more")
    return number
