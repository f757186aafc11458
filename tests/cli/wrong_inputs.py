"""What people give to ddmpi by mistake, and what it has to say: a table that docs/errors.md shows as well.

Each case is a command in a folder with some files; all of them are refused with exit code 2 before anything is asked.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ddmpi import __main__ as program
from ddmpi.cli.commands import read_command
from ddmpi.errors import EXIT_SETUP, DdmpiError

TABLE: Final = "identifier,id,lat\nhttps://a.example/1.jpg,1,50.5\nhttps://a.example/2.jpg,2,4\n"
JOB: Final = "path_to_input: birds.csv\npath_to_output_folder: out\n"
HOME: Final = "/home/me"
"""What stands for the folder in messages."""


@dataclass(frozen=True)
class WrongInput:
    """One mistake.

    Attributes:
        command: what was typed, without ``ddmpi``.
        says: what the message has to have: what is wrong and what to write.
        files: beside birds.csv, which is there always.
    """

    name: str
    command: str
    says: tuple[str, ...]
    files: Mapping[str, str | bytes] = field(default_factory=dict)


def config(text: str) -> dict[str, str]:
    """The job of birds.csv with more keys."""
    return {"job.yaml": JOB + text}


def job(path: str) -> dict[str, str | bytes]:
    """The job of another input."""
    return {"job.yaml": f"path_to_input: {path}\npath_to_output_folder: out\n"}


def _zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("birds.csv", TABLE)
    return data.getvalue()


CHECK: Final = "check job.yaml"
CASES: Final = (
    # ---- the wrong kind of file
    WrongInput("a table as config", "run birds.csv", ("this is a table", "Write: ddmpi birds.csv -o birds")),
    WrongInput(
        "a table of 18 MB as config",
        "run large.txt",
        ("this is a table", "ddmpi large.txt -o large"),
        {"large.txt": "id;url\n" + "1;https://a.example/1.jpg\n" * 700_000},
    ),
    WrongInput(
        "a Parquet file as config",
        "run birds.data",
        ("this is a table", "ddmpi birds.data -o birds"),
        {"birds.data": b"PAR1" + bytes(100) + b"PAR1"},
    ),
    WrongInput(
        "a list of URLs as config",
        "run urls",
        ("this is a table", "ddmpi urls -o urls"),
        {"urls": "https://a.example/1.jpg\nhttps://a.example/2.jpg\n"},
    ),
    WrongInput(
        "JSON lines as config",
        "run rows.json",
        ("this is a table", "ddmpi rows.json -o rows"),
        {"rows.json": '{"url": "https://a.example/1.jpg"}\n{"url": "https://a.example/2.jpg"}\n'},
    ),
    WrongInput(
        "a packed table as config",
        "run birds.csv.gz",
        ("this is a", "ddmpi birds.csv.gz -o birds"),
        {"birds.csv.gz": b"\x1f\x8b\x08" + bytes(20)},
    ),
    WrongInput("an archive as config", "run birds.zip", ("this is an archive",), {"birds.zip": _zipped()}),
    WrongInput("an image as config", "run bird.jpg", ("this is an image",), {"bird.jpg": b"\xff\xd8\xff\xe0"}),
    WrongInput(
        "a web page as config", "run job.yaml", ("this is a web page",), {"job.yaml": "<!DOCTYPE html>\n<html>\n"}
    ),
    WrongInput(
        "a folder as config", "run jobs", ("is a folder, without a config.yaml", "a.yaml"), {"jobs/a.yaml": JOB}
    ),
    WrongInput(
        "a config as table",
        "job.yaml -o out",
        ("this is a config, and no table", "Write: ddmpi run job.yaml"),
        config(""),
    ),
    WrongInput(
        "a config as input",
        CHECK,
        ("other.yaml", "this is a config, and no table", "Write: ddmpi run"),
        job("other.yaml") | {"other.yaml": JOB},
    ),
    WrongInput(
        "an archive as input",
        CHECK,
        ("birds.zip", "this is an archive. Unpack it"),
        job("birds.zip") | {"birds.zip": _zipped()},
    ),
    WrongInput(
        "a spreadsheet as input",
        CHECK,
        ("this is a spreadsheet. Save its sheet as CSV",),
        job("birds.xlsx") | {"birds.xlsx": _zipped()},
    ),
    WrongInput(
        "an empty config",
        CHECK,
        ("expected a mapping with at least path_to_input and path_to_output_folder",),
        {"job.yaml": ""},
    ),
    # ---- files that are not there
    WrongInput(
        "a config that is not there",
        "run jobs.yaml",
        ("no such file in /home/me", "did you mean job.yaml?"),
        config(""),
    ),
    WrongInput("a config in no folder", "run nowhere/job.yaml", ("no folder /home/me/nowhere",)),
    WrongInput(
        "a table that is not there",
        CHECK,
        ("bird.csv: no such file", "looked in /home/me", "did you mean birds.csv?"),
        job("bird.csv"),
    ),
    WrongInput(
        "a glob that nothing matches", CHECK, ("no input file matches", "looked in /home/me"), job("data/*.parquet")
    ),
    WrongInput(
        "a folder without tables", CHECK, ("no input file matches", "notes.md"), job("data") | {"data/notes.md": "x"}
    ),
    # ---- YAML
    WrongInput(
        "a key that is indented",
        CHECK,
        ("line 2: path_to_output_folder: out", "Write each key on a line of its own"),
        {"job.yaml": "path_to_input: birds.csv\n  path_to_output_folder: out\n"},
    ),
    WrongInput(
        "a tab",
        CHECK,
        ("line 2", "Write spaces where this line has a tab"),
        {"job.yaml": "downloader_parameters:\n\tbatch_size: 10\n"},
    ),
    WrongInput(
        "a quote that does not end",
        CHECK,
        ('line 3: filter: "lat', "Write the quote that ends the text"),
        config('filter: "lat\n'),
    ),
    WrongInput(
        "a bracket that does not end",
        CHECK,
        ("line 3", "Write the bracket that ends"),
        config("keep_columns: [id\nlimit: 5\n"),
    ),
    WrongInput(
        "a glob without quotes",
        CHECK,
        ("line 3: servers: [{match: *.example.org", "in quotes"),
        config("servers: [{match: *.example.org, rate_limit: 2}]\n"),
    ),
    WrongInput(
        "no space after a colon", CHECK, ("line 3", "with a space after the colon"), config("limit:5\nseed: 1\n")
    ),
    WrongInput("a control character", CHECK, ("line 3 has the character U+0000",), config('filter: "\0"\n')),
    WrongInput(
        "a key twice", CHECK, ("line 3: the key 'path_to_input' stands twice",), config("path_to_input: other.csv\n")
    ),
    # ---- keys
    WrongInput(
        "a misspelt key",
        CHECK,
        ("path_to_inputs: unknown key; did you mean path_to_input?",),
        config("path_to_inputs: birds.csv\n"),
    ),
    WrongInput(
        "a key in the wrong section",
        CHECK,
        ("rate_multiplier: unknown key; did you mean downloader_parameters.rate_multiplier?",),
        config("rate_multiplier: 2\n"),
    ),
    WrongInput(
        "columns turned round",
        CHECK,
        ("columns.url: unknown key; did you mean columns.identifier: url?",),
        config("columns: {url: identifier}\n"),
    ),
    WrongInput(
        "a header of null",
        CHECK,
        ('header: null: expected text such as "User-Agent:', "or a list of such"),
        config("downloader_parameters: {header: null}\n"),
    ),
    WrongInput(
        "a number out of bounds",
        CHECK,
        ("batch_size: 0: expected a whole number from 1",),
        config("downloader_parameters: {batch_size: 0}\n"),
    ),
    WrongInput(
        "a preset that there is not", CHECK, ("preset: 'gbiff'", "did you mean gbif?"), config("preset: gbiff\n")
    ),
    WrongInput(
        "no output folder",
        CHECK,
        ("path_to_output_folder: missing; expected text",),
        {"job.yaml": "path_to_input: birds.csv\n"},
    ),
    WrongInput(
        "an output folder in a store",
        CHECK,
        ("path_to_output_folder: 's3://b/out'", "name it in publish.to"),
        {"job.yaml": "path_to_input: birds.csv\npath_to_output_folder: s3://b/out\n"},
    ),
    # ---- columns and rows
    WrongInput(
        "a column that there is not",
        CHECK,
        ("no column ids (did you mean id?)", "found: identifier, id, lat"),
        config("columns: {source_id: ids}\nkeep_columns: [ids]\n"),
    ),
    WrongInput("a number from a text column", CHECK, ("write number(lat) > 50",), config("filter: lat > 50\n")),
    WrongInput(
        "a filter with =",
        CHECK,
        ("expected a filter such as", "to compare, write =="),
        config("filter: 'lat = \"5\"'\n"),
    ),
    WrongInput(
        "a table whose rows have no URLs", CHECK, ("refused",), {"job.yaml": JOB + "columns: {identifier: id}\n"}
    ),
    WrongInput(
        "several columns with URLs",
        "two.csv -o out",
        ("several columns have URLs: a, b", "--url a"),
        {"two.csv": "a,b\nhttps://a.example/1,https://b.example/1\n"},
    ),
    WrongInput(
        "a column that is not called identifier",
        CHECK,
        ("no column identifier", "found: url, id", "Write columns: {identifier: ...}"),
        job("u.csv") | {"u.csv": "url,id\nhttps://a.example/1,1\n"},
    ),
    # ---- the command line
    WrongInput(
        "a key of --set without a value", f"{CHECK} --set limit", ("--set limit: expected KEY=VALUE",), config("")
    ),
    WrongInput(
        "a key of --set that there is not",
        f"{CHECK} --set limits=5",
        ("limits: unknown key; did you mean limit?",),
        config(""),
    ),
    WrongInput(
        "another command over the same folder",
        "birds.csv -o done --rate 5",
        ("is there already, with other keys", "Write: ddmpi run done"),
        {"done/config.yaml": "path_to_input: other.csv\n"},
    ),
    WrongInput(
        "a folder without a run", "status job.yaml", ("out holds no run yet. Write: ddmpi run job.yaml",), config("")
    ),
)


@contextlib.contextmanager
def folder_of(case: WrongInput) -> Iterator[Path]:
    """A folder with the files of a case, as the working directory."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for path, content in {"birds.csv": TABLE, **case.files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def message_of(case: WrongInput) -> str:
    """What ddmpi says, with ``HOME`` for the folder. Raises AssertionError: it accepts the case."""
    with (
        folder_of(case) as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as told,
    ):
        arguments = read_command(case.command.split())
        if arguments.is_local:
            code = program.main(case.command.split())
            text = told.getvalue().removeprefix("ddmpi: ").rstrip()
        else:
            code, text = _refusal_of_run(case.command)
        assert code == EXIT_SETUP, f"{case.name}: {code} {text}"
        return text.replace(str(folder), HOME)


def _refusal_of_run(command: str) -> tuple[int, str]:
    """What rank 0 says before it looks at the output folder."""
    try:
        program._config_of(read_command(command.split()))
    except DdmpiError as error:
        return error.exit_code, str(error)
    return 0, ""
