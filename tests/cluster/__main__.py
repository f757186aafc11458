"""A cluster to try things by hand: ``python -m tests.cluster FOLDER``, until SIGINT or SIGTERM.

Prints the variable that leads Slurm's commands to it, e.g. ``SLURM_CONF=FOLDER/slurm.conf sbatch run.sh CONFIG.yaml``.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.cluster.slurm import running_cluster


def main(arguments: list[str]) -> int:
    """Run until a signal; 2 for wrong arguments. Raises ClusterError where the cluster does not start."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tests.cluster FOLDER\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_cluster(Path(arguments[0]).resolve()) as cluster:
            sys.stdout.write(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}\n")
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        return 0
    raise AssertionError("signal.pause ends only for a signal, and both raise")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
