"""The dataset card of the Hub: ``README.md`` with what is known of a dataset in YAML before its text."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
import yaml

from ddmpi._version import __version__
from ddmpi.report.formats import counted

COUNTED: Final = ("license", "source", "server")
_MOST_LINES: Final = 25
"""Of a table of counts; what comes after is added up."""
_LONGEST: Final = 120
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
_SIZES: Final = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6),
                 ("1M<n<10M", 10**7), ("10M<n<100M", 10**8), ("100M<n<1B", 10**9), ("n>1B", 10**15))  # fmt: skip
"""The Hub's own categories, by what they are below."""


class Split(NamedTuple):
    """``size_bytes`` of its files."""

    name: str
    rows: int
    size_bytes: int


@dataclass(frozen=True)
class Contents:
    """What a dataset holds. ``counts`` are rows by value for each of ``COUNTED``, "" where there is none; ``times`` the
    first and the last download, in ISO 8601."""

    name: str
    splits: Sequence[Split]
    counts: Mapping[str, Counter[str]]
    times: tuple[str, str] | None

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)

    @property
    def sentence(self) -> str:
        """Say in one sentence what this is."""
        servers = counted(len(self.counts["server"]), "server")
        return (
            f"{counted(self.rows, 'image')} from {servers}, downloaded with ddmpi {__version__}{_between(self.times)}."
        )


def dataset_card(contents: Contents, schema: pa.Schema, summary: Mapping[str, Any], algorithm: str) -> str:
    """Return the card, as it is before its owner edits it. ``summary`` is what ``export.json`` says,
    ``algorithm`` the hash of ``hashsum_original``."""
    front = {
        "pretty_name": contents.name,
        "license": "other",
        "license_name": "per-image",
        "size_categories": [next(name for name, below in _SIZES if contents.rows < below)],
        "tags": ["image"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split.name, "path": f"data/{split.name}-*"} for split in contents.splits],
            }
        ],
    }
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---",
            "",
            f"# {_text(contents.name)}",
            "",
            contents.sentence,
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            'dataset = load_dataset("path/of/this/folder")',
            "```",
            "",
            *_table(
                ("split", "images", "bytes"), ((s.name, f"{s.rows:,}", f"{s.size_bytes:,}") for s in contents.splits)
            ),
            "## Licenses",
            "",
            "Each image has its own license, in the column `license`, as the table that was downloaded says it.",
            "",
            *_counts("license", contents.counts["license"]),
            "## Sources",
            "",
            *_counts("source", contents.counts["source"]),
            "## Servers",
            "",
            *_counts("server", contents.counts["server"]),
            "## How it was made",
            "",
            *_history(summary, algorithm),
            "## Columns",
            "",
            *_table(("column", "type"), ((field.name, str(field.type)) for field in schema)),
        ]
    )


def _history(summary: Mapping[str, Any], algorithm: str) -> list[str]:
    options = {**summary["options"], **summary["options"]["own"]}
    given = " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in options.items()
        if value and name not in {"own", "shard_bytes"}
    )
    lines = [
        f"Downloaded with ddmpi {__version__} from a table of URLs (column `identifier`), then written by its export "
        f"(`{given}`). Of {counted(summary['rows'], 'download')} {summary['exported']:,} are here.",
        "",
        f"`hashsum_original` is the {algorithm} of the file as it was served, `row_number` its place in the table.",
        "",
    ]
    left_out = [(reason, f"{rows:,}") for reason, rows in summary["left_out"].items()]
    return lines + (_table(("left out because", "images"), left_out) if left_out else [])


def _counts(what: str, counts: Counter[str]) -> list[str]:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [(value or "(none given)", f"{rows:,}") for value, rows in most[:_MOST_LINES]]
    if rest := most[_MOST_LINES:]:
        lines.append((f"{len(rest):,} more", f"{sum(rows for _, rows in rest):,}"))
    return _table((what, "images"), lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *([_text(cell) for cell in line] for line in lines)]
    return [*("| " + " | ".join(row) + " |" for row in rows), ""]


def _text(value: str) -> str:
    """Return a text of the web so that it is only text: no markup, no second line, no cell of its own."""
    plain = " ".join(value.split())
    plain = plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}..."
    return _MARKDOWN.sub(r"\\\1", html.escape(plain, quote=False))


def _between(times: tuple[str, str] | None) -> str:
    if times is None:
        return ""
    first, last = (time[:10] for time in times)
    return f" on {first}" if first == last else f" between {first} and {last}"
