"""What a target of the export is: it says what it needs, gets rows, and writes shards.

A target is a module of ``ddmpi/export/targets``, whose ``TARGET`` is a subclass of ``Target``; its name is what
``--to`` takes. Nothing else names it. A shard is written under a temporary name, synced, and renamed when it is whole;
its bytes depend on its rows alone, so that one which is written again after a kill is the same.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ddmpi.export import targets

if TYPE_CHECKING:
    import pyarrow as pa

    from ddmpi.core.arrays import IntArray
    from ddmpi.io.folder.layout import Layout
    from ddmpi.io.mpi.launcher import Ranks


@dataclass(frozen=True)
class Picture:
    """An image as it is exported; sizes and digest are None where it is the stored one."""

    body: bytes
    resized_size: tuple[int, int] | None = None
    digest: str | None = None


class ShardWriter(Protocol):
    """A shard under construction. All methods raise StorageError or OSError."""

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        """Append rows (without their image) and their images, of which there are none where the target reads none."""

    def commit(self) -> Any:
        """Give it its final name. Returns what ``Target.finish`` has to know of it, as JSON has it, or None."""

    def discard(self) -> None:
        """Leave nothing."""


class Target(ABC):
    """A format of the export.

    Args:
        options: what was given for the options of ``add_options``, by name.

    Raises:
        argparse.ArgumentTypeError: they make no sense.
    """

    shard_bytes: ClassVar[int] = 256 << 20
    """Of the source: what a shard holds of it at most unless ``--shard-bytes`` says otherwise."""
    reads_images: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.columns: Sequence[str] = ()
        """Columns without which it cannot work; an export of results that do not have them is refused."""

    @staticmethod
    def add_options(parser: argparse._ArgumentGroup) -> None:
        """Add the options that only this target has."""
        del parser  # most have none

    def prepare(  # noqa: B027  # most need nothing
        self, layout: Layout, parts: Sequence[str], ranks: Ranks, replaced: Mapping[str, IntArray]
    ) -> None:
        """Find out, before the first shard, what can be told only of all rows together. Called on all ranks, which may
        exchange messages in it.

        Args:
            parts: of the results, relative to the output folder.
            replaced: by part the row numbers whose file there does not count.

        Raises:
            StorageError: a part cannot be read.
        """

    @abstractmethod
    def open(self, name: str, temporary: Path, folder: Path) -> ShardWriter:
        """Return a writer of the shard ``name`` below ``folder``, built in the folder ``temporary``."""

    def finish(  # noqa: B027  # most have nothing to do
        self, layout: Layout, folder: Path, summary: Mapping[str, Any], shards: Sequence[tuple[str, Any]]
    ) -> None:
        """Write what is there once. Called on rank 0 when all shards have their final names, again after a kill in it.

        Args:
            layout: of the results.
            summary: what ``export.json`` will say.
            shards: (name, what ``commit`` has returned) of each shard that has rows, in order.

        Raises:
            StorageError, OSError: it cannot be written.
        """

    def reading(self, folder: Path, shards: Sequence[tuple[str, Any]]) -> str:  # noqa: ARG002  # most say nothing
        """Return what people who read ``folder`` have to know, "" for nothing. ``shards``: as in ``finish``."""
        return ""


def target_names() -> list[str]:
    """Return what ``--to`` takes, without loading any of it."""
    return sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def load_target(name: str) -> type[Target]:
    """Return the class of a target of ``target_names``."""
    found: type[Target] = importlib.import_module(f"{targets.__name__}.{name}").TARGET
    return found
