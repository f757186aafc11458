"""What is asked for instead of the URLs of a column: rewritten ones, by the rules for their servers.

It works on whole columns: servers are told apart once, and each step is one look of Arrow's at all URLs that it is
for. Which steps there are for a server is the config's business (``config.rewriting``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.config import Config
from ddmpi.config.rewriting import GBIF_CACHE, Steps, rewritten
from ddmpi.core.partition.partition import servers_of
from ddmpi.io.input.expressions import as_bytes
from ddmpi.io.input.rows import Array, as_text

_NOTHING: Final = Steps()


@dataclass(frozen=True)
class Rewriter:
    """Makes the URLs that are asked for."""

    steps_for: Callable[[str], Steps]
    """By a server's canonical name."""
    falls_back: bool
    """Whether the table's URLs may be asked after those that are made of them."""
    needs_ids: bool
    """Whether some steps need the rows' source_id."""

    def asked(self, urls: Array, source_ids: Array | None) -> list[Array]:
        """Return columns of (n,) URLs in the order in which they are to be asked, as bytes: what is made of these, and
        those that are asked where it fails, null where there are none. Broken texts stay as they are."""
        texts, broken = as_text(urls)
        changed, falls_back = texts, np.zeros(len(texts), np.bool_)
        servers = servers_of(texts).names
        steps_of = [self.steps_for(str(name)) for name in servers.dictionary.to_pylist()]
        kinds = list(dict.fromkeys([_NOTHING, *steps_of]))
        places = np.array([kinds.index(steps) for steps in steps_of] + [0])
        # Of a refused URL the server is null: it takes the last place, which is nothing.
        kind_of_row = places[np.asarray(servers.indices.fill_null(len(steps_of)))]
        if broken is not None:
            kind_of_row[np.asarray(broken)] = 0
        for kind, steps in enumerate(kinds):
            chosen = np.flatnonzero(kind_of_row == kind)
            if steps == _NOTHING or not len(chosen):
                continue
            ids = None if source_ids is None else as_text(source_ids)[0].take(chosen)
            made = _made(texts.take(chosen), steps, ids)
            mask = np.zeros(len(texts), np.bool_)
            mask[chosen] = True
            changed = pc.replace_with_mask(changed, pa.array(mask), made)
            falls_back[chosen] = steps.falls_back
        own: Any = as_bytes(urls)
        is_new: Any = pc.not_equal(changed, texts).fill_null(False)
        asked = [pc.if_else(is_new, changed.cast(pa.binary()), own)]
        if self.falls_back:
            asked.append(pc.if_else(pc.and_(is_new, pa.array(falls_back)), own, pa.scalar(None, pa.binary())))
        return asked


def make_rewriter(config: Config) -> Rewriter | None:
    """Return what the config says about URLs, None where all are asked for as they are."""
    if not config.rewrites:
        return None
    needs_ids = any(rule.rewrite == "gbif-cache" for rule in config.rules.root)
    return Rewriter(config.steps_for, config.rewrites_fall_back, needs_ids)


def without_same(asked: Array, urls: Array) -> Array:
    """Return the URLs that are asked for, as bytes, null where they are these."""
    same: Any = pc.equal(asked, as_bytes(urls)).fill_null(False)
    nothing: Array = pc.if_else(same, pa.scalar(None, pa.binary()), asked)
    return nothing


def _made(urls: Array, steps: Steps, ids: Array | None) -> Array:
    """Return what the first step that finds something makes of each URL."""
    made = urls
    is_open: npt.NDArray[np.bool_] = np.ones(len(urls), np.bool_)
    for pattern, to in steps.pairs:
        # RE2 finds five times as fast where it need not say what its groups are.
        is_found = np.asarray(pc.match_substring_regex(urls, pattern=pattern).fill_null(False)) & is_open
        if is_found.any():
            mask = pa.array(is_found)
            made = pc.replace_with_mask(made, mask, rewritten(urls.filter(mask), pattern, to))
            is_open &= ~is_found
    if steps.gbif_size and ids is not None:
        made = _in_gbif_cache(made, ids, steps.gbif_size, is_open)
    return made


def _in_gbif_cache(urls: Array, ids: Array, size: int, is_open: npt.NDArray[np.bool_]) -> Array:
    """Return the URLs in GBIF's cache of the copies of those that are open, of rows with the key of an occurrence."""
    pairs = zip(urls.to_pylist(), ids.to_pylist(), is_open.tolist(), strict=True)
    return pa.array(
        [
            f"{GBIF_CACHE}{size}x/occurrence/{key}/media/{_md5(url)}"
            if takes and url is not None and key is not None and key.isdecimal() and not url.startswith(GBIF_CACHE)
            else url
            for url, key, takes in pairs
        ],
        pa.string(),
    )


def _md5(url: str) -> str:
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
