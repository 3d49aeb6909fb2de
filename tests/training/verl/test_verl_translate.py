"""What verl is told of a run, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cppo_lab.config.backend import VerlBackend
from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.objectives import method_names
from cppo_lab.training.verl.translate import UNCLIPPED, translate

ON_CPU = ("backend=verl", "backend.device=cpu")


def told(*overrides: str, start: str = "start") -> dict[str, str]:
    """verl's overrides by their keys."""
    translation = translate(compose_run(overrides), start)
    assert not translation.refusals
    return dict(each.split("=", 1) for each in translation.overrides)


def refused(*overrides: str) -> tuple[str, ...]:
    return translate(compose_run([*ON_CPU, *overrides]), "start").refusals


def test_the_optimizer_is_the_runs() -> None:
    found = told(*ON_CPU, "trainer.lr=3e-4", "trainer.betas=[0.8,0.95]", "trainer.weight_decay=0.1")
    optim = "actor_rollout_ref.actor.optim"
    assert found[f"{optim}.lr"] == "0.0003"
    assert found[f"{optim}.betas"] == "[0.8,0.95]"
    assert found[f"{optim}.weight_decay"] == "0.1"
    assert found[f"{optim}.clip_grad"] == "1.0"
    assert told(*ON_CPU, "trainer.grad_clip=null")[f"{optim}.clip_grad"] == repr(UNCLIPPED)


def test_the_sampler_is_the_lab_s_own_in_the_format_of_the_run() -> None:
    found = told(*ON_CPU, "regime=mismatch")
    assert found["actor_rollout_ref.rollout.name"] == '"cppo_lab"'
    custom = found["+actor_rollout_ref.rollout.custom"]
    assert 'weights:"int4"' in custom
    assert 'implementation:"lab"' in custom


def test_gpus_pack_tokens_and_a_cpu_takes_sequences() -> None:
    on_gpu = told("backend=verl", "recipe=qwen3_1.7b_base", "engine=native", "algo=grpo")
    assert on_gpu["actor_rollout_ref.actor.use_dynamic_bsz"] == "true"
    assert on_gpu["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] == "16384"
    assert on_gpu["actor_rollout_ref.model.use_remove_padding"] == "true"
    on_cpu = told(*ON_CPU, "trainer.microbatch_sequences=4")
    assert on_cpu["actor_rollout_ref.actor.use_dynamic_bsz"] == "false"
    assert on_cpu["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] == "4"
    assert on_cpu["actor_rollout_ref.model.use_remove_padding"] == "false"


def test_vllm_returns_as_many_log_probabilities_as_the_method_reads() -> None:
    key = "+actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs"
    paper = ("backend=verl", "recipe=qwen3_8b_base", "engine=vllm", "algo=cppo")
    assert told(*paper)[key] == "20"
    assert told(*paper, "algo.divergence.k=64")[key] == "64"
    assert told(*paper, "backend.tensor_parallel=4")["actor_rollout_ref.rollout.name"] == '"vllm"'


def test_a_path_loses_its_last_slash() -> None:
    assert told(*ON_CPU, start="/models/mine/")["actor_rollout_ref.model.path"] == '"/models/mine"'


def test_a_reference_is_held_where_the_method_has_one() -> None:
    key = "actor_rollout_ref.actor.use_kl_loss"
    assert told(*ON_CPU, "algo=grpo")[key] == "false"
    assert told(*ON_CPU, "algo=grpo", "algo.regulariser.kl_coefficient=0.04")[key] == "true"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["algo=ppo"], "algo=ppo: trains a critic"),
        (["algo=switched_batch"], "algo=switched_batch: reads statistics of the whole minibatch"),
        (["trainer.microbatch_tokens=8192"], "trainer.microbatch_tokens=8192: must be null"),
        (["trainer.lora_rank=4", "model.implementation=transformers"], "trainer.lora_rank=4: must be 0"),
        (["trainer.threads=2"], "trainer.threads=2: must be 1; give backend.workers"),
        (["engine=vllm", "algo=grpo"], "engine.kind=vllm: verl's vLLM server needs GPUs"),
        (
            ["backend.workers=2", "backend.tensor_parallel=2"],
            "backend.tensor_parallel=2: must be 1 for engine.kind=native",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused(overrides: list[str], sentence: str) -> None:
    (found,) = refused(*overrides)
    assert found.startswith(sentence)


def test_the_methods_that_are_refused() -> None:
    """All but those that need a critic, a whole distribution, or a whole minibatch."""
    found = {name for name in method_names() if refused(f"algo={name}")}
    for name in found:
        needs = compose_run([f"algo={name}"]).algo.requirements
        assert needs.needs_values or needs.needs_full_distribution or needs.needs_statistics, name
    assert {"ppo", "switched_batch"} <= found
    assert {"cppo", "dppo_topk_tv", "grpo", "dr_grpo", "gspo", "grpo_tis", "trm_avg", "dapo"}.isdisjoint(
        found
    )


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["backend.device=cpu", "backend.nodes=2"], "backend.nodes=2: must be 1 for device = cpu"),
        (
            ["backend.device=cpu", "backend.gpus_per_node=4"],
            "backend.gpus_per_node=4: only applies to device = cuda",
        ),
        (
            ["backend.device=cpu", "backend.tokens_per_pass=64"],
            "backend.tokens_per_pass=64: only applies to device",
        ),
        (
            ["backend.device=cpu", "backend.offload=true"],
            "backend.offload=(T|t)rue: only applies to device = cuda",
        ),
        (["backend.workers=2"], "backend.workers=2: only applies to device = cpu"),
        (["backend.tensor_parallel=3"], "backend.tensor_parallel=3: must divide the run's 8 devices"),
        (["backend.nodes=0"], "backend.nodes=0: must be greater than or equal to 1"),
    ],
    ids=str,
)
def test_a_backend_that_makes_no_sense_is_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{sentence}"):
        compose_run(["backend=verl", *overrides])


def test_a_key_of_verl_is_unknown_to_the_native_backend() -> None:
    with pytest.raises(UserError, match=r"backend.workers: unknown key"):
        compose_run(["backend.workers=2"])


def test_the_identity_says_that_it_is_verl_and_not_where(tmp_path: Path) -> None:
    native = run_id(compose_run([]))
    verl = run_id(compose_run([*ON_CPU]))
    assert native != verl
    assert run_id(compose_run([*ON_CPU, "backend.workers=4", "backend.startup_s=60"])) == verl
    assert run_id(compose_run(["backend=native"])) == native


def test_devices_are_counted() -> None:
    def backend(*overrides: str) -> VerlBackend:
        config: RunConfig = compose_run(["backend=verl", *overrides])
        assert isinstance(config.backend, VerlBackend)
        return config.backend

    assert backend("backend.nodes=4").world_size == 32
    assert backend("backend.device=cpu", "backend.workers=3").world_size == 3
