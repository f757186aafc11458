"""Smaller copies are asked for where a server has them, under other URLs than the table's."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import ddmpi
from tests.fleet.threaded import QuietHandler, running
from tests.whole.job import Job, MakeJob, assert_every_row_once

ORIGINAL = 2048
INATURALIST, FLICKR = "inaturalist-open-data.s3.amazonaws.com", "live.staticflickr.com"
UPLOAD, THUMB = "upload.wikimedia.org", "thumb.wikimedia.org"
MUSEUM, SIMPLE_MUSEUM = "iiif.museum.example", "static.museum.example"
ROWS = 20


@cache
def photograph(longest: int) -> bytes:
    """A JPEG of 4:3 that compresses about as a photograph does: noise whose amplitude falls with its frequency."""
    small = (longest, longest * 3 // 4)
    image = _original() if longest == ORIGINAL else _original().resize(small, Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


@cache
def _original() -> Image.Image:
    height, width = ORIGINAL * 3 // 4, ORIGINAL
    rng = np.random.default_rng(1)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequencies[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequencies
    values = np.fft.irfft2(spectrum, (height, width))
    scaled = 128 + 48 * values / values.std()
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).convert("RGB")


_NAMED: dict[str, tuple[str, Mapping[str, int]]] = {
    INATURALIST: (r"/photos/\d+/([a-z]+)\.jpg", {"original": ORIGINAL, "large": 1024, "medium": 500, "small": 240}),
    FLICKR: (r"/\d+/\d+_[0-9a-f]{10}(_[mnzcb]|)\.jpg", {"_m": 240, "_n": 320, "": 500, "_z": 640, "_b": 1024}),
    UPLOAD: (r"/wikipedia/commons/./../([^/]+)", defaultdict(lambda: ORIGINAL)),
    THUMB: (r"/wikipedia/commons/thumb/./../[^/]+/(\d+)px-.+", {"120": 120, "250": 250, "330": 330, "500": 500}),
    MUSEUM: (r"/image/\d+/full/(.+)/0/default\.jpg", {"full": ORIGINAL, "max": ORIGINAL, "!224,224": 224}),
    SIMPLE_MUSEUM: (r"/image/\d+/full/(.+)/0/default\.jpg", {"full": ORIGINAL}),
}
"""Of each host the form of a path, and the longest side by what stands in its group: the ladder as documented."""


def size_at(host: str, path: str) -> int | None:
    """The longest side of what the host has at the path, None where it refuses it."""
    pattern, sizes = _NAMED.get(host, ("()", {}))
    found = re.fullmatch(pattern, path)
    return None if found is None or (found[1] not in sizes and host != UPLOAD) else sizes[found[1]]


class Ladders(ThreadingHTTPServer):
    """All of these hosts, on one port; keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        for size in (224, 240, 250, 500, 1024, ORIGINAL):  # made now and not within a request
            photograph(size)
        self.asked: Counter[tuple[str, str]] = Counter()
        self.sent_bytes = 0
        self.lock = threading.Lock()


class _Handler(QuietHandler):
    server: Ladders

    def get(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        size = size_at(host, self.path)
        # Each path's own bytes, after the end of the image.
        body = b"refused" if size is None else photograph(size) + self.path.encode()
        with self.server.lock:
            self.server.asked[host, self.path] += 1
            self.server.sent_bytes += len(body)
        if size is None:
            self.answer(501 if host == SIMPLE_MUSEUM else 404, body, Content_Type="text/plain")
        else:
            self.answer(200, body, Content_Type="image/jpeg")


def write(path: Path, urls: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("identifier", "source_id"), *((url, row) for row, url in enumerate(urls, 5))])
    return path


def sized(new_job: MakeJob, table: Path, server: Ladders, **changes: Any) -> Job:
    """A job whose requests all go to this server, whatever their host."""
    parameters = {"image_size": 224, "connect_to": [f"::127.0.0.1:{server.server_address[1]}"]}
    return new_job(
        table, downloader_parameters=parameters, servers_from=[], profiling={"mode": "uniform"}, **changes
    )  # fmt: skip


def results(job: Job, *columns: str) -> list[dict[str, Any]]:
    table = ddmpi.open_results(job.output).to_table(columns=["row_number", "outcome", *columns])
    return sorted(table.to_pylist(), key=lambda row: row["row_number"])


def test_no_byte_is_asked_for_that_is_not_needed_and_no_image_is_too_small(tmp_path: Path, new_job: MakeJob) -> None:
    originals = [
        *(f"http://{INATURALIST}/photos/{row}/original.jpg" for row in range(ROWS)),
        *(f"http://{FLICKR}/7372/{row}_acfd415fa7_b.jpg" for row in range(ROWS)),
        *(f"http://{UPLOAD}/wikipedia/commons/a/ab/Photo_{row}.jpg" for row in range(ROWS)),
        *(f"http://{MUSEUM}/image/{row}/full/{'full' if row % 2 else 'max'}/0/default.jpg" for row in range(ROWS)),
    ]
    with running(Ladders()) as server:
        job = sized(new_job, write(tmp_path / "urls.csv", originals), server, sizes="auto")
        code, printed = job.run(2)
        sent_bytes, asked = server.sent_bytes, server.asked
    assert code == 0, printed
    assert_every_row_once(job, len(originals))
    rows = results(job, "identifier", "requested_url", "original_size", "resized_size", "attempts", "status")
    assert [row["identifier"] for row in rows] == originals
    assert all(row["outcome"] == "success" and row["attempts"] == 1 for row in rows)
    assert all(row["requested_url"] not in {None, row["identifier"]} for row in rows)
    assert all(max(row["original_size"]) >= 224 for row in rows)
    assert all(max(row["resized_size"] or row["original_size"]) == 224 for row in rows)
    assert set(asked.values()) == {1}, "one request for each"
    wanted = [url.removeprefix("http://").partition("/") for url in originals]
    original_bytes = sum(len(photograph(size_at(host, f"/{path}") or 0)) for host, _, path in wanted)
    assert sent_bytes < 0.15 * original_bytes


def test_what_is_refused_is_asked_for_as_the_table_says(tmp_path: Path, new_job: MakeJob) -> None:
    rows = [
        f"http://{SIMPLE_MUSEUM}/image/1/full/full/0/default.jpg",
        f"http://{UPLOAD}/wikipedia/commons/a/ab/Photo.png",
        f"http://{FLICKR}/7372/1_acfd415fa7_o.jpg",
        "http://elsewhere.example/1.jpg",
        f"http://{INATURALIST}/photos/1/small.jpg",
    ]
    with running(Ladders()) as server:
        server.asked.clear()
        job = sized(new_job, write(tmp_path / "urls.csv", rows), server, sizes="auto")
        assert job.run(1)[0] == 0
        asked = server.asked
    found = results(job, "requested_url", "final_url", "error_msg", "attempts", "uuid")
    assert [row["outcome"] for row in found] == ["success", "success", "error", "error", "success"]
    assert (SIMPLE_MUSEUM, "/image/1/full/!224,224/0/default.jpg") in asked
    first = found[0]
    assert (first["requested_url"], first["final_url"], first["attempts"]) == (None, rows[0], 2)
    assert found[1]["requested_url"] == f"http://{THUMB}/wikipedia/commons/thumb/a/ab/Photo.png/250px-Photo.png"
    assert found[4]["requested_url"] is None
    assert asked[FLICKR, "/7372/1_acfd415fa7_o.jpg"] == 1, "no other copy is known of an original"
