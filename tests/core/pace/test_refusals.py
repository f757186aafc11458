"""Whether a refusal is the server's word, or meant for its URL alone."""

from __future__ import annotations

import math
import random

from ddmpi.core.pace.refusals import LEAST_GOOD, NEWEST_SHARE, SURE, RefusalJudge

NEVER = -math.inf


def refuse_again(judge: RefusalJudge, rows: int) -> list[bool]:
    """So many rows are refused again, each after another row was answered well; what is said of each."""
    found = []
    for _ in range(rows):
        judge.good(2.0, NEVER)
        found.append(judge.refused(1.0))
    return found


def test_rows_that_are_refused_again_while_others_are_answered_well_are_refused_for_their_urls() -> None:
    judge = RefusalJudge()
    assert refuse_again(judge, 1) == [True]
    assert not judge.refused(NEVER), "one row says little about others"
    assert refuse_again(judge, SURE) == [True] * SURE
    assert judge.refused(NEVER), "a fresh row of such a server is not the server's word either"


def test_a_row_that_is_refused_again_with_no_good_answer_in_between_says_less() -> None:
    judge = RefusalJudge()
    judge.good(0.5, NEVER)
    assert [judge.refused(1.0) for _ in range(5)] == [False, False, False, True, True]


def test_it_says_nothing_of_a_server_that_has_answered_nothing_well_yet() -> None:
    judge = RefusalJudge()
    assert not any(judge.refused(1.0) for _ in range(20))


def test_it_says_nothing_where_most_fresh_rows_are_refused() -> None:
    judge = RefusalJudge()
    judge.good(0.5, NEVER)
    for _ in range(20):
        judge.refused(NEVER)
    assert not any(judge.refused(1.0) for _ in range(20))


def test_rows_that_are_refused_for_their_urls_stay_so_when_no_others_are_left() -> None:
    judge = RefusalJudge()
    refuse_again(judge, SURE)
    assert all(judge.refused(5.0) for _ in range(50))


def test_rows_that_are_answered_well_at_another_try_speak_for_the_url_again() -> None:
    judge = RefusalJudge()
    assert refuse_again(judge, SURE)[-1]
    for _ in range(SURE):
        judge.good(3.0, 1.0)
    assert not judge.refused(NEVER)


def test_where_fresh_rows_are_refused_in_a_row_the_server_means_all() -> None:
    judge = RefusalJudge()
    refuse_again(judge, 10)
    found = [judge.refused(NEVER) for _ in range(30)]
    in_a_row = found.index(False)
    assert in_a_row == math.floor(math.log(LEAST_GOOD) / math.log(1 - NEWEST_SHARE))
    assert not any(found[in_a_row:])


def test_of_a_server_that_has_no_time_for_one_row_in_ten_most_refusals_count() -> None:
    rng = random.Random(1)
    judge, of_url = RefusalJudge(), 0
    waiting: list[float] = []
    for number in range(5000):
        refused_at = waiting.pop(0) if waiting and rng.random() < 0.3 else NEVER
        if rng.random() < 0.1:
            of_url += judge.refused(refused_at)
            waiting.append(float(number))
        else:
            judge.good(float(number), refused_at)
    assert of_url < 0.15 * 500, "as many as are refused twice"


def test_the_last_request_that_was_answered_well_is_known() -> None:
    judge = RefusalJudge()
    assert judge.good_at == NEVER
    judge.good(4.0, NEVER)
    assert judge.good_at == 4.0
