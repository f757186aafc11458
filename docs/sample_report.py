"""Made-up reports, for screenshots and for looking at the page: ``python -m docs.sample_report SERVERS > page.html``.

The numbers are random, by a fixed seed, and no server of these names exists.
"""

from __future__ import annotations

import base64
import random
import struct
import sys
import zlib
from datetime import datetime, timezone

from ddmpi.core.records import Picture
from ddmpi.core.stats.metrics import Measurement
from ddmpi.core.stats.usage import GroupUsage
from ddmpi.report.data import MOST_SERVERS, Audit, Report, ServerLine, Summary, points_of, runs_of
from ddmpi.report.page import render

KINDS = {
    "http_status": 0.55,
    "dns": 0.22,
    "timeout": 0.1,
    "connect": 0.06,
    "wrong_type": 0.04,
    "tls": 0.02,
    "decode": 0.01,
}
HOSTS = ("images", "media", "cdn", "static", "herbarium")
DOMAINS = ("example.org", "museum.example", "example.net")
START_UNIX_S = 1_893_456_000.0
"""2030-01-01."""


def sample_report(servers: int, seed: int = 1) -> Report:
    """A report of two runs over so many servers, the first of which was killed."""
    rng = random.Random(seed)
    lines = sorted((_server(rng, number) for number in range(servers)), key=lambda line: -line.rows)
    rows, successes, errors = (sum(getattr(line, name) for line in lines) for name in ("rows", "successes", "errors"))
    measured = _measurements(rng, rows, successes, errors)
    points, breaks_s = points_of(measured)
    runs = runs_of(measured, run=2)
    listed, others = lines[:MOST_SERVERS], lines[MOST_SERVERS:]
    waiting = [(line.name, line.pending / (line.limit_per_s or 10)) for line in lines if line.pending]
    summary = Summary(
        rows=rows,
        successes=successes,
        errors=errors,
        pending=rows - successes - errors,
        kinds=measured[-1].error_kinds,
        fetched_bytes=runs[0].bytes,
        fetched_rows=runs[0].rows,
        requests=runs[0].requests,
        seconds=runs[0].seconds,
        slowest=sorted(waiting, key=lambda waiting: -waiting[1])[:5],
        output="/data/butterflies",
        ending=f"{rows - successes - errors:,} rows are pending; run the same command again to go on.",
    )
    return Report(
        summary=summary,
        exit_code=75,
        origin="Run 2 over urls.parquet; ranks: 16; ended 2030-01-01 06:00:00+00:00; ddmpi 1.0",
        places={"the files": "images", "rows that failed for good": "errors", "one per rank, and metrics": "logs"},
        points=points,
        bound_s=runs[0].seconds * 0.94,
        bound_by=lines[0].name,
        download_s=runs[0].seconds * 0.98,
        servers=listed,
        rest=_together(others) if others else None,
        runs=runs,
        breaks_s=breaks_s,
        changes=[f"{lines[1].name}: paused", f"{lines[2].name}: now 2 requests/s"],
        pictures=[Picture(_image(rng), rng.choice(lines).name) for _ in range(24)],
        audit=Audit(
            ("server", "limit /s", "highest in 1 s", "highest in 60 s", "connections", "429s"),
            [(line.name, f"{line.limit_per_s:g}", f"{line.limit_per_s:g}", f"{line.limit_per_s:g}", "8", "0")
             for line in lines[:20] if line.limit_per_s],
            max(0, servers - 20),
        ),
    )  # fmt: skip


def _server(rng: random.Random, number: int) -> ServerLine:
    name = f"{rng.choice(HOSTS)}{number}.{rng.choice(DOMAINS)}"
    rows = int(rng.paretovariate(0.9) * 60)
    errors = int(rows * rng.choice([0.0, 0.01, 0.05, 0.3]))
    pending = int((rows - errors) * rng.choice([0.0] * 12 + [0.4]))
    limit_per_s = rng.choice([1.0, 5.0, 10.0, 10.0, 25.0])
    p50_s = rng.choice([0.02, 0.08, 0.2, 0.9])
    usage = GroupUsage(
        rows, rng.choice([0, 0, 0, 4, 31]), rows * 90_000, rows / limit_per_s / 0.97, rng.choice([0.0, 0.0, 120.0]),
        p50_s, p50_s * 3,
    )  # fmt: skip
    return ServerLine(name, 1, rows, rows - errors - pending, errors, limit_per_s, rng.randrange(9_000, 400_000), usage)


def _together(lines: list[ServerLine]) -> ServerLine:
    return ServerLine(
        "", len(lines), *(sum(getattr(line, key) for line in lines) for key in ("rows", "successes", "errors"))
    )


def _measurements(rng: random.Random, rows: int, successes: int, errors: int) -> list[Measurement]:
    """Two runs of 200 and 400 moments, slower towards their end."""
    found = []
    weights = [rng.uniform(0.7, 1.3) * (1.0 if step < 450 else 0.35) for step in range(600)]
    done = 0.0
    for step, weight in enumerate(weights):
        done += weight / sum(weights)
        run = 1 if step < 200 else 2
        unix_s = START_UNIX_S + 30.0 * step + (3600.0 if run == 2 else 0.0)
        kinds = {kind: int(errors * share * done ** (2 if kind == "dns" else 1)) for kind, share in KINDS.items()}
        fetched = int((successes + errors) * done)
        found.append(
            Measurement(
                datetime.fromtimestamp(unix_s, timezone.utc).isoformat(),
                unix_s, run, "downloading", 8 * run, rows, int(successes * done), int(errors * done), 0, fetched,
                int(fetched * 1.03), fetched * 90_000, error_kinds=kinds,
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
