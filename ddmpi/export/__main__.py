"""``python -m ddmpi.export OUT TARGET --to FORMAT``, alone or under mpiexec."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ddmpi.errors import EXIT_DONE, SetupError
from ddmpi.export.options import Order, parse_order
from ddmpi.io.mpi.launcher import Alone, Ranks, refuse_start, run_together, start_mpi
from ddmpi.io.process import LAUNCHED_BY, die_with_launcher, leave_out_pandas


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    die_with_launcher(os.environ)
    argv = sys.argv[1:] if argv is None else argv
    order = parse_order(argv)
    try:
        ranks = _ranks()
    except SetupError as error:
        return refuse_start(error, os.environ)
    return run_together(ranks, lambda: _run(order, ranks), argv)


def _ranks() -> Ranks:
    """Return the ranks to work with: one process needs no MPI, not even an installed one."""
    if not any(name in os.environ for name in LAUNCHED_BY):
        return Alone()
    return start_mpi(os.environ)


def _run(order: Order, ranks: Ranks) -> int:
    from ddmpi.export.run import export  # noqa: PLC0415  # pyarrow

    export(order, ranks, _say, os.environ)
    return EXIT_DONE


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    leave_out_pandas()
    sys.exit(main())
