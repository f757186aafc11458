"""The program against all answers of a hostile web at once: what becomes of each row, and that nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostile.answers import ANSWERS
from tests.hostile.bodies import PICTURE
from tests.hostile.cases import MAX_ATTEMPTS, AnswerCase, Transport
from tests.hostile.runs import PROGRAM, CaseRow, Ending, endings, job_for, rows_for
from tests.hostile.server import HostileServers, running_servers
from tests.whole.job import Job

RANKS = 3
MAX_REDIRECTS = 5
SECRET = b"hunter2"
"""The password in one of the redirects."""


@dataclass(frozen=True)
class Run:
    """One run over all cases."""

    job: Job
    servers: HostileServers
    rows: list[CaseRow]
    code: int
    printed: str
    endings: dict[int, Ending]

    def of(self, case: AnswerCase) -> list[Ending]:
        index = ANSWERS.index(case)
        return [self.endings[number] for number, row in enumerate(self.rows) if row.case == index]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("hostile")
    with running_servers(ANSWERS, folder) as servers:
        rows = list(rows_for(servers))
        job = job_for(servers, rows, folder / "job", max_redirects=MAX_REDIRECTS)
        try:
            code, printed = job.run(RANKS, program=PROGRAM)
        finally:
            job.close()
        yield Run(job, servers, rows, code, printed, endings(job))


def test_every_row_is_final_once(run: Run) -> None:
    assert run.code == 0, run.printed
    assert set(run.endings) == set(range(len(run.rows)))
    assert "Traceback" not in run.printed
    assert run.job.inspect("--verify")[0] == 0


@pytest.mark.parametrize("case", ANSWERS, ids=[f"{case.number}: {case.name}" for case in ANSWERS])
def test_answer(run: Run, case: AnswerCase) -> None:
    found = run.of(case)
    assert len(found) == case.rows
    for ending in found:
        wanted = "" if case.expected.kind is None else case.expected.kind.value
        assert (ending.kind, ending.code) == (wanted, case.expected.code), ending.message
        if wanted:
            assert (ending.tries > 1) == case.expected.retried, ending.tries
        else:
            assert ending.body == PICTURE


def test_messages_are_one_printable_line_without_secrets(run: Run) -> None:
    for ending in run.endings.values():
        if ending.kind:
            assert ending.message.isprintable()
            assert 0 < len(ending.message) <= 300


def test_no_secret_is_anywhere_in_what_was_written(run: Run) -> None:
    files = [path for path in run.job.output.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if SECRET in path.read_bytes()] == []
    assert SECRET.decode() not in run.printed
    texts = [ending.final_url for ending in run.endings.values()]
    assert any(texts)
    assert not any("@" in text for text in texts if text)


def test_no_server_is_asked_more_often_than_the_tries_allow(run: Run) -> None:
    for (index, path), requests in run.servers.requests.items():
        case = run.servers.cases[index]
        # libcurl itself repeats what an HTTP/2 server says it has not begun, five times at each try, and a request
        # on a connection that was closed meanwhile, once.
        itself = 6 if case.transport is Transport.HTTP2 else 2 if case.number == 86 else 1
        redirects = MAX_REDIRECTS if path == "/again" else 1
        assert requests <= MAX_ATTEMPTS * itself * redirects, f"{case.name}: {path}"


def test_an_address_that_is_refused_is_never_contacted(run: Run, tmp_path: Path) -> None:
    refused = [ending for ending in run.endings.values() if ending.kind == "blocked_address"]
    assert len(refused) >= 4
    for ending in refused:
        assert "is not public" in ending.message
        assert ending.tries == 1
