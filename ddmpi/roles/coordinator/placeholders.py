"""The placeholders that the ranks find together, and the file that keeps them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ddmpi.core.protocol import RepeatedPicture
from ddmpi.core.stats.repeats import MOST_SHOWN, Repeats
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.placeholders import Placeholder, read_placeholders, write_placeholders

log = logging.getLogger(__name__)


class Placeholders:
    """What is known of placeholders; one on rank 0. Raises StorageError: the file cannot be read."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known = {(it.server_name, it.hashsum_original): it for it in read_placeholders(layout.placeholders)}
        self._repeats = Repeats()
        self._is_stale = False

    @property
    def found(self) -> list[Placeholder]:
        """All of them, those under the most URLs first."""
        return sorted(self._known.values(), key=lambda it: (-it.urls, it.hashsum_original))

    def add(self, pictures: Sequence[RepeatedPicture]) -> None:
        """Take in what a rank has seen more than once."""
        for it in pictures:
            key = (it.server, it.hashsum)
            known = self._known.get(key)
            urls = 0
            if known is None:
                for url in it.urls:
                    urls = self._repeats.add(key, url, it.size_bytes)
                if key not in self._repeats.found:
                    continue
                known = self._known[key] = Placeholder(it.hashsum, it.server, urls, it.size_bytes, it.url)
                log.info(
                    "placeholder: %s has %d bytes (%s) under %d URLs or more",
                    it.server, it.size_bytes, it.hashsum, urls,
                )  # fmt: skip
            else:
                known.urls += len(it.urls)
            known.urls += it.more
            if it.image and not known.image and len(self._known) <= MOST_SHOWN:
                known.image = it.image
            self._is_stale = True

    def save(self) -> None:
        """Write the file if it is not up to date. Raises StorageError."""
        if self._is_stale:
            write_placeholders(self._layout.placeholders, self.found, self._layout.temporary)
            self._is_stale = False
