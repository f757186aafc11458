"""Random answers in small, and the judge of their successes: it must be able to object."""

from __future__ import annotations

import gzip

import pytest

from tests.hostile.bodies import PICTURE, answer, chunked, picture
from tests.hostile.mutations import answer_bytes, objection
from tests.hostile.random_answers import is_good, run_answers


def test_a_thousand_random_answers() -> None:
    result = run_answers(1000, seed=2)
    assert is_good(result), result
    assert result["successes"] > 100


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_random_answers() -> None:
    result = run_answers(100_000, seed=3)
    assert is_good(result), result


def test_an_answer_is_always_the_same_and_no_two_are() -> None:
    assert len({answer_bytes(1, number) for number in range(300)}) > 200
    assert answer_bytes(1, 7) == answer_bytes(1, 7) != answer_bytes(2, 7)


OTHER = picture("PNG", 20)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        pytest.param(answer(OTHER), OTHER, id="a length"),
        pytest.param(answer(OTHER, length=None), OTHER, id="no length"),
        pytest.param(answer(OTHER + b"more", length=len(OTHER)), OTHER, id="more than announced"),
        pytest.param(chunked(OTHER), OTHER, id="chunks"),
        pytest.param(b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + answer(OTHER), OTHER, id="an interim answer before"),
        pytest.param(answer(gzip.compress(OTHER), "Content-Encoding: gzip"), OTHER, id="gzip"),
    ],
)
def test_the_judge_accepts_what_is_whole(sent: bytes, body: bytes) -> None:
    assert objection(sent, body) == ""
    assert objection(sent, body[:-1]) != ""
    assert objection(sent, body + b"x") != ""
    assert objection(sent, OTHER[:-1] + b"?") != ""


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        pytest.param(answer(OTHER, length=9999), OTHER + b"?", id="fewer bytes than announced, and others"),
        pytest.param(answer(OTHER[:-20], length=None), OTHER[:-20], id="an image without its end"),
        pytest.param(chunked(OTHER, last_chunk=b""), OTHER, id="no last chunk"),
        pytest.param(answer(gzip.compress(OTHER)[:-9], "Content-Encoding: gzip"), OTHER[:-1], id="gzip cut off"),
        pytest.param(answer(PICTURE), OTHER, id="another answer's body"),
        pytest.param(b"", OTHER, id="nothing was sent"),
    ],
)
def test_the_judge_objects(sent: bytes, body: bytes) -> None:
    assert objection(sent, body) != ""
