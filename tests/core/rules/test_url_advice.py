"""What may have been meant by a value that is no URL."""

from __future__ import annotations

import pytest

from ddmpi.core.rules.url_advice import advice


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("n0001_1\thttp://a.example/1.jpg", "input: {format: tsv, header: false, names: [column_1, identifier]}"),
        ("http://a.example/1.jpg\tA dog\tx", "names: [identifier, column_2, column_3]}"),
        ('["http://a.example/1.jpg", "http://a.example/2.jpg"]', 'columns: {identifier: "url[]"}'),
        ("http://a.example/1.jpg | http://a.example/2.jpg", '{column: url, split: " | "}'),
        ("http://a.example/1.jpg http://a.example/2.jpg", '{column: url, split: " "}'),
        ("//a.example/1.jpg", 'columns: {identifier: "https:{url}"}'),
        ("a.example/1.jpg", 'columns: {identifier: "https://{url}"}'),
        ("s3://bucket/1.jpg", "s3:// is not fetched, only http and https"),
        ("crawl-data/1.jpg", 'base_url: "https://HOST/FOLDER/"'),
        ("/images/1.jpg", 'base_url: "https://HOST/FOLDER/"'),
        ("212500300", 'columns: {identifier: "https://HOST/FOLDER/{url}.jpg"}'),
        ("", 'filter: url is not null and url != ""'),
        (None, 'filter: url is not null and url != ""'),
    ],
)
def test_the_key_to_write_is_named(url: str | None, expected: str) -> None:
    assert expected in advice(url, "url", {"caption": "A dog"})


def test_another_column_with_urls_is_what_was_meant() -> None:
    others = {"caption": "A dog", "photo_url": "https://a.example/1.jpg"}
    assert "columns: {identifier: photo_url}" in advice("A name", "url", others)


@pytest.mark.parametrize("url", ["A dog on a beach", "http://", "http://a b/", "https://user@a.example/1.jpg", "\x00"])
def test_where_nothing_is_likely_nothing_is_said(url: str) -> None:
    assert advice(url, "url", {}) == ""
