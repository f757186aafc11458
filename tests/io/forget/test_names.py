"""What was withdrawn: how rows are known by it, and how it is kept."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ddmpi.errors import StorageError
from ddmpi.io.forget.names import Forgotten, read_forgotten, write_forgotten

ROWS = pa.table(
    {
        "row_number": [0, 1, 2, 3, 4, 5],
        "uuid": ["u0", "u1", "u2", "u3", "u4", "u5"],
        "identifier": ["http://a/0", "http://a/1", "http://a/2", "http://a/3", None, "http://a/5"],
        "requested_url": pa.array([None, "http://b/1", None, None, None, None], pa.string()),
        "mirrors": pa.array(
            [None, [], ["http://c/2", "http://d/2"], ["http://c/3"], None, None], pa.list_(pa.string())
        ),
    }
)


def test_a_row_is_known_by_its_uuid_and_by_any_of_its_urls() -> None:
    forgotten = Forgotten(frozenset({"u0", "http://b/1", "http://d/2", "absent"}))
    mask, found = forgotten.withdrawn(ROWS)
    assert mask.tolist() == [True, True, True, False, False, False]
    assert found == {"u0", "http://b/1", "http://d/2"}


def test_a_row_that_was_found_is_known_by_its_number_and_the_others_keep_theirs() -> None:
    """The URL of a withdrawn uuid is not fetched again, and what another row has of it stays."""
    urls = frozenset({"http://a/3", "http://cdn/3"})
    forgotten = Forgotten(frozenset({"u9"}), {3: urls, 5: frozenset({"http://of.another.table/"})})
    assert forgotten.withdrawn(ROWS)[0].tolist() == [False, False, False, True, False, False]
    others = ROWS.set_column(2, "identifier", pa.array(["http://a/3", "http://cdn/3", *["http://a/9"] * 4]))
    assert forgotten.withdrawn(others)[0].tolist() == [False] * 6
    assert forgotten.may_not_be_fetched(others).tolist() == [True, True, False, False, False, False]


def test_it_is_kept_whole_or_told_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "forgotten.parquet"
    assert not read_forgotten(path)
    forgotten = Forgotten(frozenset({"u0"}), {3: frozenset({"http://a/3"})}).plus(
        {"u1"}, {3: frozenset({"http://b/3"})}
    )
    write_forgotten(path, forgotten, tmp_path)
    assert read_forgotten(path) == Forgotten(frozenset({"u0", "u1"}), {3: frozenset({"http://a/3", "http://b/3"})})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"damaged.*must not be fetched again"):
        read_forgotten(path)
