"""The learners of studies/ideas.py: their formulas against plain ones, and all in whole experiments."""

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from helpers import measured, stopped_at

import memory_rl
from memory_rl.learning.batch import Batch
from memory_rl.learning.own_learner import load_learner
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.reporting import pictures

FILE = Path(__file__).parents[2] / "studies" / "ideas.py"
NAMES = (
    "Surrogate",
    "Arms",
    "Mirror",
    "MirrorBest",
    "Record",
    "Scout",
    "Explorer",
    "Pulled",
    "Contrast",
)
GRADED = {"reward_type": "binned_log_distance", "reward_bins": 4, "memorised_at": 0.9, "stop_at": 0.99}
WORLDS = {
    "tabular": {"backend": "tabular", "num_runs": 4, "N": 16, "max_episodes": 200},
    "tiny": {"backend": "local", "num_runs": 2, "N": 8, "max_episodes": 24},
    "secrets": {
        "backend": "tabular",
        "num_runs": 2,
        "N": 8,
        "num_secrets": 3,
        "batch_size": 2,
        "max_episodes": 48,
    },
    "noise": {"backend": "tabular", "num_runs": 2, "N": 8, "reward_noise": 0.2, "max_episodes": 40},
}


@pytest.fixture(scope="module")
def ideas():
    spec = importlib.util.spec_from_file_location("ideas", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Drawing takes most of a small run's time."""
    monkeypatch.setattr(pictures, "draw_run", lambda _: [])


def train(name: str, learner: str, **settings) -> memory_rl.Result:
    return memory_rl.train(algorithm=f"{FILE}:{learner}", log_path=name, **{**GRADED, **settings})


def batch_of(answers, rewards, prompts=((0,),), runs=(0,), group: int | None = None) -> Batch:
    """Episodes of one turn each, from answers and rewards (R, E)."""
    answers, rewards = np.array(answers), np.array(rewards, dtype=float)
    returns = rewards.reshape(len(rewards), -1, group or rewards.shape[1], 1)
    zeros = np.zeros(len(runs), dtype=np.int64)
    return Batch(
        np.array(runs),
        np.array(prompts),
        answers[:, :, None],
        answers[:, :, None],
        zeros,
        rewards=rewards[:, :, None],
        returns=returns,
    )


def started(kind, num_runs: int = 1):
    learner = kind()
    learner.start(0, num_runs)
    return learner


class Fixed:
    """A policy with these log-probabilities (B, N) that notes what it is to do."""

    def __init__(self, log_probs):
        self._log_probs, self.done = np.array(log_probs), []

    def log_probs(self, runs, prompts):
        return self._log_probs[None].repeat(len(runs), axis=0)

    def distil(self, runs, prompts, targets, epochs):
        self.done.append((runs, targets))

    def update(self, batch, advantages, learner):
        self.done.append((batch.choices[:, :, 0], advantages[:, :, 0]))

    def sample(self, runs, prompts, num_episodes):
        choices = np.zeros((len(runs), num_episodes, 1), dtype=np.int64)
        return Batch(runs, prompts, choices, choices.copy(), runs)

    def demonstrate(self, runs, prompts, forms):
        return Batch(runs, prompts, forms[:, :, None], forms[:, :, None], runs)


UNIFORM = np.log(np.full((1, 4), 0.25))


# Whole experiments


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_moves_the_policy_and_resumes_to_the_same_bytes(name, world):
    settings = WORLDS[world]
    whole = train("whole", name, **settings)
    assert whole.metrics["bits_known"].n_unique() > settings["num_runs"]
    with stopped_at(12):
        train("stopped", name, checkpoint_every=0, **settings)
    train("stopped", name, resume=True, **settings)
    assert measured("stopped") == measured("whole")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_does_not_depend_on_the_others(name):
    few = train("few", name, **WORLDS["noise"]).metrics
    many = train("many", name, **{**WORLDS["noise"], "num_runs": 4}).metrics
    rows = many.filter(pl.col("run") < 2)
    assert few["bits_known"].to_numpy() == pytest.approx(rows["bits_known"].to_numpy(), abs=1e-9)


def test_bits_of_several_turns_are_one_answer():
    settings = {"env_type": "multi_step", "credit": "episode", **WORLDS["tabular"]}
    result = memory_rl.train(algorithm=f"{FILE}:Surrogate", **settings)
    assert next(iter(result.summary.values()))["memorised"] == 4


def test_graded_rewards_are_absorbed_where_policy_gradient_needs_many_more_episodes():
    settings = {**GRADED, **WORLDS["tabular"], "N": 64, "num_runs": 16, "reward_bins": 8, "max_episodes": 400}
    ours = train("ours", "Surrogate", **settings)
    plain = memory_rl.train(algorithm="reinforce", log_path="plain", **settings)
    rates = [next(iter(result.summary.values()))["bits_per_episode"] for result in (ours, plain)]
    assert rates[0]["ci95"][0] > 10 * rates[1]["estimate"]


@pytest.mark.parametrize("name", NAMES)
def test_the_check_of_own_learners_accepts_it(name):
    assert not load_learner(f"{FILE}:{name}").silent_if_equal


# The memory


def test_the_memory_holds_counts_means_and_squares_by_run_and_secret(ideas):
    random, seen = np.random.default_rng(0), ideas.Seen(3)
    history = []
    for _ in range(20):
        prompts = random.integers(2, size=(2, 2))
        answers, rewards = random.integers(-1, 4, size=(2, 6)), random.normal(5, 1, size=(2, 6))
        batch = batch_of(answers, rewards, prompts, runs=(0, 2))
        seen.add(batch, 4)
        each = zip(
            np.repeat(batch.runs, 6), batch.asked.ravel(), answers.ravel(), rewards.ravel(), strict=True
        )
        history += each
    for run, secret, answer in np.ndindex(3, 2, 4):
        of = np.array([one[3] for one in history if one[:3] == (run, secret, answer)])
        assert seen.counts[run, secret, answer] == len(of)
        if len(of):
            assert seen.means[run, secret, answer] == pytest.approx(of.mean())
            assert seen.squares[run, secret, answer] == pytest.approx(((of - of.mean()) ** 2).sum())


# The model of the rewards


ANSWERS, REWARDS = np.array([1, 1, 4, 7, 7, 7]), np.array([0.2, 0.3, 0.9, 0.5, 0.45, 0.7])


@pytest.fixture(scope="module")
def process(ideas):
    return ideas.Process(9, (0.0, 0.3), (0.1, 2.0))


@pytest.fixture(scope="module")
def fit(process):
    of = [REWARDS[answer == ANSWERS] for answer in range(9)]
    means = np.array([one.mean() if len(one) else 0 for one in of])
    squares = np.array([((one - one.mean()) ** 2).sum() if len(one) else 0 for one in of])
    return process.fit(np.array([len(one) for one in of]), means, squares)


def plain_kernel(length: float) -> np.ndarray:
    far = np.abs(np.subtract.outer(np.arange(9), np.arange(9))) / 9
    return 1 + (np.exp(-far / length) if length else np.eye(9))


HYPOTHESES = [(0.0, 0.1), (0.0, 2.0), (0.3, 0.1), (0.3, 2.0)]


def test_its_evidence_is_that_of_a_multivariate_t_distribution(fit):
    """Of the single rewards, not of their means; the common factors are those of no hypothesis."""
    plain = []
    for length, noise in HYPOTHESES:
        shape = plain_kernel(length)[ANSWERS[:, None], ANSWERS] + noise * np.eye(6)
        values = REWARDS - REWARDS.mean()
        plain.append(scipy.stats.multivariate_t(shape=1e-3 * shape, df=2).logpdf(values))
    assert fit.evidence - fit.evidence[0] == pytest.approx(np.array(plain) - plain[0], abs=1e-9)


@pytest.mark.parametrize("one", range(4))
def test_its_draws_have_the_mean_and_covariance_of_a_gaussian_process(process, fit, one):
    length, noise = HYPOTHESES[one]
    kernel = plain_kernel(length)
    inverse = np.linalg.inv(kernel[ANSWERS[:, None], ANSWERS] + noise * np.eye(6))
    values, cross = REWARDS - REWARDS.mean(), kernel[:, ANSWERS]
    scale = (1e-3 + values @ inverse @ values / 2) / (1 + 6 / 2 - 1)  # the mean of an inverse gamma
    mean, covariance = cross @ inverse @ values, scale * (kernel - cross @ inverse @ cross.T)
    drawn = process.draw(fit, one, 200_000, np.random.default_rng(0))
    errors = np.sqrt(np.diag(covariance) / len(drawn))
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * errors).all()
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.03 * covariance.max())


def test_a_belief_is_how_often_an_answer_is_the_best_of_a_draw(process, fit):
    counts = process.best_of_draws(fit, 4000, np.random.default_rng(0))
    weights = scipy.special.softmax(fit.evidence)
    best = [
        np.bincount(process.draw(fit, one, 4000, np.random.default_rng(1)).argmax(axis=1), minlength=9) / 4000
        for one in range(4)
    ]
    assert counts.sum() == 4000
    assert counts / 4000 == pytest.approx(weights @ np.array(best), abs=0.04)


def test_a_secret_of_which_nothing_valid_was_seen_keeps_a_uniform_belief(ideas):
    learner, policy = started(ideas.Surrogate), Fixed(UNIFORM)
    learner.learn(policy, batch_of([[-1, -1]], [[0, 0]]))
    assert policy.done[0][1] == pytest.approx(np.full((1, 1, 4), 0.25))


# Steps in the space of answers


def test_the_target_is_the_best_distribution_near_the_policy(ideas):
    random = np.random.default_rng(0)
    log_probs, gains, eta = np.log(random.dirichlet(np.ones(5))), random.normal(size=5), 0.3

    def worth(logits):
        p = scipy.special.softmax(logits)
        return -(p @ gains - eta * p @ (np.log(p) - log_probs))

    found = scipy.special.softmax(scipy.optimize.minimize(worth, np.zeros(5), tol=1e-12).x)
    assert ideas.tilted(log_probs, gains, eta) == pytest.approx(found, abs=1e-5)


def test_enough_steps_of_a_table_reach_the_target(ideas):
    class Long(ideas.Mirror):
        epochs = 400

    policy = TabularPolicy(np.arange(4)[:, None], 4, num_runs=1, optimiser="sgd", learning_rate=1.0, seed=0)
    learner = started(Long)
    learner.learn(policy, batch_of([[0, 1, 1, -1]], [[1, 0, 0.4, 0.2]]))
    gains = np.array([0.6, -0.4, 0, 0])  # less 0.4; the second came twice, with -0.4 and 0
    closed = np.exp(gains / Long.eta) / np.exp(gains / Long.eta).sum()
    assert np.exp(policy.log_probs(np.array([0]), np.array([[0]])))[0, 0] == pytest.approx(closed, abs=1e-6)


def test_blocks_about_one_secret_have_one_target_and_equal_rewards_none(ideas):
    learner, policy = started(ideas.Mirror, 2), Fixed(np.repeat(UNIFORM, 2, axis=0))
    rewards = [[1, 0, 3, 1], [0.1 + 0.2, 0.3, 1, 1]]
    learner.learn(policy, batch_of([[0, 1, 0, 2]] * 2, rewards, [[0, 0], [0, 1]], runs=(0, 1), group=2))
    ((runs, targets),) = policy.done
    closed = scipy.special.softmax(np.array([1.5, -0.5, -1.0, 0]) / learner.eta)
    assert runs.tolist() == [0]
    assert targets == pytest.approx(np.array([[closed, closed]]))


def test_what_is_not_the_best_so_far_moves_down_alone(ideas):
    learner, policy = started(ideas.MirrorBest), Fixed(UNIFORM)
    learner.learn(policy, batch_of([[0, 1]], [[0.2, 0.7]]))
    learner.learn(policy, batch_of([[2, 2]], [[0.5, 0.5]]))
    learner.learn(policy, batch_of([[1, 1]], [[0.7, 0.7]]))  # the best itself: nothing moves
    gains = np.array([[-0.5, 0, 0, 0], [0, 0, -0.4, 0]])
    wanted = [scipy.special.softmax(of / learner.eta)[None, None] for of in gains]
    assert [targets for _, targets in policy.done] == [pytest.approx(one) for one in wanted]


# Records, proposals and pairs


def test_a_record_is_the_best_mean_and_not_the_best_reward(ideas):
    learner, policy = started(ideas.Record), Fixed(UNIFORM)
    learner.learn(policy, batch_of([[0, 1, 2, -1]], [[1, 0.6, 0, 5]]))
    learner.learn(policy, batch_of([[0, 1, 0, 0]], [[0, 0.6, 0, 0]]))
    assert policy.done[0][1].tolist() == [[0.75, -0.25, -0.25, -0.25]]
    assert policy.done[1][1].tolist() == [[-0.25, 0.75, -0.25, -0.25]]


def test_proposals_are_of_the_mixture_and_weighted_by_it(ideas):
    probabilities = np.array([[0.7, 0.2, 0.1, 0.0]])
    learner, policy = started(ideas.Explorer, 8), Fixed(np.log(probabilities.clip(1e-12)))
    runs, prompts = np.arange(8), np.zeros((8, 1), dtype=np.int64)
    answers = learner.sample(policy, runs, prompts, 2000).choices[:, :, 0]  # the policy's own are all 0
    shares = np.bincount(answers.ravel(), minlength=4) / answers.size
    assert shares == pytest.approx([0.75 + 0.25 / 4, 0.25 / 4, 0.25 / 4, 0.25 / 4], abs=0.012)
    learner.learn(policy, batch_of([[0, 1, 2, 3, -1]], [[4, 0, 0, 0, 1]]))
    mixture = 0.75 * probabilities[0] + 0.25 / 4
    weights = np.append(np.minimum(probabilities[0] / mixture, 1), 1)
    assert policy.done[-1][1][0] == pytest.approx(weights * [3, -1, -1, -1, 0], abs=1e-9)
    assert weights[0] == 1  # truncated: 0.7 is more than the mixture gives
    pulled = started(ideas.Pulled)
    pulled.learn(policy, batch_of([[0, 1, 2, 3, -1]], [[4, 0, 0, 0, 1]]))
    assert policy.done[-1][1][0] == pytest.approx([3, -1, -1, -1, 0])


def test_a_scout_tries_the_least_tried_repeats_the_record_and_asks_the_policy(ideas):
    learner, policy = started(ideas.Scout, 4), Fixed(UNIFORM)
    runs, prompts = np.arange(4), np.zeros((4, 1), dtype=np.int64)
    first = learner.sample(policy, runs, prompts, 1000).choices[:, :, 0]  # the policy's own are all 0
    assert np.bincount(first.ravel(), minlength=4) / 4000 == pytest.approx(
        [5 / 8, 1 / 8, 1 / 8, 1 / 8], abs=0.03
    )
    learner.learn(policy, batch_of([[0, 1, 2, 3]] * 4, [[0, 1, 0, 0]] * 4, [[0]] * 4, runs))
    learner.learn(policy, batch_of([[0, 1, 3]] * 4, [[0, 1, 0]] * 4, [[0]] * 4, runs))
    later = learner.sample(policy, runs, prompts, 1000).choices[:, :, 0]
    assert np.bincount(later.ravel(), minlength=4) / 4000 == pytest.approx([1 / 4, 1 / 4, 1 / 2, 0], abs=0.03)


def test_pairs_put_the_best_and_the_unseen_above_what_is_beaten(ideas):
    learner, policy = started(ideas.Contrast), Fixed(UNIFORM)
    learner.learn(policy, batch_of([[1, 1]], [[0.5, 0.5]]))  # nothing is beaten: the unseen are preferred
    learner.learn(policy, batch_of([[0, 1]], [[0.2, 0.5]]))
    first, later = (pairs.reshape(-1, 2) for pairs, _ in policy.done)
    assert set(first[:, 0]) == {0, 2, 3}
    assert set(first[:, 1]) == {1}
    assert set(later[:8, 0]) == {1}
    assert {2, 3} <= set(later[8:, 0]) <= {1, 2, 3}
    assert set(later[:, 1]) == {0}


def test_without_a_pair_nothing_moves(ideas):
    learner, policy = started(ideas.Contrast), Fixed(UNIFORM)
    learner.learn(policy, batch_of([[-1, -1]], [[0, 0]]))
    learner.learn(policy, batch_of([[0, 1, 2, 3]], [[1, 1, 1, 1]]))
    assert [advantages.any() for _, advantages in policy.done] == [False, False]


def test_the_loss_of_pairs_is_that_of_a_logistic_choice(ideas):
    log_probs = torch.tensor([[[-1.0, -0.5], [-2.0, -0.5], [-0.1, -0.1], [-3.0, 0.0]]])
    loss = ideas.Contrast().loss(log_probs, log_probs, torch.tensor([[[1.0, 1.0]] * 2 + [[0.0, 0.0]] * 2]))
    assert loss.item() == pytest.approx(
        np.log1p(np.exp(-1.0)) / 2
    )  # -1.5 against -2.5; the other has no weight
