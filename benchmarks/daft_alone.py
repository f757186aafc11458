"""Daft on a table of URLs: ``daft_alone.py URLS TARGET``.

Downloads the column ``identifier`` of a Parquet file and writes URLs and bodies into a folder of Parquet files: no
hash, no limits; an error ends it.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

CONNECTIONS = 64


def main() -> int:
    urls, target = sys.argv[1:]
    # Daft reports its use to its makers, and draws, unless told not to before it is imported.
    os.environ.update(DAFT_ANALYTICS_ENABLED="0", DO_NOT_TRACK="true", DAFT_PROGRESS_BAR="0")
    daft = import_module("daft")
    bodies = import_module("daft.functions").download(daft.col("identifier"), max_connections=CONNECTIONS)
    daft.read_parquet(urls).with_column("image", bodies).write_parquet(target, compression="none")
    return 0


if __name__ == "__main__":
    # Its threads may outlive the interpreter, which ends with an abort then (0.7).
    os._exit(main())
