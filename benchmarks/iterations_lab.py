"""A worker of `vs_trl.py`: the lab's training loop, an iteration at a time, without evaluations and checkpoints."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from turns import Turns

from cppo_lab.config.compose import compose_run
from cppo_lab.models.loading import ModelSource
from cppo_lab.quiet import quiet_libraries
from cppo_lab.rollouts.run_engines import open_engines
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.training.run import training_loop
from cppo_lab.training.starting_policy import load_starting_policy, starting_policy


def main() -> None:
    """Train as the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    quiet_libraries()
    turns = Turns()
    torch.set_num_threads(job["threads"])
    config = compose_run(job["overrides"])
    task = config.task.build()
    start = starting_policy(config, task)
    policy = load_starting_policy(config, start, None)
    source = ModelSource(start.path, start.revision, "cpu")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_engines(config.engine, policy, source) as (engine, eval_engine),
    ):
        loop = training_loop(config, task, policy, engine, eval_engine, RunFolder(Path(folder)))
        for step in range(job["iterations"]):
            turns.wait()
            experience = loop.rollouts.collect(step, loop.learner.updates)
            loop.learner.learn(experience, step, masked_tokens=loop.masked_tokens)
            turns.tell(experience.sampled_tokens)


if __name__ == "__main__":
    main()
