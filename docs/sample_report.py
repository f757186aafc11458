"""Made-up reports, for screenshots and for looking at the page: ``python -m docs.sample_report SERVERS > page.html``.

The numbers are random, by a fixed seed, and no server of these names exists.
"""

from __future__ import annotations

import base64
import random
import struct
import sys
import zlib
from collections import Counter
from datetime import datetime, timezone

import msgspec

from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.core.records import Picture
from ddmpi.core.stats.audit import Audited
from ddmpi.core.stats.metrics import Measurement
from ddmpi.core.stats.timeline import BINS, Timeline
from ddmpi.core.stats.timeline import Wait as Pause
from ddmpi.core.stats.usage import GroupUsage
from ddmpi.report.data import (
    MOST_SERVERS,
    FailureKey,
    Failures,
    Report,
    ServerLine,
    Summary,
    failure_text,
    points_of,
    runs_of,
)
from ddmpi.report.page import render
from ddmpi.report.pending import pending_text

FAILURES = (
    ("http_status", 404, 0.35), ("http_status", 403, 0.12), ("http_status", 500, 0.08), ("dns", -1, 0.22),
    ("timeout", -1, 0.1), ("connect", -1, 0.06), ("wrong_type", -2, 0.04), ("tls", -1, 0.02), ("decode", -2, 0.01),
)  # fmt: skip
"""Kind, code and how frequent they are."""
HOSTS = ("images", "media", "cdn", "static", "herbarium")
DOMAINS = ("example.org", "museum.example", "example.net")
START_UNIX_S = 1_893_456_000.0
"""2030-01-01."""
ENDED_UNIX_S = START_UNIX_S + 30.0 * 600 + 3600.0


def sample_report(servers: int, seed: int = 1) -> Report:
    """A report of two runs over so many servers, the first of which was killed."""
    rng = random.Random(seed)
    failures: dict[FailureKey, Failures] = {}
    found = sorted((_server(rng, number, failures) for number in range(servers)), key=lambda line: -line.rows)
    lines = found[:MOST_SERVERS]
    rows, successes, errors = (sum(getattr(line, name) for line in lines) for name in ("rows", "successes", "errors"))
    kinds: Counter[str] = Counter()
    for (_, kind, _), it in failures.items():
        kinds[kind] += it.rows
    measured = _measurements(rng, rows, successes, kinds)
    points, breaks_s = points_of(measured)
    runs = runs_of(measured, run=2)
    left = sorted(((line.name, line.pending / (line.limit_per_s or 10)) for line in lines), key=lambda it: -it[1])
    waits = [
        Wait(line.name, line.pending, ENDED_UNIX_S + 420.0, "HTTP status 429, Retry-After 600 s") for line in lines
        if line.pending
    ]  # fmt: skip
    pending = sum(line.pending for line in lines)
    waiting = Waiting(tuple(sorted(waits, key=lambda it: -it.rows)), len(waits), pending, ENDED_UNIX_S + 420.0)
    summary = Summary(
        rows=rows,
        successes=successes,
        errors=errors,
        pending=pending,
        kinds=dict(kinds),
        fetched_bytes=runs[0].bytes,
        fetched_rows=runs[0].rows,
        requests=runs[0].requests,
        seconds=runs[0].seconds,
        slowest=[it for it in left[:5] if it[1]],
        output="/data/butterflies",
        ending=pending_text(pending, msgspec.structs.replace(waiting, listed=waiting.listed[:3]), ENDED_UNIX_S)
        or "Done: every row is final.",
        respect="Usage signals are kept with the files, and obeyed where they forbid to store them",
        signals={"x-robots-tag: noai": (1_204, 0), "content-usage: train-ai=n": (322, 0)},
        waste=Audited("", runs[0].requests, bytes=runs[0].bytes, urls=runs[0].rows, refused=int(errors * 0.6),
                      kept_bytes=int(runs[0].bytes * 0.93)),
    )  # fmt: skip
    return Report(
        summary=summary,
        exit_code=75 if pending else 0,
        ended_at=ENDED_UNIX_S,
        origin="Run 2 over urls.parquet; ranks: 16; ended 2030-01-01 06:00:00+00:00; ddmpi 1.0",
        places={"the files": "images", "rows that failed for good": "errors", "one per rank, and metrics": "logs"},
        points=points,
        bound_s=runs[0].seconds * 0.94,
        bound_by=lines[0].name,
        download_s=runs[0].seconds * 0.98,
        servers=lines,
        rest=None,
        server_count=servers,
        waiting=waiting,
        failures=failures,
        timelines=[_timeline(rng, line) for line in lines[:20]],
        timeline_span=(ENDED_UNIX_S - 59.5 * 200.0, 200.0),
        runs=runs,
        breaks_s=breaks_s,
        changes=[f"{lines[1].name}: paused", f"{lines[2].name}: now 2 requests/s"],
        pictures=[Picture(_image(rng), rng.choice(lines).name) for _ in range(24)],
    )


def _server(rng: random.Random, number: int, failures: dict[FailureKey, Failures]) -> ServerLine:
    name = f"{rng.choice(HOSTS)}{number}.{rng.choice(DOMAINS)}"
    rows = int(rng.paretovariate(0.9) * 60)
    errors = int(rows * rng.choice([0.0, 0.01, 0.05, 0.3]))
    pending = int((rows - errors) * rng.choice([0.0] * 12 + [0.4]))
    limit_per_s = rng.choice([1.0, 5.0, 10.0, 10.0, 25.0])
    p50_s = rng.choice([0.02, 0.08, 0.2, 0.9])
    throttled, paused_s = rng.choice([0, 0, 0, 4, 31]), rng.choice([0.0, 0.0, 120.0])
    requests, size_bytes = int(rows * 1.03), rng.randrange(9_000, 400_000)
    usage = GroupUsage(requests, throttled, requests * 90_000, rows / limit_per_s / 0.97, paused_s, p50_s, p50_s * 3)
    busiest = min(requests, int(limit_per_s * 60))
    audited = Audited(
        name, requests, min(requests, int(limit_per_s)), busiest, 8, requests * size_bytes, throttled, throttled // 4,
        paused_s, rows - pending, errors, (rows - errors - pending) * size_bytes,
    )  # fmt: skip
    (kind, code), text = rng.choices(FAILURES, [share for *_, share in FAILURES])[0][:2], ""
    if errors:
        text = failure_text(kind, code)
        urls = tuple(f"https://{name}/specimens/{rng.randrange(10**6)}/large.jpg" for _ in range(min(3, errors)))
        failures[name, kind, code] = Failures(errors, urls)
    return ServerLine(
        name, rows, rows - errors - pending, errors, failure=text,
        waits="06:07:00 (HTTP status 429, Retry-After 600 s)" if pending else "",
        limit_per_s=limit_per_s, size_bytes=size_bytes, reached_per_s=usage.rate_per_s, usage=usage, audited=audited,
    )  # fmt: skip


def _timeline(rng: random.Random, line: ServerLine) -> Timeline:
    begin = ENDED_UNIX_S - 59.5 * 200.0
    span = rng.randrange(30, 60)
    begins = sorted(begin + 200.0 * rng.uniform(0, span - 5) for _ in range(rng.choice([0, 0, 1, 3])))
    pauses = [Pause(at, at + rng.uniform(100.0, 900.0), rng.random() < 0.3) for at in begins]
    if line.pending:
        pauses.append(Pause(ENDED_UNIX_S - 180.0, ENDED_UNIX_S, is_parked=False))
    weights = []
    for bin_number in range(BINS):
        middle = begin + 200.0 * (bin_number + 0.5)
        is_asked = bin_number < span and not any(it.begin <= middle < it.end for it in pauses)
        weights.append(rng.uniform(0.8, 1.0) if is_asked else 0.0)
    requests = 0.6 * (line.usage.requests if line.usage else 0)  # the rest was the first run's
    asked = [round(requests * weight / sum(weights)) for weight in weights]
    return Timeline(line.name, tuple(asked), tuple(round(it / 1.03) for it in asked), tuple(pauses))


def _measurements(rng: random.Random, rows: int, successes: int, kinds: Counter[str]) -> list[Measurement]:
    """Two runs of 200 and 400 moments, slower towards their end."""
    found = []
    weights = [rng.uniform(0.7, 1.3) * (1.0 if step < 450 else 0.35) for step in range(600)]
    done, errors = 0.0, kinds.total()
    for step, weight in enumerate(weights):
        done += weight / sum(weights)
        run = 1 if step < 200 else 2
        unix_s = START_UNIX_S + 30.0 * step + (3600.0 if run == 2 else 0.0)
        until_now = {kind: round(count * done ** (2 if kind == "dns" else 1)) for kind, count in kinds.items()}
        fetched = int((successes + errors) * done)
        found.append(
            Measurement(
                datetime.fromtimestamp(unix_s, timezone.utc).isoformat(),
                unix_s, run, "downloading", 8 * run, rows, int(successes * done), int(errors * done), 0, fetched,
                int(fetched * 1.03), fetched * 90_000, error_kinds=until_now,
            )
        )  # fmt: skip
    return found


def _image(rng: random.Random) -> str:
    """A PNG of a soft gradient, 48 x 36."""
    red, green, blue = (rng.randrange(40, 200) for _ in range(3))
    pixels = [[bytes((red + y, green + x, blue + x)) for x in range(48)] for y in range(36)]
    rows = b"".join(b"\0" + b"".join(line) for line in pixels)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 48, 36, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


if __name__ == "__main__":
    sys.stdout.write(render(sample_report(int(sys.argv[1]))))
