"""The losses against TRL's own, on the same log-probabilities and advantages: GRPOTrainer._compute_loss, with
its pass through a model replaced by the log-probabilities themselves."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import advantages_of

pytest.importorskip("trl", reason="TRL is not installed: pip install 'memory-rl[trl]'")

from memory_rl.learning.learners import Reinforce
from memory_rl.learning.penalty import Penalty
from memory_rl.learning.ratios import CISPO, GSPO, PPO, SAPO

pytestmark = pytest.mark.filterwarnings(  # by TRL of itself
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning"
)

EPISODES, LENGTH, LONGEST = 8, 5, 7  # LONGEST stands for max_completion_length
LENGTHS = torch.tensor([5, 1, 3, 5, 2, 4, 5, 3])
MASK = torch.arange(LENGTH) < LENGTHS[:, None]


def tokens(seed: int, spread: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities now (1, E, L), before, and one advantage an answer, 0 at the padding."""
    random = torch.Generator().manual_seed(seed)
    before = -torch.rand(1, EPISODES, LENGTH, generator=random, dtype=torch.float64) - 0.5
    now = (before + spread * torch.randn(before.shape, generator=random, dtype=torch.float64)).clamp(
        max=-0.01
    )
    advantages = torch.randn(1, EPISODES, 1, generator=random, dtype=torch.float64).expand(before.shape)
    return now * MASK, before * MASK, advantages * MASK


def of_trl(now, before, advantages, reference=None, **settings) -> torch.Tensor:
    """TRL's loss of one batch of answers, by a trainer that holds nothing but what `_compute_loss` reads."""
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(output_dir="out", use_cpu=True, bf16=False, report_to="none", **settings)
    same = SimpleNamespace(
        num_processes=1,
        gather=lambda one: one,
        reduce=lambda one, **_: one,
        gather_for_metrics=lambda one: one,
    )
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__.update(
        {name: getattr(args, name) for name in ("beta", "loss_type", "importance_sampling_level")}
        | {"args": args, "accelerator": same, "model": SimpleNamespace(training=False)}
        | {"epsilon_low": args.epsilon, "aux_loss_enabled": False, "use_vllm": False}
        | {"epsilon_high": args.epsilon if args.epsilon_high is None else args.epsilon_high}
        | {"max_completion_length": LONGEST, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None}
        | {"_entropy_bonus_enabled": False, "_metrics": {"eval": defaultdict(list)}}
        | {"current_gradient_accumulation_steps": 1}
    )
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (now[0], torch.zeros_like(now[0]), None)
    ids = torch.zeros(EPISODES, LENGTH, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids + 1,
        "completion_ids": ids,
        "completion_mask": MASK.long(),
    }
    inputs |= {"advantages": advantages[0, :, 0], "old_per_token_logps": before[0]}
    inputs |= {"num_items_in_batch": MASK.sum(), "ref_per_token_logps": reference}
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def compare(ours, theirs, now: torch.Tensor) -> None:
    """Two losses of the same log-probabilities, and their gradients at the tokens."""
    values, gradients = [], []
    for loss in (ours, theirs):
        leaf = now.clone().requires_grad_()
        value = loss(leaf)
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, leaf)[0] * MASK)
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert gradients[1].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)


# What our sum over the tokens of an answer and mean over answers is multiplied with, in TRL's normalisations.
DR_GRPO = 1 / LONGEST
OVER_TOKENS = EPISODES / MASK.sum().item()
TWO_CLIPS = {"epsilon": 0.2, "epsilon_high": 0.28}

LOSSES = {
    "dr_grpo": (PPO(), DR_GRPO, {"loss_type": "dr_grpo"}),
    "dapo": (PPO(clip_high=0.28), OVER_TOKENS, {"loss_type": "dapo", **TWO_CLIPS}),
    "bnpo": (PPO(clip_high=0.28), OVER_TOKENS, {"loss_type": "bnpo", **TWO_CLIPS}),
    "cispo": (CISPO(), OVER_TOKENS, {"loss_type": "cispo", "epsilon_high": 5.0}),
    "cispo, clipped": (CISPO(clip=1.1), OVER_TOKENS, {"loss_type": "cispo", "epsilon_high": 1.1}),
}


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.6])
@pytest.mark.parametrize(("learner", "factor", "settings"), LOSSES.values(), ids=LOSSES)
def test_a_loss_is_trls_up_to_its_normalisation(learner, factor, settings, spread):
    now, before, advantages = tokens(0, spread)
    compare(
        lambda leaf: factor * learner.loss(leaf, before, advantages),
        lambda leaf: of_trl(leaf, before, advantages, **settings),
        now,
    )


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.6])
@pytest.mark.parametrize(
    ("learner", "settings"),
    [(PPO(), {"loss_type": "grpo"}), (SAPO(), {"loss_type": "sapo"})],
    ids=["grpo", "sapo"],
)
def test_a_loss_is_trls_once_each_answer_is_divided_by_its_length(learner, settings, spread):
    """Both losses are linear in the advantages, whose sign alone decides what is clipped."""
    now, before, advantages = tokens(1, spread)
    compare(
        lambda leaf: learner.loss(leaf, before, advantages / LENGTHS[:, None]),
        lambda leaf: of_trl(leaf, before, advantages, **settings),
        now,
    )


@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.05, 0.6])
@pytest.mark.parametrize("clips", [(3e-4, 4e-4), (0.1, 0.2)], ids=str)
def test_gspo_is_trls_at_the_level_of_sequences(clips, spread):
    """Here too TRL's grpo loss divides by the length, so that both have one term an answer."""
    low, high = clips
    now, before, advantages = tokens(2, spread)
    settings = {"loss_type": "grpo", "importance_sampling_level": "sequence"}
    compare(
        lambda leaf: GSPO(clip=low, clip_high=high).loss(leaf, before, advantages),
        lambda leaf: of_trl(leaf, before, advantages, epsilon=low, epsilon_high=high, **settings),
        now,
    )


def test_the_pull_to_the_base_is_trls_beta():
    now, before, advantages = tokens(3, 0.3)
    reference = tokens(4, 0.3)[0]
    pull = Penalty(kl_to_base=0.07)
    compare(
        lambda leaf: (
            DR_GRPO * (PPO().loss(leaf, before, advantages) + pull.loss(leaf, None, reference, MASK[None]))
        ),
        lambda leaf: of_trl(
            leaf,
            before,
            advantages,
            reference[0],
            loss_type="dr_grpo",
            beta=0.07,
            use_bias_correction_kl=False,
        ),
        now,
    )


def test_with_the_log_probabilities_of_before_dr_grpo_is_reinforce():
    now, _, advantages = tokens(5, 0.3)
    leaves = [now.clone().requires_grad_() for _ in range(2)]
    (DR_GRPO * Reinforce().loss(leaves[0], now, advantages)).backward()
    of_trl(leaves[1], now, advantages, loss_type="dr_grpo").backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad * MASK, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_grpos_advantages_are_trls_but_for_their_standard_deviation(binary):
    """TRL divides by that over G - 1 plus 1e-4, as its source writes it; here it is that over G."""
    rewards = np.random.default_rng(0).random((6, 4))
    rewards = (rewards > 0.6).astype(float) if binary else rewards
    grouped = torch.from_numpy(rewards)
    theirs = (grouped - grouped.mean(dim=1, keepdim=True)) / (grouped.std(dim=1, keepdim=True) + 1e-4)
    ours = advantages_of(rewards[None, :, :, None], "grpo", "step")[0, :, :, 0]
    corrected = ours * np.sqrt(3 / 4)  # of G = 4
    spread = np.maximum(rewards.std(axis=1, ddof=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(corrected * spread / (spread + 1e-4), theirs.numpy(), atol=1e-6)
