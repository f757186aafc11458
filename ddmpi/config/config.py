"""The config: one frozen tree, loaded from YAML, checked as a whole before anything starts.

Decides which config is acceptable, and what follows from it alone: a server's limits and group, how many ranks may work
on it at once, which keys must not change between two runs. It reads the config file and, through ``rule_files``, those
that this one names, and nothing else: no environment, no clock; whether the input, a CA bundle or Pillow exist is the
caller's question.

No config can say which servers share an IP address: that is found when the table is partitioned (``with_addresses``).

Invariants: a ``Config`` that exists is valid; pydantic's JSON of it, which the other ranks get from rank 0 and read no
file, gives an equal one, apart from the addresses; keys that are not in ``semantic()`` may change between two runs over
the same output folder. What is remembered of the values is their ``digests``: one may hold a password.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from ddmpi._version import __version__
from ddmpi.config import distributed_downloader, older_keys, presets
from ddmpi.config.columns import Columns, KeptColumns, kept_sources, plain_kept
from ddmpi.config.input_section import InputSection
from ddmpi.config.messages import describe_problem, kind_of_other_file, nearest, section_of, shown, with_settings
from ddmpi.config.rewriting import Steps, automatic_steps, steps_of
from ddmpi.config.row_filter import RowFilter, parse_filter
from ddmpi.config.rule_files import KNOWN_HOSTS, read_yaml_file, rules_from
from ddmpi.config.sections import (
    Backoff,
    BreakerSection,
    DownloaderParameters,
    Expected,
    Initialization,
    Logging,
    Metrics,
    OutputStructure,
    Profiling,
    Publish,
    Refresh,
    ScheduleRules,
    Section,
    ServerRule,
    ServerRules,
    Walltime,
)
from ddmpi.config.value_types import (
    BaseUrl,
    InputPlace,
    LocalPath,
    OutputFolder,
    PresetName,
    RowFilterText,
    Texts,
)
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.partition.address_groups import AddressGroups
from ddmpi.core.records import Limits
from ddmpi.core.rules.usage_signals import Respect, described, respect_of
from ddmpi.core.rules.user_agent import names_contact
from ddmpi.errors import ConfigError

LATER_SEMANTIC_KEYS: Final[Mapping[str, object]] = {
    "base_url": None,
    "input.sql": None,
    "mirrors": False,
    "expected.on_mismatch": "refuse",
    "sizes": None,
    "servers.rewrite": [],
}
"""Keys of ``Config.semantic`` that came after 0.2.0, and their defaults: a folder that does not know them has these."""
_DIGITS: Final = 16
FILE_NAME: Final = "config.yaml"
"""What the config of a table's download is called in its output folder."""
_ENDINGS: Final = frozenset({".yaml", ".yml"})
_MOST_NAMED: Final = 5
_MOST_BYTES: Final = 4 << 20
"""Of a config: YAML is read at some 300 KB/s. Rules for many servers have files of their own (``servers_from``)."""
_HEAD_BYTES: Final = 4096
"""Of a file that may be no config so much is looked at."""


class Keys(Section):
    """Everything that a user can set: the keys of the file."""

    path_to_input: InputPlace | None = Field(
        None,
        examples=["urls.parquet"],
        description="File, directory or glob: .parquet .csv .tsv .txt .jsonl .json .arrow, the text ones also .gz .zst "
        ".bz2 .xz. "
        "Folders named name=value give a text column. Or the URI of such, s3:// gs:// hdfs://: docs/object-stores.md. "
        "Required, unless `input.sql` says what the rows are.",
    )
    input: InputSection = Field(
        InputSection(), description="How the input's files are read, all of which is found by itself; or a query."
    )
    path_to_output_folder: OutputFolder = Field(
        examples=["out"], description="Folder for results and state; made if missing, never emptied."
    )
    preset: PresetName | None = Field(
        None,
        description="Keys for a table that many people have; yours win. `ddmpi presets` lists them.",
    )
    columns: Columns = Field(
        Columns(), description="Our column names: the names that the input uses, or what to make of its columns."
    )
    base_url: BaseUrl | None = Field(
        None,
        description="URL that relative ones of the input are resolved against (RFC 3986); null = they are refused. Its "
        "last part counts only if it ends in a slash.",
    )
    keep_columns: KeptColumns = Field(
        (),
        description="Further input columns to carry into successes and errors: names; or `{ours: theirs}`, where "
        "theirs is what `columns` takes too; or all, where names that the results have get `input_` before them.",
    )
    expected: Expected = Field(
        Expected(), description="Columns of `keep_columns` that say what each file has to be: its hash, its size."
    )
    mirrors: bool = Field(
        default=False,
        description="Further columns of `columns.identifier` have the same file elsewhere: the next one is asked when "
        "one fails for good.",
    )
    sizes: Literal["auto"] | None = Field(
        None,
        description="auto = of servers that are known to have smaller copies the smallest one is asked for that is at "
        "least `image_size` large, and the table's URL where it is refused; null = all URLs are asked for as they are.",
    )
    filter: RowFilterText | None = Field(
        None, description="Which rows of the input to take, by a condition on its columns; null = all."
    )
    allow_refused: bool = Field(
        default=False,
        description="Take a table although more than half of its rows are refused: they become errors `bad_url`. "
        "Without it such a table ends the program before anything is fetched.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Try the job on so many rows only, the first ones, in a folder of its own: the output folder's "
        "name with `.limit-N`; null = all.",
    )
    sample: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Try the job on so many rows only, at random, in a folder of its own: the output folder's name "
        "with `.sample-N-seed-S`; null = all.",
    )
    seed: int = Field(1, ge=0, le=2**63 - 1, description="Which random rows `sample` takes: one seed, the same rows.")
    duplicates: Literal["copy", "reference"] = Field(
        "copy",
        description="Rows with the same URL, which is fetched once: copy = each row has the bytes; reference = one row "
        "has them, and the others name it in `same_as`.",
    )
    placeholders: Literal["mark", "error"] = Field(
        "mark",
        description='What becomes of a picture that a server has under many URLs ("no longer available"), from when it '
        "is found on: mark = a success with `placeholder`; error = an error of that kind. See docs/output.md.",
    )
    output_structure: OutputStructure = Field(OutputStructure(), description="Names inside the output folder.")
    downloader_parameters: DownloaderParameters = Field(
        DownloaderParameters(), description="How files are fetched and stored."
    )
    profiling: Profiling = Field(Profiling(), description="How a server's rate is found.")
    servers: ServerRules = Field(
        ServerRules(()), description="Limits of single servers or groups; the first rule that matches wins."
    )
    servers_from: Texts = Field(
        (KNOWN_HOSTS,),
        description=(
            f"Files with more rules, which count after those of `servers`; {KNOWN_HOSTS} = what well-known hosts ask "
            "for, a file that comes with ddmpi."
        ),
    )
    schedule_rules: ScheduleRules = Field(
        {1: 1},
        description=(
            "Batches of a server: most ranks that work on it at once. The largest key that fits counts; "
            "the server's rate is split among them, never multiplied."
        ),
    )
    backoff: Backoff = Field(Backoff(), description="Pauses after 429 or 503 without Retry-After.")
    breaker: BreakerSection = Field(BreakerSection(), description="Servers that cannot be reached.")
    initialization: Initialization = Field(Initialization(), description="Clustering the input by server.")
    excluded_servers_path: LocalPath | None = Field(
        None,
        description="CSV file with servers to leave out beside those of `output_structure.ignored_table`: names or "
        "globs in its column server_name, or in the first one.",
    )
    checkpoint_interval_s: float = Field(
        60.0, ge=1, le=86_400, description="Seconds of work that a kill can cost at most; parts close this often."
    )
    final_wait_s: float = Field(
        21_600.0,
        ge=0,
        le=86_400,
        description="Seconds to wait at the end for servers that have said when they may be asked again, or that are "
        "out of reach and not given up yet, before ending with rows pending (exit 75); a walltime that ends before "
        "ends the run at once.",
    )
    parked_wait_s: float = Field(
        20.0,
        ge=0,
        le=86_400,
        description="Seconds to wait at the end for servers that throttle again and again, or that you hold.",
    )
    refresh: Refresh = Field(Refresh(), description="Files that are there already are asked for again.")
    publish: Publish = Field(Publish(), description="Results in an object store.")
    metrics: Metrics = Field(Metrics(), description="Numbers for machines while the run goes on.")
    logging: Logging = Field(Logging(), description="What the ranks' logs say, and how large they get.")
    walltime: Walltime = Field(Walltime(), description="The end of the job's allocation.")

    @field_validator("schedule_rules")
    @classmethod
    def _not_empty(cls, rules: Mapping[int, int]) -> Mapping[int, int]:
        if not rules:
            raise ValueError("at least one rule, e.g. {1: 1}")
        return rules

    @model_validator(mode="after")
    def _expected_are_kept(self) -> Keys:
        kept = kept_sources(self.keep_columns)
        missing = [name for name in self.expected.columns if kept is not None and name not in kept]
        if missing:
            raise ValueError(f"columns of keep_columns in expected (missing there: {', '.join(missing)})")
        return self

    @model_validator(mode="after")
    def _mirrors_are_named(self) -> Keys:
        if self.mirrors and len(self.columns.as_lists()["identifier"]) < 2:
            raise ValueError("several columns in columns.identifier with mirrors: true, e.g. [url_gcp, url_aws]")
        return self

    @model_validator(mode="after")
    def _sizes_have_a_measure(self) -> Keys:
        named = [rule.rewrite for rule in self.servers.root if isinstance(rule.rewrite, str)]
        asked = ["sizes: auto"] * (self.sizes is not None) + [f"rewrite: {name}" for name in named]
        if asked and not self.downloader_parameters.image_size:
            raise ValueError(f"downloader_parameters.image_size with {asked[0]}: the longest side that is wanted")
        if asked and self.expected.columns:
            raise ValueError(f"{asked[0]} or expected, not both: smaller copies are not the files that are promised")
        rewritten = [*asked, *(f"rewrite for {rule.match}" for rule in self.servers.root if rule.rewrite)]
        if rewritten and self.columns.headers is not None:
            raise ValueError(
                f"{rewritten[0]} or columns.headers, not both: a row's headers are for the URL of the table alone"
            )
        return self

    @model_validator(mode="after")
    def _input_is_not_output(self) -> Keys:
        if self.path_to_input is None:
            return self
        if self.input.sql is not None:
            raise ValueError("one of path_to_input and input.sql: files are named in the query")
        if PurePosixPath(self.path_to_input) == PurePosixPath(self.path_to_output_folder):
            raise ValueError("path_to_output_folder to differ from path_to_input")
        return self

    @model_validator(mode="after")
    def _one_trial(self) -> Keys:
        if self.limit is not None and self.sample is not None:
            raise ValueError("one of limit and sample")
        return self

    @property
    def trial(self) -> str:
        """What the folder of a trial is named after, such as ``limit-1000``; empty where all rows are taken."""
        if self.limit is not None:
            return f"limit-{self.limit}"
        return "" if self.sample is None else f"sample-{self.sample}-seed-{self.seed}"

    @property
    def input_name(self) -> str:
        """What the input is called in messages."""
        return self.path_to_input or "the query of input.sql"


SECTIONS: Final = tuple(name for name, field in Keys.model_fields.items() if section_of(field) is not None)
"""The keys that hold keys."""


class Config(Keys):
    """The keys, and what follows from them. Made by ``load`` and ``parse``, whose messages are meant for users."""

    notices: Texts = Field((), description="What the user should know although it is no error.")
    rules: ServerRules = Field(ServerRules(()), description="Those of ``servers``, then those of ``servers_from``.")

    _addresses: AddressGroups = PrivateAttr(default_factory=AddressGroups)

    def with_addresses(self, groups: AddressGroups) -> Config:
        """Return this config for an output folder where servers share addresses as ``groups`` has it."""
        copy = self.model_copy()
        copy._addresses = groups  # noqa: SLF001  # a field would be part of the JSON, and they may be a million
        return copy

    @property
    def address_groups(self) -> AddressGroups:
        """The server groups of servers that share an address, as far as they are known."""
        return self._addresses

    def limits_for(self, server: str) -> Limits:
        """Return what the server group of a canonical server name, or of that name, allows, over all ranks."""
        parameters, rule = self.downloader_parameters, self._limiting_rule(server)
        rate, connections = parameters.default_rate_limit, parameters.max_connections_per_server
        if rule is None:
            return Limits(rate_per_s=rate, connections=connections)
        return Limits(
            rate_per_s=rate if rule.rate_limit is None else rule.rate_limit,
            connections=connections if rule.max_connections is None else rule.max_connections,
            bytes_per_s=rule.bytes_per_second,
            bytes_per_day=rule.bytes_per_day,
            bytes_per_hour=rule.bytes_per_hour,
        )

    def _limiting_rule(self, server: str) -> ServerRule | None:
        if self.rules.per_address and self._addresses.has(server):
            return self.rules.per_address[0]
        return self.rules.find(server)

    def profiled_rate(self, server: str) -> float:
        """Return the requests per second of a server that was profiled; 0 = no limit. ``rate_multiplier`` scales the
        default limit, and never one that a rule states."""
        rule = self._limiting_rule(server)
        is_stated = rule is not None and rule.rate_limit is not None
        return self.limits_for(server).rate_per_s * (1.0 if is_stated else self.downloader_parameters.rate_multiplier)

    def pace_policy(self, job_began_at: float) -> PacePolicy:
        """Return how to back off in a job that began at that time (s, monotonic)."""
        return PacePolicy(
            backoff_brief_s=self.backoff.brief_s,
            backoff_base_s=self.backoff.base_s,
            backoff_cap_s=self.backoff.cap_s,
            breaker_failures=self.breaker.failures,
            breaker_probes=self.breaker.probes,
            probing_most_s=self.breaker.longest_s,
            job_began_at=job_began_at,
            forbidden_in_a_row=self.breaker.forbidden_in_a_row,
        )

    def group_of(self, server: str) -> str:
        """Return the group of a canonical server name: its rule's group, that of its address, or the server itself."""
        rule = self.rules.find(server)
        if rule is None or rule.shared_by is None:
            return server
        return rule.group or self._addresses.group_of(server) or server

    def max_redirects(self, server: str) -> int:
        """Return after how many redirects a row is redirected no more by this server."""
        return self.parameters_of(self.rules.meant(server)).max_redirects

    def parameters_of(self, rule: ServerRule | None) -> DownloaderParameters:
        """Return how the servers of a rule are connected to: as ``downloader_parameters`` has it, but for what the rule
        says."""
        parameters = self.downloader_parameters
        return parameters if rule is None or not rule.connection else parameters.model_copy(update=rule.connection)

    def variable_uses(self) -> Iterator[tuple[str, str]]:
        """Yield the dotted keys whose values may have variables of the environment, and the values."""
        yield "downloader_parameters.proxy", self.downloader_parameters.proxy or ""
        for place, rule in enumerate(self.rules.root):
            is_own = place < len(self.servers.root)
            where = f"servers[{place}]" if is_own else f"servers_from: the rule of {rule.match}"
            yield f"{where}.proxy", rule.proxy or ""
            for name, value in rule.headers.items():
                yield f"{where}.headers.{name}", value

    def retry_statuses(self, server: str) -> tuple[int, ...]:
        """Return the statuses with which a row on this server is tried again."""
        rule = self.rules.find(server)
        stated = None if rule is None else rule.retry_statuses
        return self.downloader_parameters.retry_statuses if stated is None else stated

    def steps_for(self, server: str) -> Steps:
        """Return what is done to a URL on this server before it is asked for."""
        rule, size = self.rules.find(server), self.downloader_parameters.image_size
        if rule is not None and rule.rewrite is not None:
            return steps_of(rule.rewrite, size)
        return Steps() if self.sizes is None else automatic_steps(server, size)

    @property
    def rewrites(self) -> bool:
        """Whether any URL may be asked for under another one."""
        return self.sizes is not None or any(rule.rewrite for rule in self.rules.root)

    @property
    def rewrites_fall_back(self) -> bool:
        """Whether the table's own URL may be asked where another one of it fails for good."""
        return self.sizes is not None or any(isinstance(rule.rewrite, str) for rule in self.rules.root)

    @property
    def has_mirrors(self) -> bool:
        """Whether a row may have another URL to ask when one fails for good: a mirror, or the table's own."""
        return self.mirrors or self.rewrites_fall_back

    def respect(self, server: str) -> Respect:
        """Return what is obeyed of the signals of this server."""
        parameters, rule = self.downloader_parameters, self.rules.find(server)
        choices = parameters.respect if rule is None or rule.respect is None else rule.respect
        return respect_of(choices, hears_robots=parameters.hear_robots)

    @property
    def respect_text(self) -> str:
        """What is obeyed of the servers' signals, in one line for people."""
        parameters = self.downloader_parameters
        general = described(respect_of(parameters.respect, hears_robots=parameters.hear_robots))
        others = sum(rule.respect is not None for rule in self.rules.root)
        return f"{general} (respect)" if not others else f"{general} (respect; rules of servers differ: {others})"

    @property
    def _respects(self) -> Iterator[Respect]:
        """What is obeyed of any server."""
        choices = [self.downloader_parameters.respect, *(rule.respect for rule in self.rules.root)]
        for each in dict.fromkeys(choices):
            if each is not None:
                yield respect_of(each, hears_robots=self.downloader_parameters.hear_robots)

    @property
    def uses_robots(self) -> bool:
        """Whether any server may be asked for its robots.txt."""
        return any(each.asks_robots for each in self._respects)

    @property
    def obeys_answers(self) -> bool:
        """Whether what the head of an answer says may keep a file from being stored."""
        return any(each.directives or each.categories for each in self._respects)

    def is_known_host(self, server: str) -> bool:
        """Return whether the server's limits come from a file of ``servers_from``."""
        rule = self.rules.find(server)
        return any(rule is shared and any(rule.limits) for shared in self.rules.root[len(self.servers.root) :])

    @property
    def row_filter(self) -> RowFilter | None:
        return None if self.filter is None else parse_filter(self.filter)

    def max_lanes(self, batches: int) -> int:
        """Return how many ranks may work at once on a server with ``batches`` batches (1 or more)."""
        fitting = [threshold for threshold in self.schedule_rules if threshold <= batches]
        return self.schedule_rules[max(fitting)] if fitting else 1

    def header_list(self) -> list[str]:
        """Return the request headers as ``Name: value`` lines; the User-Agent is always among them."""
        lines = list(self.downloader_parameters.header)
        if not any(_is_user_agent(line) for line in lines):
            lines.insert(0, f"User-Agent: ddmpi/{__version__}")
        return lines

    @property
    def contact_line(self) -> str:
        """What to write into the config, to name a contact."""
        return 'downloader_parameters: {header: "User-Agent: my-project/1.0 (+mailto:me@my.university.edu)"}'

    def refuses_without_contact(self, server: str) -> bool:
        """Return whether a server is not to be asked, as it wants to know whom to write to."""
        return self.contact_missing and self.rules.needs_contact(server)

    @cached_property
    def contact_missing(self) -> bool:
        """Whether the User-Agent lacks a contact whom a server's operator could ask."""
        return not names_contact(self.user_agent)

    @property
    def user_agent(self) -> str:
        """The value of the User-Agent header; of several the first."""
        return next(line.partition(":")[2].strip() for line in self.header_list() if _is_user_agent(line))

    @property
    def allowed_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        return tuple(map(ipaddress.ip_network, self.downloader_parameters.allow_private_addresses))

    def semantic(self) -> dict[str, object]:
        """Return the keys that decide what the output holds, by dotted name. They must not change between two runs.

        ``servers.groups`` is there because servers of one group are packed into batches of their own; the files of
        ``servers_from`` take part in that.
        """
        parameters = self.downloader_parameters
        return {
            "path_to_input": self.path_to_input,
            "input.sql": self.input.sql,
            "columns": self.columns.plain(),
            "base_url": self.base_url,
            "keep_columns": plain_kept(self.keep_columns),
            "filter": self.filter,
            "mirrors": self.mirrors,
            "expected.on_mismatch": self.expected.on_mismatch,
            "duplicates": self.duplicates,
            "downloader_parameters.batch_size": parameters.batch_size,
            "downloader_parameters.image_size": parameters.image_size,
            "downloader_parameters.hash_algorithm": parameters.hash_algorithm,
            "downloader_parameters.accept": parameters.accept,
            "servers.groups": self.rules.grouping(),
            "sizes": self.sizes,
            "servers.rewrite": [[rule.match, rule.rewrite] for rule in self.rules.root if rule.rewrite is not None],
        }

    def identity_hash(self) -> str:
        """Return the SHA-256 over ``semantic()``, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.semantic(), sort_keys=True).encode()).hexdigest()

    def with_debug(self) -> Config:
        """Return this config with logs that say everything."""
        return self.model_copy(update={"logging": self.logging.model_copy(update={"level": "debug"})})


ConfigLike = Config | Mapping[str, Any] | str | os.PathLike[str]
"""A config, its keys as plain data, or the path of its YAML file."""


def load(path: Path, settings: Sequence[str] = ()) -> Config:
    """Return the config in a YAML file, or in the one of an output folder.

    Args:
        settings: changes of single keys, ``KEY=VALUE`` each (see ``with_settings``).

    Raises:
        ConfigError: the file cannot be read, is no config, is no YAML, has a key twice, or holds what ``parse``
            refuses.
    """
    path = _config_file(path)
    data, doubled = read_yaml_file(path)
    return parse(with_settings(data, settings), str(path), doubled)


def _config_file(path: Path) -> Path:
    """Return the config's file. Raises ConfigError: it is plain that there is none; the text says what to write."""
    if path.is_dir():
        if (path / FILE_NAME).is_file():
            return path / FILE_NAME
        found = sorted(entry.name for entry in path.iterdir() if entry.suffix in _ENDINGS)[:_MOST_NAMED]
        hint = f". Write one of those in it: {', '.join(found)}" if found else ""
        raise ConfigError(f"{path}: is a folder, without a {FILE_NAME}; a config is a YAML file{hint}")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        folder = path.absolute().parent
        known = {entry.stem: entry for entry in folder.iterdir() if entry.suffix in _ENDINGS} if folder.is_dir() else {}
        near = nearest(path.stem, known)
        hint = (
            f"; did you mean {path.with_name(known[near].name)}?"
            if near
            else ". 'ddmpi init TABLE' writes a config for a table"
        )
        where = f"in {folder}" if folder.is_dir() else f"and no folder {folder}"
        raise ConfigError(f"{path}: no such file {where}{hint}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    kind = kind_of_other_file(path.name, head)
    if not kind and path.stat().st_size <= _MOST_BYTES:
        return path
    kind = kind or f"too long for a config ({path.stat().st_size:,} bytes)"
    name = path.name.partition(".")[0]
    table = f"ddmpi {shlex.quote(str(path))} -o {shlex.quote(name)}"
    advice = {"a table": f"Write: {table}", "a compressed file": f"If it is a table, write: {table}"}
    raise ConfigError(f"{path}: this is {kind}, and no config. {advice.get(kind, 'A config is YAML text')}")


def parse(data: object, source: str, problems: Sequence[str] = ()) -> Config:
    """Return the config in plain data, as a YAML or JSON reader returns it.

    Args:
        source: is named in messages.
        problems: what is wrong with the text of the data.

    Raises:
        ConfigError: with all problems, one line each.
    """
    if not isinstance(data, Mapping):
        expected = "expected a mapping with at least path_to_input and path_to_output_folder"
        raise ConfigError(f"{source}: the config: {shown((), data)}: {expected}")
    kept, notices, wrong, is_theirs = distributed_downloader.translated(_without_empty_sections(data))
    kept, older, mixed = older_keys.translated(_with_preset(kept))
    notices += older
    problems = [*problems, *wrong, *mixed, *_without_input(kept)]
    try:
        keys = Keys.model_validate(kept)
    except ValidationError as error:
        problems = [*problems, *(describe_problem(found, Keys) for found in error.errors())]
    else:
        try:
            rules = keys.servers.followed_by(rules_from(keys.servers_from))
        except ConfigError as error:
            problems = [*problems, f"servers_from: {error}"]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))
    parameters = keys.downloader_parameters
    if is_theirs and parameters.default_rate_limit:
        rates = parameters.default_rate_limit, parameters.rate_multiplier
        notices.append(distributed_downloader.rates_beside(*rates, max(keys.schedule_rules.values())))
    notices += _hidden_limits(keys.servers, rules)
    values = dict(keys)
    if keys.trial:
        values["path_to_output_folder"] = f"{keys.path_to_output_folder.rstrip('/')}.{keys.trial}"
        which = f"the first {keys.limit:,}" if keys.limit is not None else f"{keys.sample:,} random"
        key = keys.trial.partition("-")[0]
        notices.append(f"a trial of {which} rows, in {values['path_to_output_folder']}; all are taken without `{key}`")
    return Config(**values, notices=tuple(notices), rules=rules)


def _hidden_limits(own: ServerRules, rules: ServerRules) -> Iterator[str]:
    """Yield a notice for each rule that is about headers or connections, and hides a known host's limits."""
    for rule in own.root:
        if (rule.headers or rule.connection) and not any(rule.limits):
            hidden = (it for it in rules.root[len(own.root) :] if any(it.limits) and it.matches(rule.match))
            for known in hidden:
                yield (
                    f"the limits of {known.match} in servers_from do not hold for {rule.match}, as its rule in servers "
                    "comes first: repeat them there"
                )


def _without_input(data: Mapping[object, object]) -> list[str]:
    """Return what is wrong with a config that does not say where its rows are."""
    reading = data.get("input")
    if data.get("path_to_input") is not None or (isinstance(reading, Mapping) and reading.get("sql") is not None):
        return []
    return ["path_to_input: missing; expected text, not empty (or a query in input.sql)"]


def reader_of(config: ConfigLike) -> Callable[[], Config]:
    """Return a function that reads the config, wherever it is, and raises ConfigError for a wrong one."""
    if isinstance(config, Config):
        return lambda: config
    if isinstance(config, Mapping):
        return lambda: parse(config, "the config")
    return lambda: load(Path(config))


def digests(config: Config) -> dict[str, str]:
    """Return a digest of each value, by dotted name. Short passwords could be guessed from a digest: of headers the
    names count, and of a proxy all but who asks it."""
    values = _without_secrets(config.model_dump(mode="json", exclude={"notices"}))
    return {
        key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGITS]
        for key, value in _flat(values, "")
    }


def _without_secrets(value: Any) -> Any:
    """Return plain data without the values of headers, and without user names and passwords in proxies' URLs."""
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(kept.get("headers"), dict):
        kept["headers"] = sorted(kept["headers"])
    if isinstance(kept.get("proxy"), str):
        kept["proxy"] = re.sub(r"//.*@", "//", kept["proxy"])
    return kept


def changed_keys(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the dotted names of the keys whose values have changed; none where ``before`` is empty. A key that an
    older version did not have counts as its default."""
    defaults = digests(parse({"path_to_input": ".", "path_to_output_folder": "out"}, "the defaults"))
    return [key for key in now if before and before.get(key, defaults.get(key)) != now[key]]


def _without_empty_sections(data: Mapping[object, object]) -> dict[object, object]:
    """Return the data without sections whose keys are all commented out: those are null in YAML."""
    return {key: value for key, value in data.items() if value is not None or key not in SECTIONS}


def _with_preset(data: dict[object, object]) -> dict[object, object]:
    """Return the data with the keys of its preset, where it has a known one, as defaults."""
    name = data.get("preset")
    if not isinstance(name, str) or name not in presets.names():
        return data
    return presets.beside(data, presets.keys_of(name), SECTIONS)


def _is_user_agent(line: str) -> bool:
    return line.partition(":")[0].lower() == "user-agent"


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
