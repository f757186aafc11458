"""Random answers by the hundred thousand: ``python -m tests.hostile.random_answers --answers 100000``.

A server in a process of its own answers with what ``mutations`` makes up. The requests, verdicts and results here are
those of the program, in one process whose memory is watched. Prints what it sees, and as its last line JSON:

- ``crashes``: 1 if an exception ended the run;
- ``hangs``: requests that took longer than their time-out allows;
- ``false_successes``: successes that another HTTP reader would not have called so;
- ``unaccounted``: answers without exactly one row in the results;
- ``rss_growth_mb``: growth of this process's memory after the first tenth of the answers.

Exit code 1 unless all of the first four are 0 and memory grew by less than ``RSS_SLACK_MB``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ddmpi.config.sections import DownloaderParameters
from ddmpi.core.records import Answer, BatchRef, ErrorKind, Failure, Task
from ddmpi.core.rules.addresses import address_rule
from ddmpi.core.rules.verdict import Outcome, classify
from ddmpi.io.folder.layout import Layout
from ddmpi.io.http.transfers import Transfers
from ddmpi.io.results.writer import ResultWriter
from tests.hostile.mutations import answer_bytes, objection
from tests.io.result_data import committed, make_batch, open_writer

ADDRESSES = [f"127.41.0.{number}" for number in range(1, 17)]
"""Several: a pair of addresses has 28,000 ports, each of which rests for a minute after use."""
IN_FLIGHT = 64
BATCH_ROWS = 5000
TOTAL_TIMEOUT_S = 5.0
RSS_SLACK_MB = 30.0
PROGRESS_S = 10.0
ROOT = Path(__file__).resolve().parents[2]


class _Connection(asyncio.Protocol):
    """Answers the number in the first path, and closes."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" in self._received and not self._transport.is_closing():
            number = int(self._received.split(b" ", 2)[1][1:])
            self._transport.write(answer_bytes(self._seed, number))
            self._transport.close()


async def _serve(seed: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: _Connection(seed), ADDRESSES[0], 0, backlog=1024)]
    port = servers[0].sockets[0].getsockname()[1]
    servers += [await loop.create_server(lambda: _Connection(seed), host, port) for host in ADDRESSES[1:]]
    print(port, flush=True)
    # Ends with its parent, which holds the other end.
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


@contextmanager
def _running_server(seed: int) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.hostile.random_answers", "--serve", "--seed", str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate(timeout=10)


class Run:
    """One run of so many answers over a folder."""

    def __init__(self, answers: int, seed: int, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.false_successes: list[str] = []
        self._answers = answers
        self._seed = seed
        self._writer: ResultWriter = open_writer(Layout(folder))
        self._batches: dict[int, BatchRef] = {}
        self._rss_mb: list[float] = []
        parameters = DownloaderParameters(
            connect_timeout_s=TOTAL_TIMEOUT_S,
            stall_timeout_s=2,
            total_timeout_s=TOTAL_TIMEOUT_S,
            max_file_bytes=1_000_000,
            proxy="",
        )
        may_connect = address_rule([ip_network("127.0.0.0/8")])
        self._transfers = Transfers(parameters, ["User-Agent: ddmpi-tests"], IN_FLIGHT, may_connect)

    def run(self, port: int) -> None:
        started_at = told_at = time.monotonic()
        following = 0
        done = 0
        while done < self._answers:
            while following < self._answers and self._transfers.in_flight < IN_FLIGHT:
                self._start(following, port)
                following += 1
            for answer in self._transfers.poll(1.0):
                self._take(answer)
                done += 1
                if done % BATCH_ROWS == 0:
                    self._writer.close_parts(1)
                if done % max(1, self._answers // 10) == 0:
                    self._rss_mb.append(_rss_mb())
            if time.monotonic() - told_at > PROGRESS_S:
                told_at = time.monotonic()
                print(f"{done} answers in {told_at - started_at:.0f} s, {_rss_mb():.0f} MB", flush=True)
        self._transfers.close()
        self._writer.stop()

    def _start(self, number: int, port: int) -> None:
        server = f"{ADDRESSES[number % len(ADDRESSES)]}:{port}"
        batch_id, row = divmod(number, BATCH_ROWS)
        self._batches.setdefault(batch_id, make_batch(batch_id, BATCH_ROWS, server))
        self._transfers.start(Task(batch_id, row, f"http://{server}/{number}", server))

    def _take(self, answer: Answer) -> None:
        task = answer.task
        batch = self._batches[task.batch_id]
        verdict = classify(answer, "any" if task.row % 3 == 0 else "image", max_redirects=5)
        if answer.total_s > TOTAL_TIMEOUT_S + 1:
            self.counts["hangs"] += 1
        if verdict.outcome is Outcome.SUCCESS:
            self._judge(task.batch_id * BATCH_ROWS + task.row, answer)
            self._writer.success(batch, task.rows, answer)
        else:
            failure = verdict.failure or Failure(ErrorKind.REDIRECT, -2, "not followed here")
            assert failure.message.isprintable(), failure.message
            self._writer.error(batch, task.rows, failure, answer, 1)
            self.counts[failure.kind.value] += 1

    def _judge(self, number: int, answer: Answer) -> None:
        self.counts["successes"] += 1
        told = objection(answer_bytes(self._seed, number), answer.body)
        if told:
            self.false_successes.append(f"answer {number}: {told}")

    def result(self) -> dict[str, Any]:
        """The last line, without ``crashes``."""
        rows: Counter[str] = Counter()
        for part in committed(self._writer.events()):
            rows["errors" if part.is_errors else "successes"] += part.rows
        successes, errors = self.counts["successes"], self._answers - self.counts["successes"]
        return {
            "answers": self._answers,
            "hangs": self.counts["hangs"],
            "false_successes": len(self.false_successes),
            "unaccounted": abs(successes - rows["successes"]) + abs(errors - rows["errors"]),
            "successes": successes,
            "rss_growth_mb": round(self._rss_mb[-1] - self._rss_mb[0], 1),
        }


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def run_answers(answers: int, seed: int) -> dict[str, Any]:
    """Fetch so many random answers; what the last line says."""
    with tempfile.TemporaryDirectory() as folder, _running_server(seed) as port:
        run = Run(answers, seed, Path(folder))
        started_at = time.monotonic()
        try:
            run.run(port)
            result = {"crashes": 0, **run.result()}
        except Exception:  # noqa: BLE001  # told, counted, and the reason for exit code 1
            traceback.print_exc()
            result = {"crashes": 1, "answers": answers}
        for text in run.false_successes[:20]:
            print(text)
        print(", ".join(f"{kind} {count}" for kind, count in run.counts.most_common()))
        return {**result, "seconds": round(time.monotonic() - started_at, 1)}


def is_good(result: dict[str, Any]) -> bool:
    """Whether everything is as it must be."""
    bad = ("crashes", "hangs", "false_successes", "unaccounted")
    return all(result.get(name, 1) == 0 for name in bad) and result["rss_growth_mb"] < RSS_SLACK_MB


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.random_answers")
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        asyncio.run(_serve(options.seed))
        return 0
    result = run_answers(options.answers, options.seed)
    print(json.dumps(result))
    return 0 if is_good(result) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
