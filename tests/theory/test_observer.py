"""The ideal observer against Bayes by brute force, and the law that its information adds up."""

import numpy as np
import pytest

from memory_rl.information.entropy import entropy, mutual_information
from memory_rl.information.observer import Observer
from memory_rl.task.rewards import INVALID, make_channel

CHANNELS = [("binary", None, 0.0), ("log_distance", None, 0.2), ("binned_log_distance", 4, 0.0), ("binned_log_distance", 4, 0.3), ("binary", None, 0.1)]


def brute_force_information(prior, likelihoods) -> float:
    """I(S; R) by its definition, term by term."""
    total = 0.0
    for level in range(likelihoods.shape[1]):
        marginal = sum(prior[s] * likelihoods[s, level] for s in range(len(prior)))
        for s in range(len(prior)):
            joint = prior[s] * likelihoods[s, level]
            if joint > 0:
                total += joint * np.log2(joint / (prior[s] * marginal))
    return total


def test_entropy_and_information_by_their_definitions():
    rng = np.random.default_rng(0)
    assert entropy(np.array([0.5, 0.25, 0.25, 0.0])) == 1.5
    for _ in range(20):
        prior, likelihoods = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(3), size=5)
        likelihoods[0] = [0, 1, 0]
        assert mutual_information(prior, likelihoods) == pytest.approx(brute_force_information(prior, likelihoods))


@pytest.mark.parametrize(("reward_type", "bins", "noise"), CHANNELS)
def test_the_posterior_is_bayes(reward_type, bins, noise):
    N, episodes, rng = 11, 6, np.random.default_rng(1)
    channel = make_channel(reward_type, N, bins, noise)
    answers, secrets = rng.integers(N, size=episodes), np.array([7])
    answers[2] = INVALID
    rewards = channel.rewards(answers, secrets, rng.random(episodes))
    observer = Observer(1, N)
    posterior = np.full(N, 1 / N)
    for answer, reward in zip(answers, rewards, strict=True):
        level = int(np.nonzero(channel.levels == reward)[0][0])
        observer.observe(np.array([0]), channel.likelihoods(np.array([[answer]]), np.arange(N))[..., level])
        for s in range(N):
            truth = channel.levels[0] if answer == INVALID else channel.rewards(np.array(answer), np.array(s), np.array(1.0))
            others = len(channel.levels) - 1
            posterior[s] *= 1 - noise if reward == truth else noise / others
        posterior /= posterior.sum()
        np.testing.assert_allclose(np.exp(observer.log_posterior[0]), posterior, atol=1e-12)
    assert observer.bits_known(secrets)[0] == pytest.approx(np.log2(N * posterior[7]))


@pytest.mark.parametrize(("reward_type", "bins", "noise"), CHANNELS)
def test_bits_known_are_the_information_of_the_questions_asked(reward_type, bins, noise):
    """The chain rule, averaged over uniform secrets; a wrong likelihood breaks it."""
    N, R, rng = 16, 4000, np.random.default_rng(2)
    channel, runs = make_channel(reward_type, N, bins, noise), np.arange(4000)
    secrets = rng.integers(N, size=R)
    wrong = make_channel(reward_type, N, bins, min(0.9, noise + 0.3))
    observer, deceived = Observer(R, N), Observer(R, N)
    asked, believed = np.zeros(R), np.zeros(R)
    for _ in range(5):
        answers = rng.integers(N, size=R)
        rewards = channel.rewards(answers, secrets, rng.random(R))
        levels = (rewards[:, None] == channel.levels).argmax(axis=1)
        for mind, law, total in ((observer, channel, asked), (deceived, wrong, believed)):
            likelihoods = law.likelihoods(answers[:, None], np.arange(N))  # (R, N, L)
            total += mind.expected_information(runs, likelihoods)
            mind.observe(runs, np.take_along_axis(likelihoods, levels[:, None, None], axis=2)[:, :, 0])
    difference = observer.bits_known(secrets) - asked
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(R) + 1e-9
    broken = deceived.bits_known(secrets) - believed
    assert abs(broken.mean()) > 4 * broken.std() / np.sqrt(R)


def test_an_impossible_reward_is_refused():
    observer = Observer(2, 3)
    observer.observe(np.array([1]), np.array([[1.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"runs \[1\] got a reward that no secret explains"):
        observer.observe(np.array([0, 1]), np.array([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))
