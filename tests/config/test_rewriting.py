"""Which rewrites are accepted, and what the known ladders make of URLs as their hosts write them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from ddmpi.config.config import Config, parse
from ddmpi.config.rewriting import Steps, automatic_steps, rewritten, steps_of
from ddmpi.errors import ConfigError

FLICKR = "https://live.staticflickr.com/7372/12502775644_acfd415fa7"
WIKIMEDIA = "https://upload.wikimedia.org/wikipedia/commons"
THUMBS = "https://thumb.wikimedia.org/wikipedia/commons/thumb"
INATURALIST = "https://inaturalist-open-data.s3.amazonaws.com/photos/31610070"
IIIF = "https://iiif.museum.example/iiif/2/id%2F1/full"
CACHED = "occurrence/2005380410/media/568639b65b65ddb9090d3d6ef1abce14"
GBIF = "https://api.gbif.org/v1/image/cache"


def make(**changes: Any) -> Config:
    return parse({"path_to_input": "a.csv", "path_to_output_folder": "out", **changes}, "test")


def asked(url: str, steps: Steps) -> str:
    """What the first step that finds something makes of the URL."""
    found = [made for pair in steps.pairs if (made := rewritten(pa.array([url]), *pair)[0].as_py()) != url]
    return found[0] if found else url


def automatic(url: str, size: int = 224) -> str:
    return asked(url, automatic_steps(url.partition("://")[2].partition("/")[0], size))


@pytest.mark.parametrize(
    ("url", "size", "wanted"),
    [
        (f"{INATURALIST}/original.jpg", 224, f"{INATURALIST}/small.jpg"),
        (f"{INATURALIST}/original.JPEG", 241, f"{INATURALIST}/medium.JPEG"),
        (f"{INATURALIST}/original.png", 1024, f"{INATURALIST}/large.png"),
        (f"{INATURALIST}/original.png", 1025, f"{INATURALIST}/original.png"),
        (f"{INATURALIST}/medium.jpg?1545345841", 224, f"{INATURALIST}/small.jpg?1545345841"),
        (f"{INATURALIST}/small.jpg", 500, f"{INATURALIST}/small.jpg"),
        ("https://static.inaturalist.org/photos/1/large.jpg", 224, "https://static.inaturalist.org/photos/1/small.jpg"),
        ("https://static.inaturalist.org/attachments/1/large.jpg", 224, "https://static.inaturalist.org/attachments/1/large.jpg"),
        (f"{FLICKR}_b.jpg", 224, f"{FLICKR}_m.jpg"),
        (f"{FLICKR}.jpg", 224, f"{FLICKR}_m.jpg"),
        (f"{FLICKR}_b.jpg", 401, f"{FLICKR}.jpg"),
        (f"{FLICKR}_m.jpg", 500, f"{FLICKR}_m.jpg"),
        (f"{FLICKR}_q.jpg", 100, f"{FLICKR}_q.jpg"),
        (f"{FLICKR}_b.jpg", 1024, f"{FLICKR}_b.jpg"),
        (f"{FLICKR}_o.jpg", 224, f"{FLICKR}_o.jpg"),
        (f"{FLICKR}_k.jpg", 224, f"{FLICKR}_k.jpg"),
        ("http://farm3.static.flickr.com/2580/39_dbc5ca7ed5_z.jpg", 300, "http://farm3.static.flickr.com/2580/39_dbc5ca7ed5_n.jpg"),
        (f"{WIKIMEDIA}/a/ab/Foo_%C3%A9.JPG", 224, f"{THUMBS}/a/ab/Foo_%C3%A9.JPG/250px-Foo_%C3%A9.JPG"),
        (f"{WIKIMEDIA}/a/ab/Foo.png", 251, f"{THUMBS}/a/ab/Foo.png/330px-Foo.png"),
        (f"{WIKIMEDIA}/a/ab/Foo.tif", 224, f"{THUMBS}/a/ab/Foo.tif/lossy-page1-250px-Foo.tif.jpg"),
        (f"{WIKIMEDIA}/a/ab/Foo.svg", 224, f"{WIKIMEDIA}/a/ab/Foo.svg"),
        (f"{WIKIMEDIA}/a/ab/{'x' * 200}.jpg", 224, f"{WIKIMEDIA}/a/ab/{'x' * 200}.jpg"),
        (f"{WIKIMEDIA}/a/ab/{'%C3%A9' * 70}.jpg", 224, f"{THUMBS}/a/ab/{'%C3%A9' * 70}.jpg/250px-{'%C3%A9' * 70}.jpg"),
        (f"{WIKIMEDIA}/thumb/a/ab/Foo.jpg/1024px-Foo.jpg", 224, f"{THUMBS}/a/ab/Foo.jpg/250px-Foo.jpg"),
        (f"{THUMBS}/a/ab/F.tif/lossy-page1-960px-F.tif.jpg", 224, f"{THUMBS}/a/ab/F.tif/lossy-page1-250px-F.tif.jpg"),
        (f"{THUMBS}/a/ab/Foo.jpg/250px-Foo.jpg", 224, f"{THUMBS}/a/ab/Foo.jpg/250px-Foo.jpg"),
        (f"{THUMBS}/a/ab/Foo.jpg/120px-Foo.jpg", 224, f"{THUMBS}/a/ab/Foo.jpg/120px-Foo.jpg"),
        (f"{WIKIMEDIA}/a/ab/Foo.jpg", 4000, f"{WIKIMEDIA}/a/ab/Foo.jpg"),
        (f"{IIIF}/full/0/default.jpg", 224, f"{IIIF}/!224,224/0/default.jpg"),
        (f"{IIIF}/max/0/default.jpg", 224, f"{IIIF}/!224,224/0/default.jpg"),
        (f"{IIIF}/800,/0/default.png", 224, f"{IIIF}/!224,224/0/default.png"),
        (f"{IIIF}/,1000/0/native.jpg", 224, f"{IIIF}/!224,224/0/native.jpg"),
        (f"{IIIF}/!800,600/0/default.jpg", 224, f"{IIIF}/!224,224/0/default.jpg"),
        (f"{IIIF}/!800,200/0/default.jpg", 224, f"{IIIF}/!800,200/0/default.jpg"),
        (f"{IIIF}/224,/0/default.jpg", 224, f"{IIIF}/224,/0/default.jpg"),
        (f"{IIIF}/full/90/default.jpg", 224, f"{IIIF}/full/90/default.jpg"),
        (f"{GBIF}/{CACHED}", 224, f"{GBIF}/224x/{CACHED}"),
        (f"{GBIF}/1200x1200/{CACHED}", 224, f"{GBIF}/224x/{CACHED}"),
        (f"{GBIF}/fit-in/500x/{CACHED}", 224, f"{GBIF}/224x/{CACHED}"),
        (f"{GBIF}/200x/{CACHED}", 224, f"{GBIF}/200x/{CACHED}"),
        ("https://example.org/photos/1/original.jpg", 224, "https://example.org/photos/1/original.jpg"),
    ],
)  # fmt: skip
def test_a_ladder_names_the_smallest_copy_that_is_large_enough(url: str, size: int, wanted: str) -> None:
    assert automatic(url, size) == wanted


@pytest.mark.parametrize("size", [1, 9, 99, 100, 224, 249, 999, 1000, 1999])
def test_numbers_above_another_one_are_told_from_the_others(size: int) -> None:
    rewritten_sizes = {
        n
        for n in range(1, 2500)
        if asked(f"{IIIF}/{n},/0/default.jpg", steps_of("iiif", size)) != f"{IIIF}/{n},/0/default.jpg"
    }
    assert rewritten_sizes == set(range(size + 1, 2500))


def test_without_a_size_a_ladder_does_nothing() -> None:
    assert steps_of("inaturalist", 0) == Steps()


def test_a_rule_says_more_than_what_is_known() -> None:
    own: list[dict[str, str]] = [{"from": "large", "to": "tiny"}]
    rules = [{"match": "static.inaturalist.org", "rewrite": own}, {"match": "live.staticflickr.com", "rewrite": []}]
    config = make(servers=rules, sizes="auto", downloader_parameters={"image_size": 224})
    assert config.steps_for("static.inaturalist.org") == Steps((("large", "tiny"),))
    assert config.steps_for("live.staticflickr.com") == Steps()
    assert config.steps_for("museum.example") == steps_of("iiif", 224)
    assert config.rewrites
    assert config.has_mirrors
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_a_config_without_rewrites_has_none() -> None:
    assert not make().rewrites
    assert not make(servers=[{"match": "a.org", "rewrite": []}]).rewrites
    assert not make(servers=[{"match": "a.org", "rewrite": [{"from": "a", "to": "b"}]}]).has_mirrors


@pytest.mark.parametrize(
    ("rewrite", "problem"),
    [
        ("inaturalst", "inaturalist, iiif, wikimedia, flickr, gbif-cache"),
        ({"from": "a", "to": "b"}, "a list of {from: REGEX, to: TEXT}"),
        ([{"from": "a"}], "a list of {from: REGEX, to: TEXT}"),
        ([{"from": "a", "to": 1}], "a list of {from: REGEX, to: TEXT}"),
        ([{"from": "", "to": "b"}], "an empty one is found everywhere"),
        ([{"from": "(a", "to": "b"}], "missing \\)"),
        ([{"from": "(a)(?=b)", "to": "b"}], "invalid perl operator"),
        ([{"from": "(a)", "to": r"\2"}], "requests 2 matches"),
    ],
)
def test_a_wrong_rewrite_is_refused_when_the_config_is_read(rewrite: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"servers\[0\].rewrite: .*{problem}"):
        make(servers=[{"match": "a.org", "rewrite": rewrite}])


@pytest.mark.parametrize("changes", [{"sizes": "auto"}, {"servers": [{"match": "a.org", "rewrite": "iiif"}]}])
def test_sizes_need_a_measure_and_no_promises(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"image_size with (sizes: auto|rewrite: iiif)"):
        make(**changes)
    with pytest.raises(ConfigError, match="or expected, not both"):
        make(
            **changes, keep_columns=["md5"], expected={"hash_column": "md5"}, downloader_parameters={"image_size": 224}
        )  # fmt: skip
