"""Paths made of columns: none leads out of its folder, and each is one that every file system takes."""

from __future__ import annotations

import argparse

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddmpi.export.paths import PathTemplate, marked


def path(template: str, **values: object) -> str:
    rows = pa.table({name: [value] for name, value in values.items()})
    return PathTemplate(template).stems(rows)[0]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("Puma concolor", "Puma concolor"),
        ("..", "_"),
        ("../x", "_.._x"),
        ("/etc/passwd", "_etc_passwd"),
        ("a\\b:c", "a_b_c"),
        (".hidden", "_.hidden"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("console", "console"),
        ("dots...", "dots"),
        (" spaces ", "spaces"),
        ("line\nbreak\0", "line_break_"),
        ("a~000000000001", "a_000000000001"),
        ("metadata.jsonl", "_metadata.jsonl"),
        ("", "none"),
        (None, "none"),
        (7, "7"),
        ("e\u0301", "\u00e9"),
    ],
)
def test_values_become_names(value: object, name: str) -> None:
    assert path("{column}/x.{ext}", column=value) == f"{name}/x"


@settings(max_examples=50)
@example("x" * 300, "\N{GRINNING FACE}" * 300)
@given(st.text(max_size=20), st.text(max_size=20))
def test_no_value_leads_out_of_its_folder(first: str, second: str) -> None:
    names = path("a{first}/{first}{second}/{second}.{ext}", first=first, second=second).split("/")
    assert len(names) == 3
    for name in [*names[:2], marked(names[2], 7) + ".jpg"]:
        assert 0 < len(name.encode()) <= 255
        assert not name.startswith(".")
        assert not name.endswith((".", " "))
        assert not set(name) & set('<>:"/\\|?*\0')


def test_paths_are_compared_as_file_systems_without_case_do() -> None:
    rows = pa.table({"name": ["Straße", "STRASSE", "x"], "row_number": [1, 2, 3]})
    entries = PathTemplate("{name}.{ext}").entries(rows)
    assert entries[:, 2].tolist() == [1, 2, 3]
    assert entries[0, :2].tolist() == entries[1, :2].tolist() != entries[2, :2].tolist()


@pytest.mark.parametrize("wrong", ["{uuid}", ".{ext}", "{}.{ext}", "{a!r}.{ext}", "{ext}/{a}.{ext}", "{a.{ext}"])
def test_a_template_that_makes_no_sense_is_refused(wrong: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="--path"):
        PathTemplate(wrong)
