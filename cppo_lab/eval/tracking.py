"""Finished evaluations in MLflow, each one run of an experiment of their own."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from cppo_lab.eval.folder import PROBLEMS, RESULTS, TIMINGS, EvaluationFolder
from cppo_lab.eval.results import mlflow_metrics
from cppo_lab.tracking.mirrored_runs import MIRROR_FILE, recorded_stores
from cppo_lab.tracking.mlflow_names import KIND_TAG, RUN_ID_TAG
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.run_content import RunContent, Value, flat
from cppo_lab.tracking.store_address import store_name, tracking_uri
from cppo_lab.tracking.sync import Compared, Stores, tried

EXPERIMENT = "cppo-lab-evals"


def send(folder: EvaluationFolder, root: Path, uri: str | None) -> None:
    """Make MLflow say what the folder of a finished evaluation says. Raises UserError if the store cannot be used."""
    used = tracking_uri(uri, root)
    known = folder.read(MIRROR_FILE)
    if store_name(used, root) not in known:
        # Before anything can fail, so that `sync` knows where it is to go.
        folder.write(MIRROR_FILE, known | {store_name(used, root): {}})
    store, content = Store(used, EXPERIMENT, root), evaluation_content(folder)
    store.trying(lambda: store.runs.update_ended(folder, folder.path.name, content))


def evaluation_content(folder: EvaluationFolder) -> RunContent:
    """What MLflow should say of a finished evaluation."""
    results, asked = folder.read(RESULTS), folder.read("request.json").get("asked", {})
    ended = int((folder.path / RESULTS).stat().st_mtime * 1000)
    timings = folder.read(TIMINGS)
    metrics = mlflow_metrics(results["task"], results)
    metrics[f"eval/{results['task']}/tokens_per_s"] = timings.get("tokens_per_s", 0.0)
    files = {name: folder.path / name for name in (RESULTS, PROBLEMS, TIMINGS)}
    return RunContent(
        run_id=folder.path.name,
        status="FINISHED",
        started=ended - int(1000 * timings.get("sampling_s", 0.0)),
        ended=ended,
        tags={KIND_TAG: "evaluation", RUN_ID_TAG: folder.path.name, "mlflow.source.name": "cppo-lab eval"},
        params=flat({key: value for key, value in asked.items() if value is not None}),
        metrics={(key, 0): Value(value, ended) for key, value in metrics.items() if math.isfinite(value)},
        files={name: path for name, path in files.items() if path.exists()},
    )


def tracked_evaluations(root: Path) -> list[EvaluationFolder]:
    """The finished evaluations of an output folder that were to be sent to a store."""
    folders = [EvaluationFolder(path.parent) for path in sorted((root / "evals").glob(f"*/{MIRROR_FILE}"))]
    return [folder for folder in folders if (folder.path / RESULTS).exists()]


def sync_evaluation(folder: EvaluationFolder, stores: Stores, *, only_check: bool) -> list[Compared]:
    """Compare a finished evaluation with the stores that it was to be sent to, and unless `only_check` mend them."""
    known = recorded_stores(folder.path)

    def compare(name: str | None) -> list[str]:
        store = stores.of(None, name, EXPERIMENT)
        content = evaluation_content(folder)
        if only_check:
            return store.runs.check_ended(folder, content)
        return store.runs.update_ended(folder, folder.path.name, content)

    names = [None] if stores.is_asked or not known else known
    return [tried(folder.path.name, partial(compare, name)) for name in names]
