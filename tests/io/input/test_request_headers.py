"""The headers that rows bring along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.core.partition.partition import servers_of
from ddmpi.core.records import REQUEST_HEADERS
from ddmpi.errors import InputError
from ddmpi.io.input.request_headers import MOST_HEADER_BYTES, header_texts
from ddmpi.io.input.rows import BAD_HEADERS, without_credentials
from ddmpi.io.input.table import InputTable, open_input

SECRET = "hunter2"  # noqa: S105
TEXT_MAP = pa.map_(pa.string(), pa.string())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(['{"B": "2", "A": "1"}', None, "", " ", "{}"]), ['{"A": "1", "B": "2"}', None, None, None, None]),
        (pa.array([b'{"A": "1"}', None], pa.large_binary()), ['{"A": "1"}', None]),
        (pa.array(['{"A": "1"}', '{"A": "1"}']).dictionary_encode(), ['{"A": "1"}'] * 2),
        (pa.array([[("B", "2"), ("A", None)], None, []], TEXT_MAP), ['{"B": "2"}', None, None]),
        (pa.array([{"A": "1", "B": None}, None, {"A": "", "B": ""}]), ['{"A": "1"}', None, None]),
        (pa.array(['{"A": null, "B": "", "C": "3"}']), ['{"C": "3"}']),
        (pa.nulls(2), [None, None]),
    ],
    ids=["JSON", "bytes", "dictionary", "map", "struct", "empty ones", "no type"],
)
def test_headers_come_in_all_forms(values: pa.Array[Any], expected: list[str | None]) -> None:
    assert header_texts(values).to_pylist() == expected


@pytest.mark.parametrize(
    "value",
    [
        f"A: {SECRET}",
        f'["{SECRET}"]',
        '{"A": 5}',
        f'{{"A": {{"B": "{SECRET}"}}}}',
        f'{{"A": "{SECRET}"',
        f'{{"A": "{SECRET}\\r\\nB: x"}}',
        f'{{"A": "{SECRET}\\u00e9"}}',
        f'{{"{SECRET} x": "A"}}',
        f'{{"range": "{SECRET}"}}',
        f'{{"a": "{SECRET}", "A": "{SECRET}"}}',
        f'{{"Proxy-Authorization": "{SECRET}"}}',
        json.dumps({"A": "x" * MOST_HEADER_BYTES}),
    ],
)
def test_a_cell_that_cannot_be_sent_is_refused_with_nothing_of_it_in_the_reason(value: str) -> None:
    (text,) = header_texts(pa.array([value])).to_pylist()
    assert text is not None
    assert text.startswith(BAD_HEADERS)
    assert SECRET not in text


def opened(folder: Path, columns: dict[str, Any], table: dict[str, Any], keep: Any = ()) -> InputTable:
    pq.write_table(pa.table(table), folder / "in.parquet")
    return open_input(str(folder / "in.parquet"), {"identifier": "url", **columns}, keep)


def test_rows_have_their_headers_and_those_that_cannot_be_sent_are_refused(tmp_path: Path) -> None:
    cells = ['{"A": "1"}', "none", None]
    table = opened(tmp_path, {"headers": "own"}, {"url": ["http://a.org/1", "http://a.org/2", "no"], "own": cells})
    (rows,) = (batch.to_pydict() for batch in table.batches())
    assert rows[REQUEST_HEADERS] == ['{"A": "1"}', None, None]
    assert rows["server_name"] == ["a.org", None, None]
    assert [reason and reason.split(":")[0] for reason in rows["reject"]] == [None, "bad_headers", "bad_scheme"]
    assert rows["identifier"] == ["http://a.org/1", "http://a.org/2", "no"]
    # The first step of clustering sees the URLs alone, and must come to the same.
    (raw,) = table.raw(urls_only=True)
    assert table.servers(raw).rejects.to_pylist() == rows["reject"]
    assert table.has_headers


def test_a_template_makes_headers_of_a_column(tmp_path: Path) -> None:
    columns = {"headers": '{{"Authorization": "Bearer {token}"}}'}
    content = {"url": ["http://a.org/1"] * 2, "token": ["x", None], "other": ["y", "z"]}
    table = opened(tmp_path, columns, content, "all")
    (rows,) = (batch.to_pydict() for batch in table.batches())
    assert rows[REQUEST_HEADERS] == ['{"Authorization": "Bearer x"}', None]
    assert "other" in rows
    assert "token" not in rows, "what headers are made of is kept only by name"
    assert "token" in opened(tmp_path, columns, content, ["token"]).schema.names


def test_a_column_that_cannot_be_headers_or_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"columns\.headers: a map, a struct or JSON objects of texts"):
        opened(tmp_path, {"headers": "own"}, {"url": ["http://a.org/1"], "own": [5]})
    with pytest.raises(InputError, match="no column owm"):
        opened(tmp_path, {"headers": "owm"}, {"url": ["http://a.org/1"], "own": ["{}"]})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"//u:{SECRET}@host/x", "//host/x"),
        (f"http://u%3A{SECRET}%40host/x", "http://host/x"),
        (f"http://u:{SECRET}/w@host/x", "http://host/x"),
        (f"http://u:{SECRET}?w@host/x", "http://host/x"),
        (f"http://u:{SECRET}#w@host/x", "http://host/x"),
        (f"http://u:1{SECRET}/@w@host/x", "http://host/x"),
        (f"http:\\\\u:{SECRET}@host", "http:\\\\host"),
        (f"ftp://u:{SECRET}@host/a@b", "ftp://host/a@b"),
        (f"u:{SECRET}@host/x", "u:host/x"),
        ("http://host:8080/a b/@me", "http://host:8080/a b/@me"),
        ("http://host/@me x", "http://host/@me x"),
    ],
)
def test_what_may_be_a_password_is_taken_out_of_refused_urls(url: str, expected: str) -> None:
    assert without_credentials(pa.array([url])).to_pylist() == [expected]
    (reason,) = servers_of(pa.array([url])).rejects.to_pylist()
    assert reason is not None, "none of them is asked"
    assert SECRET not in reason
