"""``ddmpi presets [NAME]``: which presets there are, or the YAML of one. Needs no MPI, and no config."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from ddmpi.errors import EXIT_DONE, EXIT_SETUP
from ddmpi.io.mpi.launcher import complain, speaks


def run(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Print what was asked for, once on each node; returns the exit code."""
    from ddmpi.config import presets  # noqa: PLC0415  # the YAML parser, which no other command needs so early

    parser = argparse.ArgumentParser(
        prog="ddmpi presets",
        description="Keys for tables that many people have. Take them by 'preset: NAME' in your config.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this one, as YAML; without: list all")
    name = parser.parse_args(argv).name
    if not speaks(environment):
        return EXIT_DONE
    if name is None:
        width = max(map(len, presets.names()))
        sys.stdout.writelines(f"{known:{width}}  {presets.summary_of(known)}\n" for known in presets.names())
        return EXIT_DONE
    try:
        sys.stdout.write(presets.text_of(name))
    except ValueError as error:
        complain(f"{name}: expected {error}")
        return EXIT_SETUP
    return EXIT_DONE
