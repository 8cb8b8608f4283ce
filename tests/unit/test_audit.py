"""What an audit counts and says: against groups counted by hand, and on runs whose pass rates are known."""

import inspect
import json

import numpy as np
import polars as pl
import pytest
from audit_helpers import drawn, groups_of, pass_or_fail, rollouts_of
from scipy.stats import binom

import memory_rl
from memory_rl.cli import main
from memory_rl.information.reward_laws import advantage_bits, expected_entropy, silent_chance
from memory_rl.keys import keys_of
from memory_rl.reporting.audit_words import sentences_of
from memory_rl.reporting.settings import AuditConfig
from memory_rl.rollouts.account import account_run
from memory_rl.rollouts.groups import group_rollouts
from memory_rl.rollouts.stretch import BATCHES, Stretch

GRADED = pl.DataFrame(
    [
        *((1, "a", reward, 10) for reward in (0.0, 0.0, 0.0, 0.0)),  # all wrong
        *((1, "b", reward, 10) for reward in (0.5, 0.5, 0.5, 0.5)),  # all the same in between
        *((2, "a", reward, 20) for reward in (1.0, 1.0, 1.0, 1.0)),  # all right
        *((2, "c", reward, 20) for reward in (0.0, 0.5, 1.0, 1.0)),
        *((2, "d", reward, 20) for reward in (1.0, 0.1 + 0.2, 0.3, 1.0)),  # equal but for rounding
    ],
    schema=["step", "prompt", "reward", "tokens"],
    orient="row",
)


def account(table, stretches=10, group_size=None):
    rollouts = rollouts_of(table.with_columns(pl.col("prompt").hash()))
    return account_run(rollouts, group_rollouts(rollouts, group_size), stretches)


def test_groups_are_counted_by_hand():
    whole = account(GRADED).whole
    shares = [one.value for one in (whole.silent, whole.right, whole.wrong, whole.between)]
    assert shares == pytest.approx([0.6, 0.2, 0.2, 0.2])
    assert (whole.rollouts, whole.groups, whole.prompts, whole.silent_rollouts) == (20, 5, 4, 12)
    assert (whole.tokens, whole.silent_tokens) == (320, 160)
    assert whole.reward.value == pytest.approx((2 + 4 + 2.5 + 2.6) / 20)
    entropies = [0, 0, 0, 1.5, 1]  # bits of the shares seen
    assert whole.estimators["plug_in"] == pytest.approx(np.mean(entropies))


def test_large_groups_that_a_resample_lacks_leave_no_hole():
    """Two prompts far apart: the law of one alone gives the other's counts a probability of 0."""
    found = account(drawn(pass_or_fail([0.3, 0.9]), 3000, 1, np.random.default_rng(0)))
    entropies = [-p * np.log2(p) - (1 - p) * np.log2(1 - p) for p in (0.3, 0.9)]
    assert found.whole.bits.value == pytest.approx(np.mean(entropies), abs=0.01)
    assert found.whole.bits.low == pytest.approx(entropies[1], abs=0.02)
    assert found.whole.bits.high == pytest.approx(entropies[0], abs=0.02)


def test_long_rollouts_keep_the_digits_of_their_bits_a_token(tmp_path):
    table = drawn(pass_or_fail([0.5] * 30), 8, 2, np.random.default_rng(0))
    path = tmp_path / "run.parquet"
    table.with_columns(pl.lit(20_000).alias("tokens")).write_parquet(path)
    found = memory_rl.audit(path)
    assert found.delivered_bits_per_rollout.value == pytest.approx(1, abs=0.02)
    assert found.sheet().rows[-1][found.sheet().headings.index("per 1,000\ntokens")][:4] == "0.04"


def test_prompts_that_never_vary_are_counted_over_all_steps():
    """a is all wrong and then all right: silent each time, and yet not constant."""
    found = account(GRADED).unvarying
    assert (found.prompts, found.right, found.wrong, found.rollouts, found.tokens) == (1, 0, 0, 4, 40)
    assert found.share.value == pytest.approx(0.25)


def test_stretches_have_the_steps_of_their_own():
    table = drawn(pass_or_fail([0.2, 0.5, 0.9]), 4, 7, np.random.default_rng(0))
    found = account(table, stretches=3)
    assert [(one.first_step, one.last_step) for one in found.stretches] == [(0, 2), (3, 4), (5, 6)]
    assert sum(one.rollouts for one in found.stretches) == found.whole.rollouts == 84


def test_groups_of_mixed_sizes_count_with_their_own(tmp_path):
    table = drawn(pass_or_fail([0.5] * 40), 8, 1, np.random.default_rng(0))
    small = drawn(pass_or_fail([0.5] * 10), 4, 1, np.random.default_rng(1))
    small = small.with_columns(step=pl.lit(1, pl.Int64))
    alone = pl.DataFrame({"step": [2], "prompt": [0], "reward": [1.0]})
    mixed = pl.concat([table, small, alone.cast(dict(table.schema))])
    groups = groups_of(mixed)
    assert "1 group has one reward and is left out." in groups.notes
    assert "Groups have 4 to 8 rewards, 80 % of them 8; each counts with its own size." in groups.notes
    whole = Stretch(groups, groups.frame)
    carried = [whole.advantage_bits_at(size)[0] for size in (4, 8)]
    assert whole.advantage_bits()[0] == pytest.approx((40 * carried[0] + 320 * carried[1]) / 360)


def test_the_law_reproduces_the_table_of_silent_groups():
    """1 - p^G - (1 - p)^G at p = 0.18, from 3,000 groups of 8."""
    table = drawn(pass_or_fail(np.full(3000, 0.18)), 8, 1, np.random.default_rng(3))
    for one in account(table, 1).others:
        known = 0.18**one.size + 0.82**one.size
        assert one.silent.value == pytest.approx(known, abs=0.012)


def test_silent_at_the_own_size_is_what_was_counted():
    table = drawn(pass_or_fail(np.random.default_rng(5).random(800)), 8, 1, np.random.default_rng(4))
    groups = groups_of(table)
    whole = Stretch(groups, groups.frame)
    assert whole.silent_at(8)[0] == pytest.approx(whole.share("silent").value, abs=0.003)


def truths(law, size, random):
    """Bits a rollout and the share of silent groups."""
    many = law(200_000, random)
    logs = np.log2(np.where(many > 0, many, 1.0))
    return float(-(many * logs).sum(axis=1).mean()), float((many**size).sum(axis=1).mean())


def spread(prompts, random):
    return pass_or_fail(random.beta(0.5, 0.5, prompts))


def third_constant(prompts, random):
    return pass_or_fail(np.where(random.random(prompts) < 1 / 3, 0, random.beta(2, 2, prompts)))


def graded(prompts, random):
    return random.dirichlet([0.5] * 4, prompts)


def covered(law, runs, prompts=500, size=8, steps=1, seed=0):
    """How many of the intervals of bits and of silent groups hold the truth."""
    random = np.random.default_rng(seed)
    bits, silent = truths(law, size, random)
    hits = np.zeros(2, int)
    for _ in range(runs):
        groups = groups_of(drawn(law(prompts, random), size, steps, random))
        whole = Stretch(groups, groups.frame)
        for place, (found, known) in enumerate(
            ((whole.estimate(whole.bits()), bits), (whole.share("silent"), silent))
        ):
            hits[place] += found.low <= known <= found.high
    return hits


@pytest.mark.parametrize("law", [spread, third_constant, graded])
def test_intervals_cover(law):
    """Of 12 runs, so few in a hundred of those that cover 90 % would have."""
    assert (covered(law, 12) >= binom.ppf(0.005, 12, 0.9)).all()


@pytest.mark.slow
@pytest.mark.parametrize("law", [spread, third_constant, graded])
@pytest.mark.parametrize(("prompts", "steps"), [(500, 1), (100, 5)])
def test_intervals_cover_between_90_and_98_percent(law, prompts, steps):
    runs = 300
    found = covered(law, runs, prompts, 8, steps, seed=1) / runs
    error = np.sqrt(0.9 * 0.1 / runs)
    assert (found > 0.9 - error).all()
    assert (found < 0.98 + error).all()


def test_many_prompts_are_resampled_in_batches_that_say_the_same():
    """The interval of a share over more prompts than there are batches is the binomial one."""
    random = np.random.default_rng(0)
    groups = groups_of(drawn(pass_or_fail(np.full(3 * BATCHES, 0.3)), 4, 1, random))
    whole = Stretch(groups, groups.frame)
    assert whole.num_batches == BATCHES
    share = whole.share("silent")
    known = 1.96 * np.sqrt(share.value * (1 - share.value) / (3 * BATCHES))
    assert (share.high - share.low) / 2 == pytest.approx(known, rel=0.15)


def test_prompts_that_come_again_widen_the_interval():
    """Ten groups of each of 50 prompts tell less of other prompts than 500 prompts do."""
    random = np.random.default_rng(0)
    rates = random.beta(0.5, 0.5, 50)
    again = groups_of(drawn(pass_or_fail(rates), 8, 10, random))
    apart = groups_of(drawn(pass_or_fail(np.repeat(rates, 10)), 8, 1, random))
    wide, narrow = (Stretch(one, one.frame).share("silent") for one in (again, apart))
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def save(table, path):
    table.write_csv(path)
    return path


def test_a_third_of_constant_prompts_is_named_first(tmp_path, capsys):
    random = np.random.default_rng(0)
    rates = np.where(np.arange(90) < 30, 0.0, random.uniform(0.4, 0.6, 90))
    path = save(drawn(pass_or_fail(rates), 8, 6, random), tmp_path / "run.csv")
    assert main(["audit", str(path)]) == 0
    first, second = capsys.readouterr().out.split("\n")[:2]
    assert first.startswith("The reward never varied on 30 of 90 prompts, 33 % [")
    assert "(30 always wrong)" in first
    assert second.startswith("At most 0.6")
    assert "a ceiling on what these rewards could teach, not what was learned" in second


def test_groups_that_are_too_small_are_named_first(tmp_path, capsys):
    random = np.random.default_rng(0)
    path = save(drawn(pass_or_fail(np.full(2000, 0.18)), 2, 1, random), tmp_path / "run.csv")
    assert main(["audit", str(path)]) == 0
    output = capsys.readouterr().out
    first = output.split("\n")[0]
    assert first.startswith("With G = 2, 70 % [")  # 0.7048 of the groups
    assert "of the groups were silent, at a mean reward of 0.178: with G = 8 it would have been 2" in first
    assert output.count("not what was learned") == 1


def test_prompts_that_no_group_helps_are_at_fault():
    random = np.random.default_rng(0)
    rates = np.where(np.arange(100) < 80, 0.0, 0.5)
    table = drawn(pass_or_fail(rates), 16, 3, random)
    assert account(table).whole.silent.value == pytest.approx(0.8, abs=0.02)
    found = sentences_of(account(table), graded=False)
    assert "so the prompts are too hard" in found[0]


def test_a_run_without_any_signal_says_so(tmp_path):
    path = save(drawn(pass_or_fail(np.zeros(20)), 4, 2, np.random.default_rng(0)), tmp_path / "run.csv")
    found = memory_rl.audit(path)
    assert found.sentences[0] == (
        "No group had two different rewards (100 % all wrong), so that nothing could be learned."
    )
    assert found.delivered_bits_per_rollout.value == 0.0
    assert found.account.rates.mean.value < 0.01
    assert found.delivered_bits_per_rollout.interval == [None, None]
    assert found.silent_groups["share"].low == pytest.approx(0.025 ** (1 / 20))  # as of 20 prompts


def test_the_result_the_files_and_the_terminal_have_the_same_numbers(tmp_path, capsys):
    path = save(GRADED, tmp_path / "run.csv")
    out = tmp_path / "audit"
    found = memory_rl.audit(str(path), out=str(out))
    written = json.loads((out / "audit.json").read_text())
    assert written["silent_groups"]["share"] == {
        "estimate": 0.6,
        "ci95": found.silent_groups["share"].interval,
    }
    assert written["silent_groups"]["all_right"]["estimate"] == pytest.approx(0.2)
    assert written["silent_groups"]["all_wrong"]["estimate"] == pytest.approx(0.2)
    assert written["silent_groups"]["same_in_between"]["estimate"] == pytest.approx(0.2)
    bits = written["delivered_bits_per_rollout"]
    assert bits["estimate"] == found.delivered_bits_per_rollout.value
    assert bits["ci95"][0] <= bits["estimate"] <= bits["ci95"][1]
    stretches = pl.read_csv(out / "stretches.csv")
    assert stretches.columns == found.frame.columns
    assert stretches["silent"].to_list() == found.frame["silent"].to_list() == [1.0, pytest.approx(1 / 3)]
    assert found.sentences[0] in repr(found)
    assert "<table>" in found._repr_html_()
    assert main(["audit", str(path), f"out={out}"]) == 0  # an earlier audit is replaced
    assert capsys.readouterr().out.startswith(found.sentences[0])


def test_other_files_in_the_folder_are_not_touched(tmp_path, capsys):
    path, out = save(GRADED, tmp_path / "run.csv"), tmp_path / "other"
    out.mkdir()
    (out / "thesis.txt").write_text("words")
    assert main(["audit", str(path), f"out={out}"]) == 2
    assert "holds files that are no audit: give a new folder, such as out=audit." in capsys.readouterr().err
    assert [one.name for one in out.iterdir()] == ["thesis.txt"]


def test_the_function_takes_what_the_command_takes():
    assert list(inspect.signature(memory_rl.audit).parameters) == ["path", *keys_of(AuditConfig)]


def test_an_audit_is_the_same_to_the_byte_each_time(tmp_path):
    path = save(GRADED, tmp_path / "run.csv")
    for out in ("one", "other"):
        memory_rl.audit(path, out=str(tmp_path / out))
    for name in ("audit.json", "stretches.csv", "index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_the_law_of_an_audit_says_what_it_says_of_other_sizes(tmp_path):
    """From what audit.json holds: by it a plan reckons."""
    random = np.random.default_rng(0)
    path = save(drawn(pass_or_fail(random.beta(0.5, 0.8, 300)), 8, 1, random), tmp_path / "run.csv")
    found = memory_rl.audit(path, out=str(tmp_path / "out"))
    rates = json.loads((tmp_path / "out" / "audit.json").read_text())["pass_rates"]
    points, weights = np.array(rates["points"]), np.array(rates["weights"])
    for one in found.account.others:
        assert silent_chance(points, weights, one.size) == pytest.approx(one.silent.value, abs=1e-6)
        told = advantage_bits(points, weights, one.size)
        assert told == pytest.approx(one.advantage_bits.value, abs=1e-6)
    assert expected_entropy(points, weights) == pytest.approx(found.account.whole.bits.value, abs=1e-3)
    assert rates["a"]["estimate"] == found.account.rates.a.value
