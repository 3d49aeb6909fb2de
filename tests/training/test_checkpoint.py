"""What a checkpoint holds, and what is refused as one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from test_training_runs import interrupted_after
from tiny_runs import loop_for, tiny_config

from cppo_lab.errors import UserError
from cppo_lab.manifests import MANIFEST_FILE
from cppo_lab.training.experience import Experience
from cppo_lab.training.run import run
from cppo_lab.training.state_file import PICKLED_FILE, PLAIN_FILE, TENSORS_FILE, read_state, write_state


@dataclasses.dataclass
class Hostile:
    """Makes a file when it is unpickled."""

    path: str

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_a_waiting_rollout_comes_back_from_tensors_and_plain_data(output: Path, tmp_path: Path) -> None:
    loop = loop_for(tiny_config(output, "algo=cppo_shuffled", "trainer.staleness=1"))
    experience = loop.rollouts.collect(0, version=0)
    write_state(tmp_path, {"pending": [experience.state_dict()]})
    loaded = Experience.from_state_dict(read_state(tmp_path)["pending"][0])
    assert loaded.rollout.responses.equal(experience.rollout.responses)
    assert list(loaded.problems) == list(experience.problems)
    assert list(loaded.verdicts) == list(experience.verdicts)
    tensors = [f.name for f in dataclasses.fields(experience) if torch.is_tensor(getattr(experience, f.name))]
    assert {"advantages", "old_logp", "weight_order"} <= {*tensors}
    assert all(getattr(loaded, name).equal(getattr(experience, name)) for name in tensors)


def test_code_in_a_checkpoint_is_refused_and_never_run(output: Path, tmp_path: Path) -> None:
    config = tiny_config(output, "trainer.staleness=1")
    folder = interrupted_after(config, 1)
    (_, checkpoint), *_ = folder.checkpoints()
    made = tmp_path / "made by the checkpoint"
    for path in (PLAIN_FILE, TENSORS_FILE, MANIFEST_FILE):
        (checkpoint / path).unlink()
    torch.save({"pending": [Hostile(str(made))]}, checkpoint / PICKLED_FILE)
    with pytest.raises(UserError, match=r"trainer\.pt: an earlier version .* with pickle"):
        run(config)
    assert not made.exists()
    assert folder.status == "FAILED"
