"""The kinds of adapters against plain transformers and PEFT: the same log-probabilities, the same gradients,
the same steps."""

import copy
import json
import math

import numpy as np
import peft
import pytest
import torch
from helpers import all_log_probs, demonstrate, make_environment, make_trie, merged, plain_log_prob
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from memory_rl.errors import ModelError
from memory_rl.learning.learners import Reinforce
from memory_rl.policies import tiny_model
from memory_rl.policies.full import FullSettings
from memory_rl.policies.lora import LoRASettings, StackedLoRALinear
from memory_rl.policies.packed import chosen_log_probs
from memory_rl.policies.shared import SharedSettings
from memory_rl.policies.tokenisation import tokenise
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.runs.store import RunDirectory

N = 8
SITES = 14
TOKENIZER = tiny_model.make_tokenizer()
ADVANTAGES = np.array([[[1.0], [-0.5], [-0.5]], [[0.3], [0.7], [-1.0]]])  # (R, G, K)


def make(settings, num_runs=2, model=None, kind="single_step", **more) -> TransformerPolicy:
    trie = make_trie(make_environment(kind, N), TOKENIZER)
    base = tiny_model.make_model(0) if model is None else model
    return TransformerPolicy(
        base, trie, **{"num_runs": num_runs, "lora": settings, "learning_rate": 1e-2, "seed": 0, **more}
    )


def shared(n: int, **frame) -> SharedSettings:
    return SharedSettings(n, LoRASettings(**{"rank": 4, **frame}))


def move(policy: TransformerPolicy, size: float) -> None:
    random = torch.Generator().manual_seed(1)
    for vector in policy.adapters.vectors:
        vector.data += size * torch.randn(vector.shape, generator=random)


def plain_log_probs(model) -> list[float]:
    """Of all N answers, from a model that nothing was done to."""
    environment = make_environment("single_step", N)
    return [
        plain_log_prob(model, tokenise(TOKENIZER, environment.conversation(answer))) for answer in range(N)
    ]


def save(policy: TransformerPolicy, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.write_adapters(policy.adapters.state())
    return tmp_path / "run" / "adapters"


@pytest.mark.parametrize("n", [1, 5, 200, SITES * 16])
def test_a_shared_vector_is_a_plain_model_with_its_matrices_added(n, tmp_path):
    policy = make(shared(n))
    before = all_log_probs(policy, np.arange(2)).copy()
    assert policy.trained_parameters == n
    assert policy.trained_bytes == 4 * n
    np.testing.assert_allclose(before[0, :N], plain_log_probs(tiny_model.make_model(0)), rtol=2e-6, atol=1e-5)
    move(policy, 0.02 * math.sqrt(n))
    policy._stale[:] = True
    after = all_log_probs(policy, np.arange(2))
    assert np.abs(after - before).max() > 0.05
    for run in range(2):
        np.testing.assert_allclose(after[run, :N], plain_log_probs(merged(policy, run)), rtol=2e-6, atol=1e-5)
        loaded = peft.PeftModel.from_pretrained(
            tiny_model.make_model(0), save(policy, tmp_path) / f"run-{run}"
        )
        np.testing.assert_allclose(after[run, :N], plain_log_probs(loaded), rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("n", [1, 7, SITES * 16])
def test_the_gradient_of_a_shared_vector_is_that_through_merged_weights(n):
    """d loss / d v_j = sum over matrices of <dL/dW, d(scale B M A)/dv_j>, with dL/dW from a plain model."""
    policy = make(shared(n))
    move(policy, 0.02 * math.sqrt(n))
    path = policy.trie.form_edges[np.array([[1, 4], [6, 2]])]
    policy.adapters.activate(np.arange(2))
    chosen_log_probs(policy.model, policy.trie, path).sum().backward()
    all_log_probs(policy, np.arange(2))  # lets go of the graph
    for run, answers in enumerate([[1, 4], [6, 2]]):
        model = merged(policy, run).requires_grad_(True)
        environment = make_environment("single_step", N)
        for answer in answers:
            ((forced, reply),) = tokenise(TOKENIZER, environment.conversation(answer))
            logits = model(torch.tensor([forced + reply])).logits[0].log_softmax(dim=1)
            logits[len(forced) - 1 : -1].gather(1, torch.tensor(reply)[:, None]).sum().backward()
        vector = policy.adapters.vectors[run]
        expected = torch.empty(n)
        kept = vector.data.clone()
        for entry in range(n):  # the matrices are linear in the vector
            vector.data = torch.eye(n)[entry]
            expected[entry] = sum(
                (
                    policy.model.get_submodule(name).scale
                    * (up @ down)
                    * model.get_submodule(name).weight.grad
                ).sum()
                for name, (down, up) in policy.adapters.matrices(run).items()
            )
        vector.data = kept
        assert expected.abs().max() > 1e-2
        np.testing.assert_allclose(vector.grad, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n", [1, 13, SITES * 16])
def test_every_entry_serves_as_many_coefficients_and_they_make_orthogonal_directions_of_one_length(n):
    """The map of the vector to the coefficients has orthogonal columns of length sqrt(C / n) / sqrt(n), as
    far as n divides C."""
    adapters = make(shared(n), num_runs=3).adapters
    coefficients = SITES * 16
    for entry, factor in zip(adapters._entry, adapters._factor, strict=True):
        columns = torch.zeros(coefficients, n)
        columns[torch.arange(coefficients), entry] = factor
        gram = columns.T @ columns
        counts = torch.bincount(entry, minlength=n)
        assert counts.min() in (coefficients // n, counts.max())
        torch.testing.assert_close(gram, torch.diag(counts / n))
        assert abs(factor.sign().mean()) < 5 / math.sqrt(coefficients)
    assert not torch.equal(*adapters._factor[:2])  # runs are independent


def test_one_parameter_moves_along_one_direction_of_its_own():
    policy = make(shared(1))
    weights = []
    for _ in range(2):
        policy.update(
            demonstrate(policy, np.arange(2), np.array([[1], [1]])), np.ones((2, 1, 1)), Reinforce()
        )
        weights.append(
            [
                torch.cat([(up @ down).flatten() for down, up in policy.adapters.matrices(run).values()])
                for run in range(2)
            ]
        )
    for first, second in zip(*weights, strict=True):
        assert torch.cosine_similarity(first, second, dim=0).abs() == pytest.approx(1, abs=1e-5)
        assert second.norm() > 1.5 * first.norm()
    assert torch.cosine_similarity(*weights[0], dim=0).abs() < 0.02


def test_the_first_steps_gain_hardly_depends_on_n():
    """To first order Adam's first step gains lr times the 1-norm of the gradient, which 1/sqrt(n) keeps about
    level."""
    gains = {}
    for n in (1, 4, 16, 64, 224):
        policy = make(shared(n), num_runs=24)
        policy.adapters.activate(np.arange(24))
        chosen_log_probs(
            policy.model, policy.trie, policy.trie.form_edges[np.full((24, 1), 3)]
        ).sum().backward()
        gains[n] = float(np.mean([vector.grad.abs().sum().item() for vector in policy.adapters.vectors]))
    middle = np.median(list(gains.values()))
    assert all(0.7 < gain / middle < 1.4 for gain in gains.values()), gains


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_full_fine_tuning_is_torchs_optimiser_on_plain_models(optimiser):
    policy = make(FullSettings(), optimiser=optimiser, learning_rate=1e-3)
    plain = [tiny_model.make_model(0) for _ in range(2)]
    kind = torch.optim.Adam if optimiser == "adam" else torch.optim.SGD
    optimisers = [kind(model.parameters(), lr=1e-3) for model in plain]
    assert policy.trained_parameters == sum(parameter.numel() for parameter in plain[0].parameters())
    environment = make_environment("single_step", N)
    answers = np.array([[1, 4, 7], [6, 2, 2]])
    for step in range(4):
        here = np.arange(2) if step != 2 else np.array([1])  # run 0 sits one out
        policy.update(demonstrate(policy, here, answers[here]), ADVANTAGES[here], Reinforce())
        for run in here:
            optimisers[run].zero_grad()
            for answer, advantage in zip(answers[run], ADVANTAGES[run, :, 0], strict=True):
                ((forced, reply),) = tokenise(TOKENIZER, environment.conversation(answer))
                scores = (
                    plain[run](torch.tensor([forced + reply]))
                    .logits[0]
                    .log_softmax(dim=1)[len(forced) - 1 : -1]
                )
                (-advantage / 3 * scores.gather(1, torch.tensor(reply)[:, None]).sum()).backward()
            optimisers[run].step()
        for run in range(2):
            np.testing.assert_allclose(
                all_log_probs(policy, np.arange(2))[run, :N],
                plain_log_probs(plain[run]),
                rtol=2e-5 if optimiser == "adam" else 2e-6,  # Adam makes 4e-6 of sums in another order
                atol=1e-5,
            )
    moved = max(
        (weight - tiny_model.make_model(0).state_dict()[name]).abs().max().item()
        for name, weight in policy.adapters.tensors(0).items()
    )
    assert moved > (2e-3 if optimiser == "adam" else 1e-4)
    for run in range(2):
        ours, theirs = policy.adapters.tensors(run), dict(plain[run].named_parameters())
        assert ours.keys() == theirs.keys()
        for name, weight in ours.items():
            difference = (weight - theirs[name].detach()).abs()
            # Adam's step is a ratio, of rounding where gradients vanish: there it may go the other way
            assert (difference > 1e-6).float().mean() <= (0 if optimiser == "sgd" else 1e-3), name
            assert difference.max() < 2e-3, name


def grouped(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        initializer_range=0.2,
        attention_bias=True,
        tie_word_embeddings=tied,
        **shape,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [False, True])
def test_full_fine_tuning_of_another_shape_is_read_back_by_transformers(tied, tmp_path):
    """Grouped queries, biases and tied embeddings; what is saved loads as a model of transformers."""
    policy = make(FullSettings(), model=grouped(tied))
    assert policy.trained_parameters == sum(parameter.numel() for parameter in grouped(tied).parameters())
    move(policy, 0.02)
    log_probs = all_log_probs(policy, np.arange(2))
    for run in range(2):
        loaded = AutoModelForCausalLM.from_pretrained(save(policy, tmp_path) / f"run-{run}")
        np.testing.assert_allclose(log_probs[run, :N], plain_log_probs(loaded), rtol=2e-6, atol=1e-5)


def adapted(model) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, StackedLoRALinear)}


@pytest.mark.parametrize(
    ("layers", "targets", "rank"),
    [((0,), "all", 1), ((1, 2), "mlp", 3), ((2,), "attention", 2), ((0, 2), "all", 48), (None, "all", 1)],
)
def test_layers_outside_the_range_stay_as_they_are_and_peft_agrees(layers, targets, rank, tmp_path):
    policy = make(LoRASettings(rank=rank, targets=targets, layers=layers), model=grouped(False))
    inside = range(3) if layers is None else layers
    count = {"all": 7, "attention": 4, "mlp": 3}[targets]
    assert len(adapted(policy.model)) == count * len(inside)
    assert {int(name.split(".")[2]) for name in adapted(policy.model)} == set(inside)
    move(policy, 0.05)
    log_probs = all_log_probs(policy, np.arange(2))
    assert np.abs(log_probs[0] - log_probs[1]).max() > 0.01
    for run in range(2):
        loaded = peft.PeftModel.from_pretrained(grouped(False), save(policy, tmp_path) / f"run-{run}")
        assert (
            sum(parameter.numel() for name, parameter in loaded.named_parameters() if ".lora_" in name)
            == policy.trained_parameters
        )
        np.testing.assert_allclose(log_probs[run, :N], plain_log_probs(loaded), rtol=2e-6, atol=1e-5)
    config = json.loads((tmp_path / "run/adapters/run-0/adapter_config.json").read_text())
    assert config.get("layers_to_transform") == (None if layers is None else list(layers))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            LoRASettings(layers=(0, 2)),
            "lora_layers names layer 2, and the last one of LlamaForCausalLM is 1: use 0 to 1.",
        ),
        (LoRASettings(rank=129), "use lora_rank=128 or less."),
        (shared(225), "use adapter_parameters=224 or less, or a higher lora_rank."),
        (shared(113, layers=(1,)), "use adapter_parameters=112 or less, or a higher lora_rank."),
    ],
)
def test_what_the_model_has_no_room_for(settings, words):
    with pytest.raises(ModelError, match=words.replace(".", r"\.")):
        settings.adapt(tiny_model.make_model(0), [0])


@pytest.mark.parametrize("settings", [shared(20), FullSettings()])
def test_a_run_is_the_same_alone_and_in_company(settings):
    policies = [make(copy.deepcopy(settings), num_runs=count, learning_rate=1e-3) for count in (3, 1)]
    for policy in policies:
        runs = np.arange(policy.num_runs)
        for _ in range(3):
            policy.update(
                demonstrate(policy, runs, np.repeat([[1, 5]], len(runs), axis=0)),
                np.repeat([[[1.0], [-0.5]]], len(runs), axis=0),
                Reinforce(),
            )
    together, alone = (all_log_probs(policy, np.array([0])) for policy in policies)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
