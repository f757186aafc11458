"""What ddmpi is installed from: wheel and sdist, the conda recipe, the container's definition."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from ddmpi import __version__
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import ROOT, assert_every_row_once, make_job

CONDA = ROOT / "packaging/conda/recipe.yaml"
APPTAINER = ROOT / "packaging/apptainer/ddmpi.def"
ROWS = 60


def settings() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg", encoding="utf-8")
    return parsed


def test_the_conda_recipe_asks_for_what_the_wheel_asks_for() -> None:
    recipe = yaml.safe_load(CONDA.read_text(encoding="utf-8"))
    needed = settings()["options"]["install_requires"].split()
    python = f"python {settings()['options']['python_requires']}"
    assert recipe["requirements"]["run"] == ["__linux", python, *(one.replace(">=", " >=") for one in needed)]
    setuptools = re.findall(r'"setuptools(>=[\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"setuptools {setuptools[0]}" in recipe["requirements"]["host"]
    # A noarch package is built with the oldest Python.
    assert recipe["requirements"]["host"][0] == f"{python.replace('>=', '')}.*", (
        "noarch is built with the oldest Python"
    )
    commands = settings()["options.entry_points"]["console_scripts"].strip().splitlines()
    assert recipe["build"]["python"]["entry_points"] == commands
    assert recipe["context"]["version"] == __version__
    assert recipe["source"]["path"] == "../../dist/ddmpi-${{ version }}.tar.gz"
    assert recipe["about"]["license"] == settings()["metadata"]["license"]


def test_the_container_is_made_of_the_sdist() -> None:
    header, *sections = re.split(r"^%(\w+)\n", APPTAINER.read_text(encoding="utf-8"), flags=re.MULTILINE)
    parts = dict(zip(sections[::2], sections[1::2], strict=True))
    assert re.findall(r"^(Bootstrap|From):", header, re.MULTILINE) == ["Bootstrap", "From"]
    assert set(parts) == {"arguments", "files", "post", "environment", "runscript", "test", "labels", "help"}
    assert parts["arguments"].strip() == f"version={__version__}"
    source, target = parts["files"].replace("{{ version }}", __version__).rsplit(" ", 1)
    assert source.strip() == f"dist/ddmpi-{__version__}.tar.gz"
    extras = re.findall(rf'"{re.escape(target.strip())}\[(.*)\]"', parts["post"].replace("{{ version }}", __version__))
    assert set(extras[0].split(",")) <= set(settings()["options.extras_require"])
    assert parts["runscript"].strip() == 'exec python -m ddmpi "$@"'


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_runs_in_an_empty_environment(tmp_path: Path) -> None:
    def call(*command: str | Path) -> str:
        """Nothing of the repository is to be seen by what is called."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call(sys.executable, "-m", "build", "--quiet", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    assert wheel.name == f"ddmpi-{__version__}-py3-none-any.whl"
    call(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[mpich]")
    assert "ddmpi TABLE -o FOLDER" in call(python, "-m", "ddmpi", "--help")
    assert "gbif" in call(python, "-m", "ddmpi", "presets"), "the package's own files are in it"
    with running_fleet(tmp_path / "fleet", plain_fleet(2), ROWS) as fleet:
        job = make_job(tmp_path / "job", fleet.table_path)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(job.config))
        printed = call(tmp_path / "env/bin/mpiexec", "-n", "2", python, "-m", "ddmpi", "config.yaml")
        assert "Done: every row is final." in printed
    assert (job.output / "report.html").exists()
    assert_every_row_once(job, ROWS)
