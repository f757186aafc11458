"""The language of ``columns`` and ``keep_columns``: what a column of ours is made of.

    name                               a column of the input
    media.url                          a field of a struct, or of JSON in a cell
    images[], images[].hi_res          a row for each element of a list, or of JSON in a cell
    https://a.org/{id}.{extension}     a template over columns; {{ and }} are braces
    [a, b]                             the first that has a value
    {column: a, split: " | "}          a row for each part of a text
    {value: CC0}                       one text in all rows

Decides which values the keys take, and how a text is read. It must not know which columns a file has: a column whose
name is the whole text is preferred to what the text means otherwise, so nothing here refuses a name for its characters.

Invariants: sources are frozen and survive JSON; ``plain`` says one thing in one way.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from ddmpi.config.sections import Section
from ddmpi.config.value_types import Text
from ddmpi.core.records import RESULT_COLUMNS
from ddmpi.core.rules.json_cells import EACH

RENAMED: Final = "input_"
"""What ``keep_columns: all`` puts before a name that the results have themselves."""
_EXPECTED: Final = 'text, not empty, or a list of such, or {column: name, split: " | "}, or {value: text}'


class Split(Section):
    """A text with several values: a row for each."""

    column: Text = Field(description="Column with the text.")
    split: Text = Field(description="What stands between its parts; spaces around a part are dropped.")


class Constant(Section):
    """The text of a column that the input does not have."""

    value: Text = Field(description="The text of all rows.")


Source: TypeAlias = str | Split | Constant
"""One thing that a column can be made of."""


@dataclass(frozen=True)
class Template:
    """A text with references in braces: ``literals[0] references[0] literals[1]`` ..., one more literal at the end."""

    literals: tuple[str, ...]
    references: tuple[str, ...]


def parse_template(text: str) -> Template | None:
    """Return the template that a text is; None for a text without braces. Raises ValueError: single braces."""
    if "{" not in text and "}" not in text:
        return None
    literals, references = [""], []
    try:
        for literal, name, form, conversion in string.Formatter().parse(text):
            literals[-1] += literal
            if name is None:
                continue
            if not name or form or conversion:
                raise ValueError("{name} of a column and nothing more")
            references.append(name)
            literals.append("")
    except ValueError as error:
        raise ValueError(f"a template such as https://a.org/{{id}}.jpg (braces are {{{{ and }}}}): {error}") from None
    return Template(tuple(literals), tuple(references))


def split_path(path: str) -> tuple[str, ...]:
    """Return the steps of a path: ``images[].sizes.url`` is ("images", "[]", "sizes", "url")."""
    return tuple(step for step in path.replace(EACH, f".{EACH}.").split(".") if step)


def makes_items(source: Source) -> bool:
    """Return whether a source makes a row for each element or part."""
    if not isinstance(source, str):
        return isinstance(source, Split)
    try:
        template = parse_template(source)
    except ValueError:
        return False
    return any(EACH in reference for reference in ([source] if template is None else template.references))


def _source(value: object) -> Source:
    if isinstance(value, (Split, Constant)) or (isinstance(value, str) and value):
        return value
    if isinstance(value, Mapping):
        try:
            return (Constant if "value" in value else Split).model_validate(dict(value))
        except ValidationError:
            pass
    raise ValueError(_EXPECTED)


def _sources(value: object) -> Source | tuple[Source, ...]:
    if not isinstance(value, (list, tuple)):
        return _source(value)
    if not value:
        raise ValueError(_EXPECTED)
    return _each_once(tuple(map(_source, value)))


def _each_once(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    doubled = sorted({str(source) for source in sources if sources.count(source) > 1})
    if doubled:
        raise ValueError(f"each entry once (doubled: {', '.join(doubled)})")
    return sources


_OneSource: TypeAlias = Text | Split | Constant
_OneOrMore: TypeAlias = _OneSource | Annotated[list[_OneSource], Field(min_length=1)]
Sources: TypeAlias = Annotated[
    Source | tuple[Source, ...], BeforeValidator(_sources, json_schema_input_type=_OneOrMore)
]
"""What a column is made of: one source, or several of which the first with a value counts."""


def as_list(sources: Source | Sequence[Source]) -> list[Source]:
    """Return one source or several as a list."""
    return [sources] if isinstance(sources, (str, Split, Constant)) else list(sources)


def plain(sources: Source | Sequence[Source]) -> Any:
    """Return what stands for sources in JSON; a list of one means what the one means."""
    listed = [dict(source) if isinstance(source, BaseModel) else source for source in as_list(sources)]
    return listed[0] if len(listed) == 1 else listed


class Columns(Section):
    """Our column names and, as values, the names that the input uses, or what to make of its columns: docs/input.md."""

    identifier: Sources = Field(
        "identifier",
        description="Column with the URL, which must exist. Or a template `https://a.org/{id}.jpg`; `images[].url`, a "
        'row for each element; `{column: media, split: " | "}`, a row for each part; a list, of which the first that '
        "has a value counts.",
    )
    uuid: Sources = Field("uuid", description="Column with the row's id, or a template. Missing ids are derived.")
    source_id: Sources = Field(
        "source_id", description="Column with the id of the record that has the image, or a template."
    )
    license: Sources = Field("license", description="Column with the license; `{value: CC0}` = one text in all rows.")
    source: Sources = Field("source", description="Column with the name of the source, or `{value: ...}`.")
    title: Sources = Field("title", description="Column with the title, a template, or `{value: ...}`.")

    headers: Sources | None = Field(
        None,
        description="Column with headers for each row's own URL: a JSON object of texts, a map or a struct; or a "
        "template of such JSON. They are sent to the server of that URL alone: docs/secrets.md.",
    )

    @field_validator("uuid", "source_id", "license", "source", "title", "headers")
    @classmethod
    def _no_split(cls, sources: Source | tuple[Source, ...] | None) -> Source | tuple[Source, ...] | None:
        if sources is not None and any(isinstance(source, Split) for source in as_list(sources)):
            raise ValueError("a column or a template: split makes rows, and only columns.identifier does that")
        return sources

    @field_validator("identifier", "uuid")
    @classmethod
    def _not_constant(cls, sources: Source | tuple[Source, ...]) -> Source | tuple[Source, ...]:
        if any(isinstance(source, Constant) for source in as_list(sources)):
            raise ValueError("a column or a template: with {value: ...} all rows would have the same")
        return sources

    @property
    def make_items(self) -> bool:
        """Whether a row of the input may become several."""
        return any(map(makes_items, as_list(self.identifier)))

    @property
    def written(self) -> frozenset[str]:
        """Our names that the config says something about, and the identifier: these columns must exist."""
        return frozenset(self.model_fields_set) | {"identifier"}

    def as_lists(self) -> dict[str, list[Source]]:
        """Return the sources of each column by our name."""
        return {name: as_list(sources) for name, sources in self if sources is not None}

    def plain(self) -> dict[str, Any]:
        """Return the sources as JSON keeps them."""
        return {name: plain(sources) for name, sources in self if sources is not None}


def _kept(value: object) -> object:
    if value == "all":
        return value
    if isinstance(value, Mapping) and all(isinstance(ours, str) and ours for ours in value):
        kept = {ours: _sources(theirs) for ours, theirs in value.items()}
        if any(isinstance(source, Split) for sources in kept.values() for source in as_list(sources)):
            raise ValueError("a column or a template: split makes rows, and only columns.identifier does that")
        _check_names(list(kept), kept)
        return kept
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) and name for name in value):
        _each_once(tuple(value))
        _check_names(value, {name: name for name in value})
        return tuple(value)
    raise ValueError("a list of columns, a mapping {ours: theirs}, or all")


def _check_names(names: Sequence[str], kept: Mapping[str, Any]) -> None:
    taken = sorted(RESULT_COLUMNS.intersection(names))
    if taken:
        renamed = {f"{RENAMED}{ours}" if ours in taken else ours: plain(theirs) for ours, theirs in kept.items()}
        line = ", ".join(f"{ours}: {_yaml(theirs)}" for ours, theirs in renamed.items())
        raise ValueError(
            f"columns that the results do not have anyway (taken: {', '.join(taken)}); "
            f"to keep them, rename them: keep_columns: {{{line}}}"
        )


def _yaml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    text = str(value)
    return text if text.replace("_", "").replace(" ", "").isalnum() and text.strip() == text else f'"{text}"'


KeptColumns: TypeAlias = Annotated[
    Literal["all"] | tuple[Text, ...] | Mapping[Text, Sources],
    BeforeValidator(_kept, json_schema_input_type=Literal["all"] | list[Text] | dict[Text, _OneOrMore]),
]
"""``all``, names, or what the kept columns are made of by the names that they get."""


def kept_sources(kept: str | Sequence[str] | Mapping[str, Any]) -> dict[str, list[Source]] | None:
    """Return what each kept column is made of, by its name in the results; None: all columns are kept."""
    if kept == "all":
        return None
    if isinstance(kept, Mapping):
        return {ours: as_list(theirs) for ours, theirs in kept.items()}
    return {name: [name] for name in kept}


def plain_kept(kept: str | Sequence[str] | Mapping[str, Any]) -> Any:
    """Return what stands for ``keep_columns`` in JSON; a mapping of names to themselves means what a list means."""
    sources = kept_sources(kept)
    if sources is None:
        return "all"
    named = {ours: plain(theirs) for ours, theirs in sources.items()}
    return list(named) if all(ours == theirs for ours, theirs in named.items()) else named
