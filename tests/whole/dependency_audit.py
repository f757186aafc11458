"""Whether what is installed fits together, and whether an advisory is known against any of it.

``python -m tests.whole.dependency_audit`` asks pip-audit's advisory service. Exit code 1: packages contradict each
other, an advisory applies, or pip-audit itself fails. Where the service does not answer, or does not know the packages,
that is said and is no failure: many clusters and build machines reach a package index and nothing else.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

TIMEOUT_S: Final = 300
NOT_OURS: Final = frozenset({"ddmpi", "pip", "setuptools", "wheel"})
"""The program itself, and what each Python brings to install with."""
_NO_ANSWER: Final = re.compile(
    r"^\S.*(?:ConnectionError|ProxyError|SSLError|Timeout|HTTPError|Could not connect).*", re.MULTILINE
)
"""What pip-audit says, by itself or through requests, where its service cannot be reached; the code in a traceback is
indented."""


class Advisory(msgspec.Struct, frozen=True):
    """Something known against a version."""

    id: str
    fix_versions: tuple[str, ...] = ()


class Package(msgspec.Struct, frozen=True):
    """One installed package; ``vulns`` is None where the service does not know it."""

    name: str
    version: str = ""
    vulns: tuple[Advisory, ...] | None = None


class Audit(msgspec.Struct, frozen=True):
    """What pip-audit prints with ``--format json``."""

    dependencies: tuple[Package, ...]


@dataclass(frozen=True)
class Findings:
    """What the audit comes to, in lines for the log."""

    failed: bool
    lines: tuple[str, ...]


def judge(printed: str, complaints: str) -> Findings:
    """What pip-audit's standard output and standard error mean."""
    try:
        audit = msgspec.json.decode(printed, type=Audit)
    except msgspec.DecodeError:
        unreached = _NO_ANSWER.search(complaints)
        if unreached is not None:
            return Findings(False, (f"the advisory service did not answer: {unreached[0][:300]}",))
        return Findings(True, (f"pip-audit failed: {complaints.strip()}",))
    packages = [package for package in audit.dependencies if package.name not in NOT_OURS]
    unknown = sum(package.vulns is None for package in packages)
    if unknown == len(packages):
        return Findings(False, (f"the advisory service did not answer for any of {unknown} packages",))
    found = [
        f"{package.name} {package.version}: {advisory.id}, mended in {' or '.join(advisory.fix_versions) or 'none'}"
        for package in packages
        for advisory in package.vulns or ()
    ]
    known = f"{len(packages) - unknown} packages audited, {unknown} unknown to the service, {len(found)} advisories"
    return Findings(bool(found), (*found, known))


def main() -> int:
    """Run both checks; returns the exit code."""
    fitting = _run("pip", "check")
    print(fitting.stdout.strip() or fitting.stderr.strip())
    try:
        asked = _run("pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable")
    except subprocess.TimeoutExpired:
        findings = Findings(False, (f"the advisory service did not answer within {TIMEOUT_S} s",))
    else:
        findings = judge(asked.stdout, asked.stderr)
    print("\n".join(findings.lines))
    return int(findings.failed or fitting.returncode != 0)


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = (sys.executable, "-m", module, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
