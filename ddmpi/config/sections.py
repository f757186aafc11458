"""The sections of the config: every key with its default, its bounds and, in its description, its unit.

Decides which values a section may hold. It must not know where a config comes from (that is ``config``), and reads no
file, environment or clock.

Invariants: models are frozen; types are strict (no bool for a number, no number for text); an unknown key is an error;
each check here is one that would otherwise fail hours into a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationInfo, field_validator, model_validator

from ddmpi.config.rewriting import Rewrites
from ddmpi.config.value_types import (
    Age,
    ConnectTo,
    EndTime,
    GroupName,
    HashName,
    HeaderLines,
    Headers,
    LocalPath,
    Name,
    Networks,
    Proxy,
    Respected,
    ServerPattern,
    Statuses,
    StoreUri,
    Text,
    seconds_before,
)
from ddmpi.core.records import CONNECTIONS_PER_RANK, is_meant
from ddmpi.core.rules.usage_signals import CONTENT_USAGE, ROBOTS, X_ROBOTS_TAG
from ddmpi.core.rules.verdict import RETRY_STATUSES

MAX_FILE_BYTES = 2**31 - 1
"""One Arrow ``binary`` value is addressed by 32-bit offsets."""
MATCH_CACHE_ENTRIES = 65_536
"""Servers whose rule is remembered; a million of them would cost more memory than finding the rule again costs time."""
TAKEN_NAMES = (
    "report.html",
    "control.yaml",
    "publication.json",
    "query.parquet",
    "placeholders.parquet",
    "config.yaml",
    "refresh.csv",
)
"""Files of the output folder whose names cannot be changed."""
PER_ADDRESS = "__per_address__"
"""What the servers of ``per_address`` rules share, among the names of groups: none of these begins so."""


_CONNECTION_KEYS = (
    "connect_timeout_s", "stall_timeout_s", "total_timeout_s", "max_redirects", "verify_tls", "ca_bundle", "proxy",
)  # fmt: skip
"""Keys of ``downloader_parameters`` that a rule may have as well: how its servers are connected to, and how long."""


class Section(BaseModel):
    """What all sections share: frozen, strict, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class OutputStructure(Section):
    """Names inside the output folder."""

    urls_folder: Name = Field("urls", description="The input, clustered by server.")
    images_folder: Name = Field("images", description="Successes: a clean Parquet dataset.")
    errors_folder: Name = Field("errors", description="Errors: a clean Parquet dataset.")
    checks_folder: Name = Field("checks", description="What a refresh has found of files that stay as they are.")
    batches_folder: Name = Field("batches", description="One marker per completed batch.")
    logs_folder: Name = Field("logs", description="Logs of all ranks.")
    schedules_folder: Name = Field("schedules", description="One folder per big batch.")
    profiles_table: Name = Field("profiles.csv", description="What profiling found, one line per server.")
    ignored_table: Name = Field(
        "ignored.csv", description="Servers to leave out, names or globs, one a line: counted, not fetched."
    )
    inner_checkpoint_file: Name = Field("checkpoint.json", description="State of the run.")

    @model_validator(mode="after")
    def _distinct(self) -> OutputStructure:
        names = [*self.model_dump().values(), *TAKEN_NAMES]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            used, taken = ", ".join(doubled), ", ".join(TAKEN_NAMES)
            raise ValueError(f"different names for different things ({used} is used twice; {taken} are taken)")
        return self


class Refresh(Section):
    """Files that the output folder has are asked for again."""

    older_than: Age | None = Field(
        None,
        examples=["30d"],
        description="Ask again for each file that was last asked for longer ago than this (30d, 12h), or before this "
        "date in UTC (2026-11-01): with what its server gave to tell whether it has changed. null = none. See "
        "docs/refresh.md.",
    )

    def cutoff(self, now: float) -> float:
        """Return before which moment a file has to be last asked for to be asked for again (seconds since 1970, as
        ``now``); 0 = none is."""
        return 0.0 if self.older_than is None else seconds_before(self.older_than, now)


class DownloaderParameters(Section):
    """How files are fetched and stored."""

    batch_size: int = Field(10_000, ge=1, le=10_000_000, description="Rows per batch, the unit of work.")
    default_rate_limit: float = Field(
        10.0, ge=0, le=1_000_000, description="Requests per second for one server, over all ranks; 0 = no limit."
    )
    rate_multiplier: float = Field(
        1.0,
        gt=0,
        le=1_000,
        description="Scales the default limit of profiled servers, never a rule's; a factor.",
    )
    max_connections_per_server: int = Field(
        8, ge=1, le=10_000, description="Connections to one server at the same time, over all ranks."
    )
    connections_per_rank: int = Field(
        CONNECTIONS_PER_RANK,
        ge=1,
        le=100_000,
        description="Connections of one rank at the same time, over all servers.",
    )
    header: HeaderLines = Field(
        (),
        description="One header 'Name: value' or a list, for all servers. Name a contact in User-Agent; default "
        "ddmpi/VERSION. What is for some servers alone, such as Authorization, goes to `servers[].headers`.",
    )
    image_size: int = Field(
        0,
        ge=0,
        le=65_535,
        description="0 = the bytes as served; else the longest side in pixels: what is larger is made smaller and "
        "encoded again (needs ddmpi[images]). See docs/output.md.",
    )
    hash_algorithm: HashName = Field(
        "sha256",
        description="Of hashsum_original and hashsum_resized: one of hashlib's names, or blake3 or xxh3_128 (quicker; "
        "need ddmpi[hashes]). See docs/output.md.",
    )
    connect_timeout_s: float = Field(10.0, gt=0, le=3_600, description="Seconds to connect, TLS included.")
    stall_timeout_s: float = Field(20.0, ge=1, le=3_600, description="Seconds without progress.")
    total_timeout_s: float = Field(120.0, gt=0, le=86_400, description="Seconds for one attempt, from start to end.")
    max_file_bytes: int = Field(
        104_857_600, ge=1, le=MAX_FILE_BYTES, description="Bytes of the largest file to accept."
    )
    max_redirects: int = Field(5, ge=0, le=50, description="Redirects to follow for one row.")
    max_attempts: int = Field(5, ge=1, le=100, description="Attempts at one row with transient failures.")
    retry_statuses: Statuses = Field(
        RETRY_STATUSES,
        description="HTTP statuses with which a row is tried again; 202 and 403 with Retry-After always are.",
    )
    verify_tls: bool = Field(default=True, description="Check certificates.")
    ca_bundle: LocalPath | None = Field(None, description="File with CA certificates; null = the built-in ones.")
    proxy: Proxy | None = Field(
        None,
        description="URL of a proxy, whose parts may be ${NAME} of the environment; null = the environment's "
        "http_proxy and https_proxy; empty = none.",
    )
    connect_to: ConnectTo = Field(
        (), description="HOST:PORT:CONNECT-TO-HOST:CONNECT-TO-PORT entries, as for curl --connect-to."
    )
    allow_private_addresses: Networks = Field(
        (),
        description="Networks (CIDR) that may be contacted although loopback, private or link-local.",
    )
    accept: Literal["image", "any"] = Field(
        "image",
        description="What a 200 must be to count as success: an image by its first bytes, or any body. "
        "docs/output.md lists the formats.",
    )
    respect: Respected = Field(
        (X_ROBOTS_TAG,),
        examples=[[ROBOTS, X_ROBOTS_TAG, CONTENT_USAGE]],
        description="What servers say of their files' use that is obeyed, where no rule says otherwise: robots "
        "(robots.txt, RFC 9309, and its Crawl-delay), x-robots-tag (noai and noimageai), content-usage (train-ai=n). "
        "Or one by one: x-robots-tag:noindex, content-usage:search. What is not obeyed is still told in "
        "`usage_signals`. See docs/politeness.md.",
    )
    hear_robots: bool = Field(
        default=False,
        description="Ask for robots.txt to tell what it says in `usage_signals` where it is not obeyed: one request "
        "per server and rank.",
    )
    memory_budget_bytes: int = Field(
        134_217_728, ge=4_096, le=2**50, description="Bytes of bodies that one rank holds in memory at most."
    )
    part_bytes: int = Field(268_435_456, ge=4_096, le=2**40, description="Bytes at which a part is closed.")

    @field_validator("memory_budget_bytes")
    @classmethod
    def _holds_one_file(cls, budget_bytes: int, info: ValidationInfo) -> int:
        file_bytes = info.data.get("max_file_bytes", 0)
        if budget_bytes < file_bytes:
            raise ValueError(f"at least max_file_bytes ({file_bytes}), or such a file could never be fetched")
        return budget_bytes


class Profiling(Section):
    """How a server's rate is found before downloading starts."""

    mode: Literal["measure", "uniform"] = Field(
        "measure", description="measure = fetch samples first; uniform = default_rate_limit for all, no requests."
    )
    samples_per_server: int = Field(3, ge=1, le=1_000, description="Rows that are fetched first from each server.")
    min_rows: int = Field(
        300, ge=0, description="Rows below which a server is not measured, and shares files with others."
    )


class ServerRule(Section):
    """What holds for the servers that match; null means the default of ``downloader_parameters``."""

    match: ServerPattern = Field(description="Server name or glob, e.g. '*.archive.org' or 'img.example.org:8080'.")
    group: GroupName | None = Field(None, description="The limits apply to all servers of the group together.")
    per_address: bool = Field(
        default=False, description="The limits apply to each IP address: servers that share one are one group."
    )
    rate_limit: float | None = Field(
        None, ge=0, le=1_000_000, description="Requests per second, over all ranks; 0 = no limit."
    )
    max_connections: int | None = Field(
        None, ge=1, le=10_000, description="Connections at the same time, over all ranks."
    )
    bytes_per_second: float = Field(0.0, ge=0, description="Bytes per second, over all ranks; 0 = no limit.")
    bytes_per_hour: float = Field(0.0, ge=0, description="Bytes in any hour, over all ranks; 0 = no limit.")
    bytes_per_day: float = Field(0.0, ge=0, description="Bytes in any 24 hours, over all ranks; 0 = no limit.")
    respect: Respected | None = Field(
        None, description="What servers say that is obeyed; null = as downloader_parameters.respect says."
    )

    retry_statuses: Statuses | None = Field(
        None,
        description="HTTP statuses with which a row is tried again; null = downloader_parameters.retry_statuses.",
    )
    rewrite: Rewrites | None = Field(
        None,
        description="Under which URL a file is asked for: a list of `{from: REGEX, to: TEXT}` (RE2; the first that "
        "matches counts), or a ladder of sizes (inaturalist, iiif, wikimedia, flickr, gbif-cache); [] = the table's; "
        "null = as `sizes` says. See docs/sizes.md.",
    )
    headers: Headers = Field(
        {},
        repr=False,
        description='Headers of the requests to these servers alone, as `{Authorization: "Bearer ${MINE_TOKEN}"}`: '
        "values of the environment stand for ${NAME}. See docs/secrets.md.",
    )
    connect_timeout_s: float | None = Field(
        None, gt=0, le=3_600, description="Seconds to connect, TLS included; null = as downloader_parameters has it."
    )
    stall_timeout_s: float | None = Field(
        None, ge=1, le=3_600, description="Seconds without progress; null = as downloader_parameters has it."
    )
    total_timeout_s: float | None = Field(
        None, gt=0, le=86_400, description="Seconds for one attempt; null = as downloader_parameters has it."
    )
    max_redirects: int | None = Field(
        None,
        ge=0,
        le=50,
        description="Redirects after which a row is redirected no more by these servers; null = as "
        "downloader_parameters has it.",
    )
    verify_tls: bool | None = Field(None, description="Check certificates; null = as downloader_parameters has it.")
    ca_bundle: LocalPath | None = Field(
        None, description="File with CA certificates; null = as downloader_parameters has it."
    )
    proxy: Proxy | None = Field(
        None,
        repr=False,
        description="URL of a proxy, whose parts may be ${NAME} of the environment; empty = none; null = as "
        "downloader_parameters has it.",
    )
    needs_contact: bool = Field(
        default=False,
        description="A job with such servers does not start without a contact in its User-Agent, as their policy asks.",
    )

    source: Text | None = Field(
        None,
        examples=["stated: https://example.org/limits (2026-11)"],
        description="Where the limits are from, for people; `ddmpi plan` shows it.",
    )

    @model_validator(mode="after")
    def _headers_of_known_hosts(self) -> ServerRule:
        if self.headers and not _names_hosts(self.match):
            raise ValueError(
                f"match to name a host, or '*.' and at least two labels such as '*.mine.org', where there are headers "
                f"({self.match!r} may mean strangers)"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_share(self) -> ServerRule:
        if self.per_address and self.group is not None:
            raise ValueError("group or per_address, not both")
        return self

    def matches(self, server: str) -> bool:
        """Return whether the rule means this canonical name."""
        return is_meant(server, self.match)

    @property
    def shared_by(self) -> str | None:
        """Who shares the limits: the group of that name, the servers of an address (PER_ADDRESS), or None."""
        return PER_ADDRESS if self.per_address else self.group

    @property
    def connection(self) -> dict[str, object]:
        """What is not as ``downloader_parameters`` has it of how these servers are connected to, by key."""
        return {key: value for key in _CONNECTION_KEYS if (value := getattr(self, key)) is not None}

    @property
    def limits(self) -> tuple[float | None, ...]:
        """What the rules of one group must agree on."""
        return self.rate_limit, self.max_connections, self.bytes_per_second, self.bytes_per_hour, self.bytes_per_day


_HAS_WILDCARD = re.compile(r"[*?\[]")
_IPV6_HOST = re.compile(r"\[[0-9a-f:.]+\](?::[0-9]+)?")
_BELOW_TWO_LABELS = re.compile(r"[^:]*\.[a-z0-9_-]+\.[a-z][a-z0-9-]*(?::[0-9]+)?")


def _names_hosts(pattern: str) -> bool:
    """Return whether a pattern means one server, or names below at least two labels: ``*mine.org`` means
    ``notmine.org``, too."""
    if not _HAS_WILDCARD.search(pattern) or _IPV6_HOST.fullmatch(pattern):
        return True
    return _BELOW_TWO_LABELS.fullmatch(pattern) is not None


class ServerRules(RootModel[Annotated[tuple[ServerRule, ...], Field(strict=False)]]):
    """The ``servers`` list. The first rule that matches wins."""

    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _groups_agree(self) -> ServerRules:
        first: dict[str, ServerRule] = {}
        for rule in self.root:
            name = rule.shared_by
            if name is not None and first.setdefault(name, rule).limits != rule.limits:
                which = "with per_address" if rule.per_address else f"of the group {name}"
                raise ValueError(f"the same limits in all rules {which}")
        return self

    def find(self, server: str) -> ServerRule | None:
        """Return the rule for a canonical server name, or None. A server whose own name is the name of a group belongs
        to that group: it could not have limits of its own."""
        if not server.endswith(self._tails):
            return None
        cache = self._cache
        if server not in cache:
            if len(cache) >= MATCH_CACHE_ENTRIES:
                cache.clear()
            cache[server] = next((rule for rule in self.root if rule.group == server), None) or next(
                (rule for rule in self.root if rule.matches(server)), None
            )
        return cache[server]

    def meant(self, server: str) -> ServerRule | None:
        """Return the first rule whose ``match`` means a canonical server name, or None. The name of its group does not
        count: headers are for nobody else."""
        rule = self.find(server)
        if rule is None or rule.matches(server):
            return rule
        return next((rule for rule in self.root if rule.matches(server)), None)

    def followed_by(self, others: ServerRules) -> ServerRules:
        """Return these rules, then the others. A group of the others that is named here has the limits that it has
        here, and so have addresses; what is said of connections and headers here is for the servers named here."""
        own = {rule.shared_by: rule for rule in self.root if rule.shared_by is not None}
        adapted = (
            own[rule.shared_by].model_copy(
                update={
                    **dict.fromkeys(_CONNECTION_KEYS),
                    "headers": {},
                    "match": rule.match,
                    "needs_contact": rule.needs_contact,
                }
            )
            if rule.shared_by in own
            else rule
            for rule in others.root
        )
        return ServerRules((*self.root, *adapted))

    def needs_contact(self, server: str) -> bool:
        """Return whether any rule says that this server is not to be asked by nobody in particular."""
        return any(rule.matches(server) for rule in self._with_contact)

    @cached_property
    def _with_contact(self) -> tuple[ServerRule, ...]:
        return tuple(rule for rule in self.root if rule.needs_contact)

    @property
    def contact_patterns(self) -> list[str]:
        """Which servers need a contact."""
        return [rule.match for rule in self._with_contact]

    @property
    def patterns(self) -> list[str]:
        """A server that none of these means has no rule."""
        return [*(rule.match for rule in self.root), *self._groups]

    @property
    def grouped(self) -> list[str]:
        """A server that none of these patterns means is in no group by its name."""
        return [*(rule.match for rule in self.root if rule.group is not None), *self._groups]

    @cached_property
    def per_address(self) -> tuple[ServerRule, ...]:
        """The rules whose limits are those of an address, all the same."""
        return tuple(rule for rule in self.root if rule.per_address)

    @property
    def _groups(self) -> list[str]:
        return list(dict.fromkeys(rule.group for rule in self.root if rule.group is not None))

    def grouping(self) -> list[list[str | None]]:
        """Return ``[match, group]`` of what decides who belongs together: the rules with a group or by address
        (PER_ADDRESS), and those without that may take a server away from such a rule that follows them."""
        pairs: list[list[str | None]] = []
        grouped_ends: list[str] = []
        for rule in reversed(self.root):
            end = _end_of(rule.match)
            if rule.shared_by is not None:
                grouped_ends.append(end)
            elif not any(end.endswith(other) or other.endswith(end) for other in grouped_ends):
                continue
            pairs.append([rule.match, rule.shared_by])
        return pairs[::-1]

    @cached_property
    def _tails(self) -> tuple[str, ...]:
        """How the name of a server that has a rule ends: the quickest way to see that one of a million has none."""
        return tuple(map(_end_of, self.patterns))

    @cached_property
    def _cache(self) -> dict[str, ServerRule | None]:
        return {}


def _end_of(pattern: str) -> str:
    """Return how all names end that a glob means: what follows its last special character."""
    return re.split(r"[*?\]]", pattern)[-1]


class Backoff(Section):
    """Pauses of a server that asks for fewer requests (429, 503) without Retry-After, or that cannot be reached."""

    brief_s: float = Field(
        1.0,
        gt=0,
        le=86_400,
        description="Seconds of the first pause of a server that answers well otherwise; then four times as long.",
    )
    base_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Seconds of the pause when shorter ones did not help, and at most of the first one of a server out "
        "of reach; then doubled.",
    )
    cap_s: float = Field(86_400.0, gt=0, le=604_800, description="Longest pause in seconds.")

    @field_validator("cap_s")
    @classmethod
    def _not_below_base(cls, cap_s: float, info: ValidationInfo) -> float:
        base_s = info.data.get("base_s", 0.0)
        if cap_s < base_s:
            raise ValueError(f"at least base_s ({base_s})")
        return cap_s


class BreakerSection(Section):
    """When a server that does not answer is parked, and when it is given up."""

    failures: int = Field(5, ge=1, le=10_000, description="Connection failures in a row that park a server.")
    probes: int = Field(5, ge=1, le=10_000, description="Failed probes after which the server's rows become errors.")
    longest_s: float = Field(
        3_600.0,
        gt=0,
        le=604_800,
        description="Longest time in seconds for the probes; it is a tenth of the time that the job has run, over all "
        "its runs, and at least 180.",
    )
    forbidden_in_a_row: int = Field(
        20, ge=0, le=1_000_000, description="Answers 403 in a row that park a server as well; 0 = they never do."
    )


class Initialization(Section):
    """The first stage: the input is clustered by server."""

    memory_bytes: int = Field(
        536_870_912,
        ge=1_048_576,
        le=2**50,
        description="Bytes of rank 0's memory for clustering; beyond, disk is used.",
    )


class Publish(Section):
    """Where the results go beside the output folder."""

    to: StoreUri | None = Field(
        None,
        description="Object store for images and errors, s3://bucket/prefix or gs://bucket/prefix, of this job alone; "
        "null = they stay in the output folder. See docs/object-stores.md.",
    )


class Expected(Section):
    """What the table says of each file: columns of `keep_columns`. A row without a value is not checked."""

    hash_column: Text | None = Field(
        None,
        examples=["md5"],
        description="Column with each file's hash, md5, sha1, sha256, sha512 or by `hash_algorithm`: hexadecimal, "
        "base64, bytes, or with the algorithm before it ('sha256:...'); null = none.",
    )
    algorithm_column: Text | None = Field(
        None,
        examples=["hash_type"],
        description="Column with the algorithm of each hash; null = what stands before the hash, else what its length "
        "tells.",
    )
    bytes_column: Text | None = Field(
        None,
        examples=["bytes_expected"],
        description="Column with each file's size in bytes, as a number or as text; null = none.",
    )
    on_mismatch: Literal["refuse", "keep"] = Field(
        "refuse",
        description="What becomes of another file: refuse = an error hash_mismatch; keep = a success that says so in "
        "its column `expected_mismatch`.",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        names = (self.hash_column, self.algorithm_column, self.bytes_column)
        return tuple(name for name in names if name is not None)

    @property
    def marks(self) -> bool:
        """Whether a file that is not as promised is a success, and says so."""
        return bool(self.columns) and self.on_mismatch == "keep"

    @model_validator(mode="after")
    def _algorithm_of_a_hash(self) -> Expected:
        if self.algorithm_column is not None and self.hash_column is None:
            raise ValueError("hash_column, too, where there is an algorithm_column")
        return self


class Metrics(Section):
    """Numbers for machines, while the run goes on; logs/metrics.jsonl holds them all."""

    interval_s: float = Field(10.0, ge=1, le=86_400, description="Seconds between two measurements.")
    prometheus_file: LocalPath | None = Field(
        None, description="Path of the newest measurement in the Prometheus text format; null = ddmpi.prom in the logs."
    )


class Logging(Section):
    """One log per rank, logs/rank-NNNNN.log."""

    level: Literal["info", "debug"] = Field(
        "info", description="debug = also each request, message, part, pause and change of a rate; as --debug."
    )
    file_bytes: int = Field(
        16_777_216, ge=4_096, le=2**40, description="Bytes at which a rank's log is closed and a new one begun."
    )
    kept_files: int = Field(
        4, ge=1, le=10_000, description="Closed logs that each rank keeps, as rank-NNNNN.log.1 (the newest) and on."
    )


class Walltime(Section):
    """When to stop softly before the scheduler does it the hard way."""

    end_time: EndTime = Field(
        None,
        description="Date with time zone, or seconds since 1970 UTC; null = as the scheduler says (Slurm, PBS, LSF, "
        "Flux), and none outside its jobs.",
    )
    margin_s: float = Field(120.0, ge=0, le=86_400, description="Seconds before the end at which the run stops softly.")


ScheduleRules = Mapping[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1, le=1_000_000)]]
