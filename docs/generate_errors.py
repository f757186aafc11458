"""Writes docs/errors.md: the closed list of error kinds, what is said of mistakes, and what becomes of every answer and
table that is tested.

``python -m docs.generate_errors`` writes it; with ``--check`` it writes nothing and ends with 1 if the page is stale.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ddmpi.core.records import ErrorKind, error_code
from ddmpi.core.rules.verdict import RETRY_STATUSES
from tests.cli import wrong_inputs
from tests.cli.wrong_inputs import message_of
from tests.hostile.answers import ANSWERS
from tests.hostile.cases import AnswerCase, Transport
from tests.hostile.catalog import TITLES
from tests.hostile.tables import FILES, URLS, FileCase, UrlCase

TARGET: Final = Path(__file__).resolve().parent / "errors.md"


class Explanation(NamedTuple):
    """What a person needs to know of a kind: what happened, whether the row is tried again, what can be done."""

    meaning: str
    tries: str
    advice: str


_AGAIN: Final = "yes, up to `max_attempts`"
_NO: Final = "no"
EXPLANATIONS: Final[dict[ErrorKind, Explanation]] = {
    ErrorKind.DNS: Explanation(
        "The server's name could not be resolved.",
        "once, after 35 s; not the server's other rows, if other names are found meanwhile",
        "Names that are gone stay gone. If many fail at once, look at the name servers of the nodes; then "
        "`ddmpi retry-failed CONFIG dns`.",
    ),
    ErrorKind.CONNECT: Explanation(
        "No connection: nothing listens, no route, or a proxy refused.",
        "yes, until the server is given up: then the row is `unreachable`",
        "Try again another day with `ddmpi retry-failed CONFIG connect`.",
    ),
    ErrorKind.UNREACHABLE: Explanation(
        "The server was given up: `breaker.failures` requests in a row and all probes after them got no answer. "
        "`error_msg` has what the last one failed with; it begins with `not asked` where the row itself was not tried.",
        _NO,
        "Try again another day with `ddmpi retry-failed CONFIG unreachable`. `breaker` says how long a server is "
        "probed.",
    ),
    ErrorKind.GIVEN_UP: Explanation(
        "You did not want to wait for its server any longer: `ddmpi give-up`, or `give_up` in `control.yaml`.",
        _NO,
        "Try again another day with `ddmpi retry-failed CONFIG given_up`.",
    ),
    ErrorKind.TLS: Explanation(
        "No secure connection: certificate expired, self-signed, for another host, of an unknown authority; or the "
        "handshake broke off.",
        "certificates no, handshakes yes",
        "For authorities of your own set `ca_bundle`. `verify_tls: false` takes bytes from anybody.",
    ),
    ErrorKind.TIMEOUT: Explanation(
        "No connection within `connect_timeout_s`, or no whole answer within `total_timeout_s`.",
        _AGAIN,
        "Large files over slow lines need a longer `total_timeout_s`.",
    ),
    ErrorKind.STALLED: Explanation(
        "Connected, but next to nothing came for `stall_timeout_s`.",
        _AGAIN,
        "Fewer connections to the server may help (`servers`, `max_connections`).",
    ),
    ErrorKind.NETWORK: Explanation(
        "The connection broke: reset, closed early, fewer bytes than announced, an image without its end, an HTTP/2 "
        "stream that was reset.",
        _AGAIN,
        "`ddmpi retry-failed CONFIG network`.",
    ),
    ErrorKind.PROTOCOL: Explanation(
        "What came is no HTTP: lengths that contradict each other, headers beyond measure, an encoding that cannot be "
        "decoded, something else altogether.",
        _NO,
        "The server is broken, or no web server.",
    ),
    ErrorKind.HTTP_STATUS: Explanation(
        "The server answered, with another status than 200; `error_code` is that status. Also 204, 206 and 304, which "
        "nobody asked for.",
        f"those of `retry_statuses` ({', '.join(map(str, RETRY_STATUSES))}), and 202 and 403 with Retry-After; others "
        "no",
        "404 and 410 are gone. 401 and 403 want permission, or a User-Agent with a contact. After many 429 or 503, "
        "lower the server's `rate_limit`.",
    ),
    ErrorKind.TOO_LARGE: Explanation(
        "More than `max_file_bytes`, announced or not, as sent or after decoding.",
        _NO,
        "Raise `max_file_bytes`, then `ddmpi retry-failed CONFIG too_large`.",
    ),
    ErrorKind.WRONG_TYPE: Explanation(
        "A 200 that is no image, by its first bytes: often a page that says sorry. Not stored.",
        _NO,
        "Where anything will do, set `accept: any`.",
    ),
    ErrorKind.EMPTY_BODY: Explanation(
        "A 200 without a byte, or with headers that were cut off.",
        "where headers may have been cut off, yes",
        "The server has lost the file.",
    ),
    ErrorKind.REDIRECT: Explanation(
        "A redirect to nowhere, to a URL that is refused, or more than `max_redirects` of them.",
        _NO,
        "`error_msg` says which; `final_url` is where it ended.",
    ),
    ErrorKind.BLOCKED_ADDRESS: Explanation(
        "The server's name, or a redirect, leads to an address that is not public: this machine, the private network, "
        "a cloud's metadata service. No packet was sent.",
        _NO,
        "If it is a server of yours, add its network to `allow_private_addresses`. Behind a proxy this guard sees only "
        "the proxy's address.",
    ),
    ErrorKind.BAD_URL: Explanation(
        "The URL in the table, or the row's headers (`bad_headers`), are refused; no request was made. `error_msg` "
        "begins with the reason.",
        _NO,
        "Correct the table. User names and passwords in URLs are cut out of the output.",
    ),
    ErrorKind.DECODE: Explanation(
        "The image cannot be decoded, or not within the memory that there is for it (only with `image_size`).",
        _NO,
        "`image_size: 0` stores the bytes as they came. See [output.md](output.md#image_size).",
    ),
    ErrorKind.HASH_MISMATCH: Explanation(
        "The file is not the one that the table promised: another hash, or another size; or the table's value cannot "
        "be read as one (only where `expected` names columns for them).",
        _NO,
        "The server's file has changed, or the table is wrong: `error_msg` has both values. With "
        "`expected.on_mismatch: keep` such files are stored, and say so.",
    ),
    ErrorKind.PLACEHOLDER: Explanation(
        "The server has the same bytes under many URLs, such as a picture that says that the image is not available "
        "(only with `placeholders: error`).",
        _NO,
        "The image is gone. Look at the pictures in the report; `ddmpi retry-failed CONFIG placeholder` asks again.",
    ),
    ErrorKind.SERVER_REFUSED: Explanation(
        "The row was not asked for: its server had answered 403 to the last requests (`breaker.forbidden_in_a_row`), "
        "and to each probe after them.",
        _NO,
        "The server will not have you: name a contact in `header`, or ask the operator. Then "
        "`ddmpi retry-failed CONFIG server_refused`.",
    ),
    ErrorKind.ROBOTS: Explanation(
        "The server asks programs not to fetch or keep the file, and `respect` has that obeyed: by X-Robots-Tag, in "
        "robots.txt or by Content-Usage; `usage_signals` has its words. Or its robots.txt could not be had, and the "
        "server was given up.",
        _NO,
        "Ask the operator. `ddmpi retry-failed CONFIG robots` asks the server again, and obeys what `respect` says "
        "then.",
    ),
    ErrorKind.FORGOTTEN: Explanation(
        "The image was withdrawn by `ddmpi forget`: it was removed, or was never fetched.",
        f"{_NO}; `ddmpi retry-failed` does not ask for it either",
        "See [output.md](output.md#withdrawn-images).",
    ),
}

INTRODUCTION: Final = """\
# Errors

<!-- Generated by docs/generate_errors.py from ddmpi.core.records and tests/hostile: edit those instead. -->

Every row of the input ends as a success, as an error or as pending. A row is a success only if the transfer ended
without an error, the status is 200, and the body passes: not empty, not shorter than announced, and, with
`accept: image`, an image [by its first bytes](output.md#what-counts-as-an-image). An image whose end nobody announced
has to be whole, since a connection that broke looks like its end. For other files of unknown length that cannot be
told.

An error has a kind from the closed list below, a code (`error_code`: the HTTP status, -1 for the network, -2 for
content or local reasons) and a message of one printable line, without passwords and without the queries of URLs.
Rows are tried again as the list says, at most `max_attempts` times, with growing pauses; rows on a server that
throttles (429, or another error with Retry-After) at least 10 times, since that is no fault of theirs.
`ddmpi retry-failed` fetches error rows again, all or by kind, code or server: see
[troubleshooting.md](troubleshooting.md#many-errors).

## Kinds
"""

WRONG_INPUTS: Final = """
## It does not start (exit code 2)

What is said of common mistakes, with `/home/me` for the working directory. `job.yaml` is a config for `birds.csv`.
Nothing was asked of any server, and nothing was written.
"""
CASES: Final = """
## Cases

Every case is a test; the answers are all asked for in one run of the program. `again` means that the row was tried
again before it became an error.

### Tables
"""


def errors_md() -> str:
    """The page."""
    parts = [INTRODUCTION, *_kinds(), WRONG_INPUTS, *_wrong_inputs()]
    parts += [CASES, *_tables(), "\n### Answers\n", *_answers()]
    return "\n".join(parts) + "\n"


def _wrong_inputs() -> Iterator[str]:
    yield "| what is wrong | the command | what it says |"
    yield "|---|---|---|"
    for case in wrong_inputs.CASES:
        said = "<br>".join(html.escape(line.strip(), quote=False) for line in message_of(case).splitlines())
        yield f"| {case.name} | `ddmpi {case.command}` | {_in_cell(said)} |"


def _in_cell(text: str) -> str:
    """Return a text of a cell: nothing in it is Markdown."""
    return "".join(f"\\{character}" if character in "|*_`[]" else character for character in text)


def _kinds() -> Iterator[str]:
    yield "| kind | code | what happened | tried again | what you can do |"
    yield "|---|---|---|---|---|"
    for kind in ErrorKind:
        told = EXPLANATIONS[kind]
        code = "status" if kind is ErrorKind.HTTP_STATUS else error_code(kind, 0)
        yield f"| `{kind.value}` | {code} | {told.meaning} | {told.tries} | {told.advice} |"


def _tables() -> Iterator[str]:
    yield "| | case | outcome |"
    yield "|---|---|---|"
    cases: list[UrlCase | FileCase] = [*URLS, *FILES]
    for case in sorted(cases, key=lambda case: case.number):
        yield f"| {TITLES[case.number]} | {case.name} | {_table_outcome(case)} |"


def _table_outcome(case: UrlCase | FileCase) -> str:
    if isinstance(case, UrlCase):
        return f"`bad_url`: {case.refused}" if case.refused else f"fetched from `{case.server}`"
    if case.refused:
        return "refused, exit code 2"
    return f"read as {case.rows} row{'' if case.rows == 1 else 's'}"


def _answers() -> Iterator[str]:
    yield "| | the server | outcome |"
    yield "|---|---|---|"
    for case in sorted(ANSWERS, key=lambda case: case.number):
        how = "" if case.transport in {Transport.PLAIN, Transport.HTTP2} else f" ({case.transport.value})"
        yield f"| {TITLES[case.number]} | {case.name}{how} | {_answer_outcome(case)} |"


def _answer_outcome(case: AnswerCase) -> str:
    kind, code, retried = case.expected.kind, case.expected.code, case.expected.retried
    if kind is None:
        return "success"
    return f"`{kind.value}`{f' {code}' if kind is ErrorKind.HTTP_STATUS else ''}{', again' if retried else ''}"


def main(arguments: list[str]) -> int:
    text = errors_md()
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{TARGET.name} is stale: run python -m docs.generate_errors\n")
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
