"""The lean pass of a Llama against transformers' own, and samples asked of it against a table of the tree."""

import numpy as np
import pytest
import torch
from helpers import make_environment, make_trie
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.asking import draw, step_by_step
from memory_rl.policies.base import first_prompt
from memory_rl.policies.base_model import recompute_layers
from memory_rl.policies.full import FullSettings
from memory_rl.policies.lean import lean
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import all_edge_log_probs, chosen_log_probs, pack_all
from memory_rl.policies.paths import PathPolicy
from memory_rl.policies.shared import SharedSettings

TOKENIZER = tiny_model.make_tokenizer()
KINDS = {
    "rank 1": LoRASettings(rank=1),
    "rank 8": LoRASettings(rank=8),
    "attention": LoRASettings(targets="attention"),
    "last layer": LoRASettings(layers=(1,)),
    "shared": SharedSettings(50, LoRASettings(rank=4)),
    "full": FullSettings(),
}
WORLDS = {
    "one turn": ("single_step", 23, 1),
    "turns": ("multi_step", 11, 1),
    "prompts": ("single_step", 10, 3),
}


def make_llama(**shape) -> LlamaForCausalLM:
    torch.manual_seed(0)
    size = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6}
    given = {"vocab_size": len(TOKENIZER), "initializer_range": 0.2, **size, **shape}
    return LlamaForCausalLM(LlamaConfig(**given)).eval()


def make(world="one turn", adapter="rank 8", model=None, runs=3, **more) -> PathPolicy:
    """A policy whose runs have all moved away from the base."""
    kind, N, secrets = WORLDS[world]
    trie = make_trie(make_environment(kind, N, secrets), TOKENIZER)
    base = tiny_model.make_model(0) if model is None else model
    given = {"num_runs": runs, "lora": KINDS[adapter], "learning_rate": 1e-3, "seed": 0, **more}
    policy, random = PathPolicy(base, trie, **given), torch.Generator().manual_seed(1)
    for vector in policy.adapters.vectors:
        size = 0.3 if len(vector) == 50 else 0.02
        vector.data += size * torch.randn(vector.shape, generator=random)
    policy.adapters.activate(range(runs))
    return policy


def scores_and_gradients(policy, passes, paths, prompts):
    policy.adapters.activate(range(policy.num_runs))
    log_probs = chosen_log_probs(passes, policy.trie, paths, prompts)
    for vector in policy.adapters.vectors:
        vector.grad = None
    (log_probs * torch.linspace(-1, 1, log_probs.numel()).view(log_probs.shape)).sum().backward()
    return log_probs.detach().numpy(), torch.stack([v.grad for v in policy.adapters.vectors]).numpy()


@pytest.mark.parametrize(
    ("world", "adapter"), [*(("turns", kind) for kind in KINDS), ("prompts", "rank 8"), ("one turn", "full")]
)
def test_log_probabilities_and_gradients_are_those_of_transformers(world, adapter):
    policy = make(world, adapter)
    trie, random = policy.trie, np.random.default_rng(0)
    paths = trie.form_edges[random.integers(len(trie.form_edges), size=(3, 4))]
    prompts = np.arange(3) % trie.num_prompts
    expected, slope = scores_and_gradients(policy, policy.model, paths, prompts)
    found, own = scores_and_gradients(policy, lean(policy.model), paths, prompts)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(own, slope, rtol=0, atol=1e-4 * np.abs(slope).max())


@pytest.mark.parametrize("heads", [6, 2])
def test_a_llama_of_another_shape_with_grouped_queries(heads):
    policy = make("turns", model=make_llama(num_key_value_heads=heads))
    forms = np.arange(8)
    for run in range(3):
        policy.adapters.activate([run])
        with torch.no_grad():
            expected = step_by_step(policy.model, policy.trie, 0, forms)
            found = step_by_step(lean(policy.model), policy.trie, 0, forms)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_places_of_each_row_and_of_all_rows():
    policy = make()
    tokens = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.full((7, 7), torch.finfo(torch.float32).min).triu(1).expand(3, 1, 7, 7)
    given = tokens, torch.arange(7).expand(3, 7), mask
    keep = torch.tensor([[0, 3], [6, 2], [5, 5]])
    with torch.no_grad():
        whole = policy.model(input_ids=tokens).logits
        passes = lean(policy.model)
        torch.testing.assert_close(passes(*given, torch.tensor([1, 4]), None), whole[:, [1, 4]])
        own = passes(*given, keep, None)
    torch.testing.assert_close(own, whole[torch.arange(3)[:, None], keep])


def table(policy) -> np.ndarray:
    """Log-probabilities (R, E) of all edges, by transformers, in one pass over the whole tree."""
    with torch.no_grad():
        policy.adapters.activate(range(policy.num_runs))
        pack, prompts = pack_all(policy.trie), np.zeros(policy.num_runs, dtype=int)
        return all_edge_log_probs(policy.model, policy.trie, pack, prompts).double().numpy()


def walk(trie, of_edges, uniforms):
    """One sample, written out: its path, and the log-probability that no exit is taken along the way."""
    decision, path, staying, left = 0, [], 0.0, False
    for pick, leave in uniforms:
        ways = trie.decision_edges[decision]
        ways = ways[ways != NONE]
        going, leaving = ways[:-1], ways[-1]  # the exit is the last
        chances = np.exp(of_edges[going])
        out = 1 - chances.sum() / np.exp(of_edges[ways]).sum()
        staying += np.log1p(-out)
        chosen = going[np.searchsorted(chances.cumsum() / chances.sum(), pick, side="right")]
        if not left:
            path.append(leaving if leave < out else chosen)
        left |= bool(leave < out)
        decision = trie.edge_next[chosen]
        if decision == NONE:
            break
    return path + [NONE] * (len(uniforms) - len(path)), staying


@pytest.mark.parametrize("world", ["one turn", "turns"])
@pytest.mark.parametrize("spare", [0, 12, 1000])
@pytest.mark.parametrize("leanly", [True, False])
def test_samples_are_those_of_the_table_of_the_tree(world, spare, leanly):
    """However much is asked for ahead, and whoever computes it; with fewer samples in one of the rows."""
    policy = make(world)
    passes = lean(policy.model) if leanly else policy.model
    passes.spare_tokens = spare
    uniforms = np.random.default_rng(3).random((3, 6, policy.trie.max_edges, 2))
    uniforms[1, 4:] = np.nan
    forms, of_edges = np.array([[1], [7], [10]]), table(policy)
    with torch.no_grad():
        policy.adapters.activate(range(3))
        drawn = draw(passes, policy.trie, np.zeros(3, dtype=int), forms, uniforms, avoid=False)
    for run in range(3):
        form = policy.trie.form_edges[forms[run, 0]]
        np.testing.assert_allclose(drawn.of_forms[run, 0], of_edges[run, form[form != NONE]].sum(), atol=1e-5)
        for sample in range(6):
            if np.isnan(uniforms[run, sample]).any():
                assert np.isnan(drawn.of_staying[run, sample])
                assert (drawn.paths[run, sample] == NONE).all()
                continue
            path, staying = walk(policy.trie, of_edges[run], uniforms[run, sample])
            assert drawn.paths[run, sample].tolist() == path
            assert drawn.of_staying[run, sample] == pytest.approx(staying, rel=1e-6, abs=1e-5)


def test_each_token_is_in_one_pass_only():
    """What a form or another sample came to before is not computed again."""
    policy, seen = make(), list[torch.Tensor]()
    policy._passes.spare_tokens = 0
    watched = policy.model.model.embed_tokens.register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    uniforms = np.random.default_rng(3).random((1, 400, policy.trie.max_edges, 2))
    with torch.no_grad(), watched:
        policy.adapters.activate([0])
        draw(policy._passes, policy.trie, np.zeros(1, dtype=int), np.array([[12]]), uniforms, avoid=False)
    behind = torch.cat(seen, dim=1).shape[1] - len(policy.trie.prompt)
    assert behind <= policy.trie.num_nodes < 400


@pytest.mark.parametrize("why", ["bfloat16", "recomputed", "another family"])
def test_other_models_go_through_transformers(why):
    model = make_llama()
    if why == "bfloat16":
        model = model.to(torch.bfloat16)
    elif why == "recomputed":
        recompute_layers(model)
    else:
        size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=90, num_key_value_heads=2, head_dim=8, **size))
    assert lean(make_llama()) is not None
    assert lean(model) is None


def test_runs_that_stand_still_are_given_samples_in_the_passes_of_those_that_move():
    policy, runs, forms = make("turns", avoids=False), np.arange(3), np.array([[3], [5], [7]])
    policy.assess(runs, forms, 11)
    policy.sample(runs, first_prompt(runs), 8)
    known = policy._assessed.copy()
    policy.adapters.vectors[1].data += 0.01
    policy._stale[1] = True
    policy.sample(runs[:2], first_prompt(runs[:2]), 8)  # run 2 has ended
    policy._waiting[0] = policy._waiting[0][:0]
    policy._stale[1] = True
    policy.assess(runs[1:2], forms[1:2], 11)
    # As many groups as it has stood still for; run 2 gets none.
    assert policy._num_waiting.tolist() == [16, 8, 0]
    np.testing.assert_array_equal(policy._assessed[:, [0, 2]], known[:, [0, 2]])
    assert (policy._assessed[:, 1] != known[:, 1]).all()
