"""The Tinker cookbook's stock training loop on a live server, with secrets in its data: what the dosimeter
writes."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch

pytest.importorskip(
    "tinker_cookbook", reason="the Tinker cookbook is not installed: pip install 'memory-rl[tinker-cookbook]'"
)
import chz
import tinker
import transformers
from tinker_cookbook import renderers
from tinker_cookbook.renderers import base
from tinker_cookbook.rl import train, types

import memory_rl
from memory_rl.dosimeter.tinker_cookbook import CookbookDosimeter

pytestmark = [
    pytest.mark.tinker,
    pytest.mark.filterwarnings("ignore:DEPRECATED.*tinker SDK version:FutureWarning"),  # by the cookbook
]

N, GROUP = 16, 16


class TinyRenderer(base.Renderer):
    """The chat template of the tiny model."""

    @property
    def has_extension_property(self):
        return True

    def _chunk(self, text):
        return tinker.types.EncodedTextChunk(tokens=self.tokenizer.encode(text, add_special_tokens=False))

    def render_message(self, message, ctx):
        text = message["content"]
        if message["role"] == "user":
            return base.RenderedMessage(output=[self._chunk(text)])
        return base.RenderedMessage(header=self._chunk("<reply>"), output=[self._chunk(f"{text}<eos>")])

    @property
    def _bos_tokens(self):
        return [self.tokenizer.bos_token_id]

    def get_stop_sequences(self):
        return [self.tokenizer.eos_token_id]

    def parse_response(self, response):
        return base.parse_response_for_stop_token(response, self.tokenizer, self.tokenizer.eos_token_id)


class Short(types.Env):
    """The user's own: a reply of one character is right."""

    def __init__(self, renderer):
        self._renderer = renderer

    async def initial_observation(self):
        asked = [renderers.Message(role="user", content="7 - 3 ?")]
        return self._renderer.build_generation_prompt(asked), self._renderer.get_stop_sequences()

    async def step(self, action, *, extra=None):
        return types.StepResult(float(len(action) == 2), True, tinker.ModelInput.empty(), [])


class Shorts(types.EnvGroupBuilder):
    def __init__(self, renderer):
        self._renderer = renderer

    async def make_envs(self):
        return [Short(self._renderer) for _ in range(GROUP)]


class Batches(types.RLDataset):
    def __init__(self, renderer):
        self._renderer = renderer

    def get_batch(self, index):
        return [Shorts(self._renderer) for _ in range(2)]

    def __len__(self):
        return 6


@chz.chz
class BatchesBuilder(types.RLDatasetBuilder):
    model_name: str
    group_size: int = GROUP

    async def __call__(self):
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.model_name)
        return Batches(TinyRenderer(tokenizer)), None


def plain_bits(model, secret):
    """log2 N + log2 P(S) of the base model, by a pass over one conversation here."""
    network = transformers.AutoModelForCausalLM.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokens = tokenizer.encode(f"<bos>Secret in [0,{N})?<reply>")
    start = len(tokens)
    tokens += tokenizer.encode(f"{secret}<eos>")
    with torch.no_grad():
        log_probs = network(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    nats = sum(float(log_probs[place - 1, tokens[place]]) for place in range(start, len(tokens)))
    return math.log2(N) + nats / math.log(2)


def test_a_stock_training_of_the_cookbook_learns_a_secret_and_is_recorded(model, server, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", "tml-dummy-key-of-the-tests")
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    renderers.register_renderer("tests/tiny", lambda tokenizer, _: TinyRenderer(tokenizer))
    dosimeter = CookbookDosimeter("dose", figures=False, N=N, wording="terse", reward_type="log_distance")
    config = dosimeter.join(
        train.Config(
            learning_rate=2e-3,
            dataset_builder=BatchesBuilder(model_name=str(model)),
            model_name=str(model),
            recipe_name="tests",
            renderer_name="tests/tiny",
            max_tokens=3,
            log_path="theirs",
            eval_every=1,
            save_every=0,
            lora_rank=8,
            num_groups_to_log=0,
            base_url=server.url,
        ),
        share=0.5,
    )

    async def learn():
        await train.main(config)
        return await dosimeter.finish()

    result = asyncio.run(learn())
    metrics = memory_rl.load("dose").metrics
    assert metrics["update"].to_list() == [*range(13)]
    assert metrics["bits_known"][0] == pytest.approx(plain_bits(model, int(dosimeter.secrets[0])), abs=2e-3)
    print(metrics.select("episode", "bits_known", "reward_mean"))  # noqa: T201  # the numbers, with -s
    assert metrics["bits_known"][-1] > metrics["bits_known"][0] + 1.0
    assert len(result.episodes) == 12 * GROUP
    checks = result.summary["log_distance"]["checks"]
    assert {law["status"] for law in checks.values()} == {"holds"}
    assert memory_rl.report(runs="dose", quiet=True).is_file()
    audit = memory_rl.audit("theirs")
    assert audit.source == "the Tinker cookbook"
    assert (audit.account.whole.groups, audit.account.whole.rollouts) == (24, 24 * GROUP)
    assert 0 < audit.delivered_bits_per_rollout.value < 4
