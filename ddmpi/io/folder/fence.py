"""Epochs: each run over an output folder takes from all earlier ones the possibility to commit.

Parts are written in a folder of their run's epoch (``Layout.epoch_temporary``), all else beside it, and renamed from
there to their final names (``durable``). ``open_epoch`` takes what it finds there away, each entry by one rename. An
orphan of an earlier run that still lives (its launcher was killed, it was not) can no longer commit: its next rename
or open fails with ENOENT. Whatever it committed before is there for the scan that follows.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from ddmpi.io.folder import durable
from ddmpi.io.folder.disk_errors import named_disk_errors, names_in
from ddmpi.io.folder.layout import PART_KINDS, Layout
from ddmpi.io.folder.markers import published_parts

_EPOCH_FOLDER: Final = re.compile(r"e(\d{4,})", re.ASCII)
_FENCED_PREFIX: Final = "fenced-"


def highest_epoch(layout: Layout) -> int:
    """Return the highest epoch that any run of this folder may have written under; 0 for a new folder.

    ``open_epoch`` leaves a folder that says so. Without one (a user cleaned up) all part names are read. Raises
    StorageError: a folder cannot be listed.
    """
    epochs = [int(match[1]) for name in names_in(layout.temporary) if (match := _EPOCH_FOLDER.fullmatch(name))]
    epochs = epochs or [part.name.epoch for kind in PART_KINDS for part in published_parts(layout, kind)]
    return max(epochs, default=0)


def open_epoch(layout: Layout, epoch: int) -> None:
    """Fence off all earlier runs and make this one's temporary folder; rank 0 calls it before it scans the parts.
    Raises StorageError: with path and reason."""
    own = layout.epoch_temporary(epoch)
    # Own folder first: its name tells the next run the highest epoch, whatever happens to the rest.
    durable.make_folders(own)
    with named_disk_errors("cannot clean", layout.temporary):
        for name in sorted(names_in(layout.temporary)):
            if name != own.name:
                _remove_fenced(layout.temporary / name)


def _remove_fenced(entry: Path) -> None:
    if not entry.name.startswith(_FENCED_PREFIX):  # an interrupted cleaning leaves such names
        fenced = entry.with_name(f"{_FENCED_PREFIX}{os.getpid()}-{entry.name}")
        durable.os_rename(entry, fenced)
        entry = fenced
    if entry.is_dir():
        shutil.rmtree(entry)
    else:
        durable.os_unlink(entry)
