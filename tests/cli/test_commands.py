"""The commands in this process: what they print, their exit codes, and refusals that leave nothing behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY, UNTRAINED, one_run_folder, starting, tiny_config

from cppo_lab.config.compose import group_options
from cppo_lab.files import jsonable, read_log
from cppo_lab.sweeps.sweep_file import sweep_names
from cppo_lab.training.checkpoint import save_checkpoint

Invoke = Callable[..., tuple[int, str, str]]
COMMANDS = ["sweep", "train", "eval", "report", "inspect", "compare", "plan", "list", "config", "doctor"]


def refused(result: tuple[int, str, str], *parts: str) -> str:
    """The one sentence of a refusal with exit code 2."""
    code, out, err = result
    assert code == 2, (code, out, err)
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0], lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def model(warmed_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder in Hugging Face format."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(folder, starting(tiny_config(warmed_up)))
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, invoke: Invoke) -> None:
    code, out, _ = invoke(name, "--help")
    assert code == 0
    assert re.search(rf"cppo-lab {name}\b.*\w", out)
    assert "Example" in out


def test_help_names_every_command(invoke: Invoke) -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    assert all(re.search(rf"│ {name} ", out) for name in COMMANDS)


def test_version_is_printed(invoke: Invoke) -> None:
    from cppo_lab import __version__

    assert invoke("--version") == (0, f"cppo-lab {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["nothing"], ["sweep"], ["eval", "gsm8k"], ["list", "everything"]])
def test_wrong_usage_ends_with_two(arguments: list[str], invoke: Invoke) -> None:
    code, out, err = invoke(*arguments)
    assert code == 2
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", group_options("algo")),
        ("models", group_options("model")),
        ("tasks", group_options("task")),
        ("sweeps", sweep_names()),
    ],
)
def test_lists_name_every_choice(what: str, names: list[str], invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("list", what, "--json", "-o", str(tmp_path))
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == names


def test_list_without_json_is_a_table_with_one_line_each(invoke: Invoke) -> None:
    lines = invoke("list", "models")[1].splitlines()
    for name in group_options("model"):
        assert sum(line.startswith(f"{name} ") for line in lines) == 1, name


def test_list_of_runs_is_empty_before_the_first(invoke: Invoke, tmp_path: Path) -> None:
    assert json.loads(invoke("list", "runs", "--json", "-o", str(tmp_path / "none"))[1]) == []
    assert not (tmp_path / "none").exists()


def test_a_value_that_a_method_leaves_open_is_named_in_lists_and_refused_in_runs(
    invoke: Invoke, tmp_path: Path
) -> None:
    rows = {row["name"]: row for row in json.loads(invoke("list", "methods", "--json")[1])}
    assert rows["k3_clip"]["trust region"] == "needs algo.trust_region.delta"
    code, out, _ = invoke("list", "methods", "--diff", "k3_clip", "luspo", "--json")
    assert code == 0
    found = {row["coordinate"]: (row["k3_clip"], row["luspo"]) for row in json.loads(out)}
    assert found["trust_region.delta"] == ("to be given", None)
    assert found["divergence.kind"] == ("k3", "none")
    code, out, err = invoke("train", "algo=k3_clip", f"paths.output='{tmp_path}'")
    assert code == 2
    assert "algo.trust_region.delta" in err
    assert "needs a number" in err


def test_difference_of_two_methods_is_their_coordinates_that_differ(invoke: Invoke) -> None:
    code, out, _ = invoke("list", "methods", "--diff", "cppo", "cppo_no_budget", "--json")
    assert code == 0
    rows = {row["coordinate"]: (row["cppo"], row["cppo_no_budget"]) for row in json.loads(out)}
    assert rows.keys() == {"trust_region.budget.kind"}
    assert rows["trust_region.budget.kind"][1] == "none"
    refused(invoke("list", "methods", "--diff", "cppo", "grop"), "method=grop", "'grpo'")
    refused(invoke("list", "tasks", "--diff", "cppo", "grpo"), "--diff")


def test_config_prints_what_would_run(invoke: Invoke, tmp_path: Path) -> None:
    import yaml

    code, out, _ = invoke("config", "algo=grpo", "seed=3", "--json", "-o", str(tmp_path / "o"))
    assert code == 0
    found = json.loads(out)
    assert found["config"]["algo"]["name"] == "grpo"
    assert found["config"]["seeds"]["prompts"] == 3
    plain = invoke("config", "algo=grpo", "seed=3", "-o", str(tmp_path / "o"))[1]
    assert found["run_id"] in plain
    # JSON has no infinity.
    assert jsonable(yaml.safe_load(plain)) == found["config"]
    assert not (tmp_path / "o").exists(), "looking leaves nothing behind"


def test_plan_says_what_would_run_and_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "o"
    code, text, _ = invoke("plan", "quickstart", "seed=range(0,3)", "--json", "-o", str(out))
    assert code == 0
    found = json.loads(text)
    assert len(found["runs"]) == 3 * 2 * 4
    assert {run["state"] for run in found["runs"]} == {"PENDING"}
    assert found["starting_policies_to_make"] == 3
    assert all(run["updates"] == 12 * 64 and run["tokens"] > 0 and run["time_s"] > 0 for run in found["runs"])
    assert not out.exists()
    assert invoke("plan", "quickstart", "-o", str(out))[0] == 0
    assert invoke("sweep", "quickstart", "--dry-run", "-o", str(out))[0] == 0
    assert not out.exists()


def test_a_baseline_that_the_command_line_leaves_out_is_none_the_worse(
    invoke: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "axes: {trainer.lr: [1.0e-4, 2.0e-4], seed: [0, 1]}\nbaseline: lr=2e-4\n", encoding="utf-8"
    )
    for more in ([], ["seed=0"], ["trainer.lr=1e-4,3e-4"]):
        code, _, err = invoke("plan", str(file), *more, "-o", str(tmp_path / "o"))
        assert code == 0, err


def test_dry_run_reckons_with_as_many_at_a_time_as_were_asked_for(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("sweep", "quickstart", "--dry-run", "-j", "7", "-o", str(tmp_path / "o"))
    assert code == 0
    assert "left with 7 runs in parallel" in " ".join(out.split())


def test_time_of_runs_of_an_unknown_model_is_not_told_as_none(invoke: Invoke, tmp_path: Path) -> None:
    asked = ["seed=0", "model=pretrained", "model.path=foo/bar", "warmup=none"]
    code, out, err = invoke("plan", *asked, "-o", str(tmp_path / "o"))
    assert code == 0, err
    assert "an unknown time left" in " ".join(out.split())


def test_broken_run_json_is_named(invoke: Invoke, tmp_path: Path) -> None:
    asked = ["seed=0", "-o", str(tmp_path / "o")]
    name = json.loads(invoke("plan", *asked, "--json")[1])["runs"][0]["run"]
    broken = tmp_path / "o" / "runs" / name / "run.json"
    broken.parent.mkdir(parents=True)
    for text in ("{", "[1]"):
        broken.write_text(text, encoding="utf-8")
        for listing in (["plan", *asked], ["list", "runs", "-o", str(tmp_path / "o")]):
            code, _, err = invoke(*listing)
            assert code == 0
            assert f"Warning: {broken}: is not a JSON object" in err
        code, out, _ = invoke("sweep", *asked, "tracking=none", "--no-report")
        assert code == 1
        assert f"Damaged: {name}: {broken} is not what the run wrote. --repair trains it again" in out
        code, _, err = invoke("train", *asked, "tracking=none")
        assert code == 1
        assert f"Error: {broken}: is not a JSON object" in err


BAD = [
    (["train", "algo=grop"], ["algo=grop", "'grpo'"]),
    (["train", "trainer.lr=nan"], ["trainer.lr=nan"]),
    (["train", "trainer.lr=1,2"], ["trainer.lr"]),
    (["train", "trainer.lr"], ["trainer.lr"]),
    (
        ["train", "model=pretrained", "model.path=./absent", "warmup=none"],
        ["./absent", "no such model folder"],
    ),
    (["train", "task=gsm8k", "task.path=absent.jsonl"], ["absent.jsonl", "no such data file"]),
    (["sweep", "quickstrat"], ["quickstrat", "'quickstart'"]),
    (["sweep", "absent.yaml"], ["absent.yaml", "no such sweep file"]),
    (["sweep", "quickstart", "algo=grpo,grop"], ["algo=grop"]),
    (["sweep", "algo=grpo,cppo", "seed=range(0,"], ["seed=range(0,", "grammar"]),
    (["sweep", "task=gsm8k", "task.path=absent.jsonl", "seed=0,1"], ["absent.jsonl", "no such data file"]),
    (["plan", "quickstrat"], ["quickstrat"]),
    (["plan", "seed=range(0,0)"], ["seed=range(0,0)", "has no values"]),
    (["plan", "trainer.lr=interval(0,1)"], ["trainer.lr=interval(0,1)", "range(…)"]),
    (["plan", "algo=glob(*)"], ["algo=glob(*)", "list the values"]),
    (["plan", "=3"], ["=3", "give key=value"]),
    (["train", "=3"], ["=3", "give key=value"]),
    (["train", "algo=3"], ["algo=3", "grpo"]),
    (["sweep", "quickstart", "-j", "4", "hydra/launcher=joblib"], ["--jobs 4", "hydra.launcher.n_jobs=4"]),
    (["sweep", "quickstart", "-j", "4", "--dry-run", "hydra/launcher=joblib"], ["--jobs 4"]),
    (
        ["sweep", "quickstart", "hydra/launcher=submitit_slurm"],
        ["not installed; allowed are", "'cppo-lab[slurm]'"],
    ),
    (
        ["sweep", "quickstart", "--dry-run", "hydra/launcher=jobli"],
        ["not installed", "Did you mean 'joblib'?"],
    ),
    (["sweep", "quickstart", "hydra/sweeper=ax"], ["hydra/sweeper=ax: not installed; allowed are basic"]),
    (["config", "sed=1"], ["sed", "'seed'"]),
    (["eval", "gsm9k", "--model", "x"], ["task=gsm9k", "gsm8k", "chain"]),
    (["eval", "chain", "--model", "./absent"], ["./absent", "no such model folder"]),
    (
        ["eval", "gsm8k", "--model", "./absent", "--data", "absent.jsonl"],
        ["absent.jsonl", "no such data file"],
    ),
    (["eval", "chain", "--model", "./absent", "--device", "tpu"], ["tpu", "cuda"]),
    (["report", "absent"], ["absent"]),
    (["report"], []),
]


@pytest.mark.parametrize(("arguments", "parts"), BAD, ids=[" ".join(a)[:50] for a, _ in BAD])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    arguments: list[str], parts: list[str], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(invoke(*arguments, "-o", str(tmp_path / "o")), *parts)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not list(tmp_path.glob("o/*")), "no folder that looks like a result"


@pytest.mark.parametrize(
    "command", [["sweep", "seed=0,1"], ["sweep", "seed=0", "hydra/launcher=basic"], ["train"]]
)
def test_store_that_cannot_be_reached_is_refused_and_leaves_nothing_behind(
    command: list[str], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    out = tmp_path / "o"
    refused(
        invoke(*command, "tracking.uri=http://127.0.0.1:9", "-o", str(out)), "127.0.0.1:9", "tracking=none"
    )
    assert list(out.iterdir()) == []


def test_model_folder_without_weights_is_refused(
    invoke: Invoke, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    (hollow / "config.json").write_bytes((model / "config.json").read_bytes())
    out = str(tmp_path / "o")
    refused(invoke("eval", "chain", "--model", str(hollow), "-o", out), str(hollow), "no weights")
    train = ["train", "model=pretrained", f"model.path='{hollow}'", "warmup=none", "tracking=none", "-o", out]
    refused(invoke(*train), str(hollow), "no weights")
    assert not list(tmp_path.glob("o/runs/*"))


def test_corrupt_weights_are_refused(invoke: Invoke, model: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(
        invoke("eval", "chain", "--model", str(broken), "-o", str(tmp_path / "o")),
        str(weights),
        "is damaged",
    )
    (broken / "manifest.json").unlink()
    refused(
        invoke("eval", "chain", "--model", str(broken), "-o", str(tmp_path / "o")),
        str(broken),
        "cannot be loaded",
    )


@pytest.mark.parametrize("arguments", [["train"], ["sweep", "seed=0,1"], ["eval", "chain"]])
def test_output_that_cannot_be_written_is_refused(
    arguments: list[str], invoke: Invoke, model: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder", encoding="utf-8")
    more = ["--model", str(model)] if "eval" in arguments else ["tracking=none"]
    refused(invoke(*arguments, *more, "-o", str(blocked / "o")), "paths.output=", "cannot be written")


def test_sweep_file_with_something_wrong_is_refused_with_its_name(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text, parts in (
        ("axes: [a\n", ["YAML"]),
        ("title: x\n", ["needs 'axes'"]),
        ("axes: {}\n", ["needs 'axes'"]),
        ("axes: {seed: [0]}\nbasline: x\n", ["basline", "'baseline'"]),
        ("- 1\n", ["needs 'axes'"]),
        ("axes: {seed: [0]}\nclaims: [{a: b}]\n", ["claims=a", "contrast"]),
        ("axes: {algo: [grpo, cppo]}\nbaseline: cpppo\n", ["baseline=cpppo", "cppo, grpo", "'cppo'"]),
        *(
            (f"axes: {{seed: [0]}}\nwindow: {w}\n", ["window=", "at least 1"])
            for w in ("0", "2.5", "yes", "x")
        ),
    ):
        path.write_text(text, encoding="utf-8")
        refused(invoke("sweep", str(path), "-o", str(tmp_path / "o")), "mine.yaml", *parts)
    assert not (tmp_path / "o").exists()


def write_questions(path: Path, count: int = 5) -> Path:
    rows = [{"question": f"1 + {i}?", "answer": f"#### {i + 1}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_eval_grades_every_problem_of_a_file_and_writes_them(
    invoke: Invoke, model: Path, tmp_path: Path
) -> None:
    data = write_questions(tmp_path / "data.jsonl")
    arguments = ["eval", "gsm8k", "--model", str(model), "--data", str(data), "-o", str(tmp_path / "o")]
    code, out, _ = invoke(*arguments, "--max-new-tokens", "8", "--batch-size", "2", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["n"] == 5
    folder = Path(result["folder"])
    rows = [json.loads(line) for line in (folder / "problems.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["answer"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert result["correct"] == sum(row["correct"] for row in rows)
    assert json.loads((folder / "results.json").read_text(encoding="utf-8"))["n"] == 5
    limited = json.loads(invoke(*arguments, "--max-new-tokens", "8", "--limit", "2", "--json")[1])
    assert limited["n"] == 2
    assert limited["folder"] != result["folder"]


def test_eval_of_the_embedded_task_finds_what_the_policy_can_do(
    invoke: Invoke, model: Path, tmp_path: Path
) -> None:
    arguments = ["eval", "chain", "--steps", "1", "--model", str(model), "--max-new-tokens", "16"]
    code, out, _ = invoke(*arguments, "--limit", "256", "--json", "-o", str(tmp_path / "o"))
    assert code == 0
    result = json.loads(out)
    low, high = result["wilson_95"]
    assert 0 < low < result["accuracy"] < high < 1


def test_wilson_interval_is_scipys() -> None:
    from scipy.stats import binomtest

    from cppo_lab.eval.statistics import wilson

    for correct, n in ((0, 5), (3, 7), (7, 7), (250, 1319)):
        expected = binomtest(correct, n).proportion_ci(method="wilson")
        assert wilson(correct / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_train_makes_a_run_and_then_has_nothing_to_do(invoke: Invoke, output: Path) -> None:
    arguments = ["train", *TINY, "trainer.steps=1", "-o", str(output)]
    code, out, _ = invoke(*arguments)
    assert code == 0
    folder = one_run_folder(output)
    assert str(folder) in out
    assert not (output / "mlflow.db").exists(), "tracking=none writes no store"
    code, out, _ = invoke(*arguments)
    assert code == 0
    assert "nothing to do" in out
    runs = json.loads(invoke("list", "runs", "--json", "-o", str(output))[1])
    assert [(run["run"], run["status"], run["steps"]) for run in runs] == [(folder.name, "finished", "1/1")]


def test_runs_are_listed_with_accuracy_and_what_they_differ_in(invoke: Invoke, output: Path) -> None:
    tiny = ["train", *TINY, "trainer.steps=1", "-o", str(output)]
    for settings in (
        ["algo=grpo"],
        ["algo=grpo", "trainer.lr=3e-4"],
        ["algo=dppo_topk_tv", "algo.trust_region.delta=0.3"],
    ):
        assert invoke(*tiny, *settings)[0] == 0

    def listed(*filters: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(
            invoke("list", "runs", *filters, "--json", "-o", str(output))[1]
        )
        return found

    assert {(run["method"], run["settings"]) for run in listed()} == {
        ("grpo", "trainer.lr=0.0001"),
        ("grpo", "trainer.lr=0.0003"),
        ("dppo_topk_tv", "trainer.lr=0.0001"),
    }
    for run in listed():
        rows = read_log(output / "runs" / run["run"] / "metrics.jsonl")
        assert run["accuracy"] == f"{100 * rows[-1]['eval/heldout/accuracy']:.1f}%"
    assert len(listed("algo=grpo")) == len(listed("trainer.lr=1e-4", "status=finished")) == 2
    assert [run["settings"] for run in listed("algo=grpo", "trainer.lr=3e-4")] == [""]
    assert listed("algo.trust_region.delta=0.3")[0]["method"] == "dppo_topk_tv"
    for wrong, sentence in (("agol=grpo", "Did you mean 'algo'?"), ("grpo", "not a filter; give key=value")):
        code, _, err = invoke("list", "runs", wrong, "-o", str(output))
        assert code == 2
        assert sentence in err
    assert invoke("list", "tasks", "algo=grpo")[0] == 2


def test_run_that_diverges_ends_with_one_and_says_why(invoke: Invoke, output: Path) -> None:
    code, out, err = invoke("train", *TINY, "trainer.lr=1e30", "-o", str(output))
    assert code == 1
    assert "diverged at step 1" in out + err
    assert "Traceback" not in out + err
    runs = json.loads(invoke("list", "runs", "--json", "-o", str(output))[1])
    assert runs[0]["status"] == "failed"
    assert "diverged" in runs[0]["reason"]


def test_output_folder_with_grammar_characters_in_its_name(invoke: Invoke, tmp_path: Path) -> None:
    odd = tmp_path / "it's [a], {folder}=x $y"
    code, out, _ = invoke("config", "--json", "-o", str(odd))
    assert code == 0
    assert json.loads(out)["config"]["paths"]["output"] == str(odd)


def test_gsm8k_from_a_file_takes_real_steps(invoke: Invoke, tmp_path: Path, shared_data: Path) -> None:
    lines = (shared_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").split("\n")[:120]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings: list[Any] = [
        "task=gsm8k",
        f"task.path='{tmp_path / 'train.jsonl'}'",
        "task.heldout=8",
        "task.max_response_tokens=24",
        *UNTRAINED,
        # An untrained model earns nothing: only the bonus has a gradient.
        *("algo.dynamic_sampling.kind=none", "algo.regulariser.entropy_coefficient=0.01"),
        *[o for o in TINY if o.startswith(("trainer.", "tracking="))],
        "trainer.steps=2",
        "trainer.group_size=2",
    ]
    code, out, err = invoke("train", *settings, "-o", str(tmp_path / "o"))
    assert code == 0, out + err
    info = json.loads((one_run_folder(tmp_path / "o") / "run.json").read_text(encoding="utf-8"))
    assert (info["status"], info["steps_done"], info["task"]) == ("FINISHED", 2, "gsm8k")
    assert info["updates"] == 2 * 3


def test_doctor_tells_whether_a_sweep_has_room(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("doctor", "quickstart", "seed=0,1", "--json", "-o", str(tmp_path / "o"))

    def room() -> dict[str, tuple[str, str]]:
        found = json.loads(invoke(*asked)[1])
        named = [each for each in found if " for " in each["what"]]
        return {each["what"].partition(" ")[0]: (each["state"], each["details"]) for each in named}

    assert room()["disk"][0] == room()["memory"][0] == "ok"
    monkeypatch.setattr("cppo_lab.sweeps.cost.free_bytes", lambda _path: 1000)
    monkeypatch.setattr("cppo_lab.training.preflight.device_bytes", lambda _device: 1000)
    monkeypatch.setattr("cppo_lab.training.preflight._SMALL_BYTES", 0)
    assert invoke(*asked)[0] == 1
    state, details = room()["disk"]
    assert state == "problem"
    assert details.startswith(f"{tmp_path / 'o'}: the checkpoints of the runs to do take about")
    state, details = room()["memory"]
    assert state == "problem"
    assert "of weights, gradients and moments" in details


def test_doctor_finds_what_every_run_needs(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("doctor", "--json", "-o", str(tmp_path / "o"))
    found = {row["what"]: row["state"] for row in json.loads(out)}
    assert code == 0, out
    assert {found[what] for what in ("python", "torch", "device", "conf", "sweeps", "output")} == {"ok"}
    assert found["tracking store"] == "ok"
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    code, out, _ = invoke("doctor", "--json", "-o", str(blocked / "o"))
    assert code == 1
    assert {row["what"]: row["state"] for row in json.loads(out)}["output"] == "problem"
