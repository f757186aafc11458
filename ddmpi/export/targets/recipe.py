"""``--to recipe``: the table without the files, small enough to publish, and the config that fetches them again.

``rows/`` has a row for each file, with its URL, hash and sizes, and for each row that failed, with its kind of error.
``rebuild.yaml`` fetches the files again and compares them with it; ``README.md`` says so to whoever finds the folder.

Addresses of machines and where redirects led are left out: they are nobody's business, and go out of date.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ddmpi._version import __version__
from ddmpi.core.records import REQUESTED, RESULT_COLUMNS
from ddmpi.export.tables import SHARD_BYTES, TableShard, license_names, write_tables
from ddmpi.export.target import Target
from ddmpi.io.folder import checkpoint
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.dataset import current_outcomes
from ddmpi.io.results.schema import ROW_NUMBER, SIZE, TIMESTAMP
from ddmpi.report.formats import counted, size

_FIELDS: Final[dict[str, tuple[pa.DataType, str]]] = {
    "uuid": (pa.string(), "the row's"),
    "source_id": (pa.string(), "the row's in the table that it is from"),
    "identifier": (pa.string(), "URL"),
    "license": (pa.string(), "as that table has it"),
    "license_spdx": (pa.string(), "its SPDX identifier; null where that cannot be told"),
    "source": (pa.string(), "as that table has it"),
    "title": (pa.string(), "as that table has it"),
    "hashsum_original": (pa.string(), "of the file as served, in hexadecimal"),
    "bytes": (pa.int64(), "size as served"),
    "original_size": (SIZE, "[height, width] in pixels"),
    "content_type": (pa.string(), "as the server said"),
    "etag": (pa.string(), "as the server said"),
    "last_modified": (pa.string(), "as the server said"),
    "fetched_at": (TIMESTAMP, "when it came, or failed"),
    "outcome": (pa.string(), "success or error"),
    "error_kind": (pa.string(), "why there is no file"),
    "error_code": (pa.int32(), "HTTP status, or -1 or -2 for what is none"),
    REQUESTED: (pa.string(), "what was asked for instead of the URL: a smaller copy; null where that is the URL"),
    ROW_NUMBER: (pa.int64(), "position in the table that it is from"),
}
HASH, BYTES = "expected_hash", "expected_bytes"
"""Columns of whoever rebuilds that have what is promised here."""
_REMADE: Final = frozenset({HASH, BYTES})
"""Kept columns of a set that was rebuilt itself: what they promise is of the set before it."""
_SEMANTIC: Final = ("hash_algorithm", "image_size", "accept")
"""Keys of ``downloader_parameters`` that decide what the files are."""
_MOST_LICENSES: Final = 50
_MOST_CHARS: Final = 120


_HEAD: Final = """\
# Fetches the files of rows/ again and compares them with what is said of them there. With ddmpi, in this folder:
#   ddmpi run rebuild.yaml
# At its end the run says how many files are the same, changed, gone and refused; rebuilt/comparison.csv says it by
# server and license. Servers want to know who asks, so add to downloader_parameters:
#   header: "User-Agent: name/1.0 (+https://contact)"
"""


class Recipe(Target):
    """A Parquet file per shard in ``rows/``, one of errors, a config and a page."""

    shard_bytes = SHARD_BYTES
    reads_images = False

    def open(self, name: str, temporary: Path, folder: Path) -> TableShard:
        file = f"{name}.parquet"
        make = partial(recipe_of, outcome="success")
        return TableShard(temporary / file, folder / "rows" / file, make, _told, order=ROW_NUMBER)

    def finish(
        self, layout: Layout, folder: Path, summary: Mapping[str, Any], shards: Sequence[tuple[str, Any]]
    ) -> None:
        del summary
        dataset = current_outcomes(layout)
        wanted = [name for name in dataset.schema.names if name in _FIELDS or name in _kept(dataset.schema.names)]
        kinds: Counter[str] = Counter()

        def failed() -> Iterator[pa.Table]:
            for batch in dataset.to_batches(columns=wanted, filter=pc.field("outcome") == "error"):
                rows = pa.Table.from_batches([batch])
                kinds.update(map(str, rows.column("error_kind").to_pylist()))
                yield recipe_of(rows, outcome="error")

        empty = recipe_of(dataset.schema.empty_table().select(wanted), outcome="error")
        temporary = folder / ".export" / "tmp" / "errors.parquet"
        write_tables(empty.schema, failed(), temporary, folder / "rows" / "errors.parquet")
        saved, _ = checkpoint.load(layout)
        semantic = {} if saved is None else saved.config_semantic
        write_atomically(folder / "rebuild.yaml", _rebuild_config(empty.column_names, semantic).encode())
        told = [each for _, each in shards]
        write_atomically(folder / "README.md", _readme(told, kinds, empty.column_names, semantic).encode())


def _kept(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in RESULT_COLUMNS and name not in _FIELDS and name not in _REMADE]


def recipe_of(rows: pa.Table, outcome: str) -> pa.Table:
    """Return (n, c) what is published of rows of the results."""
    columns: dict[str, Any] = {}
    for name, (type_, _) in _FIELDS.items():
        if name in rows.column_names:
            columns[name] = rows.column(name).cast(type_)
        elif name != REQUESTED:
            columns[name] = pa.array([None] * rows.num_rows, type_)
    columns["license_spdx"] = license_names(rows.column("license"))
    columns["outcome"] = pa.array([outcome] * rows.num_rows, pa.string())
    return pa.table(columns | {name: rows.column(name) for name in _kept(rows.column_names)})


def _told(table: pa.Table) -> dict[str, Any]:
    """Return the sums of a shard that the page needs, as JSON has them."""
    licenses: Any = pc.coalesce(table.column("license_spdx"), table.column("license"))
    times: Any = pc.min_max(table.column("fetched_at"))
    return {
        "rows": table.num_rows,
        "bytes": pc.sum(table.column("bytes")).as_py() or 0,
        "licenses": Counter(text or "" for text in licenses.to_pylist()),
        "first": _day(times["min"].as_py()),
        "last": _day(times["max"].as_py()),
    }


def _day(time: datetime | None) -> str:
    return "" if time is None else time.date().isoformat()


def _rebuild_config(names: Sequence[str], semantic: Mapping[str, Any]) -> str:
    config: dict[str, Any] = {"path_to_input": "rows", "path_to_output_folder": "rebuilt"}
    if REQUESTED in names:
        config["columns"] = {"identifier": [REQUESTED, "identifier"]}
    config["filter"] = 'outcome == "success"'
    config["keep_columns"] = {HASH: "hashsum_original", BYTES: "bytes"} | {name: name for name in _kept(names)}
    config["expected"] = {"hash_column": HASH, "bytes_column": BYTES, "on_mismatch": "keep"}
    if semantic.get("duplicates") is not None:
        config["duplicates"] = semantic["duplicates"]
    known = {key: semantic.get(f"downloader_parameters.{key}") for key in _SEMANTIC}
    config["downloader_parameters"] = {key: value for key, value in known.items() if value is not None}
    return _HEAD + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _readme(
    told: Sequence[dict[str, Any]], kinds: Counter[str], names: Sequence[str], semantic: Mapping[str, Any]
) -> str:
    rows, size_bytes = sum(each["rows"] for each in told), sum(each["bytes"] for each in told)
    licenses: Counter[str] = sum((Counter(each["licenses"]) for each in told), Counter())
    days = sorted(day for each in told for day in (each["first"], each["last"]) if day)
    algorithm = semantic.get("downloader_parameters.hash_algorithm", "sha256")
    when = f", fetched on {days[0]}" if len({*days}) == 1 else f", fetched from {days[0]} to {days[-1]}" if days else ""
    lines = [
        "# Recipe of a set of files",
        "",
        f"{rows:,} files of {size(size_bytes)}{when}, made with ddmpi {__version__}. The files are not here, but where "
        f"each one is, what it has to be ({algorithm} and size), and its license: `rows/`, Parquet.",
        *([f"{counted(kinds.total(), 'more row')} failed when the set was made."] if kinds else []),
        "",
        "## Fetching the files again",
        "",
        f"With ddmpi {__version__} or newer, in this folder:",
        "",
        "```",
        "ddmpi run rebuild.yaml",
        "```",
        "",
        "At its end the run says how many files are the same, changed, gone and refused, and `rebuilt/comparison.csv` "
        "says it by server and license. A file that has changed is stored, and says so in `expected_mismatch`.",
        "",
        "## Licenses",
        "",
        "| license | files |",
        "|---|---|",
        *(f"| {_cell(text)} | {count:,} |" for text, count in licenses.most_common(_MOST_LICENSES)),
    ]
    if len(licenses) > _MOST_LICENSES:
        rest = sum(count for _, count in licenses.most_common()[_MOST_LICENSES:])
        lines.append(f"| {len(licenses) - _MOST_LICENSES:,} more | {rest:,} |")
    if kinds:
        lines += ["", "## Rows that failed", "", "| kind | rows |", "|---|---|"]
        lines += [f"| {kind} | {count:,} |" for kind, count in kinds.most_common()]
    lines += ["", "## Columns", "", "| column | is |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, (_, text) in _FIELDS.items() if name in names]
    lines += [f"| {_cell(name)} | kept from that table |" for name in _kept(names)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return any text as code in a cell of a Markdown table."""
    bare = re.sub(r"\s+", " ", text.replace("`", "'")).strip().replace("|", "\\|")[:_MOST_CHARS]
    return f"`{bare}`" if bare else "none given"


TARGET = Recipe
