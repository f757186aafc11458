"""All faults of the disk, tried in pieces: no trial is in two of them, and none is left out."""

from __future__ import annotations

import pytest

from tests.chaos.faults import Fault
from tests.chaos.io_faults import Share, Trial

TRIALS = [Trial("new", Fault("after", at)) for at in range(1, 50)]


@pytest.mark.parametrize("of", [1, 2, 7, 8, 60])
def test_each_trial_is_in_one_share(of: int) -> None:
    shares = [Share(number, of) for number in range(1, of + 1)]
    assert [sum(trial in share for share in shares) for trial in TRIALS] == [1] * len(TRIALS)


def test_a_share_is_given_as_a_fraction() -> None:
    assert Share.parse("3/8") == Share(3, 8)
    assert str(Share(3, 8)) == "3/8"


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "-1/8", "1/0", "1/2/3", "a/b"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"int|unpack|/"):
        Share.parse(text)
