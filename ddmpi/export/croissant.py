"""``croissant.json``: a dataset's files and columns in the words of MLCommons (Croissant 1.0, JSON-LD).

A column whose type Croissant has no word for (a struct, bytes, a map) is not listed; it is in the files all the same.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from ddmpi._version import __version__
from ddmpi.export.dataset_card import Contents

CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The one of the specification."""
RECORDS: Final = "default"
_FILES: Final = "parquet-files"
_MOST_LICENSES: Final = 25


def croissant(contents: Contents, schema: pa.Schema) -> dict[str, Any]:
    """Return the description of a folder with ``data/*.parquet``, all of this schema."""
    licenses = [license_ for license_, _ in contents.counts["license"].most_common(_MOST_LICENSES) if license_]
    described: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": contents.name,
        "description": contents.sentence,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "creator": {"@type": "Organization", "name": f"ddmpi {__version__}"},
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": _FILES,
                "name": _FILES,
                "encodingFormat": "application/x-parquet",
                "includes": "data/*.parquet",
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": RECORDS,
                "name": RECORDS,
                "field": _fields(schema),
            }
        ],
    }
    if licenses:
        described["license"] = sorted(licenses)
    if contents.times:
        described["datePublished"] = contents.times[1]
    return described


def _fields(schema: pa.Schema) -> list[dict[str, Any]]:
    listed = [field for column in schema if (field := _field(column))]
    return listed if "split" in schema.names else [_split_field(), *listed]


def _split_field() -> dict[str, Any]:
    return _described(
        "split",
        "sc:Text",
        {"extract": {"fileProperty": "fullpath"}, "transform": {"regex": r"^.*?([^/]+)-\d{5}-of-\d+\.parquet$"}},
    )


def _field(column: pa.Field[Any]) -> dict[str, Any] | None:
    source: dict[str, Any] = {"extract": {"column": column.name}}
    if pa.types.is_struct(column.type) and column.type.names == ["bytes", "path"]:
        return _described(column.name, "sc:ImageObject", {**source, "transform": {"jsonPath": "bytes"}})
    is_list = pa.types.is_list(column.type)
    word = _word(column.type.value_type if is_list else column.type)
    if word is None:
        return None
    return _described(column.name, word, source) | ({"repeated": True} if is_list else {})


def _described(name: str, data_type: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{RECORDS}/{name}",
        "name": name,
        "dataType": data_type,
        "source": {"fileSet": {"@id": _FILES}, **source},
    }


def _word(kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "sc:Text"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_date(kind):
        return "sc:Date"
    return "sc:DateTime" if pa.types.is_timestamp(kind) else None
