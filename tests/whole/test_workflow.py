"""What checks a change, before a commit and at the code host: all places name the same linters and Pythons."""

from __future__ import annotations

import configparser
import re
from typing import Any

import yaml

from tests.whole.job import ROOT

RUN = (ROOT / "run.sh").read_text(encoding="utf-8")


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_hooks_before_a_commit_are_the_linters_of_the_tests() -> None:
    linters = re.findall(r"^  ((?:ruff|mypy|shellcheck) .*?)(?: &)?$", RUN, re.MULTILINE)
    assert len(linters) >= 4
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == linters


def test_every_place_names_the_same_oldest_python_and_all_newer_ones_are_tested() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    oldest = settings["options"]["python_requires"].removeprefix(">=")
    tested = loaded(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tested == [f"3.{minor}" for minor in range(int(oldest[2:]), int(oldest[2:]) + len(tested))]
    assert settings["mypy"]["python_version"] == oldest
    assert f'target-version = "py{oldest.replace(".", "")}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in RUN
    (looked_for,) = re.findall(r"for name in python3 (.*); do", RUN)
    assert looked_for.split() == [f"python{version}" for version in reversed(tested)]


def test_the_code_host_runs_what_people_run() -> None:
    jobs = loaded(".github/workflows/ci.yml")["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert commands == ["./run.sh test", ".ci/run"]
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().endswith("\n./run.sh test all")
    assert '"$python" -m tests.simulation --seeds 300\n' in RUN, "jobs that no commit before had"
