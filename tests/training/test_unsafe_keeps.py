"""Unsafe keeps: counted on the states that a run really had, which measuring them leaves as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import golden_vectors as golden
import pytest
import torch
from tiny_runs import tiny_config

from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.mask_tables import unsafe_keeps_table
from cppo_lab.diagnostics.unsafe_keeps import counts_of, predicted_rise, true_divergence
from cppo_lab.errors import UserError
from cppo_lab.objectives.batch import FullDistributions, TokenBatch
from cppo_lab.tracking.run_folder import UNSAFE_KEEPS
from cppo_lab.training import unsafe_keeps
from cppo_lab.training.run import run
from cppo_lab.training.unsafe_keeps import measure_unsafe_keeps

Invoke = Callable[..., tuple[int, str, str]]


def test_the_replay_is_the_run_to_the_bit_and_every_rule_sees_the_same_tokens(output: Path) -> None:
    config = tiny_config(output, "algo=cppo", "trainer.epochs=2", "trainer.lr=2e-3")
    folder = run(config)
    rules = ("pg", "dppo_topk_tv", "dppo_topk_tv_predicted", "switched_batch", "cppo_shuffled")
    found = measure_unsafe_keeps(config, folder, rules, divergence="tv", delta=0.15, rollouts=2, every=2)
    for learnt, row in zip(found.learnt, folder.rows("metrics.jsonl")[1:], strict=False):
        assert {name: value for name, value in learnt.items() if value == value} == {
            name: row[name] for name in learnt if row[name] is not None
        }
    assert list(found.counts) == ["cppo", *rules[:-1]]
    assert "cppo_shuffled" in found.left_out
    assert len({(counts.tokens, counts.over) for counts in found.counts.values()}) == 1
    pg, predicted = found.counts["pg"], found.counts["dppo_topk_tv_predicted"]
    assert found.states > 0
    assert pg.over > 0
    assert pg.masked == 0
    assert pg.shares["needless_drop"] == 0
    assert predicted.kept_over_predicted <= found.counts["dppo_topk_tv"].kept_over_predicted
    assert predicted.kept_over_predicted < pg.kept_over_predicted


def test_counts_are_those_of_a_hand_made_minibatch() -> None:
    masked = torch.tensor([True, True, False, False, False])
    before = torch.tensor([0.3, 0.3, 0.3, 0.3, 0.1])
    after = torch.tensor([0.4, 0.2, 0.4, 0.2, 0.2])
    predicted = torch.tensor([True, False, False, True, True])
    counts = counts_of(masked, before, after, predicted, delta=0.2)
    assert counts.shares == {
        "masked": 2 / 5,
        "over": 4 / 5,
        "unsafe_keep_predicted": 1 / 4,
        "unsafe_keep": 1 / 4,
        "needless_drop_predicted": 1 / 4,
        "needless_drop": 1 / 4,
        "unsafe_of_kept_predicted": 2 / 3,
        "unsafe_of_kept": 2 / 3,
    }
    assert (counts + counts).shares == counts.shares


@pytest.mark.parametrize("kind", ["tv", "kl"])
def test_the_predicted_rise_is_what_a_small_step_on_the_token_does(kind: unsafe_keeps.TrueDivergence) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 1, 40, 6, generator=generator, dtype=torch.float64)
    mu, pi = logits.log_softmax(-1)
    tokens = torch.randint(0, 6, (1, 40, 1), generator=generator)
    advantages = torch.randn(1, 40, generator=generator, dtype=torch.float64)

    def batch(policy: torch.Tensor) -> TokenBatch:
        return TokenBatch(
            logp=policy.gather(-1, tokens).squeeze(-1),
            rollout_logp=mu.gather(-1, tokens).squeeze(-1),
            advantages=advantages,
            response_mask=torch.ones(1, 40, dtype=torch.bool),
            full=FullDistributions(mu, policy),
        )

    one_hot = torch.zeros_like(pi).scatter_(-1, tokens, 1.0)
    step = 1e-6 * advantages.unsqueeze(-1) * (one_hot - pi.exp())
    risen = true_divergence(batch((pi + step).log_softmax(-1)), kind) > true_divergence(batch(pi), kind)
    assert torch.equal(predicted_rise(batch(pi), kind), risen)


def test_the_command_writes_what_the_report_shows(output: Path, invoke: Invoke) -> None:
    folder = run(tiny_config(output, "algo=cppo", "trainer.epochs=2"))
    arguments = ("--rule", "pg", "--every", "2", "--delta", "0.1", "-o", str(output))
    code, out, err = invoke("unsafe-keeps", folder.path.name, *arguments)
    assert code == 0, err
    assert "unsafe keeps, measured" in out
    content = json.loads((folder.path / UNSAFE_KEEPS).read_text(encoding="utf-8"))
    assert (content["divergence"], content["delta"], set(content["rules"])) == ("tv", 0.1, {"cppo", "pg"})
    table = unsafe_keeps_table(load_study(output, run_folders=[folder.path]))
    assert table is not None
    frame = table.frame().set_index("rule")
    for rule, row in content["rules"].items():
        assert frame.at[rule, "unsafe, measured"] == pytest.approx(row["shares"]["unsafe_keep"])
        assert frame.at[rule, "needless, predicted"] == pytest.approx(
            row["shares"]["needless_drop_predicted"]
        )
        assert frame.at[rule, "of all kept, measured"] == pytest.approx(row["shares"]["unsafe_of_kept"])


def test_a_large_vocabulary_is_refused_and_a_rule_that_nobody_knows(
    output: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(output, "algo=cppo", "trainer.steps=1")
    folder = run(config)
    code, _, err = invoke("unsafe-keeps", folder.path.name, "--rule", "cpo", "-o", str(output))
    assert code == 2
    assert "--rule=cpo" in err
    monkeypatch.setattr(unsafe_keeps, "MOST_TOKENS", 8)
    with pytest.raises(UserError, match=r"has 4[0-9] tokens; whole distributions are held for at most 8"):
        measure_unsafe_keeps(config, folder, ("pg",), divergence="tv", delta=0.1)


def test_without_whole_distributions_there_is_no_true_divergence() -> None:
    with pytest.raises(ValueError, match="full"):
        true_divergence(golden.load("base", torch.float64), "tv")
