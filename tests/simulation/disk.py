"""A disk that outlives the runs: parts that are whole and never changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from tests.worlds.model import World


@dataclass(frozen=True, slots=True)
class Part:
    """A published part: which rows of which batch it holds."""

    batch_id: int
    is_errors: bool
    rows: tuple[int, ...]


class Disk:
    """The published parts of an output folder; it outlives the runs."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    def publish(self, part: Part) -> str:
        """The part gets its final name, which is returned."""
        path = f"part-{len(self.parts):04}"
        self.parts[path] = part
        return path

    def final_rows(self, paths: Iterable[str]) -> set[int]:
        """Rows with an outcome in these parts."""
        return {row for path in paths for row in self.parts[path].rows}

    def count(self, world: World) -> BatchCounts:
        """What is final, as rank 0 finds it in the output folder."""
        counts = BatchCounts(world.batch_rows())
        contents: dict[int, BatchContent] = {}
        for path, part in self.parts.items():
            known = contents.get(part.batch_id, BatchContent(part.batch_id, 0, 0))
            contents[part.batch_id] = replace(
                known,
                successes=known.successes + len(part.rows) * (not part.is_errors),
                errors=known.errors + len(part.rows) * part.is_errors,
                parts=(*known.parts, path),
            )
        for content in contents.values():
            counts.set(content)
        for batch_id in counts.due():
            counts.complete(batch_id)
        return counts
