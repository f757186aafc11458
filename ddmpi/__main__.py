"""``ddmpi``, or ``mpiexec -n N python -m ddmpi``: argv -> config (rank 0) -> role -> one exit code for all ranks.

Nothing heavy is imported before the command line is read.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddmpi.cli.commands import EXPORT, PRESETS, read_command
from ddmpi.errors import EXIT_BUG, EXIT_DONE, EXIT_LOST, DdmpiError, SetupError
from ddmpi.io.process import die_with_launcher, leave_out_pandas, leave_out_plugins, use_one_allocator

if TYPE_CHECKING:
    from ddmpi.cli.arguments import Arguments
    from ddmpi.config.config import Config


def console() -> int:
    """Run the console script: as ``main``, but in the script of a Slurm job with as many ranks as it has tasks."""
    leave_out_pandas()
    if "SLURM_JOB_ID" not in os.environ:
        return main()
    from ddmpi.cli.mpiexec import tasks_of_job  # noqa: PLC0415

    return main(tasks=tasks_of_job(os.environ))


def main(argv: Sequence[str] | None = None, tasks: int | None = None) -> int:
    """Run the program; returns the exit code. ``tasks`` is how many ranks are started where -n is not given."""
    die_with_launcher(os.environ)
    use_one_allocator(os.environ)
    leave_out_plugins(os.environ)
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == [PRESETS]:
        from ddmpi.cli import presets  # noqa: PLC0415

        return presets.run(argv[1:], os.environ)
    if argv[:1] == [EXPORT]:
        return _export(argv)
    arguments = read_command(argv)
    if arguments.is_local:
        return _run_local(arguments)
    if ranks := arguments.start or tasks:
        return _start_ranks(arguments, argv, ranks)
    return _run_rank(arguments, argv)


def _run_rank(arguments: Arguments, argv: Sequence[str]) -> int:
    from ddmpi.io.mpi.launcher import refuse_start, run_together, start_mpi  # noqa: PLC0415
    from ddmpi.roles.signals import Signals  # noqa: PLC0415

    gc.disable()  # while libraries are loaded: there is no garbage, and looking for it takes a tenth of the start
    signals = Signals()  # first: what is loaded below takes a second, and a stop signal would kill it
    try:
        world = start_mpi(os.environ)
    except SetupError as error:
        return refuse_start(error, os.environ)

    def run() -> int:
        # numpy, pyarrow and libcurl take their time to load
        from ddmpi.roles import program  # noqa: PLC0415

        code = program.run(world, lambda: _config_of(arguments), arguments.orders, os.environ, signals)
        signals.ignore()
        return code

    code = run_together(world, run, argv)
    gc.freeze()  # else the interpreter looks through all that it has loaded, several times, before it goes
    return code


def _config_of(arguments: Arguments) -> Config:
    from ddmpi.config import config  # noqa: PLC0415

    if arguments.table is not None:
        from ddmpi.cli.table_config import write_config  # noqa: PLC0415

        found = config.load(write_config(arguments))
    else:
        found = config.load(arguments.config, arguments.settings)
    return found.with_debug() if arguments.debug else found


def _export(argv: Sequence[str]) -> int:
    ranks = ranks_in(argv)
    if ranks is not None:
        return _start([EXPORT, *without_ranks(argv)[1:]], ranks)
    from ddmpi.export.__main__ import main as export  # noqa: PLC0415

    return export(argv[1:])


def _start_ranks(arguments: Arguments, argv: Sequence[str], ranks: int) -> int:
    from ddmpi.cli import mpiexec  # noqa: PLC0415
    from ddmpi.io.mpi.launcher import complain  # noqa: PLC0415

    submitted = os.environ.get(mpiexec.SUBMITTED)
    words = without_ranks(argv)
    if submitted and os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and arguments.has_orders:
        complain("requeued: what was ordered beside the download was done in the job's first run and is left out")
        words = ["run", str(arguments.config_path), *(f"--set={setting}" for setting in arguments.settings)]
    code = _start(words, ranks)
    if code == EXIT_DONE and _has_lost_ranks(arguments):
        complain("the launcher has lost ranks, although it ended with 0: run the same command again")
        code = EXIT_LOST
    if submitted:
        from ddmpi.cli import requeue  # noqa: PLC0415

        requeue.main([str(arguments.config_path), str(code)])
    return code


def _has_lost_ranks(arguments: Arguments) -> bool:
    """Return whether a run whose launcher ended with 0 still holds its output folder: Open MPI's does where it loses a
    node."""
    from ddmpi.io.folder.layout import configured_layout  # noqa: PLC0415

    try:
        return configured_layout(_config_of(arguments)).lock.exists()
    except DdmpiError:
        return False


def _start(words: Sequence[str], ranks: int) -> int:
    from ddmpi.cli import mpiexec  # noqa: PLC0415
    from ddmpi.io.mpi.launcher import refuse_start  # noqa: PLC0415

    try:
        return mpiexec.start(ranks, [sys.executable, "-m", "ddmpi", *words], os.environ)
    except SetupError as error:
        return refuse_start(error, os.environ)


def ranks_in(argv: Sequence[str]) -> int | None:
    """Return the number behind -n in a command line whose other options are not known here, None without it."""
    parser = argparse.ArgumentParser(prog="ddmpi", add_help=False, allow_abbrev=False)
    parser.add_argument("-n", type=int)
    number: int | None = parser.parse_known_args(argv)[0].n
    return number


def without_ranks(argv: Sequence[str]) -> list[str]:
    """Return a command line without -n and its number: that of each rank."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "-n":
            next(words)
        elif not (word.startswith("-n") and word[2:].isdigit()):
            kept.append(word)
    return kept


def _run_local(arguments: Arguments) -> int:
    from ddmpi.cli import inspection  # noqa: PLC0415
    from ddmpi.io.mpi.launcher import BUG, complain  # noqa: PLC0415

    try:
        return inspection.run(arguments, os.environ)
    except DdmpiError as error:
        complain(str(error))
        return error.exit_code
    except Exception:  # noqa: BLE001  # not swallowed: told as on a rank, with the code of a bug
        traceback.print_exc()
        complain(BUG)
        return EXIT_BUG


if __name__ == "__main__":
    leave_out_pandas()
    sys.exit(main())
