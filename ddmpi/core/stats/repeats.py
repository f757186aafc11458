"""Placeholders: pictures that one server has under many URLs ("no longer available"). Pure.

Decides from hashes, servers and URLs alone which pictures are some. It must not know what becomes of their rows.

A picture is one when so many different URLs of one server have led to it (``least_urls``). Photos that stand twice or
three times in a table under several URLs stay far below that. Small files count sooner, since placeholders are small:
of such a file fewer copies are a matter of chance or of the table.

Memory is bounded: of pictures that are none so far ``MOST_PICTURES`` are kept, by the rule of Misra and Gries ("Finding
repeated elements", 1982): where there is no room, each of them loses a URL. So a count is never too high, and a
picture under more than one in ``MOST_PICTURES`` of the URLs is not missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from msgspec.structs import replace

from ddmpi.core.protocol import RepeatedPicture

SMALL_BYTES: Final = 32_768
"""A choice, not a measurement: a line of text on a plain ground takes a few KB, most photographs more than this."""
LEAST_URLS_SMALL: Final = 5
LEAST_URLS: Final = 10
MOST_PICTURES: Final = 16_384
"""About 5 MB."""
MOST_FOUND: Final = 10_000
"""Placeholders; a server that has more of them has something else."""
MOST_SHOWN: Final = 100
"""Placeholders of which the file is kept for people."""
MOST_SHOWN_BYTES: Final = 65_536
TELL_INTERVAL_S: Final = 1.0
"""How often rank 0 hears of files that came more than once."""

Key = tuple[str, str]
"""A server, and the hash of a file."""


def least_urls(size_bytes: int) -> int:
    """Return under how many URLs of one server a file of this size is a placeholder."""
    return LEAST_URLS_SMALL if size_bytes <= SMALL_BYTES else LEAST_URLS


@dataclass
class Repeats:
    """The pictures that came, and under which URLs."""

    most: int = MOST_PICTURES
    found: dict[Key, int] = field(default_factory=dict)
    """Placeholders, and under how many URLs each was."""
    _urls: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    """Of the other pictures the URLs, as numbers."""

    def add(self, key: Key, url: int, size_bytes: int) -> int:
        """Count a file that came from this URL. Return under how many the picture was so far."""
        if key in self.found:
            self.found[key] += 1
            return self.found[key]
        urls = self._urls.get(key, ())
        if url in urls:
            return len(urls)
        urls = (*urls, url)
        if len(urls) >= least_urls(size_bytes) and len(self.found) < MOST_FOUND:
            self._urls.pop(key, None)
            self.found[key] = len(urls)
            return len(urls)
        self._urls[key] = urls[-LEAST_URLS:]
        if len(self._urls) > self.most:
            self._make_room()
        return len(urls)

    def urls_of(self, key: Key) -> tuple[int, ...]:
        """Return the URLs of a picture that is no placeholder so far."""
        return self._urls.get(key, ())

    def _make_room(self) -> None:
        """Take a URL from each picture, again and again until half of the room is free."""
        while len(self._urls) > self.most // 2:
            self._urls = {key: urls[1:] for key, urls in self._urls.items() if len(urls) > 1}


class SeenPictures:
    """The files that came to one rank more than once, by server, and what rank 0 has not heard of them.

    Args:
        placeholders: gets the hashes of those that are some.
    """

    def __init__(self, placeholders: set[str]) -> None:
        self._placeholders = placeholders
        self._repeats = Repeats()
        self._news: dict[Key, RepeatedPicture] = {}
        self._tell_at = 0.0

    def add(self, url: str, hashsum: str, size_bytes: int, image: bytes, now: float) -> bool:
        """Count a file. Return whether rank 0 is to be told: now and then, and at once of a placeholder.

        Args:
            url: as it was asked, before redirects.
            image: what is stored of the file.
            now: seconds, monotonic.
        """
        key = (url.split("/", 3)[2], hashsum)
        was_known = key in self._repeats.found
        number = crc32(url.encode())
        count = self._repeats.add(key, number, size_bytes)
        if count < 2:
            return False
        news = self._news.get(key) or RepeatedPicture(*key, size_bytes, url)
        if was_known:
            self._news[key] = replace(news, more=news.more + 1)
        elif key in self._repeats.found:
            self._placeholders.add(hashsum)
            is_shown = len(image) <= MOST_SHOWN_BYTES and len(self._repeats.found) <= MOST_SHOWN
            self._news[key] = replace(news, urls=(*news.urls, number), image=image if is_shown else b"")
            return True
        else:
            told = news.urls or (self._repeats.urls_of(key) if count == 2 else ())
            self._news[key] = replace(news, urls=tuple(dict.fromkeys((*told, number))))
        return now >= self._tell_at

    def take(self, now: float) -> tuple[RepeatedPicture, ...]:
        """Return what came since the last call."""
        self._tell_at = now + TELL_INTERVAL_S
        news, self._news = tuple(self._news.values()), {}
        return news
