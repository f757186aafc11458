"""What a user may have meant, where a table's URLs are refused: the line of the config to write. Pure.

Decides from one refused value, and the other values of its row, if they are known. It is a guess, and said as one: what
it names is shown to a person and never done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ddmpi.core.rules.urls import Parsed, parse_url

_URL: Final = re.compile(r"https?://[^\s\"'<>|;,\]}]+")
_BETWEEN_URLS: Final = re.compile(r"https?://[^\s|;,\"]+?(\s*[|;,]\s*|\s+)(?=https?://)")
_OTHER_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def advice(url: str | None, column: str, others: Mapping[str, str | None]) -> str:
    """Return a sentence with the key to write, or "" where nothing is likely.

    Args:
        url: the refused value.
        column: the name of its column in the input.
        others: the other columns of its row.
    """
    for name, value in others.items():
        if isinstance(parse_url(value), Parsed):
            return f"the column {name} has URLs: columns: {{identifier: {name}}}"
    text = (url or "").strip()
    if not text:
        return f'rows without a URL can be left out: filter: {column} is not null and {column} != ""'
    if "\t" in text and (cells := _cells(text)):
        return f"the lines have columns, separated by tabs: input: {{format: tsv, header: false, names: [{cells}]}}"
    if text[0] in "[{" and _URL.search(text):
        return f'a cell has a list: columns: {{identifier: "{column}[]"}}'
    if between := _BETWEEN_URLS.match(text):
        return f'a cell has several URLs: columns: {{identifier: {{column: {column}, split: "{between[1]}"}}}}'
    return _advice_on_scheme(text, column)


def _cells(text: str) -> str:
    """Return names for the cells of a line, if one of them is a URL."""
    cells = text.split("\t")
    names = [f"column_{number}" for number in range(1, len(cells) + 1)]
    places = [place for place, cell in enumerate(cells) if isinstance(parse_url(cell), Parsed)]
    if places:
        names[places[0]] = "identifier"
    return ", ".join(names) if places else ""


def _advice_on_scheme(text: str, column: str) -> str:
    if text.startswith("//"):
        return f'the scheme is missing: columns: {{identifier: "https:{{{column}}}"}}'
    if re.match(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+/", text):
        return f'the scheme is missing: columns: {{identifier: "https://{{{column}}}"}}'
    if other := _OTHER_SCHEME.match(text):
        if other[1].lower() in {"http", "https"}:
            return ""
        return f"{other[1]}:// is not fetched, only http and https: columns: {{identifier: ...}} with a template"
    return _advice_on_part(text, column)


def _advice_on_part(text: str, column: str) -> str:
    """Say what to write where the value is a part of a URL."""
    if re.fullmatch(r"[!-9;-~]*(/[!-9;-~]*|\.[A-Za-z0-9]{2,5})", text):
        return 'the URLs are relative: base_url: "https://HOST/FOLDER/"'
    if re.fullmatch(r"[A-Za-z0-9_-]+", text):
        return f'the URLs have to be built: columns: {{identifier: "https://HOST/FOLDER/{{{column}}}.jpg"}}'
    return ""
