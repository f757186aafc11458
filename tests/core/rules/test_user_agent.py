"""The User-Agent: is there a contact in it, and which name has robots.txt for it?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddmpi
from ddmpi.config.config import parse
from ddmpi.core.rules.user_agent import names_contact, product_token


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("", False),
        ("me/1", False),
        ("me/1 (+https://)", False),
        ("me/1 (me @ home)", False),
        ("me/1 (+https://my.institute.example/bot)", False),
        ("me/1 (bot@institute.example)", False),
        ("me/1 (+https://my.institute.example/bot; me@uni.edu)", True),
        ("me/1 (+https://uni.edu:8080/bot)", True),
        ("me/1 (+HTTP://uni.edu)", True),
        ("me/1 (me@uni.edu)", True),
        ("me/1 mailto:me@uni.edu", True),
    ],
)
def test_contact(user_agent: str, expected: bool) -> None:
    assert names_contact(user_agent) is expected


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("ddmpi/0.1", "ddmpi"),
        ("My-Project/1.0 (+https://uni.edu)", "my-project"),
        ("images (me@uni.edu)", "images"),
        ("Mozilla/5.0 (compatible; ImageBot/2.1; +https://uni.edu)", "imagebot"),
        ("Mozilla/5.0 (X11; Linux x86_64) Gecko", "mozilla"),
        ("", ""),
        ("(nothing)", ""),
    ],
)
def test_product_token(user_agent: str, expected: str) -> None:
    assert product_token(user_agent) == expected


@given(st.text(max_size=60))
def test_any_text_has_a_token_without_white_space(user_agent: str) -> None:
    assert names_contact(user_agent) in {True, False}
    assert product_token(user_agent).split() in ([], [product_token(user_agent)])


def test_the_default_names_the_program_and_its_version() -> None:
    config = parse({"path_to_input": "a", "path_to_output_folder": "b"}, "test")
    assert config.user_agent == f"ddmpi/{ddmpi.__version__}"
    assert config.contact_missing
