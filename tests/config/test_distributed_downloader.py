"""Configs of distributed-downloader: they load as they are, mean what they mean there, and say what its rates were."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from ddmpi.config import presets
from ddmpi.config.config import Config, load
from ddmpi.config.distributed_downloader import IGNORED_KEYS, PRESET_OF, rates_beside
from ddmpi.errors import ConfigError

SCRIPTS = """
scripts:
  general_submitter: "path/to/general_submitter_script.sh"
  tools_submitter: "path/to/tools_submitter_script.sh"
  mpi_submitter: "path/to/mpi_submitter_script.sh"
  schedule_creator_submitter: "path/to/schedule_creator_submitter_script.sh"
  initialization_script: "path/to/initialization_script.slurm"
  profiling_script: "path/to/profiling_script.slurm"
  schedule_creation_script: "path/to/schedule_creation_script.slurm"
  verify_script: "path/to/verify_script.slurm"
  download_script: "path/to/download_script.slurm"
  tools_filter_script: "path/to/tools_filter_script.slurm"
  tools_scheduling_script: "path/to/tools_scheduling_script.slurm"
  tools_worker_script: "path/to/tools_worker_script.slurm"
  tools_verification_script: "path/to/tools_verification_script.slurm"
output_structure:
  urls_folder: "servers_batched"
  logs_folder: "logs"
  images_folder: "downloaded_images"
  schedules_folder: "schedules"
  profiles_table: "servers_profiles.csv"
  ignored_table: "ignored_servers.csv"
  inner_checkpoint_file: "inner_checkpoint.yaml"
  tools_folder: "tools"
suppress_unchanged_error: False
tools_parameters:
  num_workers: 0
  max_nodes: 0
  workers_per_node: 0
  cpu_per_worker: 0
  threshold_size: 224
  new_resize_size: 720
"""
ONE_INSTANCE = "schedule_rules:\n  1: 1\n"
UP_TO_40 = "schedule_rules:\n  5000: 40\n  1000: 20\n  500: 10\n  200: 8\n  100: 4\n  50: 2\n  1: 1\n"


def theirs(own: str, rules: str, image_size: int, batch_size: int, multiplier: float, rate: int) -> str:
    """All keys of a file of theirs, in their order; the scripts' paths are those of its templates."""
    head = """
        account: "account_name"
        path_to_input: "path/to/input_file"
        path_to_output_folder: "path/to/output_folder"
        """
    parameters = f"""
        downloader_parameters:
          num_downloads: 0
          max_nodes: 0
          workers_per_node: 0
          cpu_per_worker: 0
          header: ""
          image_size: {image_size}
          logger_level: "INFO"
          batch_size: {batch_size}
          rate_multiplier: {multiplier}
          default_rate_limit: {rate}
        """
    return dedent(head) + dedent(own) + SCRIPTS + rules + dedent(parameters)


COPIED = """
dst_image_folder: ""
dst_error_folder: ""
"""
FILES = {
    "example_config": theirs('initializer_type: ""\n', ONE_INSTANCE, 0, 0, 1, 10),
    "general_download_config": theirs(
        'initializer_type: "tol200m_general"\nincluded_sources:\n  - "gbif"\n'
        f'excluded_servers_path: "excluded_servers_general_tol.csv"\n{COPIED}', UP_TO_40, 720, 10000, 0.8, 10,
    ),
    "safe_download_config": theirs(
        'initializer_type: "tol200m_general"\nincluded_sources:\n  - "gbif"\n'
        f'excluded_servers_path: "excluded_servers_safe_tol.csv"\n{COPIED}', ONE_INSTANCE, 720, 10000, 0.3, 6,
    ),
    "eol_download_config": theirs(
        f'initializer_type: "tol200m_general"\nincluded_sources:\n  - "eol"\n{COPIED}',
        ONE_INSTANCE, 720, 10000, 0.8, 10,
    ),
    "fathomNet_download_config": theirs(
        'initializer_type: "tol200m_fathomNet"\nincluded_sources:\n  - "fathomnet"\n'
        f'bounding_box_information_path: ""\nimage_crop_path: ""\n{COPIED}', ONE_INSTANCE, 720, 10000, 0.3, 10,
    ),
    "bioscan_download_config": theirs(
        'provenance_path: ""\npath_to_tol_folder: ""\nbioscan_image_folder: ""\n', ONE_INSTANCE, 720, 10000, 0.8, 10
    ),
}  # fmt: skip
"""Keys and values of distributed-downloader's example file (2025-10-22) and of the files of TreeOfLife-toolbox
(2025-06-18), by their names there."""
HERE = {"example_config": 10, "general_download_config": 8, "safe_download_config": 1.8, "eol_download_config": 8}
HERE |= {"fathomNet_download_config": 3, "bioscan_download_config": 8}


def loaded(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_their_files_load_as_they_are(tmp_path: Path, name: str) -> None:
    config, given = loaded(tmp_path, FILES[name]), yaml.safe_load(FILES[name])
    assert config.output_structure.urls_folder == "servers_batched"
    assert config.downloader_parameters.batch_size == 10_000
    assert config.downloader_parameters.image_size == given["downloader_parameters"]["image_size"]
    assert config.schedule_rules == given["schedule_rules"]
    assert config.profiled_rate("a.org") == pytest.approx(HERE[name])
    ignored, rates = config.notices[0], config.notices[-1]
    assert ignored.startswith("ignored, as these keys mean nothing to ddmpi: account,")
    top = [key for key in given if key in IGNORED_KEYS]
    assert all(key in ignored for key in [*top, "output_structure.tools_folder", "downloader_parameters.max_nodes"])
    assert f"is {HERE[name]:g}/s for one server here" in rates


@pytest.mark.parametrize("initializer", PRESET_OF)
def test_the_initializer_is_a_preset(tmp_path: Path, initializer: str) -> None:
    text = FILES["example_config"].replace('initializer_type: ""', f"initializer_type: {initializer}")
    config = loaded(tmp_path, text)
    assert config.preset == PRESET_OF[initializer]
    columns = presets.keys_of(PRESET_OF[initializer])["columns"]
    assert isinstance(columns, dict)
    assert config.columns.plain() == {**config.columns.plain(), **columns}
    assert any(f"initializer_type: {initializer} is preset: {config.preset}" in notice for notice in config.notices)


def test_without_an_initializer_columns_have_their_own_names(tmp_path: Path) -> None:
    config = loaded(tmp_path, FILES["example_config"])
    assert (config.preset, config.filter, config.columns.identifier) == (None, None, "identifier")


def test_a_preset_of_ones_own_wins_over_the_initializer(tmp_path: Path) -> None:
    text = FILES["example_config"].replace('initializer_type: ""', "initializer_type: gbif\npreset: lila")
    assert loaded(tmp_path, text).preset == "lila"


@pytest.mark.parametrize(("name", "separator"), [("a.csv", "auto"), ("a.tsv", "\t"), ("a.parquet", "\t")])
def test_a_csv_file_has_commas_as_there_and_not_the_tabs_of_the_preset(
    tmp_path: Path, name: str, separator: str
) -> None:
    text = FILES["example_config"].replace('initializer_type: ""', "initializer_type: gbif")
    assert loaded(tmp_path, text.replace("path/to/input_file", name)).input.separator == separator


def test_an_unknown_initializer_is_refused(tmp_path: Path) -> None:
    text = FILES["example_config"].replace('initializer_type: ""', "initializer_type: inaturalist")
    assert "initializer_type: 'inaturalist': expected gbif or eol or fathom_net or lila" in refusal(tmp_path, text)


def test_included_sources_are_a_filter(tmp_path: Path) -> None:
    config = loaded(tmp_path, FILES["general_download_config"])
    assert (config.preset, config.filter) == ("treeoflife", 'data_source in ["gbif"]')
    assert config.columns.identifier == "source_url"
    assert config.row_filter is not None
    assert config.row_filter.columns == {"data_source"}


def test_included_sources_beside_a_filter(tmp_path: Path) -> None:
    config = loaded(tmp_path, FILES["eol_download_config"] + "filter: uuid is not null or source_id is null\n")
    assert config.filter == '(uuid is not null or source_id is null) and data_source in ["eol"]'


@pytest.mark.parametrize("sources", ["[]", "gbif", "[1]"])
def test_included_sources_that_choose_nothing_are_refused(tmp_path: Path, sources: str) -> None:
    text = FILES["eol_download_config"].replace('included_sources:\n  - "eol"', f"included_sources: {sources}")
    assert "included_sources: " in refusal(tmp_path, text)
    assert "expected a list of texts, not empty" in refusal(tmp_path, text)


def test_included_sources_are_ignored_where_they_are_there(tmp_path: Path) -> None:
    text = FILES["example_config"].replace('initializer_type: ""', "initializer_type: eol\nincluded_sources: [eol]")
    config = loaded(tmp_path, text)
    assert config.filter == presets.keys_of("eol")["filter"]
    assert any(notice.endswith("to choose by: included_sources") for notice in config.notices)


def test_excluded_servers_path_is_kept_unless_empty(tmp_path: Path) -> None:
    config = loaded(tmp_path, FILES["general_download_config"])
    assert config.excluded_servers_path == "excluded_servers_general_tol.csv"
    text = FILES["general_download_config"].replace('"excluded_servers_general_tol.csv"', '""')
    assert loaded(tmp_path, text).excluded_servers_path is None


def test_what_the_rates_came_to_is_said_beside_what_they_come_to_here(tmp_path: Path) -> None:
    notice = loaded(tmp_path, FILES["general_download_config"]).notices[-1]
    assert "0.8 x 10/s x 40 instances = 320/s" in notice
    assert "is 8/s for one server here, over all ranks" in notice
    # The floor of 10 x (1 - 0.8) is 1 in binary fractions, there too.
    assert "begins with 10/s and moves between 1 and 18/s: 40 to 720/s on one server" in notice


def test_slow_rates_have_a_floor_there() -> None:
    """The lower bound is 1/s, whatever the multiplier."""
    text = rates_beside(1, 0.9, 1)
    assert "0.9 x 1/s x 1 instance = 0.9/s" in text
    assert "moves between 1 and 1/s: 1 to 1/s on one server" in text


def test_a_config_of_ours_has_no_notice(tmp_path: Path) -> None:
    text = "path_to_input: a.csv\npath_to_output_folder: out\nexcluded_servers_path: b.csv\nschedule_rules: {9: 40}\n"
    assert loaded(tmp_path, text).notices == ()


def test_ignored_keys_count_only_in_their_own_section(tmp_path: Path) -> None:
    text = "path_to_input: a.csv\npath_to_output_folder: out\ndownloader_parameters: {account: 1}\n"
    assert "downloader_parameters.account: unknown key" in refusal(tmp_path, text)
