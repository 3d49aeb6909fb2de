"""Log a finished evaluation as one MLflow run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cppo_lab.eval.folder import PROBLEMS, RESULTS, TIMINGS
from cppo_lab.eval.request import EvaluationRequest
from cppo_lab.eval.results import mlflow_metrics
from cppo_lab.eval.run import Finished
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.store_address import tracking_uri

EXPERIMENT = "cppo-lab-evals"
SENT = "mlflow.json"


def send(request: EvaluationRequest, finished: Finished, root: Path, uri: str | None) -> None:
    """Log parameters, metrics and files once per store. Raises UserError if the store cannot be used."""
    folder = finished.folder
    used = tracking_uri(uri, root)
    store = Store(used, EXPERIMENT, root)
    sent = folder.read(SENT)
    if store.name in sent:
        return
    speed = {"tokens_per_s": folder.read(TIMINGS).get("tokens_per_s", 0.0)}
    metrics = mlflow_metrics(request.task, finished.results) | {
        f"eval/{request.task}/{key}": value for key, value in speed.items()
    }
    run_id = store.evaluation(
        folder.path.name,
        {key: value for key, value in asdict(request).items() if value is not None},
        metrics,
        [folder.path / name for name in (RESULTS, PROBLEMS, TIMINGS)],
    )
    folder.write(SENT, sent | {store.name: run_id})
