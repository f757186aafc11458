"""The version, where everybody may read it: the package itself loads more."""

from __future__ import annotations

__version__ = "0.2.0"
