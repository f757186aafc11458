"""The ranks' logs: what they say at each level, what they never say, and how large they get."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mpi4py import MPI

from ddmpi.cli import arguments
from ddmpi.config.config import parse
from ddmpi.core.protocol import (
    MOST_CHARACTERS,
    Assign,
    Counters,
    Exit,
    HandedOff,
    Handoff,
    LaneReport,
    LaneState,
    Progress,
    StealRequest,
    Stop,
    StopReason,
    line_of,
)
from ddmpi.io.mpi.mailbox import Mailbox
from tests.core.frontier.test_frontier import batch, lane
from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import Mode, ServerSpec, plain_fleet
from tests.whole.job import make_job, parts

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} rank (\d+) ([A-Z]+) ([a-z0-9_.]+): (.*)")


# ---- messages


def test_a_message_is_one_short_line_without_defaults() -> None:
    assert line_of(StealRequest(3, 12.5)) == "StealRequest(request_id=3, time_s=12.5)"
    assert line_of(Stop(StopReason.DONE, 0.0)) == "Stop(reason=done, grace_s=0)"
    assert line_of(Exit(0, "a\x1b[2J\nb")) == r"Exit(code=0, message='a\x1b[2J\nb')"
    report = LaneReport(7, 1, LaneState.PARKED, wait_s=60.0)
    assert line_of(Progress((), (report,), 1.5, 0, Counters(successes=3))) == (
        "Progress(parts=[], lanes=[LaneReport(lane_id=7, version=1, state=parked, wait_s=60)], remaining_s=1.5, "
        "unstarted=0, counters=Counters(successes=3))"
    )
    many = Assign(tuple(lane(number, [batch(number)]) for number in range(5_000)))
    assert len(line_of(many)) <= MOST_CHARACTERS
    assert line_of(HandedOff(())).startswith("HandedOff(")
    handoff = Handoff(batch(1), 0, "http://a/x", "a", "a", 1, 1, (b"secret",))
    assert line_of(handoff).endswith("redirects=1, cookies=[<6 bytes>])")
    assert "... 6 in all]" in line_of(Assign((lane(1, [batch(number) for number in range(6)]),)))


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_messages_are_logged_with_their_tags_at_debug(caplog: pytest.LogCaptureFixture, level: int) -> None:
    mailbox = Mailbox(MPI.COMM_SELF)
    with caplog.at_level(level, "ddmpi"):
        mailbox.send(0, Stop(StopReason.DONE, 0.0))
        mailbox.scatter({0: Assign(())})
    mailbox.close()
    assert caplog.messages == [
        "to rank 0, MESSAGE, 0 bytes: Stop(reason=done, grace_s=0)",
        "to rank 0, SCATTER, 0 bytes: Assign(lanes=[])",
    ] * (level == logging.DEBUG)


# ---- config and command line


def test_debug_is_a_key_and_an_option() -> None:
    config = parse({"path_to_input": "a.csv", "path_to_output_folder": "out"}, "test")
    assert config.logging.level == "info"
    assert config.with_debug().logging.level == "debug"
    assert config.with_debug().identity_hash() == config.identity_hash()
    assert arguments.parse_arguments(["a.yaml", "--debug", "--retry-failed"]).debug
    for other in ("--plan", "--status", "--verify"):
        with pytest.raises(SystemExit):
            arguments.parse_arguments(["a.yaml", "--debug", other])


# ---- whole runs


def lines_of(logs: Path, rank: int) -> list[tuple[str, str, str]]:
    """(level, logger, text) of a rank's log, oldest first; each line is whole and the rank's own."""
    paths = sorted(logs.glob(f"rank-{rank:05d}.log*"), key=lambda path: -int(path.suffix[1:].replace("log", "0")))
    found = []
    for line in "".join(path.read_text() for path in paths).splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        assert int(match[1]) == rank
        found.append((match[2], match[3], match[4]))
    return found


def troubled_fleet() -> list[ServerSpec]:
    return [
        *plain_fleet(2),
        ServerSpec("127.1.0.1", rate_limit_per_s=20),
        ServerSpec("127.1.0.2", mode=Mode.REFUSED),
        ServerSpec("127.1.0.3", not_found_share=0.5),
    ]


@pytest.mark.slow
def test_debug_logs_hold_every_request_message_and_part_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "pa55word"  # noqa: S105
    with running_fleet(tmp_path / "fleet", troubled_fleet(), 400) as fleet:
        urls = [str(url) for url in pq.read_table(fleet.table_path).column("identifier").to_pylist()]
        table = tmp_path / "urls.csv"
        table.write_text("\n".join(["identifier", *urls, urls[0].replace("//", f"//user:{secret}@")]) + "\n")
        monkeypatch.setenv("DDMPI_TEST_TOKEN", secret)
        rule = {"match": urls[0].split("/")[2], "headers": {"Authorization": "Bearer ${DDMPI_TEST_TOKEN}"}}
        job = make_job(tmp_path / "job", table, servers=[rule])
        code, printed = job.run(3, "--debug")
        answers = sum(event.kind is EventKind.ANSWER for event in fleet.finished_log())
    assert code == 0, printed
    logs = job.output / "logs"
    texts = {rank: [text for _, _, text in lines_of(logs, rank)] for rank in range(3)}
    everything = [text for rank in texts for text in texts[rank]]
    assert not any(secret in text for text in everything)

    attempts = [text for text in everything if re.match(r"row \d+ of batch \d+, http://127", text)]
    assert sum(not re.search(r": (connect|dns) ", text) for text in attempts) == answers
    # Rows of the server that was given up ended with it, without a request of their own.
    final = {text.partition(":")[0] for text in attempts if text.endswith("final")}
    assert len(final) == sum(text.endswith("final") for text in attempts) <= len(urls)
    assert "1 row not asked for" in "".join(everything)

    for rank in (1, 2):
        down, up = _messages(texts, 0, rank), _messages(texts, rank, 0)
        assert down.sent[0].startswith("MESSAGE, ")
        assert "Begin(" in down.sent[0], "by which a rank learns where its log is"
        assert down.came == down.sent[1:]
        assert up.came == up.sent
    committed = sorted(text.split()[1] for text in everything if text.startswith("part "))
    assert committed == sorted(str(path.relative_to(job.output)) for path in parts(job))
    for told in (r"takes lane \d+ of ", "which had ended", r" is paused for \d", r" is asked at .* instead of "):
        assert any(re.search(told, text) for text in everything), told


@dataclass
class Messages:
    """From one rank to another, as each of them has logged it; of a scatter only the receivers know their share."""

    sent: list[str]
    came: list[str]


def _messages(texts: dict[int, list[str]], sender: int, receiver: int) -> Messages:
    there, here = f"to rank {receiver}, ", f"from rank {sender}, "
    return Messages(
        [text.removeprefix(there) for text in texts[sender] if text.startswith(there)],
        [text.removeprefix(here) for text in texts[receiver] if text.startswith(f"{here}MESSAGE")],
    )


@pytest.mark.slow
def test_logs_rotate_within_their_limits_and_restarts_append(tmp_path: Path) -> None:
    limit_bytes, kept = 8_192, 2
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 1_000) as fleet:
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            logging={"level": "debug", "file_bytes": limit_bytes, "kept_files": kept},
        )
        assert job.run(2)[0] == 0
        job.config["logging"] = {"file_bytes": limit_bytes, "kept_files": kept}
        logs = job.output / "logs"
        before = lines_of(logs, 1)
        assert job.run(2)[0] == 0
    for rank in (0, 1):
        sizes = [path.stat().st_size for path in logs.glob(f"rank-{rank:05d}.log*")]
        assert len(sizes) <= 1 + kept
        assert rank == 0 or len(sizes) == 1 + kept
        assert max(sizes) <= limit_bytes
    after = lines_of(logs, 1)
    assert {level for level, _, _ in before} == {"DEBUG", "INFO"}
    told = [text for level, _, text in after[-20:] if level == "INFO"]
    assert sum(text.startswith("rank 1 of 2 on ") for text in told) == 1, "the second run has said who it is"
    assert after[-1][2].startswith("finished: 0 successes")
    assert sum(level == "DEBUG" for level, _, _ in after) <= sum(level == "DEBUG" for level, _, _ in before)
