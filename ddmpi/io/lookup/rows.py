"""One row of the results, or a few, with their images: what ``ddmpi.load`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder.disk_errors import names_in
from ddmpi.io.folder.layout import PARTITION_PREFIX, Layout, parse_part_name, part_of, server_of_folder
from ddmpi.io.lookup.uuid_index import UuidIndex, current_index, known_index
from ddmpi.io.results.damage import PART_ERRORS
from ddmpi.io.results.dataset import OUTCOMES
from ddmpi.io.results.publishing import with_images
from ddmpi.io.results.schema import IMAGE, ROW_NUMBER, holders_of

Row = dict[str, Any]


def load_rows(layout: Layout, uuids: Sequence[str]) -> dict[str, Row]:
    """Return the rows of these uuids that have an outcome, by uuid, with their images, those that are another row's
    too.

    What the index at hand finds is taken if it is a success and the folder of its batch has no part that the index does
    not know, as a refresh may have found another file; for all else the parts of all batches are listed. Of several
    rows with a uuid the first one of the input counts, as far as they are known.

    Raises:
        OutputError: there is no output folder.
        StorageError: a part, or a folder of parts, cannot be read.
    """
    if not layout.root.is_dir():
        raise OutputError(f"{layout.root}: no such folder")
    found: dict[str, Row] = {}
    index = known_index(layout)
    if index is not None:
        found, _ = _found(layout, index, uuids)
    left = [uuid for uuid in uuids if uuid not in found or not _is_newest(layout, index, found[uuid])]
    if left:
        more, missed = _found(layout, current_index(layout, index), left)
        found |= more
        if missed and index is not None:  # parts were rewritten since it was made
            more, _ = _found(layout, current_index(layout, None), missed)
            found |= more
    return found


def _is_newest(layout: Layout, index: UuidIndex | None, row: Row) -> bool:
    """Return whether a row is a success, and no run has given its batch one since the index was made."""
    if index is None or row["outcome"] != OUTCOMES["successes"]:
        return False
    folder = layout.parts_folder("successes", row["server_name"], row["partition_id"])
    there = (f"{layout.relative(folder)}/{name}" for name in names_in(folder) if parse_part_name(name))
    return index.known_parts.issuperset(there)


def _found(layout: Layout, index: UuidIndex, uuids: Iterable[str]) -> tuple[dict[str, Row], list[str]]:
    """Return what the index finds, and for which uuids it names a row that is another one's, or no more there."""
    places = sorted((part, row, uuid) for uuid in dict.fromkeys(uuids) for part, row in index.places(uuid))
    outcomes: dict[str, dict[int, Row]] = {}
    missed = []
    for part, wanted in groupby(places, itemgetter(0)):
        pairs = [(row, uuid) for _, row, uuid in wanted]
        rows = _read(layout, part, [row for row, _ in pairs])
        for place, uuid in pairs:
            row = rows.get(place)
            if row is None or row["uuid"] != uuid:
                missed.append(uuid)
                continue
            newest = outcomes.setdefault(uuid, {}).setdefault(row[ROW_NUMBER], row)
            if row["epoch"] > newest["epoch"]:
                outcomes[uuid][row[ROW_NUMBER]] = row
    return {uuid: rows[min(rows)] for uuid, rows in outcomes.items()}, missed


def _read(layout: Layout, part: str, places: Sequence[int]) -> Mapping[int, Row]:
    """Return rows of a part by their places in it, which are sorted; none where it is no more there."""
    found: dict[int, Row] = {}
    try:
        with pq.ParquetFile(with_images(layout, part), page_checksum_verification=True) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = np.cumsum(counts)
            groups = np.searchsorted(ends, places, side="right").tolist()
            for group, pairs in groupby(zip(groups, places, strict=True), itemgetter(0)):
                if group < len(counts):
                    first = int(ends[group]) - counts[group]
                    found |= _of_group(file.read_row_group(group), first, [place for _, place in pairs], part)
    except FileNotFoundError:
        return {}
    except PART_ERRORS as error:
        raise StorageError(f"cannot read part {layout.root / part}: {error}") from error
    return found


def _of_group(table: pa.Table, first: int, places: Sequence[int], part: str) -> dict[int, Row]:
    """Return rows of a row group whose first row is ``first`` in its part."""
    name = part_of(part)
    _, server, partition, _ = part.rsplit("/", 3)
    told = {
        "outcome": OUTCOMES[name.kind],
        "server_name": server_of_folder(server),
        "partition_id": int(partition.removeprefix(PARTITION_PREFIX)),
        "epoch": name.epoch,
    }
    holders = holders_of(table) if IMAGE in table.column_names else None
    found = {}
    for place in places:
        row: Row = table.slice(place - first, 1).to_pylist()[0]
        if holders is not None:
            row[IMAGE] = table.column(IMAGE)[int(holders[place - first])].as_py()
        found[place] = row | told
    return found
