"""The config files and the reference that are part of the repository: current, complete, loadable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from ddmpi.config.config import Config, Keys, load, parse
from ddmpi.config.messages import known_keys, section_of
from ddmpi.config.secrets import variables_in
from ddmpi.config.sections import ServerRule

ROOT = Path(__file__).parents[2]


def dotted_keys(data: dict[str, object]) -> set[str]:
    """All keys of the file's mappings whose model is a section, dotted."""
    keys = set(data)
    for name, content in data.items():
        if isinstance(content, dict) and section_of(Keys.model_fields[name]) is not None:
            keys |= {f"{name}.{key}" for key in content}
    return keys


def test_reference_and_example_are_current() -> None:
    command = [sys.executable, "-m", "docs.generate_configuration", "--check"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_all_keys_file_is_complete_and_holds_the_defaults() -> None:
    path = ROOT / "configs" / "all-keys.yaml"
    text = path.read_text(encoding="utf-8")
    assert dotted_keys(yaml.safe_load(text)) == set(known_keys(Keys))
    assert all(f"{key}: " in text.partition("# A rule has these keys:")[2] for key in ServerRule.model_fields)
    config = load(path)
    assert config == parse({"path_to_input": "urls.parquet", "path_to_output_folder": "out"}, "defaults")


def test_every_key_has_a_description() -> None:
    models: list[type[BaseModel]] = [Config, ServerRule]
    models += [section for section in map(section_of, Keys.model_fields.values()) if section is not None]
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_config_files_load_without_notices(path: Path) -> None:
    assert load(path).notices == ()


def test_minimal_config_has_the_two_required_keys_only() -> None:
    data = yaml.safe_load((ROOT / "configs" / "minimal.yaml").read_text(encoding="utf-8"))
    assert set(data) == {"path_to_input", "path_to_output_folder"}


def test_the_config_in_the_readme_loads(tmp_path: Path) -> None:
    blocks = [text.partition("```")[0] for text in (ROOT / "README.md").read_text(encoding="utf-8").split("```yaml\n")]
    path = tmp_path / "config.yaml"
    path.write_text(next(block for block in blocks if "archive.org" in block), encoding="utf-8")
    config = load(path)
    assert config.group_of("ia800.archive.org") == "archive.org"
    assert config.limits_for("static.inaturalist.org").bytes_per_day == 24e9
    assert config.contact_missing  # the example's contact is nobody's


def test_the_example_with_secrets_loads_and_has_none() -> None:
    config = load(ROOT / "configs" / "secrets.yaml")
    uses = [name for _, template in config.variable_uses() for name in variables_in(template)]
    assert uses == ["MINE_TOKEN", "PARTNER_SESSION", "PROXY_USER", "PROXY_PASSWORD"]


def test_demo_stays_on_this_machine() -> None:
    config = load(ROOT / "configs" / "demo.yaml")
    assert [str(network) for network in config.allowed_networks] == ["127.0.0.0/8"]
    assert config.downloader_parameters.proxy == ""
    assert not config.contact_missing
