"""A table that is taught by plain gradient steps, against a simulation in numpy that knows nothing of the
package: episodes to memorise for each thing that can be told."""

import functools
import math

import numpy as np
import pytest
from helpers import run_loop, secrets_of, setting_of

import memory_rl
from memory_rl.analysis.survival import memorisation_times
from memory_rl.populations import make_learners

RUNS, GROUP, ERROR, FLOOR = 300, 4, 0.01, 1e-6


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def gradient(p: np.ndarray, q: np.ndarray, answers, told: str, k: int, divergence: str) -> np.ndarray:
    """Of the loss by the logits of a softmax, each term by its textbook derivative."""
    floored = np.maximum(q, FLOOR)
    if told == "sampled":
        each = [-(math.log(floored[a]) - math.log(p[a])) * (np.eye(len(p))[a] - p) for a in answers]
        return np.mean(each, axis=0)
    owner = np.arange(len(p))
    if told == "top_k":  # the box that each answer falls into
        top = sorted(range(len(q)), key=lambda a: -q[a])[:k]
        owner = np.array([top.index(a) if a in top else k for a in range(len(q))])
    boxes = owner.max() + 1
    of_policy, of_teacher = (np.bincount(owner, weights, minlength=boxes) for weights in (p, q))
    if divergence == "forward":
        by_box = -of_teacher / of_policy
    else:
        by_box = np.log(of_policy / np.maximum(of_teacher, FLOOR)) + 1
    slope = by_box[owner]
    return p * (slope - p @ slope)


def simulated(N: int, step: float, secret: int, random, teacher: str, target: float, **told) -> int:
    """Episodes of one run until P(S) >= target."""
    logits, untried, hit, episodes = np.zeros(N), np.ones(N, dtype=bool), False, 0
    while softmax(logits)[secret] < target:
        p = softmax(logits)
        answers = random.choice(N, GROUP, p=p)
        untried[answers], hit = False, hit or secret in answers
        known = np.eye(N)[secret]
        if teacher == "secret":
            q = np.where(known == 1, 1 - ERROR, ERROR / (N - 1))
        else:
            q = known if hit or untried.sum() == 1 else untried / untried.sum()
        logits = logits - step * gradient(p, q, answers, **told)
        episodes += GROUP
        assert episodes < 5000
    return episodes


def measured(N: int, step: float, **keys) -> np.ndarray:
    common = {"backend": "tabular", "optimiser": "sgd", "num_runs": RUNS, "ledger": False}
    setting = setting_of(N=N, learning_rate=step, signal="teacher", **common, **keys)
    metrics = run_loop(setting, make_learners(setting).policy).metrics
    times = memorisation_times(metrics, math.log2(N), 0.5)
    assert times.memorised.all()
    return times.episodes


@pytest.mark.parametrize("divergence", ["reverse", "forward"])
@pytest.mark.parametrize("k", [None, 1, 2, 5])
@pytest.mark.parametrize("step", [0.7, 6.0])
def test_what_is_told_of_the_whole_distribution_leaves_nothing_to_chance(divergence, k, step):
    """One who knows S says the same whatever was answered: every run takes exactly as long."""
    keys = {"divergence": divergence, **({"told": "top_k", "teacher_top_k": k} if k else {})}
    found = measured(16, step, seed=3, **keys)
    told = {"told": "top_k" if k else "whole", "k": k or 0, "divergence": divergence}
    by_secret = functools.cache(
        lambda secret: simulated(16, step, secret, np.random.default_rng(0), "secret", 0.5, **told)
    )
    secrets = secrets_of(N=16, seed=3, num_runs=RUNS, backend="tabular")[:, 0]
    assert found.tolist() == [by_secret(secret) for secret in secrets]


@pytest.mark.parametrize(
    ("teacher", "told", "k", "divergence", "step"),
    [
        ("secret", "sampled", 0, "reverse", 0.3),
        ("secret", "sampled", 0, "reverse", 2.0),
        ("observer", "sampled", 0, "reverse", 0.3),
        ("observer", "whole", 0, "reverse", 2.0),
        ("observer", "whole", 0, "forward", 4.0),
        ("observer", "top_k", 2, "reverse", 1.0),
        ("observer", "top_k", 2, "forward", 4.0),
    ],
)
def test_what_depends_on_the_answers_takes_as_long_on_average(teacher, told, k, divergence, step):
    keys = {"told": told, "teacher": teacher}
    keys |= {"divergence": divergence} if told != "sampled" else {}
    keys |= {"teacher_top_k": k} if k else {}
    found = measured(16, step, seed=5, **keys)
    random = np.random.default_rng(7)
    again = np.array(
        [
            simulated(16, step, secret, random, teacher, 0.5, told=told, k=k, divergence=divergence)
            for secret in random.integers(16, size=RUNS)
        ]
    )
    error = math.hypot(found.std(ddof=1), again.std(ddof=1)) / math.sqrt(RUNS)
    assert abs(found.mean() - again.mean()) < 3.5 * error
    for moment in (np.log(found).mean() - np.log(again).mean(),):
        assert abs(moment) < 3.5 * math.hypot(np.log(found).std(), np.log(again).std()) / math.sqrt(RUNS)


def test_the_whole_distribution_is_worth_a_group_and_a_sampled_token_no_more_than_a_hit():
    """N = 64: told all, one group of four suffices, 6 bits in 4 episodes. Told of sampled tokens, a table
    learns whether each answer is S, and the best that anyone can do with that is 0.185 bits an episode."""
    common = {"N": 64, "backend": "tabular", "optimiser": "sgd", "signal": "teacher", "num_runs": 64}
    whole = memory_rl.train(**common, learning_rate=30.0, divergence="forward")
    assert whole.summary["teacher divergence=forward"]["bits_per_episode"]["estimate"] == pytest.approx(1.5)
    sampled = memory_rl.train(**common, learning_rate=1.0, told="sampled", max_episodes=2000)
    summary = sampled.summary["teacher told=sampled"]
    assert summary["bits_per_episode"]["ci95"][1] < 6 / summary["ceilings"]["ideal_questioner"]["to_reach"]
    assert 6 / summary["ceilings"]["ideal_questioner"]["to_reach"] == pytest.approx(0.1849, abs=1e-4)
    assert summary["ceilings"]["capacity"] == 1.0
