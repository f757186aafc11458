"""profiles.csv: what profiling measured of each server, and the rate that follows.

The first five columns are those of distributed-downloader. A user may lower ``rate_limit`` by hand: the lower one of
this and the config's limit counts. ``configured_rate`` tells that from what the config said when it was written.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import astuple, fields
from pathlib import Path

from ddmpi.core.ledger.profile import Profile
from ddmpi.errors import OutputError
from ddmpi.io.folder.durable import csv_bytes, write_atomically


def write_profiles(path: Path, profiles: Mapping[str, Profile], temporary: Path) -> None:
    """Write all profiles, sorted by server; first into the folder ``temporary``. Raises StorageError: the file cannot
    be written."""
    rows = (astuple(profile) for _, profile in sorted(profiles.items()))
    write_atomically(path, csv_bytes([field.name for field in fields(Profile)], rows), temporary)


def read_profiles(path: Path) -> dict[str, Profile]:
    """Return the profiles by server; columns that are missing have their defaults. Raises OutputError: the file is not
    what ``write_profiles`` wrote or a user may have made of it."""
    kinds = {"str": str, "int": int, "float": float}
    profiles = {}
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                values = {f.name: kinds[str(f.type)](row[f.name]) for f in fields(Profile) if f.name in row}
                profile = Profile(**values)
            except (ValueError, TypeError) as error:
                raise OutputError(f"{path}, line {line}: {error}") from error
            profiles[profile.server_name] = profile
    return profiles
