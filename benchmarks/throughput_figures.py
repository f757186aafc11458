"""What ``throughput`` says of its runs: medians, costs of one more file, ratios to others, as text and as JSON."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, TypeAlias

import blake3
import xxhash

from benchmarks.throughput_runners import Run

HASHES: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "sha256": hashlib.sha256,
    "blake3": blake3.blake3,
    "xxh3_128": xxhash.xxh3_128,
}
Ratios: TypeAlias = dict[str, dict[str, float]]
REFERENCES: Final = ("daft", "curl", "img2dataset", "floor_fetch", "floor_hash", "floor_store", "against")


@dataclass(frozen=True)
class Figures:
    """Medians of one program: of the larger job with its start and end, and of one more file (``marginal``)."""

    files_per_s: float
    marginal_files_per_s: float
    cpu_ms: float
    marginal_cpu_ms: float
    marginal_cpu_ms_range: tuple[float, float]
    """The least and the greatest of all rounds."""
    start_s: float
    """Of the smaller job, what is not explained by its files: seconds."""
    peak_rss_mb: float


def figures_of(rounds: Sequence[tuple[Run, Run]]) -> Figures:
    """Of a smaller and a larger job in each round; processor time in ms per file."""
    costs = [(large.cpu_s - small.cpu_s) * 1e3 / (large.files - small.files) for small, large in rounds]
    seconds = [(large.wall_s - small.wall_s) / (large.files - small.files) for small, large in rounds]
    return Figures(
        files_per_s=median(large.files / large.wall_s for _, large in rounds),
        marginal_files_per_s=1 / median(seconds),
        cpu_ms=median(large.cpu_s * 1e3 / large.files for _, large in rounds),
        marginal_cpu_ms=median(costs),
        marginal_cpu_ms_range=(min(costs), max(costs)),
        start_s=median(small.wall_s for small, _ in rounds) - rounds[0][0].files * median(seconds),
        peak_rss_mb=median(large.peak_rss_mb for _, large in rounds),
    )


def hash_ms(bodies: Iterable[bytes]) -> dict[str, float]:
    """Processor time of each hash by itself, in ms per body."""
    held = list(bodies)
    found = {}
    for name, make in HASHES.items():
        began_s = time.process_time()
        for body in held:
            make(body).hexdigest()
        found[name] = (time.process_time() - began_s) * 1e3 / len(held)
    return found


def ratios(figures: Mapping[str, Figures], hash_names: Mapping[str, str], alone_ms: Mapping[str, float]) -> Ratios:
    """Of each ddmpi: marginal processor time per file over that of each other program, and files/s over that of Daft.

    ``daft_and_hash`` is Daft and the hash of that ddmpi by itself.
    """
    found: Ratios = {}
    for name in (name for name in figures if name.startswith("ddmpi")):
        costs = {other: figures[other].marginal_cpu_ms for other in REFERENCES if other in figures}
        if "daft" in costs:
            costs["daft_and_hash"] = costs["daft"] + alone_ms[hash_names[name]]
        found[name] = {other: figures[name].marginal_cpu_ms / cost for other, cost in costs.items()}
        if "daft" in figures:
            rates = figures[name].marginal_files_per_s, figures["daft"].marginal_files_per_s
            found[name]["daft_files_per_s"] = rates[0] / rates[1]
    return found


def figures_text(figures: Mapping[str, Figures]) -> str:
    """A table, one line per program."""
    lines = [
        f"{'':18}{'files/s':^18}{'ms of processor time per file':^36}{'start':>9}{'peak':>9}",
        f"{'':18}{'whole':>9}{'marginal':>9}{'whole':>9}{'marginal':>10}{'(range)':>17}{'s':>9}{'MB':>9}",
    ]
    for name, one in figures.items():
        spread = "({:.3f}-{:.3f})".format(*one.marginal_cpu_ms_range)
        lines.append(
            f"{name:18}{one.files_per_s:9,.0f}{one.marginal_files_per_s:9,.0f}{one.cpu_ms:9.3f}"
            f"{one.marginal_cpu_ms:10.3f}{spread:>17}{one.start_s:9.2f}{one.peak_rss_mb:9.0f}"
        )
    return "\n".join(lines)


def ratios_text(found: Ratios) -> str:
    """A line per ddmpi; empty where there is nothing to compare with."""
    names = {name: ", ".join(f"{other} {value:.2f}" for other, value in each.items()) for name, each in found.items()}
    return "\n".join(f"{name} over: {text}" for name, text in names.items() if text)
