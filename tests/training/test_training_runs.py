"""Whole tiny runs: repeatable to the bit, resumable to the bit, and honest about how they ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from tiny_runs import files_with_times, same_weights, starting, tiny_config

from cppo_lab.analysis.load.sources import load_study
from cppo_lab.config.identity import RESULT_VERSION
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.models.config import PretrainedModel
from cppo_lab.models.loading import load_policy
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.training.checkpoint import save_checkpoint
from cppo_lab.training.run import run
from cppo_lab.training.state_file import read_state
from cppo_lab.training.update import Diverged


def final_weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_policy(str(folder.checkpoints()[-1][1])).network.state_dict()
    return weights


def metrics_bytes(folder: RunFolder) -> bytes:
    return (folder.path / "metrics.jsonl").read_bytes()


def interrupted_after(config: RunConfig, step: int) -> RunFolder:
    """Run until just after `step` was logged, then stop as Ctrl-C would."""

    def on_step(done: int, metrics: Mapping[str, Any]) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, on_step)
    return run_folder(config)


def elsewhere(output: Path, tmp_path: Path) -> Path:
    """A second output folder with the same starting policies."""
    import shutil

    shutil.copytree(output / "policies", tmp_path / "second" / "policies")
    return tmp_path / "second"


def test_same_seed_gives_the_same_bytes_and_weights_in_another_folder(output: Path, tmp_path: Path) -> None:
    first = run(tiny_config(output))
    second = run(tiny_config(elsewhere(output, tmp_path), "trainer.checkpoint_every=2"))
    assert first.path.name == second.path.name
    assert metrics_bytes(first) == metrics_bytes(second)
    for log in ("profiles.jsonl", "agreement.jsonl"):
        assert (first.path / log).read_bytes() == (second.path / log).read_bytes()
    assert same_weights(final_weights(first), final_weights(second))
    rows = first.rows("metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert sum(row["train/updates"] for row in rows[1:]) > 3, "a run that learns nothing shows nothing"
    start = starting(tiny_config(output)).network.state_dict()
    assert not same_weights(final_weights(first), start)


def test_another_seed_gives_other_metrics_from_the_same_starting_policy(output: Path) -> None:
    first, second = (run(tiny_config(output, f"seed={seed}", "trainer.steps=1")) for seed in (0, 1))
    assert first.rows("metrics.jsonl")[0] == second.rows("metrics.jsonl")[0], "the same starting policy"
    assert first.rows("metrics.jsonl")[1] != second.rows("metrics.jsonl")[1]
    assert not same_weights(final_weights(first), final_weights(second))


def test_run_folder_tells_the_whole_story_of_a_finished_run(output: Path) -> None:
    config = tiny_config(output, "trainer.evaluate_every=2", "trainer.samples_per_step=5")
    folder = run(config)
    info = folder.info
    assert info["status"] == "FINISHED"
    assert info["reason"] is None
    assert (info["steps_done"], info["steps"], info["attempts"]) == (3, 3, 1)
    assert info["versions"]["torch"] == torch.__version__
    assert info["run_id"] == folder.path.name.rpartition("-")[2]
    assert (info["result_version"], info["inputs"]) == (RESULT_VERSION, {})
    assert info["tokens"]["sampled"] >= info["tokens"]["trained"] > 0
    rows = folder.rows("metrics.jsonl")
    assert info["updates"] == sum(row["train/updates"] for row in rows[1:])
    assert [row["step"] for row in rows if "eval/heldout/accuracy" in row] == [0, 2, 3]
    assert [row["step"] for row in folder.rows("timings.jsonl")] == [1, 2, 3]
    assert {row["step"] for row in folder.rows("profiles.jsonl")} == {2, 3}
    agreement = folder.rows("agreement.jsonl")
    assert [row["step"] for row in agreement] == [2, 3]
    assert all(row["tokens"] > 0 and max(row["masked"]) <= row["tokens"] for row in agreement)
    assert [step for step, _ in folder.checkpoints()] == [3]
    accuracies = {row["step"]: row["eval/heldout/accuracy"] for row in rows if "eval/heldout/accuracy" in row}
    del accuracies[0]  # The untouched start is no best checkpoint.
    best = max(accuracies.values())
    assert [step for step, _ in folder.checkpoints("best_step_")] == [
        min(step for step, accuracy in accuracies.items() if accuracy == best)
    ]
    samples = (folder.path / "samples" / "step_000003.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(samples) == 5
    assert {"prompt", "completion", "answer", "parsed", "reward", "advantage", "length", "finish"} <= set(
        json.loads(samples[0])
    )


RESUMED = {
    "stale rollouts": ["trainer.staleness=1", "trainer.steps=4"],
    "learnt critic": ["algo=ppo"],
    # No response has to grow for this surge: it comes with the second step, and halves the rate at the fourth.
    "learning rate after a surge": [
        "trainer.lr_control=length_decay",
        "trainer.lr_schedule=linear",
        "trainer.lr_length_multiple=1.000001",
        "trainer.lr_length_window=1",
        "trainer.lr_length_period_factor=0.5",
        "trainer.lr_length_floor=0.3",
        "trainer.steps=4",
    ],
}
# Each of them keeps other state across the interruption; slow only because there are many.
ALSO_RESUMED = {
    "on time": [],
    "rare checkpoints": ["trainer.checkpoint_every=3", "trainer.steps=4"],
    "reference and refilled prompts": ["algo=dapo", "algo.regulariser.kl_coefficient=0.05"],
    "shuffled weights": ["algo=cppo_shuffled"],
    "controlled threshold": ["algo.trust_region.schedule.kind=target_share"],
    "tokens drawn by covariance": [
        "algo=clip_cov",
        "algo.selection.covariance_share=0.1",
        "algo.selection.covariance_low=-100",
    ],
    "the sampler's lag": ["algo=a3po", "trainer.staleness=2", "trainer.steps=5"],
    "int4 rollouts": ["engine.weights=int4"],
    "rising learning rate": ["trainer.lr_warmup_updates=7"],
    "falling learning rate": ["trainer.lr_schedule=cosine", "trainer.lr_warmup_updates=2"],
    "learning rate by effective sample size": ["trainer.lr_control=ess", "engine.weights=int8"],
}


@pytest.mark.parametrize(
    "overrides",
    [
        *(pytest.param(overrides, id=case) for case, overrides in RESUMED.items()),
        *(pytest.param(o, id=case, marks=pytest.mark.slow) for case, o in ALSO_RESUMED.items()),
    ],
)
def test_interrupted_run_goes_on_to_the_same_bits(overrides: list[str], output: Path, tmp_path: Path) -> None:
    whole = run(tiny_config(elsewhere(output, tmp_path), *overrides))
    config = tiny_config(output, *overrides)
    folder = interrupted_after(config, 2)
    assert folder.status == "INTERRUPTED"
    assert "resumes" in folder.info["reason"]
    with (folder.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "train/lo')
    run(config)
    assert metrics_bytes(folder) == metrics_bytes(whole)
    assert same_weights(final_weights(folder), final_weights(whole))
    state, expected = (read_state(f.checkpoints()[-1][1]) for f in (folder, whole))
    assert state["step"] == expected["step"]
    assert state["learner"]["updates"] == expected["learner"]["updates"] > 0
    info = folder.info
    assert (info["status"], info["attempts"], info["reason"]) == ("FINISHED", 2, None)
    assert info["tokens"] == whole.info["tokens"]


def test_run_stopped_before_its_first_checkpoint_starts_again(output: Path, tmp_path: Path) -> None:
    whole = run(tiny_config(elsewhere(output, tmp_path)))
    folder = interrupted_after(tiny_config(output), 0)
    assert folder.checkpoints() == []
    run(tiny_config(output))
    assert metrics_bytes(folder) == metrics_bytes(whole)


def test_finished_run_is_left_as_it_is(output: Path) -> None:
    config = tiny_config(output, "trainer.steps=1")
    folder = run(config)
    before = files_with_times(folder.path)
    again = run(config, on_step=lambda *_: pytest.fail("a finished run takes no step"))
    assert again.path == folder.path
    assert {k: v for k, v in files_with_times(folder.path).items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }


def test_run_that_another_process_works_on_is_refused(output: Path) -> None:
    config = tiny_config(output)
    folder = run_folder(config)
    folder.path.mkdir(parents=True)
    with (
        FileLock(folder.path / ".lock"),
        pytest.raises(UserError, match=f"{folder.path.name}: another process"),
    ):
        run(config)
    assert folder.status is None


def test_diverged_run_is_failed_with_its_reason_and_keeps_its_last_good_state(output: Path) -> None:
    config = tiny_config(output, "trainer.lr=1e30")
    with pytest.raises(Diverged, match="diverged at step 1"):
        run(config)
    folder = run_folder(config)
    assert folder.status == "FAILED"
    assert "diverged at step 1" in folder.info["reason"]
    assert folder.info["diverged"] is True
    assert [row["step"] for row in folder.rows("metrics.jsonl")] == [0]
    assert all(weight.isfinite().all() for weight in final_weights(folder).values())


def test_diverged_run_is_one_for_the_report_and_so_is_one_that_says_it_in_its_reason_alone(
    output: Path,
) -> None:
    # One update a step, and a critic whose loss is not finite in the second.
    config = tiny_config(output, "trainer.lr=1e30", "algo=ppo", "trainer.prompts_per_minibatch=6")
    with pytest.raises(Diverged, match="diverged at step 2"):
        run(config)
    folder = run_folder(config)
    assert load_study(output, run_folders=[folder.path]).runs["diverged"].tolist() == [True]
    silent = {key: value for key, value in folder.info.items() if key != "diverged"}
    (folder.path / "run.json").write_text(json.dumps(silent), encoding="utf-8")
    assert load_study(output, run_folders=[folder.path]).runs["diverged"].tolist() == [True]


def test_error_inside_a_run_is_its_reason(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the device caught fire\nand more")

    monkeypatch.setattr("cppo_lab.training.update.token_objective", broken)
    config = tiny_config(output)
    with pytest.raises(RuntimeError):
        run(config)
    assert run_folder(config).info["reason"] == "RuntimeError: the device caught fire"
    assert run_folder(config).info["diverged"] is False
    assert run_folder(config).status == "FAILED"
    monkeypatch.undo()
    assert run(config).status == "FINISHED", "once the cause is gone, the same command goes on"


def test_mismatch_regime_really_differs_between_engine_and_trainer(output: Path) -> None:
    tiny = ["trainer.prompts_per_minibatch=2", "trainer.epochs=1", "trainer.steps=1"]
    same = run(tiny_config(output, *tiny)).rows("metrics.jsonl")[1]
    mismatch = run(tiny_config(output, "regime=mismatch", *tiny)).rows("metrics.jsonl")[1]
    key = "mismatch/logp_absdiff_mean"
    assert same[key] < 1e-4
    assert mismatch[key] > 100 * same[key]


def test_held_out_accuracy_is_judged_at_full_precision(output: Path) -> None:
    same, int4 = (
        run(tiny_config(output, f"engine.weights={weights}", "trainer.steps=1")).rows("metrics.jsonl")[0]
        for weights in ("same", "int4")
    )
    assert same == int4, "before the first step both are the starting policy itself"


def test_pretrained_model_that_computes_in_bfloat16_resumes_to_the_same_bits_in_float32_weights(
    output: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    save_checkpoint(model, starting(tiny_config(output)))
    overrides = ["model=pretrained", f"model.path='{model}'", "warmup.steps=0", "warmup.max_steps=0"]
    whole = run(tiny_config(tmp_path / "second", *overrides))
    config = tiny_config(output, *overrides)
    assert isinstance(config.model, PretrainedModel)
    assert config.model.dtype == "bfloat16"
    folder = interrupted_after(config, 2)
    run(config)
    assert metrics_bytes(folder) == metrics_bytes(whole)
    weights = load_file(folder.checkpoints()[-1][1] / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.slow
def test_mixture_of_experts_trains_and_resumes_to_the_same_bits(output: Path, tmp_path: Path) -> None:
    overrides = [
        "model=moe",
        "warmup.steps=30",
        "warmup.max_steps=30",
        "trainer.steps=2",
        "algo=reinforce_pp",
    ]
    whole = run(tiny_config(tmp_path / "second", *overrides))
    folder = interrupted_after(tiny_config(output, *overrides), 1)
    run(tiny_config(output, *overrides))
    assert metrics_bytes(folder) == metrics_bytes(whole)
    assert same_weights(final_weights(folder), final_weights(whole))
