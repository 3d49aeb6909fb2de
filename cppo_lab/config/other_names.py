"""What other trainers call a key: TRL, verl, transformers, and the papers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cppo_lab.errors import near_miss

_OTHER_NAMES: Mapping[str, Sequence[str]] = {
    "trainer.lr": ("learning_rate", "lr"),
    "trainer.lr_schedule": ("lr_scheduler_type", "scheduler", "lr_scheduler"),
    "trainer.lr_warmup_updates": ("warmup_steps", "lr_warmup_steps", "num_warmup_steps"),
    "trainer.grad_clip": ("max_grad_norm", "clip_grad", "gradient_clip", "gradient_clipping"),
    "trainer.group_size": ("num_generations", "group_size", "rollout.n", "samples_per_prompt"),
    "trainer.prompts_per_step": (
        *("train_batch_size", "batch_size", "rollout_batch_size", "generation_batch_size"),
        "per_device_train_batch_size",
    ),
    "trainer.prompts_per_minibatch": ("ppo_mini_batch_size", "mini_batch_size", "minibatch_size"),
    "trainer.microbatch_sequences": ("ppo_micro_batch_size", "micro_batch_size"),
    "trainer.microbatch_tokens": (
        *("ppo_max_token_len_per_gpu", "max_token_len", "use_dynamic_bsz", "max_tokens_per_microbatch"),
    ),
    "trainer.epochs": ("num_iterations", "ppo_epochs", "num_ppo_epochs", "num_train_epochs"),
    "trainer.steps": ("max_steps", "total_steps", "num_steps"),
    "trainer.evaluate_every": ("eval_steps", "test_freq"),
    "trainer.checkpoint_every": ("save_steps", "save_freq"),
    "trainer.device": ("device",),
    "task.max_response_tokens": (
        *("max_completion_length", "max_tokens", "max_new_tokens", "response_length"),
        *("max_response_length", "generation_length"),
    ),
    "task.prompt": ("prompt_template",),
    "task.system": ("system_prompt",),
    "task.path": ("train_files", "data_path", "data", "dataset_path"),
    "task.dataset": ("dataset_name", "dataset"),
    "model.path": ("model_name_or_path", "model_path", "model_id"),
    "algo.regulariser.kl_coefficient": ("beta", "kl_coef", "kl_loss_coef", "kl_beta"),
    "algo.regulariser.entropy_coefficient": ("entropy_coeff", "entropy_coef"),
    "algo.trust_region.delta": ("delta", "tv_threshold", "threshold"),
    "algo.trust_region.clip_low": (
        "epsilon",
        "clip_ratio",
        "clip_range",
        "cliprange",
        "clip_ratio_low",
        "clip_eps",
    ),
    "algo.trust_region.clip_high": ("epsilon_high", "clip_ratio_high"),
    "algo.trust_region.budget.size": ("budget", "budget_size"),
    "algo.aggregation.kind": ("loss_type", "loss_agg_mode"),
    "paths.output": ("output_dir", "output"),
    "seed": ("random_seed",),
}
_OF_A_CHOICE: Mapping[str, str] = {
    **dict.fromkeys(("model.path", "model.revision", "model.dtype"), "model=pretrained"),
    **dict.fromkeys(("task.path", "task.heldout_path"), "task=gsm8k and task=custom"),
    **dict.fromkeys(
        ("task.dataset", "task.question_column", "task.answer_column", "task.grader"), "task=custom"
    ),
    **dict.fromkeys(
        ("task.prompt", "task.system", "task.reward"), "task=gsm8k, task=custom and task=reasoning_gym"
    ),
    "task.steps": "task=chain",
}


def key_hint(name: str, known: Collection[str]) -> str:
    """What an unknown key may mean: another choice that has it, what the lab calls it, a near miss, or nothing."""
    if name in _OF_A_CHOICE:
        return f" It is a key of {_OF_A_CHOICE[name]}."
    last = name.rpartition(".")[2]
    for key, names in _OTHER_NAMES.items():
        if key in known and (name in names or last in names):
            return f" The lab calls it '{key}'."
    return near_miss(name, known)
