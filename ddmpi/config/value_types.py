"""Types of config values that need more than bounds: headers, networks, proxies, names, dates.

Decides what such a text must look like; the message of each ``ValueError`` says what was expected, and ``config`` puts
the key and the value in front of it. Must not know in which section a type is used. Reads no file or clock;
of the environment the home folder alone.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timezone
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from ddmpi.config import presets
from ddmpi.config.row_filter import parse_filter
from ddmpi.config.secrets import checked_header_line, checked_headers, variables_in
from ddmpi.core.rules.usage_signals import is_choice
from ddmpi.core.rules.verdict import REDIRECT_STATUSES

INPUT_SCHEMES = frozenset({"s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"})
"""What pyarrow.fs reads by URI, the local files left out: those are paths."""
STORE_SCHEMES = frozenset({"s3", "gs"})
"""Stores where a new object is seen when it is whole, and at once."""
QUICK_HASHES = frozenset({"blake3", "xxh3_128"})
"""Of libraries of their own."""
_Item = TypeVar("_Item", str, int)
_END_TIME = "a date with time zone such as 2030-01-31T18:00:00+01:00, seconds since 1970 UTC, or null"
_AGE = "an age such as 30d, 12h, 45m or 2w, or a date in UTC such as 2026-11-01 or 2026-11-01T12:00:00Z"
_AGE_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw])", re.ASCII)
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]*)"
_CONNECT_TO = re.compile(rf"{_HOST}:(\d*):{_HOST}:(\d*)")


def _header_lines(value: object) -> object:
    """Take one header given as text for a list of one; an empty text is no header."""
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, (list, tuple)):
        raise ValueError('text such as "User-Agent: my-project/1.0 (+https://my.contact)", or a list of such')
    return value


def _at_home(value: object) -> object:
    """Replace a leading ``~`` by the home folder, as a shell does: in a YAML file nobody has."""
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value  # noqa: PTH111


def _checked_signal(text: str) -> str:
    choice = text.strip().lower()
    if not is_choice(choice):
        raise ValueError(
            "robots, x-robots-tag, content-usage, or one directive or category of the latter two, such as "
            "x-robots-tag:noindex or content-usage:search"
        )
    return choice


def _checked_network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"a network in CIDR notation such as 127.0.0.0/8 ({error})") from None
    return text


def _checked_connect_to(entry: str) -> str:
    parts = _CONNECT_TO.fullmatch(entry)
    if parts is None or not all(not port or 1 <= int(port) <= 65_535 for port in parts.groups()):
        raise ValueError(
            "HOST:PORT:CONNECT-TO-HOST:CONNECT-TO-PORT as for curl --connect-to (IPv6 in brackets, parts may be empty)"
        )
    return entry


def _checked_proxy(url: str) -> str:
    wrong = "a URL such as http://host:3128 (http, https, socks4, socks4a, socks5, socks5h), empty for none, or null"
    if not url or url == f"${{{''.join(variables_in(url))}}}":
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    known = parts.scheme in {"http", "https", "socks4", "socks4a", "socks5", "socks5h"}
    if not known or not parts.hostname or port == 0 or re.search(r"\s", url):
        raise ValueError(wrong)
    return url


def _epoch_seconds(value: object) -> object:
    """Turn a date with time zone (YAML makes it a datetime, JSON a text) into seconds since 1970-01-01 UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise ValueError(_END_TIME) from None
    if isinstance(value, date):
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError(_END_TIME)
        return value.timestamp()
    return value


def _checked_age(value: object) -> object:
    """Take a date (YAML makes it one, JSON a text) for its text in UTC, and leave an age as it is."""
    if isinstance(value, str):
        text = value.strip()
        age = _AGE_FORM.fullmatch(text)
        if age is not None:
            if float(age[1]) <= 0:
                raise ValueError(f"{_AGE}; an age above zero")
            return f"{age[1]}{age[2]}"
        try:
            value = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise ValueError(_AGE) from None
    if not isinstance(value, date):
        raise ValueError(_AGE)
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    return moment.isoformat()


def seconds_before(age: str, now: float) -> float:
    """Return the moment (seconds since 1970) that an ``Age`` means at the time ``now``."""
    found = _AGE_FORM.fullmatch(age)
    return datetime.fromisoformat(age).timestamp() if found is None else now - float(found[1]) * _UNIT_S[found[2]]


def _checked_uri(uri: str, schemes: frozenset[str], expected: str) -> str:
    """Refuse other schemes, and whatever might be a secret: it would end up in logs and in the output folder."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(expected)
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if ":" in user or (at and scheme == "s3"):
        raise ValueError("a URI without keys or passwords: credentials come from the environment")
    return uri


def _checked_input(path: str) -> str:
    expected = f"a path of this machine, or a URI with one of {', '.join(sorted(INPUT_SCHEMES))}"
    return _checked_uri(path, INPUT_SCHEMES, expected) if "://" in path else path


def _checked_output_folder(path: str) -> str:
    if "://" in path:
        raise ValueError(
            "a folder on a local or shared file system: the state of a run needs rename, fsync and a lock, which "
            "object stores do not have; to have the results in one, name it in publish.to"
        )
    return path


def _checked_base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme.lower() not in {"http", "https"} or not parts.netloc or "@" in parts.netloc:
        raise ValueError("an http or https URL such as https://data.example.org/images/, without a password")
    return url


def _checked_store(uri: str) -> str:
    examples = " or ".join(f"{scheme}://bucket/prefix" for scheme in sorted(STORE_SCHEMES))
    return _checked_uri(uri, STORE_SCHEMES, f"a URI of an object store, {examples}")


def _plain_name(name: str) -> str:
    if name in {"", ".", ".."} or re.search(r"[/\\\x00-\x1f]", name):
        raise ValueError("a plain name without slashes: it is created inside path_to_output_folder")
    return name


def _each_once(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
    doubled = sorted({str(item) for item in items if items.count(item) > 1})
    if doubled:
        raise ValueError(f"each entry once (doubled: {', '.join(doubled)})")
    return items


def _checked_hash(name: str) -> str:
    # SHAKE needs a length from the caller, and other names exist only with some builds of OpenSSL.
    names = sorted({known for known in hashlib.algorithms_guaranteed if not known.startswith("shake")} | QUICK_HASHES)
    if name not in names:
        raise ValueError(f"one of {', '.join(names)}")
    return name


def _checked_status(status: int) -> int:
    if status == 200 or status in REDIRECT_STATUSES:
        raise ValueError("statuses of failures: 200 is none, and redirects are followed")
    return status


def _checked_filter(text: str) -> str:
    parse_filter(text)  # its ValueError says what was expected
    return text


def _checked_preset(name: str) -> str:
    presets.text_of(name)  # its ValueError says what was expected
    return name


def _checked_pattern(pattern: str) -> str:
    if re.search(r"[/@\s]", pattern):
        raise ValueError("a server name or glob without scheme, path or spaces, e.g. '*.archive.org'")
    return pattern.lower()  # canonical server names are lowercase


def _checked_group(group: str) -> str:
    if group.startswith("__"):
        raise ValueError("a name that does not begin with '__', which is reserved")
    return group


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_each_once)]
"""A YAML list of texts, kept as a tuple."""
LocalPath = Annotated[str, Field(min_length=1), BeforeValidator(_at_home, json_schema_input_type=str)]
InputPlace = Annotated[LocalPath, AfterValidator(_checked_input)]
"""A path, or a URI without secrets."""
OutputFolder = Annotated[LocalPath, AfterValidator(_checked_output_folder)]
BaseUrl = Annotated[str, Field(min_length=1), AfterValidator(_checked_base)]
"""An absolute URL that relative ones are resolved against."""
StoreUri = Annotated[str, Field(min_length=1), AfterValidator(_checked_store)]
PresetName = Annotated[str, Field(json_schema_extra={"enum": list(presets.names())}), AfterValidator(_checked_preset)]
RowFilterText = Annotated[str, Field(min_length=1), AfterValidator(_checked_filter)]
HeaderLines = Annotated[
    tuple[Annotated[str, AfterValidator(checked_header_line)], ...],
    Field(strict=False),
    BeforeValidator(_header_lines, json_schema_input_type=str | list[str]),
]
Headers = Annotated[Mapping[Text, str], AfterValidator(checked_headers)]
"""Values by name; they may have variables of the environment, and are shown nowhere."""
Respected = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_signal)], ...], Field(strict=False), AfterValidator(_each_once)
]
"""Lower case."""
Networks = Annotated[tuple[Annotated[str, AfterValidator(_checked_network)], ...], Field(strict=False)]
ConnectTo = Annotated[tuple[Annotated[str, AfterValidator(_checked_connect_to)], ...], Field(strict=False)]
Proxy = Annotated[str, AfterValidator(_checked_proxy)]
HashName = Annotated[str, AfterValidator(_checked_hash)]
Statuses = Annotated[
    tuple[Annotated[int, Field(ge=100, le=999), AfterValidator(_checked_status)], ...],
    Field(strict=False),
    AfterValidator(_each_once),
]
"""HTTP statuses of failures."""
Name = Annotated[str, AfterValidator(_plain_name)]
"""The name of a file or folder."""
ServerPattern = Annotated[str, Field(min_length=1), AfterValidator(_checked_pattern)]
GroupName = Annotated[str, Field(min_length=1), AfterValidator(_checked_group)]
Age = Annotated[str, BeforeValidator(_checked_age, json_schema_input_type=str)]
"""How long ago, as ``30d``, or a moment as its ISO text in UTC."""
EndTime = Annotated[
    float | None, Field(gt=0), BeforeValidator(_epoch_seconds, json_schema_input_type=str | float | None)
]
"""Seconds since 1970-01-01 UTC."""
