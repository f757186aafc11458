"""The config files of the repository, run as they are: nothing in them is out of date."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import ddmpi
from ddmpi.config.config import load
from ddmpi.config.secrets import variables_in
from tests.config.test_distributed_downloader import FILES
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import ROOT

CONFIGS = ROOT / "configs"
URL = "http://127.0.0.1:9/a.jpg"
"""On this machine, which configs do not allow unless they say so: each row becomes an error without any traffic."""

COLUMNS = {
    "minimal": ["identifier"],
    "sizes": ["identifier"],
    "all-keys": ["identifier", "uuid", "source_id", "license", "source", "title"],
    "secrets": ["identifier", "page"],
}
"""What the tables have for which a config was made."""
GBIF = ["identifier", "gbifID", "type", "format", "license", "source", "title"]
THEIRS = FILES["example_config"].replace("path/to/input_file", "servers.csv").replace("path/to/output_folder", "out")


def run(config: Path, folder: Path) -> tuple[int, str]:
    """One process, started in ``folder`` as a user would."""
    command = [sys.executable, "-m", "ddmpi", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def write_table(path: Path, columns: Sequence[str]) -> None:
    """Three rows; every text that is no URL is one that the preset's filter lets pass."""
    texts = {name: [URL] * 3 if name == "identifier" else ["StillImage"] * 3 for name in columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table(texts), path)
    else:
        path.write_text(",".join(texts) + "\n" + (",".join(values[0] for values in texts.values()) + "\n") * 3)


def test_all_examples_are_here() -> None:
    found = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml")}
    assert found == {*COLUMNS, "demo"}


@pytest.mark.parametrize("name", COLUMNS)
def test_an_example_runs_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS / f"{name}.yaml"
    keys = load(config)
    for variable in {name for _, template in keys.variable_uses() for name in variables_in(template)}:
        monkeypatch.setenv(variable, "token")
    write_table(tmp_path / keys.input_name, COLUMNS[name])
    code, printed = run(config, tmp_path)
    assert code == 0, printed
    results = ddmpi.open_results(tmp_path / keys.path_to_output_folder).to_table(columns=["row_number", "error_kind"])
    assert results.column("error_kind").to_pylist() == ["blocked_address"] * 3


def test_the_demo_runs_as_it_is(tmp_path: Path) -> None:
    with running_fleet(tmp_path / "demo-out/fleet", plain_fleet(4), 100):
        code, printed = run(CONFIGS / "demo.yaml", tmp_path)
    assert code == 0, printed
    assert ds.dataset(tmp_path / "demo-out/out/images").count_rows() == 100


def test_a_preset_in_a_config_runs(tmp_path: Path) -> None:
    text = "preset: gbif\npath_to_input: multimedia.parquet\npath_to_output_folder: out\n"
    (tmp_path / "config.yaml").write_text(text)
    write_table(tmp_path / "multimedia.parquet", GBIF)
    code, printed = run(tmp_path / "config.yaml", tmp_path)
    assert code == 0, printed
    results = ddmpi.open_results(tmp_path / "out").to_table(columns=["source_id", "error_kind"])
    assert results.to_pylist() == [{"source_id": "StillImage", "error_kind": "blocked_address"}] * 3


def test_their_choice_of_sources_and_servers_counts(tmp_path: Path) -> None:
    """Rows of another source are left out by the filter, those of an excluded server are ignored."""
    urls = [URL, "http://excluded.example/a.jpg", URL, URL]
    table = {"uuid": list("abcd"), "source_id": list("1234"), "source_url": urls}
    pq.write_table(pa.table({**table, "data_source": ["gbif", "gbif", "eol", "gbif"]}), tmp_path / "tol.parquet")
    (tmp_path / "excluded_servers_general_tol.csv").write_text("server_name\nobservation.example\nexcluded.example\n")
    text = FILES["general_download_config"].replace("path/to/input_file", "tol.parquet")
    (tmp_path / "config.yaml").write_text(text.replace("path/to/output_folder", "out"))
    code, printed = run(tmp_path / "config.yaml", tmp_path)
    assert code == 0, printed
    said = " ".join(printed.split())
    assert "Ignored: 1 row on 1 server, by ignored_servers.csv or excluded_servers_general_tol.csv" in said
    assert "0.8 x 10/s x 40 instances = 320/s" in said
    results = ds.dataset(tmp_path / "out/errors").to_table(columns=["uuid", "data_source"]).sort_by("uuid")
    assert results.to_pylist() == [{"uuid": uuid, "data_source": "gbif"} for uuid in "ad"]


@pytest.mark.parametrize("initializer", ["", "gbif"])
def test_a_config_of_distributed_downloader_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, initializer: str
) -> None:
    text = THEIRS.replace('initializer_type: ""', f'initializer_type: "{initializer}"')
    (tmp_path / "config.yaml").write_text(text)
    write_table(tmp_path / "servers.csv", GBIF if initializer else COLUMNS["all-keys"])
    code, printed = run(tmp_path / "config.yaml", tmp_path)
    assert code == 0, printed
    said = " ".join(printed.split())
    assert said.count("Notice: ignored, as these keys mean nothing to ddmpi: account,") == 1
    assert said.count("Notice: default_rate_limit 10 with rate_multiplier 1 is 10/s for one server here") == 1
    assert (tmp_path / "out/servers_batched/batches.parquet").is_file()
    monkeypatch.chdir(tmp_path)
    assert ddmpi.open_results("config.yaml").count_rows() == 3
