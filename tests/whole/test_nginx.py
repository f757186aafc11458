"""The whole program against Debian's nginx: a limiter, TLS and HTTP/2 that were written by others."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.whole.job import Job, assert_every_row_once, make_job, rows_of
from tests.whole.nginx import Host, Nginx, running_nginx

pytestmark = pytest.mark.slow
LOGGER = logging.getLogger(__name__)

LIMITED = "127.30.0.3"
PLAIN = [Host("127.30.0.1"), Host("127.30.0.2"), Host(LIMITED, rate_per_s=20, burst=5)]
TLS = [Host("127.31.0.1", tls=True), Host("127.31.0.2", tls=True)]
CONNECTIONS = 4


def job_of(server: Nginx, folder: Path, **parameters: object) -> Job:
    return make_job(
        folder,
        server.table_path,
        downloader_parameters={"max_connections_per_server": CONNECTIONS, **parameters},
    )


def assert_bodies_equal_files(job: Job, server: Nginx, rows: int) -> None:
    table = rows_of(job.output / "images", ["row_number", "final_url", "image"])
    assert table.num_rows == rows
    for row, url, image in zip(*(table.column(i).to_pylist() for i in range(3)), strict=True):
        address = url.split("/")[2].partition(":")[0]
        assert image == server.body(row, address), url


def connections_by_address(server: Nginx) -> Mapping[str, int]:
    seen: dict[str, set[int]] = defaultdict(set)
    for request in server.requests():
        seen[request.address].add(request.connection)
    return {address: len(numbers) for address, numbers in seen.items()}


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_rate_below_the_limit_is_never_refused(tmp_path: Path, ranks: int) -> None:
    rows = 360
    with running_nginx(tmp_path / "nginx", PLAIN, rows) as server:
        job = job_of(server, tmp_path / "job", default_rate_limit=15)
        code, printed = job.run(ranks)
        requests = server.requests()
        connections = connections_by_address(server)
    assert code == 0, printed
    assert Counter(request.status for request in requests) == {200: rows}
    assert_every_row_once(job, rows)
    assert_bodies_equal_files(job, server, rows)
    LOGGER.info("%d ranks: connections %s", ranks, connections)
    assert max(connections.values()) <= CONNECTIONS


def test_without_a_limit_of_ours_few_requests_are_refused(tmp_path: Path) -> None:
    rows = 450
    with running_nginx(tmp_path / "nginx", PLAIN, rows) as server:
        job = job_of(server, tmp_path / "job", default_rate_limit=0)
        code, printed = job.run(2)
        requests = server.requests()
    refused = Counter(request.address for request in requests if request.status == 429)
    times = [request.time_s for request in requests if request.address == LIMITED]
    LOGGER.info("%d of %d requests refused, in %.1f s", refused[LIMITED], len(times), max(times) - min(times))
    assert code == 0, printed
    assert_every_row_once(job, rows)
    assert_bodies_equal_files(job, server, rows)
    assert set(refused) == {LIMITED}
    # A handful of incidents, each at most what was in flight when it began.
    assert refused[LIMITED] <= 4 * CONNECTIONS


def test_tls_with_the_right_authority_is_http_2_over_few_connections(tmp_path: Path) -> None:
    rows = 400
    with running_nginx(tmp_path / "nginx", TLS, rows) as server:
        job = job_of(server, tmp_path / "job", ca_bundle=str(server.ca_path))
        code, printed = job.run(3)
        requests = server.requests()
        connections = connections_by_address(server)
    assert code == 0, printed
    assert_every_row_once(job, rows)
    assert_bodies_equal_files(job, server, rows)
    assert {request.protocol for request in requests} == {"HTTP/2.0"}
    assert len(requests) == rows
    LOGGER.info("connections %s", connections)
    # Over the whole run: another rank may have profiled the server, over connections that it then closes.
    samples = job.config["profiling"]["samples_per_server"]
    assert max(connections.values()) <= CONNECTIONS + samples


def test_an_unknown_authority_is_an_error_without_a_storm_of_retries(tmp_path: Path) -> None:
    rows = 120
    with running_nginx(tmp_path / "nginx", TLS, rows) as server:
        before = server.connection_number()
        job = job_of(server, tmp_path / "job")
        code, printed = job.run(2)
        handshakes = server.connection_number() - before - 1
        requests = server.requests()
    assert code == 0, printed
    assert_every_row_once(job, rows)
    errors = rows_of(job.output / "errors", ["error_kind", "error_code", "retry_count", "error_msg"]).to_pylist()
    assert {(error["error_code"], error["retry_count"]) for error in errors} == {(-1, 0)}
    assert all("certificate" in error["error_msg"] for error in errors)
    kinds = Counter(error["error_kind"] for error in errors)
    assert kinds["tls"] + kinds["unreachable"] == rows
    assert kinds["unreachable"] > rows / 2, "the servers were given up, and their other rows never asked for"
    assert requests == []
    LOGGER.info("%d handshakes with %d servers for %d rows", handshakes, len(TLS), rows)
    # For each server: samples; what was in flight when the breaker opened, and the failures before; its probes.
    breaker = job.config["breaker"]
    samples = job.config["profiling"]["samples_per_server"]
    assert 0 < handshakes <= len(TLS) * (samples + CONNECTIONS + breaker["failures"] + breaker["probes"])
