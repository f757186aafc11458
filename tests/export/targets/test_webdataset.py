"""Tar files: captions as open_clip reads them, and JSON that any parser takes."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import NoReturn

from tests.export.targets.pictures import KEPT, export, picture


def members(folder: Path) -> dict[str, bytes]:
    """Contents by name, in the order of the tar files."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    return found


def refuse(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")


def test_captions_stand_beside_their_images(few: Path, tmp_path: Path) -> None:
    export(few, tmp_path / "web", "--to", "webdataset", "--caption", "caption")
    samples: dict[str, dict[str, bytes]] = {}
    for name, content in members(tmp_path / "web").items():
        key, _, suffix = name.partition(".")
        if key not in samples:
            assert set(samples) == {f"{row:012d}" for row in range(len(samples))}, "a sample's files stand together"
        samples.setdefault(key, {})[suffix] = content
    assert len(samples) == 24
    for row in range(24):
        sample = samples[f"{row:012d}"]
        assert sample.get("txt") == (None if row % 10 == 3 else f"a picture, the {row}th".encode())
        assert sample[("jpg", "png", "webp")[row % 3]] == picture(row)


def test_what_json_has_no_word_for_is_null(few: Path, tmp_path: Path) -> None:
    export(few, tmp_path / "web", "--to", "webdataset")
    found = members(tmp_path / "web")
    assert not [name for name in found if name.endswith("txt")]
    rows = [json.loads(text, parse_constant=refuse) for name, text in found.items() if name.endswith("json")]
    assert [row["ratio"] for row in rows] == [0.5, None, None, None] * 6
    assert set(KEPT) <= set(rows[0])
    assert rows[0]["fetched_at"] == "2023-11-14T22:13:20.250000+00:00"
