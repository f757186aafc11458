"""What README, CONTRIBUTING and docs/ print as code: fenced blocks, and the commands in those of the shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.whole.job import ROOT

PAGES: Final = ("README.md", "CONTRIBUTING.md", *sorted(path.name for path in (ROOT / "docs").glob("*.md")))
_BLOCK: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """A fenced block. ``language`` is empty where none is said."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


def text_of(page: str) -> str:
    """Return a page, by its file's name."""
    path = ROOT / page
    return (path if path.exists() else ROOT / "docs" / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page in order, those in lists without their indentation."""
    text = text_of(page)
    return [
        Block(
            page,
            text[: found.start()].count("\n") + 1,
            found["language"],
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
        )
        for found in _BLOCK.finditer(text)
    ]


def all_blocks(*languages: str) -> list[Block]:
    """Return the blocks in these languages, of all pages."""
    return [block for page in PAGES for block in blocks_of(page) if block.language in languages]


def commands_in(script: str) -> list[list[str]]:
    """Return the words of each line of a script, without comments; a backslash goes on with the next line."""
    lines = (shlex.split(line, comments=True) for line in script.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


def options_of_ddmpi(command: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return which program of ours a command starts (``ddmpi``, ``ddmpi.export`` or another module) and what it is
    told; None if it starts none.

    ``run.sh`` hands its words on to ``ddmpi``, under sbatch too.
    """
    for place, word in enumerate(command):
        if word == "ddmpi" or word.endswith("run.sh"):
            return "ddmpi", list(command[place + 1 :])
        if word == "-m":
            return command[place + 1], list(command[place + 2 :])
    return None
