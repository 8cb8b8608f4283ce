"""What a dry run says of cells on pretrained and hosted models, by hand and against what a GPU took."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import memory_rl
from memory_rl.cli import main
from memory_rl.experiment import make_experiment
from memory_rl.experiments.large import KNOWN, _Talk, _trie, need_of, seconds_of, sizes_of
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.lora import LoRASettings

MEASURED = json.loads(
    (Path(__file__).parents[2] / "benchmarks" / "results" / "gpu_h200.json").read_text(encoding="utf-8")
)["sections"]["large"]
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
WHOLE = {
    ("single_step", 4): 60 + 4,
    ("single_step", 64): 124,  # docs/gpu.md
    ("single_step", 2000): 60 + 2000 + 2,  # the first token is one of two, the thousands
    ("multi_step", 4): 60 + 2 + 2 * (1 + 14) + 4,
    ("multi_step", 64): 60 + 126 + 62 * 15,
}


def of(env_type, N, **keys):
    return make_experiment({"env_type": env_type, "N": N, "model_name": LLAMA, **keys})


@pytest.mark.parametrize(("env_type", "N"), WHOLE)
def test_the_tokens_of_an_evaluation_are_those_of_the_tree(env_type, N):
    experiment = of(env_type, N)
    trie = _trie(experiment)
    assert len(trie.prompt) + trie.num_nodes == WHOLE[env_type, N]
    if N <= 1000:
        assert _Talk(experiment).evaluation == pytest.approx(WHOLE[env_type, N])


@pytest.mark.parametrize("env_type", ["single_step", "multi_step"])
def test_the_tokens_of_an_update_are_the_mean_over_all_groups(env_type):
    experiment = of(env_type, 4, group_size=2)
    trie = _trie(experiment)

    def nodes(form):
        """All nodes of a conversation."""
        edges = trie.form_edges[form][trie.form_edges[form] != NONE]
        node, found = trie.decision_node[trie.edge_decision[edges[-1]]], set()
        while node != NONE:
            found.add(int(node))
            node = trie.node_parent[node]
        return found

    groups = [len(nodes(one) | nodes(two)) for one, two in itertools.product(range(4), repeat=2)]
    assert _Talk(experiment).update == pytest.approx(60 + sum(groups) / len(groups))
    assert _Talk(experiment).widest == 60 + max(groups)


def test_the_tokens_of_a_cell_by_hand():
    need = need_of(of("single_step", 4, num_runs=2), episodes=8, steps=2)
    assert need.sampled == 2 * 8 * 2  # runs, episodes, an answer and its end
    assert need.prefilled == 2 * 3 * 64  # at the start and after each of two updates
    assert need.trained == round(2 * 2 * (60 + 4 * (1 - (3 / 4) ** 4)))
    shown = make_experiment({"N": 4, "model_name": LLAMA, "num_runs": 3}, "sft")
    assert (need_of(shown, 5, 5).sampled, need_of(shown, 5, 5).trained) == (0, 3 * 5 * 61)


def test_a_hosted_cell_costs_what_the_service_bills():
    keys = {"N": 4, "backend": "tinker", "warmup": False, "num_runs": 1, "scoring": "paths"}
    need = need_of(make_experiment({**keys, "max_episodes": 3}, "sft"), episodes=3, steps=3)
    assert need.trained == 3 * 61  # 60 of the question and the answer; the end is a target alone
    assert need.prefilled == (1 + 3) * (62 + 60)  # the secret's probability, and samples behind the question
    assert need.memory is None


@pytest.mark.parametrize(
    "row", [row for row in MEASURED if "R=" in row["setting"]], ids=lambda r: r["setting"]
)
def test_memory_and_time_agree_with_what_a_gpu_took(row):
    env_type, runs, recomputed = row["setting"].split()
    experiment = of(
        env_type,
        64,
        num_runs=int(runs.removeprefix("R=")),
        gradient_checkpointing=recomputed.endswith("True"),
        dtype="bfloat16",
    )
    assert need_of(experiment, 4, 1).memory == pytest.approx(row["update_peak_GiB"], rel=0.05)
    taken = seconds_of(experiment, 2) - seconds_of(experiment, 1)
    assert 0.4 < taken / (row["evaluation_s"] + row["update_s"]) < 2.5


def test_sizes_are_those_of_the_model(tmp_path):
    [made] = [row for row in MEASURED if row["setting"] == "made"]
    assert sizes_of(LLAMA) == KNOWN["llama-3.1-8b"]
    assert KNOWN["llama-3.1-8b"].parameters == made["parameters"]
    assert sizes_of("SmolLM2-135M-Instruct.Q4_1.gguf").parameters == 134_515_008
    config = LlamaConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    config.save_pretrained(tmp_path)
    model = LlamaForCausalLM(config)
    sizes = sizes_of(str(tmp_path))
    assert sizes.parameters == sum(weight.numel() for weight in model.parameters())
    for targets in ("all", "attention", "mlp"):
        adapters = LoRASettings(4, targets=targets).adapt(LlamaForCausalLM(config), [0])
        assert sizes.adapter(4, targets) == adapters.vectors[0].numel()


def test_a_dry_run_has_columns_for_what_large_models_take(capsys):
    costs = memory_rl.sweep(protocol="answer-8b", dry_run=True)
    assert costs.frame["memory"].is_between(38, 55).all()
    assert (costs.frame["trained"] > 0).all()
    assert main(["sweep", "protocol=answer-8b", "dry_run=True"]) == 0
    output = capsys.readouterr().out
    assert all(word in output for word in ("sampled", "prefilled", "trained", "memory", "H200"))
    assert main(["sweep", "conditions=sft", f"model_name={LLAMA}", "N=16,64", "dry_run=True"]) == 0
    assert "memory" in capsys.readouterr().out
    assert main(["sweep", "conditions=sft", "model_name=some/thing", "dry_run=True"]) == 0
    output = capsys.readouterr().out
    assert "prefilled" in output
    assert "config.json" in output
    assert main(["sweep", "conditions=sft", "N=16", "dry_run=True"]) == 0
    assert "tokens" not in capsys.readouterr().out


def test_a_dry_run_needs_neither_pytorch_nor_the_sdk():
    code = (
        "import sys, memory_rl\n"
        "memory_rl.sweep(conditions='sft', N=16, backend='tinker', dry_run=True)\n"
        "memory_rl.sweep(protocol='answer-8b', dry_run=True)\n"
        "assert not {'torch', 'tinker', 'transformers'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
