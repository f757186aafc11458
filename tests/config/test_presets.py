"""The presets: their keys and a user's together, and each over a sample of the table that it is for."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ddmpi.config import presets
from ddmpi.config.config import SECTIONS, Config, Keys, parse
from ddmpi.core.records import Orders
from ddmpi.errors import ConfigError
from ddmpi.io.folder.layout import configured_layout
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output

TABLES = Path(__file__).parent / "presets"
HEADER = re.compile(r"# [^\n]{20,104}[^.\n]\n#\n(# [^\n]*\n)+# Checked \d{4}-\d\d-\d\d: ([^\n]*\n)")
"""The first comment of a preset: what it is; where its table comes from and what is in it; by what that was checked."""
UNPACKED: Final[dict[str, Any]] = {".gz": gzip.open, ".bz2": bz2.open}
Row = dict[str, Any]
Reader = Callable[[Path], list[Row]]


def config_of(name: str, path: Path | None, output: Path = Path("out"), **keys: object) -> Config:
    where = {} if path is None else {"path_to_input": str(path)}
    return parse({"preset": name, **where, "path_to_output_folder": str(output), **keys}, "test")


def asks_by_sql(name: str) -> bool:
    """Whether the preset's rows come of a query, which names its files itself."""
    reading = presets.keys_of(name).get("input")
    return isinstance(reading, dict) and "sql" in reading


def refusal(**keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse({"path_to_input": "a.csv", "path_to_output_folder": "out", **keys}, "test")
    return str(caught.value)


# ---- their keys, and the user's


def test_every_preset_is_listed_in_the_schema() -> None:
    schema = Keys.model_json_schema()["properties"]["preset"]
    (texts,) = [choice for choice in schema["anyOf"] if choice["type"] == "string"]
    assert texts["enum"] == list(presets.names())


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_says_what_it_is_and_names_no_file(name: str) -> None:
    text = presets.text_of(name)
    assert HEADER.match(text), text[:500]
    assert all(len(line) <= 120 for line in text.splitlines())
    keys = presets.keys_of(name)
    assert keys == yaml.safe_load(text)
    assert not keys.keys() & {"path_to_input", "path_to_output_folder", "preset"}
    assert keys.keys() <= Keys.model_fields.keys()


def test_no_preset_that_sources_are_chosen_of_has_a_filter() -> None:
    """included_sources of distributed-downloader would take it away."""
    assert "filter" not in presets.keys_of("treeoflife")


def test_an_unknown_preset_is_refused_with_the_nearest_one() -> None:
    assert "preset: 'gbiff': expected the name of a preset; did you mean gbif?" in refusal(preset="gbiff")
    assert "'ddmpi presets' lists them" in refusal(preset="qqqqqq")
    assert "preset: 3: expected text or null" in refusal(preset=3)
    assert "preset: '../x': expected the name of a preset" in refusal(preset="../x")


def test_without_a_preset_nothing_changes() -> None:
    keys = {"path_to_input": "a.csv", "path_to_output_folder": "out"}
    assert parse(keys, "test").identity_hash() == parse({**keys, "preset": None}, "test").identity_hash()


def test_what_is_written_wins_over_the_preset() -> None:
    config = config_of("gbif", Path("a.csv"), columns={"title": "description"}, filter="gbifID is not null")
    plain = config_of("gbif", Path("a.csv"))
    assert config.filter == "gbifID is not null"
    assert config.columns.plain() == {**plain.columns.plain(), "title": "description"}
    assert config.columns.plain()["source_id"] == "gbifID"
    assert config.notices == ()


def test_null_takes_a_value_of_the_preset_away() -> None:
    assert config_of("gbif", Path("a.csv"), filter=None).filter is None


def test_a_section_whose_keys_are_all_commented_out_changes_nothing() -> None:
    assert config_of("gbif", Path("a.csv"), columns=None) == config_of("gbif", Path("a.csv"))


def test_sections_come_together_and_everything_else_is_whole() -> None:
    defaults = {"columns": {"a": ["x"], "b": {"c": 1}}, "keep": {"a": 1}, "list": [1], "only": 2}
    given = {"columns": {"b": {"d": 2}}, "keep": {"b": 2}, "list": [2], "mine": 3}
    assert presets.beside(given, defaults, ["columns", "absent"]) == {
        "columns": {"a": ["x"], "b": {"d": 2}},
        "keep": {"b": 2},
        "list": [2],
        "only": 2,
        "mine": 3,
    }
    assert presets.beside({"columns": 5}, defaults, ["columns"])["columns"] == 5


def test_a_preset_and_the_same_keys_written_out_are_the_same_job() -> None:
    keys: Row = {"path_to_input": "a.csv", "path_to_output_folder": "out"}
    for name in presets.names():
        given = {"path_to_output_folder": "out"} if asks_by_sql(name) else keys
        written = parse({**given, **presets.keys_of(name)}, "test")
        assert parse({**given, "preset": name}, "test").identity_hash() == written.identity_hash()


def test_sections_are_the_keys_that_hold_keys() -> None:
    assert {"columns", "downloader_parameters", "expected"} <= set(SECTIONS)
    assert not {"servers", "keep_columns", "filter"} & set(SECTIONS)


# ---- each over a sample: what ddmpi makes of it, and what csv, json and pyarrow make of it


class Sample(NamedTuple):
    """A table of a preset, and what is to become of it.

    Args:
        file: in the folder of the preset's name below ``TABLES``; .rows.jsonl files become Parquet first.
        expected: makes the rows that are to come of the file's own, which are plain dictionaries.
        read: reads the file without ddmpi.
    """

    file: str
    read: Reader
    expected: Callable[[list[Row]], list[Row]]
    keys: Row = {}  # noqa: RUF012  # never changed


def separated(
    separator: str = ",", names: list[str] | None = None, *, quoted: bool = True
) -> Callable[[Path], list[Row]]:
    """A reader of separated text; an empty value is none, as ddmpi has it."""

    def read(path: Path) -> list[Row]:
        with UNPACKED.get(path.suffix, open)(path, "rt", encoding="utf-8", newline="") as lines:
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
            reader = csv.DictReader(lines, names, delimiter=separator, quoting=quoting)
            return [{name: value or None for name, value in row.items()} for row in reader]

    return read


def parts_of(reader: Reader) -> Reader:
    """A reader of a folder whose first file alone has a header."""

    def read(path: Path) -> list[Row]:
        whole = "".join(part.read_text(encoding="utf-8") for part in sorted(path.iterdir()))
        with NamedTemporaryFile("w+", suffix=".csv", encoding="utf-8") as file:
            file.write(whole)
            file.flush()
            return reader(Path(file.name))

    return read


def array_in(key: str) -> Reader:
    """A reader of a JSON document with an array of rows."""
    return lambda path: list(json.loads(path.read_text(encoding="utf-8"))[key])


def of_json_lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def row(number: int, url: str | None, **values: object) -> Row:
    """What is expected of a row; one without a URL is refused."""
    return {"row_number": number, "identifier": url, "reject": None if url else "null_url"} | values


def kept(theirs: Row, *names: str) -> Row:
    return {name: theirs[name] for name in names}


def is_still_image(theirs: Row) -> bool:
    named = theirs["type"] == "StillImage" or (theirs["type"] is None and "image" in (theirs["format"] or ""))
    return bool(theirs["gbifID"] and theirs["identifier"] and named)


def gbif(rows: Iterable[Row]) -> list[Row]:
    return [
        row(number, theirs["identifier"], source_id=str(theirs["gbifID"]), license=theirs["license"],
            source=theirs["source"], title=theirs["title"])
        for number, theirs in enumerate(rows)
        if is_still_image(theirs) and theirs.get("basisOfRecord") != "MATERIAL_CITATION"
    ]  # fmt: skip


def eol(rows: Iterable[Row]) -> list[Row]:
    return [
        row(number, theirs["EOL Full-Size Copy URL"], source_id=theirs["EOL content ID"],
            license=theirs["License Name"], source=theirs["Medium Source URL"], title=theirs["Copyright Owner"],
            **kept(theirs, "EOL page ID"))
        for number, theirs in enumerate(rows)
        if theirs["EOL content ID"] and theirs["EOL Full-Size Copy URL"]
    ]  # fmt: skip


def lila(rows: Iterable[Row]) -> list[Row]:
    found = [
        (theirs, [url for url in kept(theirs, "url_gcp", "url_aws", "url_azure").values() if url]) for theirs in rows
    ]
    return [
        row(number, urls[0], mirrors=urls[1:] or None, source_id=theirs["image_id"], source=theirs["dataset_name"],
            title=theirs["common_name"], **kept(theirs, "scientific_name", "original_label"))
        for number, (theirs, urls) in enumerate(found)
        if urls and (theirs["original_label"] or "").lower() not in {"empty", "blank"}
    ]  # fmt: skip


def fathomnet(rows: Iterable[Row]) -> list[Row]:
    return [
        row(number, theirs["url"], uuid=theirs["uuid"], source_id=theirs["uuid"],
            license="https://creativecommons.org/licenses/by-nc-nd/4.0/legalcode.en")
        for number, theirs in enumerate(rows)
        if theirs.get("url") and str(theirs.get("valid")).lower() != "false"
    ]  # fmt: skip


def treeoflife(rows: Iterable[Row]) -> list[Row]:
    return [
        row(number, theirs["source_url"], uuid=theirs["uuid"], source_id=theirs["source_id"],
            **kept(theirs, "data_source"))
        for number, theirs in enumerate(rows)
    ]  # fmt: skip


def only_gbif(rows: Iterable[Row]) -> list[Row]:
    listed = list(rows)
    return [made for made, theirs in zip(treeoflife(listed), listed, strict=True) if theirs["data_source"] == "gbif"]


def laion(rows: Iterable[Row]) -> list[Row]:
    return [
        row(number, theirs.get("URL") or theirs.get("url"), title=theirs.get("TEXT") or theirs.get("caption"))
        for number, theirs in enumerate(rows)
    ]


def coyo(rows: Iterable[Row]) -> list[Row]:
    names = ["width", "height", "image_phash", "clip_similarity_vitl14", "nsfw_score_opennsfw2", "watermark_score"]
    return [
        row(number, theirs["url"], source_id=str(theirs["id"]), title=theirs["text"],
            **kept(theirs, *names, "aesthetic_score_laion_v2"))
        for number, theirs in enumerate(rows)
    ]  # fmt: skip


def datacomp(rows: Iterable[Row]) -> list[Row]:
    names = ["original_width", "original_height", "clip_l14_similarity_score", "face_bboxes", "sha256"]
    return [
        row(number, theirs["url"], source_id=theirs["uid"], title=theirs["text"], **kept(theirs, *names))
        for number, theirs in enumerate(rows)
    ]


def gbif_joined(rows: Iterable[Row]) -> list[Row]:
    """``rows`` are those of multimedia.txt."""
    occurrences = separated("\t", quoted=False)(TABLES / "gbif-joined/occurrence.txt")
    by_id = {occurrence["gbifID"]: occurrence for occurrence in occurrences}
    names = ["basisOfRecord", "scientificName", "species", "countryCode", "decimalLatitude", "decimalLongitude"]
    absent = dict.fromkeys([*names, "eventDate"])
    joined = [theirs | kept(by_id.get(theirs["gbifID"], absent), *absent) for theirs in rows]
    return [made | kept(joined[made["row_number"]], *absent) for made in gbif(joined)]


def inaturalist(rows: Iterable[Row]) -> list[Row]:
    return of_size("medium", rows)


def of_size(size: str, rows: Iterable[Row]) -> list[Row]:
    bucket = "https://inaturalist-open-data.s3.amazonaws.com/photos"
    names = ["photo_uuid", "observation_uuid", "observer_id", "width", "height", "position"]
    return [
        row(number, f"{bucket}/{theirs['photo_id']}/{size}.{theirs['extension']}", source_id=theirs["photo_id"],
            license=theirs["license"], **kept(theirs, *names))
        for number, theirs in enumerate(rows)
    ]  # fmt: skip


def open_images(rows: Iterable[Row]) -> list[Row]:
    names = ["Subset", "Author", "AuthorProfileURL", "OriginalSize", "OriginalMD5", "Rotation"]
    return [
        row(number, theirs["OriginalURL"], source_id=theirs["ImageID"], license=theirs["License"],
            source=theirs["OriginalLandingURL"], title=theirs["Title"], **kept(theirs, *names))
        for number, theirs in enumerate(rows)
    ]  # fmt: skip


def captioned(rows: Iterable[Row]) -> list[Row]:
    return [row(number, theirs["url"], title=theirs["caption"]) for number, theirs in enumerate(rows)]


def wit(rows: Iterable[Row]) -> list[Row]:
    captions = [f"caption_{kind}_description" for kind in ("reference", "attribution", "alt_text")]
    names = ["language", *captions, "mime_type", "original_height", "original_width", "is_main_image"]
    return [
        row(number, theirs["image_url"], source=theirs["page_url"], title=theirs["page_title"], **kept(theirs, *names))
        for number, theirs in enumerate(rows)
    ]


def redcaps(rows: Iterable[Row]) -> list[Row]:
    names = ["subreddit", "raw_caption", "author", "score", "created_utc", "permalink"]
    return [
        row(number, theirs.get("url") or theirs.get("image_url"), source_id=theirs["image_id"],
            title=theirs["caption"], **kept(theirs, *names))
        for number, theirs in enumerate(rows)
    ]  # fmt: skip


def coco(rows: Iterable[Row]) -> list[Row]:
    return [
        row(number, theirs["coco_url"], source_id=str(theirs["id"]), license=str(theirs["license"]),
            source=theirs["flickr_url"], title=theirs["file_name"], **kept(theirs, "height", "width", "date_captured"))
        for number, theirs in enumerate(rows)
    ]  # fmt: skip


def yfcc(rows: Iterable[Row]) -> list[Row]:
    names = ["user_nsid", "date_taken", "description", "user_tags", "longitude", "latitude", "license_name"]
    return [
        row(number, theirs["download_url"], source_id=theirs["id"], license=theirs["license_url"],
            source=theirs["page_url"], title=theirs["title"], **kept(theirs, *names))
        for number, theirs in enumerate(rows)
        if theirs["marker"] == "0"
    ]  # fmt: skip


def bioscan(rows: Iterable[Row]) -> list[Row]:
    names = ["sampleid", "order", "family", "genus", "species", "dna_bin", "country", "split"]
    return [
        row(number, "/".join(["https://data.example/256", *filter(None, kept(theirs, "split", "chunk").values()),
                              f"{theirs['processid']}.jpg"]), source_id=theirs["processid"], title=theirs["taxon"],
            license="https://creativecommons.org/licenses/by/3.0/", **kept(theirs, *names))
        for number, theirs in enumerate(rows)
    ]  # fmt: skip


def wikimedia(rows: Iterable[Row]) -> list[Row]:
    endings = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff")
    return [
        row(number, commons_url(theirs["page_title"]), source_id=theirs["page_title"], title=theirs["page_title"])
        for number, theirs in enumerate(rows)
        if theirs["page_title"].lower().endswith(endings)
    ]


def commons_url(title: str) -> str:
    digest = hashlib.md5(title.encode(), usedforsecurity=False).hexdigest()
    return f"https://upload.wikimedia.org/wikipedia/commons/{digest[0]}/{digest[:2]}/{quote(title, safe='')}"


LARGE = "https://inaturalist-open-data.s3.amazonaws.com/photos/{photo_id}/large.{extension}"
TABS = separated("\t", quoted=False)
YFCC = [
    "id", "user_nsid", "user_nickname", "date_taken", "date_uploaded", "device", "title", "description", "user_tags",
    "machine_tags", "longitude", "latitude", "accuracy", "page_url", "download_url", "license_name", "license_url",
    "server", "farm", "secret", "secret_original", "extension", "marker",
]  # fmt: skip
SAMPLES: dict[str, list[Sample]] = {
    "gbif": [
        Sample("multimedia.tsv", TABS, gbif),
        Sample("multimedia.txt", TABS, gbif),
        Sample("multimedia.rows.jsonl", of_json_lines, gbif),
        Sample("joined.rows.jsonl", of_json_lines, gbif),
    ],
    "gbif-simple": [Sample("0058037.csv", TABS, gbif)],
    "gbif-joined": [Sample("multimedia.txt", TABS, gbif_joined)],
    "inaturalist": [
        Sample("photos.csv.gz", TABS, inaturalist),
        Sample("photos.csv.gz", TABS, partial(of_size, "large"), {"columns": {"identifier": LARGE}}),
    ],
    "eol": [Sample("media_manifest.csv", separated(), eol), Sample("parts", parts_of(separated()), eol)],
    "lila": [Sample("lila_image_urls_and_labels.csv", separated(), lila)],
    "fathomnet": [
        Sample("images.jsonl", of_json_lines, fathomnet),
        Sample("images.csv", separated(), fathomnet),
        Sample("images.rows.jsonl", of_json_lines, fathomnet),
    ],
    "treeoflife": [
        Sample("provenance.rows.jsonl", of_json_lines, treeoflife),
        Sample("provenance.rows.jsonl", of_json_lines, only_gbif, {"filter": 'data_source in ["gbif"]'}),
    ],
    "open-images": [Sample("image_ids_and_rotation.csv", separated(), open_images)],
    "laion": [
        Sample("laion400m.rows.jsonl", of_json_lines, laion),
        Sample("relaion.rows.jsonl", of_json_lines, laion, {"columns": {"identifier": "url", "title": "caption"}}),
    ],
    "coyo": [Sample("part.rows.jsonl", of_json_lines, coyo)],
    "datacomp": [Sample("metadata.rows.jsonl", of_json_lines, datacomp)],
    "cc3m": [Sample("Train_GCC-training.tsv", separated("\t", ["caption", "url"], quoted=False), captioned)],
    "cc12m": [Sample("cc12m.tsv", separated("\t", ["url", "caption"], quoted=False), captioned)],
    "wit": [Sample("wit_v1.train.all-00000-of-00010.tsv.gz", separated("\t"), wit)],
    "redcaps": [
        Sample("roses_2020.json", array_in("annotations"), redcaps),
        Sample("birds_2020.json", array_in("annotations"), redcaps, {"columns": {"identifier": "image_url"}}),
    ],
    "coco": [Sample("instances_val2017.json", array_in("images"), coco)],
    "yfcc": [Sample("yfcc100m_dataset-0.bz2", separated("\t", YFCC, quoted=False), yfcc)],
    "bioscan": [
        Sample(
            "BIOSCAN_5M_Insect_Dataset_metadata.csv", separated(), bioscan, {"base_url": "https://data.example/256/"}
        )
    ],
    "wikimedia": [
        Sample("commonswiki-20260101-all-media-titles.gz", separated("\t", ["page_title"], quoted=False), wikimedia)
    ],
}
CASES = [(name, sample) for name, samples in SAMPLES.items() for sample in samples]


def as_input(sample: Path, folder: Path) -> Path:
    """The sample as ddmpi reads it: rows that stand as text here, so that one can see them, are Parquet there."""
    if not sample.name.endswith(".rows.jsonl"):
        return sample
    path = folder / f"{sample.name.partition('.')[0]}.parquet"
    pq.write_table(pa.Table.from_pylist(of_json_lines(sample)), path)
    return path


def rows_in_the_urls_folder(config: Config) -> list[Row]:
    """All rows that are taken, as they are after partitioning; of a refusal only its kind."""
    layout = configured_layout(config)
    lock = own_output(layout, {})
    initialize(config, layout, lock, Orders(), InitCallbacks(lambda _: None, lambda _: None, lambda: False))
    lock.release()
    rows = pa.concat_tables([pq.read_table(file) for file in sorted(layout.urls.glob("urls-*.parquet"))]).to_pylist()
    for found in rows:
        found["reject"] = found["reject"] and found["reject"].partition(":")[0]
    return sorted(rows, key=lambda found: found["row_number"])


def test_every_preset_has_a_sample() -> None:
    assert SAMPLES.keys() == set(presets.names())


@pytest.mark.parametrize(("name", "sample"), CASES, ids=[f"{name}-{sample.file}" for name, sample in CASES])
def test_a_preset_over_its_sample(name: str, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = TABLES / name / sample.file
    monkeypatch.chdir(path.parent)  # where the files are that a query names
    given = None if asks_by_sql(name) else as_input(path, tmp_path)
    config = config_of(name, given, tmp_path / "out", **sample.keys)
    assert config.notices == ()
    rows, expected = rows_in_the_urls_folder(config), sample.expected(sample.read(path))
    assert len(expected) >= 2
    assert [kept(found, *made) for found, made in zip(rows, expected, strict=True)] == expected
