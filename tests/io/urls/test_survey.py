"""The account of an input agrees with one made row by row, whatever the files are."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.row_filter import parse_filter
from ddmpi.core.rules.urls import Parsed, Rejected, parse_url
from ddmpi.errors import InputError, Interrupted
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.survey import check_refused, survey

MEMORY_BYTES = 1 << 26
URLS = [
    "https://a.example/1.jpg", "http://a.example/1.jpg", "https://B.example:443/x", "https://c.example/ä", None, "",
    "ftp://a.example/", "https://a.example:99999/", "no scheme", "https://me:secret@a.example/", "https://a b/",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_counted_once_under_its_file_and_reason(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    files = [[(rng.choice(URLS), rng.randrange(10)) for _ in range(rng.randrange(60))] for _ in range(4)]
    for number, rows in enumerate(files):
        urls, years = [url for url, _ in rows], [year for _, year in rows]
        columns: dict[str, pa.Array[Any]] = {
            "identifier": pa.array(urls, pa.string()),
            "year": pa.array(years, pa.int64()),
        }
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet", row_group_size=7)
    table = open_input(str(tmp_path), {}, (), parse_filter("year > 2"))
    found = survey(table, MEMORY_BYTES)
    first = 0
    for rows, file in zip(files, found.files, strict=True):
        kept = [url for url, year in rows if year > 2]
        parsed = [parse_url(url) for url in kept]
        reasons = Counter(each.reason.partition(":")[0] for each in parsed if isinstance(each, Rejected))
        assert (file.rows, file.filtered) == (len(kept), len(rows) - len(kept))
        assert file.refusals.counts == reasons
        left_out = [number for number, (_, year) in enumerate(rows, first) if year <= 2]
        assert file.first_filtered == (left_out[0] if left_out else None)
        assert file.urls == [each.url for each in parsed if isinstance(each, Parsed)][:3]
        for reason, example in file.refusals.examples.items():
            url = rows[example.row_number - first][0]
            assert reason == str(parse_url(url)[0]).partition(":")[0]
            assert example.url == (url and url.replace("me:secret@", ""))
        first += len(rows)
    accepted = [url for rows in files for url, year in rows if year > 2 and isinstance(parse_url(url), Parsed)]
    assert (found.urls.count, found.urls.is_exact) == (len(set(accepted)), True)
    assert found.server_count == len({parse_url(url)[0] for url in accepted})
    assert found.refused == found.refusals.total == found.rows - len(accepted)


def test_a_text_file_is_surveyed_as_well(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"x,identifier\n1,https://a.example/\xff\n2,https://a.example/2\n3,\n")
    found = survey(open_input(str(tmp_path / "t.csv"), {}, ()), MEMORY_BYTES)
    assert found.refusals.counts == {"bad_encoding": 1, "null_url": 1}
    assert found.refusals.examples["bad_encoding"].row_number == 0
    assert found.files[0].urls == ["https://a.example/2"]


def test_an_empty_input_has_an_account(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("identifier\n")
    found = survey(open_input(str(tmp_path / "t.csv"), {}, ()), MEMORY_BYTES)
    assert (found.rows, found.refused, found.server_count, found.urls.count) == (0, 0, 0, 0)


def test_it_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("https://a.example/\n")
    with pytest.raises(Interrupted):
        survey(open_input(str(tmp_path / "t.txt"), {}, ()), MEMORY_BYTES, should_stop=lambda: True)


def test_half_a_table_may_be_refused_and_not_more(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("https://a.example/\n" * 5 + "/images/1.jpg\n" * 6)
    table = open_input(str(tmp_path / "t.txt"), {}, ())
    check_refused(table, 10, {"bad_scheme": 5})
    check_refused(table, 0, {})
    with pytest.raises(InputError) as caught:
        check_refused(table, 11, {"bad_scheme": 6})
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("t.txt: 6 of 11 rows are refused: what they have for a URL cannot be asked for")
    assert lines[1] == "  bad_scheme 6, e.g. row 5: '/images/1.jpg'"
    assert lines[2] == '  perhaps the URLs are relative: base_url: "https://HOST/FOLDER/"'
    assert lines[3] == "allow_refused: true takes the table as it is: these rows become errors"
