"""From a config to a downloader: the one place that joins the pure parts, the shell and the config's values."""

from __future__ import annotations

import random
import resource
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import pycurl

from ddmpi.config.config import Config
from ddmpi.config.secrets import Variables
from ddmpi.config.sections import DownloaderParameters
from ddmpi.core.frontier.interface import FrontierConfig
from ddmpi.core.protocol import ToCoordinator
from ddmpi.core.records import is_meant
from ddmpi.core.rules.addresses import address_rule
from ddmpi.core.rules.retry import RetryPolicy
from ddmpi.core.rules.urls import Rejected, parse_url
from ddmpi.core.rules.usage_signals import heard, objection
from ddmpi.core.rules.user_agent import product_token
from ddmpi.errors import SetupError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.http.easy_handle import ServerSettings
from ddmpi.io.http.transfers import Transfers
from ddmpi.io.results.parts import ResultOptions
from ddmpi.io.results.publishing import make_publisher
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import ignored_patterns
from ddmpi.roles.downloader.downloader import Downloader

RESERVED_DESCRIPTORS = 256
"""Open files that are not connections: parts, urls files, MPI, logs."""
MOST_KEPT = 4_096
"""Idle connections for later requests. With TLS each takes about 100 kB (OpenSSL 3.6, libcurl 8.23), else 2 kB."""
OLDEST_LIBCURL = (8, 4, 0)
"""From here on MAXFILESIZE also stops bodies whose length was not announced."""


def make_downloader(
    config: Config,
    layout: Layout,
    variables: Variables,
    *,
    epoch: int,
    rank: int,
    cores: int,
    send: Callable[[ToCoordinator], None],
    report_interval_s: float,
    ran_s: float,
    now: float,
) -> Downloader:
    """A downloader of this process, which may keep ``cores`` threads busy, in a job that has run for ``ran_s``;
    ``variables`` are those of the environment that the config names. Raises SetupError: a library is too old or
    missing, too few files may be open, or ``check_authorities``."""
    check_authorities(config)
    connections, kept = _connections(config.downloader_parameters.connections_per_rank)
    publisher = make_publisher(layout, config.publish.to, epoch)
    return Downloader(
        ResultOptions(config, layout, BatchReader(layout.urls), epoch, rank, threads=cores, publisher=publisher),
        replace(
            frontier_config(config, connections, now - ran_s, is_restart=epoch > 1),
            servers_at_once=kept,
            is_ignored=_ignored_rule(ignored_patterns(layout) if config.has_mirrors else ()),
        ),
        Transfers(
            _filled(config.downloader_parameters, variables),
            config.header_list(),
            kept,
            address_rule(config.allowed_networks),
            _objection_rule(config),
            hear=partial(heard, crawler=product_token(config.user_agent)),
            settings_of=_settings_rule(config, variables),
        ),
        send,
        rng=random.Random(f"{epoch} {rank}"),
        report_interval_s=report_interval_s,
        now=now,
    )


def check_libraries() -> None:
    """Refuse libraries that would break a promise. Raises SetupError: libcurl is older than ``OLDEST_LIBCURL``."""
    version = pycurl.version_info()[1]
    if tuple(int(part) for part in version.split("-")[0].split(".")) < OLDEST_LIBCURL:
        raise SetupError(f"libcurl {version} is too old: {'.'.join(map(str, OLDEST_LIBCURL))} or newer is needed")


def check_authorities(config: Config) -> None:
    """Refuse a ``ca_bundle`` that libcurl could not load: every row on an https server would fail for it. Raises
    SetupError: it cannot be read here, or holds no certificate."""
    _check_bundle("downloader_parameters.ca_bundle", config.downloader_parameters)
    for rule in config.rules.root:
        if rule.connection:
            _check_bundle(f"servers: {rule.match}: ca_bundle", config.parameters_of(rule))


def _check_bundle(key: str, parameters: DownloaderParameters) -> None:
    bundle = parameters.ca_bundle
    if bundle is None or not parameters.verify_tls:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
    except (OSError, ValueError) as error:
        reason = "no certificates in it" if isinstance(error, ssl.SSLError | ValueError) else error.strerror
        raise SetupError(f"{key}: {bundle}: {reason}") from error


def _settings_rule(config: Config, variables: Variables) -> Callable[[str], ServerSettings | None]:
    """Return how servers are asked that some rule has connection options or headers for; one object for each rule."""
    settings = {
        id(rule): ServerSettings(
            _filled(config.parameters_of(rule), variables),
            {name: variables.fill(value) for name, value in rule.headers.items()},
        )
        for rule in config.rules.root
        if rule.connection or rule.headers
    }
    if not settings:
        return lambda _: None

    def settings_of(server: str) -> ServerSettings | None:
        rule = config.rules.meant(server)
        return None if rule is None else settings.get(id(rule))

    return settings_of


def _filled(parameters: DownloaderParameters, variables: Variables) -> DownloaderParameters:
    proxy = parameters.proxy
    return parameters.model_copy(update={"proxy": variables.fill_url(proxy)}) if proxy else parameters


def _connections(wanted: int) -> tuple[int, int]:
    """Return how many connections may be in flight, and how many may be kept beside them, as the limit of open files
    allows, after raising it to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return wanted, MOST_KEPT
    possible = min(wanted, hard - RESERVED_DESCRIPTORS)
    if possible < 1:
        raise SetupError(f"only {hard} files may be open: at least {RESERVED_DESCRIPTORS + 1} are needed (ulimit -n)")
    return possible, max(possible, min(MOST_KEPT, hard - RESERVED_DESCRIPTORS - possible))


def frontier_config(config: Config, connections: int, job_began_at: float, *, is_restart: bool) -> FrontierConfig:
    """Return what a rank's core has to know of the config, in a job that began at that time (s, monotonic)."""
    # The breaker, not the row's own count, is to end the rows of a server that is out of reach.
    breaker_tries = config.breaker.failures + config.breaker.probes
    return FrontierConfig(
        limits_for=config.limits_for,
        group_of=config.group_of,
        locate=partial(locate, config),
        pace=config.pace_policy(job_began_at),
        retry=RetryPolicy(config.downloader_parameters.max_attempts, connect_attempts=max(20, 2 * breaker_tries)),
        connections=connections,
        respect=config.respect if config.uses_robots else None,
        accept=config.downloader_parameters.accept,
        max_redirects=config.max_redirects,
        retry_statuses=config.retry_statuses,
        crawler=product_token(config.user_agent),
        is_restart=is_restart,
        checkpoint_interval_s=config.checkpoint_interval_s,
    )


def locate(config: Config, location: str) -> tuple[str, str] | str:
    """Return the URL to fetch and the server of a redirect's target or a mirror, or why it is not asked."""
    parsed = parse_url(location)
    if isinstance(parsed, Rejected):
        return parsed.reason
    if config.refuses_without_contact(parsed.server):
        return f"{parsed.server} wants a contact in the User-Agent: {config.contact_line}"
    return parsed.url, parsed.server


def _ignored_rule(patterns: Sequence[str]) -> Callable[[str], bool]:
    @lru_cache(maxsize=65_536)
    def is_ignored(server: str) -> bool:
        return any(is_meant(server, pattern) for pattern in patterns)

    return is_ignored


def _objection_rule(config: Config) -> Callable[[bytes, str], str] | None:
    """Return what finds in an answer's head why the file must not be stored; None where no server's could say so."""
    if not config.obeys_answers:
        return None
    crawler = product_token(config.user_agent)
    return lambda head, server: objection(head, config.respect(server), crawler)
