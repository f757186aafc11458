"""Files: names that lead nowhere else and meet no other, and metadata that leads to each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ddmpi.errors import StorageError
from ddmpi.export import __main__ as program
from ddmpi.export.targets import files
from ddmpi.io.folder.durable import os_rename
from tests.export.targets.pictures import export, picture

TREE = ("--to", "files", "--path", "{species}/{uuid}.{ext}")


def refuse(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    """Contents by path, of all that a user sees."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".export" not in path.parts
    }


def test_the_tables_own_file_name_is_kept_beside_ours(few: Path, tmp_path: Path) -> None:
    export(few, tmp_path / "files", "--to", "files")
    found = lines(tmp_path / "files/shard-000000/metadata.jsonl")
    assert len(found) == 24
    for row, line in enumerate(found):
        assert (tmp_path / "files/shard-000000" / line["file_name"]).read_bytes() == picture(row)
        assert line["file_name_"] == f"theirs-{row}.jpg"
    assert [line["ratio"] for line in found[:4]] == [0.5, None, None, None]


@pytest.mark.parametrize("name", ["file_name", "file_names", "second_file_name", "more_file_names"])
def test_no_column_is_taken_for_a_path(name: str) -> None:
    line = json.loads(files.metadata_line("ours.jpg", {name: "theirs", "my_file": 1}))
    assert line == {"file_name": "ours.jpg", f"{name}_": "theirs", "my_file": 1}


def test_a_tree_has_a_path_for_each_row(few: Path, tmp_path: Path) -> None:
    export(few, tmp_path / "tree", *TREE, "--shard-bytes", "1")
    found = lines(tmp_path / "tree/metadata.jsonl")
    assert [line["row_number"] for line in found] == list(range(24))
    assert {line["file_name"] for line in found} == set(tree(tmp_path / "tree")) - {"metadata.jsonl", "export.json"}
    for row, line in enumerate(found):
        assert (tmp_path / "tree" / line["file_name"]).read_bytes() == picture(row)
    assert {line["file_name"].split("/")[0] for line in found} == {
        "Puma concolor", "_.._.._etc_passwd", "_CON", "none", "a_b_c", "x" * 200, "Ünïcode ·", "puma CONCOLOR",
    }  # fmt: skip
    assert found[0]["file_name"] == "Puma concolor/uuid-0.jpg"


def test_rows_with_the_same_path_are_told_apart(few: Path, tmp_path: Path) -> None:
    order = ("--to", "files", "--path", "{species}/{source}.{ext}", "--shard-bytes")
    export(few, tmp_path / "one", *order, "100000000")
    export(few, tmp_path / "many", *order, "1")
    assert tree(tmp_path / "one") | {"export.json": b""} == tree(tmp_path / "many") | {"export.json": b""}
    found = lines(tmp_path / "one/metadata.jsonl")
    assert len({line["file_name"].casefold() for line in found}) == 24
    assert found[0]["file_name"] == "Puma concolor/museum.jpg"
    assert found[7]["file_name"] == "puma CONCOLOR/museum~000000000007.png", "some file systems know no case"
    assert found[8]["file_name"] == "Puma concolor/museum~000000000008.webp"


def test_a_tree_goes_on_where_it_was_stopped(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(few, tmp_path / "whole", *TREE, "--shard-bytes", "1")
    renamed: list[Path] = []

    def fail_at_the_fifteenth(source: Path, final: Path) -> None:
        renamed.append(final)
        if len(renamed) == 15:
            raise StorageError("made for the test")
        os_rename(source, final)

    monkeypatch.setattr(files, "os_rename", fail_at_the_fifteenth)
    with pytest.raises(SystemExit):
        program.main([str(few), str(tmp_path / "stopped"), *TREE, "--shard-bytes", "1"])
    (tmp_path / "stopped/.export/lock").unlink()  # as after a kill
    export(few, tmp_path / "stopped", *TREE, "--shard-bytes", "1")
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")
    assert not (tmp_path / "stopped/.export/tmp").exists()
