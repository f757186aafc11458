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

if TYPE_CHECKING:
    from ddmpi.core.records import Orders

EPILOG = """exit codes:
  0   every row is final (errors are listed in the summary)
  2   bad config, input or set-up: nothing was started
  75  stopped early or rows pending: run the same command again
  1   a bug (traceback)

"ddmpi --help" lists all commands, "ddmpi presets" the datasets whose tables are known, for the key preset.
"""
CONFIG_NAME = "config.yaml"
"""What the config of a table's download is called in its output folder."""
RETRY_WORD = "KIND|CODE|SERVER"
RETRY_HELP = (
    "all, or those of a kind (timeout), a code (404) or a server ('*.example.org'); of several kinds and codes any "
    "counts, of several servers too; with both an error has to have both"
)
AUDIT_HELP = (
    "what the last run has asked of a server (or of those that a glob means), for its operator: when, how much, at "
    "which rate, from where, by whom, which of its signals were obeyed"
)

FORGET_HELP = (
    "remove withdrawn images for good, and never fetch them again: those whose uuids or URLs the file has, one a line "
    "or in a column uuid, identifier or url"
)
GIVE_UP_HELP = (
    "do not wait any longer: pending rows become errors (given_up), those of these servers, or of all that the last "
    "run has waited for; to fetch them again, retry those of the kind given_up"
)


class Arguments(argparse.Namespace):
    """What was asked for, by whichever command: what it does not have keeps the value here."""

    config: Path
    check: bool = False
    plan: bool = False
    ranks: int | None = None
    status: bool = False
    watch: bool = False
    json: bool = False
    verify: bool = False
    audit: str | None = None
    """A server's name or a glob, "" for all; None: not asked for."""
    forget: Path | None = None
    errors_by: str | None = None
    csv: bool = False
    report: bool = False
    init: bool = False
    completion: str | None = None
    table: str | None = None
    """The table to download or to look at, where there is no config."""
    output: Path
    """The output folder of ``table``, or the file to write its config to."""
    rehash: bool = False
    debug: bool = False
    retry_failed: list[str] | None = None
    reset_profiled: bool = False
    reset_batched: bool = False
    yes_delete_results: bool = False
    give_up: Sequence[str] | None = None
    """Servers; none of them means all that are waited for."""
    retry_words: Sequence[str] = ()
    settings: list[str]
    """``KEY=VALUE`` each: what is changed in the config."""
    start: int | None = None
    """How many ranks mpiexec is to start; None: this process is one."""
    orders: Orders
    """``retry_failed`` with no word after it is ("*",): all errors."""

    @property
    def is_local(self) -> bool:
        """Whether one process does it alone, without MPI."""
        asked = (self.check, self.plan, self.status, self.verify, self.report, self.init)
        return any(asked) or any(
            word is not None for word in (self.audit, self.forget, self.errors_by, self.completion)
        )

    @property
    def has_orders(self) -> bool:
        """Whether more than a download was asked for."""
        named = self.retry_failed is not None or self.give_up is not None
        return named or self.reset_profiled or self.reset_batched

    @property
    def config_path(self) -> Path:
        """Where the config of a download is, or will be written (but for a trial's)."""
        return self.config if self.table is None else self.output / CONFIG_NAME


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the command line; exits with 2 and a usage message when it makes no sense."""
    parser = _parser()
    return checked(parser, parser.parse_args(argv, Arguments()))


def checked(parser: argparse.ArgumentParser, given: Arguments) -> Arguments:
    """Return what was asked for with its orders; exits with 2 and a usage message when it makes no sense."""
    if given.rehash and not given.verify:
        parser.error("--rehash goes with --verify")
    if given.ranks is not None and not given.plan:
        parser.error("--ranks goes with --plan")
    if given.ranks is not None and given.ranks < 1:
        parser.error("--ranks must be at least 1")
    if given.start is not None and given.is_local:
        parser.error("-n goes with a download: this takes one process")
    if given.start is not None and given.start < 1:
        parser.error("-n must be at least 1")
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
            parser.error(f"retry-failed: {error}")
    from ddmpi.core.records import Orders  # noqa: PLC0415

    give_up = None if given.give_up is None else tuple(given.give_up)
    given.orders = Orders(given.reset_profiled, given.reset_batched, given.yes_delete_results, retry, give_up)
    return given


class Parser(argparse.ArgumentParser):
    """A parser that says once on each node what is wrong, as ``refuse_start`` does: every rank has the same command
    line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        from ddmpi.io.mpi.launcher import speaks  # noqa: PLC0415  # only where it is needed: --help answers at once

        if not speaks(os.environ):
            sys.exit(EXIT_DONE)
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m ddmpi",
        description="Download a table of URLs into a Parquet dataset. Start it under MPI: mpiexec -n N python -m ddmpi "
        "CONFIG.yaml; run the same command again to go on after a stop.",
        epilog=EPILOG,
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
    action.add_argument("--audit", nargs="?", const="", metavar="SERVER", help=AUDIT_HELP)
    action.add_argument("--verify", action="store_true", help="check every row from the files alone")
    action.add_argument("--forget", type=Path, metavar="FILE", help=FORGET_HELP)
    action.add_argument("--retry-failed", nargs="*", metavar=RETRY_WORD, help=f"fetch error rows again: {RETRY_HELP}")
    action.add_argument("--give-up", nargs="*", metavar="SERVER", help=GIVE_UP_HELP)
    add_resets(action)
    parser.add_argument("--ranks", type=int, metavar="N", help="with --plan: predict for N ranks")
    parser.add_argument("--rehash", action="store_true", help="with --verify: recompute all digests")
    add_deletion(parser)
    add_run_options(parser)
    return parser


def add_resets(action: argparse._ActionsContainer) -> None:
    """Add the orders that throw away a stage."""
    action.add_argument("--reset-profiled", action="store_true", help="profile again")
    action.add_argument("--reset-batched", action="store_true", help="partition the input again")


def add_deletion(parser: argparse.ArgumentParser) -> None:
    """Add what --reset-batched needs where there are results."""
    parser.add_argument(
        "--yes-delete-results", action="store_true", help="with --reset-batched: delete images and errors, too"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what goes with every download."""
    parser.add_argument(
        "-n", dest="start", type=int, metavar="N", help="have mpiexec start N processes; without it there is this one"
    )
    parser.add_argument("--debug", action="store_true", help="logs that say everything, as logging.level: debug")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what changes keys of the config."""
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="change a key of the config, as downloader_parameters.default_rate_limit=5; may be given again",
    )  # fmt: skip
