"""Capacities, knees and interference on made-up cells with known answers, and against the loops that made
them."""

import numpy as np
import polars as pl
import pytest

from memory_rl.analysis.capacity import (
    block_length,
    by_size,
    capacities,
    comparable,
    interference,
    is_of_capacity,
    late_gain,
    points,
)
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.statistics import expanded_tail
from memory_rl.assembly import prompts_of
from memory_rl.experiment import make_experiment


def made_up(ends, num_secrets=1, parameters=10, of_secrets=None, condition="sft", **config) -> Cell:
    """A cell whose runs knew nothing at episode 0, half of it at 50 and ended at 100 with these bits (R,)."""
    settled = {
        "N": 16,
        "num_secrets": num_secrets,
        "backend": "local",
        "adapter": "shared",
        "adapter_parameters": parameters,
        "memorised_at": 0.5,
        **config,
    }
    manifest = {
        "kind": "sft" if condition == "sft" else "train",
        "condition": condition,
        "status": "completed",
        "config": settled,
    }
    cell = Cell(path=None, manifest=manifest, summary={"trained_parameters": parameters})
    runs = np.arange(len(ends))
    bits = np.stack([0.0 * runs, 0.5 * np.asarray(ends), ends])
    metrics = {
        "run": np.tile(runs, 3),
        "episode": np.repeat([0, 50, 100], len(runs)),
        "bits_known": bits.ravel(),
    }
    cell.__dict__["metrics"] = pl.DataFrame(metrics).sample(
        fraction=1, shuffle=True, seed=0
    )  # the order of rows means nothing
    cell.__dict__["of_secrets"] = of_secrets
    return cell


def plateau(capacity, parameters=10, runs=4, **config):
    """Cells that store everything up to a capacity, without any spread."""
    return [made_up([min(4.0 * M, capacity)] * runs, M, parameters, **config) for M in (64, 1, 16, 4)]


def test_stored_is_what_each_run_knew_last():
    assert made_up([3.0, 7.0, -2.0]).stored.tolist() == [3.0, 7.0, -2.0]


def test_the_late_gain_is_what_came_after_nine_tenths():
    assert late_gain(made_up([3.0, 7.0])) == pytest.approx(2.5)  # from half of 5 on average to all of it


def test_a_plateau_of_20_bits_is_2_bits_a_parameter_and_a_knee_of_5_secrets():
    (found,) = capacities(plateau(20.0))
    assert found.saturated
    assert [point.first.bits_to_learn for point in found.points] == [4, 16, 64, 256]
    assert [point.stored.mean() for point in found.points] == [4, 16, 20, 20]
    for estimate, value in ((found.bits, 20), (found.per_parameter, 2), (found.knee, 5)):
        assert (estimate.value, estimate.low, estimate.high) == (value, value, value)


@pytest.mark.parametrize(("capacity", "saturated"), [(127.9, True), (128.0, False), (256.0, False)])
def test_half_of_the_most_that_was_to_be_learned_is_not_saturated(capacity, saturated):
    (found,) = capacities(plateau(capacity))
    assert (found.saturated, found.bits.value) == (saturated, capacity)


def test_what_rewards_teach_is_a_lower_bound_of_what_a_size_holds():
    (found,) = capacities(plateau(20.0, condition="binary"))
    assert (found.saturated, found.bits.value) == (False, 20.0)


def test_a_size_that_forgets_at_its_largest_M_has_the_capacity_of_its_best():
    (found,) = capacities([made_up([4.0, 4.0]), made_up([9.0, 11.0], 16), made_up([-30.0, 2.0], 64)])
    assert (found.saturated, found.bits.value, found.at.first.num_secrets) == (True, 10.0, 16)


def test_the_interval_is_a_bootstrap_with_the_choice_inside():
    """Against resampling one by one: two means that are alike, so that either may be the greatest."""
    random = np.random.default_rng(1)
    one, other = random.normal(20, 4, 12), random.normal(20, 6, 12)
    (found,) = capacities([made_up(one, 16), made_up(other, 64)])
    drawn = [max(random.choice(one, 12).mean(), random.choice(other, 12).mean()) for _ in range(40_000)]
    tail = expanded_tail(12)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    assert found.bits.value == max(one.mean(), other.mean())
    assert (found.bits.low, found.bits.high) == (pytest.approx(low, abs=0.15), pytest.approx(high, abs=0.15))
    assert (
        low > np.quantile(random.choice(one, (40_000, 12)).mean(axis=1), tail) + 0.3
    )  # the mean of one cell alone would reach lower


def test_one_run_has_no_interval():
    (found,) = capacities([made_up([9.0], 16), made_up([10.0, 12.0], 64)])
    assert (found.bits.value, found.bits.low, found.bits.high) == (11.0, None, None)


def test_sizes_come_by_their_parameters_and_each_is_judged_alone():
    found = capacities([*plateau(20.0), *plateau(256.0, 4880, adapter="lora", lora_rank=1), *plateau(3.0, 2)])
    assert [(each.size.label, each.size.parameters, each.saturated) for each in found] == [
        ("adapter_parameters=2", 2, True),
        ("adapter_parameters=10", 10, True),
        ("lora_rank=1", 4880, False),
    ]
    assert found[0].knee.value == 0.75


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (
            {"adapter": "lora", "lora_rank": 4, "lora_targets": "mlp", "lora_layers": "0-1"},
            "lora_rank=4 lora_targets=mlp lora_layers=0-1",
        ),
        ({"adapter": "full"}, "adapter=full"),
        ({"lora_targets": "attention"}, "adapter_parameters=10 lora_targets=attention"),
        ({"backend": "tabular", "adapter": "lora"}, "backend=tabular"),
    ],
)
def test_a_size_is_called_by_what_is_trained(config, label):
    assert [size.label for size in by_size([made_up([1.0], **config)])] == [label]


def test_a_table_grows_with_its_task_and_has_no_capacity():
    tables = [made_up([4.0 * M] * 2, M, 16 * M, adapter="lora", backend="tabular") for M in (1, 4)]
    assert [size.parameters for size in by_size(tables)] == [None]
    assert capacities(tables) == []


def test_seeds_are_one_sample_and_learning_rates_that_were_tuned_are_no_sizes():
    cells = [
        made_up([4.0, 4.0], 1, learning_rate=0.1),
        made_up([8.0, 9.0], 4, seed=0, learning_rate=0.3),
        made_up([10.0], 4, seed=1, learning_rate=0.3),
    ]
    ((size, group),) = by_size(cells).items()
    assert size.label == "adapter_parameters=10"
    assert [point.stored.tolist() for point in points(group)] == [[4.0, 4.0], [8.0, 9.0, 10.0]]


def test_learning_rates_of_the_same_secrets_are_told_apart():
    sizes = by_size([made_up([1.0], 4, learning_rate=rate) for rate in (0.2, None, 0.1)])
    assert [size.label for size in sizes] == [
        "adapter_parameters=10",
        "adapter_parameters=10 learning_rate=0.2",
    ]


def test_two_of_a_kind_are_both_named_by_the_key_in_which_they_differ():
    sizes = by_size([made_up([1.0], 4, learning_rate=rate) for rate in (0.2, 0.1)])
    assert [size.label for size in sizes] == [
        "adapter_parameters=10 learning_rate=0.1",
        "adapter_parameters=10 learning_rate=0.2",
    ]


def test_a_label_is_short_though_one_cell_of_many_has_keys_of_its_own():
    usual = [made_up([1.0], 4, condition="binary", group_size=4) for _ in range(3)]
    odd = made_up([1.0], 4, condition="binary", group_size=8, kl_to_base=0.1)
    assert [size.label for size in by_size([*usual, odd])] == [
        "adapter_parameters=10",
        "adapter_parameters=10 group_size=8 kl_to_base=0.1",
    ]


def test_models_of_other_sizes_with_the_same_adapter_are_told_apart():
    sizes = by_size(
        [made_up([1.0], M, number, adapter="lora", lora_rank=1) for M, number in ((1, 100), (4, 300))]
    )
    assert [size.label for size in sizes] == ["lora_rank=1 (100 parameters)", "lora_rank=1 (300 parameters)"]


def test_secrets_of_other_lengths_are_told_apart():
    assert [size.label for size in by_size([made_up([1.0], 4), made_up([1.0], 4, N=64)])] == [
        "adapter_parameters=10 N=16",
        "adapter_parameters=10 N=64",
    ]


def test_cells_are_compared_with_those_of_several_secrets_alone():
    alone = made_up([1.0], adapter="lora", lora_rank=8)
    other_N = made_up([1.0], adapter="lora", lora_rank=8, N=64)
    several = made_up([1.0], 4, adapter="lora", lora_rank=8)
    assert [is_of_capacity(cell) for cell in (alone, other_N, several, made_up([1.0]))] == [
        False,
        False,
        True,
        True,
    ]
    assert comparable([alone, other_N]) == []
    assert comparable([alone, other_N, several]) == [alone, several]


def of_blocks(length, num_secrets, halving, every=5, runs=3):
    """4 bits known at the end of a secret's block, half of that after so many more blocks, and so on; 1 bit
    less in run 1, 1 bit more in run 2."""
    rows = []
    for run, more in enumerate((0.0, -1.0, 1.0)[:runs]):
        for episode in range(0, length * num_secrets + 1, every):
            for prompt in range(num_secrets):
                since = episode / length - prompt
                bits = 4 * min(1.0, max(0.0, since)) * 0.5 ** (max(0.0, since - 1) / halving)
                rows.append((run, episode, prompt, bits + more))
    return pl.DataFrame(rows, schema=["run", "episode", "prompt", "bits_known"], orient="row").sample(
        fraction=1, shuffle=True, seed=1
    )


def test_interference_is_aligned_at_the_block_of_each_secret():
    frame = of_blocks(length=40, num_secrets=4, halving=1.0)
    found = interference(
        made_up([0.0] * 3, 4, of_secrets=frame, order="blocks", max_episodes=160, batch_size=1)
    )
    assert (found.secrets, found.blocks[0], found.blocks[-1], found.known.shape) == (2, 0.0, 3.0, (3, 25))
    at = {since: found.known[:, list(found.blocks).index(since)] for since in (0.0, 0.5, 1.0, 2.0, 3.0)}
    for since, bits in {0.0: 0.0, 0.5: 2.0, 1.0: 4.0, 2.0: 2.0, 3.0: 1.0}.items():
        assert at[since] == pytest.approx([bits, bits - 1, bits + 1])


def test_a_run_that_ended_keeps_what_it_knew():
    frame = of_blocks(length=40, num_secrets=2, halving=1.0).filter(
        (pl.col("run") != 1) | (pl.col("episode") <= 60)
    )
    found = interference(
        made_up([0.0] * 3, 2, of_secrets=frame, order="blocks", max_episodes=80, batch_size=1)
    )
    assert found.secrets == 1
    assert found.known[:, -1] == pytest.approx([2.0, 4 * 0.5**0.5 - 1, 3.0])


@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("train", {"N": 16, "num_secrets": 8, "order": "blocks", "max_episodes": 410, "batch_size": 3}),
        ("train", {"N": 100, "num_secrets": 3, "order": "blocks", "group_size": 1, "baseline": "none"}),
        (
            "train",
            {"N": 4, "num_secrets": 2, "order": "blocks", "env_type": "multi_step", "max_episodes": 40},
        ),
        ("sft", {"N": 16, "num_secrets": 8, "order": "blocks", "max_episodes": 241, "batch_size": 2}),
        ("sft", {"N": 16, "num_secrets": 5, "order": "blocks"}),
    ],
)
def test_a_block_is_as_long_as_the_one_that_the_loop_teaches(command, values):
    experiment = make_experiment(values, command)
    prompts, asked = prompts_of(experiment), []
    while len(asked) * experiment.group_size < 2 * experiment.budget // experiment.world.num_secrets + 10:
        asked += prompts.next(np.array([0]))[0].tolist()
    cell = made_up([1.0], condition=experiment.condition)
    cell.manifest["config"] = experiment.flat()
    assert block_length(cell) == asked.index(1) * experiment.group_size
