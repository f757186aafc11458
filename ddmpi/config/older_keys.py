"""Keys of earlier versions that others have replaced: they go on working, with a notice that says what to write.

Decides what ``robots`` and ``respect_x_robots_tag`` are in ``respect``. Must not know how a config is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ddmpi.config.messages import shown
from ddmpi.core.rules.usage_signals import ROBOTS, X_ROBOTS_TAG

_SECTION: Final = "downloader_parameters"
_TAG_KEY: Final = "respect_x_robots_tag"
_NEW_KEY: Final = "respect"
_DEFAULT: Final = (X_ROBOTS_TAG,)


class Translated(NamedTuple):
    """A config in the keys of now."""

    data: dict[object, object]
    notices: list[str]
    problems: list[str]


def translated(data: Mapping[object, object]) -> Translated:
    """Return a config's data with ``respect`` in place of the keys before it, for all servers and in rules."""
    result = Translated(dict(data), [], [])
    section, rules = data.get(_SECTION), data.get("servers")
    if isinstance(section, Mapping):
        result.data[_SECTION] = _replaced(section, _DEFAULT, _SECTION, result)
        section = result.data[_SECTION]
    general = section.get(_NEW_KEY, _DEFAULT) if isinstance(section, Mapping) else _DEFAULT
    if isinstance(rules, list) and isinstance(general, Sequence):
        result.data["servers"] = [
            _replaced(rule, general, f"servers[{place}]", result) if isinstance(rule, Mapping) else rule
            for place, rule in enumerate(rules)
        ]
    return result


def _replaced(
    keys: Mapping[object, object], general: Sequence[object], path: str, result: Translated
) -> dict[object, object]:
    """Return the keys of one section or rule; what it does not say is as in ``general``."""
    known = (ROBOTS, _TAG_KEY) if path == _SECTION else (ROBOTS,)
    older = [name for name in known if keys.get(name) is not None]
    others = {key: value for key, value in keys.items() if key not in known}
    if not older:
        return others
    named = " and ".join(f"{path}.{name}" for name in older)
    if _NEW_KEY in others:
        result.problems.append(f"{named}: write it in {path}.{_NEW_KEY}, which has replaced it and is there, too")
        return others
    choices = [choice for choice in general if choice != ROBOTS]
    if ROBOTS in older:
        if not isinstance(keys[ROBOTS], bool):
            result.problems.append(f"{path}.{ROBOTS}: {shown((ROBOTS,), keys[ROBOTS])}: expected true or false")
        choices = [ROBOTS, *choices] if keys[ROBOTS] else choices
    if _TAG_KEY in older:
        directives = keys[_TAG_KEY]
        if isinstance(directives, list) and all(isinstance(word, str) for word in directives):
            choices = [choice for choice in choices if choice != X_ROBOTS_TAG]
            choices += [f"{X_ROBOTS_TAG}:{word}" for word in directives]
        else:
            result.problems.append(f"{path}.{_TAG_KEY}: {shown((_TAG_KEY,), directives)}: expected a list of texts")
    result.notices.append(f"{named}: write {_NEW_KEY}: [{', '.join(map(str, choices))}], which has replaced it")
    return {**others, _NEW_KEY: choices}
