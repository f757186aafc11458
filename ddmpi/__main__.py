"""``mpiexec -n N python -m ddmpi CONFIG.yaml``: argv -> config (rank 0) -> role -> one exit code for all ranks."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from ddmpi.cli import presets
from ddmpi.cli.arguments import Arguments, parse_arguments
from ddmpi.errors import DdmpiError, SetupError
from ddmpi.io.mpi.launcher import complain, refuse_start, run_together, start_mpi
from ddmpi.io.process import die_with_launcher, leave_out_pandas, leave_out_plugins, use_one_allocator


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    die_with_launcher(os.environ)
    use_one_allocator(os.environ)
    leave_out_plugins(os.environ)
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == [presets.COMMAND]:
        return presets.run(argv[1:], os.environ)
    arguments = parse_arguments(argv)
    if arguments.is_local:
        return _run_local(arguments)
    from ddmpi.roles.signals import Signals  # noqa: PLC0415

    gc.disable()  # while libraries are loaded: there is no garbage, and looking for it takes a tenth of the start
    signals = Signals()  # first: what is loaded below takes a second, and a stop signal would kill it
    try:
        world = start_mpi(os.environ)
    except SetupError as error:
        return refuse_start(error, os.environ)

    def run() -> int:
        # numpy, pyarrow and libcurl take their time to load
        from ddmpi.config import config  # noqa: PLC0415
        from ddmpi.roles import program  # noqa: PLC0415

        def read_config() -> config.Config:
            found = config.load(arguments.config)
            return found.with_debug() if arguments.debug else found

        code = program.run(world, read_config, arguments.orders, os.environ, signals)
        signals.ignore()
        return code

    return run_together(world, run, argv)


def _run_local(arguments: Arguments) -> int:
    from ddmpi.cli import inspection  # noqa: PLC0415

    try:
        return inspection.run(arguments, os.environ)
    except DdmpiError as error:
        complain(str(error))
        return error.exit_code


if __name__ == "__main__":
    leave_out_pandas()
    sys.exit(main())
