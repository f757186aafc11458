"""The config as a JSON Schema, from the models of ddmpi.config: what editors check and complete while one types.

It takes everything that ``ddmpi.config`` takes, but cannot say everything that is refused: how a proxy's URL
looks, or that a group's rules must agree, is told at the start of a run.
"""

from __future__ import annotations

import json
from typing import Any

from ddmpi.config.config import Keys
from ddmpi.config.distributed_downloader import IGNORED_KEYS, TRANSLATED_KEYS
from ddmpi.config.messages import section_of

SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"
_IGNORED = {"description": "A key of distributed-downloader, which is accepted and ignored.", "deprecated": True}
_TRANSLATED = {"description": "A key of distributed-downloader: see docs/configuration.md.", "deprecated": True}


def schema_json(generated: str) -> str:
    """The text of configs/ddmpi.schema.json; ``generated`` says by what it was written."""
    schema = Keys.model_json_schema(mode="validation")
    _drop_titles(schema)
    for name, field in Keys.model_fields.items():
        if section_of(field) is not None:
            schema["properties"][name] = _or_empty(schema["properties"][name])
        # Pydantic leaves out what the model's own docstring says too.
        schema["properties"][name]["description"] = field.description
    for dotted in IGNORED_KEYS:
        section, _, key = dotted.rpartition(".")
        _section(schema, section)["properties"][key] = _IGNORED
    schema["properties"] |= dict.fromkeys(TRANSLATED_KEYS, _TRANSLATED)
    head = {"$schema": SCHEMA_URL, "$comment": f"{generated}.", "title": "Config of ddmpi"}
    return json.dumps(head | schema, indent=1, ensure_ascii=False) + "\n"


def _section(schema: dict[str, Any], name: str) -> Any:
    """The schema of a section by its key, or the whole for the empty text."""
    if not name:
        return schema
    return schema["$defs"][schema["properties"][name]["anyOf"][0]["$ref"].rpartition("/")[2]]


def _or_empty(section: dict[str, Any]) -> dict[str, Any]:
    """A section whose keys are all commented out is null in YAML."""
    about = {key: value for key, value in section.items() if key != "$ref"}
    return {"anyOf": [{"$ref": section["$ref"]}, {"type": "null"}], **about}


def _drop_titles(node: object) -> None:
    """Pydantic repeats each key as a title; a property that is named title is a mapping, and stays."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for value in node.values():
            _drop_titles(value)
    elif isinstance(node, list):
        for value in node:
            _drop_titles(value)
