"""profiles.csv: what profiling measured of each server, and the rate that follows.

The first five columns are those of distributed-downloader. A user may lower ``rate_limit`` by hand: the lower one of
this and the config's limit counts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from ddmpi.core.ledger.profile import Profile
from ddmpi.errors import OutputError
from ddmpi.io.folder.durable import write_atomically


def write_profiles(path: Path, profiles: Mapping[str, Profile], temporary: Path) -> None:
    """Write all profiles, sorted by server; first into the folder ``temporary``.

    Raises:
        StorageError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Profile)]
    writer.writerow(names)
    for _, profile in sorted(profiles.items()):
        writer.writerow([getattr(profile, name) for name in names])
    write_atomically(path, text.getvalue().encode(), temporary)


def read_profiles(path: Path) -> dict[str, Profile]:
    """The profiles by server; columns that are missing have their defaults.

    Raises:
        OutputError: the file is not what ``write_profiles`` wrote or a user may have made of it.
    """
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
