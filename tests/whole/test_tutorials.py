"""The tutorials, as they are printed: each command and each piece of code, from an empty folder.

That of a cluster is not followed: tests/whole/test_documents.py reads its commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.documents import blocks_of

pytestmark = pytest.mark.slow

ROWS = 60
CONFIG = "birds.yaml"
SKIPPED = ("pip install ", "hf upload ")
"""They need a package index, or push something into the world."""


def for_this_machine(config: str) -> str:
    """A config of the page, whose servers are on loopback."""
    keys: dict[str, Any] = yaml.safe_load(config)
    keys.setdefault("downloader_parameters", {})
    keys["downloader_parameters"] |= {
        "default_rate_limit": 0, "proxy": "", "allow_private_addresses": ["127.0.0.0/8"]
    }  # fmt: skip
    return yaml.safe_dump(keys)


def follow(page: str, folder: Path, config: str) -> str:
    """Do what a page says, one block after the other; return what the commands print."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    printed = ""
    for _, _, language, contents in blocks_of(page):
        if language == "yaml":
            (folder / config).write_text(for_this_machine(contents), encoding="utf-8")
        elif language in {"bash", "python"}:
            if contents.startswith(SKIPPED):
                continue
            command = ["bash", "-euc", contents] if language == "bash" else [sys.executable, "-c", contents]
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
                timeout=120,
            )  # fmt: skip
            assert done.returncode == 0, f"{page}: {contents}\n{done.stdout}\n{done.stderr}"
            printed += done.stdout
        else:
            assert language == "csv", f"{page}: who runs {language}?"
    return printed


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), plain_fleet(2), ROWS) as running:
        yield running


def test_ten_minutes_on_a_laptop(fleet: RunningFleet, tmp_path: Path) -> None:
    lines = [f"{url},CC0,{('Parus major', 'Pica pica')[row % 2]}" for row, url in enumerate(fleet.urls())]
    (tmp_path / "birds.csv").write_text("\n".join(["url,license,species", *lines]) + "\n")
    printed = follow("tutorial-laptop.md", tmp_path, CONFIG)
    assert f"{ROWS} rows: {ROWS} successes" in printed
    assert re.search(r"Parus major\s+30", printed)
    assert (tmp_path / "first.png").stat().st_size > 0
    assert len(list((tmp_path / "birds-files").glob("shard-*/[0-9]*"))) == ROWS


def test_a_dataset_from_gbif(fleet: RunningFleet, tmp_path: Path) -> None:
    multimedia = "gbifID\ttype\tformat\tidentifier\treferences\ttitle\tcreator\tlicense\trightsHolder\tsource\n"
    occurrence = (
        "gbifID\tbasisOfRecord\tscientificName\tspecies\tcountryCode\tdecimalLatitude\tdecimalLongitude\teventDate"
        "\tdatasetKey\n"
    )
    for row, url in enumerate(fleet.urls()):
        multimedia += f'{row}\tStillImage\timage/jpeg\t{url}\t\tA "bird"\tA. Nother\tCC_BY_4_0\t\t\n'
        occurrence += (
            f"{row}\tHUMAN_OBSERVATION\tParus major L.\tParus major\tSE\t1.5\t2.5\t2024-05-01\tkey-{row % 2}\n"
        )
    (tmp_path / "multimedia.txt").write_text(multimedia)
    (tmp_path / "occurrence.txt").write_text(occurrence)
    printed = follow("tutorial-gbif.md", tmp_path, "gbif.yaml")
    assert f"{ROWS} rows: {ROWS} successes" in printed
    assert (tmp_path / "credits/ATTRIBUTION.csv").read_text().count("A. Nother") == ROWS
    assert (tmp_path / "hub/README.md").exists()
    assert (tmp_path / "hub/croissant.json").exists()
