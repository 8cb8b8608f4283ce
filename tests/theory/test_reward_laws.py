"""Laws of pass rates and entropies of rewards, against enumeration, closed forms, scipy and simulation."""

from itertools import product

import numpy as np
import pytest
from scipy import integrate, optimize
from scipy.stats import beta as beta_distribution
from scipy.stats import betabinom, binom

from memory_rl.information import reward_entropy, reward_laws
from memory_rl.information.reward_laws import POINTS

RATES = np.array([0.0, 0.05, 0.18, 0.5, 0.9, 1.0])


def entropy_of(probabilities):
    positive = np.array([p for p in probabilities if p > 0])
    return float(-(positive * np.log2(positive)).sum())


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("scaled", [False, True])
def test_advantages_carry_the_entropy_of_their_law(size, scaled):
    """All 2^G outcomes, each with the advantages that it gives."""
    for rate in RATES:
        law: dict[tuple[float, ...], float] = {}
        for rewards in product((0.0, 1.0), repeat=size):
            advantages = np.array(rewards) - np.mean(rewards)
            if scaled:
                advantages /= np.std(rewards, ddof=1) + 1e-4
            key = tuple(advantages.round(9) + 0.0)
            law[key] = law.get(key, 0.0) + rate ** sum(rewards) * (1 - rate) ** (size - sum(rewards))
        found = reward_laws.advantage_bits(np.array([rate]), np.ones(1), size)
        assert found == pytest.approx(entropy_of(law.values()) / size, abs=1e-12)


def test_silent_groups_are_those_of_the_known_table():
    """1 - p^G - (1 - p)^G at p = 0.18: 0.2952, 0.5468, 0.7956 carry a signal."""
    for size, signal in {2: 0.2952, 4: 0.54682, 8: 0.79559}.items():
        found = reward_laws.silent_chance(np.array([0.18]), np.ones(1), size)
        assert found == pytest.approx(1 - signal, abs=1e-4)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.8), (1.0, 1.0), (5.0, 20.0)])
def test_a_beta_law_integrates_exactly(a, b):
    points, weights = reward_laws.beta_law(a, b)
    for size in (1, 2, 8, 64, 500):
        assert weights @ points**size == pytest.approx(betabinom.pmf(size, size, a, b), rel=1e-9)
    told = beta_distribution(a, b).expect(lambda p: entropy_of([p, 1 - p]))
    assert reward_laws.expected_entropy(points, weights) == pytest.approx(told, abs=1e-4)


@pytest.mark.parametrize("rates", ["spread", "one", "mixed sizes"])
def test_the_beta_law_is_the_likeliest_of_scipy(rates):
    random = np.random.default_rng(1)
    sizes = random.choice([4, 16], 400) if rates == "mixed sizes" else np.full(400, 8)
    hits = random.binomial(sizes, 0.3 if rates == "one" else random.beta(0.4, 1.1, 400))
    kinds, counts = np.unique(np.stack([sizes, hits]), axis=1, return_counts=True)

    def loss(logs):
        return -counts @ betabinom.logpmf(kinds[1], kinds[0], *np.exp(np.clip(logs, -5, 8)))

    a, b = reward_laws.fit_beta(kinds[0], kinds[1], counts)
    best = min(optimize.minimize(loss, start, method="Nelder-Mead").fun for start in ([0, 0], [2, 3]))
    assert loss(np.log([a, b])) <= best + 1e-3
    several = reward_laws.fit_beta(kinds[0], kinds[1], np.stack([counts, counts[::-1]]), (a, b))
    assert several[0][0] == pytest.approx(a, rel=1e-3)


def test_likelihoods_are_binomial():
    sizes, hits = np.array([4, 8, 8]), np.array([0, 3, 8])
    found = reward_laws.likelihoods(sizes, hits)
    assert found == pytest.approx(binom.pmf(hits[:, None], sizes[:, None], POINTS[None]), abs=1e-12)


def test_a_step_of_the_fit_is_bayes_rule():
    """By hand: two points, one group with a hit and one without."""
    likely = np.array([[0.2, 0.9], [0.8, 0.1]])
    found = reward_laws.fit_law(likely, np.array([1.0, 1.0]), np.array([0.5, 0.5]), steps=1)
    assert found == pytest.approx([(0.1 / 0.55 + 0.4 / 0.45) / 2, (0.45 / 0.55 + 0.05 / 0.45) / 2])


def test_the_fit_finds_prompts_that_never_vary():
    """With exact counts of a law that is no Beta law: a third never passes, the rest half of the time."""
    hits, sizes = np.arange(17), np.full(17, 16)
    counts = binom.pmf(hits, 16, 0.0) / 3 + 2 * binom.pmf(hits, 16, 0.5) / 3
    start = reward_laws.spread_beta(*reward_laws.fit_beta(sizes, hits, counts))
    weights = reward_laws.fit_law(reward_laws.likelihoods(sizes, hits), counts, start)
    assert weights[POINTS < 0.05].sum() == pytest.approx(1 / 3, abs=0.01)
    assert reward_laws.expected_entropy(POINTS, weights) == pytest.approx(2 / 3, abs=0.02)


def test_the_chance_of_change_is_that_of_a_beta_prior():
    """After n misses the posterior of Beta(a, b) is Beta(a, b + n); then a group of G."""
    a, b, size = 0.6, 1.4, 8
    points, weights = reward_laws.beta_law(b, a)  # of a miss
    found = reward_laws.chance_of_change(points, weights, np.array([4, 40]), size)
    for value, seen in zip(found, (4, 40), strict=True):
        assert value == pytest.approx(1 - betabinom.pmf(0, size, a, b + seen), rel=1e-6)


def summed(part, counts):
    """An estimate for a group with these counts of its levels."""
    hits = np.array(counts)
    return float(part(np.full(len(hits), hits.sum()), hits).sum())


def test_plug_in_and_miller_madow_by_hand():
    counts = [5, 2, 1, 0]
    plug_in = entropy_of(np.array(counts) / 8)
    assert summed(reward_entropy.plug_in, counts) == pytest.approx(plug_in)
    assert summed(reward_entropy.miller_madow, counts) == pytest.approx(plug_in + 2 / (16 * np.log(2)))


def test_grassberger_by_his_recursion():
    """G_1 = -gamma - ln 2, G_2 = 2 - gamma - ln 2, G_(2n+1) = G_(2n), G_(2n+2) = G_(2n) + 2 / (2n + 1)."""
    terms = {1: -np.euler_gamma - np.log(2), 2: 2 - np.euler_gamma - np.log(2)}
    for n in range(3, 9):
        terms[n] = terms[n - 1] if n % 2 else terms[n - 2] + 2 / (n - 1)
    for counts in ([5, 2, 1], [8, 0], [4, 4]):
        known = np.log(8) - sum(n * terms[n] for n in counts if n) / 8
        assert summed(reward_entropy.grassberger, counts) == pytest.approx(known / np.log(2))


def test_the_posterior_means_are_integrals():
    sizes, hits, a, b = np.array([8, 8]), np.array([0, 3]), 0.7, 1.9
    found = reward_entropy.under_beta(sizes, hits, a, b)
    points, weights = reward_laws.beta_law(a, b)
    likely = reward_laws.likelihoods(sizes, hits, points)
    for place in range(2):
        posterior = beta_distribution(a + hits[place], b + 8 - hits[place])
        known, _ = integrate.quad(lambda p: -p * np.log2(p) * posterior.pdf(p), 0, 1)  # noqa: B023
        assert found[place] == pytest.approx(known, rel=1e-4)
        assert reward_entropy.under_law(likely, weights, points)[place] == pytest.approx(known, rel=1e-3)


def third_constant(random, prompts):
    return np.where(random.random(prompts) < 1 / 3, 0.0, random.beta(2, 2, prompts))


def of_levels(law):
    """Pass rates as the probabilities of two levels."""
    return lambda random, prompts: np.stack([1 - (p := law(random, prompts)), p], axis=1)


def mostly_one_level(random, prompts):
    probabilities = random.dirichlet([1.0] * 3, prompts)
    constant = random.random(prompts)
    probabilities[constant < 0.2] = [1, 0, 0]
    probabilities[(constant > 0.2) & (constant < 0.35)] = [0, 1, 0]
    return probabilities


LAWS = {
    "spread": of_levels(lambda random, prompts: random.beta(0.5, 0.5, prompts)),
    "hard": of_levels(lambda random, prompts: random.beta(0.2, 0.6, prompts)),
    "one rate": of_levels(lambda random, prompts: np.full(prompts, 0.18)),
    "a third constant": of_levels(third_constant),
    "two rates": of_levels(lambda random, prompts: random.choice([0.1, 0.7], prompts)),
    "graded": lambda random, prompts: random.dirichlet([0.5] * 4, prompts),
    "graded, a third constant": mostly_one_level,
}


def estimates(law, size, prompts, runs, seed=0):
    """The truth, and for each run the plug-in, the Beta law's and the fitted law's estimate."""
    random = np.random.default_rng(seed)
    hits, sizes = np.arange(size + 1), np.full(size + 1, size)
    likely, found = reward_laws.likelihoods(sizes, hits), np.zeros((runs, 3))
    many = law(random, 200_000)
    for run in range(runs):
        drawn = random.multinomial(size, law(random, prompts))
        for level in range(drawn.shape[1]):
            counts = np.bincount(drawn[:, level], minlength=size + 1)
            a, b = reward_laws.fit_beta(sizes, hits, counts)
            weights = reward_laws.fit_law(likely, counts, reward_laws.spread_beta(a, b))
            parts = (
                reward_entropy.plug_in(sizes, hits),
                reward_entropy.under_beta(sizes, hits, a, b),
                reward_entropy.under_law(likely, weights, POINTS),
            )
            found[run] += [counts @ part / prompts for part in parts]
    return float(np.mean([entropy_of(one) for one in many[:50_000]])), found


@pytest.mark.parametrize("name", LAWS)
def test_the_quoted_entropy_is_within_a_hundredth_of_a_bit(name):
    """G = 8, 500 prompts; the mean over 60 runs, whose own error is 0.003 bits at most."""
    truth, found = estimates(LAWS[name], 8, 500, 60)
    plug_in, _, quoted = found.mean(axis=0) - truth
    assert abs(quoted) < 0.01
    assert plug_in < -0.04  # what is corrected


def test_a_fit_is_the_same_where_denormal_numbers_are_zero():
    """SciPy's betaln is infinite there, for a + b of 165 to 171."""
    import torch

    sizes, hits = np.full(9, 8), np.arange(9)
    counts = np.array([0, 0, 0, 5, 16, 66, 140, 173, 100])
    usual = reward_laws.fit_beta(sizes, hits, counts)
    torch.set_flush_denormal(True)
    try:
        flushed = reward_laws.fit_beta(sizes, hits, counts)
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_allclose(flushed, usual, rtol=1e-6)
    assert sum(usual) > 60
