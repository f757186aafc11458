"""What would make every row of a kind fail is refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddmpi.config.config import parse
from ddmpi.errors import SetupError
from ddmpi.roles.downloader.build import check_authorities
from tests.whole.job import make_job


def write_none(path: Path) -> None:
    """The file is missing."""


def write_text(path: Path) -> None:
    path.write_text("no certificate")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(write_none, "No such file", id="missing"),
        pytest.param(Path.mkdir, "Is a directory", id="a folder"),
        pytest.param(write_text, "no certificates in it", id="a text"),
        pytest.param(Path.touch, "no certificates in it", id="empty"),
    ],
)
def test_authorities_that_cannot_be_loaded_are_refused(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    bundle = tmp_path / "bundle.pem"
    make(bundle)
    keys = {"path_to_input": "a", "path_to_output_folder": "b", "downloader_parameters": {"ca_bundle": str(bundle)}}
    with pytest.raises(SetupError, match=f"ca_bundle: {bundle}: {reason}"):
        check_authorities(parse(keys, "test"))
    keys["downloader_parameters"] = {"ca_bundle": str(bundle), "verify_tls": False}
    check_authorities(parse(keys, "test"))


def test_authorities_that_cannot_be_loaded_are_refused_before_anything_starts(tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("identifier\nhttps://127.0.0.1:9/a.jpg\n")
    job = make_job(tmp_path / "job", table, downloader_parameters={"ca_bundle": "/missing.pem"})
    code, printed = job.run(2)
    assert code == 2
    assert "downloader_parameters.ca_bundle: /missing.pem: No such file or directory" in printed
    assert not job.output.exists()
