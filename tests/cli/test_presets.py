"""``ddmpi presets``: a list, or the YAML of one, without MPI, and once on each node."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ddmpi.cli.presets import run
from ddmpi.config import presets


def test_all_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(presets.names())
    assert all(len(line) <= 120 for line in lines)
    assert len({line.index(presets.summary_of(line.split()[0])) for line in lines}) == 1


@pytest.mark.parametrize("name", presets.names())
def test_one_is_printed_as_yaml(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name], {}) == 0
    assert capsys.readouterr().out == presets.text_of(name)


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gbiff"], {}) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "ddmpi: gbiff: expected the name of a preset; did you mean gbif?\n"


def test_one_rank_of_a_node_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], {"OMPI_COMM_WORLD_LOCAL_RANK": "1"}) == 0
    assert capsys.readouterr().out == ""


def test_it_needs_neither_mpi_nor_a_config() -> None:
    program = (
        "import sys; sys.modules['mpi4py'] = None; sys.modules['pyarrow'] = None; "
        "from ddmpi.__main__ import main; sys.exit(main(['presets', 'gbif']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == presets.text_of("gbif")
