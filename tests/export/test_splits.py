"""Splits: stable, of about the size that was asked for, and rows with the same key together."""

from __future__ import annotations

import pyarrow as pa

from ddmpi.export.splits import by_column, by_hash, read_shares


def test_a_split_depends_on_the_key_alone() -> None:
    rows = pa.table({"key": [f"k{n % 1000}" for n in range(3000)], "identifier": [str(n) for n in range(3000)]})
    split_of = by_hash(read_shares("train=0.8, val=0.15,test=0.05"), "key")
    splits = split_of(rows)
    assert splits[:1000] == splits[1000:2000] == split_of(rows.slice(2000))
    assert 760 < splits[:1000].count("train") < 840
    assert 120 < splits[:1000].count("val") < 180
    assert split_of(pa.table({"key": ["k0", "k1", "k2"], "identifier": ["", "", ""]})) == splits[:3]
    known = by_hash([("a", 0.5), ("b", 0.5)], "key")
    assert known(pa.table({"key": [1, 2, 3, 4], "identifier": ["", "", "", ""]})) == ["a", "b", "a", "a"]


def test_a_row_without_a_key_goes_by_its_url() -> None:
    rows = pa.table({"key": pa.nulls(400, pa.string()), "identifier": [str(n) for n in range(400)]})
    splits = by_hash([("a", 0.5), ("b", 0.5)], "key")(rows)
    assert 150 < splits.count("a") < 250


def test_names_are_what_the_hub_takes() -> None:
    rows = pa.table({"subset": ["train", "held out/2", None, "../x", "é", "y" * 99]})
    assert by_column("subset")(rows) == ["train", "held_out_2", "none", "x", "none", "y" * 60]
