"""``ddmpi COMMAND ...``: the first word decides. Each command is the options of ``python -m ddmpi`` by another name.

Imports nothing heavy, so that ``--help`` answers at once. A first word that is no command is a config, with the
options that it has under mpiexec; with ``-o`` it is a table.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ddmpi._version import __version__
from ddmpi.cli.arguments import (
    AUDIT_HELP,
    EPILOG,
    FORGET_HELP,
    GIVE_UP_HELP,
    RETRY_HELP,
    RETRY_WORD,
    Arguments,
    Parser,
    add_deletion,
    add_resets,
    add_run_options,
    add_settings,
    checked,
    parse_arguments,
)

PRESETS: Final = "presets"
EXPORT: Final = "export"
_DOWNLOAD: Final = "download"
_SHELLS: Final = ("bash", "zsh", "tcsh")
COLUMN_FLAGS: Final = {
    "url": "columns.identifier",
    "keep": "keep_columns",
    "preset": "preset",
    "filter": "filter",
    "limit": "limit",
    "rate": "downloader_parameters.default_rate_limit",
    "image_size": "downloader_parameters.image_size",
}
"""Options of ``ddmpi TABLE -o FOLDER`` -> the keys of the config that they are."""


def read_command(argv: Sequence[str]) -> Arguments:
    """Read the command line; exits with 2 and a usage message when it makes no sense."""
    parser, commands = _parsers()
    first = argv[0] if argv else "--help"
    is_command = first in commands or first.startswith("-")
    if is_command or any(word.startswith(("-o", "--output")) for word in argv):
        given = parser.parse_args((argv or [first]) if is_command else [_DOWNLOAD, *argv], Arguments())
        if given.retry_words:
            given.retry_failed = list(given.retry_words)
        given = checked(parser, given)
        given.orders = replace(given.orders, job=_name_of_job(given))
        return given
    if not Path(first).suffix and "/" not in first and not Path(first).exists():
        from ddmpi.core.near_names import near_names  # noqa: PLC0415  # only where it is needed

        near = near_names(first, commands)
        hint = f"; did you mean ddmpi {near[0]}?" if near else ""
        parser.error(f"{first}: neither a command nor a file in {Path.cwd()}{hint}")
    return parse_arguments(argv)


def _name_of_job(given: Arguments) -> str:
    """Return what another command is told to mean the job of this one, "" where that is the output folder."""
    if given.table is not None or given.completion is not None:
        return ""
    return shlex.join([str(given.config), *(word for setting in given.settings for word in ("--set", setting))])


def completion(shell: str) -> str:
    """Return the script that teaches a shell our commands and options. Raises ImportError: shtab is not installed."""
    import shtab  # noqa: PLC0415  # an extra

    text: str = shtab.complete(_parsers()[0], shell=shell)
    return text


def _parsers() -> tuple[argparse.ArgumentParser, Sequence[str]]:
    """Return the parser of all commands, and their names."""
    parser = Parser(
        prog="ddmpi",
        usage="ddmpi TABLE -o FOLDER [options]\n       ddmpi COMMAND ... (ddmpi COMMAND --help has its options)",
        description="Download a table of URLs into a Parquet dataset. Run the same command again to go on after a stop."
        "\nCONFIG is a YAML file, or the output folder of a table that was downloaded without one.",
        epilog=EPILOG.partition('"ddmpi --help"')[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ddmpi {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, prog="ddmpi")
    _add_downloads(commands)
    _add_questions(commands)
    _add_others(commands)
    return parser, list(commands.choices)


_Commands = argparse._SubParsersAction  # noqa: SLF001  # argparse has no public name for what add_subparsers returns


def _with_config(commands: _Commands[Parser], name: str, summary: str, **values: object) -> Parser:
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the YAML file, or the output folder")
    parser.set_defaults(**values)
    return parser


def _add_downloads(commands: _Commands[Parser]) -> None:
    table = commands.add_parser(
        _DOWNLOAD, help="TABLE -o FOLDER: download a table, without a config; the word itself may be left out"
    )
    table.add_argument("table", metavar="TABLE", help="file, folder or glob; .parquet .csv .tsv .txt .jsonl .json ...")
    table.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder for the results")
    table.add_argument("--url", metavar="COLUMN", help="the column with the URLs, if it is not called identifier")
    table.add_argument("--keep", nargs="+", metavar="COLUMN", help="further columns to carry into the results")
    table.add_argument("--preset", metavar="NAME", help="keys for a well-known table; see ddmpi presets")
    table.add_argument("--filter", metavar="TEXT", help="which rows to take, as 'license == \"CC0\"'")
    table.add_argument("--limit", metavar="ROWS", help="try it on the first rows only, in a folder of its own")
    table.add_argument("--rate", metavar="N", help="requests per second for one server (default 10)")
    table.add_argument("--image-size", metavar="PX", help="longest side of the images; 0 = as they are (default)")
    table.add_argument("--contact", metavar="URL|MAIL", help="whom the operator of a server can ask")
    add_run_options(table)
    run = _with_config(commands, "run", "start or resume the download of a config")
    add_resets(run.add_mutually_exclusive_group())
    add_deletion(run)
    add_run_options(run)
    retry = _with_config(commands, "retry-failed", "fetch error rows again", retry_failed=[])
    retry.add_argument("retry_words", nargs="*", metavar=RETRY_WORD, help=RETRY_HELP)
    add_run_options(retry)
    give_up = _with_config(commands, "give-up", "make rows that wait for servers errors now")
    give_up.add_argument("give_up", nargs="*", metavar="SERVER", help=GIVE_UP_HELP)
    add_run_options(give_up)


def _add_questions(commands: _Commands[Parser]) -> None:
    check = _with_config(commands, "check", "read the input and say what it holds; nothing is asked", check=True)
    plan = _with_config(commands, "plan", "predict time, ranks and bytes; no server is asked", plan=True)
    plan.add_argument("--ranks", type=int, metavar="N", help="predict for N ranks")
    status = _with_config(commands, "status", "what the output folder holds, also while a run is on", status=True)
    form = status.add_mutually_exclusive_group()
    form.add_argument("--watch", action="store_true", help="again every 5 s, as long as a run is on")
    form.add_argument("--json", action="store_true", help="for programs")
    verify = _with_config(commands, "verify", "check every row from the files alone", verify=True)
    verify.add_argument("--rehash", action="store_true", help="recompute all digests")
    errors = _with_config(commands, "errors", "count the errors, each with an example")
    errors.add_argument("--by", dest="errors_by", choices=("kind", "code", "server"), default="kind")
    errors.add_argument("--csv", action="store_true", help="for programs")
    report = _with_config(commands, "report", "write report.html anew, from what the output folder holds", report=True)
    audit = _with_config(commands, "audit", "what the last run has asked of a server, for its operator")
    audit.add_argument("audit", nargs="?", default="", metavar="SERVER", help=AUDIT_HELP)
    forget = _with_config(commands, "forget", "remove withdrawn images for good")
    forget.add_argument("forget", type=Path, metavar="FILE", help=FORGET_HELP)
    for parser in (check, plan, status, verify, errors, report, audit, forget):
        add_settings(parser)


def _add_others(commands: _Commands[Parser]) -> None:
    commands.add_parser(EXPORT, help="results in other formats: WebDataset shards, files, Parquet", add_help=False)
    commands.add_parser(PRESETS, help="the datasets whose tables are known, or the keys for one", add_help=False)
    summary = "look at a table and write a config for it, with comments"
    init = commands.add_parser("init", help=summary, description=summary)
    init.add_argument("table", metavar="TABLE")
    init.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the file to write (TABLE's name with .yaml); - prints",
    )
    init.set_defaults(init=True)
    summary = "print the completion script of a shell"
    shell = commands.add_parser("completion", help=summary, description=f"{summary} (needs ddmpi[completion])")
    shell.add_argument("completion", choices=_SHELLS, metavar="|".join(_SHELLS))
