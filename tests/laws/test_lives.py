"""Random jobs over several lives: the laws hold at every step, whatever is killed, stopped, stolen or redirected."""

from __future__ import annotations

import pytest

from tests.laws.lives import play

SEEDS = 20
"""The same ones each time: what breaks one is found at once. ``python -m tests.simulation`` runs others."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_lives_of_a_job_keep_the_laws(seed: int) -> None:
    assert play(seed)


def test_the_same_seed_gives_the_same_lives() -> None:
    assert play(7) == play(7)
