"""``--to hf``: a folder that can be pushed to the Hugging Face Hub as it is.

Parquet files as the Hub's viewer likes them: pictures in a struct of bytes and path that the file's metadata calls an
``Image``, row groups of 100 rows, a page index, and pages that are cut by their content, so that a push of a later
state of the same table uploads only what is new. Beside them a dataset card and ``croissant.json``.

A file is called ``data/SPLIT-shard-NNNNNN.parquet`` until all are there; only then is it known how many there are,
which the final name says. What is in the card is counted shard by shard.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.rules.urls import Parsed, parse_url
from ddmpi.errors import StorageError
from ddmpi.export.croissant import croissant
from ddmpi.export.dataset_card import COUNTED, Contents, Split, dataset_card
from ddmpi.export.plan import hash_algorithm
from ddmpi.export.samples import sample_name, suffix_of, with_new_images
from ddmpi.export.splits import SplitOf, by_column, by_hash, read_shares, whole
from ddmpi.export.target import Picture, Target
from ddmpi.io.folder.durable import NewFile, fsync_path, os_rename, write_atomically
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.schema import IMAGE, ROW_NUMBER

DATA: Final = "data"
GROUP_ROWS: Final = 100
"""Of a row group: what the viewer reads for one page of its table."""
GROUP_BYTES: Final = 100_000_000
"""Of a row group's images at most, unless it is a single one; as ``datasets`` has it (``MAX_ROW_GROUP_SIZE``)."""
MOST_SPLITS: Final = 50
PICTURE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
METADATA: Final[dict[bytes, bytes]] = {
    b"huggingface": json.dumps({"info": {"features": {IMAGE: {"_type": "Image"}}}}).encode()
}
"""``datasets`` takes the types of all other columns from the file's schema."""


class SplitFile:
    """A Parquet file of one split under construction."""

    def __init__(self, path: Path, rows: pa.Schema) -> None:
        self._file = NewFile(path)
        self._tables: list[pa.Table] = []
        self._bodies: list[bytes] = []
        self.rows = 0
        try:
            schema = pa.schema([pa.field(IMAGE, PICTURE), *rows]).with_metadata(METADATA)
            self._leaves = [name for name in _leaves(schema) if name != f"{IMAGE}.bytes"]
            self._parquet = pq.ParquetWriter(
                cast("IO[Any]", self._file),
                schema,
                compression={f"{IMAGE}.bytes": "none", **dict.fromkeys(self._leaves, "zstd")},
                use_dictionary=self._leaves,  # type: ignore[arg-type]  # names of columns are taken too
                write_statistics=self._leaves,
                write_page_index=True,
                write_page_checksum=True,
                use_content_defined_chunking=True,
            )
        except BaseException:
            self._file.discard()
            raise

    def add(self, rows: pa.Table, bodies: Sequence[bytes]) -> None:
        self._tables.append(rows)
        self._bodies += bodies
        self.rows += len(bodies)
        self._write_groups()

    def commit(self, final: Path) -> int:
        """Give it its final name; returns its bytes."""
        self._write_groups(rest=True)
        self._parquet.close()
        size_bytes = self._file.tell()
        self._file.commit(final)
        return size_bytes

    def discard(self) -> None:
        self._file.discard()
        self._parquet.is_open = False  # its own end would write into the file that is gone

    def _write_groups(self, *, rest: bool = False) -> None:
        rows = pa.concat_tables(self._tables)
        start = 0
        while (end := _end_of_group(self._bodies, start)) > start and (rest or end < len(self._bodies)):
            self._parquet.write_table(_with_pictures(rows.slice(start, end - start), self._bodies[start:end]))
            start = end
        self._tables, self._bodies = [rows.slice(start)], self._bodies[start:]


def _end_of_group(bodies: Sequence[bytes], start: int) -> int:
    """Return where the row group ends that begins at ``start``: at the end of all where it is not full."""
    size_bytes, end = 0, start
    while end < min(len(bodies), start + GROUP_ROWS):
        size_bytes += len(bodies[end])
        if size_bytes > GROUP_BYTES and end > start:
            break
        end += 1
    return end


def _with_pictures(rows: pa.Table, bodies: Sequence[bytes]) -> pa.Table:
    names = [
        f"{sample_name(number)}.{suffix_of(body)}"
        for number, body in zip(rows.column(ROW_NUMBER).to_numpy().tolist(), bodies, strict=True)
    ]
    pictures = pa.StructArray.from_arrays(
        [pa.array(bodies, pa.binary()), pa.array(names, pa.string())], fields=list(PICTURE)
    )
    return rows.add_column(0, pa.field(IMAGE, PICTURE), pictures).replace_schema_metadata(METADATA)


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the columns of a Parquet file with this schema, as it names them."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    written = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return [written.column(index).path for index in range(len(written))]


class HubShard:
    """A file for each split that the shard's rows are in."""

    def __init__(self, name: str, temporary: Path, data: Path, split_of: SplitOf) -> None:
        self._name, self._temporary, self._data, self._split_of = name, temporary, data, split_of
        self._files: dict[str, SplitFile] = {}
        self._counts: dict[str, Counter[str]] = {what: Counter() for what in COUNTED}
        self._times: list[str] = []

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        rows = with_new_images(rows, pictures)
        self._count(rows)
        splits = np.array(self._split_of(rows), object)
        for split in sorted(set(splits.tolist())):
            where = np.flatnonzero(splits == split)
            self._file(split, rows.schema).add(rows.take(where), [pictures[at].body for at in where.tolist()])

    def commit(self) -> dict[str, Any]:
        files = {
            split: {"rows": file.rows, "bytes": file.commit(self._data / _unfinished(split, self._name))}
            for split, file in sorted(self._files.items())
        }
        return {"splits": files, "counts": self._counts, "times": [min(self._times), max(self._times)]}

    def discard(self) -> None:
        for file in self._files.values():
            file.discard()

    def _file(self, split: str, schema: pa.Schema) -> SplitFile:
        if split not in self._files:
            if len(self._files) == MOST_SPLITS:
                raise StorageError(f"--split-by: the column has more than {MOST_SPLITS} values; is it the right one?")
            self._files[split] = SplitFile(self._temporary / _unfinished(split, self._name), schema)
        return self._files[split]

    def _count(self, rows: pa.Table) -> None:
        for what in ("license", "source"):
            self._counts[what].update(value or "" for value in rows.column(what).to_pylist())
        servers = (parse_url(url) for url in rows.column("identifier").to_pylist())
        self._counts["server"].update(found.server if isinstance(found, Parsed) else "" for found in servers)
        times = pc.min_max(rows.column("fetched_at"))
        self._times += [time.isoformat() for time in (times["min"].as_py(), times["max"].as_py()) if time is not None]


def _unfinished(split: str, shard: str) -> str:
    return f"{split}-{shard}.parquet"


class HubFolder(Target):
    """A dataset repository of the Hub."""

    shard_bytes: ClassVar[int] = 500_000_000

    @staticmethod
    def add_options(parser: argparse._ArgumentGroup) -> None:
        parser.add_argument("--split-by", metavar="COLUMN", help="a split for each value of the column")
        parser.add_argument("--split", metavar="SHARES", help="train=0.9,test=0.1: by a hash of a key")
        parser.add_argument("--split-key", metavar="COLUMN", help="that key; the URL (identifier) unless said")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        column, shares, key = options["split_by"], options["split"], options["split_key"]
        if column and (shares or key):
            raise argparse.ArgumentTypeError("--split-by: --split and --split-key are another way to split")
        if key and not shares:
            raise argparse.ArgumentTypeError("--split-key: which shares? give --split train=0.9,test=0.1")
        self.columns = [name for name in (column, key) if name]
        self._split_of: SplitOf = whole
        if column:
            self._split_of = by_column(column)
        elif shares:
            self._split_of = by_hash(read_shares(shares), key or "identifier")

    def open(self, name: str, temporary: Path, folder: Path) -> HubShard:
        return HubShard(name, temporary, folder / DATA, self._split_of)

    def finish(
        self, layout: Layout, folder: Path, summary: Mapping[str, Any], shards: Sequence[tuple[str, Any]]
    ) -> None:
        """Give the files their final names; then write the card and ``croissant.json`` where there are none yet: the
        card is there to be edited."""
        contents = _contents(folder, shards)
        files = _rename_all(folder / DATA, shards)
        schema = pq.read_schema(files[0]) if files else pa.schema([])
        for name, text in (
            (".gitignore", ".export/\nexport.json\n"),
            ("croissant.json", json.dumps(croissant(contents, schema), indent=1, ensure_ascii=False) + "\n"),
            ("README.md", dataset_card(contents, schema, summary, hash_algorithm(layout))),
        ):
            if not (folder / name).exists():
                write_atomically(folder / name, text.encode())


def _rename_all(data: Path, shards: Sequence[tuple[str, Any]]) -> list[Path]:
    """Give all files their final names, and return these; those that an earlier call has renamed have them."""
    files: list[Path] = []
    totals = Counter(split for _, told in shards for split in told["splits"])
    numbers = Counter[str]()
    for name, told in shards:
        for split in told["splits"]:
            source = data / _unfinished(split, name)
            files.append(data / f"{split}-{numbers[split]:05d}-of-{totals[split]:05d}.parquet")
            numbers[split] += 1
            if source.exists():
                os_rename(source, files[-1])
    if files:
        fsync_path(data)
    return files


def _contents(folder: Path, shards: Sequence[tuple[str, Any]]) -> Contents:
    splits: dict[str, Split] = {}
    counts: dict[str, Counter[str]] = {what: Counter() for what in COUNTED}
    for _, told in shards:
        for name, file in told["splits"].items():
            before = splits.get(name, Split(name, 0, 0))
            splits[name] = Split(name, before.rows + file["rows"], before.size_bytes + file["bytes"])
        for what, counted in told["counts"].items():
            counts[what].update(counted)
    largest_first = sorted(splits.values(), key=lambda split: (-split.rows, split.name))
    times = sorted(time for _, told in shards for time in told["times"])
    return Contents(folder.resolve().name, largest_first, counts, (times[0], times[-1]) if times else None)


TARGET = HubFolder
