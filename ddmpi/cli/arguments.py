"""The command line. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ddmpi._version import __version__
from ddmpi.errors import EXIT_DONE
from ddmpi.io.mpi.launcher import speaks

if TYPE_CHECKING:
    from ddmpi.core.records import Orders

_EPILOG = """exit codes:
  0   every row is final (errors are listed in the summary)
  2   bad config, input or set-up: nothing was started
  75  stopped early or rows pending: run the same command again
  1   a bug (traceback)

"python -m ddmpi presets" lists the datasets whose tables are known, for the key preset.
"""


class Arguments(argparse.Namespace):
    """What was asked for."""

    config: Path
    check: bool
    plan: bool
    ranks: int | None
    status: bool
    verify: bool
    audit: str | None
    """A server's name or a glob, "" for all; None: not asked for."""
    forget: Path | None
    rehash: bool
    debug: bool
    orders: Orders
    """``retry_failed`` with no word after it is ("*",): all errors."""

    @property
    def is_local(self) -> bool:
        """Whether one process does it alone, without MPI."""
        named = self.audit is not None or self.forget is not None
        return self.check or self.plan or self.status or self.verify or named


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the command line; exits with 2 and a usage message when it makes no sense."""
    parser = _parser()
    given = parser.parse_args(argv, Arguments())
    if given.rehash and not given.verify:
        parser.error("--rehash goes with --verify")
    if given.ranks is not None and not given.plan:
        parser.error("--ranks goes with --plan")
    if given.ranks is not None and given.ranks < 1:
        parser.error("--ranks must be at least 1")
    if given.debug and given.is_local:
        parser.error("--debug goes with a download: these write no log")
    if given.yes_delete_results and not given.reset_batched:
        parser.error("--yes-delete-results goes with --reset-batched")
    retry = () if given.retry_failed is None else tuple(given.retry_failed) or ("*",)
    if retry:
        from ddmpi.core.rules.retry_filter import choice_of  # noqa: PLC0415  # only where it is needed: --help answers at once

        try:
            choice_of(retry)
        except ValueError as error:
            parser.error(f"--retry-failed: {error}")
    from ddmpi.core.records import Orders  # noqa: PLC0415

    give_up = None if given.give_up is None else tuple(given.give_up)
    given.orders = Orders(given.reset_profiled, given.reset_batched, given.yes_delete_results, retry, give_up)
    return given


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it once on each node, as ``refuse_start`` does: every rank has the same command line."""
        if not speaks(os.environ):
            sys.exit(EXIT_DONE)
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m ddmpi",
        description="Download a table of URLs into a Parquet dataset. Start it under MPI: mpiexec -n N python -m ddmpi "
        "CONFIG.yaml; run the same command again to go on after a stop.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="see docs/configuration.md")
    parser.add_argument("--version", action="version", version=f"ddmpi {__version__}")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--check", action="store_true",
        help="read the input and say what it holds: rows, refused ones and why, URLs, servers; nothing is asked, "
        "nothing is written",
    )  # fmt: skip
    action.add_argument("--plan", action="store_true", help="cluster the input and predict the run; no server is asked")
    action.add_argument("--status", action="store_true", help="what the output folder holds, also while a run is on")
    action.add_argument(
        "--audit", nargs="?", const="", metavar="SERVER",
        help="what the last run has asked of a server (or of those that a glob means), for its operator: when, how "
        "much, at which rate, from where, by whom, which of its signals were obeyed",
    )  # fmt: skip
    action.add_argument("--verify", action="store_true", help="check every row from the files alone")
    action.add_argument(
        "--forget", type=Path, metavar="FILE",
        help="remove withdrawn images for good, and never fetch them again: those whose uuids or URLs the file has, "
        "one a line or in a column uuid, identifier or url",
    )  # fmt: skip
    action.add_argument(
        "--retry-failed", nargs="*", metavar="KIND|CODE|SERVER",
        help="fetch error rows again: all, or those of a kind (timeout), a code (404) or a server ('*.example.org'); "
        "of several kinds and codes any counts, of several servers too; with both an error has to have both",
    )  # fmt: skip
    action.add_argument(
        "--give-up", nargs="*", metavar="SERVER",
        help="do not wait any longer: pending rows become errors (given_up), those of these servers, or of all that "
        "the last run has waited for; --retry-failed given_up fetches them again",
    )  # fmt: skip
    action.add_argument("--reset-profiled", action="store_true", help="profile again")
    action.add_argument("--reset-batched", action="store_true", help="partition the input again")
    parser.add_argument("--ranks", type=int, metavar="N", help="with --plan: predict for N ranks")
    parser.add_argument("--debug", action="store_true", help="logs that say everything, as logging.level: debug")
    parser.add_argument("--rehash", action="store_true", help="with --verify: recompute all digests")
    parser.add_argument(
        "--yes-delete-results", action="store_true", help="with --reset-batched: delete images and errors, too"
    )
    return parser
