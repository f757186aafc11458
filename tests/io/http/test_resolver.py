"""Many names to addresses: bounded by time and by threads, whatever the resolver does."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from ddmpi.errors import Interrupted
from ddmpi.io.http.resolver import Bounds, resolve, system_lookup


def answer(host: str) -> list[str]:
    """Of a resolver that knows all names but a few."""
    if host.startswith("gone"):
        raise OSError(-2, "Name or service not known")
    if host.startswith("bad"):
        raise UnicodeError("label too long")
    return [f"203.0.113.{len(host)}"]


class Stuck:
    """A resolver that does not come back from some names before the test ends."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("stuck"):
            self.let_go.wait(30)
        return answer(host)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.let_go.set()


def test_those_that_have_addresses_are_found_and_progress_is_told() -> None:
    hosts = [f"s{number}.org" for number in range(200)] + ["gone.org", "bad.org"]
    told: list[tuple[int, int]] = []
    found = resolve(hosts, answer, bounds=Bounds(threads=8), on_progress=lambda *seen: told.append(seen))
    assert found == {host: answer(host) for host in hosts[:200]}
    assert told[-1] == (202, 202)
    assert resolve([], answer) == {}


def test_a_name_that_takes_too_long_holds_up_no_other(stuck: Stuck) -> None:
    hosts = ["stuck", *(f"s{number}" for number in range(50))]
    found = resolve(hosts, stuck, bounds=Bounds(threads=1, name_s=0.3))
    assert sorted(found) == sorted(hosts[1:])


def test_all_names_together_take_no_longer_than_they_may(stuck: Stuck) -> None:
    hosts = [f"stuck{number}" for number in range(100)]
    bounds = Bounds(threads=2, name_s=1e9, least_s=0.05, per_name_s=0)
    assert resolve(hosts, stuck, bounds=bounds) == {}
    assert len(stuck.asked) == 2


def test_a_resolver_that_never_answers_gets_no_endless_threads(stuck: Stuck) -> None:
    hosts = [f"stuck{number}" for number in range(100)]
    bounds = Bounds(threads=2, name_s=0, least_s=1e9)
    assert resolve(hosts, stuck, bounds=bounds) == {}
    assert len(stuck.asked) < 20


def test_a_stop_is_obeyed_while_names_are_looked_up(stuck: Stuck) -> None:
    with pytest.raises(Interrupted):
        resolve(["stuck", "s"], stuck, should_stop=lambda: "stuck" in stuck.asked)


def test_no_further_name_is_asked_for_once_it_is_over(stuck: Stuck) -> None:
    with pytest.raises(Interrupted):
        resolve(["stuck", *map(str, range(100))], stuck, bounds=Bounds(threads=1), should_stop=lambda: True)
    stuck.let_go.set()
    for thread in threading.enumerate():
        if thread.name == "ddmpi-resolve":
            thread.join(10)
            assert not thread.is_alive()


def test_what_goes_wrong_in_a_thread_is_raised() -> None:
    def broken(host: str) -> Sequence[str]:
        raise ZeroDivisionError(host)

    with pytest.raises(ZeroDivisionError):
        resolve(["a"], broken)


def test_the_system_knows_the_local_host() -> None:
    assert "127.0.0.1" in system_lookup("localhost")
    with pytest.raises(UnicodeError):
        system_lookup("a" * 70 + ".example")
