"""A fault of the disk, or a SIGKILL, at the n-th file operation of a run: for every n, once and from then on.

``python -m tests.chaos.io_faults`` tries them all (half an hour and more); ``--share 1/8`` to ``--share 8/8`` do it in
pieces, and ``--sample 50`` takes some, chosen at random. It goes faster with TMPDIR on a file system in memory. Each
trial is one run with the fault over a new output folder or a half-finished one, and one more without:

- the first ends with 0, 2 or 75, and unless with 0, with a message that names the fault; never with a traceback;
- then every part is readable, no row is there twice, every body is as served;
- the second ends with 0: every row is there, verification agrees, and no temporary file is left.

The last line is JSON; exit code 1 if a trial failed.
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import yaml

from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.verification import check_batch
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from tests.chaos.evidence import examine
from tests.chaos.faults import CALLS_OF, Fault, built
from tests.chaos.forked import ForkedRun, Forker, forker
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import make_job

ROWS = 8
SERVERS = 2
Start = Literal["new", "half-finished"]
STARTS: tuple[Start, Start] = ("new", "half-finished")
ACTIONS: dict[str, int | str] = {errno.errorcode[code]: code for code in CALLS_OF} | {
    "before": "before",
    "after": "after",
}


@dataclass(frozen=True)
class Trial:
    """One fault, in a run over one kind of output folder."""

    start: Start
    fault: Fault

    def __str__(self) -> str:
        return f"{self.start} folder, {self.fault}"


@dataclass(frozen=True)
class Share:
    """The ``number``-th (from 1) of ``of`` shares of all trials.

    A trial's own call decides, not its place among the others: a run makes a few calls more or less from time to time,
    and still no trial is in two shares or in none.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share that "3/8" means. Raises ValueError."""
        number, of = (int(part) for part in text.split("/"))
        if not 1 <= number <= of:
            raise ValueError(text)
        return cls(number, of)

    def __contains__(self, trial: Trial) -> bool:
        return trial.fault.at % self.of == self.number % self.of

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class Bench:
    """Where trials run, one at a time: a folder, a process to fork from, half-finished output to begin with."""

    def __init__(self, folder: Path, fleet: RunningFleet, forker: Forker) -> None:
        self._fleet = fleet
        self._forker = forker
        self._log = folder / "calls.txt"
        self._half_finished = folder / "half-finished"
        self._job = make_job(
            folder,
            fleet.table_path,
            downloader_parameters={"batch_size": ROWS // SERVERS},
            profiling={"mode": "uniform"},
        )
        self._config = folder / "config.yaml"
        self._config.write_text(yaml.safe_dump(self._job.config))
        self._prepare()

    def count(self, start: Start, fault: Fault) -> int:
        """How many calls a run makes at which this fault could be."""
        run = self._begin(start, fault)
        assert run.code == 0, run.printed
        return len(self._calls())

    def problems(self, trial: Trial) -> tuple[int, list[str]]:
        """The exit code of the run with the fault, and what is wrong with it or with what it has left."""
        run = self._begin(trial.start, trial.fault)
        has_fired = len(self._calls()) >= trial.fault.at
        problems = list(_complaints(run, trial.fault) if has_fired else _complaints(run, None))
        evidence = examine(self._job, self._fleet)
        if not evidence.is_sound:
            problems.append(f"after the fault: {evidence}")
        if run.code == 0 and evidence.lost(ROWS):
            problems.append(f"exit code 0, and {evidence.lost(ROWS)} rows missing")
        return run.code, problems + list(self._restart_problems())

    def _restart_problems(self) -> Iterator[str]:
        run = self._forker.run([str(self._config)], {})
        evidence = examine(self._job, self._fleet)
        if run.code != 0 or evidence.lost(ROWS) or not evidence.is_sound:
            yield f"after the restart, which ended with {run.code}: {evidence}\n{run.printed}"
            return
        left = [path for path in self._job.output.rglob(".*") if path.is_file() or path.name.endswith(".partial")]
        left += [path for path in Layout(self._job.output).temporary.glob("*") if path.is_file()]
        if left:
            yield f"left behind: {left}"
        layout = Layout(self._job.output)
        table, reader = BatchTable(layout), BatchReader(layout.urls)
        for batch_id in range(len(table)):
            check = check_batch(layout, reader, table.ref(batch_id), 0, rehash="sha256")
            if not check.ok or check.pending:
                yield f"verification: {check}"

    def _begin(self, start: Start, fault: Fault) -> ForkedRun:
        shutil.rmtree(self._job.output, ignore_errors=True)
        if start == "half-finished":
            shutil.copytree(self._half_finished, self._job.output)
        self._log.write_text("")
        return self._forker.run([str(self._config)], fault.environment(self._job.output, self._log))

    def _calls(self) -> list[str]:
        return self._log.read_text().splitlines()

    def _prepare(self) -> None:
        """Kill a run after its first part, while it writes the second one or a marker."""
        self.count("new", Fault("after"))
        parts = [index for index, call in enumerate(self._calls(), 1) if " rename " in call and "/images/" in call]
        self._begin("new", Fault("after", parts[0] + 2))
        assert 0 < examine(self._job, self._fleet).lost(ROWS) < ROWS
        self._job.output.rename(self._half_finished)


def _complaints(run: ForkedRun, fault: Fault | None) -> Iterator[str]:
    """What is wrong with the way in which a run has ended. ``fault``: None if it never came to that call."""
    if fault is None:
        if run.code != 0:
            yield f"without a fault: exit code {run.code}\n{run.printed}"
    elif fault.is_kill:
        if run.code != -9:
            yield f"exit code {run.code} instead of a kill\n{run.printed}"
    elif run.code not in {0, 2, 75}:
        yield f"exit code {run.code}\n{run.printed}"
    elif run.code and not fault.is_named_in(run.printed):
        yield f"exit code {run.code}, and no word of the fault\n{run.printed}"
    if "Traceback" in run.printed:
        yield f"a traceback\n{run.printed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=Share.parse, default=Share(1, 1), help="only this share: 3/8 is the third of 8")
    parser.add_argument("--sample", type=int, default=0, help="so many trials, chosen at random; 0: all (default)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", choices=STARTS, help="only over this kind of output folder")
    parser.add_argument("--errno", help='only this fault: ENOSPC and so on, "before" or "after"')
    parser.add_argument("--at-once", type=int, default=2, help="trials that run beside each other (default 2)")
    given = parser.parse_args(argv)
    starts = (given.start,) if given.start else STARTS
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ddmpi-faults-") as name, ExitStack() as stack:
        folder = Path(name)
        library = built(folder)
        fleet = stack.enter_context(running_fleet(folder / "fleet", plain_fleet(SERVERS), ROWS))
        benches: SimpleQueue[Bench] = SimpleQueue()
        for number in range(given.at_once):
            place = folder / str(number)
            place.mkdir()
            benches.put(Bench(place, fleet, stack.enter_context(forker(place, library))))
        everything = [trial for trial in all_trials(benches, starts, given.errno) if trial in given.share]
        trials = chosen(everything, given.sample, given.seed)
        ends: Counter[int] = Counter()
        failed = 0
        with ThreadPoolExecutor(given.at_once) as pool:
            for trial, (code, problems) in zip(trials, pool.map(lambda it: perform(benches, it), trials), strict=True):
                ends[code] += 1
                failed += bool(problems)
                for problem in problems:
                    print(f"{trial}: {problem}", flush=True)
    print(f"exit codes of the runs with a fault: {dict(sorted(ends.items()))}")
    result = {"share": str(given.share), "of_share": len(everything), "trials": len(trials), "failed": failed}
    print(json.dumps({**result, "seconds": round(time.monotonic() - started_at)}))
    return 1 if failed else 0


def all_trials(benches: SimpleQueue[Bench], starts: Sequence[Start], only: str | None) -> Iterator[Trial]:
    """Every fault at every call at which it can be."""
    bench = benches.get()
    for start in starts:
        for name, action in ACTIONS.items():
            if only not in {None, name}:
                continue
            for at in range(1, bench.count(start, Fault(action)) + 1):
                yield Trial(start, Fault(action, at))
                if isinstance(action, int):
                    yield Trial(start, Fault(action, at, lasting=True))
    benches.put(bench)


def chosen(trials: Sequence[Trial], sample: int, seed: int) -> Sequence[Trial]:
    """All of them, or some at random."""
    return random.Random(seed).sample(trials, min(sample, len(trials))) if sample else trials


def perform(benches: SimpleQueue[Bench], trial: Trial) -> tuple[int, list[str]]:
    """Run a trial on a free bench."""
    bench = benches.get()
    try:
        return bench.problems(trial)
    finally:
        benches.put(bench)


if __name__ == "__main__":
    sys.exit(main())
