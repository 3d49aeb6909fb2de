"""Rows of data sets: from the hub at a pinned revision, or from a local file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError, first_line
from cppo_lab.files import json_lines
from cppo_lab.hub import offline_if_unreachable

FORMATS = "JSONL, JSON, CSV, TSV or Parquet"
_GZIP = ".gz"


def local_rows(path: Path) -> list[Any]:
    """The rows of a local file, by its suffix: .json, .csv, .tsv or .parquet, else JSONL; with a further .gz, unpacked.

    Cells of CSV and TSV are text. Raises UserError if the file is missing or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such data file; a {FORMATS} file is needed.")
    is_packed = path.suffix.lower() == _GZIP
    suffix = Path(path.stem).suffix.lower() if is_packed else path.suffix.lower()
    read = _READERS.get(suffix, _jsonl_rows)
    try:
        content = path.read_bytes()
        return read(gzip.decompress(content) if is_packed else content)
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:
        # pyarrow's errors derive from ValueError and OSError, those of json and decoding from ValueError.
        name = suffix.removeprefix(".").upper() if suffix in _READERS else "JSONL"
        raise UserError(f"{path}: cannot be read as {name} ({first_line(error)}).") from error


def _text(content: bytes) -> str:
    # Drops a byte order mark, which spreadsheets write.
    return content.decode("utf-8-sig")


def _jsonl_rows(content: bytes) -> list[Any]:
    return json_lines(_text(content))


def _json_rows(content: bytes) -> list[Any]:
    rows = json.loads(_text(content))
    return rows if isinstance(rows, list) else [rows]


def _csv_rows(content: bytes, delimiter: str = ",") -> list[Any]:
    reader = csv.reader(io.StringIO(_text(content), newline=""), delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(reader, [])]
    if len(set(header)) < len(header) or "" in header:
        raise ValueError(f"its header must name every column once; it is {delimiter.join(header)}")
    # The reader gives a blank line as a row without cells.
    rows = [cells for cells in reader if cells]
    for number, cells in enumerate(rows, start=1):
        if len(cells) != len(header):
            raise ValueError(f"row {number} has {len(cells)} cells; the header has {len(header)}")
    return [dict(zip(header, cells, strict=True)) for cells in rows]


def _tsv_rows(content: bytes) -> list[Any]:
    return _csv_rows(content, "\t")


def _parquet_rows(content: bytes) -> list[Any]:
    from pyarrow import BufferReader
    from pyarrow.parquet import read_table

    rows: list[Any] = read_table(BufferReader(content)).to_pylist()
    return rows


_READERS: dict[str, Callable[[bytes], list[Any]]] = {
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".parquet": _parquet_rows,
}


def hub_rows(hub_id: str, config: str | None, split: str, revision: str) -> list[Any]:
    """The rows of a split of a hub data set. Raises UserError if the hub cannot supply them."""
    from datasets import load_dataset

    offline_if_unreachable()
    try:
        return list(load_dataset(hub_id, config, split=split, revision=revision))
    except Exception as error:
        # The hub's client raises a wide family of errors (offline, proxy, missing revision, cache).
        raise UserError(
            f"{hub_id}@{revision[:8]}: cannot be loaded from the hub ({type(error).__name__}); "
            f"give a local {FORMATS} file instead (task.path=…, task.heldout_paths.BENCHMARK=… or --data …)."
        ) from error
