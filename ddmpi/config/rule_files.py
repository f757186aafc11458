"""Files with rules for servers that several configs share, and those that come with ddmpi.

Decides what such a file must look like: YAML with the one key ``servers``. Must not know which rule wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from ddmpi.config.messages import describe_problem, read_yaml
from ddmpi.config.sections import Section, ServerRules
from ddmpi.errors import ConfigError

KNOWN_HOSTS: Final = "known-hosts"
"""The rules for well-known hosts, which are part of the package."""
FOLDER: Final = Path(__file__).parent


class RuleFile(Section):
    """All that such a file may hold."""

    servers: ServerRules = Field(description="As the ``servers`` of a config.")


def rules_from(names: Iterable[str]) -> ServerRules:
    """Return the rules of these files (paths, or ``KNOWN_HOSTS``), in order. Raises ConfigError: what is wrong with the
    first one that cannot be used."""
    rules = ServerRules(())
    for name in names:
        rules = rules.followed_by(_known_hosts() if name == KNOWN_HOSTS else _rules_in(Path(name).expanduser()))
    return rules


@lru_cache(maxsize=1)
def _known_hosts() -> ServerRules:
    return _rules_in(FOLDER / f"{KNOWN_HOSTS}.yaml")


def _rules_in(path: Path) -> ServerRules:
    data, problems = read_yaml_file(path)
    try:
        rules = RuleFile.model_validate(data).servers
    except ValidationError as error:
        problems = [*problems, *(describe_problem(found, RuleFile) for found in error.errors())]
    if problems:
        raise ConfigError(f"{path}: {'; '.join(problems)}")
    return rules


def read_yaml_file(path: Path) -> tuple[object, list[str]]:
    """Return the data of a YAML file, and the keys that stand twice in a mapping, as problems. Raises ConfigError: the
    file cannot be read or is no YAML."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return read_yaml(text, str(path))
