"""Several secrets a run: bits add up, observers factorise, prompts do not mix, and one secret alone is the
old experiment."""

import copy
import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch
from helpers import complaint, likelihoods_of, secrets_of, setting_of
from torch.testing import assert_close

import memory_rl
from memory_rl.assembly import make_sampling
from memory_rl.learning.learners import Learner, Reinforce
from memory_rl.learning.ratios import PPO
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_directions import open_answers
from memory_rl.policies.base_model import find_base_model, warm_up_cached
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import decision_states, pack_all
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.policies.tokenisation import tokenise, tokenise_all
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.runs.store import SECRETS, RunDirectory
from memory_rl.task import MultiStep, SecretSpace, SingleStep, make_channel
from memory_rl.task.secret_space import code_names
from memory_rl.training.meter import Meter

TOKENIZER = tiny_model.make_tokenizer()


def make_world(kind: str, N: int, num_secrets: int):
    space = SecretSpace(N)
    return (
        MultiStep.with_noise(space, num_secrets=num_secrets)
        if kind == "multi_step"
        else SingleStep(space, make_channel("binary", N), num_secrets)
    )


def make_transformer(kind: str, N: int, num_secrets: int, num_runs: int = 2) -> TransformerPolicy:
    world = make_world(kind, N, num_secrets)
    trie = tokenise_all(
        TOKENIZER, world.conversations(), world.choices(np.arange(world.num_forms)), world.first_prompts()
    )
    policy = TransformerPolicy(
        tiny_model.make_model(0),
        trie,
        num_runs=num_runs,
        lora=LoRASettings(rank=4),
        learning_rate=1e-2,
        seed=0,
    )
    for run, vector in enumerate(policy.adapters.vectors):  # away from the base model
        vector.data += 0.03 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(run))
    return policy


def merged(policy: TransformerPolicy, run: int):
    with torch.no_grad():
        policy.adapters.activate([run])  # what lies in the layers has no graph then, and can be copied
    model = copy.deepcopy(policy.model)
    for name, (down, up) in policy.adapters.matrices(run).items():
        layer = model.get_submodule(name)
        layer.base.weight.data += layer.scale * up @ down
        layer.base.weight.requires_grad_()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.base)
    return model


def plain_log_prob(model, turns) -> torch.Tensor:
    """Log P of all replies of one conversation, by one ordinary causal forward pass."""
    tokens, scored = [], []
    for forced, reply in turns:
        tokens += forced
        scored += range(len(tokens), len(tokens) + len(reply))
        tokens += reply
    log_probs = model(torch.tensor([tokens])).logits[0].double().log_softmax(dim=1)
    return sum(log_probs[place - 1, tokens[place]] for place in scored)


def conversation(world, answer: int, which: int):
    (_, reply), *later = world.conversation(answer)
    return [(world.prompt(0, which), reply), *later]


@pytest.mark.parametrize(("kind", "N", "num_secrets"), [("single_step", 16, 3), ("multi_step", 8, 2)])
def test_behind_each_prompt_every_answer_has_the_probability_of_a_plain_pass(kind, N, num_secrets):
    policy, world = make_transformer(kind, N, num_secrets), make_world(kind, N, num_secrets)
    prompts = np.array([[1, 0, 1], [num_secrets - 1, 1, 0]])
    packed = policy.log_probs(np.arange(2), prompts)
    for run in range(2):
        model = merged(policy, run)
        for block, which in enumerate(prompts[run]):
            with torch.no_grad():
                plain = [
                    plain_log_prob(model, tokenise(TOKENIZER, conversation(world, answer, which))).item()
                    for answer in range(N)
                ]
            np.testing.assert_allclose(packed[run, block, :N], plain, rtol=0, atol=1e-4)
    assert abs(packed[0, 0] - packed[0, 1]).max() > 0.01  # the prompts are told apart
    seen = policy.assess(np.arange(2), np.full((2, num_secrets), 5), N)
    assert_close(torch.from_numpy(seen.of_form[0, [1, 0]]), torch.from_numpy(packed[0, :2, 5]))


def test_an_updates_gradient_is_that_of_plain_passes_over_its_conversations():
    """Three groups of two episodes about two secrets, by autograd through the merged weights of an ordinary
    model."""
    policy, world = make_transformer("single_step", 16, 3), make_world("single_step", 16, 3)
    prompts, answers = np.array([[2, 0, 2], [1, 1, 0]]), np.array([[3, 4, 5, 6, 7, 3], [0, 1, 2, 3, 4, 15]])
    advantages = np.random.default_rng(0).normal(size=(2, 6, 1))
    for run in range(2):
        model, sites = merged(policy, run), policy.adapters.matrices(run)
        loss = -sum(
            advantage
            * plain_log_prob(model, tokenise(TOKENIZER, conversation(world, int(answer), int(which))))
            for advantage, answer, which in zip(
                advantages[run, :, 0], answers[run], np.repeat(prompts[run], 2), strict=True
            )
        )
        (loss / 6).backward()
        scale = policy.adapters.settings.alpha / policy.adapters.settings.rank
        wanted = {
            name: scale * up.T @ model.get_submodule(name).weight.grad for name, (_, up) in sites.items()
        }  # of A, by the chain rule
        policy.optimiser.zero_grad()
        policy.adapters.activate(np.array([run]))
        batch = policy.demonstrate(np.array([run]), prompts[[run]], answers[[run]])
        log_probs = policy._chosen_log_probs(batch.path, batch.prompts)
        weights = torch.from_numpy(policy.trie.per_token(batch.path, advantages[[run]])).float()
        Learner().loss(log_probs, log_probs.detach(), weights).backward()
        vector = policy.adapters.vectors[run]
        vector.data, kept = vector.grad, vector.data
        for name, (down, _) in policy.adapters.matrices(run).items():
            assert_close(down, wanted[name].float(), rtol=1e-3, atol=1e-5)
        vector.data = kept


@pytest.mark.parametrize("learner", [Reinforce(), PPO(clip=0.1, epochs=3)])
def test_a_tabular_row_moves_as_a_learner_of_its_own_would(learner):
    """Blocks about the same secret are one step of its row; a secret that was not asked for, or told nothing,
    stands still."""
    forms = np.arange(5)[:, None]
    many = TabularPolicy(forms, 5, num_runs=2, num_prompts=3, learning_rate=0.3, seed=0)
    single = TabularPolicy(forms, 5, num_runs=1, learning_rate=0.3, seed=0)
    advantages = np.array([[1.0, -1.0, 2.0, -2.0, 0.5, -0.5], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])[:, :, None]
    answers, prompts = np.array([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 1]]), np.array([[2, 1, 2], [0, 1, 2]])
    for _ in range(4):
        many.update(many.demonstrate(np.arange(2), prompts, answers), advantages, learner)
        own, only = np.array([[1.0, -1.0, 0.0, 0.0, 0.5, -0.5]])[:, :, None], np.zeros((1, 1), dtype=np.int64)
        single.update(single.demonstrate(np.arange(1), only, answers[:1]), own, learner)
    assert_close(many.logits[2], single.logits[0])
    assert torch.count_nonzero(many.logits[1]) > 0
    assert torch.count_nonzero(many.logits[[0, 3, 4, 5]]) == 0
    assert many.updates.tolist() == [4 * learner.epochs, 0]


def test_64_secrets_of_the_tabular_learner_are_64_single_runs(tmp_path):
    """Episodes to memorise each secret, counting those about it alone: Kolmogorov and Smirnov."""
    settings = {"backend": "tabular", "N": 16, "seed": 1}
    together = memory_rl.train(
        num_secrets=64,
        num_runs=1,
        evaluate_every=1,
        stop_at=0.5001,
        memorised_share=1.0,
        log_path=str(tmp_path / "64"),
        **settings,
    )
    alone = memory_rl.train(num_runs=64, log_path=str(tmp_path / "1"), **settings)
    asked = together.episodes.sort("episode")
    known = (
        RunDirectory(tmp_path / "64")
        .read_frame(SECRETS)
        .filter(pl.col("bits_known") >= 3)
        .group_by("prompt")
        .agg(pl.col("episode").min())
    )
    own = [
        asked.filter((pl.col("prompt") == prompt) & (pl.col("episode") <= episode)).height
        for prompt, episode in known.iter_rows()
    ]
    threshold = alone.metrics.filter(pl.col("bits_known") >= 3).group_by("run").agg(pl.col("episode").min())
    assert len(own) == len(threshold) == 64
    assert scipy.stats.ks_2samp(own, threshold["episode"].to_numpy()).pvalue > 0.01


def test_the_ledger_is_exact_bayes_over_all_secrets_at_once(tmp_path):
    """Two secrets in [0, 5): the joint posterior over 25 pairs, from episodes.parquet and the channel's
    likelihoods."""
    result = memory_rl.train(
        backend="tabular",
        N=5,
        num_secrets=2,
        num_runs=6,
        reward_type="log_distance",
        reward_noise=0.2,
        max_episodes=40,
        evaluate_every=1,
        log_path=str(tmp_path / "a"),
    )
    channel, secrets = (
        make_channel("log_distance", 5, noise=0.2),
        secrets_of(N=5, num_secrets=2, num_runs=6),
    )
    first, second = np.divmod(np.arange(25), 5)
    for run in range(6):
        belief = np.full(25, 1 / 25)
        final = result.metrics.filter(run=run).sort("episode").row(-1, named=True)
        for row in result.episodes.filter(run=run).sort("episode").iter_rows(named=True):
            about = first if row["prompt"] == 0 else second
            belief *= likelihoods_of(channel, np.array(row["answer"]), about)[
                :, channel.level_indices(np.array([row["reward"]]))[0]
            ]
            belief /= belief.sum()
        truth = secrets[run, 0] * 5 + secrets[run, 1]
        assert final["observer_bits"] == pytest.approx(math.log2(25) + math.log2(belief[truth]), abs=1e-9)
    again = memory_rl.ledger_from_episodes(result.path)
    last = again.group_by("run", maintain_order=True).last()
    ended = result.metrics.sort("run", "episode").group_by("run", maintain_order=True).last()
    for name in ("observer_bits", "asked_bits", "asked_variance"):
        np.testing.assert_allclose(last[name], ended[name], atol=1e-9)


def test_the_tables_agree(tmp_path):
    result = memory_rl.sft(
        N=8,
        num_secrets=6,
        num_runs=3,
        max_episodes=90,
        evaluate_every=10,
        learning_rate=1e-3,
        log_path=str(tmp_path / "a"),
    )
    by_secret = RunDirectory(tmp_path / "a").read_frame(SECRETS)
    sums = by_secret.group_by("run", "episode").agg(
        pl.col("bits_known").sum(),
        pl.col("observer_bits").sum(),
        secrets_memorised=(pl.col("bits_known") >= 2).sum(),
    )
    both = result.metrics.join(sums, on=["run", "episode"], validate="1:1")
    assert len(both) == len(result.metrics)
    np.testing.assert_allclose(both["bits_known"], both["bits_known_right"], atol=1e-9)
    np.testing.assert_allclose(both["observer_bits"], both["observer_bits_right"], atol=1e-9)
    assert (both["secrets_memorised"] == both["secrets_memorised_right"]).all()
    assert result.metrics["secret"].null_count() == len(result.metrics)
    assert set(result.metrics["episode"]) <= {
        0,
        *range(10, 91, 10),
    }  # an example an update, and measured after every tenth
    shown = result.episodes.group_by("run").agg(pl.col("prompt").n_unique())
    assert (shown["prompt"] == 6).all()
    secrets = secrets_of("sft", N=8, num_secrets=6, num_runs=3)
    assert all(
        secrets[run, prompt] == answer
        for run, prompt, answer in result.episodes.select("run", "prompt", "answer").iter_rows()
    )
    needed = math.ceil(0.95 * 6)
    times = (
        result.metrics.filter(pl.col("secrets_memorised") >= needed)
        .group_by("run")
        .agg(pl.col("episode").min())
    )
    assert result.summary["sft"]["memorised"] == len(times)
    if len(times) == 3:
        assert result.summary["sft"]["bits_per_episode"]["estimate"] == pytest.approx(
            needed * 3 / times["episode"].mean()
        )


@pytest.mark.parametrize(("kind", "N", "num_secrets"), [("single_step", 16, 64), ("multi_step", 16, 16)])
def test_the_warm_up_keeps_answers_and_prompts_apart(kind, N, num_secrets):
    """A head alone, uniform behind 64 prompts, would bring the rows of the digits from 2.3 to 1.6; with all
    parameters prompts become alike (0.995)."""
    base = find_base_model("tiny", 0)
    world = make_world(kind, N, num_secrets)
    trie = tokenise_all(
        base.tokenizer, world.conversations(), world.choices(np.arange(N)), world.first_prompts()
    )
    digits = base.tokenizer.convert_tokens_to_ids(list("23456789" if kind == "single_step" else "01"))
    before = torch.pdist(base.model.lm_head.weight[digits]).mean().item()
    report, _ = warm_up_cached(base, trie, N)
    assert report.head_steps > 0
    assert 0 <= report.divergence < 0.005 + 1e-3
    assert torch.pdist(base.model.lm_head.weight[digits]).mean().item() > 0.95 * before
    first = torch.nn.functional.normalize(
        decision_states(base.model, trie, pack_all(trie), np.arange(num_secrets))[:, 0], dim=1
    )
    assert (first @ first.T)[~torch.eye(num_secrets, dtype=torch.bool)].mean().item() < 0.5


@pytest.mark.parametrize(("kind", "begun"), [("single_step", ["", "1"]), ("multi_step", [""])])
def test_a_base_model_for_several_prompts_begins_without_an_opinion(kind, begun):
    """Wherever there is a choice, all tokens that any answer has are equally likely before a single step of
    training; all else stays as it was."""
    base = find_base_model("tiny", 0)
    world = make_world(kind, 16, 5)
    trie = tokenise_all(
        base.tokenizer, world.conversations(), world.choices(np.arange(16)), world.first_prompts()
    )
    of_answers, before = np.unique(trie.edge_token[~trie.is_exit]), copy.deepcopy(base.model)

    def spread(model) -> torch.Tensor:
        conversations = [
            trie.prompts[prompt].tolist() + TOKENIZER.convert_tokens_to_ids(list(text))
            for prompt in range(5)
            for text in begun
        ]
        return torch.stack(
            [model(torch.tensor([tokens])).logits[0, -1, of_answers].std() for tokens in conversations]
        )

    assert spread(before).min() > 0.3
    keep = open_answers(base.model, trie)
    assert spread(base.model).max() < 1e-3
    changed = [
        name for name, weight in base.model.named_parameters() if not weight.equal(before.get_parameter(name))
    ]
    assert changed == ["model.layers.1.mlp.down_proj.weight"]
    head, rows = base.model.lm_head.weight, base.model.lm_head.weight[of_answers].detach().clone()
    with torch.no_grad():
        head += torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
    moved = head[of_answers] - rows
    keep()
    kept, differences = head[of_answers] - rows, rows[1:] - rows[0]
    assert_close(
        kept @ differences.T, torch.zeros_like(kept @ differences.T), rtol=0, atol=1e-4
    )  # as before along what tells them apart,
    free = torch.linalg.svd(differences, full_matrices=True).Vh[len(differences) :]
    assert_close(kept @ free.T, moved @ free.T, rtol=0, atol=1e-4)  # and moved in all other directions


def test_an_adapter_on_the_warmed_model_stores_what_it_is_given():
    """The first such base model left no room for more than 144 of these 256 bits, whatever the rank."""
    result = memory_rl.sft(
        N=16,
        num_secrets=64,
        batch_size=64,
        order="cycle",
        max_episodes=6400,
        evaluate_every=10,
        num_runs=1,
        learning_rate=0.005,
    )
    assert result.metrics["bits_known"].max() > 0.95 * 256


def test_one_secret_among_many_is_the_single_one():
    one, many = secrets_of(N=1000, num_runs=5), secrets_of(N=1000, num_runs=5, num_secrets=7)
    assert (one[:, 0] == many[:, 0]).all()
    assert code_names(3) == code_names(900)[:3]
    assert len(set(code_names(900))) == 900
    assert make_world("single_step", 8, 1).prompt(0) == "Secret in [0,8)?"
    assert make_world("multi_step", 8, 2).prompt(0, 1) == f"{code_names(2)[1]}, bit 1?"


def prompts_of(command="train", **keys):
    return make_sampling(setting_of(command, **keys), None, secrets_of(command, **keys)).prompts


def test_orders_of_prompts():
    keys = {"N": 8, "num_secrets": 3, "num_runs": 2, "batch_size": 2, "max_episodes": 96}
    runs = np.arange(2)
    cycle = prompts_of(order="cycle", **keys)
    assert [cycle.next(runs).tolist()[1] for _ in range(3)] == [[0, 1], [2, 0], [1, 2]]
    blocks = prompts_of(order="blocks", **keys)  # 24 groups of 4: 8 groups, 4 updates a secret
    assert [blocks.next(runs[:1])[0].tolist() for _ in range(13)] == [[0, 0]] * 4 + [[1, 1]] * 4 + [
        [2, 2]
    ] * 4 + [[0, 0]]
    assert blocks.next(runs)[1].tolist() == [0, 0]  # each run has a count of its own
    drawn = prompts_of(**{**keys, "batch_size": 1})
    counts = np.bincount(np.concatenate([drawn.next(runs).ravel() for _ in range(3000)]), minlength=3)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    examples = prompts_of("sft", N=8, num_secrets=3, order="blocks", max_episodes=9)
    assert [int(examples.next(runs[:1])[0, 0]) for _ in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "tabular", "N": 8, "max_episodes": 200, "batch_size": 2},
        {
            "backend": "tabular",
            "N": 8,
            "max_episodes": 200,
            "algorithm": "posterior",
            "group_size": 2,
            "order": "cycle",
        },
        {"N": 8, "max_episodes": 64, "order": "blocks", "evaluate_every": 3},
    ],
    ids=["uniform", "posterior", "transformer"],
)
def test_it_resumes_to_the_same_bytes(tmp_path, monkeypatch, settings):
    whole = memory_rl.train(num_secrets=5, num_runs=3, log_path=str(tmp_path / "whole"), **settings)
    see, calls = Meter.see, []

    def interrupted(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return see(self, *arguments, **named)

    monkeypatch.setattr(Meter, "see", interrupted)
    with pytest.raises(KeyboardInterrupt):
        memory_rl.train(
            num_secrets=5, num_runs=3, checkpoint_every=0, log_path=str(tmp_path / "parts"), **settings
        )
    monkeypatch.setattr(Meter, "see", see)
    memory_rl.train(num_secrets=5, num_runs=3, resume=True, log_path=str(tmp_path / "parts"), **settings)
    for name in ("metrics.parquet", "episodes.parquet", "secrets.parquet", "summary.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (whole.path / name).read_bytes(), name


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("num_secrets=0", "num_secrets=0"),
        ("num_secrets=2 fixed_secret=3", "fixed_secret=3"),
        ("num_secrets=4 memorised_share=0", "memorised_share=0"),
        ("order=cycle", "order=cycle"),
        ("num_secrets=2 order=random", "order=random"),
        ("num_secrets=9999999", "num_secrets=9999999"),
        ("num_secrets=2 N=4096 algorithm=posterior", "N=4096"),
        ("evaluate_every=0", "evaluate_every=0"),
    ],
)
def test_bad_input(words, named, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert named in complaint("train", words, capsys)
