"""The fleet's pure parts: specs, verdicts, images, tables, and the audits on logs made by hand."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fleet.images import FORMATS, MEDIAN_BYTES, body_of
from tests.fleet.log import (
    Event,
    EventKind,
    LogWriter,
    highest_rate,
    most_bytes,
    most_connections,
    read_log,
    requests_during_pause,
    requests_per_path,
)
from tests.fleet.spec import (
    Mode,
    ServerSpec,
    Size,
    check_fleet,
    decode_specs,
    demo_fleet,
    encode_specs,
    plain_address,
    plain_fleet,
)
from tests.fleet.table import path_of, read_urls, row_of, servers_of_rows, write_table
from tests.fleet.verdict import Admission, Limiter, is_missing, verdict_of

A, B = "127.20.0.1:8080", "127.20.0.2:8080"


def request(time_s: float, note: str = "", server: str = A, connection: int = 1) -> Event:
    return Event(time_s, EventKind.REQUEST, server, connection, "/1.jpg", note=note)


def answer(time_s: float, status: int = 200, note: str = "whole", size_bytes: int = 10, connection: int = 1) -> Event:
    return Event(time_s, EventKind.ANSWER, A, connection, "/1.jpg", status, size_bytes, note)


# --- log ---


def test_a_log_reads_as_it_was_written(tmp_path: Path) -> None:
    events = [
        Event(1.25, EventKind.OPEN, A, 1),
        request(123456.123456789, "limited"),
        answer(123456.2, 429, "cut", 0),
        Event(123457.0, EventKind.CLOSE, A, 1),
    ]
    path = tmp_path / "requests.log"
    writer = LogWriter(path)
    for event in events:
        writer.write(event)
    assert read_log(path) == []
    writer.flush()
    assert read_log(path) == events
    writer.close()
    with path.open("a") as torn:
        torn.write("123458.0\tope")
    assert read_log(path) == events


def test_a_line_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "requests.log").write_text("hello\n")
    with pytest.raises(ValueError, match="not a line of a fleet's log"):
        read_log(tmp_path / "requests.log")


def test_only_whole_200_answers_count_as_fetched() -> None:
    log = [answer(1), answer(2, note="cut"), answer(3, 404), answer(4)]
    assert requests_per_path(log) == {"/1.jpg": 2}


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 20))
def test_the_highest_rate_is_that_of_the_fullest_window(times: list[int], window: int) -> None:
    times.sort()
    log = [request(float(time)) for time in times] + [request(0.0, server=B)] * 20
    by_hand = max((sum(start <= time < start + window for time in times) for start in range(41)), default=0)
    assert highest_rate(log, A, float(window)) == by_hand


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=12), st.integers(1, 20))
def test_the_most_bytes_are_those_of_the_fullest_window(answers: list[tuple[int, int]], window: int) -> None:
    answers.sort()
    log = [answer(float(time), size_bytes=size) for time, size in answers]
    by_hand = max(sum(size for time, size in answers if start <= time < start + window) for start in range(41))
    assert most_bytes(log, A, float(window)) == by_hand


def test_connections_count_while_open_and_for_their_server() -> None:
    kinds = [(A, EventKind.OPEN), (A, EventKind.OPEN), (B, EventKind.OPEN), (A, EventKind.CLOSE), (A, EventKind.OPEN)]
    log = [Event(float(index), kind, server, index) for index, (server, kind) in enumerate(kinds)]
    assert (most_connections(log, A), most_connections(log, B), most_connections(log, "other")) == (2, 1, 0)


@pytest.mark.parametrize(
    ("log", "faults"),
    [
        pytest.param([request(1, "limited"), answer(1.1, 429)], 0, id="the request that starts it is no fault"),
        pytest.param(
            [request(1, "limited"), request(1.05, "paused", connection=2), answer(1.1, 429)],
            0,
            id="on the way before the client could know",
        ),
        pytest.param(
            [request(1, "limited"), answer(1.1, 429), request(1.15, "paused", connection=2)],
            0,
            id="within the grace",
        ),
        pytest.param([request(1, "limited"), answer(1.1, 429), request(1.5, "paused")], 1, id="after it was told"),
        pytest.param(
            [request(1, "limited"), answer(1.1, 429, "cut"), request(1.5, "paused")], 0, id="never told: answer cut"
        ),
        pytest.param(
            [
                request(1, "limited"),
                request(1.01, "paused", connection=2),
                answer(1.1, 429, "cut"),
                answer(1.11, 429, connection=2),
                request(1.5, "paused"),
            ],
            1,
            id="told by the second 429",
        ),
        pytest.param(
            [
                request(1, "limited"),
                answer(1.1, 429),
                request(3.2, "limited"),
                request(3.25, "paused", connection=2),
                answer(3.3, 429),
            ],
            0,
            id="a second pause has to be told anew",
        ),
        pytest.param([request(1, "limited"), answer(1.1, 429), request(3.5)], 0, id="after the pause"),
        pytest.param(
            [request(1, "limited"), answer(1.1, 429), request(1.5, "paused", B)], 0, id="another server's request"
        ),
    ],
)
def test_faults_are_requests_in_a_pause_the_client_knew_of(log: list[Event], faults: int) -> None:
    assert requests_during_pause(log, A, grace_s=0.1) == faults


# --- specs and verdicts ---


def test_the_demo_fleet_fits_together_and_leaves_a_polite_client_alone() -> None:
    specs = demo_fleet()
    check_fleet(specs)
    assert len(specs) == 40
    assert sum(0 < spec.rate_limit_per_s < 50 for spec in specs) == 2
    assert [spec.mode for spec in specs if spec.mode is not Mode.OK] == [Mode.REFUSED, Mode.HTML, Mode.RESET]
    assert {spec.size for spec in demo_fleet(Size.NORMAL)} == {Size.NORMAL}


def test_specs_survive_their_encoding() -> None:
    specs = demo_fleet(Size.NORMAL)
    assert decode_specs(encode_specs(specs)) == specs


def test_plain_fleets_have_addresses_of_their_own() -> None:
    specs = plain_fleet(1000, 3)
    check_fleet(specs)
    assert {spec.rate_limit_per_s for spec in specs} == {3}
    assert [plain_address(index) for index in (0, 249, 250)] == ["127.16.0.1", "127.16.0.250", "127.16.1.1"]


def test_fields_out_of_range_are_refused() -> None:
    for broken in (
        {"address": "10.0.0.1"},
        {"latency_s": -1.0},
        {"refused_retry_after_s": -1},
        {"error_rate": 1.1},
        {"body_bytes_per_s": float("inf")},
        {"error_statuses": ()},
        {"mode": Mode.REFUSED, "mode_share": 0.5},
    ):
        with pytest.raises(ValueError, match=r"^(127\.20\.0\.1|10\.0\.0\.1): "):
            ServerSpec(**{"address": "127.20.0.1", **broken})  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="two specs"):
        check_fleet([ServerSpec("127.20.0.1"), ServerSpec("127.20.0.1", latency_s=1)])
    with pytest.raises(ValueError, match="not in the fleet"):
        check_fleet([ServerSpec("127.20.0.1", redirect_to="127.20.0.2")])


def test_the_limiter_admits_the_burst_and_then_the_rate() -> None:
    limiter = Limiter(ServerSpec("127.20.0.1", rate_limit_per_s=4, burst=2))
    admissions = [limiter.admit(now) for now in (10.0, 10.0, 10.0, 10.125, 10.25, 10.25)]
    passed, limited = Admission.PASSED, Admission.LIMITED
    assert admissions == [passed, passed, limited, limited, passed, limited]
    assert limiter.retry_after_s(10.25) == 0


def test_a_limit_changes_when_it_should() -> None:
    limiter = Limiter(ServerSpec("127.20.0.1", rate_limit_per_s=1, burst=1, later_limits=((10.0, 4.0),)))
    passed, limited = Admission.PASSED, Admission.LIMITED
    assert [limiter.admit(5.0 + after) for after in (0.0, 0.5, 1.0)] == [passed, limited, passed]
    assert [limiter.admit(16.0 + after) for after in (0.0, 0.25, 0.375, 0.5)] == [passed, passed, limited, passed]


def test_a_pause_refuses_all_and_then_ends() -> None:
    limiter = Limiter(ServerSpec("127.20.0.1", rate_limit_per_s=1, retry_after_s=2))
    admissions = [limiter.admit(now) for now in (10.0, 10.5, 11.5, 12.4, 12.5)]
    passed, limited, paused = Admission.PASSED, Admission.LIMITED, Admission.PAUSED
    assert admissions == [passed, limited, paused, paused, passed]
    assert [limiter.retry_after_s(now) for now in (10.5, 10.6, 11.6)] == [2, 2, 1]


def test_chance_has_the_shares_of_the_spec() -> None:
    spec = ServerSpec("127.20.0.1", error_rate=0.2, not_found_share=0.1, mode=Mode.RESET, mode_share=0.5)
    verdicts = Counter(verdict_of(spec, f"/{number}.jpg", 1) for number in range(10_000))
    shares = {(verdict.mode, verdict.status): count / 10_000 for verdict, count in verdicts.items()}
    expected = {
        (Mode.OK, 404): 0.1,
        (Mode.OK, 503): 0.09,
        (Mode.OK, 500): 0.09,
        (Mode.RESET, 200): 0.36,
        (Mode.OK, 200): 0.36,
    }
    assert shares == pytest.approx(expected, abs=0.02)
    assert all(
        verdict_of(spec, f"/{number}.jpg", tried).status == 404
        for number in range(50)
        for tried in range(1, 9)
        if is_missing(spec, f"/{number}.jpg")
    )


# --- images and tables ---


@pytest.mark.parametrize("suffix", FORMATS)
def test_images_are_read_by_pillow_and_opencv(suffix: str) -> None:
    spec = ServerSpec("127.20.0.1")
    for number in range(20):
        body = body_of(spec, f"/{number}.{suffix}")
        with Image.open(io.BytesIO(body)) as image:
            image.load()
            assert image.format == FORMATS[suffix].pillow_name
            size = image.size
        decoded = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None and decoded.shape == (size[1], size[0], 3)


@pytest.mark.parametrize("size", Size)
def test_bodies_are_distinct_and_about_as_large_as_said(size: Size) -> None:
    specs = [ServerSpec(f"127.20.0.{host}", size=size) for host in (1, 2)]
    bodies = [body_of(spec, path_of(row)) for spec in specs for row in range(500)]
    assert len(set(bodies)) == len(bodies)
    assert MEDIAN_BYTES[size] * 0.7 < np.median([len(body) for body in bodies]) < MEDIAN_BYTES[size] * 1.4


def test_rows_follow_the_weights_and_are_interleaved() -> None:
    specs = [ServerSpec(f"127.20.0.{host}", row_weight=weight) for host, weight in ((1, 2), (2, 1), (3, 0))]
    assert servers_of_rows(specs, 6) == [0, 1, 0, 0, 1, 0]
    assert Counter(servers_of_rows(specs, 11, zipf=1.0)) == {0: 6, 1: 3, 2: 2}
    with pytest.raises(ValueError, match="row_weight"):
        servers_of_rows(specs[2:], 1)


@given(st.integers(0, 300), st.integers(1, 40), st.floats(0, 2))
def test_every_row_has_a_server(rows: int, servers: int, zipf: float) -> None:
    assigned = servers_of_rows(plain_fleet(servers), rows, zipf)
    assert len(assigned) == rows
    assert all(0 <= server < servers for server in assigned)


def test_a_table_is_the_same_each_time_and_as_csv(tmp_path: Path) -> None:
    specs = demo_fleet()
    urls = write_table(tmp_path / "a.parquet", specs, 400, 8080)
    assert write_table(tmp_path / "b.csv", specs, 400, 8080) == urls == read_urls(tmp_path / "a.parquet")
    parquet = pq.read_table(tmp_path / "a.parquet")
    assert parquet.column_names == ["uuid", "source_id", "identifier", "license", "source", "title"]
    assert len(set(parquet.column("uuid").to_pylist())) == 400
    csv = pa_csv.read_csv(tmp_path / "b.csv")
    assert csv.column("uuid").to_pylist() == parquet.column("uuid").to_pylist()
    assert csv.column("identifier").to_pylist() == urls
    assert [row_of("/" + url.rpartition("/")[2]) for url in urls] == list(range(400))
    assert "http://127.10.0.37:8081/" in {url[: url.rindex("/") + 1] for url in urls}, "refusing: the next port"
    with pytest.raises(ValueError, match="neither"):
        write_table(tmp_path / "c.txt", specs, 1, 8080)
