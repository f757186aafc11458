"""Digests: against those that the algorithms' authors publish, and what is said of others."""

from __future__ import annotations

import sys

import pytest

from ddmpi.errors import SetupError
from ddmpi.io.results.digests import make_digest

OF_ABC = {
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "md5": "900150983cd24fb0d6963f7d28e17f72",
    "blake3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
    "xxh3_128": "06b05ab6733a618578af5f94892f3950",
}


@pytest.mark.parametrize("algorithm", OF_ABC)
def test_a_digest_is_that_of_the_algorithm(algorithm: str) -> None:
    digest = make_digest(algorithm)
    assert digest(b"abc") == digest(memoryview(b"abc")) == OF_ABC[algorithm]


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(SetupError, match=r'blake3 needs a library: pip install "ddmpi\[hashes\]"'):
        make_digest("blake3")


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        make_digest("nonsense")
