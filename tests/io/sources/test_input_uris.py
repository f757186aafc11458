"""Input by URI: the same files, rows and fingerprints as by path, and messages that say what is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import parse
from ddmpi.errors import ConfigError, InputError, SetupError
from ddmpi.io.input.table import open_input
from ddmpi.io.sources.files import list_files
from ddmpi.io.sources.opening import is_known_kind
from ddmpi.io.store.object_store import open_store, store_reason

NAMES = {"identifier": ["identifier"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/year=2024/x.csv", "a/year=20%2025/y.csv", "a/b.csv", "a/_hidden.csv", "a/.x/c.csv", "a/notes.md"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"identifier\nhttp://a.example/{file.name}\nhttp://b.example/1\n")
    return tmp_path


def found(place: str) -> list[tuple[str, dict[str, str | None]]]:
    return [(file.path.name, dict(file.folder_columns)) for file in list_files(place, is_known_kind).files]


@pytest.mark.parametrize(
    "pattern",
    ["a", "a/", "a/b.csv", "a/*.csv", "a/**/*.csv", "a/**", "*/year=*/?.csv", "a/[bc].csv", "a/.x/*.csv", "**/x.csv"],
)
def test_a_uri_means_the_files_that_the_path_means(folder: Path, pattern: str) -> None:
    # In a URI a question mark begins the options.
    uri = f"file://{folder}/{pattern}".replace("?", "*")
    assert found(uri) == found(str(folder / pattern)) != []


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"file://.*/a/\*\.tsv: no such file"):
        list_files(f"file://{folder}/a/*.tsv", is_known_kind)
    with pytest.raises(InputError, match="nowhere"):
        list_files(f"file://{folder}/nowhere", is_known_kind)


def write_inputs(folder: Path) -> None:
    urls = [f"http://a.example/{i}" for i in range(5_000)]
    pq.write_table(pa.table({"identifier": urls}), folder / "urls.parquet", row_group_size=1_000)
    (folder / "urls.txt").write_text("\n".join(urls))
    (folder / "urls.csv.gz").write_bytes(gzip.compress("\n".join(["identifier", *urls]).encode()))
    (folder / "urls.jsonl").write_text("\n".join(f'{{"identifier": "{url}"}}' for url in urls))


@pytest.mark.parametrize("name", ["urls.parquet", "urls.txt", "urls.csv.gz", "urls.jsonl"])
def test_rows_and_fingerprint_are_those_of_the_path(tmp_path: Path, name: str) -> None:
    write_inputs(tmp_path)
    local = open_input(str(tmp_path / name), NAMES, ())
    stored = open_input(f"file://{tmp_path}/{name}", NAMES, ())
    assert stored.fingerprint() == local.fingerprint()
    assert stored.rows == local.rows
    assert pa.Table.from_batches(stored.batches()) == pa.Table.from_batches(local.batches())


def test_an_object_that_changes_is_another_input(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("http://a.example/1\n")
    before = open_input(f"file://{tmp_path}/urls.txt", NAMES, ())
    fingerprint = before.fingerprint()
    (tmp_path / "urls.txt").write_text("http://a.example/1\nhttp://a.example/2\n")
    assert open_input(f"file://{tmp_path}/urls.txt", NAMES, ()).fingerprint() != fingerprint
    with pytest.raises(InputError, match="changed while it was read"):
        list(before.batches())


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket/x?scheme=http&anonymous=1&region=r", "unknown option anonymous"),
        ("s3://?region=r", "no bucket is named"),
        ("s3://a b/x?region=r", "syntax error"),
    ],
)
def test_a_wrong_uri_is_a_setup_error(uri: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        open_store(uri)


def test_errors_of_a_store_are_told_in_words() -> None:
    told = store_reason(OSError("When listing: AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation:\n nothing"))
    assert told.startswith("no such bucket (When listing")
    assert "\n" not in told
    assert store_reason(OSError("AWS Error ACCESS_DENIED")).startswith("access was denied; credentials come from")
    assert store_reason(OSError("curlCode: 7")) == "curlCode: 7"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"path_to_output_folder": "s3://bucket/out"}, r"path_to_output_folder: .*name it in publish\.to"),
        ({"path_to_input": "ftp://host/urls.csv"}, "path_to_input: .*a path of this machine, or a URI with one of"),
        ({"path_to_input": "s3://AKIA:secret@bucket/urls.csv"}, "path_to_input: .*without keys or passwords"),
    ],
)
def test_the_config_refuses(keys: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as refused:
        parse({"path_to_input": "urls.csv", "path_to_output_folder": "out", **keys}, "test")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/urls/*.parquet", "gs://anonymous@bucket/urls.csv", "hdfs://me@host:8020/u.csv"]
)
def test_the_config_takes(uri: str) -> None:
    assert parse({"path_to_input": uri, "path_to_output_folder": "out"}, "test").path_to_input == uri
