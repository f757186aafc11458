"""Whatever reads bytes that a stranger sends or a disk may damage: no bytes raise what is not documented, and no
damage is taken for what was written.

Beside these: URLs in ``test_urls``, whole answers in ``test_verdict``, images in ``test_image_bytes``, rules of
robots.txt in ``test_robots_txt``, X-Robots-Tag and Content-Usage in ``test_usage_signals``.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddmpi.config.control_file import ControlFile, parse_control
from ddmpi.core.pace.rate_limiter import RETRY_AFTER_MAX_S
from ddmpi.core.protocol import ControlOverride, decode, encode
from ddmpi.core.records import Answer, ErrorKind, Task
from ddmpi.core.rules.image_bytes import begins_like_image, image_is_cut_off
from ddmpi.core.rules.robots_txt import RobotsVerdict, judge_robots
from ddmpi.core.rules.verdict import SUCCESS, Outcome, classify, retry_after_seconds
from ddmpi.core.stats.metrics import decode_lines
from ddmpi.errors import ConfigError
from ddmpi.io.folder.checkpoint import Checkpoint, ServerState, load, save
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.markers import Marker, read_completed, write_completed
from ddmpi.io.results.images import header_size
from tests.core.test_protocol import MESSAGES
from tests.hostile.bodies import PICTURE, picture
from tests.io.result_data import make_batch

ENCODED = [encode(message) for message in MESSAGES]

FAST = settings(
    derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FEWER = settings(FAST, max_examples=60)
"""Where each example is a file, or YAML."""
DEEP = st.sampled_from([b"[", b'{"stages":', b'{"rows":[', b"\x91", b"\x81\xa1x"]).map(lambda opening: opening * 5000)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """What a disk or a line makes of ``sound``: bits flipped, an end or a hole of zeros, bytes in or out, anything."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 5)):
            case 0 | 1 if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                del data[at:]
            case 3:
                length = draw(st.integers(0, 16))
                data[at : at + length] = bytes(min(length, len(data) - at))
            case 4:
                del data[at : at + draw(st.integers(1, 8))]
            case _:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


# ---- between ranks


@FAST
@given(st.sampled_from(ENCODED).flatmap(damaged) | st.binary(max_size=60) | DEEP)
def test_messages(data: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError):
        assert decode(encode(decode(data))) == decode(data)


# ---- on disk

CHECKPOINT = Checkpoint(
    epoch=3,
    stages={"partitioned": {"rows": 10, "servers": ["a"]}},
    config_semantic={"batch_size": 10_000},
    servers={"ü.example:80": ServerState(2.5, 1_700_000_060.0, 2, 1, 3, ((1_700_000_090.0, 1e9),), ())},
    counters={"rows": 10**12},
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def sound_checkpoint(layout: Layout) -> bytes:
    save(layout, CHECKPOINT)
    return layout.checkpoint.read_bytes()


@FEWER
@given(st.data())
def test_checkpoints(layout: Layout, sound_checkpoint: bytes, data: st.DataObject) -> None:
    content = data.draw(damaged(sound_checkpoint) | st.binary(max_size=60) | DEEP)
    layout.checkpoint.write_bytes(content)
    found, warnings = load(layout)
    assert found in [None, CHECKPOINT]  # damage beside what counts may leave the meaning as it was
    assert bool(warnings) == (found is None)


BATCH = make_batch()
MARKED = Marker(1250, 1207, 43, {"dns": 43}, 7)


@pytest.fixture
def marker(layout: Layout) -> Path:
    write_completed(layout, BATCH, MARKED)
    return layout.completed(BATCH.server_name, BATCH.partition_id)


@FEWER
@given(st.data())
def test_markers(layout: Layout, marker: Path, data: st.DataObject) -> None:
    marker.write_bytes(data.draw(damaged(msgspec.json.encode(MARKED)) | st.binary(max_size=60) | DEEP))
    found = read_completed(layout, BATCH)
    assert found is None or found.rows == found.successes + found.errors


def test_no_flipped_bit_makes_another_marker(layout: Layout, marker: Path) -> None:
    sound = marker.read_bytes()
    for bit in range(0, 8 * len(sound), 3):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        marker.write_bytes(flipped)
        found = read_completed(layout, BATCH)
        if found is not None:
            assert (found.rows, found.successes, found.errors) == (1250, 1207, 43)
            assert found.ignored, "or the missing rows would be forgotten"


@FAST
@given(st.binary(max_size=80) | DEEP)
def test_lines_of_metrics(line: bytes) -> None:
    assert list(decode_lines([line])) == []


# ---- from people

CONTROL = b'servers:\n- {match: "*.example.org", rate_limit: 1.5, max_connections: 2}\n- {match: a.org, pause: true}\n'
YAML = st.text(st.sampled_from("servers:-{}[],&*!|>'\"%@`#?\n\t .0123456789eE~"), max_size=60)


@FEWER
@given(damaged(CONTROL).map(lambda data: data.decode("utf-8", "replace")) | YAML | st.text(max_size=40))
def test_control_files(text: str) -> None:
    try:
        parsed = parse_control(text, "control.yaml")
    except ConfigError as error:
        assert str(error).startswith("control.yaml: ")
    else:
        assert isinstance(parsed, ControlFile)
        assert all(isinstance(rule, ControlOverride) for rule in parsed.rules())


@pytest.mark.parametrize("text", ["[" * 500, "{a: " * 500, "- " * 500, "a: &a [*a]", "!!python/object:os.system {}"])
def test_control_files_that_are_meant_to_harm(text: str) -> None:
    with pytest.raises(ConfigError, match=r"control\.yaml: "):
        parse_control(text, "control.yaml")


# ---- from servers

HEADER_TEXT = st.text(st.characters(max_codepoint=255), max_size=60)
TYPES = st.sampled_from(["image/jpeg", "IMAGE/PNG", "text/html", "application/octet-stream", "", "image/svg+xml"])
TASK = Task(0, 0, "http://a.example/1.jpg", "a.example")
GOOD = Answer(TASK, curl_code=0, status=200, body=PICTURE, content_type="image/jpeg", content_length=len(PICTURE))


@FAST
@given(
    st.builds("{}{}".format, TYPES, HEADER_TEXT) | HEADER_TEXT, st.sampled_from([PICTURE, b"<html>", b"\xff\xd8\xff"])
)
def test_content_types(content_type: str, body: bytes) -> None:
    verdict = classify(replace(GOOD, content_type=content_type, body=body, content_length=len(body)), "image", 5)
    if verdict.outcome is Outcome.SUCCESS:
        assert body != b"<html>"
    else:
        assert verdict.failure is not None
        assert verdict.failure.kind is ErrorKind.WRONG_TYPE
        assert verdict.failure.message.isprintable()


DATES = st.builds(
    "{}, {:02} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon", "Sunday", "x"]),
    st.integers(-1, 99),
    st.sampled_from(["Jan", "Sep", "Sept", "13"]),
    st.integers(-1, 10**6),
    st.integers(-1, 99),
    st.integers(0, 99),
    st.integers(0, 10**6),
    st.sampled_from(["GMT", "EST", "+9999", "-0000", "", "Z"]),
)


@FAST
@given(DATES | HEADER_TEXT | st.integers().map(str), st.floats(0, 4e9))
def test_retry_after(value: str, now_wall: float) -> None:
    delay_s = retry_after_seconds(value, now_wall)
    assert delay_s is None or 0 <= delay_s <= RETRY_AFTER_MAX_S


@FAST
@given(
    st.builds(
        Answer,
        task=st.just(Task(-1, -1, "http://a.example/robots.txt", "a.example", robots_of="http://a.example")),
        curl_code=st.sampled_from([0, 0, 0, 7, 28, 56]),
        status=st.integers(0, 999),
        body=st.binary(max_size=60).map(lambda rest: b"User-agent: *\nDisallow: " + rest) | st.binary(max_size=60),
        content_length=st.integers(-1, 80),
        retry_after=HEADER_TEXT,
        location=HEADER_TEXT,
        error=st.text(max_size=40),
    )
)
def test_answers_to_requests_for_robots_txt(answer: Answer) -> None:
    verdict = judge_robots(answer, "ddmpi")
    assert isinstance(verdict, RobotsVerdict)
    assert (verdict.robots is not None) == (verdict.outcome is Outcome.SUCCESS)
    assert (verdict.failure is not None) == (verdict.outcome is Outcome.FAILURE)
    assert bool(verdict.location) == (verdict.outcome is Outcome.REDIRECT)
    assert verdict is not SUCCESS
    if verdict.robots is not None and answer.status >= 500:
        raise AssertionError("a server in trouble allows nothing")


@pytest.mark.parametrize("rule", ["/" + "*a" * 2000 + "*b$", "/" + "a*" * 2000, "*" * 9000 + "x", "/%" * 3000])
def test_rules_of_many_stars_take_no_time_to_speak_of(rule: str) -> None:
    """Regular expressions would need longer than the universe is old: then this test never ends."""
    body = f"User-agent: *\nDisallow: {rule}".encode()
    task = Task(-1, -1, "http://a.example/robots.txt", "a.example", robots_of="http://a.example")
    verdict = judge_robots(Answer(task, curl_code=0, status=200, body=body, content_length=len(body)), "ddmpi")
    assert verdict.robots is not None
    assert verdict.robots.objection("http://a.example/" + "a" * 8000 + "c") is None or rule.startswith("/a*")


FORMATS = [picture(image_format, 8) for image_format in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")]


@FAST
@given(st.sampled_from(FORMATS).flatmap(damaged))
def test_headers_of_images(body: bytes) -> None:
    assert image_is_cut_off(body) in {True, False}
    assert begins_like_image(body) in {True, False}
    size = header_size(body)
    assert size is None or (0 < size[0] < 2**31 and 0 < size[1] < 2**31)
