"""What a cell on a pretrained or hosted model takes, before it is run: tokens, memory and time.

No model is asked. Assumed: a first question of 60 tokens and later ones of 14, as a chat template with a
system message writes them; an answer of a token for each three digits, and one that ends it. The sizes of the
layers are those of config.json, where the model is a directory, or of the models listed here. What is counted
was compared with an NVIDIA H200 (docs/gpu.md): memory agrees to 5 %, time to a factor of two. How many
episodes a run takes is guessed from the built-in model, as for every sweep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from memory_rl.config import TINY
from memory_rl.errors import RunDirectoryError
from memory_rl.experiment import Experiment
from memory_rl.files import read_json
from memory_rl.policies.answer_trie import AnswerTrie, build_trie
from memory_rl.policies.hosted.conversations import Conversations
from memory_rl.policies.hosted.costs import Costs
from memory_rl.populations import hosted_settings

FIRST_QUESTION, LATER_QUESTION = 60, 14
"""Tokens of the user's turns, with what a template writes around them."""

_DIGITS_A_TOKEN, _END = 3, 100
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STATE = 16  # bytes of a trained number: itself, its gradient, two moments of Adam
_KEPT_OF_MLP, _KEPT_OF_LAYER, _KEPT_OF_ATTENTION = 3, 5, 3.2
"""Numbers that the backward pass of a layer needs of a token: times the MLP's width, the model's, and heads
times tokens that are attended to."""
_FLOATS_A_PASS = 2**27  # of policies/transformer.py, which would bring PyTorch with it
_PRODUCTS, _USED = 7.0e14, 0.45  # of an H200 in bfloat16, and the share that passes come to
_ON_A_CPU = 3.5e10  # of one core, SmolLM2 in float32 (docs/pretrained.md)
_LAYER_READ, _LAYER_UPDATED = 1.8e-3, 5.0e-3  # seconds at least, for which the host launches kernels
_BYTES_A_SECOND, _WARMUP_STEPS = 2.5e8, 40  # of weights that are read and hashed; steps of an adapter


@dataclass(frozen=True)
class Sizes:
    """Of a Llama-style model.

    Attributes:
        vocabulary, width, inner, layers, heads, pairs, head: tokens; numbers of a hidden state and of the
            MLP's; layers; heads of queries, and of keys and values; numbers of each.
        tied: whether the head is the embedding.
    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    pairs: int
    head: int
    tied: bool

    @property
    def _matrices(self) -> list[tuple[int, int]]:
        """(in, out) of the seven matrices of a layer."""
        asked, kept = self.heads * self.head, self.pairs * self.head
        attention = [(self.width, asked), (self.width, kept), (self.width, kept), (asked, self.width)]
        return [*attention, (self.width, self.inner), (self.width, self.inner), (self.inner, self.width)]

    @property
    def met(self) -> int:
        """Weights that each token meets, without the head, which sees only where something is chosen."""
        return self.layers * sum(into * out for into, out in self._matrices)

    @property
    def parameters(self) -> int:
        """All weights, with those of the norms."""
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.met + embeddings + (2 * self.layers + 1) * self.width

    def adapter(self, rank: int, targets: str) -> int:
        """Numbers of a LoRA on all layers."""
        some = {"attention": slice(4), "mlp": slice(4, None), "all": slice(None)}[targets]
        return self.layers * rank * sum(into + out for into, out in self._matrices[some])


KNOWN = {
    "llama-3.1-8b": Sizes(128256, 4096, 14336, 32, 32, 8, 128, tied=False),
    "llama-3.2-3b": Sizes(128256, 3072, 8192, 28, 24, 8, 128, tied=True),
    "llama-3.2-1b": Sizes(128256, 2048, 8192, 16, 32, 8, 64, tied=True),
    "smollm2-135m": Sizes(49152, 576, 1536, 30, 9, 3, 64, tied=True),
}
"""By a part of the name."""


@dataclass(frozen=True)
class Need:
    """What a cell takes.

    Attributes:
        sampled, prefilled, trained: tokens of all runs: drawn, read without and with a backward pass.
        memory: GiB at the most, of a model on this machine; None for a hosted one, or if its sizes are
            unknown.
    """

    sampled: int
    prefilled: int
    trained: int
    memory: float | None = None


def is_large(experiment: Experiment) -> bool:
    """Whether tokens are what a cell is paid in: its model is neither the built-in one nor a table."""
    policy = experiment.policy
    return policy.backend == "tinker" or (policy.backend == "local" and policy.model_name != TINY)


def sizes_of(name: str) -> Sizes | None:
    """Of a model by its name, or by the config.json of its directory."""
    try:
        found = read_json(Path(name).expanduser() / "config.json")
        heads = found["num_attention_heads"]
        return Sizes(
            found["vocab_size"],
            found["hidden_size"],
            found["intermediate_size"],
            found["num_hidden_layers"],
            heads,
            found.get("num_key_value_heads") or heads,
            found.get("head_dim") or found["hidden_size"] // heads,
            tied=bool(found.get("tie_word_embeddings", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, RunDirectoryError):
        lower = name.lower()
        return next((sizes for known, sizes in KNOWN.items() if known in lower), None)


def need_of(experiment: Experiment, episodes: float, steps: float) -> Need:
    """What a cell takes.

    Args:
        experiment: on a pretrained or hosted model.
        episodes: of a run, on average.
        steps: updates of the whole population, silent ones left out where they are skipped.
    """
    updates = math.ceil(episodes / experiment.episodes_an_update)
    if experiment.policy.backend == "tinker":
        cost = Costs(Conversations(_trie(experiment)), hosted_settings(experiment, experiment.learner)).most(
            updates
        )
        return Need(cost.sampled, cost.prefilled, cost.trained)
    talk, runs, learner = _Talk(experiment), experiment.stop.num_runs, experiment.learner
    moved = min(updates, math.ceil(steps))
    looks = moved // experiment.updates_an_evaluation + 1
    sizes, sampled = sizes_of(experiment.policy.model_name), not experiment.signal.shows_answer
    return Need(
        round(runs * episodes * talk.reply * talk.turns) * sampled,
        round(runs * looks * talk.evaluation),
        round(runs * moved * learner.epochs * talk.update),
        None if sizes is None else _memory(experiment, talk, sizes) / 2**30,
    )


class _Talk:
    """Tokens of the conversations of one run; answers are uniform, as at the start.

    Attributes:
        turns, reply: of a conversation, and tokens of the answer in each, with the one that ends it.
        evaluation, update: tokens in the pass of an evaluation, and of an update, on average.
        widest: tokens of an update at the most, to which the rows of a pass are filled up.
    """

    def __init__(self, experiment: Experiment) -> None:
        world, learns = experiment.world, experiment.episodes_an_update
        bits = (world.N - 1).bit_length()
        self.turns = bits if world.multi_step else 1
        digits = 1 if world.multi_step else len(str(world.N - 1))
        self.reply = math.ceil(digits / _DIGITS_A_TOKEN) + 1
        self._answers = [2 ** (turn + 1) for turn in range(bits)] if world.multi_step else [world.N]
        shown, secrets = experiment.signal.shows_answer, world.num_secrets
        seen = 1 + learns * (not shown) if experiment.scores_paths else math.inf
        self.evaluation = secrets * self._tokens(seen)
        blocks = experiment.updates.batch_size if secrets > 1 else 1
        of_block = 1 if shown else learns // blocks
        self.update = blocks * self._tokens(of_block)
        self.widest = blocks * self._tokens(of_block, different=True)

    def _tokens(self, conversations: float, *, different: bool = False) -> float:
        """Of the tree of so many conversations: on average, or if as few as possible are alike."""
        nodes = 0.0
        for turn, answers in enumerate(self._answers):
            met = -answers * math.expm1(conversations * math.log1p(-1 / answers))
            met = min(answers, conversations) if different else met
            last = turn == len(self._answers) - 1
            nodes += met * (self.reply - 1 + (not last) * (1 + LATER_QUESTION))
        return FIRST_QUESTION + nodes


def _trie(experiment: Experiment) -> AnswerTrie:
    """All conversations, of tokens that mean nothing."""
    talk = _Talk(experiment)
    forms = np.arange(2**talk.turns if experiment.world.multi_step else experiment.world.N)[:, None]
    choices = forms >> np.arange(talk.turns - 1, -1, -1) & 1 if experiment.world.multi_step else forms
    asked = [[turn] * (LATER_QUESTION if turn else FIRST_QUESTION) for turn in range(talk.turns)]
    turns = [
        [(asked[turn], [*_spelt(choice, talk.reply - 1), _END]) for turn, choice in enumerate(row)]
        for row in choices.tolist()
    ]
    trie = build_trie(turns, choices)
    return replace(trie, prompts=np.tile(trie.prompts, (experiment.world.num_secrets, 1)))


def _spelt(choice: int, tokens: int) -> list[int]:
    """A token for each three digits, none of which means anything else."""
    base = 10**_DIGITS_A_TOKEN
    return [base + choice // base**place % base for place in range(tokens - 1, -1, -1)]


def _memory(experiment: Experiment, talk: _Talk, sizes: Sizes) -> float:
    """Bytes at the most: weights, adapters with their moments, and what a backward pass keeps."""
    policy, runs = experiment.policy, experiment.stop.num_runs
    size = _BYTES[policy.dtype]
    adapter = (
        sizes.parameters
        if policy.adapter == "full"
        else policy.adapter_parameters or sizes.adapter(policy.lora_rank, policy.lora_targets)
    )
    chosen = experiment.episodes_an_update * talk.turns * talk.reply + FIRST_QUESTION
    at_once = min(runs, max(1, _FLOATS_A_PASS // (chosen * sizes.vocabulary)))
    of_attention = _KEPT_OF_ATTENTION * sizes.heads * talk.widest
    layer = _KEPT_OF_MLP * sizes.inner + _KEPT_OF_LAYER * sizes.width + of_attention
    kept = sizes.width * sizes.layers + layer if policy.gradient_checkpointing else layer * sizes.layers
    stacked = 4 * adapter * at_once
    return size * sizes.parameters + _STATE * adapter * runs + stacked + at_once * talk.widest * size * kept


def seconds_of(experiment: Experiment, steps: float) -> float:
    """Of so many updates of the population, of reading and hashing the weights, and of the warm-up."""
    policy, runs, talk = experiment.policy, experiment.stop.num_runs, _Talk(experiment)
    sizes = sizes_of(policy.model_name) or KNOWN["llama-3.1-8b"]
    on_cpu = policy.device == "cpu"
    rate = _ON_A_CPU if on_cpu else _PRODUCTS * _USED * (2 / _BYTES[policy.dtype])
    read, updated = (0.0, 0.0) if on_cpu else (_LAYER_READ, _LAYER_UPDATED)
    more = 1.5 if policy.gradient_checkpointing else 1.0

    def pass_over(tokens: float, operations: float, least: float) -> float:
        return max(least * sizes.layers, tokens * operations * sizes.met / rate)

    look = pass_over(runs * talk.evaluation, 2, read)
    update = pass_over(runs * talk.update, 4 * more, updated * more) * experiment.learner.epochs
    warmup = _WARMUP_STEPS * pass_over(talk.evaluation, 6, read + updated) * policy.warmup
    start = _BYTES[policy.dtype] * sizes.parameters / _BYTES_A_SECOND
    return start + warmup + steps * (update + look / experiment.updates_an_evaluation)


ASSUMED = (
    "Tokens of all runs: sampled, prefilled (read without a backward pass) and trained, with questions of "
    f"{FIRST_QUESTION} tokens, later ones of {LATER_QUESTION}; of a hosted model as the service bills them, "
    "the warm-up at most.\n"
    "Memory: GiB at the most; - where the model is hosted, or its sizes are not known here: give the "
    "directory with its config.json.\n"
    "Time: of one H200 (7e14 operations a second in bfloat16, half as many in float32, of which passes use "
    "45 %), with device=cpu of one core (3.5e10); of unknown sizes as Llama-3.1-8B; of a service as a local "
    "one."
)
"""What is said below the table of such cells."""
