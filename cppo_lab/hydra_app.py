"""The lab as an ordinary Hydra application, for Hydra's own launchers and sweepers.

`python -m cppo_lab.hydra_app --multirun algo=grpo,cppo 'seed=range(0,5)' hydra/launcher=joblib` trains one run per
job and returns its final held-out accuracy, which a sweeper such as Optuna's can maximise.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import hydra
from omegaconf import OmegaConf

from cppo_lab.config.compose import store_neutral_method, validate
from cppo_lab.config.overrides import plugins_named, refuse_passwords
from cppo_lab.errors import UserError
from cppo_lab.paths import PARENT_VARIABLE, conf_dir
from cppo_lab.plugins import load_plugins

if TYPE_CHECKING:
    from omegaconf import DictConfig


def one_run(tree: DictConfig) -> float | None:
    """Validate and train one run, and return its final accuracy. A finished run is not trained again."""
    from cppo_lab.quiet import quiet_libraries
    from cppo_lab.tracking.mlflow_sync import NoMirror, RunMirror
    from cppo_lab.tracking.run_folder import run_folder
    from cppo_lab.training.preflight import writable
    from cppo_lab.training.run import run

    content = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    config = validate({str(key): value for key, value in content.items()})
    writable(config.paths.output)
    quiet_libraries()
    folder = run_folder(config)
    parent = os.environ.get(PARENT_VARIABLE)
    mirror = RunMirror(config, folder, parent) if config.tracking.enabled else NoMirror()
    try:
        run(config, lambda _step, _metrics: mirror.poll(), None, mirror.poll)
    finally:
        mirror.close()
    accuracies = [
        row["eval/heldout/accuracy"] for row in folder.rows("metrics.jsonl") if "eval/heldout/accuracy" in row
    ]
    return accuracies[-1] if accuracies else None


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def main(tree: DictConfig) -> float | None:
    """Hydra's entry point: one run, with errors in one sentence."""
    try:
        return one_run(tree)
    except UserError as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    try:
        refuse_passwords(sys.argv[1:])
    except UserError as error:
        raise SystemExit(f"Error: {error}") from error
    # A plug-in's rules bring parameters of their own.
    load_plugins(plugins_named(sys.argv[1:]))
    store_neutral_method()
    main()
