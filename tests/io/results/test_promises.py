"""What a table promises of files, in the forms that tables have."""

from __future__ import annotations

import base64
import hashlib
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.sections import Expected
from ddmpi.errors import InputError
from ddmpi.io.results.digests import make_digest
from ddmpi.io.results.promises import ALGORITHMS, check_promises, objection, promises_of

BODY = b"a file"
TABLES = Path(__file__).parents[1] / "input/tables"
EXPECTED = Expected(hash_column="hash", algorithm_column="kind", bytes_column="size")


def digest(algorithm: str, body: bytes = BODY) -> bytes:
    return hashlib.new(algorithm, body).digest()


def told(
    value: Any, size: Any = None, kind: str | None = None, *, ours: str = "sha256", type_: pa.DataType | None = None
) -> str:
    """What is objected to BODY where the table says this."""
    table = pa.table({"hash": pa.array([value], type_), "kind": pa.array([kind], pa.string()), "size": [size]})
    return objection(promises_of(EXPECTED, table, ours), 0, len(BODY), lambda name: make_digest(name)(BODY))


def forms(octets: bytes) -> dict[str, Any]:
    text = base64.b64encode(octets).decode()
    return {
        "hex": octets.hex(),
        "upper": octets.hex().upper(),
        "spaces": f" {octets.hex()}\n",
        "quoted": f'"{octets.hex()}"',
        "bytes": octets,
        "hex as bytes": octets.hex().encode(),
        "base64": text,
        "base64, not padded": text.rstrip("="),
        "base64 for URLs": base64.urlsafe_b64encode(octets).decode(),
    }


@pytest.mark.parametrize("ours", ["sha256", "md5"])
@pytest.mark.parametrize(("algorithm", "form"), list(itertools.product(ALGORITHMS, forms(b""))))
def test_every_form_of_a_right_hash_is_right_and_of_a_wrong_one_wrong(algorithm: str, form: str, ours: str) -> None:
    right, wrong = (forms(digest(algorithm, body))[form] for body in (BODY, b"another"))
    assert told(right, ours=ours) == ""
    assert told(wrong, ours=ours).startswith(f"the {algorithm} is {make_digest(algorithm)(BODY)}, the table says")
    if isinstance(right, str):
        named = right.strip(' "\n')
        for prefix in (f"{algorithm}:", f"{algorithm.upper()}=", f"{algorithm}-", f"{algorithm} : "):
            assert told(prefix + named, ours=ours) == ""
    assert told(right, kind=algorithm.replace("sha", "SHA-"), ours=ours) == ""


@pytest.mark.parametrize(
    "type_",
    [
        pa.binary(32), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary()),
        pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.string_view(),
    ],
)  # fmt: skip
def test_every_type_of_text_and_bytes(type_: pa.DataType) -> None:
    value_type = type_.value_type if isinstance(type_, pa.DictionaryType) else type_
    values: list[Any] = [digest("sha256"), None, digest("sha256", b"another")]
    if "string" in str(value_type):
        values = [None if value is None else value.hex() for value in values]
    table = pa.table({"hash": pa.array(values, value_type).cast(type_)})
    promises = promises_of(Expected(hash_column="hash"), table, "sha256")
    assert [bool(objection(promises, row, 6, lambda name: make_digest(name)(BODY))) for row in range(3)] == [
        False, False, True,
    ]  # fmt: skip


def test_an_algorithm_of_our_own_goes_before_the_usual_one_of_its_length() -> None:
    assert told(digest("sha3_256").hex(), ours="sha3_256") == ""
    assert told(digest("sha256").hex(), ours="sha3_256") != ""
    assert told(f"sha256:{digest('sha256').hex()}", ours="sha3_256") == ""
    assert told(digest("sha256").hex(), kind="sha256", ours="sha3_256") == ""
    assert told(digest("sha384").hex(), ours="sha384") == ""


@pytest.mark.parametrize("value", [None, "", " ", "n/a", "NaN", "none", "NULL", "-", r"\N"])
def test_what_is_no_value_promises_nothing(value: str | None) -> None:
    assert told(value, type_=pa.string()) == ""
    assert told(None, value, type_=pa.string()) == ""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("xyz", None), ("0" * 31, None), ("g" * 32, None), (b"\0" * 7, None), ("md5:" + "0" * 40, None),
        ("0" * 32, "sha1"), ("0" * 8, "crc32"), ("0" * 32, "crc32"), ("A" * 25, None), (17, None),
    ],
)  # fmt: skip
def test_a_hash_that_nobody_can_read_is_told(value: Any, kind: str | None) -> None:
    assert told(value, kind=kind).startswith('not compared: the table says "')
    assert told(value, kind=kind).isprintable()
    assert told(value, 7, kind) == "6 bytes, the table says 7"


@pytest.mark.parametrize(
    "size",
    [6, np.int8(6), 6.0, "6", " 6 ", "6.0", "6.", "0006", "6e0", Decimal("6.00"), np.uint64(6), np.float32(6)],
)
def test_every_form_of_a_size(size: Any) -> None:
    assert told(None, size, type_=pa.string()) == ""
    larger = f"{size}7".replace(" ", "") if isinstance(size, str) and "e" not in size else size
    if larger != size and "." not in larger:
        assert told(None, larger, type_=pa.string()).startswith("6 bytes, the table says ")


@pytest.mark.parametrize("size", ["6 bytes", "6 KB", "-6", 6.5, -1, float("inf"), "1,000", True, "0x6", "six"])
def test_a_size_that_nobody_can_read_is_told(size: Any) -> None:
    assert told(None, size, type_=pa.string()).startswith('not compared: the table says "')


def test_not_a_number_is_no_value() -> None:
    assert told(None, float("nan"), type_=pa.string()) == ""


SAMPLE_SHA = ("sha_hex", "sha_upper", "sha_bin", "sha_prefixed")


@pytest.mark.parametrize("ours", ["sha256", "sha1"])
@pytest.mark.parametrize("size", ["size", "size_i"])
@pytest.mark.parametrize("column", [*SAMPLE_SHA, "md5_b64"])
def test_all_forms_of_a_table_say_the_same(column: str, size: str, ours: str) -> None:
    table = pq.read_table(TABLES / "expected-size-and-hash-forms/expected.parquet")
    promises = promises_of(Expected(hash_column=column, bytes_column=size), table, ours)
    assert promises.column("unread").null_count == len(table) == 50
    assert promises.column("size").to_pylist() == [
        None if value is None else int(value) for value in table[size].to_pylist()
    ]
    if column in SAMPLE_SHA:
        assert promises.column("digest").to_pylist() == table["sha_hex"].to_pylist()
    else:
        assert promises.column("digest").to_pylist() == [
            base64.b64decode(str(value)).hex() for value in table[column].to_pylist()
        ]
    assert promises.column("algorithm").unique().to_pylist() == ["md5" if column == "md5_b64" else "sha256"]


# ---- before anything is fetched


def checked(expected: Expected, **columns: list[Any]) -> list[str]:
    batch = pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})
    return check_promises(expected, lambda: [batch.slice(0, 1), batch.slice(1)], "sha256")


def test_a_value_of_the_right_form_is_enough() -> None:
    size, digests = Expected(bytes_column="size"), Expected(hash_column="hash")
    assert checked(size, size=[None, 3]) == []
    assert checked(digests, hash=["", "0" * 32, ""]) == []
    assert checked(Expected(), size=[1]) == []
    assert check_promises(digests, list, "sha256") == [], "no rows"


def test_values_that_nobody_can_read_are_told_as_far_as_they_are_seen() -> None:
    (doubt,) = checked(Expected(hash_column="hash"), hash=["?", "!", "0" * 32])
    assert doubt.startswith('expected.hash_column: 2 of the first 3 rows are not compared: the table says "?"')


@pytest.mark.parametrize(
    ("expected", "values", "message"),
    [
        (Expected(hash_column="c"), ["abc", "def"], r'expected\.hash_column.*column c.*"abc", which is not a hash'),
        (Expected(bytes_column="c"), ["6 KB"], r'expected\.bytes_column.*"6 KB", which is not a size'),
        (Expected(bytes_column="c"), [None, ""], r"expected\.bytes_column.*no row has a value"),
        (Expected(hash_column="c"), [["0" * 32]], r"expected\.hash_column: the column c has no text form"),
    ],
)
def test_a_column_without_any_is_refused(expected: Expected, values: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(expected, c=values)
