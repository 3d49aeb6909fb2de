"""Rows of data sets: from the hub at a pinned revision, or from a local JSONL, JSON or Parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.files import json_lines


def local_rows(path: Path) -> list[Any]:
    """The rows of a local file. Raises UserError when it is missing or cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such data file; a JSONL or Parquet file is needed.")
    try:
        if path.suffix == ".parquet":
            import pandas as pd

            return pd.read_parquet(path).to_dict("records")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            rows = json.loads(text)
            return rows if isinstance(rows, list) else [rows]
        return json_lines(text)
    except (ValueError, OSError) as error:
        # pyarrow's errors derive from ValueError, as do json's and those of decoding.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as JSONL or Parquet ({first}).") from error


def hub_rows(hub_id: str, config: str | None, split: str, revision: str) -> list[Any]:
    """The rows of a hub data set's split. Raises UserError when the hub cannot give them."""
    from datasets import load_dataset

    try:
        return list(load_dataset(hub_id, config, split=split, revision=revision))
    except Exception as error:
        # The hub's client raises a wide family of errors (offline, proxy, missing revision, cache).
        raise UserError(
            f"{hub_id}@{revision[:8]}: cannot be loaded from the hub ({type(error).__name__}); "
            "give a local JSONL or Parquet file instead (task.path=…, task.heldout_paths.BENCHMARK=… or --data …)."
        ) from error
