"""What is measured of a run, and what its last line is."""

from __future__ import annotations

from pathlib import Path

from ddmpi.core.stats.audit import AskedNotes
from ddmpi.io.folder.stats_files import MetricsFile, read_run_audit
from ddmpi.roles.coordinator.coordinator import Coordinator
from ddmpi.roles.coordinator.recorder import Recorder
from tests.roles.coordinator.states import make_state


def test_the_last_line_of_a_run_has_its_exit_code(tmp_path: Path) -> None:
    """The loop goes on turning until the other ranks have left."""
    state = make_state(tmp_path, {"a.org": 30})
    coordinator = Coordinator(state, [1], lambda *_: None, lambda _: None)
    recorder = Recorder(state, 2, 100.0)
    recorder.on_turn(coordinator, 100.0)
    recorder.on_end(coordinator, 0, 105.0)
    recorder.on_turn(coordinator, 1_000.0)
    assert [line.exit_code for line in MetricsFile(state.layout.metrics).read()] == [None, 0]
    assert recorder.history.lines[-1].exit_code == 0


def test_a_run_that_asks_nobody_leaves_what_the_one_before_has_asked(tmp_path: Path) -> None:
    state = make_state(tmp_path, {"a.org": 30})
    coordinator = Coordinator(state, [1], lambda *_: None, lambda _: None)
    first = Recorder(state, 2, 100.0)
    notes = AskedNotes()
    notes.started("a.org", 1.7e9)
    first.audit.add(notes.take(1.7e9), "node1")
    first.on_end(coordinator, 0, 105.0)
    before = read_run_audit(state.layout.run_audit)
    assert before is not None
    assert [host.audited.group for host in before.hosts] == ["a.org"]
    Recorder(state, 2, 200.0).on_end(coordinator, 0, 205.0)
    assert read_run_audit(state.layout.run_audit) == before
