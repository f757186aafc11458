"""The README and the pages about output, followed to the letter: each command, each column, each piece of code.

The fast part takes what is installed with ddmpi. The slow part starts from a clean copy of the tree, as a new user
does: run.sh sets up its own environment, and the readers that the pages name are installed into another one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import yaml

from ddmpi.cli.arguments import parse_arguments
from ddmpi.config.config import load
from ddmpi.io.folder.layout import PART_KINDS, PartKind
from ddmpi.io.input.rows import ITEM_NUMBER
from ddmpi.io.results.schema import result_schema
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec, plain_address, plain_fleet
from tests.whole.job import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
OUTPUT = (ROOT / "docs/output.md").read_text(encoding="utf-8")
READERS = ["pandas", "polars", "duckdb", "datasets", "pillow"]
ROWS = 240
"""On four servers, so that each is large enough to be profiled; one of them has none of its files."""


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def code_with(text: str, *words: str) -> str:
    """The Python blocks that have one of the words, in order, as one program."""
    found = [block for block in blocks(text, "python") if any(word in block for word in words)]
    assert found
    return "\n".join(found)


def example_config() -> str:
    (block,) = [block for block in blocks(README, "yaml") if "birds.csv" in block]
    return block


def run(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    specs = [*plain_fleet(3), ServerSpec(plain_address(3), not_found_share=1.0)]
    with running_fleet(tmp_path_factory.mktemp("fleet"), specs, ROWS) as running:
        yield running


def write_birds(folder: Path, fleet: RunningFleet) -> None:
    """The README's example, with URLs and permissions for this machine."""
    header = blocks(README, "csv")[0].partition("\n")[0]
    lines = [f"{url},{row},{('CC0', 'CC-BY')[row % 2]},Parus major" for row, url in enumerate(fleet.urls())]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "birds.csv").write_text("\n".join([header, *lines]) + "\n")
    config: dict[str, Any] = yaml.safe_load(example_config())
    config["downloader_parameters"] |= {
        "default_rate_limit": 0, "proxy": "", "allow_private_addresses": ["127.0.0.0/8"]
    }  # fmt: skip
    (folder / "birds.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, fleet: RunningFleet) -> Path:
    """A folder with the results of the README's example as ``birds`` and as ``out``; errors were fetched again."""
    folder = tmp_path_factory.mktemp("results")
    write_birds(folder, fleet)
    for options in ([], ["--retry-failed"]):
        command = [sys.executable, "-m", "ddmpi", "birds.yaml", "--set", "path_to_output_folder=birds", *options]
        run(command, folder, PYTHONPATH=str(ROOT))
    (folder / "out").symlink_to(folder / "birds")
    return folder


# ---- what is written


def test_the_options_that_are_documented_exist() -> None:
    commands = re.findall(r"python -m ddmpi CONFIG.yaml(.*?)(?:  |$)", COMMANDS, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        for choice in command.split("|") if "--reset" in command else [command]:
            options = re.sub(r"\[?\[KIND.*", "404 dns", choice).replace("[", "").replace("]", "").replace("N", "8")
            assert parse_arguments(["config.yaml", *options.split()])


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_named_in_the_readme() -> None:
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(re.findall(r"docs/([\w-]+\.md)", README))


def test_the_example_config_loads(tmp_path: Path) -> None:
    (tmp_path / "birds.yaml").write_text(example_config())
    assert load(tmp_path / "birds.yaml").keep_columns == ("species",)


@pytest.mark.parametrize("kind", PART_KINDS)
def test_every_column_is_described_with_its_type(kind: PartKind) -> None:
    section = OUTPUT.partition(f"## {kind.title()}\n")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    schema = result_schema(kind, [pa.field(ITEM_NUMBER, pa.int32())], refers=True, marks=True, rewrites=True)
    expected = [(field.name, str(field.type).replace("item: ", "").replace("element: ", "")) for field in schema]
    assert described == expected


def test_the_tree_of_the_output_is_the_one_that_is_there(results: Path) -> None:
    tree = blocks(OUTPUT, "text")[0]
    named = set(re.findall(r"^  ([\w.]+)", tree, re.MULTILINE)) - {
        "comparison.csv",
        "refresh.csv",
        "checks",
        "config.yaml",
        "profiles.csv",
        "ignored.csv",
        "control.yaml",
        "publication.json",
        "placeholders.parquet",
        "forgotten.parquet",
        "uuids.arrow",
        "query.parquet",
        "damaged",
    }
    assert {path.name for path in (results / "birds").iterdir()} - {"checkpoint.json.previous", "uuids.arrow"} == named


# ---- what is done


def test_the_code_that_needs_no_other_reader_runs(results: Path) -> None:
    for text in (README, OUTPUT):
        run([sys.executable, "-c", code_with(text, "ddmpi", "pyarrow")], results, PYTHONPATH=str(ROOT))


def copy_of_the_tree(folder: Path) -> Path:
    """The files that are under version control, and nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def outside_any_environment() -> dict[str, str]:
    """The environment of a user who has installed nothing: not even this test's Python is on the PATH."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != here)
    return {"PATH": path, "PYTHONPATH": "", "VIRTUAL_ENV": ""}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_user_follows_the_readme(tmp_path: Path, fleet: RunningFleet) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    environment = outside_any_environment()
    demo = run(["./run.sh"], tree, **environment)
    assert "Done: every row is final." in demo
    write_birds(tree, fleet)
    lines = "".join(blocks(README, "bash")).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("ddmpi ")]
    assert len(commands) >= 7
    environment["PATH"] = f"{tree / '.venv/bin'}{os.pathsep}{environment['PATH']}"
    here = ["proxy=", "default_rate_limit=0", "allow_private_addresses=[127.0.0.0/8]"]
    for command in commands:
        own = [f"--set=downloader_parameters.{setting}" for setting in here] if command[1] == "birds.csv" else []
        run([*command, *own], tree, **environment)
    assert ds.dataset(tree / "birds/images", format="parquet").count_rows() == ROWS * 3 // 4
    assert (tree / "birds/report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readers_read_as_written(results: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "venv", str(tmp_path / "readers")], tmp_path)
    python = str(tmp_path / "readers/bin/python")
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *READERS], tmp_path)
    licenses = ds.dataset(results / "birds/images", format="parquet").to_table(columns=["license"])
    assert licenses.num_rows == ROWS * 3 // 4
    checks = {
        "pandas": f"assert len(table) == {licenses.num_rows}",
        "polars": f"assert len(images.lazy().collect()) == {licenses.num_rows}",
        "duckdb": "",
        "datasets": "",
    }
    for text, readers in ((README, ["pandas"]), (OUTPUT, [*checks])):
        for reader in readers:
            code = f"import warnings; warnings.simplefilter('ignore')\n{code_with(text, reader)}\n{checks[reader]}"
            run([python, "-c", code], results, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    counted = run([python, "-c", code_with(OUTPUT, "duckdb")], results)
    assert re.search(r"http_status\W+404\W+60\b", counted), "the errors that were fetched again count once"
