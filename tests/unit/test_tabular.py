"""The tabular policy against its definition, spelled out decision by decision."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from helpers import all_log_probs, demonstrate, make_environment, sample

from memory_rl.learning.learners import Reinforce
from memory_rl.learning.ratios import PPO
from memory_rl.policies.base import first_prompt
from memory_rl.policies.tabular import TabularPolicy

N = 11  # four bits, so that the strings 1011 to 1111 spell no secret
RATE = 0.7
SINGLE, POSITIONS, PREFIXES = ("single_step", False), ("multi_step", False), ("multi_step", True)
ALL = pytest.mark.parametrize(
    "kind", [SINGLE, POSITIONS, PREFIXES], ids=["single_step", "positions", "prefixes"]
)


def make_tabular(
    kind: tuple[str, bool],
    num_runs: int = 3,
    optimiser: str = "sgd",
    rate: float = RATE,
    seed: int = 0,
    moved: bool = True,
) -> TabularPolicy:
    """A policy at N = 11; with `moved`, its logits are random, for each run the same however many there
    are."""
    environment = make_environment(kind[0], N)
    forms = environment.choices(np.arange(environment.num_forms))
    policy = TabularPolicy(
        forms,
        environment.num_choices,
        num_runs=num_runs,
        prefixes=kind[1],
        optimiser=optimiser,
        learning_rate=rate,
        seed=seed,
    )
    if moved:
        shape = tuple(policy.logits.shape[1:])
        policy.logits.copy_(
            torch.stack(
                [torch.from_numpy(np.random.default_rng(run).normal(size=shape)) for run in range(num_runs)]
            )
        )
    return policy


def spell(kind: tuple[str, bool], form: int) -> list[tuple[int, int]]:
    """The decisions that a form meets, each with the choice that it makes there. The decision of a prefix of
    j bits b is 2^j - 1 + b."""
    if kind == SINGLE:
        return [(0, form)]
    bits = [int(digit) for digit in f"{form:04b}"]
    if kind == POSITIONS:
        return list(enumerate(bits))
    return [
        (2**step - 1 + int("0" + "".join(map(str, bits[:step])), 2), bit) for step, bit in enumerate(bits)
    ]


def num_forms(kind: tuple[str, bool]) -> int:
    return N if kind == SINGLE else 16


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def form_probabilities(kind: tuple[str, bool], logits: np.ndarray) -> np.ndarray:
    """(F,) from the logits (D, C) of one run."""
    tables = softmax(logits)
    return np.array(
        [
            np.prod([tables[decision, choice] for decision, choice in spell(kind, form)])
            for form in range(num_forms(kind))
        ]
    )


def forms_of(choices: np.ndarray) -> np.ndarray:
    """(..., K) choices to (...) forms."""
    return choices[..., 0] if choices.shape[-1] == 1 else choices @ (2 ** np.arange(choices.shape[-1])[::-1])


def gradient(
    kind: tuple[str, bool], logits: np.ndarray, forms: np.ndarray, advantages: np.ndarray
) -> np.ndarray:
    """The mean over episodes of A (e_a - p), summed over steps: forms (E,), advantages (E, K)."""
    tables, total = softmax(logits), np.zeros_like(logits)
    for form, weights in zip(forms, advantages, strict=True):
        for (decision, choice), weight in zip(spell(kind, form), weights, strict=True):
            total[decision] += weight * (np.eye(logits.shape[1])[choice] - tables[decision])
    return total / len(forms)


@ALL
@pytest.mark.parametrize("num_runs", [1, 500])
def test_sampling_follows_the_exact_probabilities(kind, num_runs):
    policy, episodes = make_tabular(kind, num_runs), 100_000
    all_log_probs(policy, np.arange(num_runs))
    runs = np.array([0, num_runs // 2, num_runs - 1])[-num_runs:]
    rollout = sample(policy, runs, episodes)
    assert rollout.choices.shape == (len(runs), episodes, 1 if kind == SINGLE else 4)
    for run, forms in zip(runs, forms_of(rollout.choices), strict=True):
        expected = episodes * form_probabilities(kind, policy.logits[run].numpy())
        assert scipy.stats.chisquare(np.bincount(forms, minlength=len(expected)), expected).pvalue > 1e-3


@ALL
def test_a_run_can_be_sampled_before_the_others_have_been_looked_at(kind):
    fresh, known = make_tabular(kind, 500), make_tabular(kind, 500)
    all_log_probs(known, np.arange(500))
    np.testing.assert_array_equal(
        *(sample(policy, np.array([0, 250]), 100).choices for policy in (fresh, known))
    )


@ALL
def test_an_update_is_seen_by_the_next_sample_and_the_next_score(kind):
    policy, everyone, episodes = make_tabular(kind), np.arange(3), 20_000
    sample(policy, everyone, 1)
    before = np.exp(all_log_probs(policy, everyone))
    demonstration = demonstrate(policy, np.array([1]), np.array([[5]]))
    for _ in range(2):
        policy.update(demonstration, np.ones(demonstration.choices.shape), Reinforce())
    drawn, after = (
        forms_of(sample(policy, everyone, episodes).choices),
        np.exp(all_log_probs(policy, everyone)),
    )
    for run in everyone:
        expected = form_probabilities(kind, policy.logits[run].numpy())
        np.testing.assert_allclose(after[run], expected, rtol=1e-12)
        assert (
            scipy.stats.chisquare(
                np.bincount(drawn[run], minlength=len(expected)), episodes * expected
            ).pvalue
            > 1e-3
        )
    assert after[1, 5] > 1.5 * before[1, 5]


@ALL
def test_log_probs_are_those_of_every_form_one_by_one(kind):
    policy = make_tabular(kind)
    log_probs = all_log_probs(policy, np.array([2, 0]))
    assert log_probs.shape == (2, num_forms(kind))
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-12)
    for row, run in zip(log_probs, [2, 0], strict=True):
        np.testing.assert_allclose(
            row, np.log(form_probabilities(kind, policy.logits[run].numpy())), rtol=1e-12
        )


@ALL
def test_at_first_every_form_is_equally_likely(kind):
    policy = make_tabular(kind, moved=False)
    np.testing.assert_allclose(all_log_probs(policy, np.arange(3)), -np.log(num_forms(kind)), rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "parameters"), [(SINGLE, 11), (POSITIONS, 4 * 2), (PREFIXES, (1 + 2 + 4 + 8) * 2)]
)
def test_a_run_trains_one_logit_a_choice(kind, parameters):
    assert make_tabular(kind).trained_parameters == parameters


@ALL
def test_demonstrations_are_the_episodes_that_spell_the_forms(kind):
    policy = make_tabular(kind)
    forms = np.random.default_rng(0).integers(num_forms(kind), size=(2, 7))
    shown = demonstrate(policy, np.array([2, 0]), forms)
    np.testing.assert_array_equal(shown.runs, [2, 0])
    assert [
        [[choice for _, choice in spell(kind, form)] for form in row] for row in forms
    ] == shown.choices.tolist()
    assert shown.num_tokens == shown.choices.size


@ALL
def test_a_demonstration_of_what_was_sampled_is_what_was_sampled(kind):
    policy = make_tabular(kind)
    rollout = sample(policy, np.arange(3), 50)
    np.testing.assert_array_equal(
        demonstrate(policy, np.arange(3), forms_of(rollout.choices)).path, rollout.path
    )


@ALL
def test_reinforce_moves_the_logits_by_advantage_times_score(kind):
    policy, runs = make_tabular(kind), np.array([2, 0])
    before = policy.logits.numpy().copy()
    rollout = sample(policy, runs, 5)
    advantages = np.random.default_rng(0).normal(size=rollout.choices.shape)
    policy.update(rollout, advantages, Reinforce())
    for run, forms, weights in zip(runs, forms_of(rollout.choices), advantages, strict=True):
        np.testing.assert_allclose(
            policy.logits[run].numpy() - before[run],
            RATE * gradient(kind, before[run], forms, weights),
            atol=1e-12,
        )
    np.testing.assert_array_equal(policy.logits[1].numpy(), before[1])
    np.testing.assert_array_equal(policy.updates, [1, 0, 1])


def ppo_by_autograd(
    kind: tuple[str, bool],
    start: torch.Tensor,
    forms: np.ndarray,
    advantages: np.ndarray,
    clip: float,
    epochs: int,
) -> torch.Tensor:
    """The logits (D, C) of one run after `epochs` steps of SGD on the clipped surrogate of Schulman et al.
    2017, eq. 7, episode by episode."""
    logits, old = start.clone().requires_grad_(), None
    optimiser = torch.optim.SGD([logits], lr=RATE)
    for _ in range(epochs):
        now = torch.stack(
            [torch.stack([torch.softmax(logits[d], 0)[c] for d, c in spell(kind, form)]) for form in forms]
        )  # (E, K)
        old = now.detach() if old is None else old
        ratio, weights = now / old, torch.from_numpy(advantages)
        surrogate = torch.minimum(ratio * weights, torch.clamp(ratio, 1 - clip, 1 + clip) * weights)
        optimiser.zero_grad()
        (-surrogate.sum() / len(forms)).backward()
        optimiser.step()
    return logits.detach()


@ALL
def test_ppo_is_the_clipped_surrogate_by_autograd(kind):
    policy, runs = make_tabular(kind), np.array([2, 0])
    start = policy.logits.clone()
    rollout = sample(policy, runs, 5)
    advantages = 3 * np.random.default_rng(0).normal(size=rollout.choices.shape)
    policy.update(rollout, advantages, PPO(clip=0.1, epochs=4))
    for run, forms, weights in zip(runs, forms_of(rollout.choices), advantages, strict=True):
        np.testing.assert_allclose(
            policy.logits[run].numpy(),
            ppo_by_autograd(kind, start[run], forms, weights, 0.1, 4).numpy(),
            atol=1e-12,
        )
        unclipped = ppo_by_autograd(kind, start[run], forms, weights, 1e9, 4)
        assert (policy.logits[run] - unclipped).abs().max() > 0.01  # the clip was met
    np.testing.assert_array_equal(policy.updates, [4, 0, 4])


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_run_without_advantage_stands_still(optimiser):
    """With Adam not even its moments move: what it does later is what it would have done without."""
    disturbed, spared = (make_tabular(SINGLE, 2, optimiser) for _ in range(2))
    before = disturbed.logits.clone()
    lesson = demonstrate(disturbed, np.array([0, 1]), np.array([[3, 4], [5, 6]]))
    for policy, times in ((disturbed, 5), (spared, 2)):
        for step in range(times):
            silent = np.array([1.0, 0.0 if policy is disturbed and step < 3 else 1.0])
            policy.update(lesson, np.broadcast_to(silent[:, None, None], lesson.choices.shape), Reinforce())
            if policy is disturbed and step == 2:
                assert torch.equal(policy.logits[1], before[1])
                assert (policy.logits[0] != before[0]).all()
                np.testing.assert_array_equal(policy.updates, [3, 0])
    assert torch.equal(disturbed.logits[1], spared.logits[1])


def targets_of(kind: tuple[str, bool], rng: np.random.Generator) -> np.ndarray:
    """(2, N) random beliefs over the secrets; for positions, which cannot hold a dependence between bits, a
    product on two bits."""
    if kind != POSITIONS:
        return rng.dirichlet(np.ones(N), size=2)
    left, right = rng.dirichlet(np.ones(2), size=(2, 2))
    targets = np.zeros((2, N))
    for high, low in itertools.product(range(2), repeat=2):  # the strings 0 high 1 low
        targets[:, 4 * high + 2 + low] = left[:, high] * right[:, low]
    return targets


@ALL
def test_distil_moves_the_policy_to_the_target(kind):
    policy, runs = make_tabular(kind, optimiser="adam", rate=0.1), np.array([2, 0])
    targets, before = targets_of(kind, np.random.default_rng(0)), policy.logits.clone()
    divergences = []
    for epochs in (0, 20, 1000):
        policy.distil(runs, first_prompt(runs), targets[:, None], epochs)
        divergences.append(
            scipy.special.rel_entr(targets, np.exp(all_log_probs(policy, runs)[:, :N])).sum(axis=1)
        )
    assert (divergences[0] > divergences[1]).all()
    assert (divergences[1] > divergences[2]).all()
    assert (divergences[2] < 1e-3).all()
    assert torch.equal(policy.logits[1], before[1])
    np.testing.assert_array_equal(policy.updates, [1020, 0, 1020])


@ALL
def test_one_step_of_distil_is_target_minus_probability_at_each_decision(kind):
    """The score of every form, weighted by the target: at a decision, the target's mass that comes by times
    (its choices there - p)."""
    policy, runs = make_tabular(kind), np.array([2, 0])
    before = policy.logits.numpy().copy()
    targets = np.random.default_rng(0).dirichlet(np.ones(N), size=2)
    policy.distil(runs, first_prompt(runs), targets[:, None], 1)
    for run, target in zip(runs, targets, strict=True):
        moved = policy.logits[run].numpy() - before[run]
        if kind == SINGLE:
            np.testing.assert_allclose(moved[0], RATE * (target - softmax(before[run])[0]), atol=1e-12)
        wanted = np.zeros_like(moved)
        for form, mass in enumerate(target):
            for decision, choice in spell(kind, form):
                wanted[decision, choice] += mass
        np.testing.assert_allclose(
            moved, RATE * (wanted - wanted.sum(axis=1, keepdims=True) * softmax(before[run])), atol=1e-12
        )


@ALL
def test_a_run_does_the_same_however_many_others_there_are(kind):
    few, many = make_tabular(kind, 2), make_tabular(kind, 300)
    for others in (range(2, 300), range(2, 100), ()):
        alone, together = sample(few, np.array([1]), 40), sample(many, np.array([*others, 1]), 40)
        np.testing.assert_array_equal(alone.choices[0], together.choices[-1])
        for policy, rollout in ((few, alone), (many, together)):
            policy.update(rollout, 1.0 * rollout.choices, Reinforce())
    np.testing.assert_array_equal(few.logits[1].numpy(), many.logits[1].numpy())


def test_runs_and_seeds_draw_numbers_of_their_own():
    policy = make_tabular(SINGLE, moved=False)
    first, second, third = sample(policy, np.arange(3), 40).choices
    assert (first != second).any()
    assert (second != third).any()
    assert (sample(make_tabular(SINGLE, moved=False, seed=1), np.array([0]), 40).choices[0] != first).any()
