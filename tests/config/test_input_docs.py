"""docs/input.md and docs/from-img2dataset.md leave nothing out. tests/whole/test_documents.py loads their configs."""

from __future__ import annotations

import re
from pathlib import Path

from ddmpi.config import presets

DOCS = Path(__file__).parents[2] / "docs"
INPUT = (DOCS / "input.md").read_text(encoding="utf-8")
FROM_IMG2DATASET = (DOCS / "from-img2dataset.md").read_text(encoding="utf-8")
OPTIONS = """
    url_list image_size output_folder processes_count resize_mode resize_only_if_bigger upscale_interpolation
    downscale_interpolation encode_quality encode_format skip_reencode output_format input_format url_col caption_col
    bbox_col thread_count number_sample_per_shard extract_exif save_additional_columns timeout enable_wandb
    wandb_project oom_shard_count compute_hash verify_hash distributor subjob_size retries disable_all_reencoding
    min_image_size max_image_area max_aspect_ratio incremental_mode max_shard_retry user_agent_token
    disallowed_header_directives ignore_ssl_certificate
"""
"""Of img2dataset's ``download``, as of 2025-08-16."""


def test_every_preset_is_in_the_table() -> None:
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", INPUT, re.MULTILINE)) == list(presets.names())


def test_every_option_of_img2dataset_has_its_line() -> None:
    lines = [line.split("|")[1] for line in FROM_IMG2DATASET.splitlines() if line.startswith("| `")]
    named = {word for line in lines for word in re.findall(r"`(\w+)[^`]*`", line)}
    assert set(OPTIONS.split()) <= named


def test_what_it_says_of_ours_is_a_key_or_an_option() -> None:
    """The keys that stand alone in the second column."""
    reference = (DOCS / "configuration.md").read_text(encoding="utf-8")
    ours = re.findall(
        r"^\| `[^|]*\| `([a-z]+_[a-z_]+)`", FROM_IMG2DATASET.partition("## In the results")[0], re.MULTILINE
    )
    assert len(ours) >= 8
    assert [key for key in ours if f"`{key}`" not in reference] == []
