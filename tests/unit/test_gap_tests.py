"""How episodes grow, and where the gap between two rates lies: supported, refuted and undecided claims."""

from pathlib import Path

import numpy as np
import pytest

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.hypotheses import TESTS
from memory_rl.analysis.protocol import Protocol
from memory_rl.analysis.survival import MemorisationTimes
from memory_rl.analysis.verdicts import judge

SIZES = [16, 64, 256]


def cell(condition, N, episodes, observer, *, asks, base, role="default", seed=0):
    config = {"N": N, "seed": seed, "num_runs": len(episodes), "base_seed": base, "role": role}
    manifest = {
        "kind": "train",
        "condition": condition,
        "status": "completed",
        "config": config,
        "resolved": {"N": N, "base_seed": base, "role": role},
    }
    ceilings = {"capacity": np.log2(N), "ideal_questioner": {"to_reach": np.log2(N) / asks}}
    made = Cell(Path(f"{condition}-{N}-{base}-{role}"), manifest, {"ceilings": ceilings, "checks": {}})
    made.__dict__["times"] = MemorisationTimes(np.minimum(episodes, 1e6), np.isfinite(episodes))
    made.__dict__["observer"] = MemorisationTimes(observer, np.ones(len(observer), bool))
    return made


def study(slow_power=1.0, exploration=2.0, bases=8, best=None, stuck=0):
    """SFT in log2 N examples; a signal of 1/N bits whose observers are `exploration` times behind."""
    random, cells = np.random.default_rng(0), []
    for N in SIZES:
        for base in range(bases):
            pace = np.exp(0.1 * random.standard_normal())
            bits = np.log2(N)
            cells.append(
                cell("sft", N, pace * bits * random.gamma(9, 1 / 9, 16), np.ones(16), asks=bits, base=base)
            )
            watched = exploration * bits * N**slow_power * random.gamma(9, 1 / 9, 16)
            times = pace * 3 * watched
            times[:stuck] = np.inf
            cells.append(cell("binary", N, times, watched, asks=N**-slow_power, base=base))
            if best is not None:
                again = pace * best * watched
                cells.append(
                    cell("binary", N, again, watched, asks=N**-slow_power, base=base, role="best", seed=1)
                )
    return cells


def verdict(test, cells, **settings):
    hypothesis = TESTS[test](id="H", test=test, claim="a claim", **settings)
    protocol = Protocol(name="p", grid=[], minimum_runs=64, hypotheses=[hypothesis], sha256="0" * 64, text="")
    (found,) = judge(protocol, cells)
    return found


GROWS = {"of": {"condition": "binary"}, "N": SIZES}
BINARY = {"of": {"condition": "sft"}, "to": {"condition": "binary"}, "N": SIZES}


@pytest.mark.parametrize(
    ("power", "judgement"), [(1.0, "inconclusive"), (0.9, "supported"), (1.6, "refuted"), (0.4, "refuted")]
)
def test_how_episodes_grow(power, judgement):
    """They grow as log2 N times N to the power: 1 and a quarter more of it over these N."""
    found = verdict("episodes_grow", study(power), exponent=[0.9, 1.25], **GROWS)
    assert found.verdict == judgement, found.reason
    assert "over 8 base models" in found.reason
    assert [row["N"] for row in found.numbers] == SIZES


def test_growth_against_log2_n():
    claim = {"of": {"condition": "sft"}, "N": SIZES, "exponent": [0.7, 1.4], "against": "log2_N"}
    found = verdict("episodes_grow", study(), **claim)
    assert found.verdict == "supported", found.reason
    assert "as log2 N to the power" in found.reason


@pytest.mark.parametrize(
    ("part", "at_least", "judgement"),
    [
        ("channel", 0.5, "supported"),
        ("channel", 0.95, "refuted"),
        ("exploration", 0.3, "refuted"),
        ("absorption", -1.0, "supported"),
    ],
)
def test_the_share_of_a_gap(part, at_least, judgement):
    """Capacity N log2 N times, exploration twice, absorption three times: of a gap of 6 N log2 N / 1."""
    found = verdict("gap_share", study(), part=part, at_least=at_least, **BINARY)
    assert found.verdict == judgement, found.reason
    row = found.numbers[0]
    gap = np.log(16 * 4 * 2 * 3 / 4)
    assert float(row["exploration"].split()[0]) == pytest.approx(np.log(2) / gap, abs=0.03)


def test_there_is_no_share_of_a_gap_the_other_way_round():
    """Binary is not faster than SFT; of a negative gap nine tenths are more than twice as much."""
    turned = {"of": BINARY["to"], "to": BINARY["of"], "N": SIZES}
    found = verdict("gap_share", study(), part="channel", at_least=2.0, **turned)
    assert found.verdict == "inconclusive", found.reason
    assert found.if_false > 0.99


@pytest.mark.parametrize(("best", "judgement"), [(1.2, "supported"), (2.5, "refuted")])
def test_what_the_best_learner_closes(best, judgement):
    found = verdict(
        "loss_closed",
        study(best=best),
        of={"condition": "binary", "role": "default"},
        by={"condition": "binary", "role": "best"},
        N=SIZES,
        at_least=0.5,
    )
    assert found.verdict == judgement, found.reason
    closes = 1 - np.log(best) / np.log(3)
    assert float(found.numbers[0]["closed"].split()[0]) == pytest.approx(closes, abs=0.15)


def test_stuck_runs_are_told_and_left_out_of_rates():
    whole, some = (
        verdict("rate_ratio", study(stuck=stuck), expected=1, margin=2, **BINARY) for stuck in (0, 2)
    )
    assert "No run is stuck; what happens to fewer than 2.8 % need not have been seen." in whole.reason
    assert "stuck are 12 % [" in some.reason
    assert "] of binary, N=16 by 1000000 episodes" in some.reason
    assert some.numbers[0]["ratio"] == pytest.approx(whole.numbers[0]["ratio"], rel=0.1)


def test_few_runs_are_said_to_be_few():
    hypothesis = TESTS["rate_ratio"](
        id="H", test="rate_ratio", claim="a claim", expected=1, margin=2, **BINARY
    )
    protocol = Protocol(name="p", grid=[], minimum_runs=16, hypotheses=[hypothesis], sha256="0" * 64, text="")
    (found,) = judge(protocol, study(bases=1))
    assert "16 runs a side are few" in found.reason
    assert "for one base model" in found.reason


def test_runs_without_a_ledger_are_not_judged():
    cells = study()
    for one in cells:
        one.__dict__["observer"] = None
    found = verdict("gap_share", cells, part="channel", at_least=0.5, **BINARY)
    assert (found.verdict, found.p_value) == ("inconclusive", None)
    assert found.reason.startswith("Not judged, since sft at N = 16 lacks a ledger")
