"""An MLflow experiment on a server that shares no disk with the reader: its report equals that of the run folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from run_folders import Fault, write_run

from cppo_lab.analysis.load.comparability import NotComparable
from cppo_lab.analysis.load.mlflow_runs import Selection, load_experiment
from cppo_lab.analysis.load.sources import NothingToReport, load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.report import collect, write_report, write_study
from cppo_lab.sweeps.adhoc import adhoc_sweep
from cppo_lab.sweeps.sweep import PlannedRun, Sweep, plan_sweep
from cppo_lab.tracking.mlflow_sync import RunMirror, SweepMirror
from cppo_lab.tracking.run_folder import RunFolder

pytestmark = pytest.mark.slow

EXPERIMENT = "cppo-lab"
FILES = ("run.json", "metrics.jsonl", "timings.jsonl", "profiles.jsonl")


@dataclass(frozen=True)
class Tracked:
    """A server with two sweeps and a run on its own, and the output folder that they were sent from.

    The first sweep holds all that may become of a run; the second and the run on its own are comparable with nothing.
    """

    uri: str
    output: Path
    sweep: Sweep
    longer: Sweep

    def wanted(self, *sweeps: str, experiment: str = EXPERIMENT, runs: tuple[str, ...] = ()) -> Selection:
        return Selection(self.uri, experiment, sweeps, runs)


def planned(output: Path, uri: str, *overrides: str) -> Sweep:
    sweep = adhoc_sweep(list(overrides))
    return plan_sweep(sweep, [*overrides, f"paths.output='{output}'", f"tracking.uri={uri}"])


def write(run: PlannedRun, fault: Fault | None = None) -> RunFolder:
    """The run's folder as the trainer leaves it, with its real configuration."""
    folder, config = run.folder, run.config
    write_run(
        folder.path,
        run_id=folder.path.name.rpartition("-")[2],
        algo=config.algo.name,
        seed=config.seed,
        steps=config.trainer.steps,
        fault=fault,
    )
    folder.create(config.model_dump(mode="python"))
    return folder


@pytest.fixture(scope="module")
def tracked(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    output = tmp_path_factory.mktemp("sender") / "out"
    sweep = planned(output, mlflow_server, "algo=grpo,cppo", "seed=0,1,2")
    faults = {
        ("grpo", 1): Fault("FAILED", "KeyError: 'divergence_mean'", 4),
        ("grpo", 2): Fault("FAILED", "loss is nan at step 4", 4, diverged=True),
        ("cppo", 1): Fault("RUNNING", None, 5),
    }
    for run in sweep.runs:
        name = (run.config.algo.name, run.config.seed)
        # The last one never starts.
        if name != ("cppo", 2):
            write(run, faults.get(name))
    mirror = SweepMirror(sweep, sweep.runs[0].config.tracking)
    mirror.send()
    longer = planned(output, mlflow_server, "algo=grpo,cppo", "seed=0", "trainer.steps=24")
    for run in longer.runs:
        write(run)
    SweepMirror(longer, longer.runs[0].config.tracking).close()
    (alone,) = planned(output, mlflow_server, "algo=pg", "seed=0", "trainer.epochs=1").runs
    RunMirror(alone.config, write(alone)).close()
    return Tracked(mlflow_server, output, sweep, longer)


def tables_of(study: Study) -> dict[str, list[dict[str, object]]]:
    return {
        name: json.loads(table.frame().to_json(orient="records"))
        for name, table in collect(study, set()).tables.items()
    }


def in_any_order(tables: dict[str, list[dict[str, object]]]) -> dict[str, list[str]]:
    return {name: sorted(map(json.dumps, rows)) for name, rows in tables.items()}


def test_report_of_a_finished_sweep_equals_that_of_its_folders(tracked: Tracked, tmp_path: Path) -> None:
    name = tracked.longer.name
    here = load_study(tracked.output, name)
    there = load_experiment(tracked.wanted(name), tmp_path)
    first, second = collect(here, {"png"}), collect(there, {"png"})
    assert tables_of(there) == tables_of(here)
    assert second.verdicts == first.verdicts
    assert second.caveats == first.caveats
    assert second.samples == first.samples
    assert {name: figure.png for name, figure in second.rendered.items()} == {
        name: figure.png for name, figure in first.rendered.items()
    }
    assert (there.title, there.question) == (here.title, here.question)
    assert there.source == f"MLflow experiment cppo-lab at {tracked.uri}"


def test_every_run_of_a_sweep_is_there_with_its_status_and_reason(tracked: Tracked, tmp_path: Path) -> None:
    study = load_experiment(tracked.wanted(tracked.sweep.name), tmp_path)
    runs = study.runs.set_index(["method", "seeds"])
    assert runs["status"].to_dict() == {
        ("grpo", "seed=0"): "FINISHED",
        ("grpo", "seed=1"): "FAILED",
        ("grpo", "seed=2"): "FAILED",
        ("cppo", "seed=0"): "FINISHED",
        ("cppo", "seed=1"): "RUNNING",
        ("cppo", "seed=2"): "PENDING",
    }
    assert runs.loc[("grpo", "seed=2"), "reason"] == "loss is nan at step 4"
    caveats = " ".join(collect(study, set()).caveats)
    assert "1 run still running (cppo seed=1); shown, not counted." in caveats
    assert "1 run not started, or deleted (cppo seed=2); shown, not counted." in caveats


def test_run_that_goes_on_is_read_from_parameters_and_metrics(tracked: Tracked, tmp_path: Path) -> None:
    study = load_experiment(tracked.wanted(tracked.sweep.name), tmp_path)
    here = load_study(tracked.output, tracked.sweep.name)
    (run_id,) = study.runs.index[study.runs["status"] == "RUNNING"]
    metrics, expected = (each.metrics[each.metrics["run_id"] == run_id] for each in (study, here))
    recorded = expected.dropna(axis="columns", how="all").reset_index(drop=True)
    assert metrics[recorded.columns].reset_index(drop=True).equals(recorded)
    assert study.runs.loc[run_id, "policy"] == here.runs.loc[run_id, "policy"], (
        "pairs need the starting policy"
    )
    configured = [column for column in study.runs.columns if str(column).startswith("config.")]
    assert study.runs.loc[run_id, configured].equals(here.runs.loc[run_id, configured])
    assert [note for note in study.notes if "sent no files" in note] == [
        f"1 run has sent no files to the server (cppo-{run_id}): parameters and metrics were read, but no timings, "
        "profiles or samples."
    ]


@pytest.mark.parametrize("sent", [True, False], ids=["files", "no files"])
def test_run_that_diverged_is_told_from_one_that_crashed(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    from mlflow import MlflowClient

    listed = MlflowClient.list_artifacts
    if not sent:
        monkeypatch.setattr(
            MlflowClient,
            "list_artifacts",
            lambda *arguments: [each for each in listed(*arguments) if each.path != "run.json"],
        )
    study = load_experiment(tracked.wanted(tracked.sweep.name), tmp_path)
    assert any("sent no files" in note for note in study.notes)
    failed = study.runs[study.runs["status"] == "FAILED"].set_index(["method", "seeds"])
    assert failed["diverged"].to_dict() == {("grpo", "seed=1"): False, ("grpo", "seed=2"): True}
    assert failed["counted"].to_dict() == failed["diverged"].to_dict()


def test_whole_experiment_is_refused_where_its_runs_do_not_compare_and_marked_with_force(
    tracked: Tracked, tmp_path: Path
) -> None:
    with pytest.raises(NotComparable, match=r"trainer\.steps is 12 in .* and 24 in sweep adhoc-"):
        load_experiment(tracked.wanted(), tmp_path)
    study = load_experiment(tracked.wanted(), tmp_path, force=True)
    assert len(study.runs) == 6 + 2 + 1
    assert study.mark == "not comparable: budget differs"
    assert study.name == "mlflow+cppo-lab"


def test_run_is_chosen_by_any_of_its_names(tracked: Tracked, tmp_path: Path) -> None:
    folder = tracked.longer.runs[0].folder.path
    short = folder.name.rpartition("-")[2]
    sent = json.loads((folder / "mlflow.json").read_text(encoding="utf-8"))[tracked.uri]
    (known,) = sent.values()
    for asked in (folder.name, short, known["run_id"]):
        study = load_experiment(tracked.wanted(runs=(asked,)), tmp_path)
        assert list(study.runs.index) == [short]


def test_run_that_ended_is_fetched_once(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    fetched: list[str] = []
    download = MlflowClient.download_artifacts

    def counting(client: MlflowClient, run_id: str, path: str, dst_path: str | None = None) -> str:
        fetched.append(path)
        return str(download(client, run_id, path, dst_path))

    monkeypatch.setattr(MlflowClient, "download_artifacts", counting)
    name = tracked.longer.name
    load_experiment(tracked.wanted(name), tmp_path)
    assert {*FILES, "config.yaml", "sweep.json"} < set(fetched)
    fetched.clear()
    load_experiment(tracked.wanted(name), tmp_path)
    assert fetched == ["sweep.json"]


def test_sweep_whose_manifest_never_arrived_is_made_from_its_runs(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    listed = MlflowClient.list_artifacts
    monkeypatch.setattr(
        MlflowClient,
        "list_artifacts",
        lambda *arguments: [each for each in listed(*arguments) if each.path != "sweep.json"],
    )
    study = load_experiment(tracked.wanted(tracked.longer.name), tmp_path)
    here = load_study(tracked.output, tracked.longer.name)
    assert study.grouping == here.grouping
    # Runs that began in the same second are listed in no particular order.
    assert in_any_order(tables_of(study)) == in_any_order(tables_of(here))


def test_path_in_a_manifest_from_the_network_is_not_followed(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    secret = tmp_path / "secret"
    shutil.copytree(tracked.longer.runs[0].folder.path, secret)
    download = MlflowClient.download_artifacts

    def hostile(client: MlflowClient, run_id: str, path: str, dst_path: str) -> str:
        found = Path(download(client, run_id, path, dst_path))
        if path == "sweep.json":
            manifest = json.loads(found.read_text(encoding="utf-8"))
            extra = {"run_id": "0" * 12, "folder": str(secret), "axes": {"algo": "grpo", "seed": "9"}}
            found.write_text(json.dumps(manifest | {"runs": [*manifest["runs"], extra]}), encoding="utf-8")
        return str(found)

    monkeypatch.setattr(MlflowClient, "download_artifacts", hostile)
    study = load_experiment(tracked.wanted(tracked.longer.name), tmp_path / "cache")
    assert study.runs.loc["0" * 12, "status"] == "PENDING"


def test_report_is_written_under_the_name_of_experiment_and_sweep(tracked: Tracked, tmp_path: Path) -> None:
    study = load_experiment(tracked.wanted(tracked.longer.name), tmp_path / "cache")
    files = write_study(study, tmp_path / study.name, ("md", "csv"))
    assert study.name == f"mlflow+cppo-lab+{tracked.longer.name}"
    assert files.markdown is not None
    assert f"- source: MLflow experiment cppo-lab at {tracked.uri}" in files.markdown.read_text("utf-8")
    local = write_report(
        tracked.output, tracked.longer.name, destination=tmp_path / "local", formats=("csv",)
    )
    for mine, theirs in zip(files.tables, local.tables, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        ({"experiment": "cppo-lub"}, ["--experiment cppo-lub", "no such experiment", "'cppo-lab'"]),
        ({"experiment": "Default"}, ["--experiment Default", "holds no run of the lab"]),
        ({"sweeps": ("adhoc",)}, ["sweep = adhoc", "not in experiment cppo-lab", "adhoc-"]),
        ({"runs": ("nothing",)}, ["--run = nothing", "not in experiment cppo-lab"]),
    ],
)
def test_what_the_server_does_not_have_is_refused_with_what_it_has(
    wanted: dict[str, object], parts: list[str], tracked: Tracked, tmp_path: Path
) -> None:
    with pytest.raises(NothingToReport) as caught:
        load_experiment(Selection(**{"uri": tracked.uri, "experiment": EXPERIMENT, **wanted}), tmp_path)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
