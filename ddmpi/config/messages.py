"""From YAML text to plain data, and from problems to the lines that a user reads.

Decides how a problem is worded: dotted path, the value, what was expected, the nearest known key. Must not know what
any key means: it learns names, types and bounds from the models that it is given. Secrets (a proxy's password, a
header's value) never reach a message.
"""

from __future__ import annotations

import math
import re
import reprlib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ddmpi.core.near_names import near_names
from ddmpi.errors import ConfigError

Path = tuple[int | str, ...]
"""Where a value stands: the keys and list positions that lead to it."""

_KINDS: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
    tuple: "a list",
    Mapping: "a mapping",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SETTING_EXAMPLE: Final = "--set downloader_parameters.default_rate_limit=5"
_SECRET: Final = re.compile(r"(?i)headers?\b|proxy|authoriz|token|cookie|passw|secret|api-?_?key|credential")
"""Words after which what is secret may follow."""
_MOST_QUOTED: Final = 100
_YAML_ADVICE: Final = {
    "mapping values are not allowed here": "Write each key on a line of its own, and a text with a colon in quotes",
    "\\t": "Write spaces where this line has a tab",
    "found unexpected end of stream": "Write the quote that ends the text",
    "expected ',' or '": "Write the bracket that ends the list or section, or the comma between two entries",
    "could not find expected ':'": "Write key: value, with a space after the colon",
    "while scanning an alias": "Write a text that begins with * in quotes",
    "found undefined alias": "Write a text that begins with * in quotes",
    "cannot start any token": "Write a text that begins so in quotes",
}
"""What PyYAML says -> what to write."""
_TABLE_ENDINGS: Final = tuple(
    f"{kind}{packed}"
    for kind in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".parq", ".arrow", ".feather", ".ipc")
    for packed in ("", ".gz", ".zst", ".bz2", ".xz")
)
_MAGIC: Final = {
    b"PAR1": "a table",
    b"ARROW1": "a table",
    b"PK\x03\x04": "an archive",
    b"\x1f\x8b": "a compressed file",
    b"\x28\xb5\x2f\xfd": "a compressed file",
    b"BZh": "a compressed file",
    b"\xfd7zXZ": "a compressed file",
    b"7z\xbc\xaf": "an archive",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"%PDF": "a PDF file",
}
_CONFIG_LINE: Final = re.compile(r"(---|%YAML|\{|<<)|[\"']?[\w.-]+[\"']?\s*:(\s|$)")


class _Loader(yaml.SafeLoader):
    """YAML as PyYAML reads it, but keys that stand twice are noted, and 1e3 is a number as in YAML 1.2."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.doubled: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    self.doubled.append(f"line {key_node.start_mark.line + 1}: the key {key_node.value!r} stands twice")
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str, source: str) -> tuple[object, list[str]]:
    """Return the data of a YAML text, and the keys that stand twice in a mapping, as problems. Raises ConfigError: the
    text is not one YAML document; ``source`` is named."""
    try:
        loader = _Loader(text)  # which reads the first characters at once
        return loader.get_single_data(), loader.doubled
    except yaml.MarkedYAMLError as error:
        # Its own text quotes the line as it is, and a password may stand there.
        places = [(what, mark) for what, mark in _places_of(error) if what]
        told = ", ".join(
            what if mark is None else f"{what} (line {mark.line + 1}, column {mark.column + 1})"
            for what, mark in places
        )
        numbers = dict.fromkeys(mark.line for _, mark in places if mark is not None)
        quoted = [f"\n  line {number + 1}: {line}" for number in numbers if (line := _quotable_line(text, number))]
        advice = next((f"\n  {advice}" for problem, advice in _YAML_ADVICE.items() if problem in told), "")
        raise ConfigError(f"{source}: is not valid YAML: {told}{''.join(quoted)}{advice}") from None
    except yaml.reader.ReaderError as error:
        # Its own text calls the file "<unicode string>".
        place = error.position
        found = f"line {text[:place].count(chr(10)) + 1} has the character U+{ord(text[place]):04X}"
        raise ConfigError(
            f"{source}: is not valid YAML: {found}; in quotes write it as \\u{ord(text[place]):04x}"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2030-02-31 is a ValueError
        raise ConfigError(f"{source}: is not valid YAML: {' '.join(str(error).split())}") from error


def _places_of(error: yaml.MarkedYAMLError) -> Iterator[tuple[str | None, yaml.Mark | None]]:
    yield error.context, error.context_mark
    yield error.problem, error.problem_mark


def _quotable_line(text: str, number: int) -> str:
    """Return a line for a message, "" where there is none, or where a secret may stand in it that began before it."""
    lines = text.splitlines()[: number + 1]
    if number >= len(lines) or _may_be_secret(lines):
        return ""
    line = lines[number].strip()
    if found := _SECRET.search(line):
        line = f"{line[: found.end()]} ..."
    return re.sub(r"//.*@", "//...@", line)[:_MOST_QUOTED]


def _may_be_secret(lines: Sequence[str]) -> bool:
    """Return whether the last one of these lines is below a key that may hold secrets, or in brackets after one."""
    before = "\n".join(lines[:-1])
    if sum(map(before.count, "{[")) > sum(map(before.count, "}]")) and _SECRET.search(before):
        return True
    last = len(lines) - 1
    for place in (place for place, line in enumerate(lines[:-1]) if _SECRET.search(line)):
        inside = (line for line in lines[place + 1 : last + 1] if line.strip())
        if all(_indentation(line) > _indentation(lines[place]) for line in inside):
            return True
    return False


def _indentation(line: str) -> float:
    """Return how far in a line is; an entry of a list may be as far in as its key."""
    spaces = len(line) - len(line.lstrip())
    return spaces + 0.5 if line.lstrip().startswith("-") else spaces


def with_settings(data: object, settings: Iterable[str]) -> object:
    """Return a config's data with keys changed by ``KEY=VALUE`` texts: keys nested by dots, values in YAML. Raises
    ConfigError: one is no such text."""
    if not isinstance(data, Mapping):
        return data
    changed = dict(data)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"--set {key}: expected KEY=VALUE, as {_SETTING_EXAMPLE}")
        value, _ = read_yaml(text, f"--set {key}")
        *parents, last = key.strip().split(".")
        section: dict[Any, Any] = changed
        for parent in parents:
            inner = section.get(parent)
            section[parent] = section = dict(inner) if isinstance(inner, Mapping) else {}
        section[last] = value
    return changed


def kind_of_other_file(name: str, head: bytes) -> str:
    """Return what a file is that was given as a config and is none, "" where it may be one. Said are ``a table``,
    ``an archive`` and the like; only the beginning is looked at.

    Args:
        head: its first bytes, a few thousand.
    """
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "an archive"
    if any(name.lower().endswith(ending) for ending in _TABLE_ENDINGS):
        return "a table"
    lines = [line.strip() for line in head.decode("utf-8-sig", errors="replace").splitlines()]
    shown = [line for line in lines if line and not line.startswith("#")]
    if not shown or _CONFIG_LINE.match(shown[0]):
        is_json_lines = len(shown) > 1 and shown[0].startswith("{") and shown[0].endswith("}") and shown[1][:1] == "{"
        return "a table" if is_json_lines else ""
    if shown[0].startswith(("<!", "<?", "<html")):
        return "a web page"
    is_table = re.match(r'https?://|\[\s*[{"]|\[$', shown[0]) or re.search(r"[,\t;|]", shown[0])
    return "a table" if is_table and not re.match(r"[-*&]|\[\s*\w", shown[0]) else ""


def describe_problem(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return one line for one of pydantic's errors: dotted path, value, what was expected."""
    is_unknown = error["type"] == "extra_forbidden"  # a key that is called so is named
    path = tuple(part for part in error["loc"] if part != "[key]" or (is_unknown and part == error["loc"][-1]))
    if error["type"] == "invalid_key":
        path = (*path[:-1], str(path[-1]))
    where = dotted(path)
    if error["type"] in {"extra_forbidden", "invalid_key"}:
        return f"{where}: unknown key{_turned_round(path, error['input'], model) or _suggestion(path, model)}"
    expected = _expected_instead(error, path, model)
    if error["type"] == "missing":
        return f"{where}: missing; expected {expected}"
    return f"{where}: {shown(path, error['input'])}: expected {expected}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like this one, None if none is."""
    return next(iter(near_names(name, known)), None)


def dotted(path: Path) -> str:
    """Return ``("servers", 0, "match")`` as ``servers[0].match``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the config"


def shown(path: Path, value: object) -> str:
    """Return a value as it may appear in a message: short, on one line, without secrets."""
    if "headers" in path:
        return "a mapping" if isinstance(value, Mapping) else "what is not shown here"
    if "header" in path and isinstance(value, str):
        return repr(value.partition(":")[0] + ": ...") if ":" in value else "a text without a colon"
    if isinstance(value, str) and ("proxy" in path or "://" in value):
        return repr(re.sub(r"//.*@", "//...@", value))
    if isinstance(value, Mapping) or (isinstance(value, list) and "header" in path):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    return "null" if value is None else _SHORT.repr(value)


def expected_values(field: FieldInfo) -> str:
    """Return what a key may hold, from its type and bounds: ``a whole number from 1 to 100``."""
    kind, null, _ = _kind(field.annotation).partition(" or null")
    return kind + _bounds([*field.metadata, *_bounds_beside_null(field.annotation)]) + null


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield all dotted keys of a model and of the sections in it."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = section_of(field)
        if section is not None:
            yield from known_keys(section, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a key that holds a section, None for all others."""
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and "root" not in annotation.model_fields:
        return annotation
    return None


def _expected_instead(error: ErrorDetails, path: Path, model: type[BaseModel]) -> str:
    cause = error.get("ctx", {}).get("error")
    if error["type"] == "value_error" and isinstance(cause, ValueError):
        return str(cause)
    field = _fields_under(path[:-1], model).get(str(path[-1])) if path else None
    if field is not None:
        return expected_values(field)
    if error["type"] == "model_type":
        return "a mapping"
    return error["msg"].removeprefix("Input should be ")


def _fields_under(path: Path, model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """Return the fields of the section, or of the items of the list, at a path; none where there is neither."""
    fields: Mapping[str, FieldInfo] = model.model_fields
    for part in path:
        if isinstance(part, str) and part in fields:
            inner = _item_model(fields[part].annotation)
            fields = {} if inner is None else inner.model_fields
    return fields


def _item_model(annotation: object) -> type[BaseModel] | None:
    """Return the model of a section, or of the items of a list of sections."""
    if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
        return next((m for m in map(_item_model, get_args(annotation)) if m is not None), None)
    root = annotation.model_fields.get("root")
    return annotation if root is None else _item_model(root.annotation)


def _turned_round(path: Path, value: object, model: type[BaseModel]) -> str:
    """Return a hint where the value is a key that is known there: the two are exchanged."""
    if not isinstance(value, str) or len(path) < 2 or value not in _fields_under(path[:-1], model):
        return ""
    return f"; did you mean {dotted((*path[:-1], value))}: {path[-1]}? (ours: theirs)"


def _suggestion(path: Path, model: type[BaseModel]) -> str:
    name = str(path[-1])
    beside = list(_fields_under(path[:-1], model))
    elsewhere = [key for key in known_keys(model) if key.rpartition(".")[2] == name]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    near = nearest(name, beside)
    if near is not None:
        return f"; did you mean {dotted((*path[:-1], near))}?"
    return f"; known here: {', '.join(beside)}" if beside else ""


def _kind(annotation: object) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a list of mappings" if "root" in annotation.model_fields else "a mapping"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in {Union, types.UnionType}:
        return " or ".join(map(_kind, arguments))
    if hasattr(annotation, "__metadata__"):
        return _kind(arguments[0])
    return _KINDS[origin or annotation]


def _bounds_beside_null(annotation: object) -> list[object]:
    """Return the bounds of ``X`` in ``X | None``, where X is an annotated type."""
    if get_origin(annotation) not in {Union, types.UnionType}:
        return []
    infos = [info for part in get_args(annotation) for info in getattr(part, "__metadata__", ())]
    return [bound for info in infos if isinstance(info, FieldInfo) for bound in info.metadata]


def _bounds(metadata: Sequence[object]) -> str:
    low = next((bound.ge for bound in metadata if isinstance(bound, annotated_types.Ge)), None)
    above = next((bound.gt for bound in metadata if isinstance(bound, annotated_types.Gt)), None)
    high = next((bound.le for bound in metadata if isinstance(bound, annotated_types.Le)), None)
    if any(isinstance(bound, annotated_types.MinLen) for bound in metadata):
        return ", not empty"
    parts = [f" above {_number(above)}" if above is not None else f" from {_number(low)}" if low is not None else ""]
    if high is not None:
        parts.append(f" to {_number(high)}" if low is not None else f" and at most {_number(high)}")
    elif low is not None:
        parts = [f", {_number(low)} or more"]
    return "".join(parts)


def _number(bound: object) -> str:
    return str(int(bound)) if isinstance(bound, (int, float)) and math.isfinite(bound) else str(bound)
