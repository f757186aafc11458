"""Configs of distributed-downloader: what its keys mean here, and what its rates came to there.

Decides which of its keys are ignored, which preset its initializers are, and how ``included_sources`` becomes a filter.
Must not know how a config is checked. Its keys were read from its sources of 2025-10-22 (version 0.3) and from the
configs of TreeOfLife-toolbox of 2025-06-18.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from ddmpi.config.messages import shown

IGNORED_KEYS: Final = (
    "account",
    "scripts",
    "suppress_unchanged_error",
    "tools_parameters",
    "dst_image_folder",
    "dst_error_folder",
    "image_crop_path",
    "bounding_box_information_path",
    "provenance_path",
    "path_to_tol_folder",
    "bioscan_image_folder",
    "output_structure.tools_folder",
    "downloader_parameters.num_downloads",
    "downloader_parameters.max_nodes",
    "downloader_parameters.workers_per_node",
    "downloader_parameters.cpu_per_worker",
    "downloader_parameters.logger_level",
)
"""Keys that mean nothing here: its Slurm submitter, its tools, its logger."""
TRANSLATED_KEYS: Final = ("initializer_type", "included_sources")
"""Keys for which others are taken here."""
PRESET_OF: Final = {
    "gbif": "gbif",
    "eol": "eol",
    "fathom_net": "fathomnet",
    "lila": "lila",
    "tol200m_general": "treeoflife",
    "tol200m_fathomNet": "treeoflife",
}
"""By ``initializer_type``."""
COMMAS: Final = {"separator": "auto", "quote": "auto"}
"""How a .csv is read: there it has commas and quoting, also where the preset is for a file with tabs and without."""
SOURCE_COLUMN: Final = "data_source"
"""What ``included_sources`` chooses by. Its first four initializers have no such column, and do not look at the key."""
_DROPPED_IF_EMPTY: Final = ("initializer_type", "included_sources", "excluded_servers_path")
_SECTIONS: Final = ("output_structure", "downloader_parameters")


class Translated(NamedTuple):
    """A config in keys of ddmpi."""

    data: dict[object, object]
    notices: list[str]
    """What became of its keys, for the user."""
    problems: list[str]
    is_theirs: bool
    """Whether the config is one of distributed-downloader: a key of its own was found."""


def translated(data: Mapping[object, object]) -> Translated:
    """Return a config's data with distributed-downloader's own keys taken out, or turned into what they mean here."""
    kept, ignored = _split(data, "")
    for name in _SECTIONS:
        content = kept.get(name)
        if isinstance(content, Mapping):
            kept[name], inner = _split(content, f"{name}.")
            ignored += inner
    is_theirs = bool(ignored) or any(key in kept for key in TRANSLATED_KEYS)
    for key in _DROPPED_IF_EMPTY:
        if kept.get(key) in ("", None):
            kept.pop(key, None)
    parameters = kept.get("downloader_parameters")
    if is_theirs and isinstance(parameters, dict) and repr(parameters.get("batch_size")) == "0":
        # Its example file says 0 where it means its default, which is ours too.
        del parameters["batch_size"]
        ignored.append("downloader_parameters.batch_size: 0")
    notices = [f"ignored, as these keys mean nothing to ddmpi: {', '.join(ignored)}"] if ignored else []
    problems = [*_take_initializer(kept, notices), *_take_sources(kept, notices)]
    return Translated(kept, notices, problems, is_theirs)


def _split(mapping: Mapping[object, object], prefix: str) -> tuple[dict[object, object], list[str]]:
    """Return a mapping without the ignored keys, and the dotted names of those."""
    ignored = {key: f"{prefix}{key}" for key in mapping if f"{prefix}{key}" in IGNORED_KEYS}
    return {key: value for key, value in mapping.items() if key not in ignored}, list(ignored.values())


def _take_initializer(kept: dict[object, object], notices: list[str]) -> list[str]:
    """Put the preset in the place of ``initializer_type``; returns what is wrong with it."""
    if "initializer_type" not in kept:
        return []
    given = kept.pop("initializer_type")
    if not isinstance(given, str) or given not in PRESET_OF:
        expected = f"expected {' or '.join(PRESET_OF)}, as in distributed-downloader; or write preset"
        return [f"initializer_type: {shown(('initializer_type',), given)}: {expected}"]
    preset = PRESET_OF[given]
    if "preset" not in kept:
        kept["preset"] = preset
        if str(kept.get("path_to_input")).endswith(".csv"):
            kept.setdefault("input", COMMAS)
        notices.append(f"initializer_type: {given} is preset: {preset}; 'ddmpi presets {preset}' shows it")
    return []


def _take_sources(kept: dict[object, object], notices: list[str]) -> list[str]:
    """Put a condition for the filter in the place of ``included_sources``; returns what is wrong with them."""
    if "included_sources" not in kept:
        return []
    given = kept.pop("included_sources")
    if not isinstance(given, list) or not given or not all(isinstance(source, str) for source in given):
        return [f"included_sources: {shown(('included_sources',), given)}: expected a list of texts, not empty"]
    if kept.get("preset", "treeoflife") != "treeoflife":
        notices.append(f"ignored, as this table has no column {SOURCE_COLUMN} to choose by: included_sources")
        return []
    condition = f"{SOURCE_COLUMN} in {json.dumps(given, ensure_ascii=False)}"
    own = kept.get("filter")
    kept["filter"] = f"({own}) and {condition}" if isinstance(own, str) else condition
    notices.append(f"included_sources is the filter {condition} here")
    return []


def rates_beside(rate_per_s: float, multiplier: float, instances: int) -> str:
    """Return what ``default_rate_limit`` and ``rate_multiplier`` mean here, and what they came to there, where as many
    as ``instances`` (the largest of ``schedule_rules``) work on one server. Both rates are above 0."""
    low, high = math.floor(max(rate_per_s * (1 - multiplier), 1)), math.floor(rate_per_s * (1 + multiplier))
    here = rate_per_s * multiplier
    return (
        f"default_rate_limit {rate_per_s:g} with rate_multiplier {multiplier:g} is {here:g}/s for one server here, "
        "over all ranks. In distributed-downloader the limit counts for each instance, and up to "
        f"{instances} of them work on one server (schedule_rules): {multiplier:g} x {rate_per_s:g}/s x {instances} "
        f"{'instance' if instances == 1 else 'instances'} = {here * instances:g}/s. By its sources an instance begins "
        f"with {rate_per_s:g}/s and moves between {low} and {high}/s: {instances * low} to {instances * high}/s on one "
        f"server. Raise default_rate_limit only if its operator agrees to more than {here:g}/s."
    )
