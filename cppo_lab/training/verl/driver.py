"""The process that trains one run by verl, in verl's own environment: `python -m cppo_lab.training.verl.driver FOLDER`.

Its folder is the run's, locked by the process that started it. It writes the run's logs and checkpoints as the lab's
own process does, and how it ended in `verl/outcome.json`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cppo_lab.config.backend import VerlBackend
from cppo_lab.errors import UserError
from cppo_lab.files import full_disk, write_atomically

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.training.activity import Activity

JOB, OUTCOME, ACTIVITY = "verl/job.json", "verl/outcome.json", "verl/activity.json"
PLUGINS = "cppo_lab.integrations.verl,cppo_lab.training.verl.rollout"
"""What every process of verl imports."""
_TELL_S = 1.0
"""What is being done is written at most so often."""
_OBJECT_STORE_BYTES = 500_000_000
_CPUS_PER_WORKER = 3
"""What verl reserves of Ray for each device."""


def main(folder: Path) -> int:
    """Train the run in `folder`; the exit code."""
    from cppo_lab.training.update import Diverged

    try:
        train(folder)
        outcome: dict[str, Any] = {"status": "FINISHED", "reason": None}
    except KeyboardInterrupt:
        outcome = {"status": "INTERRUPTED", "reason": None}
    except (UserError, Diverged) as error:
        outcome = {"status": "FAILED", "reason": str(error), "diverged": isinstance(error, Diverged)}
    except Exception as error:
        traceback.print_exc()
        outcome = {"status": "FAILED", "reason": full_disk(error, folder) or sentence(error)}
    (folder / OUTCOME).write_text(json.dumps(outcome) + "\n", encoding="utf-8")
    return 0 if outcome["status"] == "FINISHED" else 1


def sentence(error: BaseException) -> str:
    """What went wrong, in one line; Ray's errors hold the whole traceback of the process that died."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    kind = type(error).__name__
    if "ActorDied" in kind or "ActorUnavailable" in kind or "WorkerCrashed" in kind:
        return "a process of verl died; the run resumes from its last checkpoint"
    lines = [line.strip() for line in str(cause).strip().splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else 'no message'}"


def train(folder: Path) -> None:
    """Start Ray and verl's workers, and run the lab's loop over them."""
    import ray
    import yaml

    from cppo_lab.config.compose import validate
    from cppo_lab.integrations.verl.private import TESTED, changed
    from cppo_lab.interrupts import termination_as_interrupt

    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    config = validate(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    installed = version("verl")
    if installed != TESTED:
        raise UserError(
            f"verl {installed} is installed; the lab needs {TESTED}, which make backend-verl installs"
        )
    if found := changed():
        raise UserError(f"backend=verl: {found[0]}")
    with termination_as_interrupt():
        _start_ray(config)
        try:
            _loop(config, folder, job).run()
        finally:
            ray.shutdown()


def verl_config(overrides: list[str]) -> Any:
    """verl's whole configuration, as its own loader composes it from overrides."""
    import verl
    from hydra import compose, initialize_config_dir

    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def _start_ray(config: RunConfig) -> None:
    import ray

    backend = config.backend
    assert isinstance(backend, VerlBackend), "the process was started for verl"
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("VERL_", "CPPO_LAB_", "OMP_", "HF_", "NCCL_", "VLLM_")) or name == "PYTHONPATH"
    }
    runtime = {"env_vars": passed}
    if backend.address is not None:
        try:
            ray.init(address=backend.address, runtime_env=runtime, log_to_driver=True)
        except ConnectionError as error:
            traceback.print_exc()
            raise UserError(f"backend.address={backend.address}: {_unreachable(error)}") from error
        _check_resources(backend)
        return
    if backend.device == "cuda":
        import torch

        found = torch.cuda.device_count()
        if found < backend.world_size:
            raise UserError(f"backend.gpus_per_node={backend.gpus_per_node}: this machine has {found} GPUs")
    # Logical devices on a CPU, where verl counts processes as GPUs; the CPUs are logical too.
    devices = {"num_gpus": backend.world_size} if backend.device == "cpu" else {}
    ray.init(
        num_cpus=max(8, (_CPUS_PER_WORKER + 1) * backend.world_size),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES if backend.device == "cpu" else None,
        runtime_env=runtime,
        **devices,
    )


def _unreachable(error: ConnectionError) -> str:
    """Why a Ray cluster cannot be joined. Ray takes up a token by itself only for a cluster that it finds by itself."""
    if "AuthToken" in str(error.__cause__):
        return (
            "the Ray cluster asks for a token; set RAY_AUTH_MODE=token, and give the token in ~/.ray/auth_token or "
            "RAY_AUTH_TOKEN"
        )
    return f"no Ray cluster can be reached there ({sentence(error)})"


def _check_resources(backend: VerlBackend) -> None:
    """Raise UserError for a cluster that is too small: verl would wait for ever, and say nothing."""
    import ray

    there = ray.cluster_resources()
    needed = {"GPU": backend.world_size, "CPU": _CPUS_PER_WORKER * backend.world_size}
    for name, count in needed.items():
        if there.get(name, 0) < count:
            raise UserError(
                f"backend.address={backend.address}: the Ray cluster has {there.get(name, 0):g} {name}s, and the run "
                f"needs {count}"
            )


def _loop(config: RunConfig, folder: Path, job: dict[str, Any]) -> Any:
    from omegaconf import OmegaConf, open_dict

    from cppo_lab.tracking.run_folder import RunFolder
    from cppo_lab.training.activity import Activity
    from cppo_lab.training.asked_model import asked_model
    from cppo_lab.training.run import held_out
    from cppo_lab.training.verl.cluster import Cluster, RemoteEngine
    from cppo_lab.training.verl.remote import RemoteLearner, RemoteLoop, RemoteRollouts

    backend = config.backend
    assert isinstance(backend, VerlBackend), "the process was started for verl"
    task = config.task.asked_of(asked_model(config.model)).build()
    policy = _described(job["start"], config)
    told = verl_config(job["overrides"])
    with open_dict(told):
        told.actor_rollout_ref.actor.optim.total_training_steps = config.trainer.planned_updates
    OmegaConf.resolve(told)
    packs = backend.device == "cuda" and backend.tokens_per_pass is not None
    passes = None if packs else config.trainer.microbatch_sequences or sys.maxsize
    cluster = Cluster(told, backend, passes)
    limit = config.task.response_limit
    algo = config.algo.with_horizon(limit)
    cluster.start(algo, config.plugins)
    learner = RemoteLearner(policy, algo, config.trainer, config.seeds.minibatches, cluster)
    tell = Teller(folder / ACTIVITY)
    trainer, tokens = config.trainer, {"end": policy.eos_token, "pad": policy.pad_token}
    rollouts = RemoteRollouts(
        settings=trainer,
        seeds=config.seeds,
        response_limit=limit,
        top_p=config.engine.sampling_top_p,
        algo=algo,
        task=task,
        policy=policy,
        engine=RemoteEngine(cluster, **tokens, exact=False),
        reference=_reference(config, job, policy),
        cluster=cluster,
        on_tokens=lambda done, most: tell(Activity(loop.step, "rollout", done, most)),
    )
    evaluation = held_out(
        config,
        task,
        policy,
        RemoteEngine(cluster, **tokens, exact=True),
        lambda done, most: tell(Activity(loop.step, "evaluation", done, most)),
    )
    run = RunFolder(folder)
    run.update_info(backend=_backend_info(backend), **_model_info(config, policy))
    loop = RemoteLoop(trainer, learner, rollouts, evaluation, run, tell)
    return loop


class Teller:
    """Writes what is being done to a file, for the process that watches."""

    def __init__(self, path: Path) -> None:
        self._path, self._told_at = path, -math.inf

    def __call__(self, activity: Activity) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TELL_S:
            self._told_at = now
            write_atomically(self._path, json.dumps(asdict(activity)) + "\n")


def _backend_info(backend: VerlBackend) -> dict[str, Any]:
    packages = ("verl", "ray", "torch", "transformers", "tensordict")
    return {
        "kind": "verl",
        "device": backend.device,
        "workers": backend.world_size,
        "nodes": backend.nodes,
        "versions": {name: version(name) for name in packages},
    }


def _model_info(config: RunConfig, policy: Any) -> dict[str, Any]:
    from cppo_lab.config.size import active_parameter_count

    count = sum(parameter.numel() for parameter in policy.network.parameters())
    active = active_parameter_count(config) or count
    sizes = {"parameters": count, "active_parameters": active, "trained_parameters": count}
    return {"model": {"name": config.model.name, **sizes}}


def _described(path: str, config: RunConfig) -> Any:
    """The policy without its weights: the architecture, for its sizes, and the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from cppo_lab.models.loading import Policy, load_tokenizer

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    if (Path(path) / "generation_config.json").is_file():
        network.generation_config = GenerationConfig.from_pretrained(path)
    return Policy(network, load_tokenizer(path), config.model.dtype)


def _reference(config: RunConfig, job: dict[str, Any], policy: Any) -> Any:
    """A network that stands for the frozen reference, which verl's workers hold."""
    if not config.algo.requirements.needs_reference:
        return None
    return _described(job["start"], config).network


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
