"""The placeholders of all ranks, and the file that keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.core.protocol import RepeatedPicture
from ddmpi.core.stats.repeats import LEAST_URLS_SMALL
from ddmpi.io.folder.layout import Layout
from ddmpi.roles.coordinator import placeholders as module
from ddmpi.roles.coordinator.placeholders import Placeholders


def picture(file: str, urls: range, *, more: int = 0, image: bytes = b"gone") -> RepeatedPicture:
    return RepeatedPicture("s:80", file, 4, "http://s:80/1", tuple(urls), more, image)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "out")


def test_what_ranks_have_seen_adds_up_and_stays_known(layout: Layout) -> None:
    found = Placeholders(layout)
    found.add([picture("x", range(3), image=b"")])
    found.save()
    assert found.found == []
    assert not layout.placeholders.exists()
    found.add([picture("x", range(2, LEAST_URLS_SMALL)), picture("pair", range(2))])
    found.add([picture("x", range(0), more=7, image=b"")])
    found.save()
    (known,) = Placeholders(layout).found
    assert (known.hashsum_original, known.server_name, known.image) == ("x", "s:80", b"gone")
    assert known.urls == LEAST_URLS_SMALL + 7


def test_few_pictures_are_kept_to_be_shown(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them would make a file of hundreds of megabytes, which is written again and again."""
    monkeypatch.setattr(module, "MOST_SHOWN", 2)
    found = Placeholders(layout)
    found.add([picture(file, range(LEAST_URLS_SMALL)) for file in ("a", "b", "c")])
    assert {it.hashsum_original: it.image for it in found.found} == {"a": b"gone", "b": b"gone", "c": b""}
