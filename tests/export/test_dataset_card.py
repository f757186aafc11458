"""The dataset card: what the web wrote is only text in it, and long lists end."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import yaml

from ddmpi.export.dataset_card import Contents, Split, dataset_card

SUMMARY = {"rows": 3, "exported": 2, "left_out": {"too_small": 1}, "options": {"to": "hf", "own": {"split": None}}}


def card(**counts: Counter[str]) -> str:
    whole = {"license": Counter[str](), "source": Counter[str](), "server": Counter[str](), **counts}
    contents = Contents("a|b: c", [Split("train", 2, 5)], whole, ("2026-01-02T03", "2026-02-03T04"))
    return dataset_card(contents, pa.schema([("uuid", pa.string())]), SUMMARY, "blake3")


def test_the_front_is_yaml_whatever_the_name() -> None:
    front = yaml.safe_load(card().split("---\n")[1])
    assert front["pretty_name"] == "a|b: c"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]


def test_values_of_the_table_are_text() -> None:
    text = card(license=Counter({"a | b\n# c <script>[x](y)": 2, "": 1}))
    assert r"| a \| b \# c &lt;script&gt;\[x\]\(y\) | 2 |" in text
    assert r"| \(none given\) | 1 |" in text
    assert "between 2026-01-02 and 2026-02-03" in text
    assert "`hashsum_original` is the blake3 of" in text
    assert "| too\\_small | 1 |" in text


def test_long_lists_end_with_the_sum_of_the_rest() -> None:
    text = card(server=Counter({f"s{n:03d}.org": 1000 - n for n in range(100)}))
    assert "| s024.org | 976 |" in text
    assert "s025.org" not in text
    assert f"| 75 more | {sum(1000 - n for n in range(25, 100)):,} |" in text
