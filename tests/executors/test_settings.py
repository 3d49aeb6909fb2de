"""`executor=NAME executor.KEY=VALUE`: files by name, values of the command line over them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cppo_lab.errors import UserError
from cppo_lab.executors.settings import Local, Ray, Submitit, executor_settings, split_executor
from cppo_lab.executors.slurm import parameters
from cppo_lab.paths import conf_dir

Invoke = Callable[..., tuple[int, str, str]]


def test_overrides_of_the_executor_are_told_from_those_of_the_runs() -> None:
    given = ["algo=cppo", "executor=ray", "executor.gpus=0.25", "trainer.lr=1e-4"]
    assert split_executor(given) == (["executor=ray", "executor.gpus=0.25"], ["algo=cppo", "trainer.lr=1e-4"])


def test_files_hold_the_defaults_that_the_schema_has() -> None:
    assert executor_settings([]) == Local()
    assert executor_settings(["executor=submitit"]) == Submitit()
    assert executor_settings(["executor=ray"]) == Ray()


def test_a_file_of_the_users_own_and_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "executor").mkdir()
    file = tmp_path / "executor" / "cluster.yaml"
    file.write_text("kind: submitit\npartition: gpu\ngpus: 1\nsetup: [module load cuda]\n", encoding="utf-8")
    found = executor_settings(
        [
            "executor=cluster",
            "executor.gpus=2",
            "executor.sbatch={mail-type: FAIL}",
            "executor.memory_gb=1.5",
        ],
        tmp_path,
    )
    assert isinstance(found, Submitit)
    assert (found.partition, found.gpus, found.setup, found.memory_gb) == (
        "gpu",
        2,
        ("module load cuda",),
        1.5,
    )
    of_slurm = parameters(found, "study")
    assert of_slurm["gpus_per_node"] == 2
    assert of_slurm["mem"] == "1536MB"
    assert of_slurm["additional_parameters"] == {"mail-type": "FAIL"}
    assert "account" not in of_slurm


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("executor=slrum", "executor=slrum: unknown; allowed are local, ray, submitit."),
        (
            "executor=submitit executor.partion=x",
            "executor.partion: unknown key of executor=submitit; allowed are",
        ),
        ("executor=submitit executor.partion=x", "Did you mean 'partition'?"),
        ("executor.cluster=local", "executor.cluster: unknown key of executor=local; allowed are none."),
        (
            "executor=submitit executor.cluster=local executor.partition=gpu",
            "executor.partition=gpu: has no effect",
        ),
        ("executor=ray executor.cpus=zero", "executor.cpus=zero: must be a whole number."),
        ("executor=submitit executor.gpus=0.5", "executor.gpus=0.5: must be a whole number."),
        ("executor=submitit executor.timeout_min=0", "executor.timeout_min=0: must be"),
        ("executor=submitit executor.retries", "executor.retries: must be executor.retries=VALUE."),
        ("executor=submitit executor.sbatch={", "executor.sbatch={: is no value"),
    ],
)
def test_what_is_wrong_is_one_sentence(given: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        executor_settings(given.split())
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [["train"], ["plan", "quickstart"], ["config"]])
def test_commands_that_start_no_runs_elsewhere_say_so(command: list[str], invoke: Invoke) -> None:
    code, _, said = invoke(*command, "executor=ray")
    assert code == 2
    assert "executor=ray: only sweep, tune and reproduce start runs elsewhere; leave it out." in said


def test_every_executor_has_a_file() -> None:
    assert {path.stem for path in (conf_dir() / "executor").glob("*.yaml")} == {"local", "submitit", "ray"}
