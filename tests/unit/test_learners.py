"""The learners: advantages against groups computed by hand, losses and their gradients against values worked
out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import make_environment

from memory_rl.config import LEARNERS
from memory_rl.errors import ConfigError
from memory_rl.experiment import make_experiment
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import GRPO, RLOO, Learner, Posterior, Reinforce, Supervised
from memory_rl.learning.ratios import PPO
from memory_rl.policies.base import first_prompt
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.task import credit_rewards

ESTIMATORS = {"reinforce": Reinforce, "grpo": GRPO, "rloo": RLOO, "ppo": PPO}


class Recorder:
    """A policy that keeps what it was asked to do."""

    def __init__(self):
        self.advantages = self.learner = self.distilled = None

    def update(self, batch, advantages, learner):
        self.advantages, self.learner = advantages, learner

    def distil(self, *arguments):
        self.distilled = arguments


def learn(learner, rewards: np.ndarray, credit: str = "step") -> tuple[np.ndarray, np.ndarray | None]:
    """The advantages (R, B, G, K) that a learner hands to the policy for rewards of this shape, and the
    fraction of groups (R,) without a signal."""
    runs, policy = np.arange(len(rewards)), Recorder()
    by_episode = rewards.reshape(len(rewards), -1, rewards.shape[3])
    choices, prompts = np.zeros(by_episode.shape, dtype=np.int64), np.zeros((len(rewards), 1), dtype=np.int64)
    batch = Batch(runs, prompts, choices, choices, runs, by_episode, credit_rewards(rewards, credit))
    silent = learner.learn(policy, batch)
    assert policy.learner is learner
    return policy.advantages.reshape(rewards.shape), silent


def advantages_of(learner, rewards, credit="step") -> np.ndarray:
    return learn(learner, rewards, credit)[0]


def one_group(*episodes: list[float]) -> np.ndarray:
    """Rewards (G, K) as one run and one group: (1, 1, G, K)."""
    return np.array(episodes, dtype=float)[None, None]


GROUP = one_group([1.0], [0.0], [0.0], [0.0])


VARIANTS = {
    **{name: kind() for name, kind in LEARNERS.items()},
    "reinforce, no baseline": Reinforce(baseline="none"),
    "ppo, no baseline": PPO(baseline="none"),
    "reinforce_plus_plus, of groups": LEARNERS["reinforce_plus_plus"](baseline="group"),
}


def moved_by_equal_groups(learner) -> bool:
    """Whether two groups of equal rewards, one better than the other, move a policy that has learned."""
    environment, runs = make_environment("single_step", 4), np.arange(2)
    forms = environment.choices(np.arange(4))
    policy = TabularPolicy(forms, 4, num_runs=2, learning_rate=0.1, seed=0)
    learner.start(0, 2)
    before = policy.logits.clone()
    for returns in (np.array([0.0, 0.3, 0.6, 1.0, 0.0, 0.0, 1.0, 0.1]), np.repeat([0.1, 0.7], 4)):
        batch = learner.sample(policy, runs, first_prompt(runs), 8)
        rewards = np.broadcast_to(returns[:, None], (2, 8, 1)).copy()
        beliefs = np.broadcast_to(np.array([0.7, 0.1, 0.1, 0.1]), (2, 1, 4))
        before = policy.logits.clone()
        learner.learn(
            policy,
            replace(batch, rewards=rewards, returns=rewards.reshape(2, 2, 4, 1), beliefs=beliefs),
        )
    return not torch.equal(policy.logits, before)


@pytest.mark.parametrize("learner", VARIANTS.values(), ids=VARIANTS)
def test_equal_groups_move_a_policy_exactly_if_the_learner_says_so(learner):
    assert moved_by_equal_groups(learner) is not learner.silent_if_equal


@pytest.mark.parametrize("name", LEARNERS)
def test_what_equal_groups_move_is_not_skipped_and_paths_suffice_where_samples_do(name):
    keys = {"N": 64, "algorithm": name, "skip_ahead": True}
    learner = LEARNERS[name]()
    assert make_experiment(keys).skips_ahead is learner.silent_if_equal
    assert make_experiment({**keys, "skip_ahead": None}).skips_ahead is learner.silent_if_equal
    assert learner.samples_suffice is (name not in ("posterior", "evolution"))
    if learner.samples_suffice:
        experiment = make_experiment({**keys, "scoring": "paths"})
        assert experiment.scores_paths
        assert experiment.only_hits is experiment.skips_ahead is learner.silent_if_equal
    else:
        with pytest.raises(ConfigError, match=f"scoring=paths does not go with algorithm={name}: leave scor"):
            make_experiment({**keys, "scoring": "paths"})


def test_only_what_compares_a_batch_needs_more_than_one_episode():
    for name, kind in LEARNERS.items():
        keys = {"N": 64, "algorithm": name, "group_size": 1}
        if kind.fewest_episodes > 1:
            with pytest.raises(
                ConfigError, match=f"algorithm={name} compares the episodes .* use group_size=4"
            ):
                make_experiment(keys)
        elif kind().silent_if_equal:
            for penalty in ({}, {"entropy_bonus": 0.01}, {"kl_to_base": 0.01}):
                with pytest.raises(ConfigError, match="group_size=1 with batch_size=1 can never carry a sig"):
                    make_experiment({**keys, **penalty} if kind.follows_loss else keys)
        else:
            assert make_experiment(keys).episodes_an_update == 1


@pytest.mark.parametrize("name", ["posterior", "replay", "evolution"])
def test_what_a_service_cannot_do_is_refused_before_any_work(name):
    with pytest.raises(ConfigError, match=f"algorithm={name} .*, which backend=tinker cannot: use"):
        make_experiment({"N": 64, "algorithm": name, "backend": "tinker"})


@pytest.mark.parametrize("name", ["posterior", "evolution"])
@pytest.mark.parametrize("key", ["entropy_bonus", "kl_to_base"])
def test_what_follows_no_loss_cannot_have_something_added_to_it(name, key):
    with pytest.raises(ConfigError, match=f"{key}=0.1 has no meaning .*={name}, .*leave {key} out"):
        make_experiment({"N": 64, "algorithm": name, key: 0.1})


def test_reinforce_subtracts_the_mean():
    np.testing.assert_allclose(advantages_of(Reinforce(), GROUP).ravel(), [0.75, -0.25, -0.25, -0.25])


def test_without_a_baseline_the_return_is_the_advantage():
    np.testing.assert_array_equal(advantages_of(Reinforce(baseline="none"), GROUP), GROUP)
    np.testing.assert_array_equal(advantages_of(PPO(baseline="none"), GROUP + 1), GROUP + 1)


def test_grpo_divides_by_the_standard_deviation():
    deviation = np.sqrt(3) / 4  # of 1, 0, 0, 0
    np.testing.assert_allclose(
        advantages_of(GRPO(), GROUP).ravel(), np.array([0.75, -0.25, -0.25, -0.25]) / deviation
    )


def test_rloo_subtracts_the_mean_of_the_others():
    np.testing.assert_allclose(advantages_of(RLOO(), GROUP).ravel(), [1.0, -1 / 3, -1 / 3, -1 / 3])


def test_ppo_uses_the_mean_baseline():
    np.testing.assert_array_equal(advantages_of(PPO(), GROUP), advantages_of(Reinforce(), GROUP))


BITS = one_group([1, 0, 1], [1, 1, 0])


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        ("step", [[0, -0.5, 0.5], [0, 0.5, -0.5]]),
        ("reward_to_go", [[0, 0, 0.5], [0, 0, -0.5]]),  # returns 2 1 1 and 2 1 0
        ("episode", [[0, 0, 0], [0, 0, 0]]),  # returns 2 and 2
    ],
)
def test_credit_decides_what_a_step_is_held_to(credit, expected):
    np.testing.assert_allclose(advantages_of(Reinforce(), BITS, credit)[0, 0], expected)


def test_episode_credit_is_the_same_at_every_step():
    rewards = one_group([1, 1, 1], [0, 0, 1], [0, 0, 0])
    np.testing.assert_allclose(
        advantages_of(Reinforce(), rewards, "episode")[0, 0],
        np.repeat([[5 / 3], [-1 / 3], [-4 / 3]], 3, axis=1),
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_equal_rewards_carry_exactly_no_signal(name):
    value = 0.1  # its mean over 3 is not itself in floating point
    rewards = np.full((2, 5, 3, 1), value)
    assert (rewards.mean(axis=2) != value).any()
    learner = ESTIMATORS[name]()
    assert learner.silent_if_equal
    advantages, silent = learn(learner, rewards)
    assert not advantages.any()
    np.testing.assert_array_equal(silent, 1.0)
    assert not learner.moves(advantages.reshape(2, 15, 1)).any()


@pytest.mark.parametrize("name", ["reinforce", "ppo"])
def test_without_a_baseline_equal_rewards_carry_a_signal_unless_they_are_0(name):
    learner = ESTIMATORS[name](baseline="none")
    assert not learner.silent_if_equal
    _, silent = learn(learner, np.array([[[[1.0], [1.0]], [[0.0], [0.0]]]]))
    np.testing.assert_array_equal(silent, [0.5])


def test_a_run_with_no_signal_at_all_takes_no_step():
    advantages = np.zeros((3, 4, 2))
    advantages[1, 2, 0] = -0.5
    assert Learner().moves(advantages).tolist() == [False, True, False]


def test_groups_and_runs_do_not_mix():
    rewards = np.random.default_rng(0).random((3, 4, 5, 2))
    together = advantages_of(GRPO(), rewards, "reward_to_go")
    for run in range(3):
        for group in range(4):
            alone = advantages_of(GRPO(), rewards[run : run + 1, group : group + 1], "reward_to_go")
            np.testing.assert_allclose(together[run, group], alone[0, 0])


def test_what_is_shown_has_advantage_1_and_no_silent_groups():
    advantages, silent = learn(Supervised(), np.zeros((2, 3, 1, 2)))
    np.testing.assert_array_equal(advantages, 1.0)
    assert silent is None


def test_the_posterior_learner_hands_on_the_belief_and_has_no_silent_groups():
    runs, beliefs, policy = np.array([3, 5]), np.full((2, 1, 4), 0.25), Recorder()
    choices, prompts = np.zeros((2, 1, 1), dtype=np.int64), np.zeros((2, 1), dtype=np.int64)
    learner = Posterior(epochs=7)
    assert (learner.wants_beliefs, learner.silent_if_equal) == (True, False)
    assert learner.learn(policy, Batch(runs, prompts, choices, choices, runs, beliefs=beliefs)) is None
    assert policy.advantages is None
    assert all(
        given is wanted for given, wanted in zip(policy.distilled, (runs, prompts, beliefs, 7), strict=True)
    )


def test_the_loss_sums_over_tokens_and_averages_over_episodes():
    log_probs = torch.tensor([[[-1.0, -2.0], [-3.0, 0.0]]], requires_grad=True)
    advantages = torch.tensor([[[0.5, 0.5], [-1.0, 0.0]]])
    loss = Learner().loss(log_probs, log_probs.detach(), advantages)
    loss.backward()
    assert loss.item() == -(0.5 * -1 + 0.5 * -2 + -1 * -3) / 2
    assert torch.equal(log_probs.grad, -advantages / 2)


def test_one_runs_loss_does_not_scale_anothers():
    log_probs = torch.randn(3, 4, 2, requires_grad=True)
    advantages = torch.randn(3, 4, 2)
    Learner().loss(log_probs, log_probs.detach(), advantages).backward()
    alone = log_probs.detach()[:1].requires_grad_()
    Learner().loss(alone, alone.detach(), advantages[:1]).backward()
    assert torch.equal(log_probs.grad[:1], alone.grad)


@pytest.mark.parametrize(
    "learner", [Reinforce(), GRPO(), RLOO(), Supervised()], ids=lambda one: type(one).__name__
)
def test_all_but_ppo_go_down_the_same_loss_once(learner):
    log_probs, advantages = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(learner.loss(log_probs, None, advantages), Learner().loss(log_probs, None, advantages))
    assert learner.epochs == 1


def test_the_clipped_ratio_is_the_policy_gradient_at_first():
    log_probs = torch.randn(2, 3, 4, requires_grad=True)
    advantages = torch.randn(2, 3, 4)
    PPO().loss(log_probs, log_probs.detach(), advantages).backward()
    assert torch.allclose(log_probs.grad, -advantages / 3)


def test_the_ratio_is_clipped_only_where_it_went_too_far():
    before = torch.zeros(1, 1, 4)
    log_probs = torch.tensor(
        [[[math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5)]]], requires_grad=True
    )
    advantages = torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])
    loss = PPO(clip=0.2).loss(log_probs, before, advantages)
    loss.backward()
    assert math.isclose(loss.item(), -(1.2 - 1.5 + 0.5 - 0.8), rel_tol=1e-6)
    assert torch.allclose(log_probs.grad, torch.tensor([[[0.0, 1.5, -0.5, 0.0]]]))


@pytest.mark.parametrize(
    ("keys", "instead"),
    [
        ({"algorithm": "moving_average", "average_decay": 0.0}, "use average_decay=0.95"),
        ({"algorithm": "replay", "replay_truncation": 0.5}, "a positive number from 1 to"),
    ],
)
def test_settings_under_which_a_learner_is_another_are_refused(keys, instead):
    """An average of the return alone, and a truncation that also weighs what was just sampled."""
    with pytest.raises(ConfigError, match=instead):
        make_experiment(keys).learner  # noqa: B018
