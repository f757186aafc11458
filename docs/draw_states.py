"""Draw rooms and states into docs/architecture.md: ``python -m docs.draw_states``; ``--check`` only compares.

The states come from the tables that the program looks up, the rooms from the docstrings at their doors. A test runs
``--check``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from enum import Enum
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import ddmpi
from ddmpi.core.frontier import held_lane
from ddmpi.core.frontier.held_lane import LaneStage
from ddmpi.core.ledger import leases
from ddmpi.core.ledger.leases import LeaseState

TARGET = Path(__file__).parent / "architecture.md"
State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)


def diagram(table: Mapping[tuple[State, Event], State], first: State) -> str:
    """Return a table of (state, event) -> state as a Mermaid diagram.

    Events with the same effect share an arrow. A state that no event leaves is an end.
    """
    events: dict[tuple[State, State], list[str]] = {}
    for (before, event), after in table.items():
        events.setdefault((before, after), []).append(str(event.value))
    lines = [f"    [*] --> {first.value}"]
    lines += [f"    {before.value} --> {after.value}: {', '.join(names)}" for (before, after), names in events.items()]
    left = {before for before, _ in table}
    lines += [f"    {after.value} --> [*]" for after in dict.fromkeys(table.values()) if after not in left]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def rooms() -> str:
    """Return a table of all packages, with the sentence at their doors, two in a line.

    Raises:
        ValueError: a door says nothing.
    """
    package = Path(ddmpi.__file__).parent
    cells = []
    for door in sorted(package.rglob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(door.read_text(encoding="utf-8")))
        if not text:
            raise ValueError(f"{door} has no docstring")
        cells.append(f"`{door.parent.relative_to(package)}` | {text.replace('``', '`').removesuffix('.')}")
    half = -(-len(cells) // 2)
    rows = zip_longest(cells[:half], cells[half:], fillvalue="|")
    return "\n".join(
        ["| room | what is in it | room | what is in it |", "|---|---|---|---|"]
        + [f"| {left} | {right} |" for left, right in rows]
    )


def drawings() -> dict[str, str]:
    """Return all drawings by the name in their markers. Raises what ``rooms`` raises."""
    return {
        "the rooms": rooms(),
        "a lane on its rank": diagram(held_lane.TRANSITIONS, LaneStage.QUEUED),
        "its lease on rank 0": diagram(leases.TRANSITIONS, LeaseState.NEW),
    }


def drawn_into(page: str) -> str:
    """Return the page with the drawings between their markers.

    Raises:
        ValueError: it does not have each marker once, or as ``drawings``.
    """
    for name, drawing in drawings().items():
        begin, end = f"<!-- drawn: {name} -->\n", "\n<!-- end -->"
        if page.count(begin) != 1:
            raise ValueError(f"{TARGET.name}: the marker {begin.strip()} has to be there once")
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{TARGET.name}: no {end.strip()} after {begin.strip()}")
        page = f"{before}{begin}{drawing}{end}{after}"
    return page


def main(arguments: list[str]) -> int:
    page = TARGET.read_text(encoding="utf-8")
    drawn = drawn_into(page)
    if page == drawn:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{TARGET.name} is stale: run python -m docs.draw_states\n")
        return 1
    TARGET.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
