"""Output folders in which a run has begun, and what it has committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ddmpi.config.config import parse
from ddmpi.core.records import ErrorKind
from ddmpi.io.folder.checkpoint import ServerState
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.lock import acquire
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.io.urls.writer import partition_input
from ddmpi.roles.coordinator.run_state import RunState
from tests.io.result_data import make_answer, make_failure, open_writer


def make_state(
    tmp_path: Path,
    sizes: Mapping[str, int],
    *,
    batch_size: int = 20,
    min_rows: int = 10,
    epoch: int = 1,
    group_of: Callable[[str], str] = str,
) -> RunState:
    """A run over a table of these servers; over the folder that is there, if it is."""
    layout = Layout(tmp_path / "out")
    if not layout.urls.exists():
        urls = [f"http://{host}/{row}.jpg" for host, rows in sizes.items() for row in range(rows)]
        (tmp_path / "urls.txt").write_text("\n".join(urls) + "\n")
    values = {
        "path_to_input": str(tmp_path / "urls.txt"),
        "path_to_output_folder": str(layout.root),
        "profiling": {"min_rows": min_rows},
    }
    config = parse(values, "test")
    layout.root.mkdir(exist_ok=True)
    if not layout.urls.exists():
        table = open_input(config.input_name, config.columns.as_lists(), ())
        partition_input(table, layout.urls, batch_size=batch_size, small_rows=min_rows, group_of=group_of)
    servers: dict[str, ServerState] = {}
    layout.lock.unlink(missing_ok=True)  # an earlier run of this test has ended
    lock = acquire(layout.lock, job_id="", job_is_gone=lambda _: None)
    return RunState(
        config=config, layout=layout, table=BatchTable(layout), reader=BatchReader(layout.urls), lock=lock,
        epoch=epoch, input_fingerprint="", input_stamp="", stages={}, servers=servers, saved_at=0.0, profiles={},
    )  # fmt: skip


def commit(
    state: RunState,
    batch_id: int,
    successes: Sequence[int] = (),
    errors: Mapping[ErrorKind, Sequence[int]] | None = None,
) -> list[Path]:
    """Publish these rows of a batch; the parts, successes first."""
    batch = state.table.ref(batch_id)
    writer = open_writer(state.layout, epoch=state.epoch)
    for row in successes:
        writer.success(batch, (row,), make_answer(row, b"body of row %d " % row * 20))
    for kind, rows in (errors or {}).items():
        for row in rows:
            writer.error(batch, (row,), make_failure(kind), make_answer(row, b""), attempts=3)
    writer.stop()
    folder = state.layout.root
    return sorted(folder.glob("images/*/*/*.parquet")) + sorted(folder.glob("errors/*/*/*.parquet"))
