"""``--to credits``: whom to name for which image, and under which license.

``ATTRIBUTION.csv`` has each image, ``credits.html`` what people read, ``derived-dataset.csv`` what GBIF asks of whoever
registers a derived dataset (https://www.gbif.org/derived-dataset): its datasets and the records of each, two columns
without a header. A record may have several images: it counts once, by its ``source_id``.

Shards are pieces of the CSV file, as Parquet, and are gone when it is there: it is written last, and at once.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined

from ddmpi.export.samples import sample_name
from ddmpi.export.tables import SHARD_BYTES, TableShard, license_names, texts
from ddmpi.export.target import Target
from ddmpi.io.folder.durable import NewFile, csv_bytes, write_atomically
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.schema import ROW_NUMBER

CREATORS: Final = ("creator", "author", "photographer", "artist", "rightsholder", "copyrightholder", "owner")
"""Columns that name whom to credit, without regard to case, spaces and underscores: the first that has a value."""
MOST_LINES: Final = 2_000
"""Lines of each table of the page; the rest is one sentence."""
_COLUMNS: Final = ("uuid", "file", "title", "creator", "license", "license_spdx", "source", "url")
_CREDIT: Final = ["license_spdx", "license", "creator"]
_RECORD: Final = ["dataset_key", "record"]
_TEXTS: Final = pa.schema([pa.field(name, pa.string()) for name in (*_COLUMNS, *_RECORD)])

_EMPTY: Final[Any] = pa.scalar("")
_NOTHING: Final[Any] = pa.scalar(None, pa.string())


class Credits(Target):
    """Three files for all shards."""

    shard_bytes = SHARD_BYTES
    reads_images = False

    @staticmethod
    def add_options(parser: argparse._ArgumentGroup) -> None:
        parser.add_argument("--creator", metavar="COLUMN", help=f"kept column to credit; else {', '.join(CREATORS)}")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._creator: str | None = options["creator"]
        self.columns = [] if self._creator is None else [self._creator]

    def open(self, name: str, temporary: Path, folder: Path) -> TableShard:
        file = f"{name}.parquet"
        return TableShard(temporary / file, folder / file, partial(credits_of, creator=self._creator), order="file")

    def finish(
        self, layout: Layout, folder: Path, summary: Mapping[str, Any], shards: Sequence[tuple[str, Any]]
    ) -> None:
        del layout
        pieces = [folder / f"{name}.parquet" for name, _ in shards]
        attribution = folder / "ATTRIBUTION.csv"
        if not attribution.exists():
            _write(folder, attribution, pieces, int(summary["exported"]))
        for piece in pieces:
            piece.unlink(missing_ok=True)


def credits_of(rows: pa.Table, creator: str | None) -> pa.Table:
    """Return (n, 10) what has to be said of each row, as texts."""
    columns: dict[str, Any] = {name: texts(rows.column(name)) for name in ("uuid", "title", "license", "source")}
    columns["file"] = pa.array(map(sample_name, rows.column(ROW_NUMBER).to_numpy().tolist()), pa.string())
    columns["url"] = texts(rows.column("identifier"))
    columns["license_spdx"] = license_names(columns["license"])
    named = _columns_named(rows, CREATORS) if creator is None else [creator]
    columns["creator"] = _first_with_value(rows, named)
    columns["dataset_key"] = _first_with_value(rows, _columns_named(rows, ["datasetkey"]))
    columns["record"] = pc.coalesce(rows.column("source_id"), columns["file"])
    return pa.table(columns).select(_TEXTS.names).cast(_TEXTS)


def _columns_named(rows: pa.Table, wanted: Sequence[str]) -> list[str]:
    names = {"".join(filter(str.isalnum, name.casefold())): name for name in rows.column_names}
    return [names[name] for name in wanted if name in names]


def _first_with_value(rows: pa.Table, names: Sequence[str]) -> Any:
    found: Any = pa.nulls(rows.num_rows, pa.string())
    for name in names:
        values: Any = pc.utf8_trim_whitespace(texts(rows.column(name)))
        found = pc.coalesce(found, pc.if_else(pc.equal(values, _EMPTY), _NOTHING, values))
    return found


def _write(folder: Path, attribution: Path, pieces: Sequence[Path], images: int) -> None:
    """Write the three files, the attribution last: it says that the others are there."""
    new = NewFile(folder / ".export" / "tmp" / attribution.name)
    credited: list[pa.Table] = []
    records: list[pa.Table] = []
    first: list[pa.Table] = []
    try:
        new.write(csv_bytes(_COLUMNS, []))
        for piece in pieces:
            table = pq.read_table(piece)
            new.write(_as_csv(table.select(list(_COLUMNS))))
            credited = [_summed([*credited, _credited(table)])]
            records = [pa.concat_tables([*records, table.select(_RECORD)]).group_by(_RECORD).aggregate([])]
            if sum(map(len, first)) < MOST_LINES:
                first.append(table.slice(0, MOST_LINES - sum(map(len, first))))
        page = _page(
            credited[0] if credited else None, pa.concat_tables(first) if first else _TEXTS.empty_table(), images
        )
        write_atomically(folder / "credits.html", page.encode())
        datasets = _datasets(records[0]) if records else []
        if datasets:
            lines = "".join(f"{key},{count}\n" for key, count in datasets)
            write_atomically(folder / "derived-dataset.csv", lines.encode())
    except BaseException:
        new.discard()
        raise
    new.commit(attribution)


def _credited(table: pa.Table) -> pa.Table:
    """Return images by license and creator; what the table says of a license counts only where that is not known."""
    unknown = pc.if_else(
        pc.is_null(table.column("license_spdx")), table.column("license"), pa.scalar(None, pa.string())
    )
    table = table.set_column(table.schema.get_field_index("license"), "license", unknown)
    return table.group_by(_CREDIT).aggregate([([], "count_all")])


def _summed(tables: Sequence[pa.Table]) -> pa.Table:
    summed = pa.concat_tables(tables).group_by(_CREDIT).aggregate([("count_all", "sum")])
    return summed.rename_columns([*_CREDIT, "count_all"])


def _as_csv(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink, pa_csv.WriteOptions(include_header=False))
    return sink.getvalue().to_pybytes()


def _datasets(records: pa.Table) -> list[tuple[str, int]]:
    """Return the datasets of GBIF and how many records are from each, most first."""
    known = records.filter(pc.is_valid(records.column("dataset_key")))
    counts = known.group_by("dataset_key").aggregate([([], "count_all")])
    return sorted(((it["dataset_key"], it["count_all"]) for it in counts.to_pylist()), key=lambda it: (-it[1], it[0]))


# ---- the page


def _page(credited: pa.Table | None, first: pa.Table, images: int) -> str:
    lines = [] if credited is None else credited.to_pylist()
    lines.sort(key=lambda it: (-it["count_all"], *(it[name] or "" for name in _CREDIT)))
    by_license: Counter[tuple[str, str]] = Counter()
    for line in lines:
        by_license[line["license_spdx"] or "", line["license"] or ""] += line["count_all"]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["web"] = _web_address
    source = files("ddmpi.export.targets").joinpath("credits.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        images=images,
        licenses=sorted(by_license.items(), key=lambda item: (-item[1], item[0])),
        lines=lines[:MOST_LINES],
        more_lines=len(lines) - MOST_LINES,
        has_creators=any(line["creator"] for line in lines),
        first=first.to_pylist(),
        more_images=images - len(first),
    )


def _web_address(text: str | None) -> str:
    """Return a text if it is an address that may be a link, else "": "javascript:" may stand in a table, too."""
    return text if text is not None and text.lower().startswith(("https://", "http://")) else ""


TARGET = Credits
