"""The bytes of a text file: decompressed, and in UTF-8, whatever encoding it is in.

What cannot be decoded comes as bytes that are no UTF-8 either, so that it is found where rows are looked at.
"""

from __future__ import annotations

import codecs
import io
import lzma
from typing import IO, Any, Final, Literal, cast

import pyarrow as pa

from ddmpi.errors import InputError
from ddmpi.io.sources.files import InputPath, StoredFile

Compression = Literal["gzip", "zstd", "bz2", "xz"]

_READ_BYTES: Final = 1 << 20
_UTF_16_OR_32: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
UTF_8: Final = frozenset({"utf-8", "utf-8-sig", "ascii"})
"""Encodings whose texts are UTF-8 as they stand."""


def open_bytes(path: InputPath, compression: Compression | None, encoding: str = "utf-8") -> IO[bytes]:
    """Return the file's bytes, decompressed and recoded to UTF-8 while they are read; a byte order mark stays.
    Raises OSError as it comes."""
    stream = _decompressed(path, compression)
    if encoding not in UTF_8:
        return cast("IO[bytes]", io.BufferedReader(_Recoded(stream, encoding), _READ_BYTES))
    return stream


def check_encoding(path: InputPath, compression: Compression | None, encoding: str) -> None:
    """Refuse a file as ``check_beginning`` does; raises OSError as it comes, too."""
    if encoding in UTF_8:
        with _decompressed(path, compression) as stream:
            check_beginning(path, stream.read(4), encoding)


def check_beginning(path: InputPath, beginning: bytes, encoding: str) -> None:
    """Refuse a file in UTF-16 or UTF-32, as spreadsheets write them, where the config does not say so: every row of it
    would be a bad URL. Raises InputError: its beginning is that of such a file."""
    if encoding not in UTF_8 or not beginning.startswith(_UTF_16_OR_32):
        return
    name = "utf-32" if b"\0\0" in beginning[:4] else "utf-16"
    raise InputError(
        f"{path}: is not in UTF-8, but in UTF-16 or UTF-32 by its first bytes; write input.encoding: {name}"
    )


def _decompressed(path: InputPath, compression: Compression | None) -> IO[bytes]:
    if compression == "xz":
        source = path.files.open_input_stream(path.path) if isinstance(path, StoredFile) else path
        return cast("IO[bytes]", lzma.open(cast("IO[bytes]", source)))
    if isinstance(path, StoredFile):
        return cast("IO[bytes]", path.files.open_input_stream(path.path, compression=compression))
    stream = pa.input_stream(str(path), compression=compression)  # type: ignore[arg-type]  # the stubs forget None
    return cast("IO[bytes]", stream)


class _Recoded(io.RawIOBase):
    """Another stream's text in UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        is_wide = encoding.startswith(("utf-16", "utf-32"))
        self._errors = "surrogatepass" if is_wide else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(encoding)(self._errors)
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            new = self._stream.read(_READ_BYTES)
            self._ready = self._decoder.decode(new, final=not new).encode("utf-8", self._errors)
            if not new:
                break
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()
