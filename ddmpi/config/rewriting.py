"""Under which URL a file is asked for instead of the table's: the user's rewrites, and smaller copies by known ladders.

Decides what a rewrite may look like, and what a size becomes at each host. Must not know which server a rule means, or
how many URLs there are. Patterns are RE2's, as Arrow evaluates them: none takes more than linear time.

A ladder makes a URL that names a larger copy into that of the smallest copy whose longest side is at least as large as
asked; of a URL that names one as small already it makes nothing. Sizes and forms of URLs were looked up on 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Final, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator

from ddmpi.core.records import is_meant

Ladder = Literal["inaturalist", "iiif", "wikimedia", "flickr", "gbif-cache"]
LADDERS: Final = get_args(Ladder)
_EXPECTED: Final = f"a list of {{from: REGEX, to: TEXT}}, or the name of a ladder of sizes: {', '.join(LADDERS)}"
_Entry = Mapping[Literal["from", "to"], str]


class Steps(NamedTuple):
    """What is done to a URL: the first pair whose pattern it matches makes it another one."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Pattern and replacement, which may name the pattern's groups as ``\\1``."""
    falls_back: bool = False
    """Whether the table's URL is asked where the other one fails for good."""
    gbif_size: int = 0
    """Whether the copy in GBIF's image cache is asked for, and how wide it is (pixels); 0 = it is not."""


def _checked(entry: object) -> Mapping[str, str]:
    if not isinstance(entry, Mapping) or set(entry) != {"from", "to"} or not all(map(_is_text, entry.values())):
        raise ValueError(_EXPECTED)
    if not entry["from"]:
        raise ValueError("a pattern in from: an empty one is found everywhere")
    try:
        rewritten(pa.array([""]), entry["from"], entry["to"])
    except pa.ArrowInvalid as error:
        raise ValueError(f"a pattern of RE2 and what it is replaced with ({error})") from None
    return dict(entry)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _rewrites(value: object) -> object:
    if isinstance(value, str) and value in LADDERS:
        return value
    if not isinstance(value, (list, tuple)):
        raise ValueError(_EXPECTED)
    return tuple(map(_checked, value))


Rewrites = Annotated[
    str | tuple[Mapping[str, str], ...], BeforeValidator(_rewrites, json_schema_input_type=Ladder | list[_Entry])
]
"""A ladder, or pairs of which the first that matches counts."""


def rewritten(urls: pa.Array[pa.StringScalar], pattern: str, to: str) -> pa.Array[pa.StringScalar]:
    """Return the texts with what the pattern finds replaced. Raises pa.ArrowInvalid: it is no pattern of RE2, or the
    replacement names a group that it does not have."""
    return pc.replace_substring_regex(urls, pattern=pattern, replacement=to)


def steps_of(rewrites: str | tuple[Mapping[str, str], ...], size: int) -> Steps:
    """Return what a rule's rewrites do, for a longest side of ``size`` pixels; 0 = files are wanted as they are."""
    if not isinstance(rewrites, str):
        return Steps(tuple((pair["from"], pair["to"]) for pair in rewrites))
    return _ladder(rewrites, size) if size else Steps()


@lru_cache(maxsize=64)
def _ladder(name: str, size: int) -> Steps:
    return _LADDERS[name](size)


@lru_cache(maxsize=65_536)
def automatic_steps(server: str, size: int) -> Steps:
    """Return what is known of a server's smaller copies, by its name, or by the form that all URLs of IIIF have."""
    name = next((name for pattern, name in _HOSTS if is_meant(server, pattern)), "iiif")
    return steps_of(name, size)


def _smallest(sizes: Mapping[str, int], size: int) -> tuple[str, list[str]] | None:
    """Return the name of the smallest of these ascending sizes that is large enough, and the larger ones."""
    names = list(sizes)
    place = next((place for place, name in enumerate(names) if sizes[name] >= size), None)
    return None if place is None else (names[place], names[place + 1 :])


def _larger_than(number: int) -> str:
    """Return a pattern of all whole numbers above this one."""
    digits = str(number)
    longer = rf"[1-9]\d{{{len(digits)},}}"
    places = [(place, int(digit)) for place, digit in enumerate(digits) if digit != "9"]
    above = [rf"{digits[:at]}[{digit + 1}-9]\d{{{len(digits) - at - 1}}}" for at, digit in places]
    return f"(?:{'|'.join([longer, *above])})"


# ---- iNaturalist: the longest side of each, README of its open data (2024-12). The original has 2048 at most.

_INATURALIST: Final = {"small": 240, "medium": 500, "large": 1024}


def _inaturalist(size: int) -> Steps:
    found = _smallest(_INATURALIST, size)
    if found is None:
        return Steps()
    larger = "|".join([*found[1], "original"])
    return Steps(((rf"^(https?://[^/]+/photos/\d+/)(?:{larger})(\.\w+(?:\?.*)?)$", rf"\1{found[0]}\2"),), True)


# ---- Flickr: the longest side by the suffix of the name, https://www.flickr.com/services/api/misc.urls.html. From 1600
# pixels on (h, k, 3k ..., o) each size has a secret of its own: nothing smaller can be told from such a URL.

_FLICKR: Final = {"_m": 240, "_n": 320, "_w": 400, "": 500, "_z": 640, "_c": 800, "_b": 1024}


def _flickr(size: int) -> Steps:
    found = _smallest(_FLICKR, size)
    if found is None or not found[1]:
        return Steps()
    larger = "|".join(found[1])
    return Steps(((rf"^(https?://[^/]+/\d+/\d+_[0-9a-f]+)(?:{larger})(\.jpg(?:\?.*)?)$", rf"\1{found[0]}\2"),), True)


# ---- Wikimedia: widths that its servers still make (others are refused with 400 or 429 since 2026),
# https://www.mediawiki.org/wiki/Common_thumbnail_sizes; all thumbnails are on thumb.wikimedia.org since 2026-08. Of a
# file whose name has more than 160 bytes they have another name; what is not wider than asked has none.

_WIKIMEDIA_WIDTHS: Final = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)
_FILE_NAME: Final = r"(?:%[0-9A-Fa-f]{2}|[^/?#%]){1,155}"


def _wikimedia(size: int) -> Steps:
    width = next((width for width in _WIKIMEDIA_WIDTHS if width >= size), None)
    if width is None:
        return Steps()
    original = rf"^(https?)://upload\.wikimedia\.org/([a-z]+/[a-z_-]+)/([0-9a-f]/[0-9a-f]{{2}})/({_FILE_NAME}"
    thumb = r"\1://thumb.wikimedia.org/\2/thumb/\3/\4/"
    folder = r"([a-z]+/[a-z_-]+/thumb/[0-9a-f]/[0-9a-f]{2}/[^/?#]+/(?:[a-z0-9]+-)*)"
    scaled = rf"^(https?)://(?:upload|thumb)\.wikimedia\.org/{folder}{_larger_than(width)}px-([^/?#]+)"
    pairs = (
        (rf"{original}\.(?i:jpe?g|png|gif|webp))(?:\?.*)?$", rf"{thumb}{width}px-\4"),
        (rf"{original}\.(?i:tiff?))(?:\?.*)?$", rf"{thumb}lossy-page1-{width}px-\4.jpg"),
        (rf"{scaled}(?:\?.*)?$", rf"\1://thumb.wikimedia.org/\2{width}px-\3"),
    )
    return Steps(pairs, True)


# ---- IIIF Image API, https://iiif.io/api/image/3.0/#42-size and 2.1: !w,h fits into a box in both. A server that knows
# the form refuses with 400, 403, 404 or 501 what it does not make.


def _iiif(size: int) -> Steps:
    larger = _larger_than(size)
    sizes = rf"full|\^?max|{larger},|,{larger}|!{larger},{larger}"
    names = r"(?:default|native|color)\.(?:jpe?g|png|webp|gif|tiff?|jp2)"
    return Steps(((rf"^(https?://.+/full/)(?:{sizes})(/0/{names}(?:\?.*)?)$", rf"\1!{size},{size}\2"),), True)


# ---- GBIF's image cache, https://techdocs.gbif.org/en/openapi/images: of each image of an occurrence a copy of up to
# 1200 pixels, by the MD5 of its URL; one connection.

_GBIF_MOST: Final = 1200
GBIF_CACHE: Final = "https://api.gbif.org/v1/image/cache/"


def _gbif_sizes(size: int) -> Steps:
    if size > _GBIF_MOST:
        return Steps()
    larger = _larger_than(size)
    sizes = rf"(?:(?:fit-in/)?(?:{larger}x(?:{larger})?|x{larger})/)?"
    cached = r"(occurrence/\d+/media/[0-9a-f]{32})$"
    return Steps(((rf"^(https?://api\.gbif\.org/v1/image/cache/){sizes}{cached}", rf"\1{size}x/\2"),), True)


def _gbif_cache(size: int) -> Steps:
    return _gbif_sizes(size)._replace(gbif_size=size if size <= _GBIF_MOST else 0)


_LADDERS: Final[Mapping[str, Callable[[int], Steps]]] = {
    "inaturalist": _inaturalist,
    "iiif": _iiif,
    "wikimedia": _wikimedia,
    "flickr": _flickr,
    "gbif-cache": _gbif_cache,
    "gbif-sizes": _gbif_sizes,
}
_HOSTS: Final = (
    ("inaturalist-open-data.s3.amazonaws.com", "inaturalist"),
    ("static.inaturalist.org", "inaturalist"),
    ("*.wikimedia.org", "wikimedia"),
    ("*.staticflickr.com", "flickr"),
    ("*.static.flickr.com", "flickr"),
    ("api.gbif.org", "gbif-sizes"),
)
"""Patterns of servers, and the ladder that all of their URLs follow."""
