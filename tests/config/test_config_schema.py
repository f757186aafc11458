"""The JSON Schema for editors: it takes what the program takes, and refuses what an editor can know to be wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ddmpi.config.config import Keys, parse
from ddmpi.config.distributed_downloader import IGNORED_KEYS, TRANSLATED_KEYS
from ddmpi.config.messages import known_keys
from ddmpi.errors import ConfigError
from tests.config.test_config import REQUIRED
from tests.config.test_distributed_downloader import FILES

CONFIGS = Path(__file__).parents[2] / "configs"


@cache
def validator() -> Draft202012Validator:
    schema = json.loads((CONFIGS / "ddmpi.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def complaints(data: object) -> list[str]:
    """Paths of what the schema refuses; JSON has texts as keys, and dates too."""
    plain = json.loads(json.dumps(data, default=str))
    return sorted(error.json_path for error in validator().iter_errors(plain))


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_here_fits_and_names_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert complaints(yaml.safe_load(text)) == []
    before, _, named = text.partition("\n")[0].partition("$schema=")
    assert before == "# yaml-language-server: "
    assert (path.parent / named).resolve() == CONFIGS / "ddmpi.schema.json"


def test_every_key_is_described() -> None:
    schema: Any = validator().schema
    for key in known_keys(Keys):
        node = schema
        for name in key.split("."):
            section = next((choice for choice in node.get("anyOf", []) if "$ref" in choice), node)
            if "$ref" in section:
                node = schema["$defs"][section["$ref"].rpartition("/")[2]]
            node = node["properties"][name]
        assert node.get("description"), key


@pytest.mark.parametrize("name", FILES)
def test_keys_of_distributed_downloader_are_no_mistakes(name: str) -> None:
    data = yaml.safe_load(FILES[name])
    if not data["downloader_parameters"]["batch_size"]:
        del data["downloader_parameters"]["batch_size"]  # 0 means its default there; here it is a mistake
    assert complaints(data) == []


def test_the_files_have_all_keys_of_distributed_downloader() -> None:
    texts = "".join(FILES.values())
    assert all(f"{key.rpartition('.')[2]}:" in texts for key in (*IGNORED_KEYS, *TRANSLATED_KEYS))


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"path_to_input": 3}, "$.path_to_input"),
        ({"path": "x"}, "$"),
        ({"downloader_parameters": {"batchsize": 3}}, "$.downloader_parameters"),
        ({"columns": {"identifier": ""}}, "$.columns"),
        ({"servers": [{"rate_limit": 3}]}, "$.servers[0]"),
        ({"servers": [{"match": "a.org", "rate_limit": -3}]}, "$.servers[0].rate_limit"),
        ({"schedule_rules": {1: "many"}}, "$.schedule_rules['1']"),
    ],
)
def test_mistakes_are_found_where_they_are(keys: Mapping[str, object], path: str) -> None:
    assert complaints({**REQUIRED, **keys}) == [path]


def test_the_required_keys_are_missed() -> None:
    assert complaints({"path_to_input": "urls.csv"}) == ["$"]


def given_values() -> st.SearchStrategy[object]:
    """What stands in configs: enough of it is right for a key to be accepted now and then."""
    texts = st.sampled_from(["", "a", "*.a.org", "User-Agent: a@b.c", "2030-01-31T18:00:00Z", "sha1", "any", "uniform"])
    plain = st.none() | st.booleans() | st.integers(-1, 100) | st.floats(0, 100) | texts
    return plain | st.lists(plain, max_size=2) | st.dictionaries(st.integers(-1, 9), st.integers(-1, 9), max_size=2)


@given(st.dictionaries(st.sampled_from([key for key in known_keys(Keys) if "." in key]), given_values(), max_size=2))
def test_what_the_program_takes_the_schema_takes(flat: dict[str, object]) -> None:
    data: dict[str, Any] = dict(REQUIRED)
    for key, value in flat.items():
        section, _, name = key.partition(".")
        data.setdefault(section, {})[name] = value
    try:
        parse(data, "test")
    except ConfigError:
        return
    assert complaints(data) == []


@given(st.sampled_from(sorted(Keys.model_fields)), given_values())
def test_the_same_at_the_top_level(key: str, value: object) -> None:
    data = {**REQUIRED, key: value}
    try:
        parse(data, "test")
    except ConfigError:
        return
    assert complaints(data) == []
