"""The ideal observer against Bayes by brute force, and the law that its information adds up."""

import numpy as np
import pytest

from memory_rl.information.entropy import entropy
from memory_rl.information.observer import Observer, OneAgainstRest, Partition
from memory_rl.information.outcomes import Outcomes
from memory_rl.task.rewards import make_channel

CHANNELS = [
    ("binary", None, 0.0),
    ("log_distance", None, 0.2),
    ("binned_log_distance", 4, 0.0),
    ("binned_log_distance", 4, 0.3),
    ("binary", None, 0.1),
]


def outcomes_of(channel) -> Outcomes:
    return Outcomes(channel.num_classes, channel.outcomes)


def brute_force_gain(prior, likelihoods) -> tuple[float, float]:
    """Mean and variance of the entropy of S lost by seeing the level, by Bayes, level by level."""
    before, mean, square = -sum(p * np.log2(p) for p in prior if p > 0), 0.0, 0.0
    for level in range(likelihoods.shape[1]):
        joint = [prior[s] * likelihoods[s, level] for s in range(len(prior))]
        marginal = sum(joint)
        if marginal > 0:
            gain = before + sum(p / marginal * np.log2(p / marginal) for p in joint if p > 0)
            mean += marginal * gain
            square += marginal * gain**2
    return mean, square - mean**2


def test_entropy_and_information_by_their_definitions():
    rng = np.random.default_rng(0)
    assert entropy(np.array([0.5, 0.25, 0.25, 0.0])) == 1.5
    for _ in range(20):
        prior, likelihoods = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(3), size=5)
        likelihoods[0] = [0, 1, 0]
        assert Outcomes(5, likelihoods).information(prior) == pytest.approx(
            brute_force_gain(prior, likelihoods)[0]
        )


@pytest.mark.parametrize("certain", [True, False])
def test_a_question_gains_what_bayes_says(certain):
    rng = np.random.default_rng(0)
    for _ in range(20):
        noisy = None if certain else np.concatenate([[[0.0, 1.0, 0.0]], rng.dirichlet(np.ones(3), size=2)])
        classes, observer = rng.integers(3, size=(1, 7)), Observer(1, 7)
        observer.weights[0] = rng.integers(2, size=7) if certain else rng.dirichlet(np.ones(7))
        observer.weights[0, 0] = 1.0
        observer.totals[0] = observer.weights[0].sum()
        likelihoods = (np.eye(3) if certain else noisy)[classes[0]]
        asked = Partition(classes).ask(observer, np.array([0]), Outcomes(3, noisy))
        assert np.ravel(asked) == pytest.approx(
            brute_force_gain(observer.posterior(np.array([0]))[0], likelihoods)
        )


@pytest.mark.parametrize(("reward_type", "bins", "noise"), CHANNELS)
def test_the_posterior_is_bayes(reward_type, bins, noise):
    N, episodes, rng = 11, 6, np.random.default_rng(1)
    channel = make_channel(reward_type, N, bins, noise)
    answers, secrets, run = rng.integers(N, size=episodes), np.array([7]), np.array([0])
    rewards = channel.rewards(answers, secrets, rng.random(episodes))
    observer, posterior = Observer(1, N), np.full(N, 1 / N)
    for answer, reward in zip(answers, rewards, strict=True):
        level = np.nonzero(channel.levels == reward)[0]
        observer.observe(
            run, Partition(channel.classes(np.array([[answer]]), np.arange(N))), outcomes_of(channel), level
        )
        for s in range(N):
            truth = make_channel(reward_type, N, bins).rewards(np.array(answer), np.array(s))
            others = len(channel.levels) - 1
            posterior[s] *= 1 - noise if reward == truth else noise / others
        posterior /= posterior.sum()
        np.testing.assert_allclose(observer.posterior(run)[0], posterior, atol=1e-12)
    assert observer.bits_known(run, secrets)[0] == pytest.approx(np.log2(N * posterior[7]))


def test_one_against_the_rest_is_the_partition_it_abbreviates():
    N, R, rng = 9, 50, np.random.default_rng(3)
    channel, runs = make_channel("binary", N), np.arange(R)
    secrets, outcomes = rng.integers(N, size=R), outcomes_of(channel)
    short, long = Observer(R, N), Observer(R, N)
    for _ in range(25):
        answers = rng.integers(N, size=R)
        levels = channel.rewards(answers, secrets).astype(int)
        questions = OneAgainstRest(answers), Partition(channel.classes(answers[:, None], np.arange(N)))
        told = [
            question.ask(mind, runs, outcomes)
            for mind, question in zip((short, long), questions, strict=True)
        ]
        np.testing.assert_allclose(told[0], told[1], atol=1e-12)
        for mind, question in zip((short, long), questions, strict=True):
            mind.observe(runs, question, outcomes, levels)
        np.testing.assert_allclose(short.posterior(runs), long.posterior(runs), atol=1e-12)


@pytest.mark.parametrize(("reward_type", "bins", "noise"), CHANNELS)
def test_bits_known_are_the_information_of_the_questions_asked(reward_type, bins, noise):
    """The chain rule, averaged over uniform secrets; a wrong likelihood breaks it. The variance of the
    difference is what the questions say it is."""
    N, R, rng = 16, 4000, np.random.default_rng(2)
    channel, runs = make_channel(reward_type, N, bins, noise), np.arange(4000)
    secrets = rng.integers(N, size=R)
    wrong = make_channel(reward_type, N, bins, min(0.9, noise + 0.3))
    observer, deceived = Observer(R, N), Observer(R, N)
    asked, believed, variance = np.zeros(R), np.zeros(R), np.zeros(R)
    for _ in range(5):
        answers = rng.integers(N, size=R)
        rewards = channel.rewards(answers, secrets, rng.random(R))
        levels = (rewards[:, None] == channel.levels).argmax(axis=1)
        question = Partition(channel.classes(answers[:, None], np.arange(N)))
        information, spread = question.ask(observer, runs, outcomes_of(channel))
        asked += information
        variance += spread
        believed += question.ask(deceived, runs, outcomes_of(wrong))[0]
        observer.observe(runs, question, outcomes_of(channel), levels)
        deceived.observe(runs, question, outcomes_of(wrong), levels)
    difference = observer.bits_known(runs, secrets) - asked
    variance += observer.surprise_variance(runs)
    assert abs(difference.mean()) < 4 * np.sqrt(variance.sum()) / R + 1e-9
    assert difference.var() == pytest.approx(variance.mean(), rel=0.15)
    broken = deceived.bits_known(runs, secrets) - believed
    assert abs(broken.mean()) > 4 * broken.std() / np.sqrt(R)


@pytest.mark.parametrize(
    "question", [Partition(np.array([[0, 1, 0], [0, 1, 0]])), OneAgainstRest(np.array([1, 1]))]
)
def test_an_impossible_reward_is_refused(question):
    observer, noiseless = Observer(2, 3), Outcomes(2)
    observer.observe(np.array([1]), Partition(np.array([[0, 1, 1]])), noiseless, np.array([0]))
    with pytest.raises(ValueError, match=r"runs \[1\] got a reward that no secret explains"):
        observer.observe(np.array([0, 1]), question, noiseless, np.array([1, 1]))


def test_outcomes_must_be_distributions():
    with pytest.raises(ValueError, match="one distribution a class"):
        Outcomes(2, np.array([[0.5, 0.5], [0.5, 0.6]]))
