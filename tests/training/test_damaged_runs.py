"""Damaged files: refused by name, or trained again to the same bits; never another result."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from test_training_runs import interrupted_after
from tiny_runs import TINY, lab, tiny_config

from cppo_lab.analysis.load.run_record import read_run
from cppo_lab.errors import UserError
from cppo_lab.manifests import Damaged
from cppo_lab.tracking.integrity import damage
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.training.policy_cache import cache_folder
from cppo_lab.training.run import run

Invoke = Callable[..., tuple[int, str, str]]
SETTINGS = ("trainer.steps=4", "trainer.checkpoint_every=2", "trainer.evaluate_every=2")
RESULTS = ("metrics.jsonl", "profiles.jsonl", "agreement.jsonl", "masked_tokens.json")


def results(folder: RunFolder) -> dict[str, bytes]:
    found = {name: (folder.path / name).read_bytes() for name in RESULTS}
    return found | {path.name: path.read_bytes() for _, path in folder.sample_files()}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, warmed_up: Path) -> tuple[Path, Path]:
    """Output folders with the run finished, and stopped after its first checkpoint and a step more."""
    found = []
    for name in ("finished", "stopped"):
        output = tmp_path_factory.mktemp(name)
        shutil.copytree(warmed_up / "policies", output / "policies")
        config = tiny_config(output, *SETTINGS)
        if name == "finished":
            run(config)
        else:
            interrupted_after(config, 3)
        found.append(output)
    return found[0], found[1]


@pytest.fixture
def expected(outputs: tuple[Path, Path]) -> dict[str, bytes]:
    return results(run_folder(tiny_config(outputs[0], *SETTINGS)))


def copied(output: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(output, tmp_path / "out")
    return run_folder(tiny_config(tmp_path / "out", *SETTINGS))


def flip(path: Path, seed: int = 0) -> None:
    """Change one bit of a file."""
    content, at = bytearray(path.read_bytes()), random.Random(seed)
    place = at.randrange(len(content))
    content[place] ^= 1 << at.randrange(7)
    path.write_bytes(content)


def files_of(folder: RunFolder, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.path.glob(pattern)) if path.is_file()]


@pytest.mark.parametrize(
    ("damaged", "again"),
    [
        (["step_000002"], "checkpoint step_000000, not from step 2"),
        (["step_000000", "step_000002"], "the start, not from step 0"),
    ],
)
def test_damaged_checkpoint_is_dropped_and_the_run_ends_with_the_same_bits(
    damaged: list[str],
    again: str,
    outputs: tuple[Path, Path],
    expected: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copied(outputs[1], tmp_path)
    for name in damaged:
        flip(folder.path / "checkpoints" / name / "model.safetensors")
    run(tiny_config(tmp_path / "out", *SETTINGS))
    assert folder.status == "FINISHED"
    assert results(folder) == expected
    said = f"Checkpoint {damaged[0]} was damaged (model.safetensors: its hash differs): the run went on from {again}."
    assert said in capsys.readouterr().err
    assert said in " ".join(folder.info["warnings"])


def test_run_keeps_two_checkpoints_until_it_ends(outputs: tuple[Path, Path]) -> None:
    config = [tiny_config(output, *SETTINGS) for output in outputs]
    assert [step for step, _ in run_folder(config[0]).checkpoints()] == [4]
    assert [step for step, _ in run_folder(config[1]).checkpoints()] == [0, 2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pattern", ["metrics.jsonl", "profiles.jsonl", "samples/step_000001.jsonl"])
def test_rows_before_the_checkpoint_that_changed_stop_the_run_by_name(
    pattern: str, seed: int, outputs: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = copied(outputs[1], tmp_path)
    path = folder.path / pattern
    lines = path.read_bytes().splitlines(keepends=True)
    if seed == 0 and len(lines) > 1:
        path.write_bytes(b"".join(lines[1:]))
    elif seed == 1:
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[random.Random(seed).randrange(len(lines[0]))] ^= 1
        path.write_bytes(content)
    with pytest.raises(Damaged, match=pattern):
        run(tiny_config(tmp_path / "out", *SETTINGS))
    assert folder.status == "FAILED"
    assert "--repair" in folder.info["reason"]


def test_repair_trains_a_damaged_run_again_to_the_same_bits(
    outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path, invoke: Invoke
) -> None:
    for which, again in zip(outputs, ("its start", "checkpoint step_000000"), strict=True):
        folder = copied(which, tmp_path)
        (folder.path / "samples" / "step_000001.jsonl").write_text("{}\n")
        told = ["train", *TINY, *SETTINGS, "-o", str(tmp_path / "out")]
        code, out, err = invoke(*told)
        assert code != 0
        assert "step_000001.jsonl" in out + err
        assert "--repair" in out + err
        code, out, err = invoke(*told, "--repair")
        assert code == 0, out + err
        assert f"Repairing {folder.path.name}" in out
        assert f"it is trained again from {again}." in out
        assert results(folder) == expected
        assert damage(folder) is None
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("point", ["file-written:1", "file-written:2", "folder-hidden:1"])
def test_repair_that_is_killed_loses_nothing(
    point: str, outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path, invoke: Invoke
) -> None:
    folder = copied(outputs[0], tmp_path)
    metrics = folder.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"step": 2', '"step": 3'))
    told = ["train", *TINY, *SETTINGS, "-o", str(tmp_path / "out"), "--repair"]
    killed = lab(*told, cwd=tmp_path, CPPO_LAB_FAILPOINT=point)
    assert killed.returncode == -signal.SIGKILL
    assert damage(folder) is not None or folder.status != "FINISHED"
    code, out, err = invoke(*told)
    assert code == 0, out + err
    assert results(folder) == expected
    assert damage(folder) is None


@pytest.mark.parametrize("row", ['{"step": 2}\n', '{"step": 3, "lo\n', "{}\n"])
def test_damaged_row_after_the_checkpoint_does_not_matter(
    row: str, outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = copied(outputs[1], tmp_path)
    for name in ("metrics.jsonl", "timings.jsonl"):
        with (folder.path / name).open("a", encoding="utf-8") as file:
            file.write(row)
    run(tiny_config(tmp_path / "out", *SETTINGS))
    assert results(folder) == expected


def test_damaged_row_before_the_first_checkpoint_does_not_matter(
    outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = copied(outputs[1], tmp_path)
    shutil.rmtree(folder.path / "checkpoints")
    (folder.path / "metrics.jsonl").write_text("{\n")
    run(tiny_config(tmp_path / "out", *SETTINGS))
    assert results(folder) == expected


def test_checkpoint_without_its_manifest_is_damaged(
    outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = copied(outputs[1], tmp_path)
    flip(folder.path / "checkpoints" / "step_000002" / "model.safetensors")
    (folder.path / "checkpoints" / "step_000002" / "manifest.json").unlink()
    run(tiny_config(tmp_path / "out", *SETTINGS))
    assert results(folder) == expected
    assert "step_000002 was damaged (manifest.json: it is missing)" in " ".join(folder.info["warnings"])


def test_report_marks_a_finished_run_whose_record_changed(outputs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = copied(outputs[0], tmp_path)
    assert read_run(folder.path).notes == ()
    path = folder.path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))
    (note,) = read_run(folder.path).notes
    assert "metrics.jsonl is not as the run wrote it" in note


def test_run_that_died_between_its_last_checkpoint_and_its_end_is_finished_alike(
    outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = copied(outputs[0], tmp_path)
    folder.update_info(status="RUNNING")
    for name in ("masked_tokens.json", "manifest.json"):
        (folder.path / name).unlink()
    run(tiny_config(tmp_path / "out", *SETTINGS))
    assert results(folder) == expected
    assert damage(folder) is None
    assert (folder.path / "manifest.json").exists()


def test_stray_files_are_nobodys(
    outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = copied(outputs[1], tmp_path)
    checkpoints, samples = folder.path / "checkpoints", folder.path / "samples"
    shutil.copytree(checkpoints / "step_000002", checkpoints / "step_3.bak")
    shutil.copytree(checkpoints / "step_000002", checkpoints / "step_000002 (copy)")
    for stray in (checkpoints / ".DS_Store", checkpoints / ".nfs00001", samples / ".DS_Store"):
        stray.write_bytes(b"stray")
    (samples / "step_000001 (copy).jsonl").write_text("{")
    (folder.path / "metrics.jsonl.bak").write_text("{")
    run(tiny_config(tmp_path / "out", *SETTINGS))
    assert folder.status == "FINISHED"
    for name, content in expected.items():
        path = samples / name if name.startswith("step_") else folder.path / name
        assert path.read_bytes() == content


@pytest.mark.parametrize("pattern", ["*.safetensors", "recipe.json", "config.json", "tokenizer*.json"])
def test_damaged_starting_policy_is_refused_by_name(pattern: str, output: Path) -> None:
    (path, *_) = sorted(output.glob(f"policies/*/{pattern}"))
    flip(path, seed=3)
    with pytest.raises(Damaged, match=rf"{path.name}: is damaged .* remove the folder"):
        run(tiny_config(output, *SETTINGS))


def test_copy_of_another_starting_policy_is_refused(output: Path) -> None:
    (folder,) = [path for path in (output / "policies").iterdir() if path.is_dir()]
    other = tiny_config(output, "trainer.steps=1", "warmup.seed=77")
    shutil.copytree(folder, cache_folder(other))
    with pytest.raises(Damaged, match=f"holds the starting policy {folder.name}, a copy of another one"):
        run(other)


def test_broken_run_json_is_refused_by_name_and_repaired(
    outputs: tuple[Path, Path], expected: dict[str, bytes], tmp_path: Path, invoke: Invoke
) -> None:
    for broken in ("{", '{"status": "FINISHED", "sha256": "0"}'):
        folder = copied(outputs[0], tmp_path)
        (folder.path / "run.json").write_text(broken)
        with pytest.raises(UserError, match=r"run\.json"):
            run(tiny_config(tmp_path / "out", *SETTINGS))
        code, out, err = invoke("train", *TINY, *SETTINGS, "-o", str(tmp_path / "out"), "--repair")
        assert code == 0, out + err
        assert results(folder) == expected
        shutil.rmtree(tmp_path / "out")
