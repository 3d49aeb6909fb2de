"""The parts around TRL's trainer: what the sampler drew from, and groups that lack rewards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.trl,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed: make test-trl")
pytest.importorskip("yaml", reason="PyYAML is not installed")

from transformers import Qwen3ForCausalLM  # noqa: E402
from trl_runs import DIGITS, ROOT, Settings, build, model_folder, tokenizer  # noqa: E402

from cppo_lab.integrations.trl.group_rewards import live_groups, response_advantages  # noqa: E402
from cppo_lab.integrations.trl.sampler import Recorder, VLLMTopK, recorded  # noqa: E402
from cppo_lab.objectives import compute_advantages, method  # noqa: E402
from cppo_lab.objectives.advantages import AdvantageSpec  # noqa: E402

NAN = float("nan")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_is_what_was_sampled_from(temperature: float, tmp_path: Path) -> None:
    network = Qwen3ForCausalLM.from_pretrained(model_folder(tmp_path), dtype=torch.float32).eval()
    prompts = torch.tensor([[3, 4, 2], [5, 6, 2]])
    options = {
        "do_sample": True,
        "temperature": temperature,
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "top_k": 0,
    }
    torch.manual_seed(0)
    plain = network.generate(prompts, **options)
    torch.manual_seed(0)
    with recorded(network, lambda: Recorder(temperature, k=5, entropy=True)) as recording:
        assert torch.equal(network.generate(prompts, **options), plain)
    assert "generate" not in vars(network)
    sampled = recording.sampled
    assert sampled is not None
    with torch.no_grad():
        logits = network(plain).logits[:, 2:-1].float()
    # The end of sequence cannot come before the least length.
    logits[..., 1] = float("-inf")
    logp = (logits / temperature).log_softmax(-1)
    torch.testing.assert_close(sampled.logp, logp.gather(-1, plain[:, 3:, None])[..., 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(sampled.entropy, torch.special.entr(logp.exp()).sum(-1), atol=1e-5, rtol=0)
    assert sampled.topk_ids is not None
    torch.testing.assert_close(sampled.topk_logp, logp.gather(-1, sampled.topk_ids), atol=1e-5, rtol=0)


class RecordedVLLM:
    """What TRL's vLLM generation returns for `logprobs=2`: sorted by probability, the sampled token among them."""

    logprobs = 0
    mode = "colocate"

    def generate(self, prompts: Any, **options: Any) -> tuple[Any, ...]:
        assert self.logprobs == 2
        logp = [[[-0.1, -2.5], [-0.5, -1.0, -4.0]], [[-0.2, -1.9]]]
        ids = [[[7, 3], [5, 4, 9]], [[1, 8]]]
        return prompts, [[3, 9], [1]], logp, ids


def test_vllm_gives_the_sampled_token_and_the_likeliest_ones() -> None:
    generation = VLLMTopK(RecordedVLLM(), 2)
    assert generation.mode == "colocate"
    _, completions, logp, ids = generation.generate(prompts=[[1], [2]])
    assert completions == [[3, 9], [1]]
    assert logp == [[[-2.5], [-4.0]], [[-0.2]]]
    assert ids == [[[3], [9]], [[1]]]
    topk_ids, topk_logp = generation.topk(3, 0, torch.device("cpu"))
    assert topk_ids.tolist() == [[[7, 3], [5, 4], [0, 0]], [[1, 8], [0, 0], [0, 0]]]
    torch.testing.assert_close(topk_logp[0, :2], torch.tensor([[-0.1, -2.5], [-0.5, -1.0]]))
    assert topk_logp[1, 1:].isneginf().all()


@pytest.mark.parametrize("kind", ["group_normalised", "group_centred", "leave_one_out"])
def test_a_response_without_reward_leaves_its_group(kind: str) -> None:
    spec = AdvantageSpec(kind=kind)
    rewards = torch.tensor([[1.0, 0.0, NAN, 1.0], [NAN, NAN, NAN, NAN], [1.0, 0.0, 0.0, 0.0]])
    found = response_advantages(rewards, spec).view(3, 4)
    alone = compute_advantages(torch.tensor([[1.0, 0.0, 1.0]]), spec)
    assert torch.equal(found[0], torch.tensor([alone[0], alone[1], 0.0, alone[2]]))
    assert not found[1].any()
    assert torch.equal(found[2], compute_advantages(rewards[2:], spec))
    assert live_groups(rewards).tolist() == [True, False, True]


def test_missing_rewards_are_refused_under_advantages_of_the_batch() -> None:
    with pytest.raises(ValueError, match=r"which advantage\.kind batch_normalised cannot leave out"):
        response_advantages(torch.tensor([[1.0, NAN]]), AdvantageSpec(kind="batch_normalised"))


def test_skipped_groups_count_in_no_denominator(tmp_path: Path) -> None:
    """Rewards are equal for the prompts that begin with 0 to 4."""
    trainer = build(Settings(str(tmp_path), "cppo", steps=2))

    def rewards(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [0.0 if prompt[0] in "01234" else float(i % 2) for i, prompt in enumerate(prompts)]

    trainer.reward_funcs = [rewards]
    inputs = [{"prompt": f"{digit}0="} for digit in "05" for _ in range(4)]
    trainer.model.train()
    output = trainer._generate_and_score_completions(inputs)
    assert output["response_mask"].any(-1).tolist() == [False] * 4 + [True] * 4
    assert output["prompt_index"].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("algo", ["cppo", "file"])
def test_the_example_trains_on_a_users_data(algo: str, tmp_path: Path) -> None:
    model = model_folder(tmp_path)
    tokenizer().save_pretrained(model)
    data = tmp_path / "train.jsonl"
    rows = [{"question": f"{a}{b}=", "answer": a} for a in DIGITS for b in DIGITS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if algo == "file":
        algo = str(tmp_path / "mine.yaml")
        Path(algo).write_text(
            "defaults: [dppo_tv, _self_]\nname: mine\ntrust_region: {delta: 0.3}\n", encoding="utf-8"
        )
    command = [
        sys.executable,
        str(ROOT / "examples" / "trl_trainer.py"),
        "--model",
        model,
        "--data",
        str(data),
    ]
    command += [
        "--algo",
        algo,
        "--output",
        str(tmp_path / "out"),
        "--steps",
        "4",
        "--length",
        "8",
        "--plain",
        "--cpu",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mask/share" in done.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_method_file_builds_on_a_method(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [cppo, _self_]\nname: mine\ntrust_region: {delta: 0.3}\n", encoding="utf-8")
    mine = method(str(path))
    assert (mine.name, mine.trust_region.delta) == ("mine", 0.3)
    assert mine.trust_region.budget == method("cppo").trust_region.budget
    with pytest.raises(ValueError, match=r"no such method file"):
        method(str(tmp_path / "other.yaml"))
