"""What the audit of the dependencies says, and that each of them has a lower bound."""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.whole.dependency_audit import Findings, judge

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {"name": "rich", "version": "13.0", "vulns": []}
UNKNOWN = {"name": "here-only", "skip_reason": "not found"}
BAD = {"name": "jinja2", "version": "3.1.5", "vulns": [{"id": "X-1", "fix_versions": ["3.1.6"]}, {"id": "X-2"}]}
OWN = {"name": "pip", "version": "1.0", "vulns": [{"id": "X-3", "fix_versions": ["2.0"]}]}
UNREACHED = "Traceback\n  raise ConnectionError()\nrequests.exceptions.ConnectionError: Max retries exceeded"
REFUSED = "ERROR:pip_audit._cli:Could not connect to the vulnerability feed\nTip: your network may be blocking it"
BROKEN = "Traceback\n  from requests import Timeout\nImportError: cannot import name 'x'"


def printed(*packages: Mapping[str, object]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


@pytest.mark.parametrize(
    ("output", "complaints", "failed", "told"),
    [
        pytest.param(
            printed(CLEAN, UNKNOWN), "", False, "1 packages audited, 1 unknown to the service, 0 ad", id="clean"
        ),
        pytest.param(printed(CLEAN, BAD), "", True, "jinja2 3.1.5: X-1, mended in 3.1.6", id="an advisory"),
        pytest.param(printed(BAD), "", True, "jinja2 3.1.5: X-2, mended in none", id="an advisory without a mend"),
        pytest.param(printed(CLEAN, OWN), "", False, "1 packages audited, 0 unknown", id="Python's own installer"),
        pytest.param(printed(UNKNOWN, OWN), "", False, "did not answer for any of 1 packages", id="an empty service"),
        pytest.param("", UNREACHED, False, "service did not answer: requests.exceptions.Conn", id="no network"),
        pytest.param("", REFUSED, False, "service did not answer: ERROR:pip_audit._cli:Could", id="no service"),
        pytest.param("", BROKEN, True, "pip-audit failed: Traceback", id="broken itself"),
        pytest.param("", "error: unrecognized arguments: -x", True, "pip-audit failed: error: unrec", id="wrong use"),
        pytest.param("", "No module named pip_audit", True, "pip-audit failed: No module", id="not installed"),
        pytest.param("{}", "", True, "pip-audit failed", id="another format"),
    ],
)
def test_what_an_audit_means(output: str, complaints: str, failed: bool, told: str) -> None:
    findings = judge(output, complaints)
    assert isinstance(findings, Findings)
    assert findings.failed is failed
    assert told in "\n".join(findings.lines)


def test_every_dependency_has_a_lower_bound() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    dependencies = [line for text in lists for line in text.split("\n") if line]
    assert len(dependencies) > 20
    assert [line for line in dependencies if ">=" not in line] == []
