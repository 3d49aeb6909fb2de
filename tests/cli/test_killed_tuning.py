"""A tuning study whose process is killed: the same command comes to the same tuned points."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tiny_runs import TINY, UNTRAINED, lab, start_lab, wait_for

from cppo_lab.sweeps.tuned_points import TunedPoint, read_tuned_file

pytestmark = pytest.mark.slow

STUDY = """
title: Rates and thresholds, chosen one after the other
question: Which?
tune:
  trials: 3
  sampler: tpe
  space: {{trainer.lr: {{low: 1.0e-4, high: 4.0e-3, log: true}}, threshold: [0.5, 1, 4]}}
overrides: [{overrides}]
axes: {{algo: [pg, dppo_topk_tv], seed: [1, 2]}}
"""


def study_in(folder: Path) -> str:
    folder.mkdir()
    overrides = ", ".join(
        f'"{each}"' for each in (*TINY, *UNTRAINED, "trainer.steps=2", "trainer.evaluate_every=1")
    )
    (folder / "study.yaml").write_text(STUDY.format(overrides=overrides), encoding="utf-8")
    return str(folder / "study.yaml")


def finished(folder: Path) -> int:
    infos = (path.read_text(encoding="utf-8") for path in (folder / "out" / "runs").glob("*/run.json"))
    return sum('"FINISHED"' in info for info in infos)


def points_in(folder: Path) -> tuple[TunedPoint, ...]:
    return read_tuned_file(folder / "tuned" / "study.yaml").points


def test_a_killed_study_resumes_to_the_same_points(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["tune", study_in(whole), "--output", str(whole / "out"), "-j", "1"]
    done = lab(*command, cwd=whole, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [point.trials for point in points_in(whole)] == [3, 3]

    command = ["tune", study_in(killed), "--output", str(killed / "out"), "-j", "1"]
    process = start_lab(*command, cwd=killed)
    # In the second round: four runs of the first are done, and the sampler has chosen again.
    wait_for(lambda: finished(killed) >= 5, process, timeout=600)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "tuned").exists()
    done = lab(*command, cwd=killed, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert points_in(killed) == points_in(whole)

    # A finished study has nothing to do, and its rows alone give the same points.
    assert finished(killed) == 12
    collected = lab("results", command[1], "--output", str(killed / "out"), "--to", "rows", cwd=killed)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    again = lab("tune", command[1], "--from", "results", "--results", "rows", "--to", "again", cwd=killed)
    assert again.returncode == 0, again.stdout + again.stderr
    assert read_tuned_file(killed / "again" / "study.yaml").points == points_in(whole)
