"""profiles.csv: what is written comes back."""

from __future__ import annotations

from pathlib import Path

from ddmpi.core.ledger.profile import Profile
from ddmpi.io.folder.profiles import read_profiles, write_profiles


def test_profiles_survive_their_file(tmp_path: Path) -> None:
    full = Profile("a", 7, 3, 1, 5.0, "192.0.2.1", "2", 0.01, 0.2, 0.4, 0.4, 100, "200:3 429:1", 17.0)
    silent = Profile("b, quoted", 1, 0, 0, 0.0)
    write_profiles(tmp_path / "profiles.csv", {"b": silent, "a": full}, tmp_path / "tmp")
    assert read_profiles(tmp_path / "profiles.csv") == {"a": full, "b, quoted": silent}
