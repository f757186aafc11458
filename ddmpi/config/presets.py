"""Presets: the keys for tables that many people have, which come with ddmpi; ``preset: gbif`` takes those of one.

Decides where the presets are, and how their keys and a user's come together: sections key by key, everything else as a
whole, lists included, and what the user writes wins. Must not know what any key means: which ones are sections is a
parameter.

Invariants: a preset names neither the input nor the output folder; its file begins with one comment line that says what
the table is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from ddmpi.config.messages import nearest, read_yaml

FOLDER: Final = Path(__file__).parent / "presets"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def text_of(name: str) -> str:
    """Return the YAML text of a preset. Raises ValueError: there is none of that name; the text is for users."""
    if name not in names():
        near = nearest(name, names())
        hint = f"did you mean {near}?" if near else "'ddmpi presets' lists them"
        raise ValueError(f"the name of a preset; {hint}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def summary_of(name: str) -> str:
    """Return what the table of a preset is, on one line."""
    return text_of(name).partition("\n")[0].removeprefix("# ")


def keys_of(name: str) -> dict[str, object]:
    """Return the keys of a preset as plain data."""
    data, _ = read_yaml(text_of(name), f"the preset {name}")
    return cast("dict[str, object]", data)


def beside(
    given: Mapping[Any, object], defaults: Mapping[Any, object], sections: Collection[str]
) -> dict[object, object]:
    """Return ``given`` and, where it says nothing, ``defaults``: in ``sections`` for each key of theirs."""
    merged: dict[object, object] = {**defaults, **given}
    for name in sections:
        ours, theirs = defaults.get(name), given.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            merged[name] = {**ours, **theirs}
    return merged
