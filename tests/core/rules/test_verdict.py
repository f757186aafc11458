"""What counts as a success, and what every other answer is called."""

from __future__ import annotations

import math
from dataclasses import replace

import pycurl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.records import (
    ERROR_CODE_LOCAL,
    ERROR_CODE_NETWORK,
    Answer,
    ErrorKind,
    Failure,
    Task,
    Validators,
    error_code,
)
from ddmpi.core.rules.verdict import (
    MESSAGE_CHARS,
    NOT_MODIFIED,
    SUCCESS,
    Outcome,
    classify,
    failure_of_given_up,
    one_line,
    retry_after_seconds,
)

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
PLAIN_TASK = Task(batch_id=1, row=0, url="http://a.example/1.jpg", server="a.example")
GOOD = Answer(PLAIN_TASK, status=200, body=JPEG, content_type="image/jpeg", content_length=len(JPEG), fetched_at=1e9)
"""A healthy answer; each case changes what makes it differ."""


def failure_of(answer: Answer, accept: str = "image") -> tuple[ErrorKind, int, bool, Signal]:
    verdict = classify(answer, accept, max_redirects=5)
    assert verdict.outcome is Outcome.FAILURE
    assert verdict.failure is not None
    assert verdict.location == ""
    assert verdict.failure.message
    return verdict.failure.kind, verdict.failure.code, verdict.transient, verdict.signal


def after_transfer_error(code: int, text: str = "", status: int = 0) -> Answer:
    return replace(GOOD, curl_code=code, error=text, status=status, body=b"", content_length=-1)


# ---- success


def test_a_success_is_one_shared_object() -> None:
    assert classify(GOOD, "image", 5) is SUCCESS
    assert classify(GOOD, "any", 5) is SUCCESS
    assert (SUCCESS.outcome, SUCCESS.signal, SUCCESS.failure) == (Outcome.SUCCESS, Signal.OK, None)


BMP = (
    b"BM" + (60).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little") + bytes(42)
)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(JPEG, id="JPEG"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(9), id="PNG"),
        pytest.param(b"GIF87a" + bytes(9), id="GIF of 1987"),
        pytest.param(b"GIF89a" + bytes(9), id="GIF of 1989"),
        pytest.param(b"RIFF\x10\x00\x00\x00WEBPVP8 ", id="WebP"),
        pytest.param(b"II*\x00" + bytes(9), id="little-endian TIFF"),
        pytest.param(b"MM\x00*" + bytes(9), id="big-endian TIFF"),
        pytest.param(b"II+\x00" + bytes(9), id="BigTIFF"),
        pytest.param(BMP, id="BMP"),
        pytest.param(b"\x00\x00\x00\x20ftypavif" + bytes(9), id="AVIF"),
        pytest.param(b"\x00\x00\x00\x18ftypheic" + bytes(9), id="HEIC"),
        pytest.param(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(9), id="JPEG 2000"),
        pytest.param(b"\xff\x4f\xff\x51" + bytes(9), id="JPEG 2000 code stream"),
    ],
)
def test_an_image_is_known_by_its_first_bytes(body: bytes) -> None:
    assert classify(replace(GOOD, body=body, content_length=len(body)), "image", 5) is SUCCESS


@pytest.mark.parametrize(
    "content_type",
    [
        "image/jpeg",
        "IMAGE/JPEG",
        " image/png; charset=binary",
        "application/octet-stream",
        "Application/Octet-Stream; x=y",
        "binary/octet-stream",
        "",
        "text/plain",
        "text/html; charset=UTF-8",
        "application/force-download",
        "image",
        "*/*",
    ],
)
def test_content_types_that_an_image_may_have(content_type: str) -> None:
    assert classify(replace(GOOD, content_type=content_type), "image", 5) is SUCCESS


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(replace(GOOD, content_length=-1, end_announced=True), id="chunks"),
        pytest.param(replace(GOOD, content_length=3), id="more than was announced"),
    ],
)
def test_a_body_that_came_to_its_announced_end_is_whole(answer: Answer) -> None:
    assert classify(answer, "image", 5) is SUCCESS


@pytest.mark.parametrize("accept", ["image", "any"])
def test_an_image_whose_end_nobody_announced_has_to_be_whole(accept: str) -> None:
    expected = (ErrorKind.NETWORK, ERROR_CODE_NETWORK, True, Signal.SERVER_ERROR)
    assert failure_of(replace(GOOD, content_length=-1), accept) == expected


def test_what_is_no_image_cannot_be_told_to_be_whole() -> None:
    answer = replace(GOOD, content_length=-1, body=b"BMW drivers of the world, unite")
    assert classify(answer, "any", 5) is SUCCESS


# ---- bodies of a 200

HTML = b"<!doctype html><title>Not found</title>"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(
            replace(GOOD, body=HTML, content_length=len(HTML), content_type="text/html"),
            (ErrorKind.WRONG_TYPE, ERROR_CODE_LOCAL, False, Signal.OK),
            id="a page instead of the image",
        ),
        pytest.param(
            replace(GOOD, body=HTML, content_length=len(HTML)),
            (ErrorKind.WRONG_TYPE, ERROR_CODE_LOCAL, False, Signal.OK),
            id="a page that claims to be an image",
        ),
        pytest.param(
            replace(GOOD, body=b"\x00\x00\x00\x20ftypisom" + bytes(9), content_length=-1),
            (ErrorKind.WRONG_TYPE, ERROR_CODE_LOCAL, False, Signal.OK),
            id="a film in the container of an image",
        ),
        pytest.param(
            replace(GOOD, body=b"RIFF\x10\x00\x00\x00WAVEfmt ", content_length=-1),
            (ErrorKind.WRONG_TYPE, ERROR_CODE_LOCAL, False, Signal.OK),
            id="a sound in the container of an image",
        ),
        pytest.param(
            replace(GOOD, body=b"BMW drivers of the world, unite", content_length=-1),
            (ErrorKind.WRONG_TYPE, ERROR_CODE_LOCAL, False, Signal.OK),
            id="a text that begins like a BMP",
        ),
        pytest.param(
            replace(GOOD, body=b"", content_length=-1),
            (ErrorKind.EMPTY_BODY, ERROR_CODE_LOCAL, True, Signal.SERVER_ERROR),
            id="headers that were cut off look like an empty body without a length",
        ),
        pytest.param(
            replace(GOOD, body=b"", content_length=-1, end_announced=True),
            (ErrorKind.EMPTY_BODY, ERROR_CODE_LOCAL, False, Signal.OK),
            id="no bytes, and then the last chunk",
        ),
        pytest.param(
            replace(GOOD, body=b"", content_length=0),
            (ErrorKind.EMPTY_BODY, ERROR_CODE_LOCAL, False, Signal.OK),
            id="a body that is meant to be empty",
        ),
        pytest.param(
            replace(GOOD, content_length=len(JPEG) + 1),
            (ErrorKind.NETWORK, ERROR_CODE_NETWORK, True, Signal.SERVER_ERROR),
            id="a body that is shorter than its length",
        ),
    ],
)
def test_a_200_that_is_no_success(answer: Answer, expected: tuple[ErrorKind, int, bool, Signal]) -> None:
    assert failure_of(answer) == expected


def test_any_body_will_do_where_any_is_accepted_but_not_none() -> None:
    assert classify(replace(GOOD, body=HTML, content_type="text/html"), "any", 5) is SUCCESS
    assert failure_of(replace(GOOD, body=b"", content_length=0), "any")[0] is ErrorKind.EMPTY_BODY


def test_an_unknown_rule_for_bodies_is_a_bug_of_the_caller() -> None:
    with pytest.raises(KeyError, match="films"):
        classify(GOOD, "films", 5)


# ---- statuses


@pytest.mark.parametrize("status", [100, 201, 202, 203, 204, 205, 206, 226, 300, 304, 305, 400, 404, 410, 418, 999])
def test_other_answers_of_a_healthy_server_are_permanent(status: int) -> None:
    signal = Signal.SERVER_ERROR if status == 999 else Signal.OK
    assert failure_of(replace(GOOD, status=status)) == (ErrorKind.HTTP_STATUS, status, False, signal)


@pytest.mark.parametrize("status", [401, 403, 451, 501, 505])
def test_refusals_are_permanent_and_no_reason_to_go_faster(status: int) -> None:
    signal = Signal.FORBIDDEN if status == 403 else Signal.SERVER_ERROR
    assert failure_of(replace(GOOD, status=status)) == (ErrorKind.HTTP_STATUS, status, False, signal)


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchKey"])
def test_a_buckets_403_is_about_the_key_alone(code: str) -> None:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()
    answer = replace(GOOD, status=403, body=body)
    assert failure_of(answer) == (ErrorKind.HTTP_STATUS, 403, False, Signal.OK)


def test_rows_of_a_server_that_is_given_up_have_no_status() -> None:
    banned = failure_of_given_up(classify(replace(GOOD, status=403), "any", 5))
    assert (banned.kind, banned.code) == (ErrorKind.SERVER_REFUSED, -2)
    silent = failure_of_given_up(classify(replace(GOOD, status=0, curl_code=7, error="refused"), "any", 5))
    assert (silent.kind, silent.code) == (ErrorKind.UNREACHABLE, -1)
    assert silent.message == "the server has not answered any probe, at last: connect, refused"


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 529, 530])
def test_troubles_of_the_server_are_transient(status: int) -> None:
    signal = Signal.OK if status == 425 else Signal.SERVER_ERROR
    assert failure_of(replace(GOOD, status=status)) == (ErrorKind.HTTP_STATUS, status, True, signal)


def test_which_statuses_are_transient_can_be_said() -> None:
    for status in (404, 500):
        verdict = classify(replace(GOOD, status=status), "image", 5, (404, 501))
        assert verdict.transient is (status == 404)
    refused = classify(replace(GOOD, status=429, retry_after="7"), "image", 5, ())
    assert (refused.transient, refused.signal, refused.retry_after_s) == (False, Signal.THROTTLED, 7.0)


@pytest.mark.parametrize("retry_after", ["17", "Sun, 09 Sep 2001 01:46:57 GMT"])
@pytest.mark.parametrize("status", [403, 408, 425, 500, 502, 503, 504, 529])
def test_what_comes_later_and_says_when_is_throttling(status: int, retry_after: str) -> None:
    answer = replace(GOOD, status=status, retry_after=retry_after)
    assert failure_of(answer) == (ErrorKind.HTTP_STATUS, status, True, Signal.THROTTLED)
    assert classify(answer, "image", 5).retry_after_s == 17.0


def test_a_file_that_is_being_made_comes_later_and_is_no_throttling() -> None:
    answer = replace(GOOD, status=202, retry_after="17")
    assert failure_of(answer) == (ErrorKind.HTTP_STATUS, 202, True, Signal.SERVER_ERROR)
    assert classify(answer, "image", 5).retry_after_s == 17.0


def test_a_retry_after_of_no_time_is_no_throttling() -> None:
    assert failure_of(replace(GOOD, status=202, retry_after="0")) == (ErrorKind.HTTP_STATUS, 202, True, Signal.OK)
    assert failure_of(replace(GOOD, status=502, retry_after="0"))[3] is Signal.SERVER_ERROR


@pytest.mark.parametrize("status", [202, 403, 500])
def test_a_retry_after_that_is_none_changes_nothing(status: int) -> None:
    assert failure_of(replace(GOOD, status=status, retry_after="soon")) == failure_of(replace(GOOD, status=status))


@pytest.mark.parametrize("status", [302, 404, 410])
def test_a_final_answer_may_ask_for_a_pause_as_well(status: int) -> None:
    verdict = classify(replace(GOOD, status=status, retry_after="17", location="/x"), "image", 5)
    assert (verdict.transient, verdict.signal, verdict.retry_after_s) == (False, Signal.SERVER_ERROR, 17.0)


@pytest.mark.parametrize(
    "body",
    [
        b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>',
        b"Please reduce your request rate.",
    ],
)
def test_a_bucket_that_says_slow_down_is_throttling(body: bytes) -> None:
    assert failure_of(replace(GOOD, status=503, body=body)) == (ErrorKind.HTTP_STATUS, 503, True, Signal.THROTTLED)
    assert failure_of(replace(GOOD, status=500, body=body))[3] is Signal.SERVER_ERROR


@pytest.mark.parametrize(
    ("status", "retry_after", "retry_after_s"),
    [
        (429, "17", 17.0),
        (429, "", None),
        (420, "", None),
        (503, "5", 5.0),
        (503, "soon", None),
        (429, "Sun, 09 Sep 2001 01:47:22 GMT", 42.0),
    ],
)
def test_throttling_is_transient_and_says_how_long(status: int, retry_after: str, retry_after_s: float | None) -> None:
    answer = replace(GOOD, status=status, retry_after=retry_after)
    assert failure_of(answer) == (ErrorKind.HTTP_STATUS, status, True, Signal.THROTTLED)
    assert classify(answer, "image", 5).retry_after_s == retry_after_s


@pytest.mark.parametrize("status", [0, 99, 1000])
def test_what_is_no_status_at_all_is_a_violation_of_the_protocol(status: int) -> None:
    assert failure_of(replace(GOOD, status=status)) == (ErrorKind.PROTOCOL, ERROR_CODE_NETWORK, False, Signal.FAILED)


# ---- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_its_target_as_the_server_sent_it(status: int) -> None:
    verdict = classify(replace(GOOD, status=status, location=" /elsewhere.jpg "), "image", 5)
    assert (verdict.outcome, verdict.location, verdict.signal) == (Outcome.REDIRECT, "/elsewhere.jpg", Signal.OK)
    assert verdict.failure is None


def test_a_redirect_without_a_target_is_permanent() -> None:
    expected = (ErrorKind.REDIRECT, ERROR_CODE_LOCAL, False, Signal.OK)
    assert failure_of(replace(GOOD, status=302, location=" ")) == expected


@pytest.mark.parametrize(("redirects", "outcome"), [(4, Outcome.REDIRECT), (5, Outcome.FAILURE)])
def test_a_row_is_redirected_so_often_and_no_more(redirects: int, outcome: Outcome) -> None:
    task = replace(PLAIN_TASK, redirects=redirects)
    verdict = classify(replace(GOOD, task=task, status=302, location="/x"), "image", 5)
    assert verdict.outcome is outcome
    assert (verdict.failure is not None and verdict.failure.kind is ErrorKind.REDIRECT) == (redirects == 5)


# ---- transfers that libcurl gave up


@pytest.mark.parametrize(
    ("code", "kind", "transient", "signal"),
    [
        (pycurl.E_UNSUPPORTED_PROTOCOL, ErrorKind.PROTOCOL, False, Signal.FAILED),
        (pycurl.E_URL_MALFORMAT, ErrorKind.BAD_URL, False, Signal.LOCAL),
        (pycurl.E_COULDNT_RESOLVE_PROXY, ErrorKind.CONNECT, True, Signal.CONNECT_FAILED),
        (pycurl.E_COULDNT_RESOLVE_HOST, ErrorKind.DNS, True, Signal.CONNECT_FAILED),
        (pycurl.E_COULDNT_CONNECT, ErrorKind.CONNECT, True, Signal.CONNECT_FAILED),
        (pycurl.E_PARTIAL_FILE, ErrorKind.NETWORK, True, Signal.FAILED),
        (pycurl.E_WRITE_ERROR, ErrorKind.NETWORK, True, Signal.LOCAL),
        (pycurl.E_OUT_OF_MEMORY, ErrorKind.NETWORK, True, Signal.LOCAL),
        (pycurl.E_SSL_CONNECT_ERROR, ErrorKind.TLS, True, Signal.CONNECT_FAILED),
        (pycurl.E_ABORTED_BY_CALLBACK, ErrorKind.NETWORK, True, Signal.LOCAL),
        (pycurl.E_TOO_MANY_REDIRECTS, ErrorKind.REDIRECT, False, Signal.OK),
        (pycurl.E_GOT_NOTHING, ErrorKind.NETWORK, True, Signal.FAILED),
        (pycurl.E_SEND_ERROR, ErrorKind.NETWORK, True, Signal.FAILED),
        (pycurl.E_RECV_ERROR, ErrorKind.NETWORK, True, Signal.FAILED),
        (pycurl.E_PEER_FAILED_VERIFICATION, ErrorKind.TLS, False, Signal.CONNECT_FAILED),
        (pycurl.E_BAD_CONTENT_ENCODING, ErrorKind.PROTOCOL, False, Signal.FAILED),
        (pycurl.E_FILESIZE_EXCEEDED, ErrorKind.TOO_LARGE, False, Signal.OK),
        (pycurl.E_SSL_CACERT_BADFILE, ErrorKind.TLS, True, Signal.CONNECT_FAILED),
        (8, ErrorKind.PROTOCOL, False, Signal.FAILED),
        (16, ErrorKind.NETWORK, True, Signal.FAILED),
        (92, ErrorKind.NETWORK, True, Signal.FAILED),
        (12_345, ErrorKind.NETWORK, True, Signal.FAILED),
    ],
)
def test_what_libcurl_gave_up(code: int, kind: ErrorKind, transient: bool, signal: Signal) -> None:
    assert failure_of(after_transfer_error(code)) == (kind, error_code(kind, 0), transient, signal)


@pytest.mark.parametrize(
    "text",
    [
        "Too large response headers: 307223 > 307200",
        "chunk hex-length char not a hex digit: 0x7a",
        "chunk hex-length longer than 17",
    ],
)
def test_an_answer_that_breaks_the_rules_is_permanent_whatever_code_it_comes_with(text: str) -> None:
    expected = (ErrorKind.PROTOCOL, ERROR_CODE_NETWORK, False, Signal.SERVER_ERROR)
    assert failure_of(after_transfer_error(56, text, status=200)) == expected


def test_a_transfer_that_broke_off_after_the_status_was_an_answer() -> None:
    assert failure_of(after_transfer_error(pycurl.E_RECV_ERROR, status=200))[3] is Signal.SERVER_ERROR


@pytest.mark.parametrize(
    ("answer", "kind", "signal"),
    [
        pytest.param(
            replace(after_transfer_error(28, "Connection timed out after 400 milliseconds"), ttfb_s=0.4),
            ErrorKind.TIMEOUT,
            Signal.CONNECT_FAILED,
            id="nobody took the connection",
        ),
        pytest.param(
            replace(after_transfer_error(28, "Connection timed out after 400 milliseconds"), connect_s=0.1, ip="::1"),
            ErrorKind.TIMEOUT,
            Signal.CONNECT_FAILED,
            id="connected, but the TLS handshake did not end",
        ),
        pytest.param(
            after_transfer_error(28, "Resolving timed out after 10000 milliseconds"),
            ErrorKind.TIMEOUT,
            Signal.CONNECT_FAILED,
            id="no name server answered",
        ),
        pytest.param(
            replace(after_transfer_error(28, "Operation timed out after 400 milliseconds with 0 bytes received")),
            ErrorKind.TIMEOUT,
            Signal.FAILED,
            id="no answer on a connection that was used before, whose connect time is 0",
        ),
        pytest.param(
            after_transfer_error(28, "Operation timed out after 401 milliseconds with 2 out of 20 bytes received", 200),
            ErrorKind.TIMEOUT,
            Signal.SERVER_ERROR,
            id="the body took too long",
        ),
        pytest.param(
            after_transfer_error(28, "Operation too slow. Less than 1 bytes/sec transferred the last 20 seconds", 200),
            ErrorKind.STALLED,
            Signal.SERVER_ERROR,
            id="the body stopped coming",
        ),
        pytest.param(
            after_transfer_error(28, "Operation too slow. Less than 1 bytes/sec transferred the last 20 seconds"),
            ErrorKind.STALLED,
            Signal.FAILED,
            id="the server took the request and said nothing",
        ),
        pytest.param(after_transfer_error(28), ErrorKind.TIMEOUT, Signal.CONNECT_FAILED, id="no text, no address"),
        pytest.param(
            replace(after_transfer_error(28), connect_s=0.1), ErrorKind.TIMEOUT, Signal.FAILED, id="no text, connected"
        ),
    ],
)
def test_the_one_code_for_all_timeouts(answer: Answer, kind: ErrorKind, signal: Signal) -> None:
    assert failure_of(answer) == (kind, ERROR_CODE_NETWORK, True, signal)


@pytest.mark.parametrize("code", [pycurl.E_COULDNT_CONNECT, pycurl.E_ABORTED_BY_CALLBACK, 0])
def test_a_refused_address_is_permanent_and_says_nothing_about_the_server(code: int) -> None:
    answer = replace(after_transfer_error(code, "private address 10.0.0.1"), blocked=True)
    assert failure_of(answer) == (ErrorKind.BLOCKED_ADDRESS, ERROR_CODE_LOCAL, False, Signal.LOCAL)


@pytest.mark.parametrize("code", [pycurl.E_FILESIZE_EXCEEDED, pycurl.E_WRITE_ERROR])
def test_a_body_that_is_too_large_is_permanent_whoever_stopped_it(code: int) -> None:
    answer = replace(after_transfer_error(code, status=200), too_large=True)
    assert failure_of(answer) == (ErrorKind.TOO_LARGE, ERROR_CODE_LOCAL, False, Signal.OK)


# ---- Retry-After

NOW_WALL = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT


@pytest.mark.parametrize(
    ("value", "delay_s"),
    [
        pytest.param("17", 17.0, id="seconds"),
        pytest.param(" 120 ", 120.0, id="seconds with spaces around"),
        pytest.param("0", 0.0, id="no seconds"),
        pytest.param("86401", 86_400.0, id="more than a day"),
        pytest.param("9" * 10_000, 86_400.0, id="more digits than Python converts"),
        pytest.param("-5", None, id="negative seconds"),
        pytest.param("1.5", None, id="a fraction"),
        pytest.param("1e3", None, id="an exponent"),
        pytest.param("\u0661\u0662", None, id="digits of another script"),
        pytest.param("", None, id="nothing"),
        pytest.param("tomorrow", None, id="a word"),
        pytest.param("Sun, 09 Sep 2001 01:47:22 GMT", 42.0, id="a date of RFC 1123"),
        pytest.param("Sunday, 09-Sep-01 01:47:22 GMT", 42.0, id="a date of RFC 850"),
        pytest.param("Sun Sep  9 01:47:22 2001", 42.0, id="a date of asctime"),
        pytest.param("Sun, 09 Sep 2001 03:47:22 +0200", 42.0, id="a date in another zone"),
        pytest.param("Sun, 09 Sep 2001 01:47:22 -0000", 42.0, id="a date in an unknown zone"),
        pytest.param("Sun, 09 Sep 2001 01:46:00 GMT", None, id="a date that is over"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0, id="a date far away"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 -2359", 86_400.0, id="a date at the end of the calendar"),
        pytest.param("Sun, 99 Sep 2001 01:47:22 GMT", None, id="a day that does not exist"),
    ],
)
def test_retry_after(value: str, delay_s: float | None) -> None:
    assert retry_after_seconds(value, NOW_WALL) == delay_s


# ---- no answer raises, every failure has a clean message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("two\r\nlines\tand\x00more", "two lines and more", id="control characters become spaces"),
        pytest.param("left \u2028\u202eright\ud800", "left right", id="so do marks of direction and half characters"),
        pytest.param("at http://me:secret@h.example/x", "at http://h.example/x", id="credentials are dropped"),
        pytest.param("at https://h.example/x?key=1 now", "at https://h.example/x?... now", id="queries are dropped"),
        pytest.param("Zürich 東京", "Zürich 東京", id="letters are kept"),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_text_without_a_printable_character_is_replaced_by_the_kind() -> None:
    failure = classify(replace(after_transfer_error(56), error="\x00\x01"), "image", 5).failure
    assert failure == Failure(ErrorKind.NETWORK, ERROR_CODE_NETWORK, "network")


def test_a_long_message_is_cut_and_says_so() -> None:
    line = one_line("x" * 100_000)
    assert len(line) == MESSAGE_CHARS
    assert line.endswith("...")


def test_the_text_of_a_server_gets_into_a_message_only_as_one_line() -> None:
    failure = classify(replace(GOOD, body=b"x" * len(JPEG), content_type="text/\r\nx" + "y" * 5000), "image", 5).failure
    assert isinstance(failure, Failure)
    assert failure.message.startswith("content type text/ xyyy")
    assert len(failure.message) == MESSAGE_CHARS


answers = st.builds(
    Answer,
    task=st.just(PLAIN_TASK),
    curl_code=st.integers(0, 101),
    status=st.integers(-1, 1100),
    body=st.binary(max_size=40),
    content_type=st.text(max_size=400),
    content_length=st.integers(-1, 50),
    retry_after=st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"),
    location=st.text(max_size=10),
    connect_s=st.floats(0, 10),
    fetched_at=st.floats(0, 2e9),
    error=st.text(max_size=400),
    blocked=st.booleans(),
    too_large=st.booleans(),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(answers, st.sampled_from(["image", "any"]))
def test_every_answer_has_one_verdict(answer: Answer, accept: str) -> None:
    verdict = classify(answer, accept, 5)
    assert (verdict.outcome is Outcome.SUCCESS) == (verdict is SUCCESS)
    assert (verdict.outcome is Outcome.REDIRECT) == bool(verdict.location)
    assert (verdict.outcome is Outcome.FAILURE) == (verdict.failure is not None)
    if verdict is SUCCESS:
        assert (answer.curl_code, answer.status, bool(answer.body)) == (0, 200, True)
    if verdict.retry_after_s is not None:
        assert 0 <= verdict.retry_after_s <= 86_400
        assert verdict.signal is Signal.THROTTLED
    if verdict.failure is not None:
        assert verdict.failure.message.isprintable()
        assert 0 < len(verdict.failure.message) <= MESSAGE_CHARS


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.floats(0, 4e9))
def test_no_retry_after_raises(value: str, now_wall: float) -> None:
    delay_s = retry_after_seconds(value, now_wall)
    assert delay_s is None or (0 <= delay_s <= 86_400 and not math.isnan(delay_s))


# ---- files that have not changed

KNOWN = Validators(PLAIN_TASK.url, '"abc"')


@pytest.mark.parametrize(
    ("task", "is_good"),
    [
        pytest.param(replace(PLAIN_TASK, validators=KNOWN), True, id="asked"),
        pytest.param(PLAIN_TASK, False, id="not asked"),
        pytest.param(
            replace(PLAIN_TASK, validators=Validators("http://a.example/2.jpg", '"abc"')),
            False,
            id="known of another URL",
        ),
        pytest.param(replace(PLAIN_TASK, validators=Validators(PLAIN_TASK.url)), False, id="nothing is known"),
        pytest.param(replace(PLAIN_TASK, validators=KNOWN, robots_of="http://a.example"), False, id="robots.txt"),
    ],
)
def test_a_304_is_a_success_only_where_it_was_asked_for(task: Task, is_good: bool) -> None:
    answer = replace(GOOD, task=task, status=304, body=b"", content_length=-1)
    if is_good:
        assert classify(answer, "image", 5) is NOT_MODIFIED
        assert classify(replace(answer, curl_code=56), "image", 5).outcome is Outcome.FAILURE
        assert classify(replace(answer, refused="noai"), "image", 5).outcome is Outcome.FAILURE
    else:
        assert failure_of(answer) == (ErrorKind.HTTP_STATUS, 304, False, Signal.OK)
