"""A run's identity: every key that can change the result changes it, and nothing else does."""

from __future__ import annotations

import copy
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import starting, tiny_config

from cppo_lab.config.compose import compose_run, compose_tree, validate
from cppo_lab.config.identity import (
    RESULT_VERSION,
    determines_result,
    named_inputs,
    run_id,
    starting_policy_id,
)
from cppo_lab.config.schema import RunConfig
from cppo_lab.models.loading import Policy
from cppo_lab.tracking.run_folder import run_folder
from cppo_lab.training.checkpoint import save_checkpoint

DETERMINES_THE_RESULT: dict[str, Any] = {
    "seed": 1,
    "seeds.prompts": 1,
    "seeds.sampling": 1,
    "seeds.minibatches": 1,
    "seeds.shuffled_weights": 1,
    "warmup.seed": 1,
    "warmup.lr": 0.001,
    "warmup.corruption": 0.2,
    "warmup.band": None,
    "model.layers": 3,
    "task.steps": 5,
    "task.heldout": 512,
    "task.multiply_probability": 0.2,
    "task.max_response_tokens": 40,
    "engine.weights": "int8",
    "trainer.lr": 0.0002,
    "trainer.steps": 13,
    "trainer.prompts_per_step": 16,
    "trainer.group_size": 4,
    "trainer.epochs": 2,
    "trainer.staleness": 1,
    "trainer.microbatch_sequences": 4,
    "trainer.temperature": 0.9,
    "trainer.betas": [0.9, 0.95],
    "trainer.weight_decay": 0.1,
    "trainer.grad_clip": None,
    "trainer.evaluate_every": 3,
    "trainer.evaluation_problems": 64,
    "trainer.threads": 2,
    "trainer.lr_warmup_updates": 5,
    "algo.trust_region.delta": 0.1,
    "algo.trust_region.budget.size": 0.01,
    "algo.trust_region.weights.w_min": 0.7,
    "algo.divergence.k": 10,
    "algo.aggregation.kind": "sequence_mean_token_mean",
}
# The names of runs that were made before; they must never change while RESULT_VERSION is 3. (run, starting
# policy), all at the learning rate that was the default.
MADE_BEFORE = [
    ([], "72788649ab11", "98acc31600d0"),
    (["algo=grpo"], "6fc25ae4a07a", "98acc31600d0"),
    (["regime=mismatch"], "721f5f168fc7", "98acc31600d0"),
    (["task=gsm8k"], "7f95f389c2a5", "45f9f16e6fe7"),
    (["engine=vllm"], "5c4d3c446e54", "98acc31600d0"),
    (
        [
            *("task=gsm8k", "model=pretrained", "model.path=Qwen/Qwen3-0.6B", f"model.revision={40 * 'a'}"),
            "warmup=none",
        ],
        # Once 9747e1912702, when pretrained models were asked as from-scratch ones are.
        "37674af0dae7",
        "81b556e8130d",
    ),
]
CHANGES_NOTHING = [
    "paths.output=elsewhere",
    "tracking=none",
    "tracking.experiment=other",
    "tracking.every_s=9",
    "trainer.checkpoint_every=1",
    "trainer.samples_per_step=0",
    "trainer.lr=0.0001",
    "regime=many_updates",
]


def with_value(tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(tree))
    *path, last = key.split(".")
    node = changed
    for part in path:
        node = node[part]
    assert last in node
    node[last] = value
    return changed


def test_whatever_determines_the_result_changes_the_identity() -> None:
    tree = compose_tree([])
    ids = {choice: run_id(compose_run([choice])) for choice in ("seed=0", "algo=dppo_tv", "model=m")}
    for key, value in DETERMINES_THE_RESULT.items():
        ids[key] = run_id(validate(with_value(tree, key, value)))
    assert len(set(ids.values())) == len(ids), ids


@pytest.mark.parametrize(("overrides", "run", "policy"), MADE_BEFORE, ids=lambda value: str(value)[:40])
def test_runs_made_before_keep_their_names(overrides: list[str], run: str, policy: str) -> None:
    of_then = ["trainer.lr=4e-4", "model.implementation=transformers", "trainer.device=cpu"]
    config = compose_run([*overrides, *of_then])
    assert RESULT_VERSION == 3
    assert (run_id(config), starting_policy_id(config)) == (run, policy)


@pytest.mark.parametrize("override", CHANGES_NOTHING)
def test_whatever_does_not_determine_the_result_leaves_the_identity(override: str) -> None:
    assert run_id(compose_run([override])) == run_id(compose_run([]))


@pytest.mark.parametrize("key", ["paths.output", "tracking", "tracking.uri", "trainer.checkpoint_every"])
def test_key_that_only_says_where_or_how_often_determines_nothing(key: str) -> None:
    assert not determines_result(key)


@pytest.mark.parametrize("key", [*DETERMINES_THE_RESULT, "algo.name", "paths_of_mine"])
def test_other_keys_determine_the_result(key: str) -> None:
    assert determines_result(key)


def test_order_of_overrides_does_not_matter() -> None:
    first = compose_run(["seed=3", "trainer.lr=1e-4"])
    assert run_id(first) == run_id(compose_run(["trainer.lr=0.0001", "seed=3"]))


def test_auto_device_is_the_device_that_it_finds() -> None:
    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"
    assert run_id(compose_run([f"trainer.device={found}"])) == run_id(compose_run([]))


def test_run_folder_is_named_by_method_and_identity(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "algo=grpo")
    assert run_folder(config).path == tmp_path / "runs" / f"grpo-{run_id(config)}"


def gsm8k(path: Path, *overrides: str) -> RunConfig:
    return compose_run(["task=gsm8k", f"task.path='{path}'", "task.heldout=1", *overrides])


def test_bytes_of_a_data_file_matter_and_its_path_does_not(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "sub" / "b.jsonl"
    second.parent.mkdir()
    first.write_text('{"question": "q", "answer": "#### 1"}\n' * 4, encoding="utf-8")
    shutil.copy(first, second)
    assert run_id(gsm8k(first)) == run_id(gsm8k(second))
    assert starting_policy_id(gsm8k(first)) == starting_policy_id(gsm8k(second))
    second.write_text(first.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert run_id(gsm8k(first)) != run_id(gsm8k(second))
    assert starting_policy_id(gsm8k(first)) != starting_policy_id(gsm8k(second))


def test_inputs_are_named_by_the_keys_that_give_them(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path in (first, second):
        path.write_text('{"question": "q", "answer": "#### 1"}\n' * 4, encoding="utf-8")
    inputs = named_inputs(gsm8k(first, f"task.heldout_path='{second}'"))
    assert inputs.keys() == {"task.path", "task.heldout_path"}
    assert inputs["task.path"] == inputs["task.heldout_path"] == named_inputs(gsm8k(second))["task.path"]
    assert named_inputs(compose_run([])) == {}


def test_training_and_heldout_file_are_not_interchangeable(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, path in enumerate(files):
        path.write_text(f'{{"question": "{number}", "answer": "#### 1"}}\n' * 4, encoding="utf-8")
    first, second = (run_id(gsm8k(a, f"task.heldout_path='{b}'")) for a, b in (files, reversed(files)))
    assert first != second


def dapo_math(heldout: Path, *overrides: str) -> RunConfig:
    path = f"task.heldout_paths.aime24='{heldout}'"
    return compose_run(["recipe=qwen3_1.7b_base", "task.benchmarks=[aime24]", path, *overrides])


def test_bytes_of_a_benchmarks_file_matter_and_its_path_does_not(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path in (first, second):
        path.write_text('{"problem": "q", "answer": "1"}\n', encoding="utf-8")
    assert run_id(dapo_math(first)) == run_id(dapo_math(second))
    assert named_inputs(dapo_math(first)).keys() == {"task.heldout_paths.aime24"}
    before = run_id(dapo_math(second))
    second.write_text('{"problem": "q", "answer": "2"}\n', encoding="utf-8")
    assert run_id(dapo_math(second)) != before
    assert run_id(compose_run(["recipe=qwen3_1.7b_base", "task.benchmarks=[aime24]"])) != before
    assert run_id(dapo_math(first, "task.samples=8")) != run_id(dapo_math(first))


def with_model(folder: Path, *overrides: str) -> RunConfig:
    return compose_run(["model=pretrained", f"model.path='{folder}'", "warmup=none", *overrides])


@pytest.fixture
def saved(output: Path, tmp_path: Path) -> tuple[Policy, Path]:
    """A policy and the folder that it is saved in."""
    policy = starting(tiny_config(output))
    save_checkpoint(tmp_path / "model", policy)
    return policy, tmp_path / "model"


def test_weights_of_a_local_model_matter(saved: tuple[Policy, Path]) -> None:
    policy, folder = saved
    before, inputs = run_id(with_model(folder)), named_inputs(with_model(folder))
    assert run_id(with_model(folder)) == before
    assert inputs.keys() == {"model.path"}
    policy.network.get_input_embeddings().weight.data[5, 5] += 1
    save_checkpoint(folder, policy)
    assert run_id(with_model(folder)) != before
    assert named_inputs(with_model(folder)) != inputs


def test_path_of_a_local_model_does_not_matter_and_its_given_name_does(
    saved: tuple[Policy, Path], tmp_path: Path
) -> None:
    _, folder = saved
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, moved)
    for identity in (run_id, starting_policy_id):
        assert identity(with_model(folder)) == identity(with_model(moved))
        assert identity(with_model(folder)) != identity(with_model(folder, "model.name=mine"))


def test_hub_models_are_told_apart_by_their_names() -> None:
    ids = {starting_policy_id(with_model(Path(name))) for name in ("someone/one", "someone/two")}
    assert len(ids) == 2


def test_input_files_are_read_once_however_many_runs_need_them(
    saved: tuple[Policy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = saved
    reads: list[str] = []
    real = hashlib.file_digest

    def counting(file: Any, kind: str) -> Any:
        reads.append(file.name)
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    for seed in range(3):
        config = with_model(folder, f"seed={seed}")
        run_id(config)
        starting_policy_id(config)
    assert sum(name.endswith(".safetensors") for name in reads) == 1
    assert len(reads) == len(set(reads))


def test_starting_policy_is_shared_by_methods_and_run_seeds_alone() -> None:
    base = starting_policy_id(compose_run([]))
    for shared in ("algo=grpo", "seed=5", "trainer.lr=1e-4", "regime=mismatch"):
        assert starting_policy_id(compose_run([shared])) == base, shared
    for own in ("warmup.seed=5", "warmup.lr=1e-3", "model=m", "task.steps=5", "warmup.steps=1400"):
        assert starting_policy_id(compose_run([own])) != base, own


PLUGIN_TASK = """
from typing import Literal

from cppo_lab.tasks.chain import ChainConfig
from cppo_lab.tasks.task import tasks

@tasks.register("my_chain", about="The embedded task under another name.")
class MyChain(ChainConfig):
    kind: Literal["my_chain"]
"""


def test_a_starting_policy_depends_on_the_plugins_of_its_task_alone(tmp_path: Path) -> None:
    rule = tmp_path / "rule.py"
    rule.write_text("# Registers nothing.\n", encoding="utf-8")
    plain, with_rule = compose_run([]), compose_run([f"plugins=['{rule}']"])
    assert run_id(with_rule) != run_id(plain)
    assert starting_policy_id(with_rule) == starting_policy_id(plain)
    ids = []
    for name in ("task", "copy", "other"):
        file = tmp_path / name / "task.py"
        file.parent.mkdir()
        file.write_text(PLUGIN_TASK + ("# other" if name == "other" else ""), encoding="utf-8")
        code = (
            "from cppo_lab.config.compose import compose_run\n"
            "from cppo_lab.config.identity import starting_policy_id\n"
            f"print(starting_policy_id(compose_run(['plugins=[\"{file}\"]', 'task.kind=my_chain'])))"
        )
        # Two plug-ins of one process may not register the same task.
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        ids.append(done.stdout)
    assert ids[0] == ids[1] != ids[2]
