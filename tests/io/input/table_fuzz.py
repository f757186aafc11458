"""Random separated texts, as csv, pandas and people write them, and what becomes of their rows.

``python -m tests.io.input.table_fuzz --cases 20000`` prints a JSON line with the counts, and fails at the first silent
loss: every row has to be there with its values, or the run stops with file and line, or key, of what is wrong.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa

from ddmpi.config.input_section import InputSection
from ddmpi.errors import InputError
from ddmpi.io.input.table import open_input

SEPARATORS = {",": ".csv", "\t": ".tsv", ";": ".csv", "|": ".csv"}
PIECES = ["a", "bc", "Smith", " ", ",", ";", "|", "\t", '"', '""', "\n", "\r\n", "é", "ß", "1", "http://x.org/", "'"]
Pack = Callable[[bytes], bytes]
PACKED: dict[str, Pack] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"]
STYLES = ["minimal", "all", "nonnumeric", "pandas", "raw", "raw"]


@dataclass
class Case:
    """A text, how it is told to be, and the rows that it is meant to have; a bad one is its text."""

    name: str
    text: str
    encoding: str
    columns: list[str]
    rows: list[list[str] | str]
    keys: dict[str, Any] = field(default_factory=dict)


def value_of(rng: random.Random, allowed: list[str]) -> str:
    if rng.random() < 0.6:
        return rng.choice(["", "title", "a b", "12", "x'y"])
    return "".join(rng.choices(allowed, k=rng.randint(1, 5)))


def make_case(rng: random.Random) -> Case:
    separator = rng.choice([*SEPARATORS, "\t", "\t"])
    style = rng.choice(STYLES)
    end = rng.choice(["\n", "\n", "\r\n"])
    allowed = PIECES if style != "raw" else [piece for piece in PIECES if piece not in {separator, "\n", "\r\n"}]
    count = rng.randint(1, 5)
    columns = ["identifier", *(f"c{number}" for number in range(1, count))]
    rng.shuffle(columns)
    special = rng.random() * 0.5
    rows: list[list[str] | str] = []
    for number in range(rng.randint(0, 30)):
        row = [f"http://h{number % 3}.org/{number}" if name == "identifier" else "title" for name in columns]
        for place, name in enumerate(columns):
            if name != "identifier" and rng.random() < special:
                row[place] = value_of(rng, allowed)
                if style == "raw" and is_quoted_too(row[place], separator):
                    row[place] = "x"
        rows.append(row)
    keys: dict[str, Any] = {}
    has_header = rng.random() < 0.85 or not rows
    lines = written(style, separator, end, [columns, *rows] if has_header else rows)
    if not has_header:
        keys |= {"header": False, "names": columns}
    ragged = style == "raw" and rng.random() < 0.3 and count > 1 and len(rows) > 3
    if ragged:
        keys["bad_lines"] = rng.choice(["refuse", "error_rows"])
        for _ in range(rng.randint(1, 3)):
            place = rng.randint(2, len(rows) - 1)
            bad = separator.join(["odd"] * rng.choice([number for number in range(1, count + 3) if number != count]))
            rows.insert(place, bad)
            lines.insert(place + has_header, bad + end)
    encoding = rng.choice(ENCODINGS)
    if encoding not in {"utf-8", "utf-8-sig"} or rng.random() < 0.2:
        keys["encoding"] = encoding
    if rng.random() < 0.3:
        keys["quote"] = "none" if style == "raw" else '"'
    if rng.random() < 0.3:
        keys["separator"] = separator
    ending = SEPARATORS[separator] if rng.random() < 0.7 else rng.choice([".csv", ".tsv"])
    text = "".join(lines)
    if rng.random() < 0.2:
        text = text.removesuffix(end)
    return Case(f"in{ending}{rng.choice(['', '', *PACKED])}", text, encoding, columns, rows, keys)


def is_quoted_too(value: str, separator: str) -> bool:
    """Whether a value without quoting is to the letter what another one is with it: nothing can tell them apart."""
    is_enclosed = value[:1] == value[-1:] == '"' and len(value) > 1
    is_well_formed = is_enclosed and '"' not in value[1:-1].replace('""', "")
    return is_well_formed and (separator != "\t" or '""' in value)


def written(style: str, separator: str, end: str, rows: list[Any]) -> list[str]:
    """The text, row by row."""
    if style == "raw":
        return [separator.join(row) + end for row in rows]
    quoting: Any = {"all": csv.QUOTE_ALL, "nonnumeric": csv.QUOTE_NONNUMERIC}.get(style, csv.QUOTE_MINIMAL)
    texts = []
    for row in rows:
        out = io.StringIO(newline="")
        if style == "pandas":
            import pandas as pd  # noqa: PLC0415  # slow to load, and only some need it

            pd.DataFrame([row]).to_csv(out, sep=separator, header=False, index=False, lineterminator=end)
        else:
            csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=end).writerow(row)
        texts.append(out.getvalue())
    return texts


@contextmanager
def small_blocks(rng: random.Random) -> Iterator[None]:
    """Let the text be read in small pieces, so that most of it is not seen when its dialect is found."""
    size = rng.choice([64, 200, 1000, 1 << 20])
    module = "ddmpi.io.sources.separated"
    with mock.patch(f"{module}._BLOCK_BYTES", size), mock.patch(f"{module}._SAMPLE_BYTES", max(size, 100)):
        yield


def outcome(case: Case, folder: Path, rng: random.Random) -> str:
    """What becomes of the table: ``equal``, ``stopped``, or what was lost."""
    path = folder / case.name
    packed = PACKED.get(path.suffix if path.suffix in PACKED else "", bytes)
    path.write_bytes(packed(case.text.encode(case.encoding)))
    kept = [name for name in case.columns if name != "identifier"]
    try:
        with small_blocks(rng):
            table = open_input(str(path), {}, kept, None, InputSection(**case.keys))
            rows = pa.Table.from_batches(table.batches(), table.schema).to_pylist()
    except InputError as error:
        told = str(error)
        is_told = told.startswith(f"{path}: ") and ("line " in told or "input." in told or "empty" in told)
        return "stopped" if is_told else f"stopped without a word: {told}"
    finally:
        path.unlink()
    return compared(case, rows)


def compared(case: Case, rows: list[dict[str, Any]]) -> str:
    filled = [row for row in case.rows if row != [""]]
    if len(rows) != len(filled):
        return f"lost: {len(filled)} rows are {len(rows)}"
    for number, (meant, found) in enumerate(zip(filled, rows, strict=True)):
        if found["row_number"] != number:
            return f"lost: row {number} is numbered {found['row_number']}"
        if isinstance(meant, str):
            if not (found["reject"] or "").startswith("bad_line: line ") or not found["reject"].endswith(f": {meant}"):
                return f"lost: row {number} is bad, and told as {found['reject']}"
        elif [found[name] or "" for name in case.columns] != meant:
            return f"lost: row {number} is {[found[name] for name in case.columns]}, meant {meant}"
    return "equal"


def run(seed: int, folder: Path) -> str:
    """The outcome of one case, which the seed makes."""
    rng = random.Random(seed)
    return outcome(make_case(rng), folder, rng)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.first, arguments.first + arguments.cases):
            found = run(seed, Path(folder))
            if found not in {"equal", "stopped"}:
                print(f"seed {seed}: {found}\n{make_case(random.Random(seed))}")
                return 1
            counts[found] += 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
