"""Composing and validating configurations: what ships is valid, and what is wrong is refused in one sentence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cppo_lab.config.compose import compose_run, compose_tree, compose_trees, group_options, groups, validate
from cppo_lab.errors import UserError
from cppo_lab.paths import conf_dir
from cppo_lab.sweeps.sweep import plan_sweep
from cppo_lab.sweeps.sweep_file import read_sweep, sweep_names

CHOICES = [(group, name) for group in groups() for name in group_options(group)]
# What a choice needs besides its name.
NEEDS = {
    ("model", "pretrained"): ["model.path=some/model", "warmup=none"],
    ("task", "custom"): ["model=pretrained", "model.path=some/model", "task.path=data.csv"],
    ("task", "dapo_math"): ["model=pretrained", "model.path=some/model"],
    ("algo", "k3_clip"): ["algo.trust_region.delta=0.1"],
    **{("model", name): ["warmup=none"] for name in group_options("model") if name.startswith("qwen3")},
}
# The trainer has no critic for it yet.


def leaves(tree: Mapping[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found.add(f"{prefix}{key}")
    return found


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=[f"{group}={name}" for group, name in CHOICES])
def test_every_shipped_choice_is_valid_and_names_exactly_the_keys_of_the_schema(
    group: str, name: str
) -> None:
    """A key that only a file knows would be refused; one that only the schema knows would hide a default."""
    tree = compose_tree([f"{group}={name}", *NEEDS.get((group, name), [])])
    config = validate(tree)
    assert leaves(tree) == leaves(config.model_dump(mode="python"))
    if group == "algo":
        assert config.algo.name == name
        assert re.match(r"(arXiv:\d{4}\.\d{5}|https?://|doi:)", config.algo.paper)


@pytest.mark.parametrize("name", sweep_names())
def test_every_shipped_sweep_plans_distinct_runs(name: str, tmp_path: Path) -> None:
    file = read_sweep(name)
    sweep = plan_sweep(file, [f"paths.output='{tmp_path}'"])
    assert len(sweep.runs) > 1
    assert len({run.folder.path for run in sweep.runs}) == len(sweep.runs)
    assert file.title
    assert file.question
    assert not (tmp_path / "runs").exists(), "planning writes nothing"


def test_runs_composed_together_are_those_composed_by_hydra_alone() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    combinations = [
        ["algo=cppo", "seed=3", "warmup.seed=${seed}", "regime=mismatch"],
        [
            "regime=mismatch",
            "algo=cppo",
            "seed=4",
            "trainer.betas=[0.8,0.9]",
            "task.max_response_tokens=null",
        ],
        ["algo=cppo", "trainer.lr=1e-3", "regime=mismatch", "trainer.lr=2e-3", "tracking.experiment='a, b'"],
        ["algo=grpo", "task=gsm8k", "~seeds.prompts", "+seeds.prompts=9"],
    ]
    together = compose_trees(combinations)
    for overrides, tree in zip(combinations, together, strict=True):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            alone = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
        assert tree == alone
    assert compose_run(combinations[1]) == validate(together[1])


@pytest.mark.parametrize(
    "path", sorted(conf_dir().rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_choice_says_what_it_is_or_is_self_evident(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, dict)
    if path.parent.name in ("algo", "model", "task", "regime", "recipe"):
        assert re.search(r"^# (?!@package)\w", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("task", ["chain", "gsm8k", "dapo_math"])
def test_a_pretrained_model_is_not_warmed_up_whatever_the_task(task: str) -> None:
    assert compose_run([f"task={task}", "model=pretrained", "model.path=org/name"]).warmup.steps == 0
    assert compose_run(["task=gsm8k"]).warmup.steps > 0


PATHS = [
    "/data/模型/m",
    "/data/it's/m",
    "/data/run=3,lr=1e-4/step_3",
    "/data/a(b)/m",
    "/data/[x]/m",
    "/data/a b/{c}",
]


@pytest.mark.parametrize("path", [*PATHS, "~/m"])
def test_a_path_that_hydra_reads_otherwise_is_given_back_quoted(path: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_run(["model=pretrained", f"model.path={path}"])
    sentence = str(caught.value)
    assert sentence.startswith(f"model.path={path}: ")
    # What the sentence says to type, as a shell splits it.
    (typed,) = shlex.split(sentence.rpartition("Hydra: ")[2].removesuffix("."))
    found = compose_run(["model=pretrained", typed]).model
    assert found.kind == "pretrained"
    assert found.path == str(Path(path).expanduser())


# Overrides that are wrong, and what the sentence must hold: the key, the value, and what is allowed.
BAD = [
    (["trainer.lrr=1"], ["trainer.lrr", "unknown key", "'trainer.lr'"]),
    (["trainr.lr=1"], ["trainr.lr", "unknown key", "'trainer.lr'"]),
    (["sed=1"], ["sed", "unknown key", "'seed'"]),
    (["+trainer.foo=1"], ["trainer.foo=1", "unknown key", "allowed here are", "group_size"]),
    (["+trainer.stepps=1"], ["trainer.stepps", "'steps'"]),
    (["+algo.trust_region.wieghts=1"], ["algo.trust_region.wieghts", "'weights'"]),
    (["+foo=1"], ["foo=1", "unknown key"]),
    (["algo=grop"], ["algo=grop", "cppo", "dppo_tv", "Did you mean 'grpo'"]),
    (["algo=_base"], ["algo=_base", "unknown", "cppo"]),
    (["model=xl"], ["model=xl", "moe", "pretrained"]),
    (["alog=grpo"], ["alog", "'algo'"]),
    (["task=math"], ["task=math", "chain", "gsm8k"]),
    (["regime=mild,many_updates"], ["regime"]),
    (["model=pretrained"], ["model.path", "needs a value"]),
    (["trainer.steps=ten"], ["trainer.steps=ten", "whole number"]),
    (["trainer.steps=2.5"], ["trainer.steps=2.5", "whole number"]),
    (["trainer.steps=0"], ["trainer.steps=0", "greater than or equal to 1"]),
    (["trainer.steps=-3"], ["trainer.steps=-3", "greater than or equal to 1"]),
    (["trainer.steps=null"], ["trainer.steps=null", "whole number"]),
    (["trainer.lr=fast"], ["trainer.lr=fast", "number"]),
    (["trainer.lr=0"], ["trainer.lr=0", "greater than 0"]),
    (["trainer.lr=nan"], ["trainer.lr=nan", "finite"]),
    (["trainer.lr=inf"], ["trainer.lr=inf", "finite"]),
    (["trainer.temperature=-1"], ["trainer.temperature=-1", "greater than 0"]),
    (["trainer.betas=[0.9,1.0]"], ["trainer.betas", "1.0", "less than 1"]),
    (["trainer.betas=[0.9]"], ["trainer.betas"]),
    (["trainer.staleness=-1"], ["trainer.staleness=-1", "greater than or equal to 0"]),
    (["trainer.device=tpu"], ["trainer.device=tpu", "cpu", "cuda", "auto"]),
    (["tracking.enabled=maybe"], ["tracking.enabled=maybe", "true or false"]),
    (["seed=-1"], ["seed=-1", "greater than or equal to 0"]),
    (["seeds.sampling=x"], ["seeds.sampling=x", "whole number"]),
    (["engine.weights=int5"], ["engine.weights=int5", "int4", "int8", "bfloat16", "same"]),
    (["engine.kind=fast"], ["engine.kind=fast", "native"]),
    (["task.kind=math"], ["task.kind=math", "chain", "gsm8k"]),
    (["task.steps=65"], ["task.steps=65", "less than or equal to 64"]),
    (["task.multiply_probability=1.5"], ["task.multiply_probability=1.5", "less than or equal to 1"]),
    (["task=gsm8k", "task.revision=main"], ["task.revision=main"]),
    (["warmup.band=[0.5,0.2]"], ["warmup.band", "[0.5, 0.2]", "below"]),
    (["warmup.max_steps=3"], ["warmup.max_steps=3", "at least steps = 1300"]),
    (["model.kv_heads=3"], ["model.kv_heads=3", "divide heads = 4"]),
    (["model.head_dim=16"], ["model.head_dim=16", "32", "64"]),
    (["model=moe", "model.experts_per_token=9"], ["model.experts_per_token=9", "between 1 and experts = 8"]),
    (["model=moe", "model.expert_feed_forward=0"], ["model.expert_feed_forward=0", "at least 1"]),
    (
        ["task=dapo_math", "model=pretrained", "model.path=x", "warmup=cold_start"],
        ["warmup.steps=10", "warmup=none", "dapo_math"],
    ),
    (
        ["model=smollm2_135m", "task=gsm8k", "model.dtype=bfloat16"],
        ["model.dtype=bfloat16", "float32 for model.implementation = lab"],
    ),
    (["learning_rate=1e-4"], ["learning_rate", "The lab calls it 'trainer.lr'"]),
    (["trainer.learning_rate=1e-4"], ["trainer.learning_rate", "'trainer.lr'"]),
    (["algo.delta=0.1"], ["algo.delta", "'algo.trust_region.delta'"]),
    (["num_generations=8"], ["num_generations", "'trainer.group_size'"]),
    (["max_completion_length=64"], ["max_completion_length", "'task.max_response_tokens'"]),
    (["beta=0.04"], ["beta", "'algo.regulariser.kl_coefficient'"]),
    (["epsilon=0.2"], ["epsilon", "'algo.trust_region.clip_low'"]),
    (["model.path=x"], ["model.path", "It is a key of model=pretrained"]),
    (["seeds=5"], ["seeds=5", "seed=range(0,5)"]),
    (["trainer=5"], ["trainer=5", "default"]),
    (["model=Qwen/Qwen3-0.6B"], ["model=Qwen/Qwen3-0.6B", "model=pretrained model.path=Qwen/Qwen3-0.6B"]),
    (["task=train.csv"], ["task=train.csv", "task=custom task.path=train.csv"]),
    (["task=dapo_math"], ["model.kind=scratch", "pretrained", "dapo_math"]),
    (["recipe=qwen3"], ["recipe=qwen3", "qwen3_1.7b_base", "none"]),
    (["recipe=_paper"], ["recipe=_paper", "unknown"]),
    (["recipe=qwen3_1.7b", "task.prompt=chatty"], ["task.prompt=chatty", "plain", "chat"]),
    (["recipe=qwen3_1.7b", "task.benchmarks=[]"], ["task.benchmarks", "at least 1 item"]),
    (["recipe=qwen3_1.7b", "task.benchmarks=[aime23]"], ["task.benchmarks", "aime23", "aime24"]),
    (["recipe=qwen3_1.7b", "task.benchmarks=[aime24,aime24]"], ["task.benchmarks", "once"]),
    (
        ["recipe=qwen3_1.7b", "task.benchmarks=[aime24]", "task.heldout_paths.aime25=x.jsonl"],
        ["task.heldout_paths.aime25=x.jsonl", "must be null", "aime24"],
    ),
    (["recipe=qwen3_1.7b", "task.evaluation_top_p=0"], ["task.evaluation_top_p=0", "greater than 0"]),
    (["recipe=qwen3_1.7b", "task.samples=0"], ["task.samples=0", "greater than or equal to 1"]),
    (["model.context=64"], ["model.context=64", "at least", "task.steps = 4"]),
    (["trainer.prompts_per_minibatch=33"], ["trainer.prompts_per_minibatch=33", "prompts_per_step = 32"]),
    (["trainer.lr_floor=0.1"], ["trainer.lr_floor=0.1", "must be 0", "linear or cosine"]),
    (["trainer.lr_ess_base=0.5"], ["trainer.lr_ess_base=0.5", "unless lr_control is ess"]),
    (["trainer.lr_length_window=3"], ["trainer.lr_length_window=3", "unless lr_control is length_decay"]),
    (["trainer.lr_control=length_decay"], ["trainer.lr_length_multiple", "null", "needs a number"]),
    (
        ["trainer.lr_schedule=cosine", "trainer.steps=1", "trainer.lr_warmup_updates=64"],
        ["trainer.lr_warmup_updates=64", "64 planned updates", "cosine"],
    ),
    (["trainer.group_size=1"], ["trainer.group_size=1", "at least 2", "group_normalised"]),
    (["algo.divergence.kind=none"], ["algo.divergence.kind", "none", "needs one of", "binary_tv"]),
    (["algo=dppo_tv", "algo.divergence.kind=none"], ["algo.divergence.kind", "needs one of"]),
    (["algo.divergence.kind=binray_tv"], ["algo.divergence.kind", "binray_tv", "binary_tv"]),
    (["algo.divergence.k=0"], ["algo.divergence.k", "0"]),
    (["algo.anchor=old"], ["algo.anchor", "old", "force_anchor"]),
    (["algo=grpo", "algo.anchor=rollout"], ["algo.anchor", "rollout", "force_anchor"]),
    (["algo.anchor=old", "algo.force_anchor=true"], ["algo.divergence.kind", "needs anchor rollout"]),
    (["algo.trust_region.delta=nan"], ["algo.trust_region.delta", "nan"]),
    (["algo.trust_region.delta=-0.1"], ["algo.trust_region.delta", "-0.1", "greater than 0"]),
    (["algo.trust_region.delta=null"], ["algo.trust_region.delta"]),
    (["algo.trust_region.delta=much"], ["algo.trust_region.delta", "much", "number"]),
    (["algo=grpo", "algo.trust_region.clip_low=null"], ["algo.trust_region.clip_low"]),
    (["algo.trust_region.weights.w_min=2"], ["algo.trust_region.weights.w_min", "2", "at most 1"]),
    (["algo.trust_region.weights.kind=lineer"], ["algo.trust_region.weights.kind", "lineer", "linear"]),
    (["algo=pg", "algo.surrogate.kind=clipped"], ["algo.surrogate.kind", "clipped", "ratio_clip"]),
    (
        ["algo=pg", "algo.trust_region.kind=prefix_budget"],
        ["algo.trust_region.delta=null", "prefix_budget needs a number"],
    ),
    (
        ["algo=pg", "algo.trust_region.kind=prefix_budget", "algo.trust_region.delta=0.1"],
        ["algo.divergence.kind", "none", "prefix_budget needs one of"],
    ),
]


@pytest.mark.parametrize(("overrides", "parts"), BAD, ids=lambda value: " ".join(value)[:60])
def test_bad_configuration_is_refused_in_one_sentence_with_key_value_and_remedy(
    overrides: list[str], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        compose_run(overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?", "…")), sentence
    missing = [part for part in parts if part not in sentence]
    assert not missing, f"{sentence!r} does not say {missing}"


def test_forced_anchor_is_accepted() -> None:
    config = compose_run(["algo=grpo", "algo.anchor=rollout", "algo.force_anchor=true"])
    assert config.algo.anchor == "rollout"


def test_seeds_follow_the_runs_seed_unless_set() -> None:
    seeds = compose_run(["seed=7", "seeds.sampling=3"]).seeds
    assert (seeds.prompts, seeds.sampling, seeds.minibatches, seeds.shuffled_weights) == (7, 3, 7, 7)


def test_regimes_are_what_they_are_called() -> None:
    mild, many, mismatch = (compose_run([f"regime={name}"]) for name in ("mild", "many_updates", "mismatch"))
    assert (mild.trainer.updates_per_step, mild.engine.weights) == (16, "same")
    assert (many.trainer.updates_per_step, many.engine.weights) == (64, "same")
    assert (mismatch.trainer.updates_per_step, mismatch.engine.weights) == (64, "int4")


def test_an_override_beats_the_regime() -> None:
    assert compose_run(["regime=mismatch", "engine.weights=int8"]).engine.weights == "int8"


def test_output_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPPO_LAB_OUTPUT", "somewhere/else")
    assert compose_run([]).paths.output == Path("somewhere/else")


@pytest.mark.parametrize("name", ["mine", "with space"])
def test_own_configuration_folder_adds_a_choice(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name / "algo"
    folder.mkdir(parents=True)
    (folder / "my_method.yaml").write_text(
        "defaults: [cppo, _self_]\nname: my_method\ntrust_region:\n  delta: 0.33\n", encoding="utf-8"
    )
    config = compose_run(["algo=my_method"], tmp_path / name)
    assert (config.algo.name, config.algo.trust_region.delta) == ("my_method", 0.33)
    with pytest.raises(UserError, match="algo=my_method: unknown; allowed are"):
        compose_run(["algo=my_method"])


def test_missing_configuration_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--config-dir .*absent: no such folder"):
        compose_run([], tmp_path / "absent")
