"""A job over damaged images; many more of them: ``python -m tests.chaos.mutated_images``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.mutated_images import FORMATS, MOST_BYTES, run


@pytest.mark.slow
def test_damaged_images_cost_no_more_than_themselves(tmp_path: Path) -> None:
    images = 40 * len(FORMATS)
    done = run(tmp_path, images, first_seed=7_000)
    assert (done.code, done.stderr, done.wrong) == (0, "", [])
    assert done.peak_bytes < MOST_BYTES
    assert done.outcomes.total() == images
    assert done.outcomes["success"] > images // 5
    assert done.outcomes["decode"] > images // 5
    assert done.warned
