"""The section ``input``: a query in the input's place, and how files are read, as far as they do not say it for sure.

Decides which values may be written there. Must not know how files are read; ``auto`` means that they say it themselves.
None of these keys must stay as it was for an output folder: if other rows come of a change, that is found by the rows.
"""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ddmpi.config.sections import Section
from ddmpi.config.value_types import Text

AUTO = "auto"
_NAMED_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def _separator(value: object) -> object:
    return _NAMED_SEPARATORS.get(value, value) if isinstance(value, str) else value


def _checked_separator(text: str) -> str:
    if text != AUTO and (len(text) != 1 or not text.isascii() or text in '"\r\n\0' or text.isalnum()):
        names = ", ".join(name for name in _NAMED_SEPARATORS if name.isalpha())
        raise ValueError(f"auto, {names}, or one ASCII character that is no letter, digit or quotation mark")
    return text


def _checked_encoding(name: str) -> str:
    try:
        known = codecs.lookup(name)
        "".encode(name)
    except LookupError:
        raise ValueError("an encoding that Python knows, such as utf-8, cp1252, latin-1, utf-16") from None
    return known.name


Separator = Annotated[str, BeforeValidator(_separator), AfterValidator(_checked_separator)]
"""``auto`` or one character."""
Encoding = Annotated[str, AfterValidator(_checked_encoding)]
"""By the name that Python's codecs give it."""


class InputSection(Section):
    """How the input's files are read."""

    sql: Text | None = Field(
        None,
        examples=["SELECT * FROM 'urls.parquet' ORDER BY id"],
        description="A query of DuckDB whose rows are the table, instead of `path_to_input`; files in it are relative "
        "to the folder in which the program is started (needs ddmpi[sql]).",
    )
    format: Literal["auto", "parquet", "csv", "tsv", "txt", "jsonl", "json", "arrow"] = Field(
        "auto",
        description="Kind of the files; auto = by the ending of their names. csv and tsv: a separated text; txt: a URL "
        "per line; jsonl: a JSON object per line; json: one JSON document; arrow: IPC files and streams, Feather.",
    )
    separator: Separator = Field(
        AUTO, description="Of separated text: auto = found; or tab, comma, semicolon, pipe, space, or one character."
    )
    quote: Literal["auto", "none", '"'] = Field(
        "auto",
        description="Of separated text: '\"' = values may stand in quotation marks, which are doubled inside; none = "
        "a quotation mark is a character like any other; auto = found.",
    )
    header: bool = Field(default=True, description="Whether separated text begins with the columns' names.")
    names: Annotated[tuple[Text | None, ...], Field(strict=False)] = Field(
        (),
        description="Of separated text: names of the columns by position, in place of the header's; null leaves one as "
        "it is, and so do columns beyond the list. Columns without any name are column_1, column_2 ...",
    )
    encoding: Encoding = Field("utf-8", description="Of text files, by Python's names, such as cp1252 or utf-16.")
    records: Text | None = Field(
        None,
        description="Where the array of rows is in a JSON document: a key such as images, or several with dots such as "
        "data.items; null = the document itself is the array.",
    )
    bad_lines: Literal["refuse", "error_rows"] = Field(
        "refuse",
        description="Lines of separated text with another number of values than there are columns: refuse = the run "
        "does not start; error_rows = each is a refused row with its line number and text.",
    )

    @field_validator("names")
    @classmethod
    def _each_once(cls, names: tuple[str | None, ...]) -> tuple[str | None, ...]:
        doubled = sorted({name for name in names if name is not None and names.count(name) > 1})
        if doubled:
            raise ValueError(f"each name once (doubled: {', '.join(doubled)})")
        return names

    @model_validator(mode="after")
    def _records_are_of_json(self) -> InputSection:
        if self.records is not None and self.format not in {AUTO, "json"}:
            raise ValueError(f"format: json where records is given (found: {self.format})")
        return self
