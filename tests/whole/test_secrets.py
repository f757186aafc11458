"""Secrets stay where they belong: no server is shown another's, and no file has one."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.whole.chains import PROXY, Chains, Shown, serving
from tests.whole.job import Job, MakeJob, assert_every_row_once, finish, rows_of, wait_until

MINE, WILD, PASSWORD = "m1ne/To+ken=%&'Q", "w1ld/To+ken=%&'Q", "pa55/w0rd+%&@Q"
"""Written otherwise in a URL, in base64 and in JSON."""
VARIABLES = {"DDMPI_TEST_MINE": MINE, "DDMPI_TEST_WILD": WILD, "DDMPI_TEST_PASSWORD": PASSWORD}

HTTPS, HTTP = "https://files.mine.example/{}", "http://files.mine.example/{}"
STRANGER, CLEAR_STRANGER = "https://stranger.example/{}", "http://stranger.example/{}"
PROXIED, TUNNELED = "http://proxied.example:81/{}", "https://proxied.example:444/{}"
"""libcurl asks a proxy for a tunnel where ``connect_to`` means the server, so these have ports that it does not."""
A, B = "https://a.wild.example/{}", "https://b.wild.example/{}"
SHAPES: list[tuple[str, list[str], str]] = [
    # Of each hop: B has the headers of its rule and of the row, S those of its rule alone, R those of the row alone.
    ("no redirect", [HTTPS], "B"),
    ("no redirect, in the clear as the table has it", [HTTP], "B"),
    ("a server without a rule", [STRANGER], "R"),
    ("in the clear, without a rule", [CLEAR_STRANGER], "R"),
    ("same server", [HTTPS, HTTPS], "BB"),
    ("same server, twice", [HTTPS, HTTPS, HTTPS], "BBB"),
    ("same server, a relative target", [HTTPS, "/{}"], "BB"),
    ("same server, in the clear", [HTTP, HTTP], "BB"),
    ("upgrade", [HTTP, HTTPS], "BB"),
    ("downgrade", [HTTPS, HTTP], "B-"),
    ("upgrade and downgrade", [HTTP, HTTPS, HTTP], "BB-"),
    ("downgrade and upgrade", [HTTPS, HTTP, HTTPS], "B-S"),
    ("downgrade to another path", [HTTPS, "http://files.mine.example/{}?again"], "B-"),
    ("other host", [HTTPS, STRANGER], "B-"),
    ("other host, without a scheme", [HTTPS, "//stranger.example/{}"], "B-"),
    ("other host, in the clear", [HTTPS, CLEAR_STRANGER], "B-"),
    ("other host, from the clear", [HTTP, CLEAR_STRANGER], "B-"),
    ("other host and back", [HTTPS, STRANGER, HTTPS], "B-S"),
    ("other host and back, in the clear", [HTTP, CLEAR_STRANGER, HTTP], "B--"),
    ("other host and back by TLS", [HTTP, CLEAR_STRANGER, HTTPS], "B-S"),
    ("a stranger leads here", [STRANGER, HTTPS], "RS"),
    ("a stranger leads here, in the clear", [STRANGER, HTTP], "R-"),
    ("a stranger in the clear leads here, in the clear", [CLEAR_STRANGER, HTTP], "R-"),
    ("a stranger's redirects", [STRANGER, STRANGER, "https://other.example/{}"], "RR-"),
    ("other port", [HTTPS, "https://files.mine.example:8443/{}"], "B-"),
    ("other port, in the clear", [HTTP, "http://files.mine.example:8080/{}"], "B-"),
    ("other port and back", [HTTPS, "https://files.mine.example:8443/{}", HTTPS], "B-S"),
    ("from another port", ["https://files.mine.example:8443/{}", HTTPS], "RS"),
    ("other scheme on the port of TLS", [HTTP, "http://files.mine.example:8080/{}", HTTPS], "B-S"),
    ("default port, written out", [HTTPS, "https://files.mine.example:443/{}"], "BB"),
    ("upper case", [HTTPS, "HTTPS://FILES.MINE.EXAMPLE/{}"], "BB"),
    ("trailing dot", [HTTPS, "https://files.mine.example./{}"], "BB"),
    ("subdomain", [HTTPS, "https://cdn.files.mine.example/{}"], "B-"),
    ("parent domain", [HTTPS, "https://mine.example/{}"], "B-"),
    ("sibling", [HTTPS, "https://evil.mine.example/{}"], "B-"),
    ("name that ends alike", [HTTPS, "https://evilfiles.mine.example/{}"], "B-"),
    ("name that begins alike", [HTTPS, "https://files.mine.example.stranger.example/{}"], "B-"),
    ("name in the query", [HTTPS, "https://stranger.example/{}?files.mine.example"], "B-"),
    ("userinfo", [HTTPS, "https://user:pw@stranger.example/{}"], "B-"),
    ("userinfo like a host", [HTTPS, "https://files.mine.example@stranger.example/{}"], "B-"),
    ("userinfo at home", [HTTPS, "https://user:pw@files.mine.example/{}"], "BB"),
    ("userinfo with a backslash", [HTTPS, "https://files.mine.example\\@stranger.example/{}"], "B-"),
    ("below a wildcard", [A], "B"),
    ("below a wildcard, to a sibling that it means, too", [A, B], "BS"),
    ("below a wildcard, to a sibling in the clear", [A, "http://b.wild.example/{}"], "B-"),
    ("below a wildcard, to its parent", [A, "https://wild.example/{}"], "B-"),
    ("from one rule to another", [HTTPS, A, STRANGER], "BS-"),
    ("from one rule to another and back", [HTTPS, A, HTTPS], "BSS"),
    ("by a proxy", [PROXIED], "B"),
    ("by a proxy's tunnel", [TUNNELED], "B"),
    ("from a proxy's server", [TUNNELED, STRANGER], "B-"),
    ("to a proxy's server", [STRANGER, TUNNELED], "RS"),
    ("from a proxy's server, in the clear", [PROXIED, CLEAR_STRANGER], "B-"),
    ("tunnel and downgrade", [TUNNELED, PROXIED], "B-"),
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def row_secret(row: int) -> str:
    return f"r0w/To+ken=%&'{row}Q"


def write_table(path: Path, chains: Chains, copies: int = 1) -> None:
    """Each chain's first URL, with headers of its own; and so more often with others."""
    rows = range(len(chains.urls))
    urls = [chains.location(row, 0) + ("" if not copy else f"?{copy}") for copy in range(copies) for row in rows]
    headers = [json.dumps({"X-Row": row_secret(row)}) for _ in range(copies) for row in rows]
    pq.write_table(pa.table({"identifier": urls, "headers": headers}), path)


def secret_job(new_job: MakeJob, tmp_path: Path, chains: Chains, copies: int = 1, **changes: Any) -> Job:
    table, bundle = tmp_path / "urls.parquet", tmp_path / "authority.pem"
    write_table(table, chains, copies)

    def rule(match: str, variable: str, **more: object) -> dict[str, object]:
        own = f"${{{variable}}}"
        return {
            "match": match,
            "headers": {"Authorization": f"Bearer {own}", "Cookie": f"s={own}", "X-Key": own},
            **more,
        }

    proxy = f"http://me:${{DDMPI_TEST_PASSWORD}}@127.0.0.1:{chains.ports[PROXY]}"
    return new_job(
        table,
        columns={"headers": "headers"},
        servers=[
            rule("files.mine.example", "DDMPI_TEST_MINE"),
            rule("*.wild.example", "DDMPI_TEST_WILD"),
            *(rule(f"proxied.example:{port}", "DDMPI_TEST_MINE", proxy=proxy) for port in (81, 444)),
        ],
        downloader_parameters={
            "ca_bundle": str(bundle),
            "connect_to": chains.connect_to,
            "robots": True,
            "max_attempts": 10,
        },
        profiling={"samples_per_server": 2, "min_rows": 2},
        backoff={"brief_s": 0.1, "base_s": 0.1, "cap_s": 0.2},
        **changes,
    )


def forms_of(secret: str) -> set[bytes]:
    """The secret as it is, and as it stands in URLs, JSON, hexadecimal and base64, with whatever before it."""
    octets = secret.encode()
    forms = {octets, quote(secret).encode(), quote(secret, safe="").encode(), quote_plus(secret).encode()}
    forms |= {octets.hex().encode(), json.dumps(secret)[1:-1].encode(), repr(secret)[1:-1].encode()}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # Without the characters that depend on what stands before and after it.
            whole = encode(b"x" * before + octets)
            forms.add(whole[(0, 2, 3)[before] : len(whole) - 4])
    return forms


def texts_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Each file below the folder, and what is in it; of Parquet also what it means."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        octets = path.read_bytes()
        yield path, octets
        if path.suffix == ".parquet" and octets.endswith(b"PAR1"):  # others were being written when their rank died
            for column in pq.read_table(path).to_pydict().values():
                yield path, b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in column)


def assert_no_secret(job: Job, *printed: str) -> None:
    """No file that the job has left has a secret of the environment, nor does what was printed. What the table has is
    in the clustered table as well, which is its owner's alone."""
    of_table = [row_secret(row) for row in range(len(SHAPES))]
    of_environment = list(VARIABLES.values())
    urls = job.output / "urls"
    assert not urls.exists() or urls.stat().st_mode & 0o77 == 0
    texts = [*texts_of(job.folder), *((Path("console"), text.encode()) for text in printed)]
    assert len(texts) > 2
    for path, text in texts:
        secrets = of_environment if path.is_relative_to(urls) else [*of_environment, *of_table]
        for secret in secrets:
            found = [form for form in forms_of(secret) if form in text]
            assert not found, f"{path} has {secret}: {found}"


def test_no_form_of_a_secret_is_overlooked() -> None:
    for secret in [*VARIABLES.values(), row_secret(7)]:
        for before in ("", "a", "me:", "abcd", "Bearer "):
            text = base64.b64encode(f"{before}{secret}{'' if before else ' and more'}".encode())
            assert any(form in text for form in forms_of(secret))


def shown_of(request: Shown) -> str:
    """The letter of SHAPES for what a request has shown."""
    of_rule = {"Authorization", "Cookie", "X-Key"} & set(request.headers)
    assert len(of_rule) in {0, 3}, request
    return {(True, True): "B", (True, False): "S", (False, True): "R", (False, False): "-"}[
        bool(of_rule), "X-Row" in request.headers
    ]


@pytest.mark.slow
def test_no_server_is_shown_what_is_for_another(new_job: MakeJob, tmp_path: Path, environment: None) -> None:
    del environment
    chains = Chains([urls for _, urls, _ in SHAPES], stumbling=frozenset(range(0, len(SHAPES), 3)))
    with serving(chains, tmp_path / "authority.pem"):
        job = secret_job(new_job, tmp_path, chains)
        code, printed = job.run(3, "--debug")
        assert code == 0, printed
        asked_by_run = len(chains.log)
        status, plan = job.inspect("--status")[1], job.inspect("--plan")[1]
        assert job.inspect("--verify")[0] == 0
        assert len(chains.log) == asked_by_run
    assert_every_row_once(job, len(SHAPES))
    for row, (name, urls, expected) in enumerate(SHAPES):
        of_row = [request for request in chains.log if request.path.startswith(f"/{row}/")]
        for hop in range(len(urls)):
            letters = {shown_of(request) for request in of_row if request.path == f"/{row}/{hop}"}
            # Some versions of libcurl take user names out of a target, others leave them for us to refuse.
            is_asked = letters or not (hop and "userinfo" in name)
            assert letters == set(expected[hop : hop + 1] if is_asked else ""), f"{name}: hop {hop}"
        if row in chains.stumbling:
            assert len(of_row) >= 2 * len({request.path for request in of_row}), f"{name}: is tried again"
        assert {request.headers["X-Row"] for request in of_row if "X-Row" in request.headers} == {row_secret(row)}
    tokens = {"files.mine.example": MINE, "a.wild.example": WILD, "b.wild.example": WILD}
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    for request in chains.log:
        if "X-Key" in request.headers:
            token = MINE if request.host.startswith("proxied.example:") else tokens[request.host]
            values = [request.headers[header] for header in ("X-Key", "Authorization", "Cookie")]
            assert values == [token, f"Bearer {token}", f"s={token}"]
        assert (request.headers.get("Proxy-Authorization") == f"Basic {basic}") is request.by_proxy
        assert ("proxied.example" in request.host and request.scheme != "https") is request.by_proxy
    robots = [request for request in chains.log if request.path == "/robots.txt"]
    assert {shown_of(request) for request in robots} == {"-"}
    assert {request.host for request in robots} >= {"files.mine.example", "stranger.example", "a.wild.example"}
    connects = [request for request in chains.log if request.scheme == "connect"]
    assert {shown_of(request) for request in connects} == {"-"}, "what is for the server is not for its proxy"
    assert_no_secret(job, printed, status, plan)
    in_urls = b"".join(text for _, text in texts_of(job.output / "urls"))
    assert all(row_secret(row).encode() in in_urls for row in range(len(SHAPES))), "what is there would be found"


@pytest.mark.slow
def test_no_file_has_a_secret_whenever_a_run_is_killed(new_job: MakeJob, tmp_path: Path, environment: None) -> None:
    del environment
    chains = Chains([urls for _, urls, _ in SHAPES])
    with serving(chains, tmp_path / "authority.pem"):
        job = secret_job(new_job, tmp_path, chains, copies=8, checkpoint_interval_s=1)
        for requests in (0, 1, 200, 500):
            process = job.start(2, "--debug")
            before = len(chains.log)
            wait_until(lambda: (job.output / "logs").exists() and len(chains.log) >= before + requests, process)  # noqa: B023
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            _, printed = finish(process)
            assert_no_secret(job, printed)
        code, printed = job.run(2)
    assert code == 0, printed
    assert_every_row_once(job, 8 * len(SHAPES))
    assert_no_secret(job, printed)


def test_headers_are_in_the_results_only_where_the_user_keeps_them(new_job: MakeJob, tmp_path: Path) -> None:
    chains = Chains([["http://a.example/{}"], ["http://b.example/{}"]])
    with serving(chains, tmp_path / "authority.pem"):
        table = tmp_path / "urls.parquet"
        write_table(table, chains)
        found = {}
        for kept in ([], "all", ["headers"]):
            job = new_job(
                table,
                columns={"headers": "headers"},
                keep_columns=kept,
                downloader_parameters={"connect_to": chains.connect_to},
            )
            code, printed = job.run(1)
            assert code == 0, printed
            (part, *_) = (job.output / "images").rglob("*.parquet")
            found[str(kept)] = [name for name in pq.read_schema(part).names if "headers" in name]
    assert found == {"[]": [], "all": [], "['headers']": ["headers"]}
    assert {request.headers["X-Row"] for request in chains.log} == {row_secret(0), row_secret(1)}


def test_rows_whose_headers_cannot_be_sent_are_errors(new_job: MakeJob, tmp_path: Path) -> None:
    chains = Chains([["http://a.example/{}"]] * 5)
    cells = ['{"Host": "other"}', '{"X": "a\\r\\nY: b"}', "X: secret", '{"Proxy-Authorization": "secret"}', "{}"]
    with serving(chains, tmp_path / "authority.pem"):
        table = tmp_path / "urls.parquet"
        urls = [chains.location(row, 0) for row in range(5)]
        pq.write_table(pa.table({"identifier": urls, "headers": cells}), table)
        job = new_job(
            table,
            columns={"headers": "headers"},
            allow_refused=True,
            downloader_parameters={"connect_to": chains.connect_to},
        )
        code, printed = job.run(1)
    assert code == 0, printed
    errors = rows_of(job.output / "errors", ["row_number", "identifier", "error_kind", "error_msg"]).to_pylist()
    assert sorted(row["row_number"] for row in errors) == [0, 1, 2, 3]
    assert all(row["error_kind"] == "bad_url" and row["error_msg"].startswith("bad_headers: ") for row in errors)
    assert {row["identifier"] for row in errors} == set(urls[:4])
    assert not any("secret" in row["error_msg"] for row in errors)
    assert [request.path for request in chains.log] == ["/4/0"]


def test_a_variable_that_is_not_set_is_named_before_anything_is_made(new_job: MakeJob, tmp_path: Path) -> None:
    rule = {"match": "files.mine.example", "headers": {"Authorization": "Bearer ${DDMPI_TEST_MISSING}"}}
    job = new_job(tmp_path / "urls.parquet", servers=[rule])
    code, printed = job.run(1)
    assert code == 2
    assert "servers[0].headers.Authorization: the environment's variable DDMPI_TEST_MISSING is not set" in printed
    assert not job.output.exists()
