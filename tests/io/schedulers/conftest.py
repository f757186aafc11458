"""Programs that stand for a scheduler's: each prints what a real one has printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Says = Callable[..., Path]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Puts a program on the PATH that prints, complains, fails, and keeps its arguments (a line each) in the file that
    is returned, and what it reads in one beside it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def program(name: str, printed: str = "", complained: str = "", code: int = 0) -> Path:
        path = tmp_path / name
        (tmp_path / f"{name}.printed").write_text(printed)
        (tmp_path / f"{name}.complained").write_text(complained)
        lines = [
            "#!/bin/sh",
            f"printf '%s\\n' \"$@\" >> {path}.arguments",
            f"cat > {path}.read",
            f"cat {path}.printed",
            f"cat {path}.complained >&2",
            f"exit {code}",
        ]
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)
        return Path(f"{path}.arguments")

    return program


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scheduler's program is on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
