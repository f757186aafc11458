"""Digests of files: ``hashlib``'s algorithms, and two quicker ones from libraries of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeAlias

from ddmpi.errors import SetupError

_LIBRARIES: Final = {"blake3": ("blake3", "blake3"), "xxh3_128": ("xxhash", "xxh3_128")}
"""By algorithm: the module that has it, and its constructor there."""


Digest: TypeAlias = Callable[[bytes | memoryview], str]


def make_digest(algorithm: str) -> Digest:
    """Return a function that makes the hexadecimal digest of some bytes, from any thread.

    Raises:
        SetupError: the algorithm's library is not installed.
        ValueError: an unknown algorithm.
    """
    constructor: Callable[[bytes | memoryview], Any]
    if algorithm in _LIBRARIES:
        module, name = _LIBRARIES[algorithm]
        try:
            constructor = getattr(import_module(module), name)
        except ImportError as error:
            raise SetupError(f'hash_algorithm: {algorithm} needs a library: pip install "ddmpi[hashes]"') from error
    else:
        constructor = _of_hashlib(algorithm)
    return lambda data: str(constructor(data).hexdigest())


def _of_hashlib(algorithm: str) -> Callable[[bytes | memoryview], Any]:
    hashlib.new(algorithm, usedforsecurity=False)  # its ValueError tells an unknown one
    return lambda data: hashlib.new(algorithm, data, usedforsecurity=False)
