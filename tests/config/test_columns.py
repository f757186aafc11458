"""What ``columns`` and ``keep_columns`` take, and what they say when they do not."""

from __future__ import annotations

from typing import Any

import pytest

from ddmpi.config.columns import Split, Template, kept_sources, makes_items, parse_template, split_path
from ddmpi.config.config import Config, parse
from ddmpi.errors import ConfigError


def made(**keys: Any) -> Config:
    return parse({"path_to_input": "in.csv", "path_to_output_folder": "out", **keys}, "test")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.org/{id}.{ext}", Template(("https://a.org/", ".", ""), ("id", "ext"))),
        ("{a b}", Template(("", ""), ("a b",))),
        ("{{{a.b}}}{c[].d}", Template(("{", "}", ""), ("a.b", "c[].d"))),
        ("no braces", None),
    ],
)
def test_a_text_with_braces_is_a_template(text: str, expected: Template | None) -> None:
    assert parse_template(text) == expected


@pytest.mark.parametrize("text", ["{a", "a}", "{}", "{a:03d}", "{a!r}"])
def test_half_a_template_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="a template such as"):
        parse_template(text)


def test_a_path_has_steps() -> None:
    assert split_path("images[].sizes.url") == ("images", "[]", "sizes", "url")
    assert split_path("a[][].b") == ("a", "[]", "[]", "b")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("images[]", True),
        ("https://a.org/{ids[]}.jpg", True),
        ("https://a.org/{id}?k[]=1", False),
        (Split(column="a", split="|"), True),
        ("{broken[]", False),
    ],
)
def test_lists_and_splits_make_items(source: str | Split, expected: bool) -> None:
    assert makes_items(source) is expected


COLUMNS: list[Any] = [
    "https://a.org/{id}.jpg",
    ["a", "b[].c"],
    {"column": "media", "split": " | "},
    [{"column": "media", "split": " | "}, "a"],
]


@pytest.mark.parametrize("identifier", COLUMNS, ids=str)
def test_what_a_column_is_made_of_survives_json_and_decides_the_output(identifier: object) -> None:
    config = made(columns={"identifier": identifier, "license": {"value": "CC0"}})
    assert config.semantic()["columns"]["identifier"] == identifier  # type: ignore[index]
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert config.columns.written == {"identifier", "license"}
    assert config.identity_hash() != made(columns={"identifier": "url", "license": {"value": "CC0"}}).identity_hash()


def test_one_thing_is_said_in_one_way() -> None:
    assert made(columns={"identifier": ["url"]}).semantic() == made(columns={"identifier": "url"}).semantic()
    assert made(keep_columns={"a": "a"}).semantic() == made(keep_columns=["a"]).semantic()
    assert made(keep_columns={"a": "b"}).semantic()["keep_columns"] == {"a": "b"}
    assert made(keep_columns="all").semantic()["keep_columns"] == "all"
    assert made().semantic()["base_url"] is None


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"columns": {"identifier": {"column": "a"}}}, "columns.identifier: a mapping: expected text, not empty, or a"),
        ({"columns": {"identifier": {"value": "a"}}}, "with {value: ...} all rows would have the same"),
        ({"columns": {"title": {"column": "a", "split": "|"}}}, "only columns.identifier does that"),
        ({"columns": {"title": ["a", "a"]}}, "each entry once (doubled: a)"),
        ({"columns": {"title": []}}, "columns.title: []: expected text, not empty, or a list"),
        ({"columns": {"license": {"value": 3}}}, "or {value: text}"),
        ({"columns": {"url": "identifier"}}, "columns.url: unknown key; did you mean columns.identifier: url?"),
        ({"columns": {"url": "picture"}}, "columns.url: unknown key; known here: identifier"),
        ({"keep_columns": "some"}, "expected a list of columns, a mapping {ours: theirs}, or all"),
        ({"keep_columns": {"a": {"column": "a", "split": "|"}}}, "only columns.identifier does that"),
        ({"keep_columns": ["epoch", "n"]}, "(taken: epoch); to keep them, rename them: keep_columns: {input_epoch: e"),
        ({"keep_columns": {"status": "my status", "x": ["a", "b"]}}, '{input_status: my status, x: [a, b]}'),
        ({"keep_columns": ["outcome", "item_number"]}, "(taken: item_number, outcome)"),
        ({"base_url": "data.org/"}, "base_url: 'data.org/': expected an http or https URL"),
        ({"base_url": "https://u:p@data.org/"}, "without a password"),
        ({"keep_columns": {"a": "b"}, "expected": {"hash_column": "b"}}, "missing there: b"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(**keys)
    assert expected in str(raised.value)


def test_kept_columns_by_the_names_that_they_get() -> None:
    assert kept_sources(made(keep_columns={"a": "b", "c": {"value": "d"}}).keep_columns) == {
        "a": ["b"],
        "c": [made(columns={"title": {"value": "d"}}).columns.title],
    }
    assert kept_sources("all") is None
    assert made(keep_columns="all", expected={"hash_column": "md5"}).expected.columns == ("md5",)
