"""What a run finds of earlier ones: what it goes on from, what it says of it, and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import parse
from ddmpi.core.records import Orders, PaceState
from ddmpi.errors import OutputError
from ddmpi.io.folder.checkpoint import load, save
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.markers import Marker, read_completed, write_completed
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output
from ddmpi.roles.coordinator.run_state import RunState
from tests.io.result_data import write_outcomes

QUIET = InitCallbacks(lambda _: None, lambda _: None, lambda: False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"http://{host}.example/{i}.jpg" for host in ("a", "b") for i in range(20)]
    (tmp_path / "urls.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


@contextmanager
def opened(folder: Path, keys: Mapping[str, object] | None = None, **parameters: object) -> Iterator[RunState]:
    """The output folder at the start of a run, with other keys or downloader parameters."""
    values = {
        "path_to_input": str(folder / "urls.txt"),
        "path_to_output_folder": str(folder / "out"),
        "downloader_parameters": {"batch_size": 10, **parameters},
        "profiling": {"min_rows": 5},
        **(keys or {}),
    }
    config = parse(values, "test")
    layout = Layout(folder / "out")
    lock = own_output(layout, {})
    try:
        yield initialize(config, layout, lock, Orders(), QUIET)
    finally:
        lock.release()


def begun(folder: Path) -> None:
    """A first run that has completed one batch and has begun another one."""
    with opened(folder) as state:
        write_outcomes(state.layout, state.table.ref(0), successes=range(7), errors=range(7, 10))
        write_outcomes(state.layout, state.table.ref(1), successes=range(4))
        state.save({"a.example": PaceState(2.5, 100.0, 3, 1, spent_day=((86_000.0, 4e6),))})


def warned(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def assert_rows_counted(state: RunState) -> None:
    assert (state.counts.successes.tolist()[:2], state.counts.errors.tolist()[:2]) == ([7, 4], [3, 0])
    assert [state.counts.is_open(batch_id) for batch_id in range(4)] == [False, True, True, True]


def test_a_restart_goes_on_without_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun(folder)
    with opened(folder) as state:
        assert_rows_counted(state)
        assert state.epoch == 2
        assert state.changed_keys == []
    assert warned(caplog) == ""


def test_what_was_learned_of_a_server_survives(folder: Path) -> None:
    begun(folder)
    with opened(folder) as state:
        pace = state.known_paces()["a.example"]
    assert (pace.rate_per_s, pace.incidents, pace.open_count) == (2.5, 3, 1)
    assert [spent_bytes for _, spent_bytes in pace.spent_day] == [4e6]
    assert 90.0 < pace.wait_s <= 100.0


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_lost_or_damaged_checkpoint_is_said_and_costs_no_row(
    folder: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    begun(folder)
    for path in (folder / "out" / "checkpoint.json", folder / "out" / "checkpoint.json.previous"):
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
    with opened(folder) as state:
        assert_rows_counted(state)
        assert state.epoch == 2
    assert "checkpoint.json" in warned(caplog)
    assert "what is done is read from the parts" in warned(caplog)


@pytest.mark.parametrize("rows", [4, 9])
def test_a_marker_that_counts_other_rows_than_its_batch_has_is_damaged(folder: Path, rows: int) -> None:
    """Of the second batch 4 of 10 rows have an outcome: believed, a marker of 4 rows would lose the other 6."""
    begun(folder)
    with opened(folder) as state:
        for batch_id in (0, 1):
            write_completed(state.layout, state.table.ref(batch_id), Marker(rows, rows, 0))
    with opened(folder) as state:
        assert_rows_counted(state)
        assert read_completed(state.layout, state.table.ref(0)) == Marker(10, 7, 3, {"http_status": 3})
        assert read_completed(state.layout, state.table.ref(1)) is None


def test_a_folder_of_0_1_0_goes_on_without_its_checkpoint(folder: Path) -> None:
    begun(folder)
    for name in ("checkpoint.json", "checkpoint.json.previous"):
        (folder / "out" / name).unlink(missing_ok=True)
    batches = folder / "out/urls/batches.parquet"
    pq.write_table(pq.read_table(batches).replace_schema_metadata(None), batches)
    with opened(folder) as state:
        assert_rows_counted(state)


def test_an_older_checkpoint_is_noticed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun(folder)
    older = (folder / "out" / "checkpoint.json").read_bytes()
    with opened(folder):
        pass
    (folder / "out" / "checkpoint.json").write_bytes(older)
    caplog.clear()
    with opened(folder) as state:
        assert_rows_counted(state)
        assert state.epoch == 3
    assert "the checkpoint is of run 1, and the last run was 2" in warned(caplog)


def test_a_key_that_may_change_is_taken_and_named(folder: Path) -> None:
    begun(folder)
    with opened(folder, default_rate_limit=3) as state:
        assert_rows_counted(state)
        assert state.changed_keys == ["downloader_parameters.default_rate_limit"]


def test_a_key_that_must_not_change_is_refused_with_both_values(folder: Path) -> None:
    begun(folder)
    with (
        pytest.raises(OutputError, match=r"downloader_parameters\.batch_size: was 10, is 20"),
        opened(folder, batch_size=20),
    ):
        pytest.fail("it has begun")


def test_a_folder_from_before_a_key_had_its_default(folder: Path) -> None:
    begun(folder)
    found, _ = load(Layout(folder / "out"))
    assert found is not None
    semantic = {key: value for key, value in found.config_semantic.items() if key != "base_url"}
    save(Layout(folder / "out"), msgspec.structs.replace(found, config_semantic=semantic))
    with opened(folder) as state:
        assert_rows_counted(state)
    with pytest.raises(OutputError, match="base_url: was None"), opened(folder, {"base_url": "http://a.org/"}):
        pytest.fail("it has begun")


def test_another_input_is_refused(folder: Path) -> None:
    begun(folder)
    (folder / "urls.txt").write_text("http://c.example/1.jpg\n")
    with pytest.raises(OutputError, match=r"urls\.txt has changed since"), opened(folder):
        pytest.fail("it has begun")


# ---- the input at a later start


def test_a_later_start_opens_no_file_of_an_input_that_is_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as state:
        before = state.input_fingerprint
    with monkeypatch.context() as patched:
        patched.setattr("ddmpi.roles.coordinator.initialization.open_input", None)
        with opened(folder) as state:
            assert state.input_fingerprint == before
    with (folder / "urls.txt").open("a") as text:
        text.write("http://c.example/0.jpg\n")
    with opened(folder) as state:
        assert state.table.rows.sum() == 41
        assert state.input_fingerprint != before


def test_how_the_input_is_read_may_change_while_its_rows_stay(folder: Path) -> None:
    """A folder that was begun by a version that took quotation marks of tab files for quotes goes on, or is refused by
    the rows themselves."""
    (folder / "urls.txt").write_text("identifier\ttitle\n" + "".join(f"http://a.example/{n}\tt\n" for n in range(9)))
    with opened(folder, {"input": {"format": "tsv", "quote": '"'}}):
        pass
    with opened(folder, {"input": {"format": "tsv"}}) as state:
        assert state.table.rows.sum() == 9
    other = {"format": "tsv", "header": False, "names": ["identifier", "title"]}
    with (
        pytest.raises(OutputError, match="has changed since this output folder was begun"),
        opened(folder, {"input": other}),
    ):
        pass


def test_keys_that_an_older_version_did_not_have_are_as_their_defaults(folder: Path) -> None:
    with opened(folder) as state:
        checkpoint = load(state.layout)[0]
        assert checkpoint is not None
        old = {key: value for key, value in checkpoint.config_digests.items() if not key.startswith("input.")}
        save(state.layout, msgspec.structs.replace(checkpoint, config_digests=old, input_stamp=""))
    with opened(folder) as state:
        assert state.changed_keys == []
        save(state.layout, msgspec.structs.replace(checkpoint, config_digests=old, input_stamp=""))
    with opened(folder, {"input": {"format": "txt"}}) as state:
        assert state.changed_keys == ["input.format"]
