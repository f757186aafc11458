"""Tar files: captions as open_clip reads them, and JSON that any parser takes."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest
import webdataset as wds  # type: ignore[import-untyped]  # it has no types

from ddmpi.export.targets.webdataset import WebDataset
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


def test_what_is_printed_is_what_webdataset_expands(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "web"
    export(few, target, "--to", "webdataset", "--caption", "caption", "--shard-bytes", "1")
    (told,) = re.findall(
        r"^WebDataset reads them as (\S+); 21 samples have a caption", capsys.readouterr().out, re.MULTILINE
    )
    found = wds.shardlists.expand_urls(told)
    assert found == [str(path) for path in sorted(target.glob("*.tar"))]
    assert len(found) > 1


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        pytest.param([3], "out/shard-000003.tar", id="one"),
        pytest.param(
            [0, 1, 2, 5, 7, 8], "out/shard-{000000..000002}.tar::out/shard-000005.tar::out/shard-{000007..000008}.tar",
            id="some are without a row",
        ),
    ],
)  # fmt: skip
def test_shards_that_are_not_there_are_not_read(numbers: list[int], text: str) -> None:
    target = WebDataset({"caption": None})
    assert target.reading(Path("out"), [(f"shard-{number:06d}", 0) for number in numbers]).endswith(f" as {text}")
    assert target.reading(Path("out"), []) == ""


def test_what_json_has_no_word_for_is_null(few: Path, tmp_path: Path) -> None:
    export(few, tmp_path / "web", "--to", "webdataset")
    found = members(tmp_path / "web")
    assert not [name for name in found if name.endswith("txt")]
    rows = [json.loads(text, parse_constant=refuse) for name, text in found.items() if name.endswith("json")]
    assert [row["ratio"] for row in rows] == [0.5, None, None, None] * 6
    assert set(KEPT) <= set(rows[0])
    assert rows[0]["fetched_at"] == "2023-11-14T22:13:20.250000+00:00"
