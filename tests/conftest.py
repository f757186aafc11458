"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says how busy the machine is: coverage alone makes some of them take more than 200 ms.
settings.register_profile("ddmpi", deadline=None)
settings.load_profile("ddmpi")
