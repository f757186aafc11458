"""A config for a table that has none: ``ddmpi TABLE -o FOLDER`` writes it and runs it, ``ddmpi init`` explains it.

Decides what is seen in a table's first rows: which columns have URLs, which presets know its columns.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ddmpi.cli.arguments import Arguments
from ddmpi.cli.commands import COLUMN_FLAGS
from ddmpi.config import config as config_module
from ddmpi.config import presets
from ddmpi.config.columns import as_list
from ddmpi.config.config import FILE_NAME
from ddmpi.config.input_section import InputSection
from ddmpi.config.messages import with_settings
from ddmpi.config.rule_files import read_yaml_file
from ddmpi.errors import EXIT_DONE, ConfigError, InputError, OutputError, StorageError
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.input.rows import TEXT_COLUMNS, is_text
from ddmpi.io.sources.files import list_files
from ddmpi.io.sources.opening import describe, is_known_kind, open_source
from ddmpi.io.sources.source_file import Reading
from ddmpi.report.formats import counted

URL_COLUMN: Final = "identifier"
_LOOKED_AT_ROWS: Final = 200
_URL: Final = r"^\s*[Hh][Tt][Tt][Pp][Ss]?://"
_CONFIG_ENDINGS: Final = frozenset({".yaml", ".yml"})
_MOST_LISTED: Final = 40
_MOST_KEPT: Final = 10
_EXAMPLE_CHARS: Final = 60


@dataclass(frozen=True)
class SeenColumn:
    name: str
    type: str
    example: str
    """One value as text, "" where the first rows have none."""
    has_urls: bool


@dataclass(frozen=True)
class SeenTable:
    """What the first rows of a table's first file show."""

    path: str
    files: int
    description: str
    rows: int | None
    """Of the first file, where it says so itself."""
    columns: Sequence[SeenColumn]
    presets: Sequence[str] = field(default=())
    """Presets whose columns it has, the one with the most of them first."""

    @property
    def url_columns(self) -> list[str]:
        """The columns with URLs; the one that needs no word about it alone where there is one."""
        found = [column.name for column in self.columns if column.has_urls]
        return [URL_COLUMN] if URL_COLUMN in found else found


def seen(path: str) -> SeenTable:
    """Look at a table. Raises InputError: there is none, or none that can be read."""
    files = list_files(path, is_known_kind).files
    source = open_source(files[0], Reading(InputSection(), URL_COLUMN))
    rows = next(iter(source.batches(source.schema.names)), None)
    columns = [_seen_column(name, source.schema, rows) for name in source.schema.names]
    description = describe([source], [])[0].partition(";")[0].partition(": ")[2]
    found = _presets_of({column.name for column in columns})
    return SeenTable(path, len(files), description, source.row_count, columns, found)


def _seen_column(name: str, schema: pa.Schema, rows: pa.RecordBatch | None) -> SeenColumn:
    type_ = schema.field(name).type
    if rows is None or not is_text(type_):
        return SeenColumn(name, str(type_), "", has_urls=False)
    values: Any = rows.column(name).slice(0, _LOOKED_AT_ROWS)
    texts = values.cast(pa.string()).drop_null()
    urls = pc.sum(pc.match_substring_regex(texts, pattern=_URL)).as_py() or 0
    example = str(texts[0].as_py())[:_EXAMPLE_CHARS] if len(texts) else ""
    return SeenColumn(name, str(type_), example, has_urls=2 * urls > len(texts))


def _presets_of(names: set[str]) -> list[str]:
    """Return the presets that name a column for the URLs and only columns that are here, the most telling first."""
    fitting = []
    for preset in presets.names():
        keys = presets.keys_of(preset)
        columns, kept = keys.get("columns"), keys.get("keep_columns")
        if not isinstance(columns, Mapping) or not isinstance(columns.get(URL_COLUMN), str):
            continue
        wanted = {source for value in columns.values() for source in as_list(value) if isinstance(source, str)}
        wanted |= {str(name) for name in kept} if isinstance(kept, list) else set()
        if wanted <= names:
            fitting.append((-len(wanted), preset))
    return [preset for _, preset in sorted(fitting)]


# ---- ddmpi TABLE -o FOLDER


def write_config(arguments: Arguments) -> Path:
    """Write the config of a table's download into its output folder, unless that is there already; returns its path.

    Raises:
        ConfigError: the options make no config, or another one than the folder has.
        InputError: it cannot be told which column has the URLs.
        OutputError: the folder cannot be written.
    """
    data = table_keys(arguments)
    folder = Path(config_module.parse(data, "the command line").path_to_output_folder)  # of a trial: its own
    path = folder / FILE_NAME
    if path.exists():
        found, _ = read_yaml_file(path)
        if found != data:
            raise ConfigError(
                f"{path}: is there already, with other keys ({_difference(found, data)}). Write: "
                f"ddmpi run {shlex.quote(str(arguments.output))}, to go on with that one, or edit it"
            )
        return path
    text = f"# Written by ddmpi {shlex.join(sys.argv[1:])}\n" + yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise OutputError(f"cannot make the output folder {folder}: {error.strerror}") from error
    except StorageError as error:
        raise OutputError(str(error)) from error
    return path


def table_keys(arguments: Arguments) -> dict[str, Any]:
    """Return the keys of a table's config, from the command line and, for the column with the URLs, from the table.
    Raises as ``write_config``."""
    table = str(arguments.table)
    if Path(table).suffix in _CONFIG_ENDINGS and Path(table).is_file():
        raise ConfigError(f"{table}: this is a config, and no table. Write: ddmpi run {shlex.quote(table)}")
    is_local = "://" not in table
    data: Any = {
        "path_to_input": str(Path(table).expanduser().absolute()) if is_local else table,
        "path_to_output_folder": str(arguments.output.expanduser().absolute()),
    }
    given = vars(arguments)
    for flag, key in COLUMN_FLAGS.items():
        value = given.get(flag)
        if value is not None:
            data = with_settings(data, [f"{key}={_as_yaml(flag, value)}"])
    if contact := given.get("contact"):
        address = f"mailto:{contact}" if "@" in contact and "://" not in contact else contact
        data = with_settings(data, [f'downloader_parameters.header="User-Agent: ddmpi (+{address})"'])
    data = with_settings(data, arguments.settings)
    keys: dict[str, Any] = data
    if "preset" not in keys and URL_COLUMN not in keys.get("columns", {}) and "input" not in keys:
        column = _url_column(seen(table), arguments)
        if column != URL_COLUMN:
            keys.setdefault("columns", {})[URL_COLUMN] = column
    return keys


def _as_yaml(flag: str, value: object) -> str:
    """Return an option's value in YAML: numbers as they are, so that a wrong one is told as in a file."""
    return str(value) if flag in {"limit", "rate", "image_size"} else yaml.safe_dump(value, default_flow_style=True)


def _url_column(table: SeenTable, arguments: Arguments) -> str:
    columns = table.url_columns
    if len(columns) == 1:
        return columns[0]
    command = f"ddmpi {shlex.quote(table.path)} -o {shlex.quote(str(arguments.output))}"
    if columns:
        raise InputError(
            f"{table.path}: several columns have URLs: {', '.join(columns)}. Write: {command} --url {columns[0]}"
        )
    names = ", ".join(column.name for column in table.columns[:_MOST_LISTED])
    preset = f". Write: {command} --preset {table.presets[0]}" if table.presets else ""
    more = preset or ". Is one of them a part of a URL, write a config: docs/input.md has examples"
    raise InputError(f"{table.path}: no column has URLs in its first rows; found: {names}{more}")


def _difference(found: object, wanted: Mapping[str, object]) -> str:
    if not isinstance(found, Mapping):
        return "no keys at all"
    keys = [key for key in dict.fromkeys([*found, *wanted]) if found.get(key) != wanted.get(key)]
    return ", ".join(map(str, keys))


# ---- ddmpi init


def write_draft(arguments: Arguments) -> int:
    """Write a config for a table, with comments about what is in it; returns the exit code. Raises DdmpiError: the
    table cannot be read, or the file is there already."""
    table = seen(str(arguments.table))
    stem = Path(table.path.rstrip("/*")).name.partition(".")[0] or "table"
    text = draft(table, stem)
    target = getattr(arguments, "output", None) or Path(f"{stem}.yaml")
    if str(target) == "-":
        sys.stdout.write(text)
        return EXIT_DONE
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputError(f"{target}: is there already. Write: ddmpi init {table.path} -o ANOTHER.yaml") from None
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error
    sys.stdout.write(f"{target} is written; read it, then: ddmpi check {target}\n")
    return EXIT_DONE


def draft(table: SeenTable, stem: str) -> str:
    """Return the text of a config for a table, which is a config as it stands."""
    rows = f", {counted(table.rows, 'row')}" if table.rows is not None else ""
    files = f"the first of {table.files:,} files" if table.files > 1 else "one file"
    lines = [f"# What ddmpi init saw in {table.path}: {files}, {table.description}{rows}.", "#"]
    width = max((len(column.name) for column in table.columns), default=0)
    for column in table.columns[:_MOST_LISTED]:
        example = f"  {_one_line(column.example)}" if column.example else ""
        lines.append(f"#   {column.name:<{width}}  {column.type}{'  URLs' if column.has_urls else ''}{example}")
    if len(table.columns) > _MOST_LISTED:
        lines.append(f"#   and {counted(len(table.columns) - _MOST_LISTED, 'column')} more")
    keys = _commented(table)
    path = table.path if "://" in table.path else str(Path(table.path).expanduser().absolute())
    lines += ["", f"path_to_input: {_quoted(path)}", f"path_to_output_folder: {_quoted(stem)}", *keys]
    return "\n".join(lines) + "\n"


def _commented(table: SeenTable) -> list[str]:
    lines = []
    for preset in table.presets[:1]:
        lines += [
            f"# The preset {preset} knows these columns ('ddmpi presets {preset}' shows its keys):",
            f"# preset: {preset}",
        ]
    urls = table.url_columns
    if urls == [URL_COLUMN]:
        lines.append("# columns: {source_id: YOUR_ID, license: YOUR_LICENSE}   # our name: the name in the table")
    elif urls:
        lines.append(f"columns: {{identifier: {_quoted(urls[0])}}}   # our name: the name in the table")
        lines += [f"# {name} has URLs, too" for name in urls[1:]]
    else:
        lines += [
            "# No column has URLs in its first rows. A URL may be built of columns (docs/input.md):",
            '# columns: {identifier: "https://img.example.org/{id}.jpg"}',
        ]
    others = [column.name for column in table.columns if column.name not in {*urls[:1], *TEXT_COLUMNS}]
    if others:
        lines += [
            "# Further columns to carry into the results, or all:",
            f"# keep_columns: [{', '.join(map(_quoted, others[:10]))}]",
        ]
    return [
        *lines,
        "# limit: 1000   # try it on the first rows, in a folder of its own",
        "downloader_parameters:",
        "  # Whom the operators of the servers can ask; they block who says nothing.",
        '  # header: "User-Agent: my-project/1.0 (+mailto:me@my.university.edu)"',
        "  default_rate_limit: 10   # requests per second for one server, over all ranks",
    ]


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...").strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())
