"""``ddmpi errors``: counts by kind, code and server, with an example each."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from ddmpi.cli.errors import show_errors
from ddmpi.core.records import ErrorKind
from ddmpi.io.folder.layout import Layout
from tests.roles.coordinator.states import commit, make_state


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    state = make_state(tmp_path, {"a.example.org": 6, "b.example.org": 2}, min_rows=1)
    commit(state, 0, [0], {ErrorKind.HTTP_STATUS: [1, 2, 3], ErrorKind.DNS: [4]})
    commit(state, 1, (), {ErrorKind.DNS: [0]})
    return state.layout


def counted(layout: Layout, by: str, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    assert show_errors(layout, by, as_csv=True, out=Console()) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert all(row["example_url"].startswith("http") and row["example_message"] for row in rows)
    return {row[by]: int(row["errors"]) for row in rows}


def test_they_are_counted_by_what_is_asked_the_most_first(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted(layout, "kind", capsys).items()) == [("http_status", 3), ("dns", 2)]
    assert sum(counted(layout, "code", capsys).values()) == 5
    assert sum(counted(layout, "server", capsys).values()) == 5


def test_people_get_a_table_with_an_example(layout: Layout) -> None:
    out = Console(file=io.StringIO(), width=120)
    show_errors(layout, "kind", as_csv=False, out=out)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "http_status" in text
    assert text.rstrip().endswith("5 errors")


def test_a_folder_without_errors(tmp_path: Path) -> None:
    state = make_state(tmp_path, {"a.example.org": 2})
    out = Console(file=io.StringIO(), width=120)
    show_errors(state.layout, "kind", as_csv=False, out=out)
    assert out.file.getvalue() == "0 errors\n"  # type: ignore[attr-defined]
