"""A real model: which signals teach it, and why reward for each bit gets stuck on it.

    python studies/real_model.py DIR model_name=SmolLM2-135M-Instruct.Q4_1.gguf device=cuda

Other words: seconds=480 (for all of it), processes=3, runs=64, only=WORD (cells with that in their name),
budget=1 (times the episodes of every cell), precision=tf32 or float32 (of the products in cells of several
turns, after the warm-up; the others are in float32 throughout).

1. The contest: SFT, each bit, the sum of bits, binary, 8 bins, log-distance, teachers and noisy binary at N =
   16 and 64, at two step sizes.
2. Each bit at N = 64, changed in one way at a time: how the model is warmed up (turns kept apart), how it is
   asked, the step size, the learner, and which layers learn. Beside it what the changes do to the turns: the
   mean cosine between the hidden states at which two turns are answered, and that between the gradients of
   the two turns' log-odds in the adapters.

Each cell writes DIR/rows/NAME.json when it is done; one that is there is not measured again, and its run
directory DIR/runs/NAME continues where it was. The table of all rows ends the run.
"""

from __future__ import annotations

import copy
import functools
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty
from typing import Any
from unittest import mock

from real_cells import Cell, cells

UNRELATED = ("Digit 1?", "And the sky?", "Table, please", "Why so blue?", "Seven rivers", "Next: music!")
APART = 0.5  # the cosine between turns that a warm-up which keeps them apart does not exceed
_WEIGHT, _STEPS_APART = 10.0, 250


@contextmanager
def warmed_up(cell: Cell, folder: Path) -> Iterator[None]:
    """Base models are warmed up, and asked, as the cell says; each kind has a cache of its own."""
    from memory_rl.policies import pretrained_warmup
    from memory_rl.task.multi_step import MultiStep

    with ExitStack() as changes:
        cache = folder / "cache" / cell.warmup
        changes.enter_context(mock.patch.dict(os.environ, MEMORY_RL_CACHE=str(cache)))
        if cell.warmup != "plain":
            changes.enter_context(
                mock.patch.object(pretrained_warmup, "make_lesson", apart_lesson(cell.warmup))
            )
        if cell.unrelated:
            asked = MultiStep.prompt
            changes.enter_context(
                mock.patch.object(
                    MultiStep,
                    "prompt",
                    lambda self, step, which=0: UNRELATED[step] if step else asked(self, step, which),
                )
            )
        yield


def turns_of(trie: Any) -> tuple[Any, Any]:
    """The decisions (D',) at which a turn is answered, and which turn (D',)."""
    import numpy as np

    from memory_rl.policies.answer_trie import NONE

    edges = trie.decision_edges
    choices = np.nonzero(((edges != NONE) & ~trie.is_exit[edges]).sum(axis=1) > 1)[0]
    return choices, trie.edge_step[edges[choices, 0]]


@contextmanager
def turn_states(model: Any, trie: Any, pack: Any, where: str) -> Iterator[tuple[list[Any], Any]]:
    """The states (D', d) that each watched module gives in a pass; and which pairs are of two turns."""
    import torch

    choices, turn = turns_of(trie)
    nodes = trie.decision_node[choices]
    row = pack.first_rows(nodes)
    place, kept = pack.slots(row, nodes), list[Any]()
    body = model.base_model
    layers = [layer.post_attention_layernorm for layer in body.layers] if where == "all" else []
    with ExitStack() as hooks:
        for module in (*layers, body.norm):
            hooks.enter_context(module.register_forward_hook(lambda _, __, out: kept.append(out[row, place])))
        yield kept, torch.from_numpy(turn[:, None] != turn[None])


def cosines(states: Any, pairs: Any) -> Any:
    """The cosine of each pair of states (n, d) of two turns."""
    import torch

    unit = torch.nn.functional.normalize(states.float(), dim=1)
    return (unit @ unit.T)[pairs.to(unit.device)]


def apart_lesson(where: str) -> Any:
    """What a warm-up learns that also keeps the cosines between turns below `APART`."""
    from memory_rl.policies.warmup import _AllAnswers

    class Apart(_AllAnswers):
        def _step(self) -> Any:
            with turn_states(self._model, self._trie, self._pack, where) as (kept, pairs):
                loss, divergence = super()._step()
            excess = [(cosines(one, pairs) - APART).relu().square().mean() for one in kept]
            penalty = _WEIGHT * sum(excess) / len(excess)
            return loss + penalty, divergence + (penalty.item() if self._calls < _STEPS_APART else 0.0)

    def make(model: Any, trie: Any, num_answers: int, settings: Any, watch: Any, prior: Any) -> Any:
        return Apart(model, trie, num_answers, settings.tolerance, watch, prior)

    return make


def look_at(cell: Cell, keys: dict[str, Any]) -> dict[str, Any]:
    """The warm-up, and the mean cosines between turns: of states at the head, of gradients in the adapters.

    Those of the gradients for each third of the layers, too: adapters of rank 8, as they are at the start.
    """
    import numpy as np
    import torch

    from memory_rl.assembly import make_setting
    from memory_rl.experiment import make_experiment
    from memory_rl.policies.lora import LoRASettings
    from memory_rl.policies.packed import all_edge_log_probs, pack_all
    from memory_rl.populations import make_learners

    setting = make_setting(make_experiment({**keys, "num_runs": 1, "quiet": True}))
    learners = make_learners(setting)
    policy = learners.policy
    model, trie, adapters = policy.model, policy.trie, policy.adapters
    pack = pack_all(trie)
    adapters.activate([0])
    with turn_states(model, trie, pack, "head") as (kept, pairs):
        log_probs = all_edge_log_probs(model, trie, pack, np.zeros(1, dtype=np.int64))[0]
    choices, turn = turns_of(trie)
    edges = trie.decision_edges[choices]
    odds = log_probs[edges[:, 0]] - log_probs[edges[:, 1]]
    gradients = torch.stack(
        [
            torch.autograd.grad(odds[turn == each].mean(), adapters.vectors[0], retain_graph=True)[0]
            for each in np.unique(turn)
        ]
    )
    assert isinstance(adapters.settings, LoRASettings)  # noqa: S101
    thirds = gradients.tensor_split(3, dim=1)  # matrices are in the order of layers
    different = ~torch.eye(len(gradients), dtype=torch.bool)
    row = {"cosine of states": cosines(kept[-1], pairs).mean().item()}
    for name, part in (("", gradients), *zip((", first third", ", middle", ", last"), thirds, strict=True)):
        row[f"cosine of gradients{name}"] = cosines(part, different).mean().item()
    answers = trie.form_log_probs(log_probs.detach().double().cpu().numpy()[None])
    row["mass on answers"] = float(np.exp(answers).sum())
    return row | {"warmup": learners.about.get("warmup"), "device": learners.about["device"]}


@contextmanager
def large_passes() -> Iterator[None]:
    """Passes without a graph take four times as many runs: a GPU has the memory, and waits for the host."""
    from memory_rl.policies import transformer

    asked = transformer.TransformerPolicy._edges

    def edges(self: Any, *which: Any) -> Any:
        with mock.patch.object(transformer, "_FLOATS_A_PASS", 4 * transformer._FLOATS_A_PASS):
            return asked(self, *which)

    with mock.patch.object(transformer.TransformerPolicy, "_edges", edges):
        yield


@functools.cache
def loaded(name: str, dtype: str) -> Any:
    """The model and its tokenizer; to read a GGUF file takes 15 seconds, and every cell wants it."""
    from memory_rl.policies.loading import load_pretrained

    return load_pretrained(name, dtype)


@contextmanager
def quickly(precision: str) -> Iterator[None]:
    """The model's file is read once, and after the warm-up products take this precision."""
    import torch

    from memory_rl.policies import base_model

    warm_up = base_model.warm_up_cached

    def then_fast(*given: Any, **named: Any) -> Any:
        made = warm_up(*given, **named)
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        return made

    def copied(name: str, dtype: str) -> Any:
        model, tokenizer = loaded(name, dtype)
        return copy.deepcopy(model), tokenizer

    with (
        mock.patch.object(base_model, "warm_up_cached", then_fast),
        mock.patch.object(base_model, "load_pretrained", copied),
    ):
        yield


def measure(cell: Cell, folder: Path, words: dict[str, str]) -> dict[str, Any]:
    """The row of a cell."""
    import memory_rl

    keys = dict(cell.keys)
    exact = keys.pop("dtype", None) == "float32" or keys.get("env_type") != "multi_step"
    keys |= {name: words[name] for name in ("model_name", "device") if name in words}
    keys["max_episodes"] = max(1, int(keys["max_episodes"] * float(words["budget"])))
    with warmed_up(cell, folder), large_passes(), quickly("float32" if exact else words["precision"]):
        if cell.look:
            return look_at(cell, {k: v for k, v in keys.items() if k != "max_episodes"})
        log_path = folder / "runs" / cell.name.replace(" ", "_")
        keys |= {"num_runs": int(words["runs"]), "figures": False, "log_path": str(log_path)}
        keys |= {"resume": log_path.exists(), "ledger": keys.get("env_type") != "multi_step"}
        run = memory_rl.sft if keys.pop("signal", None) == "example" else memory_rl.train
        taught = {"signal": "teacher"} if cell.keys.get("signal") == "teacher" else {}
        return row_of(run(**keys, **taught))


def row_of(result: Any) -> dict[str, Any]:
    """How many runs are stuck, with Clopper and Pearson's interval, and the times of the others."""
    import numpy as np
    import polars as pl

    from memory_rl.analysis.statistics import proportion
    from memory_rl.analysis.survival import median_episodes, memorisation_times

    times = memorisation_times(
        result.metrics, float(np.log2(result.config["N"])), result.config["memorised_at"]
    )
    last = result.metrics.sort("episode").group_by("run", maintain_order=True).last().sort("run")
    runs, learned = len(times.memorised), int(times.memorised.sum())
    stuck, median = proportion(runs - learned, runs), median_episodes(times)
    [summary] = result.summary.values()
    return {
        "runs": runs,
        "stuck": runs - learned,
        "share stuck": [stuck.value, stuck.low, stuck.high],
        "median": [median.value, median.low, median.high],
        "median of those not stuck": float(np.median(times.episodes[times.memorised])) if learned else None,
        "bits known at the end": last["bits_known"].to_list(),
        "secrets": last["secret"].to_list() if "secret" in last.columns else None,
        "episodes": times.episodes.tolist(),
        "memorised": times.memorised.tolist(),
        "silent": float(result.metrics.select(pl.col("zero_advantage_fraction").mean()).item() or 0)
        if "zero_advantage_fraction" in result.metrics.columns
        else None,
        "rates": summary.get("rates"),
        "warmup": summary.get("warmup"),
        "device": summary.get("device"),
        "config": result.config,
    }


def work(queue: Any, folder: Path, words: dict[str, str], end: float) -> None:
    """Takes cells from the queue until it is empty or the time is up."""
    import torch

    torch.set_num_threads(1)
    while time.time() < end:
        try:
            cell = queue.get_nowait()
        except Empty:
            return
        start = time.time()
        try:
            row = measure(cell, folder, words)
            place = folder / "rows" / f"{cell.name.replace(' ', '_')}.json"
        except Exception:  # the next cell is measured all the same
            row = {"error": traceback.format_exc()[-3000:]}
            place = folder / "errors" / f"{cell.name.replace(' ', '_')}.json"
        row = {"name": cell.name, **row, "seconds": round(time.time() - start, 1)}
        if torch.cuda.is_available():
            row |= {"GPU": torch.cuda.get_device_name(), "GiB": torch.cuda.max_memory_allocated() / 2**30}
            torch.cuda.empty_cache()
        scratch = place.with_suffix(".part")
        scratch.write_text(json.dumps(row, indent=1, default=str), encoding="utf-8")
        scratch.replace(place)
        sys.stdout.write(f"{line_of(row)}\n")
        sys.stdout.flush()


def line_of(row: dict[str, Any]) -> str:
    """A row in short."""
    if "error" in row:
        said = row["error"].strip().splitlines()[-1][:200]
    elif "runs" in row:
        share, low, high = row["share stuck"]
        said = f"stuck {row['stuck']} of {row['runs']} ({share:.0%} [{low:.0%}, {high:.0%}]), median "
        said += f"{row['median'][0]} [{row['median'][1]}, {row['median'][2]}]"
    else:
        said = "  ".join(f"{word} {value:.3f}" for word, value in row.items() if isinstance(value, float))
    return f"{row['name']:44} {said}  {row['seconds']:.0f} s"


def main(given: list[str]) -> None:
    """Measures what is not there yet, and prints all rows."""
    folder = Path(given[0])
    words = {"seconds": "480", "processes": "3", "runs": "64", "only": "", "budget": "1", "precision": "tf32"}
    words |= dict(word.split("=", 1) for word in given[1:])
    end = time.time() + float(words["seconds"])
    for name in ("rows", "errors", "runs", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    for cell in cells():
        done = (folder / "rows" / f"{cell.name.replace(' ', '_')}.json").exists()
        if words["only"] in cell.name and not done:
            queue.put(cell)
    workers = [
        spawn.Process(target=work, args=(queue, folder, words, end)) for _ in range(int(words["processes"]))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(0.0, end - time.time()))
    for worker in workers:
        worker.terminate()  # what a run had measured is kept, and goes on next time
    for worker in workers:
        worker.join(20)
    queue.cancel_join_thread()
    for file in sorted((folder / "rows").glob("*.json")):
        sys.stdout.write(f"{line_of(json.loads(file.read_text(encoding='utf-8')))}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
