"""verl's own trainer, as its users start it, under methods of the lab: two CPU processes, the lab's sampler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_runs import ROOT, tiny_config

from cppo_lab.config.backend import VerlBackend
from cppo_lab.training.policy_cache import cache_folder
from cppo_lab.training.verl.launch import driver_environment

PYTHON = Path(os.environ.get("CPPO_LAB_VERL_PYTHON") or ROOT / ".venv-verl" / "bin" / "python")
pytestmark = [
    pytest.mark.verl,
    pytest.mark.skipif(not PYTHON.is_file(), reason="verl has no environment here: make test-backend-verl"),
]
OURS = (
    "trainer.v1.trainer_mode=cppo_lab",
    "algorithm.adv_estimator=grpo",
    "actor_rollout_ref.rollout.calculate_log_probs=true",
)
"""What a user adds to a configuration of verl, with the method: +cppo_lab.algo=NAME."""
REWARD = """
from cppo_lab.tasks.problem import Problem, grade_responses

def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    return float(grade_responses([solution_str], [Problem(prompt="", answer=ground_truth)])[0].correct)
"""
STEPS = 2
# With so many, some groups have both right and wrong responses.
PROMPTS = 12


@pytest.fixture(scope="module")
def prepared(warmed_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a reward function and a policy whose chat template adds nothing."""
    folder = tmp_path_factory.mktemp("plugin")
    config = tiny_config(warmed_up)
    task = config.task.build()
    problems = [each for step in range(STEPS) for each in task.training_problems(step, PROMPTS, 0)]
    held_out = list(task.heldout_problems())[:8]
    for name, rows in (("train", problems), ("test", held_out)):
        table = [
            {
                "data_source": "chain",
                "prompt": [{"role": "user", "content": problem.prompt}],
                "reward_model": {"style": "rule", "ground_truth": problem.answer},
                "extra_info": {"index": index},
            }
            for index, problem in enumerate(rows)
        ]
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    (folder / "reward.py").write_text(REWARD)
    policy = folder / "policy"
    shutil.copytree(cache_folder(config), policy)
    path = policy / "tokenizer_config.json"
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


def started(prepared: Path, tmp_path: Path, *more: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, output and logged metrics of `python -m verl.trainer.main_ppo`."""
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    settings = [
        f"data.train_files={prepared}/train.parquet",
        f"data.val_files={prepared}/test.parquet",
        f"data.train_batch_size={PROMPTS}",
        "data.max_prompt_length=64",
        "data.max_response_length=24",
        "data.dataloader_num_workers=0",
        "data.shuffle=false",
        f"actor_rollout_ref.model.path={prepared}/policy",
        "actor_rollout_ref.model.use_remove_padding=false",
        "actor_rollout_ref.model.enable_gradient_checkpointing=false",
        "+actor_rollout_ref.model.override_config.attn_implementation=eager",
        f"{actor}.strategy=fsdp2",
        f"{actor}.use_torch_compile=false",
        f"{actor}.fsdp_config.use_torch_compile=false",
        f"{actor}.fsdp_config.model_dtype=fp32",
        f"+{actor}.fsdp_config.mixed_precision={{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}}",
        f"{actor}.optim.lr=1e-4",
        f"{actor}.ppo_mini_batch_size=5",
        f"{actor}.ppo_micro_batch_size_per_gpu=6",
        f"{rollout}.name=cppo_lab",
        f"{rollout}.n=8",
        f"{rollout}.tensor_model_parallel_size=1",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=6",
        f"{rollout}.agent.num_workers=1",
        f"{rollout}.free_cache_engine=false",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=6",
        f"reward.custom_reward_function.path={prepared}/reward.py",
        "reward.num_workers=1",
        "trainer.device=cpu",
        "trainer.n_gpus_per_node=2",
        "trainer.nnodes=1",
        f"trainer.total_training_steps={STEPS}",
        "trainer.total_epochs=1",
        "trainer.val_before_train=false",
        f"trainer.test_freq={STEPS}",
        "trainer.save_freq=-1",
        "trainer.logger=[console,file]",
        "trainer.resume_mode=disable",
        f"trainer.default_local_dir={tmp_path}/checkpoints",
        "ray_kwargs.ray_init.num_cpus=32",
        "+ray_kwargs.ray_init.num_gpus=2",
        "+ray_kwargs.ray_init.include_dashboard=false",
    ]
    backend = VerlBackend.model_construct(device="cpu")
    done = subprocess.run(
        [str(PYTHON), "-m", "verl.trainer.main_ppo", *settings, *more],
        env=driver_environment(backend, "plugin")
        | {"VERL_FILE_LOGGER_PATH": str(tmp_path / "metrics.jsonl")},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    log = tmp_path / "metrics.jsonl"
    rows = [json.loads(line)["data"] for line in log.read_text().splitlines()] if log.exists() else []
    return done.returncode, done.stdout, rows


@pytest.mark.parametrize("algo", ["cppo_binary", "grpo"])
def test_verl_trains_by_a_method_of_the_lab(algo: str, prepared: Path, tmp_path: Path) -> None:
    code, said, rows = started(prepared, tmp_path, *OURS, f"+cppo_lab.algo={algo}")
    assert code == 0, said[-4000:]
    steps = [row for row in rows if "mask/share" in row]
    assert len(steps) == STEPS
    for row in steps:
        assert row["actor/grad_norm"] > 0
        # Before its first update the policy is what sampled.
        assert row["mismatch/logp_absdiff_max"] < 1e-3
        assert 0 <= row["mask/share"] < 1
    assert any("val-core/chain" in name for row in rows for name in row)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["+cppo_lab.algo=cppo"], "cppo reads the sampler's distribution at every token"),
        ([], "cppo_lab.algo: needs a method's name"),
        (
            ["+cppo_lab.algo=grpo", "actor_rollout_ref.actor.clip_ratio=0.3"],
            "actor_rollout_ref.actor.clip_ratio=0.3: grpo decides it by its trust_region.clip_low",
        ),
    ],
    ids=["top-K", "no method", "ignored setting"],
)
def test_what_it_cannot_honour_ends_it_with_a_sentence(
    more: list[str], sentence: str, prepared: Path, tmp_path: Path
) -> None:
    code, said, _ = started(prepared, tmp_path, *OURS, *more)
    assert code != 0
    assert sentence in said
