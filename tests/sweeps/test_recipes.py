"""The paper's settings: what they compose to, what they would cost, and that they run, with everything made tiny."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from text_models import random_policy
from tiny_runs import one_run_folder

from cppo_lab.config.compose import compose_run, group_options
from cppo_lab.config.schema import RunConfig
from cppo_lab.models.config import PretrainedModel
from cppo_lab.models.shapes import SHAPES, ModelShape
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.objectives.named import method_names
from cppo_lab.paths import conf_dir
from cppo_lab.sweeps.cost import cost
from cppo_lab.tasks.dapo_math import DapoMathConfig
from cppo_lab.training.checkpoint import save_checkpoint

Invoke = Callable[..., tuple[int, str, str]]

RECIPES = [name for name in group_options("recipe") if name != "none"]
METHODS = ["grpo", "minpro", "cispo", "dppo_topk_tv", "trm_max", "trm_avg", "cppo"]
# Table 3: prompts, group size, updates per step, response limit, last step, delta, budget kind and size.
TABLE_3: dict[str, tuple[int, int, int, int, int, float, str, float]] = {
    "qwen3_1.7b": (64, 8, 2, 8192, 1120, 0.15, "fixed", 0.015),
    "qwen3_1.7b_base": (64, 8, 2, 8192, 680, 0.15, "adaptive", 0.02),
    "qwen3_8b_base": (128, 8, 4, 8192, 490, 0.15, "adaptive", 0.02),
    "qwen3_30b_a3b_base": (256, 16, 8, 16384, 560, 0.2, "adaptive", 0.02),
}


def test_every_row_of_table_3_has_its_recipe() -> None:
    assert set(RECIPES) == set(TABLE_3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_its_row_of_table_3(recipe: str) -> None:
    config = compose_run([f"recipe={recipe}"])
    trainer, region = config.trainer, config.algo.trust_region
    assert (
        trainer.prompts_per_step,
        trainer.group_size,
        trainer.updates_per_step,
        config.task.response_limit,
        trainer.steps,
        region.delta,
        region.budget.kind,
        region.budget.size,
    ) == TABLE_3[recipe]
    assert region.weights.w_min == 0.8
    assert (trainer.lr, trainer.temperature, trainer.prompts_per_minibatch) == (1e-6, 1.0, 32)
    assert trainer.steps % trainer.evaluate_every == 0, "the paper's last step is one that is evaluated"
    assert config.engine.kind == "vllm"
    assert isinstance(config.model, PretrainedModel)
    assert config.model.revision is not None
    assert isinstance(config.task, DapoMathConfig)
    assert (config.task.samples, config.task.evaluation_temperature, config.task.evaluation_top_p) == (
        *(16, 0.7, 0.95),
    )
    assert config.task.prompt == ("chat" if recipe == "qwen3_1.7b" else "plain")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_is_valid_and_planned_for_every_method_of_the_paper(recipe: str, method: str) -> None:
    config = compose_run([f"recipe={recipe}", f"algo={method}"])
    assert config.algo.name == method
    estimate = cost(config)
    assert estimate.gpu is not None
    assert estimate.gpu.h100_hours > 1
    assert estimate.gpu.fits_one_device == recipe.startswith("qwen3_1.7b")
    assert estimate.memory_bytes is not None
    assert estimate.memory_bytes < 80 << 30
    # A threshold of the recipe reaches those methods alone that the table gives one for.
    own = compose_run([f"algo={method}"]).algo
    if method in ("cppo", "dppo_topk_tv"):
        assert config.algo.trust_region.delta == TABLE_3[recipe][5]
    else:
        assert config.algo == own


def test_every_method_with_a_value_that_the_table_changes_has_a_threshold_file() -> None:
    files = {path.stem for path in (conf_dir() / "recipe" / "algo").glob("*.yaml")}
    methods = {name: compose_run([f"algo={name}"]).algo for name in method_names() if name != "ppo"}
    own = methods["cppo"].trust_region
    for name, algo in methods.items():
        region = algo.trust_region
        on_tv = algo.divergence.kind in ("topk_tv", "binary_tv") and region.delta == own.delta
        assert (f"qwen3_30b_a3b_base_{name}" in files) == on_tv, name
        has_budget = region.kind == "prefix_budget" and region.budget == own.budget and on_tv
        assert (f"qwen3_1.7b_{name}" in files) == has_budget, name


@pytest.mark.parametrize(
    "path", sorted((conf_dir() / "recipe" / "algo").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_threshold_file_is_of_a_recipe_and_a_method_and_changes_it(path: Path) -> None:
    recipe = next(name for name in sorted(RECIPES, key=len, reverse=True) if path.stem.startswith(f"{name}_"))
    method = path.stem.removeprefix(f"{recipe}_")
    assert method in group_options("algo")
    composed, plain = compose_run([f"recipe={recipe}", f"algo={method}"]), compose_run([f"algo={method}"])
    if method != "cppo_fixed_budget" or recipe.startswith("qwen3_30b"):
        assert composed.algo.trust_region != plain.algo.trust_region
    assert composed.algo.replace(trust_region=plain.algo.trust_region) == plain.algo


def test_an_override_beats_the_recipe() -> None:
    overrides = ["algo.trust_region.delta=0.3", "trainer.lr=2e-6", "engine=native", "task.samples=4"]
    config = compose_run(["recipe=qwen3_30b_a3b_base", *overrides])
    assert config.algo.trust_region.delta == 0.3
    assert (config.trainer.lr, config.engine.kind, config.task.heldout_sampling.samples) == (
        *(2e-6, "native", 4),
    )


def test_a_recipe_beats_the_regime_that_a_sweep_sets() -> None:
    config = compose_run(["regime=mismatch", "recipe=qwen3_1.7b_base"])
    assert (config.trainer.updates_per_step, config.engine.weights) == (2, "same")


def test_no_recipe_is_the_default_run() -> None:
    assert compose_run(["recipe=none"]) == compose_run([])


# What a run costs.


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("Qwen/Qwen3-1.7B", 1.7, 1.7),
        ("Qwen/Qwen3-8B-Base", 8.2, 8.2),
        ("Qwen/Qwen3-30B-A3B-Base", 30.5, 3.3),
    ],
)
def test_parameters_are_those_that_qwen_publishes(name: str, billions: float, active: float) -> None:
    shape = SHAPES[name]
    assert round(shape.parameters / 1e9, 1) == billions
    assert shape.active_parameters / 1e9 == pytest.approx(active, abs=0.06)


def test_shapes_count_as_transformers_does() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = vocabulary_tokenizer(("a", "b"))
    for experts in (0, 4):
        extra = {"experts_per_token": 2, "expert_feed_forward": 32} if experts else {}
        shape = {"layers": 2, "kv_heads": 1, "heads": 2, "width": 64, "feed_forward": 128}
        network = random_policy(tokenizer, experts=experts, **shape, **extra).network
        for tied in (True, False):
            network.config.tie_word_embeddings = tied
            with torch.device("meta"):
                built = AutoModelForCausalLM.from_config(network.config)
            counted = ModelShape(2, 64, 2, 1, 32, 128, len(tokenizer), tied, experts, **extra).parameters
            assert counted == sum(p.numel() for p in built.parameters()), (experts, tied)


def test_h100_hours_follow_the_stated_model_of_operations() -> None:
    config = compose_run(["recipe=qwen3_30b_a3b_base", "trainer.steps=10", "trainer.evaluate_every=10"])
    gpu = cost(config).gpu
    assert gpu is not None
    per_response = 220 + 16384
    rollouts, judged = 10 * 256 * 16, 2 * 90 * 16
    shape = SHAPES["Qwen/Qwen3-30B-A3B-Base"]
    forward = 2 * shape.multiplied_parameters + shape.attention_operations(per_response)
    # Half a response of 16k tokens costs as much as the 3 billion parameters.
    assert 0.8 < shape.attention_operations(per_response) / (2 * shape.multiplied_parameters) < 1.3
    training = rollouts * per_response * (4 + 1) * forward / (0.35 * 989e12)
    sampling = (rollouts + judged) * per_response * forward / (0.10 * 989e12)
    assert gpu.h100_hours == pytest.approx((training + sampling) / 3600)
    assert gpu.h100_hours_sampling == pytest.approx(sampling / 3600)
    assert (gpu.sampled_tokens, gpu.evaluation_tokens) == (rollouts * 16384, judged * 16384)


def memory_of(*overrides: str) -> Any:
    gpu = cost(compose_run(["recipe=qwen3_1.7b", *overrides])).gpu
    assert gpu is not None
    return gpu.memory


def test_memory_is_what_is_trained_and_the_larger_of_learning_and_sampling() -> None:
    n = SHAPES["Qwen/Qwen3-1.7B"].parameters
    found = memory_of()
    assert found.states == 16 * n
    assert found.sampling == int(0.45 * (80 << 30))
    assert found.kv_cache == found.sampling - 2 * n
    assert found.peak == found.states + max(found.training, found.sampling)
    native = memory_of("engine=native", "engine.batch_size=4")
    assert native.states == (16 + 2) * n
    assert native.kv_cache == 4 * (220 + 8192) * 114_688
    assert memory_of("algo.regulariser.kl_coefficient=0.1").states == (16 + 4) * n
    unchecked = memory_of("model.gradient_checkpointing=false")
    assert unchecked.training - 2 * n > 10 * (found.training - 2 * n)


def test_laptop_runs_have_no_gpu_plan() -> None:
    assert cost(compose_run([])).gpu is None
    assert cost(compose_run(["recipe=qwen3_1.7b", "trainer.device=cpu"])).gpu is None


def test_plan_says_what_no_single_device_holds(invoke: Invoke, tmp_path: Path) -> None:
    asked = ("plan", "recipe=qwen3_1.7b,qwen3_8b_base", "algo=cppo", "-o", str(tmp_path))
    code, out, _ = invoke(*asked)
    assert code == 0
    shown = " ".join(out.split())
    assert "Qwen/Qwen3-8B-Base needs 158 GiB and does not fit on one 80 GiB device" in shown
    assert "Qwen/Qwen3-1.7B needs" not in shown
    assert "6N operations per trained token" in shown
    content = json.loads(invoke(*asked, "--json")[1])
    assert [run["gpu"]["devices"] for run in content["runs"]] == [1, 4]
    assert "6N operations" in content["flop_model"]
    laptop = json.loads(invoke("plan", "quickstart", "--json", "-o", str(tmp_path))[1])
    assert "flop_model" not in laptop


# Dress rehearsals: the recipe as it stands, but for a model, data and sizes that a processor manages in seconds.

ANSWERS = tuple(f"Answer: {number}\n" for number in range(1, 5))
TEMPLATE = "{% for message in messages %}<user>{{ message['content'] }}{% endfor %}<model>"
SIZES = (
    *("engine=native", "trainer.device=cpu", "tracking=none", "trainer.steps=2", "trainer.evaluate_every=1"),
    *("trainer.prompts_per_step=8", "trainer.prompts_per_minibatch=4", "trainer.lr=1e-2"),
    *("task.max_response_tokens=6", "task.benchmarks=[aime24,aime25]"),
)


def tiny_model(folder: Path, chat: bool, experts: int) -> Path:
    """A random Qwen3 model whose tokens are answers, so that about a quarter of its responses are right."""
    tokenizer = vocabulary_tokenizer((*ANSWERS, "<user>", "<model>"))
    if chat:
        tokenizer.chat_template = TEMPLATE
    extra = {"experts": experts, "experts_per_token": 2, "expert_feed_forward": 32} if experts else {}
    save_checkpoint(folder, random_policy(tokenizer, **extra))
    return folder


def tiny_data(folder: Path) -> list[str]:
    """Overrides that name a training file, with each problem twice, and a file per benchmark."""
    folder.mkdir()

    def write(name: str, rows: list[dict[str, str]]) -> Path:
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    problems = [{"prompt": f"What is {i} mod 4, plus 1?", "solution": str(i % 4 + 1)} for i in range(12)]
    train = write("train", [*problems, *problems, {"prompt": "Held out 0", "solution": "1"}])
    heldout = {
        name: write(name, [{"problem": f"Held out {i + first}", "answer": str(i % 4 + 1)} for i in range(3)])
        for name, first in (("aime24", 0), ("aime25", 10))
    }
    return [
        f"task.path='{train}'",
        *(f"task.heldout_paths.{name}='{path}'" for name, path in heldout.items()),
    ]


def rehearse(invoke: Invoke, tmp_path: Path, recipe: str, **model: Any) -> tuple[Path, RunConfig]:
    """Train by the recipe and report on it; the run's folder and its configuration."""
    folder = tiny_model(tmp_path / "model", **model)
    overrides = [f"recipe={recipe}", *SIZES, f"model.path='{folder}'", *tiny_data(tmp_path / "data")]
    output = tmp_path / "out"
    code, _, err = invoke("train", *overrides, "-o", str(output))
    assert code == 0, err
    run = one_run_folder(output)
    code, out, err = invoke("report", "--run", run.name, "-o", str(output))
    assert code == 0, err
    pages = list((output / "reports").glob("*/index.html"))
    assert len(pages) == 1, out
    assert "cppo" in pages[0].read_text(encoding="utf-8")
    return run, compose_run([*overrides, f"paths.output='{output}'"])


@pytest.mark.parametrize(
    ("recipe", "chat", "experts"),
    [
        ("qwen3_1.7b_base", False, 0),
        pytest.param("qwen3_1.7b", True, 0, marks=pytest.mark.slow),
        pytest.param("qwen3_30b_a3b_base", False, 4, marks=pytest.mark.slow),
    ],
)
def test_recipe_trains_evaluates_and_reports_end_to_end(
    recipe: str, chat: bool, experts: int, invoke: Invoke, tmp_path: Path
) -> None:
    run, config = rehearse(invoke, tmp_path, recipe, chat=chat, experts=experts)
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert info["status"] == "FINISHED"
    assert info["data"] == {
        "rows": 25,
        "duplicates": 12,
        "conflicting": 0,
        "not_numeric": 0,
        "held_out": 1,
        "training": 12,
    }
    assert info["updates"] >= 1
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows:
        parts = [row[f"eval/{name}/accuracy"] for name in ("aime24", "aime25")]
        assert row["eval/heldout/accuracy"] == pytest.approx(sum(parts) / 2)
        assert row["eval/heldout/stderr"] is None or math.isfinite(row["eval/heldout/stderr"])
        counted = sum(value for key, value in row.items() if key.startswith("eval/heldout/grader/"))
        assert counted == 6 * 16
    assert any(0 < row["eval/heldout/accuracy"] < 1 for row in rows), "answer lines are read"
    assert any(0 < row["train/accuracy"] < 1 for row in rows[1:])
    delta, budget = TABLE_3[recipe][5:7]
    assert (config.algo.trust_region.delta, config.algo.trust_region.budget.kind) == (delta, budget)


def test_chat_prompts_need_a_model_with_a_template(invoke: Invoke, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", chat=False, experts=0)
    overrides = ["recipe=qwen3_1.7b", *SIZES, f"model.path='{folder}'", *tiny_data(tmp_path / "data")]
    code, _, err = invoke("train", *overrides, "-o", str(tmp_path / "out"))
    assert code != 0
    assert "task.prompt=chat" in " ".join(err.split())
    assert "task.prompt=plain" in " ".join(err.split())
