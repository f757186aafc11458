"""What a downloader is made of, by the config."""

from __future__ import annotations

import pytest

from ddmpi.config.config import parse
from ddmpi.roles.downloader.build import locate

KEYS = {"path_to_input": "a", "path_to_output_folder": "b"}
MEDIA = "https://upload.wikimedia.org/a.jpg"


@pytest.mark.parametrize(
    ("header", "location", "expected"),
    [
        ("User-Agent: me/1", "https://a.org/x", ("https://a.org/x", "a.org")),
        ("User-Agent: me/1", "https://u:p@a.org/x", "credentials"),
        ("User-Agent: me/1 (+mailto:me@my.edu)", MEDIA, (MEDIA, "upload.wikimedia.org")),
    ],
)
def test_where_a_redirect_leads(header: str, location: str, expected: object) -> None:
    config = parse({**KEYS, "downloader_parameters": {"header": header}}, "test")
    assert locate(config, location) == expected


def test_a_redirect_to_a_server_that_asks_for_a_contact_is_not_followed_without_one() -> None:
    config = parse(KEYS, "test")
    refused = locate(config, MEDIA)
    assert isinstance(refused, str)
    assert refused.startswith("upload.wikimedia.org wants a contact in the User-Agent: downloader_parameters: ")
