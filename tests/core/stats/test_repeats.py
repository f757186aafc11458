"""Which files are placeholders: the same bytes under many URLs of one server."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ddmpi.core.stats import repeats as repeats_module
from ddmpi.core.stats.repeats import (
    LEAST_URLS,
    LEAST_URLS_SMALL,
    MOST_SHOWN_BYTES,
    SMALL_BYTES,
    TELL_INTERVAL_S,
    Repeats,
    SeenPictures,
    least_urls,
)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shares", [(334, 333, 333), (600, 250, 150)])
def test_three_pictures_under_a_thousand_of_twenty_thousand_urls(seed: int, shares: tuple[int, ...]) -> None:
    """Known before 5 % of the URLs are fetched, and none of the thousands of photos that stand there twice is one."""
    rng = random.Random(seed)
    placeholders = [f"gone{picture}" for picture, urls in enumerate(shares) for _ in range(urls)]
    twice = [f"photo{number}" for number in range(4_000) for _ in range(2)]
    once = [f"single{number}" for number in range(20_000 - len(placeholders) - len(twice))]
    files = placeholders + twice + once
    rng.shuffle(files)
    repeats, known_at = Repeats(), Counter[str]()
    for url, file in enumerate(files):
        repeats.add(("server", file), url, 4_000 if file.startswith("gone") else 200_000 if url % 2 else 9_000)
        for _, found in repeats.found.keys() - {("server", name) for name in known_at}:
            known_at[found] = url + 1
    assert known_at.keys() == {"gone0", "gone1", "gone2"}
    assert all(known_at[f"gone{picture}"] <= 1_000 for picture, urls in enumerate(shares) if urls > 300)
    assert [repeats.found["server", f"gone{picture}"] for picture in range(3)] == list(shares)


@pytest.mark.parametrize(("size_bytes", "urls"), [(SMALL_BYTES, LEAST_URLS_SMALL), (SMALL_BYTES + 1, LEAST_URLS)])
def test_small_files_count_sooner(size_bytes: int, urls: int) -> None:
    assert least_urls(size_bytes) == urls
    repeats = Repeats()
    counts = [repeats.add(("s", "x"), url, size_bytes) for url in range(urls + 2)]
    assert counts == list(range(1, urls + 3))
    assert repeats.found == {("s", "x"): urls + 2}


def test_one_url_that_comes_again_and_other_servers_do_not_count() -> None:
    repeats = Repeats()
    assert {repeats.add(("s", "x"), 7, 100) for _ in range(50)} == {1}
    for server in range(50):
        repeats.add((f"s{server}", "logo"), server, 100)
    assert repeats.found == {}
    assert repeats.urls_of(("s", "x")) == (7,)


def test_memory_is_bounded_and_counts_are_never_too_high() -> None:
    repeats, rng = Repeats(most=100), random.Random(1)
    true = Counter[str]()
    for url in range(50_000):
        file = "gone" if rng.random() < 0.02 else f"photo{url // 2}"
        true[file] += 1
        assert repeats.add(("s", file), url, 10**6) <= true[file]
        assert len(repeats._urls) <= 100
    assert repeats.found.keys() == {("s", "gone")}


def see(seen: SeenPictures, file: str, urls: range, *, image: bytes = b"gone", now: float = 0.0) -> list[bool]:
    return [seen.add(f"http://s:80/{number}", file, len(image), image, now) for number in urls]


def test_rank_0_hears_of_a_placeholder_at_once_and_of_other_repeats_now_and_then() -> None:
    placeholders: set[str] = set()
    seen = SeenPictures(placeholders)
    assert seen.take(10.0) == ()
    assert see(seen, "x", range(LEAST_URLS_SMALL), now=10.5) == [False] * (LEAST_URLS_SMALL - 1) + [True]
    assert placeholders == {"x"}
    (picture,) = seen.take(10.5)
    assert (picture.server, picture.hashsum, picture.image, picture.more) == ("s:80", "x", b"gone", 0)
    assert len(set(picture.urls)) == LEAST_URLS_SMALL
    assert see(seen, "x", range(20, 23), now=10.6) == [False] * 3
    assert see(seen, "twice", range(2), now=10.5 + TELL_INTERVAL_S) == [False, True]
    known, twice = seen.take(12.0)
    assert (known.urls, known.more, known.image) == ((), 3, b"")
    assert len(twice.urls) == 2, "also the first one, which nobody was told of"
    assert seen.take(13.0) == ()


def test_few_and_small_pictures_are_kept_to_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats_module, "MOST_SHOWN", 2)
    seen = SeenPictures(set())
    for file, size in (("a", 5), ("large", MOST_SHOWN_BYTES + 1), ("c", 5)):
        see(seen, file, range(LEAST_URLS), image=bytes(size))
    assert {it.hashsum: len(it.image) for it in seen.take(0.0)} == {"a": 5, "large": 0, "c": 0}
