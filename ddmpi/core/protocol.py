"""The messages between the coordinator and the downloaders, as bytes and as lines of a log.

Every message is a frozen struct whose type is part of its encoding, so that a decoder can refuse what it does not
know. Messages carry durations (``wait_s``), never times: the monotonic clocks of two nodes are not comparable.
Request and reply share ``request_id``; whoever gets a reply to a request that it no longer waits for drops it.

Directions: a name that ends the sentence "the coordinator tells a downloader to ..." (``Assign``, ``Extend``,
``Release``, ``Stop`` ...) goes down; a report of what happened (``Progress``, ``HandedOff`` ...) goes up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, IntEnum
from itertools import islice

import msgspec

from ddmpi.core.records import BatchRef, Limits, Mirrors, PaceState, Validators

REPORT_INTERVAL_S = 0.5
"""How often a rank reports when there is nothing urgent: the resolution of the progress bar."""

FINISH_TIMEOUT_S = 18.0
"""A rank that has not finished this long after ``Stop`` is left behind: its open parts are lost, nothing else."""

REPORTS_PER_S = 200.0
"""With many ranks they report more rarely: rank 0 reads at most this many reports per second without urgent news."""

MOST_CHARACTERS = 1_000
"""Of a message in a log."""
MOST_ITEMS = 4
"""Of a list or mapping in such a line; all are counted."""


class Tag(IntEnum):
    """MPI tags; MPI guarantees 0..32767."""

    MESSAGE = 1
    SCATTER = 2
    """Announces, by its length in bytes as text, the receiver's share of a scatter that is under way."""


class StopReason(str, Enum):
    DONE = "done"
    """Every row is final or parked."""
    SIGNAL = "signal"
    WALLTIME = "walltime"
    FAILURE = "failure"
    CONTROL = "control file"


class LaneState(str, Enum):
    RUNNING = "running"
    PARKED = "parked"
    """All servers of the lane that have rows left are parked; ``wait_s`` says for how long."""
    PROBING = "probing"
    """The same, but for requests that ask whether a parked server answers again."""
    SAMPLED = "sampled"
    """Of a sampling lane: no row left, none in flight, no connection open; its parts are not committed yet."""
    DRAINED = "drained"
    """The lane has no row left, none in flight, no connection open, and its parts are committed."""


class Handoff(msgspec.Struct, frozen=True):
    """A row whose redirect or mirror leads into another server's server group, under whose limits it has to be fetched;
    ``others`` are further rows with its URL. The row's own headers stay behind: they are for the server it comes
    from."""

    batch: BatchRef
    row: int
    url: str
    server: str
    group: str
    attempt: int
    redirects: int
    cookies: tuple[bytes, ...] = ()
    others: tuple[int, ...] = ()
    mirrors: Mirrors | None = None
    asked: str = ""
    validators: Validators | None = None


class Lane(msgspec.Struct, frozen=True):
    """Some batches of one server group and a share of its limits, leased to one rank.

    ``packed`` lanes hold batches of many small servers, each of which has its own limits and its own pace; for the
    others ``share`` is what all requests of the lane together may use. ``paces`` is what is known of the servers' paces
    from before, by name. ``version`` counts the extensions sent so far.
    """

    lane_id: int
    group: str
    packed: bool
    share: Limits
    batches: tuple[BatchRef, ...]
    paces: dict[str, PaceState] = {}
    time_s: float = 0.0
    """Predicted time of the lane with its share, seconds."""
    sampling: bool = False
    version: int = 0
    handoffs: tuple[Handoff, ...] = ()
    whole: Limits | None = None
    """The limits that ``share`` is a share of; None: all of it."""
    limits: dict[str, Limits] = {}
    """Of a packed lane: those of its servers that are not the config's, because of profiles.csv; mostly none."""


class ControlOverride(msgspec.Struct, frozen=True):
    """What holds for the server groups (or the servers without a group) that match. None: as planned."""

    match: str
    pause: bool = False
    rate_per_s: float | None = None
    connections: int | None = None
    bytes_per_s: float | None = None
    bytes_per_day: float | None = None
    bytes_per_hour: float | None = None
    give_up: bool = False
    """Rows of these servers that are not in flight become errors."""


# ---- coordinator -> downloader


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message to each rank: the output folder is initialized, and this run is its ``epoch``-th. ``config`` is
    the job's, as JSON; ``report_interval_s``: how often to send ``Progress`` when there is nothing urgent; ``ran_s``:
    how long the job's earlier runs lasted; ``variables``: what rank 0's environment has of the variables that the
    config names, as JSON: a launcher need not pass them on to other nodes. Both are bytes, of which a log has only the
    length."""

    epoch: int
    config: bytes
    report_interval_s: float = 0.5
    ran_s: float = 0.0
    variables: bytes = b"{}"


class Assign(msgspec.Struct, frozen=True, tag=True):
    """Lease these lanes. Answers ``WorkRequest`` when ``request_id`` > 0."""

    lanes: tuple[Lane, ...]
    request_id: int = 0


class Extend(msgspec.Struct, frozen=True, tag=True):
    """More batches, handoffs, or a larger share, for a lane that the rank already holds.

    ``added`` is added to the lane's share, never set: the holder may have cut its share for a split that the sender has
    not heard of yet. ``pauses`` are those that other lanes of the group were asked for, by server, in seconds; with
    nothing else the message leaves ``version`` as it is, and does not open an ended lane again.
    """

    lane_id: int
    version: int
    added: Limits | None = None
    batches: tuple[BatchRef, ...] = ()
    handoffs: tuple[Handoff, ...] = ()
    pauses: dict[str, float] = {}


class SetControl(msgspec.Struct, frozen=True, tag=True):
    """These rules hold from now on, instead of those before."""

    rules: tuple[ControlOverride, ...]


class NoWork(msgspec.Struct, frozen=True, tag=True):
    """Answers ``WorkRequest``: nothing to give now; do not ask again for ``wait_s``."""

    request_id: int
    wait_s: float


class StealRequest(msgspec.Struct, frozen=True, tag=True):
    """Give back lanes that have not started, worth about ``time_s``; answered by ``StealResponse``. When there is none
    and ``split_lane_id`` > 0, split that lane: half of its batches and half of its share."""

    request_id: int
    time_s: float
    split_lane_id: int = 0


class Release(msgspec.Struct, frozen=True, tag=True):
    """The drained lanes are no longer leased to you."""

    lane_ids: tuple[int, ...]


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Admit nothing more, give what is in flight ``grace_s``, close all parts, then send ``Finished``."""

    reason: StopReason
    grace_s: float


class Exit(msgspec.Struct, frozen=True, tag=True):
    """The last message: leave with this exit code."""

    code: int
    message: str = ""


# ---- downloader -> coordinator


class PartReport(msgspec.Struct, frozen=True):
    """A part that is published: durable under its final name. ``kinds`` counts errors by kind (errors parts only)."""

    batch_id: int
    path: str
    rows: int
    is_errors: bool
    bytes: int = 0
    kinds: dict[str, int] = {}
    kept_bytes: dict[str, int] = {}
    """Bytes of the files in it by the server that they are from, each URL's once (successes parts only)."""


class LaneReport(msgspec.Struct, frozen=True):
    """What changed in a lane. ``version`` is the number of extensions that the rank had seen when it said so."""

    lane_id: int
    version: int
    state: LaneState
    wait_s: float = 0.0
    paces: dict[str, PaceState] = {}
    decided: dict[int, tuple[int, ...]] = {}
    """Of a sampling lane: the rows, by batch, that have an outcome. They are fetched by nobody else."""
    will_end: bool = False
    """A server has asked for the wait, or it ends with a probe, of which there are only so many."""


class Counters(msgspec.Struct, frozen=True):
    """Totals of one rank since its start: for people and estimates; accounting goes by ``PartReport``."""

    successes: int = 0
    errors: int = 0
    requests: int = 0
    bytes: int = 0
    in_flight: int = 0
    servers_active: int = 0
    memory_bytes: int = 0
    """Resident memory now."""


class NextRequest(msgspec.Struct, frozen=True, array_like=True):
    """What a rank that has nothing in flight does next: for people, who would think that it hangs."""

    server: str
    rows: int
    """Rows of the server that are loaded."""
    wait_s: float


class Progress(msgspec.Struct, frozen=True, tag=True):
    """A downloader's report: small, at most a few per second, independent of the number of rows."""

    parts: tuple[PartReport, ...]
    lanes: tuple[LaneReport, ...]
    remaining_s: float
    unstarted: int
    counters: Counters
    next_requests: tuple[NextRequest, ...] = ()
    """The servers that are asked first, soonest first; none while requests are in flight."""


class WorkRequest(msgspec.Struct, frozen=True, tag=True):
    """My queue runs low. Answered by ``Assign`` or ``NoWork`` with the same ``request_id`` (> 0, per rank)."""

    request_id: int


class StealResponse(msgspec.Struct, frozen=True, tag=True):
    """Answers ``StealRequest``: the lanes given back, or the part cut off of ``split_lane_id``, or neither.
    ``split_share`` is what the cut-off part may use; the holder has reduced its own share by it before it says so."""

    request_id: int
    lane_ids: tuple[int, ...] = ()
    split_lane_id: int = 0
    split_batch_ids: tuple[int, ...] = ()
    split_share: Limits | None = None


class HandedOff(msgspec.Struct, frozen=True, tag=True):
    """Rows whose redirects or mirrors lead into server groups of which this rank holds no lane."""

    handoffs: tuple[Handoff, ...]


class Sample(msgspec.Struct, frozen=True):
    """One profiling request, as measured."""

    server: str
    success: bool
    status: int
    error_kind: str = ""
    ip: str = ""
    http_version: str = ""
    connect_s: float = 0.0
    ttfb_s: float = 0.0
    total_s: float = 0.0
    bytes: int = 0
    retry_after_s: float = 0.0


class Samples(msgspec.Struct, frozen=True, tag=True):
    samples: tuple[Sample, ...]


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """What a rank has asked of one server group since it last said so. Times count back from the message."""

    group: str
    requests: int
    throttled: int
    """Answers that asked for fewer requests."""
    bytes: int
    first_s: float
    """So long ago the first of these requests started."""
    last_s: float
    """So long ago the last one ended."""
    latencies: dict[int, int]
    """Bucket -> answers in it."""


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """What a rank has done to one server group (of packed rows: to one server) since it last said so."""

    group: str
    first_at: float
    """Wall clock, seconds since 1970, of the first start."""
    starts: bytes
    """One little-endian uint32 per start: ticks after ``first_at``, not sorted."""
    body_bytes: int
    throttled: int
    """Answers that asked for fewer requests."""
    connections: int
    """Most connections that this rank has had open to it at once, idle ones included."""
    pauses: int
    paused_s: float
    urls: int = 0
    """Different URLs that are done with: each other request of these was another try."""
    refused: int = 0
    """Answers with a status of 400 or more."""
    signals: dict[str, tuple[int, int]] = {}
    """What was said of the files' use -> rows that it was said of, and how many of them were not stored for it."""


class ServersUsed(msgspec.Struct, frozen=True, tag=True):
    """What this rank has asked of servers since its last such message."""

    usages: tuple[Usage, ...]
    asked: tuple[Asked, ...] = ()
    node: str = ""
    """The host name of the machine that asked."""


class RepeatedPicture(msgspec.Struct, frozen=True, array_like=True):
    """A file that one server has under several URLs, as one rank has seen it since it last said so."""

    server: str
    hashsum: str
    size_bytes: int
    url: str
    """One of its URLs."""
    urls: tuple[int, ...] = ()
    """Those seen, as numbers, while it was no placeholder to this rank."""
    more: int = 0
    """How many came after that."""
    image: bytes = b""
    """The file, once, if it is small."""


class PicturesRepeated(msgspec.Struct, frozen=True, tag=True):
    """Files that came to this rank more than once."""

    pictures: tuple[RepeatedPicture, ...]


class StopRequested(msgspec.Struct, frozen=True, tag=True):
    """This rank got a signal: the whole job should stop softly."""

    reason: StopReason


class Failed(msgspec.Struct, frozen=True, tag=True):
    """This rank cannot go on for a reason that is not a bug (no space left ...): stop the whole job softly."""

    message: str


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Answers ``Stop``: all parts are closed and reported."""


ToDownloader = Begin | Assign | Extend | SetControl | NoWork | StealRequest | Release | Stop | Exit
ToCoordinator = (
    Progress
    | WorkRequest
    | StealResponse
    | HandedOff
    | Samples
    | ServersUsed
    | PicturesRepeated
    | StopRequested
    | Failed
    | Finished
)
Message = ToDownloader | ToCoordinator

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The message's bytes (MessagePack, with the type's name)."""
    return _encoder.encode(message)


def decode(data: bytes | bytearray | memoryview) -> Message:
    """The message of these bytes. Raises msgspec.DecodeError: not a known message, or a field of the wrong type."""
    try:
        return _decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec has no error of its own for these
        raise msgspec.DecodeError(str(error)) from error


def report_interval_s(workers: int) -> float:
    """How often each of so many ranks reports."""
    return max(REPORT_INTERVAL_S, workers / REPORTS_PER_S)


def line_of(message: msgspec.Struct) -> str:
    """Return the message as one line of a log, without control characters: ``StealRequest(request_id=3, time_s=12.5)``.
    Fields that have their default are left out."""
    text = _text(message)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _text(value: object) -> str:
    match value:
        case msgspec.Struct():
            text = f"{type(value).__name__}({', '.join(_fields(value))})"
        case Enum():
            text = str(value.value)
        case bytes():
            text = f"<{len(value)} bytes>"  # the config, which may hold passwords
        case float():
            text = f"{value:.6g}"
        case str():
            text = ascii(value)
        case Mapping():
            text = f"{{{_few((f'{_text(key)}: {_text(item)}' for key, item in value.items()), len(value))}}}"
        case tuple():
            text = f"[{_few(map(_text, value), len(value))}]"
        case _:
            text = str(value)
    return text


def _fields(struct: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        # What is empty or zero is nearly always the default.
        if field.required or (value and value != field.default):
            yield f"{field.name}={_text(value)}"


def _few(texts: Iterator[str], count: int) -> str:
    shown = ", ".join(islice(texts, MOST_ITEMS))
    return f"{shown}, ... {count} in all" if count > MOST_ITEMS else shown
