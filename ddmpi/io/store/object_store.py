"""File systems that are named by a URI: s3://, gs://, hdfs:// and whatever else pyarrow knows.

Where to find one stands in the URI (for S3: ``endpoint_override``, ``scheme``, ``region``), who we are does not:
credentials come from the environment, as the store's own tools take them, so that no config or log ever holds one.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.fs

from ddmpi.errors import SetupError

CONNECT_TIMEOUT_S: Final = 5.0
REQUEST_TIMEOUT_S: Final = 30.0
"""Without any progress; arrow's own 3 s are short for a store that is busy."""
GCS_RETRY_S: Final = 30
"""Arrow's own 15 minutes are too long to wait for the word that a store is out of reach."""
ATTEMPTS: Final = 4
_S3_OPTIONS: Final = ("endpoint_override", "region", "scheme")
_DEFAULT_REGION: Final = "us-east-1"
_HINTS: Final = (
    ("NO_SUCH_BUCKET|Bucket '.*' not found", "no such bucket"),
    (
        "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE|INVALID_CLIENT_TOKEN|UNAUTHENTICATED|PERMISSION",
        "access was denied; credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
        "GOOGLE_APPLICATION_CREDENTIALS ...)",
    ),
    ("libjvm|libhdfs", "hdfs:// needs Java and Hadoop's libhdfs (JAVA_HOME, HADOOP_HOME, CLASSPATH)"),
    ("NETWORK_CONNECTION|resolve host", "the store cannot be reached"),
)
"""What people are told first, by what arrow's message holds."""


def is_uri(path: str) -> bool:
    """Return whether it names more than a file of this machine."""
    return "://" in path


def open_store(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system of a URI, and the path in it (``bucket/prefix``). Raises SetupError: the URI is wrong, or
    the store does not answer."""
    try:
        if uri.startswith("s3://"):
            return _open_s3(uri)
        if uri.startswith("gs://") and "retry_limit_seconds=" not in uri:
            uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={GCS_RETRY_S}"
        return pyarrow.fs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise SetupError(f"{place_of(uri)}: {store_reason(error)}") from error


def place_of(uri: str) -> str:
    """Return the URI without its options, for messages and comparisons."""
    return uri.partition("?")[0].rstrip("/")


def store_reason(error: Exception) -> str:
    """Return what a store's error means, in one line."""
    text = " ".join(str(error).split())[:300]
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "")
    return f"{hint} ({text})" if hint else text


def _open_s3(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Do what ``from_uri`` does, which knows neither timeouts nor how to keep one upload's memory to one piece."""
    place, _, query = uri.partition("?")
    # Arrow parses and decodes the path; a region keeps it from asking AWS for one.
    _, path = pyarrow.fs.FileSystem.from_uri(f"{place}?region={_DEFAULT_REGION}")
    if not path:
        raise ValueError("no bucket is named: expected s3://bucket/path")
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    unknown = sorted(options.keys() - set(_S3_OPTIONS))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)} (known: {', '.join(_S3_OPTIONS)})")
    if "region" not in options:
        # Stores that are not AWS take any region, and AWS tells each bucket's.
        other = "endpoint_override" in options
        options["region"] = _DEFAULT_REGION if other else pyarrow.fs.resolve_s3_region(path.partition("/")[0])
    files = pyarrow.fs.S3FileSystem(
        **options,
        background_writes=False,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
    return files, path


STORE_ERRORS: Final = (OSError, pa.ArrowException)
"""What a store's file system raises."""
