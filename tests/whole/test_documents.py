"""Every fenced block of README, CONTRIBUTING and docs/ is run, or read by what reads it in earnest.

What cannot be run stands in tables, with the reason; what stands there and is printed nowhere any more fails, too.
Configs, tables and command lines are read by every run of the tests; whole pages are followed by the slow ones.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ddmpi.__main__ import without_ranks
from ddmpi.cli import inspection, presets
from ddmpi.cli.commands import read_command
from ddmpi.config.config import load, parse
from ddmpi.config.control_file import parse_control
from ddmpi.export.options import parse_order
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.placeholders import write_placeholders
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec, plain_address, plain_fleet
from tests.whole.documents import PAGES, Block, all_blocks, blocks_of, commands_in, options_of_ddmpi, text_of
from tests.whole.job import ROOT

LANGUAGES: Final = {"bash", "csv", "mermaid", "python", "sql", "text", "yaml"}
FOLLOWED: Final = {
    "README.md": "tests/whole/test_readme.py follows it from a clean copy of the tree",
    "tutorial-slurm.md": "needs a cluster; its command lines are read, and tests/cluster runs such jobs",
    "tutorial-laptop.md": "tests/whole/test_tutorials.py",
    "tutorial-gbif.md": "tests/whole/test_tutorials.py",
}
"""Pages that are not followed here, and why."""
SHOWN: Final = {
    ("CONTRIBUTING.md", "ddmpi/core/ "): "a map of the tree; tests/whole/test_architecture.py finds its files",
    ("clusters.md", "42 rows are pending"): "what a run in a Slurm job prints (tests/cluster)",
    ("commands.md", "mpiexec -n N python"): "a synopsis, whose options tests/whole/test_readme.py parses",
    ("export.md", "Compared with the table"): "what a run prints (tests/whole/test_rebuild.py)",
    ("monitoring.md", "2030-01-01 12:00:07,310"): "lines of a log (tests/roles/test_logs.py)",
    ("monitoring.md", "2030-01-01 12:00:07,309"): "lines of a log (tests/roles/test_logs.py)",
    ("object-stores.md", "part durable on disk"): "a drawing",
    ("output.md", "out/"): "the tree of an output folder; tests/whole/test_readme.py compares it with one",
    ("politeness.md", "img.example.org"): "what --audit prints (tests/cli/test_audit.py)",
    ("politeness.md", "robots.txt: disallow"): "values of usage_signals (tests/whole/test_usage_signals.py)",
    ("refresh.md", "Refresh: 20,000 files"): "what a run prints (tests/whole/test_refresh.py)",
    ("refresh.md", "0 3 1 * *"): "a line of a crontab",
    ("troubleshooting.md", "1,504 rows are pending"): "what a run prints (tests/report/test_pending.py)",
}
"""Blocks of text, by page and beginning: what they are if no command."""
FOREIGN: Final = {
    "pip install .[images,mpich]": "needs a package index; tests/whole/test_packaging.py installs what is built",
    "apptainer build ddmpi.sif packaging/apptainer/ddmpi.def": "needs Apptainer and a registry of images",
    "mpiexec -n 64 apptainer run ddmpi.sif CONFIG.yaml": "needs Apptainer",
    "apptainer exec ddmpi.sif mpiexec -n 8 python -m ddmpi CONFIG.yaml": "needs Apptainer",
    "rattler-build build --recipe packaging/conda/recipe.yaml": "needs conda's tools and a channel",
    "hf upload my-name/birds birds --repo-type dataset": "pushes to the Hugging Face Hub",
    "hf upload my-name/my-birds hub . --repo-type dataset": "pushes to the Hugging Face Hub",
    "img2dataset --url_list laion400m-meta": "another program, whose options tests/config/test_input_docs.py has",
}
"""Commands of others, by their beginning."""
PARSED: Final = {
    "./run.sh": "sets up an environment; tests/whole/test_readme.py runs it, tests/cluster as the script of a job",
    "sbatch": "needs a cluster; tests/cluster runs one where Slurm is installed",
    "python -m benchmarks.": "takes minutes, and measures",
    "python -m tests.hostile.": "takes minutes; tests/hostile runs a part of it",
}
"""Commands of ours whose options are read and that are not run, by their beginning."""
SHELL: Final = {"cd", "echo", "export", "mkdir", "sed"}


def named(block: Block) -> str:
    return f"{block.page}:{block.line}"


def is_in(table: dict[str, str], command: Sequence[str]) -> str:
    """Return the beginning in the table that a command has, "" for none."""
    return next((start for start in table if " ".join(command).startswith(start)), "")


# ---- what there is


def test_every_block_says_in_which_language_it_is() -> None:
    assert {block.language for page in PAGES for block in blocks_of(page)} == LANGUAGES
    assert [page for page in PAGES if text_of(page).count("```") != 2 * len(blocks_of(page))] == []


def test_what_is_only_shown_is_listed_and_what_is_listed_is_shown() -> None:
    found = {
        next(
            ((page, start) for page, start in SHOWN if (page, block.text[: len(start)]) == (block.page, start)),
            named(block),
        )
        for block in all_blocks("text")
    }
    assert found == set(SHOWN)


def test_what_is_not_run_is_printed_somewhere() -> None:
    commands = [command for block in all_blocks("bash") for command in commands_in(block.text)]
    for table in (FOREIGN, PARSED):
        assert {start for command in commands if (start := is_in(table, command))} == set(table)
    assert {command[0] for command in commands if command[0] in SHELL} == SHELL
    assert {page for page in FOLLOWED if blocks_of(page)} == set(FOLLOWED)


def test_drawings_are_those_that_are_drawn() -> None:
    """tests/whole/test_architecture.py draws them again."""
    assert {block.page for block in all_blocks("mermaid")} == {"architecture.md"}


# ---- what is read


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=named)
def test_a_config_loads(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section is one of a config with the two keys that each one has."""
    monkeypatch.chdir(tmp_path)
    keys = yaml.safe_load(block.text)
    if "stop" in keys:
        assert len(parse_control(block.text, named(block)).rules()) == len(keys["servers"])
        return
    Path("our-hosts.yaml").write_text("servers: [{match: img.example.org, rate_limit: 1}]\n", encoding="utf-8")
    text = block.text
    if "path_to_output_folder" not in keys:
        text += "path_to_output_folder: out\n"
    if "path_to_input" not in keys and "preset" not in keys and "sql" not in keys.get("input", {}):
        text += "path_to_input: urls.csv\n"
    Path("config.yaml").write_text(text, encoding="utf-8")
    notices = load(Path("config.yaml")).notices
    assert all(notice.startswith("a trial of") for notice in notices)


@pytest.mark.parametrize("block", all_blocks("csv"), ids=named)
def test_a_table_is_one_for_which_a_config_is_made(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("birds.csv").write_text(block.text, encoding="utf-8")
    printed = StringIO()
    with redirect_stdout(printed):
        assert inspection.run(read_command(["init", "birds.csv", "-o", "-"]), {}) == 0
    config = parse(yaml.safe_load(printed.getvalue()), "the draft")
    assert block.first_line.split(",")[0] in config.columns.identifier


class OptionsReadError(Exception):
    """A program has got as far as it should."""


def read_options(module: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a module's own parser read its options, and nothing after that."""
    main = importlib.import_module(module).main
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_end(self: argparse.ArgumentParser, *given: Any) -> None:
        parse_args(self, *given)
        raise OptionsReadError

    with monkeypatch.context() as patched, pytest.raises(OptionsReadError):
        patched.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
        patched.setattr(sys, "argv", [module, *words])
        main(list(words)) if inspect.signature(main).parameters else main()


def read_words(program: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a program of ours read its command line; it ends the test where that makes no sense."""
    words = [str(8) if word == "N" else word for word in words]
    if program not in {"ddmpi", "ddmpi.export"}:
        read_options(program, words, monkeypatch)
    elif program == "ddmpi.export" or words[0] == "export":
        assert parse_order(without_ranks(words)[words[0] == "export" :])
    elif words[0] == "presets":
        assert presets.run(words[1:], {}) == 0
    elif words[0] != "test":  # of run.sh
        assert read_command(words)


@pytest.mark.parametrize("block", all_blocks("bash"), ids=named)
def test_a_command_is_one_that_exists(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    assert subprocess.run(["bash", "-n"], input=block.text, text=True, check=False).returncode == 0
    for command in commands_in(block.text):
        program = options_of_ddmpi(command)
        if is_in(FOREIGN, command) or command[0] in SHELL or command == ["./run.sh"]:
            continue
        assert program is not None, f"{named(block)}: who runs {command}?"
        read_words(*program, monkeypatch)


# ---- what is run

CREATORS: Final = ("A. Nother", "S. Omebody")
ROWS: Final = 120
HERE: Final = {"default_rate_limit": 0, "proxy": "", "header": "User-Agent: documents/1.0 (+https://example.org)"}
"""In each config, beside that servers are on loopback."""
WORDS: Final = {
    "CONFIG.yaml": "config.yaml", "CONFIG": "config.yaml", "FILE": "withdrawn.txt", "OUT": "out",
    "TARGET": "target", "FOLDER": "birds",
    "TABLE -o": "birds.csv --set downloader_parameters.allow_private_addresses=[127.0.0.0/8] -o", "TABLE": "birds.csv",
    "--min-side 224": "--min-side 16", "-n 4": "-n 2", "-n 16": "-n 2", "000000..000041": "000000..000000", "~": "home",
}  # fmt: skip
"""What a page leaves to its reader -> what it is here."""
_WORD: Final = re.compile(rf"(?<![\w/.])({'|'.join(map(re.escape, WORDS))})(?![\w.])")


def for_this_machine(text: str) -> str:
    return _WORD.sub(lambda found: WORDS[found[0]], text)


def write_config(path: Path, keys: dict[str, Any], dead: str) -> None:
    keys = yaml.safe_load(yaml.safe_dump(keys))
    keys["downloader_parameters"] = {
        **keys.get("downloader_parameters", {}), **HERE, "allow_private_addresses": ["127.0.0.0/8"],
        "connect_to": [f"dead.example.org:80:{dead}"],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder of a reader who has followed the pages so far: with tables, a config and the results in ``out``.

    One server has none of its files. dead.example.org, which a page names, is another name of one that has.
    """
    folder = tmp_path_factory.mktemp("prepared")
    specs = [*plain_fleet(3), ServerSpec(plain_address(3), not_found_share=1.0)]
    with running_fleet(tmp_path_factory.mktemp("fleet"), specs, ROWS) as fleet:
        urls = [*fleet.urls(), "http://dead.example.org/1.jpg"]
        table = {
            "identifier": urls,
            "license": ["CC0" if row % 2 else "CC-BY" for row in range(len(urls))],
            "source": ["a museum"] * len(urls),
            "title": [f"bird {row}" for row in range(len(urls))],
            "species": ["Parus major" if row % 3 else "Pica pica" for row in range(len(urls))],
            "creator": [CREATORS[row % 2] for row in range(len(urls))],
            "sha256": ["0" * 64] * len(urls),
        }
        lines = [",".join(table), *(",".join(values) for values in zip(*table.values(), strict=True))]
        (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "birds.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
        (folder / "laion400m-meta").mkdir()
        laion = {"URL": urls, "TEXT": table["title"], "LICENSE": table["license"], "NSFW": ["UNLIKELY"] * len(urls)}
        laion["similarity"] = [str(0.3)] * len(urls)
        pq.write_table(pa.table(laion), folder / "laion400m-meta/part-0.parquet")
        (folder / "withdrawn.txt").write_text(urls[0] + "\n", encoding="utf-8")
        dead = fleet.specs[0].name(fleet.port)
        keys = {
            "path_to_input": "table.csv", "path_to_output_folder": "out", "keep_columns": ["species", "creator"],
            "duplicates": "reference",
        }  # fmt: skip
        write_config(folder / "config.yaml", keys, dead)
        for block in blocks_of("from-img2dataset.md"):
            if block.language == "yaml":
                write_config(folder / "laion.yaml", yaml.safe_load(block.text), dead)
        run(["ddmpi", "run", "config.yaml"], folder)
        layout = Layout(folder / "out")
        write_placeholders(layout.placeholders, [], layout.temporary)
        yield folder


def run(command: Sequence[str], folder: Path) -> str:
    """Run a command as on a machine where ddmpi is installed; returns what it prints."""
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"),
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def is_run(block: Block) -> bool:
    return any(not is_in(FOREIGN, command) and not is_in(PARSED, command) for command in commands_in(block.text))


RUN: Final = ("bash", "python", "sql")
PAGES_TO_RUN: Final = [
    page
    for page in dict.fromkeys(block.page for block in all_blocks(*RUN))
    if page not in FOLLOWED
    and any(block.language != "bash" or is_run(block) for block in blocks_of(page) if block.language in RUN)
]


def script_of(block: Block) -> str:
    """Return what of a block of the shell is run here."""
    lines = for_this_machine(block.text).splitlines()
    return "\n".join(line for line in lines if not is_in(FOREIGN | PARSED, " ".join(line.split()).split(" ")))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_a_page_is_followed(page: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in order, then queries, then all of the Python as one program."""
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    (folder / "home").mkdir()
    blocks = blocks_of(page)
    scripts = [script_of(block) for block in blocks if block.language == "bash" and is_run(block)]
    if scripts:
        run(["bash", "-euc", "\n".join(scripts)], folder)
    monkeypatch.chdir(folder)
    for block in blocks:
        if block.language == "sql":
            assert duckdb.execute(block.text).fetchall(), named(block)
    code = [for_this_machine(block.text) for block in blocks if block.language == "python"]
    if code:
        run([sys.executable, "-W", "ignore", "-c", "\n".join(code)], folder)
