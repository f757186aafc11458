"""The state of a run as numbers for machines: one JSON line per interval, and the Prometheus text format. Pure.

Decides what is measured, what it is called, and which lines of a long history may go. It must not know where the
numbers come from, where the lines are kept, or what time it is.

Invariants: totals (``fetched_rows``, ``requests``, ``bytes``) continue over all runs of an output folder; a thinned
history keeps the first and the last line of each run, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from ddmpi.core.protocol import Counters
from ddmpi.core.records import UNDECODABLE
from ddmpi.core.stats.audit import Audit
from ddmpi.core.stats.timeline import Timelines
from ddmpi.core.stats.usage import UsageTable

MOST_POINTS = 600
"""Points of a chart: more than a screen has columns for it."""


class Measurement(msgspec.Struct, frozen=True):
    """One moment of a run. Rows are those of the whole table; rates are means since the line before."""

    time: str
    """ISO 8601 with time zone, for people."""
    unix_s: float
    run: int
    """Which run over the output folder, from 1."""
    stage: str
    ranks: int
    rows: int
    successes: int
    """In published parts, as errors; ``fetched_rows`` counts what is fetched and perhaps not durable yet."""
    errors: int
    ignored: int
    fetched_rows: int
    requests: int
    bytes: int
    rows_per_s: float = 0.0
    requests_per_s: float = 0.0
    bytes_per_s: float = 0.0
    in_flight: int = 0
    servers_active: int = 0
    memory_bytes: int = 0
    """Resident memory of all ranks."""
    error_kinds: dict[str, int] = {}
    """Errors in published parts, by kind; their sum is ``errors``."""
    urls: int = 0
    """Different URLs that were done with, by all runs; ``requests`` are more where some were asked for again."""
    refused: int = 0
    """Answers with a status of 400 or more, to all runs."""
    kept_bytes: int = 0
    """Bytes of files that were stored by all runs, of each URL once."""
    usage_signals: dict[str, int] = {}
    """What servers have said of their files' use in this run -> rows that it was said of."""
    exit_code: int | None = None
    """Set in the last line of a run that ended by itself."""

    @property
    def pending(self) -> int:
        """Rows without a durable outcome, but for ignored ones."""
        return self.rows - self.successes - self.errors - self.ignored


def continued(line: Measurement, before: Measurement | None) -> Measurement:
    """Return the line of a run with what all runs before it have fetched, by their last line (None: none has)."""
    if before is None:
        return line
    return msgspec.structs.replace(
        line,
        fetched_rows=before.fetched_rows + line.fetched_rows,
        requests=before.requests + line.requests,
        bytes=before.bytes + line.bytes,
        urls=before.urls + line.urls,
        refused=before.refused + line.refused,
        kept_bytes=before.kept_bytes + line.kept_bytes,
    )


def with_rates(line: Measurement, before: Measurement | None) -> Measurement:
    """Return the line with its means since the one before, which is of its run (None: it is the first)."""
    seconds = 0.0 if before is None else line.unix_s - before.unix_s
    if before is None or seconds <= 0:
        return line
    return msgspec.structs.replace(
        line,
        rows_per_s=round((line.fetched_rows - before.fetched_rows) / seconds, 3),
        requests_per_s=round((line.requests - before.requests) / seconds, 3),
        bytes_per_s=round((line.bytes - before.bytes) / seconds, 1),
    )


def encode_line(line: Measurement) -> bytes:
    """Return the line as JSON, with its end."""
    return msgspec.json.encode(line) + b"\n"


_decoder = msgspec.json.Decoder(Measurement)


def decode_lines(lines: Iterable[bytes]) -> Iterator[Measurement]:
    """Decode the lines that are whole: a kill may have cut one off, and a full disk may have damaged one."""
    for line in lines:
        with suppress(*UNDECODABLE):
            yield _decoder.decode(line)


def thinned(lines: Sequence[Measurement]) -> list[Measurement]:
    """Return every second line, and the first and last one of each run."""
    runs = [None, *(line.run for line in lines), None]  # one before and one after that are no line's
    is_inner = [before == after == line.run for before, line, after in zip(runs, lines, runs[2:], strict=False)]
    return [line for index, line in enumerate(lines) if index % 2 == 0 or not is_inner[index]]


class History:
    """The measurements of one run for a chart: a run of any length in at most ``MOST_POINTS``.

    When the points are too many, every second one goes, and the interval between two doubles.

    Args:
        now: when the run began; seconds, monotonic, as in all methods.
    """

    def __init__(self, now: float) -> None:
        self.lines: list[Measurement] = []
        self.interval_s = 1.0
        self._next_at = now

    def is_due(self, now: float) -> bool:
        """Return whether a point at this time is wanted."""
        return now >= self._next_at

    def add(self, now: float, line: Measurement) -> None:
        """Keep a point; times must not go back."""
        if len(self.lines) >= MOST_POINTS:
            self.lines = self.lines[::2]
            self.interval_s *= 2
        self.lines.append(line)
        self._next_at = now + self.interval_s


# ---- Prometheus

_FIGURES = (
    ("rows", "gauge", "Rows of the table.", "rows"),
    ("rows_pending", "gauge", "Rows without a durable outcome.", "pending"),
    ("rows_ignored", "gauge", "Rows on servers that are left out.", "ignored"),
    ("requests_in_flight", "gauge", "Requests under way, over all ranks.", "in_flight"),
    ("servers_active", "gauge", "Servers that had a request under way in the last half second.", "servers_active"),
    ("ranks", "gauge", "Ranks of the job.", "ranks"),
    ("memory_bytes", "gauge", "Resident memory of all ranks.", "memory_bytes"),
    ("run_number", "gauge", "Which run over the output folder, from 1.", "run"),
    ("updated_timestamp_seconds", "gauge", "When these numbers were written.", "unix_s"),
    ("fetched_rows_total", "counter", "Rows fetched by all runs.", "fetched_rows"),
    ("requests_total", "counter", "Requests sent by all runs.", "requests"),
    ("received_bytes_total", "counter", "Bytes of bodies received by all runs.", "bytes"),
    ("kept_bytes_total", "counter", "Bytes of files stored by all runs.", "kept_bytes"),
    ("urls_total", "counter", "Different URLs that all runs are done with.", "urls"),
    ("refused_total", "counter", "Answers with a status of 400 or more to all runs.", "refused"),
)


def prometheus_text(line: Measurement, output: str) -> str:
    """Return the line in the text format 0.0.4; ``output`` labels every sample, so that two jobs of one node differ."""
    label = f'output="{_escaped(output)}"'
    parts = [
        _family("rows_final", "gauge", "Rows with a durable outcome.", {
            f'{label},outcome="success"': line.successes, f'{label},outcome="error"': line.errors,
        }),
        _family("errors", "gauge", "Rows that are durable errors, by kind.", {
            f'{label},kind="{_escaped(kind)}"': count for kind, count in sorted(line.error_kinds.items())
        }),
        _family("usage_signal_rows", "gauge", "Rows of this run, by what was said of their use.", {
            f'{label},signals="{_escaped(text)}"': count for text, count in sorted(line.usage_signals.items())
        }),
        _family("stage", "gauge", "The stage that the run is in.", {f'{label},stage="{_escaped(line.stage)}"': 1}),
    ]  # fmt: skip
    parts += [_family(name, kind, text, {label: getattr(line, key)}) for name, kind, text, key in _FIGURES]
    if line.exit_code is not None:
        parts.append(_family("exit_code", "gauge", "How the last run ended; absent while it goes on.", {
            label: line.exit_code
        }))  # fmt: skip
    return "".join(parts)


def _family(name: str, kind: str, text: str, samples: dict[str, float]) -> str:
    lines = [f"# HELP ddmpi_{name} {text}", f"# TYPE ddmpi_{name} {kind}"]
    lines += [f"ddmpi_{name}{{{labels}}} {value!r}" for labels, value in samples.items()]
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@dataclass
class Tally:
    """What the ranks say of their work in one run, for the people who watch it. Accounting goes by parts alone."""

    counters: dict[int, Counters] = field(default_factory=dict)
    """What each rank has done since it began."""
    next_requests: dict[int, list[tuple[float, str, int]]] = field(default_factory=dict)
    """By rank: when (s, monotonic) which server is asked next, and for how many rows."""
    usage: UsageTable = field(default_factory=UsageTable)
    audit: Audit = field(default_factory=Audit)
    timelines: Timelines = field(default_factory=Timelines)

    def total(self) -> Counters:
        each = self.counters.values()
        return Counters(*(sum(getattr(c, name) for c in each) for name in Counters.__struct_fields__))
