"""What the page's picker is given: the numbers of the run folders, within a budget, and a word on the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kept_responses import HOSTILE
from run_folders import write_run, write_sweep

from cppo_lab.analysis.load.run_record import read_json_lines
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page import sample_data as module
from cppo_lab.analysis.page.responses import MOST_TOKENS, kept_files
from cppo_lab.analysis.page.sample_data import sample_data


def study_of(output: Path, **options: Any) -> Study:
    write_sweep(output, **options)
    return load_study(output, "quickstart")


def content_of(study: Study, **options: Any) -> tuple[dict[str, Any], str]:
    data = sample_data(study, **options)
    assert data is not None
    return json.loads(data.block), data.note


def test_the_numbers_are_those_of_the_run_folder(tmp_path: Path) -> None:
    study = study_of(tmp_path, algos=("cppo",), seeds=(0,))
    content, _ = content_of(study)
    (run,) = content["runs"]
    files = kept_files(study.runs.at[run["id"], "folder"])
    compared = 0
    for step in run["steps"]:
        rows, _ = read_json_lines(files[step["step"]])
        for problem in step["problems"]:
            mine = [row for row in rows if row["prompt"].rstrip("\n") == problem["prompt"]]
            for response in problem["responses"]:
                tokens, written = response.get("tokens"), mine[response["number"] - 1]["tokens"]
                assert (tokens is None) == (written is None)
                if tokens is None:
                    continue
                count = len(tokens["text"])
                assert tokens["length"] == len(written["text"])
                for name in ("divergence", "weight", "threshold", "ratio", "advantage"):
                    column = tokens[name] if isinstance(tokens[name], list) else [tokens[name]] * count
                    assert column == pytest.approx(written[name][:count], rel=1e-3)
                    compared += count
                signs = {"": ".", "threshold": "t", "budget": "b"}
                assert tokens["masked"] == "".join(signs[reason] for reason in written["masked"][:count])
    assert compared > 5 * MOST_TOKENS


def test_a_method_says_only_what_it_has(tmp_path: Path) -> None:
    content, _ = content_of(study_of(tmp_path, algos=("pg", "grpo", "dppo_tv"), seeds=(0,)))
    columns = {}
    for run in content["runs"]:
        tokens = run["steps"][0]["problems"][0]["responses"][0]["tokens"]
        columns[run["method"]] = set(tokens) - {"text", "masked", "length"}
    assert columns["pg"] == columns["grpo"] == {"ratio", "advantage"}
    assert columns["dppo_tv"] == {"ratio", "advantage", "divergence", "threshold", "delta"}


def test_every_run_shows_its_first_and_last_recorded_steps_and_some_between(tmp_path: Path) -> None:
    content, said = content_of(study_of(tmp_path, algos=("pg", "cppo"), seeds=(0, 1)))
    assert [[step["step"] for step in run["steps"]] for run in content["runs"]] == [[2, 4, 6, 10, 12]] * 4
    assert {run["kept"] for run in content["runs"]} == {12}
    assert "20 of the 48 steps at which 4 runs saved responses." in said


def test_the_page_begins_where_tokens_were_masked_for_both_reasons(tmp_path: Path) -> None:
    content, _ = content_of(study_of(tmp_path, algos=("pg", "grpo", "cppo"), seeds=(0,)))
    run_id, step, problem = content["first"]
    run = next(run for run in content["runs"] if run["id"] == run_id)
    (kept,) = [one for one in run["steps"] if one["step"] == step]
    (chosen,) = [one for one in kept["problems"] if one["problem"] == problem]
    masked = "".join(response["tokens"]["masked"] for response in chosen["responses"])
    assert run["method"] == "cppo"
    assert {"t", "b"} < set(masked)


def test_nothing_in_the_block_can_end_or_open_an_element(tmp_path: Path) -> None:
    data = sample_data(study_of(tmp_path, algos=("cppo",), seeds=(0,)))
    assert data is not None
    assert not set(data.block) & set("<>&'\u2028\u2029")
    assert data.block.isascii()
    assert HOSTILE in json.dumps(json.loads(data.block))


def test_a_budget_is_kept_and_thins_every_method_alike(tmp_path: Path) -> None:
    study = study_of(tmp_path, algos=("pg", "grpo", "cppo"), seeds=tuple(range(6)))
    whole, _ = content_of(study)
    about = len(json.dumps([run | {"steps": []} for run in whole["runs"]]))
    for budget in (400_000, 150_000, 60_000, 10_000):
        content, said = content_of(study, budget=budget)
        assert len(json.dumps(content, separators=(",", ":"))) <= budget + about
        steps = dict.fromkeys(("pg", "grpo", "cppo"), 0)
        for run in content["runs"]:
            assert all(problem["responses"] for step in run["steps"] for problem in step["problems"])
            steps[run["method"]] += len(run["steps"])
        assert max(steps.values()) - min(steps.values()) <= 1
        assert f"{sum(steps.values())} of the 216 steps" in said
        absent = 18 - len(content["runs"])
        assert ("did not fit" in said) == (absent > 0)
    assert absent


def test_without_room_for_any_step_there_is_no_picker(tmp_path: Path) -> None:
    assert sample_data(study_of(tmp_path, algos=("pg",), seeds=(0,)), budget=100) is None


def test_a_step_shows_right_wrong_and_masked_responses_before_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RESPONSES", 2)
    content, _ = content_of(study_of(tmp_path, algos=("cppo",), seeds=(0,)))
    (run,) = content["runs"]
    for step in run["steps"]:
        assert [response["right"] for response in step["problems"][0]["responses"]] == [True, False]
        assert step["kept"] == 8


def test_a_run_without_records_is_shown_in_text(tmp_path: Path) -> None:
    (folder,) = write_sweep(tmp_path, algos=("grpo",), seeds=(0,))
    for path in kept_files(folder).values():
        rows, _ = read_json_lines(path)
        path.write_text("".join(json.dumps(row | {"tokens": None}) + "\n" for row in rows), encoding="utf-8")
    content, _ = content_of(load_study(tmp_path, "quickstart"))
    (run,) = content["runs"]
    (step,) = run["steps"]
    responses = [response for problem in step["problems"] for response in problem["responses"]]
    assert step["step"] == 12
    assert all("completion" in response and "tokens" not in response for response in responses)


def test_runs_with_alike_beginnings_of_their_names_stay_apart(tmp_path: Path) -> None:
    folders = []
    for seed in (0, 1):
        folders.append(tmp_path / f"dppo_topk_tv-{seed}")
        write_run(folders[-1], run_id=f"dppo_topk_tv-{seed}", algo="dppo_tv", seed=seed, steps=4)
    content, _ = content_of(load_study(tmp_path, run_folders=folders))
    assert [run["id"] for run in content["runs"]] == ["dppo_topk_tv-0", "dppo_topk_tv-1"]
