"""What libraries complain of while a thread decodes: caught there, instead of lines on standard error.

Pillow warns by Python's ``warnings``; the libtiff in it writes to standard error unless it is given handlers, which it
calls in the thread that decodes. libjpeg's complaints come as errors of simplejpeg.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_MOST: Final = 5
_TEXT_BYTES: Final = 300

_heard = threading.local()
_handlers: list[Any] = []
"""Kept from being freed: libtiff calls them."""


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect, in the list, up to five different complaints that this thread's decoders have."""
    if warnings.showwarning is not _show:
        _install()
    texts: list[str] = []
    _heard.texts = texts
    try:
        yield texts
    finally:
        _heard.texts = None


def complain(text: str) -> bool:
    """Note a complaint of this thread's decoder; return whether it decodes at all."""
    texts: list[str] | None = getattr(_heard, "texts", None)
    if texts is None:
        return False
    plain = " ".join(text.split())
    if plain not in texts and len(texts) < _MOST:
        texts.append(plain)
    return True


_others: Callable[..., None] = warnings.showwarning


def _show(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
    if not complain(str(message)):
        _others(message, category, *place, **named)


def _install() -> None:
    global _others  # noqa: PLW0603  # as logging.captureWarnings does it
    _others = warnings.showwarning
    warnings.showwarning = _show
    warnings.filterwarnings("always", module=r"PIL\b")  # each image's, not each line of code's
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if not _handlers:
        _handlers.extend(_handle_libtiff())


def _handle_libtiff() -> list[Any]:
    """Have the libtiff that this process has loaded call us; return what has to be kept."""
    library = next((path for path in _libraries() if "libtiff" in path.name), None)
    if library is None:
        return []
    tiff, libc = ctypes.CDLL(str(library)), ctypes.CDLL(None)
    libc.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def handle(_module: bytes, text: bytes, values: int) -> None:
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        libc.vsnprintf(buffer, _TEXT_BYTES, text, values)
        complain(f"libtiff: {buffer.value.decode('utf-8', 'replace')}")

    handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(handle)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        function = getattr(tiff, name)
        function.restype = ctypes.c_void_p
        function(handler)
    return [handler]


def _libraries() -> list[Path]:
    """Return the libraries that this process has loaded; none where /proc does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    return [Path(path) for path in dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines if "/" in line)]
