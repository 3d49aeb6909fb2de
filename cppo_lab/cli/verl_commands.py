"""What verl would be told: the commands of `--dry-run`, and the state of its environment."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cppo_lab.cli.console import console

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig

Finding = tuple[str, str, str]
_QUESTION = """
import json, importlib.metadata as metadata
versions = {}
for name in ("verl", "ray", "torch", "transformers", "tensordict"):
    try:
        versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        versions[name] = None
import torch
from cppo_lab.integrations.verl.private import TESTED, changed
print(json.dumps({"versions": versions, "gpus": torch.cuda.device_count(), "tested": TESTED, "changed": changed()}))
"""


def show_commands(configs: Sequence[RunConfig]) -> None:
    """The command of each run that verl would train, with every override, or why it would be refused."""
    for config in configs:
        if config.backend.kind != "verl":
            continue
        print_command(config)


def print_command(config: RunConfig) -> None:
    """One run's command."""
    from cppo_lab.models.config import PretrainedModel
    from cppo_lab.tracking.run_folder import run_folder
    from cppo_lab.training.policy_cache import cache_folder, is_as_it_is
    from cppo_lab.training.verl.translate import translate

    folder = run_folder(config).path
    start = str(cache_folder(config).resolve())
    if isinstance(config.model, PretrainedModel) and is_as_it_is(config):
        start = config.model.path
    translation = translate(config, start)
    console().print(f"\n{config.algo.name} seed {config.seed} ({folder.name}):", highlight=False)
    for refusal in translation.refusals:
        console().print(f"[red]refused[/] {refusal}", soft_wrap=True, highlight=False)
    words = ["PYTHON", "-m", "cppo_lab.training.verl.driver", str(folder)]
    overrides = [f"  {shlex.quote(each)}" for each in translation.overrides]
    lines = [shlex.join(words), "verl's configuration, ppo_trainer with", *overrides]
    console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def environment_findings() -> list[Finding]:
    """What `doctor --backend verl` says of verl's environment."""
    import json

    from cppo_lab.config.backend import VerlBackend
    from cppo_lab.errors import UserError
    from cppo_lab.training.verl.launch import driver_environment, environment_python

    backend = VerlBackend.model_construct(device="cpu", python=None)
    try:
        python = environment_python(backend)
    except UserError as error:
        return [("verl", "problem", str(error))]
    done = subprocess.run(
        [str(python), "-c", _QUESTION],
        env=driver_environment(backend, "doctor"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return [("verl", "problem", f"{python}: {lines[-1] if lines else 'cannot be run'}")]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    versions = found["versions"]
    state = "ok" if versions["verl"] == found["tested"] else "problem"
    remedy = "" if state == "ok" else f"; the lab is tested with {found['tested']}"
    findings: list[Finding] = [("verl", state, f"{versions['verl']} in {python}{remedy}")]
    others = ("ray", "torch", "transformers", "tensordict")
    findings += [(f"verl: {name}", _state(versions[name]), versions[name] or "missing") for name in others]
    findings += [("verl: parts", "problem", each) for each in found["changed"]]
    gpus = found["gpus"]
    findings.append(
        (
            "verl: devices",
            "ok",
            f"{gpus} GPUs" if gpus else "no GPU here; backend.device=cpu trains small models",
        )
    )
    return findings


def _state(version: str | None) -> str:
    return "problem" if version is None else "ok"
