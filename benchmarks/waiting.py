"""What ranks cost while a run waits for a server: ``python -m benchmarks.waiting``.

Two servers are downloaded, one of which is out of reach. From the moment on at which the checkpoint says that the run
waits for it, each rank's processor time is measured for ``--seconds``. The last line is JSON: the share of a core that
each rank uses, in percent, rank 0 first (allowed is 1).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import numbers_of, usage_of
from tests.fleet.process import running_fleet
from tests.fleet.spec import Mode, ServerSpec, plain_address
from tests.whole.job import ends_within, finish, make_job, ranks_of, signal_run, wait_until


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args(argv)
    specs = [ServerSpec(plain_address(0)), ServerSpec(plain_address(1), mode=Mode.REFUSED)]
    with tempfile.TemporaryDirectory() as name, running_fleet(Path(name) / "fleet", specs, 200) as fleet:
        job = make_job(Path(name) / "job", fleet.table_path, backoff={"base_s": 600, "cap_s": 3600})
        run = job.start(options.ranks)
        try:
            checkpoint = job.output / "checkpoint.json"
            wait_until(lambda: checkpoint.exists() and "out of reach" in checkpoint.read_text(), run)
            numbers = numbers_of(ranks_of(run))
            before = {number: usage_of(pid) for pid, number in numbers.items()}
            began_at = time.monotonic()
            if ends_within(run, options.seconds):
                raise RuntimeError(f"the run did not wait:\n{finish(run)[1][-3000:]}")
            seconds = time.monotonic() - began_at
            after = {number: usage_of(pid) for pid, number in numbers.items()}
            signal_run(run, signal.SIGTERM)
            print(finish(run)[1][-900:], flush=True)
        finally:
            job.close()
    used = [(before[number], after[number]) for number in sorted(before)]
    shares = [round(100 * (end.cpu_s - begin.cpu_s) / seconds, 2) for begin, end in used if begin and end]
    print(json.dumps({"percent_of_a_core": shares, "seconds": round(seconds, 1), "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
