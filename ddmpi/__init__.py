"""ddmpi: turn a table of URLs into a Parquet dataset of the files behind them, as one MPI program.

``download``, ``open_results`` and ``load`` load what they need when they are first asked for: to import ddmpi costs
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddmpi._version import __version__

if TYPE_CHECKING:
    from ddmpi.api import download, is_placeholder, load, open_checks, open_results

__all__ = ["__version__", "download", "is_placeholder", "load", "open_checks", "open_results"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ddmpi import api  # noqa: PLC0415  # pyarrow takes a second to load, "--help" must not

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
