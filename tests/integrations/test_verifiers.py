"""Verifiers: episodes by the real library, whose model is a local server that answers from a list."""

import asyncio
import json

import pytest
import scipy.stats

pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install 'memory-rl[verifiers]'")
import verifiers.v1 as vf
from aiohttp import web
from helpers import secrets_of

from memory_rl.errors import ConfigError
from memory_rl.integrations.verifiers import SecretEnv, SecretHarness, load_environment


class Model:
    """An endpoint in OpenAI's format that gives these replies, one after the other, and remembers what it was
    asked."""

    def __init__(self, *replies, finish_reason="stop"):
        self._replies, self._finish_reason, self.asked = list(replies), finish_reason, []

    async def __aenter__(self):
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _answer(self, request):
        self.asked.append((await request.json())["messages"])
        message = {"role": "assistant", "content": self._replies[len(self.asked) - 1]}
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        return web.json_response(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "listed", "choices": [choice]}
        )


def play(model, **keys):
    """One episode: its trace."""

    async def run():
        environment = load_environment(**keys)
        (task,) = environment.taskset
        async with model, environment.serving():
            context = vf.ModelContext(
                model="listed", client=vf.EvalClientConfig(base_url=model.url, api_key_var="NO_SUCH_KEY")
            )
            return await environment.run_episode(task, context)

    episode = asyncio.run(run())
    assert episode.ok, episode.errors
    (trace,) = episode.traces
    return trace


def scores(trace):
    return {name: reward.score for name, reward in trace.rewards.items()}


@pytest.mark.parametrize(
    ("reply", "expected"), [("5", 1.0), (" 5\n", 1.0), ("4", 2 / 3), ("05", 0.0), ("eight", 0.0)]
)
def test_an_integer_is_one_turn_and_one_reward(reply, expected):
    model = Model(reply)
    trace = play(model, N=8, reward_type="log_distance", fixed_secret=5)
    assert scores(trace) == pytest.approx({"answer": expected})  # 1 - log2(2) / log2(8)
    assert model.asked == [[{"role": "user", "content": "Secret in [0,8)?"}]]


def test_bits_are_turns_whose_rewards_stay_apart():
    model = Model("1", "1", "0")
    trace = play(model, N=8, env_type="multi_step", fixed_secret=0b100)
    assert scores(trace) == {"bit_1": 1.0, "bit_2": 0.0, "bit_3": 1.0}
    assert trace.reward == 2.0  # what a trainer with one reward an episode takes
    assert trace.metrics == {"valid": 1.0}
    asked = ["Secret in [0,8), bit 1?", "1", "2?", "1", "3?"]
    roles = ["user", "assistant", "user", "assistant", "user"]
    assert model.asked[-1] == [
        {"role": role, "content": text} for role, text in zip(roles, asked, strict=True)
    ]
    assert trace.num_branches == 1  # one conversation, one training sample


@pytest.mark.parametrize("invalid", ["2", "yes", "\N{NO-BREAK SPACE}1", ""])
def test_an_invalid_bit_ends_the_episode(invalid):
    model = Model("1", invalid, "1")
    trace = play(model, N=8, env_type="multi_step", fixed_secret=0b111)
    assert scores(trace) == {"bit_1": 1.0, "bit_2": 0.0, "bit_3": 0.0}
    assert trace.metrics == {"valid": 0.0}
    assert len(model.asked) == 2


def test_a_reply_that_was_cut_off_is_invalid():
    assert scores(play(Model("12", finish_reason="length"), N=128, fixed_secret=12)) == {"answer": 0.0}


def test_each_task_is_a_run_whose_secret_no_model_is_shown():
    tasks = list(load_environment(N=1000, seed=2, num_runs=5).taskset)
    assert [task.data.secret for task in tasks] == secrets_of(N=1000, seed=2, num_runs=5)[:, 0].tolist()
    assert {task.data.prompt for task in tasks} == {"Secret in [0,1000)?"}
    model = Model("1", "0", "1")
    play(model, N=8, env_type="multi_step", fixed_secret=6)
    assert "6" not in json.dumps(model.asked)


def test_scoring_again_gives_the_same_noise_and_noise_flips_as_often_as_it_says():
    keys = {"N": 4, "reward_noise": 0.25, "fixed_secret": 3}
    trace = play(Model("3"), **keys)
    (task,) = load_environment(**keys).taskset

    async def score_again(identity):
        copied = trace.model_copy(update={"id": identity, "rewards": {}, "metrics": {}})
        await task.score(copied)
        return copied.reward

    assert asyncio.run(score_again(trace.id)) == trace.reward
    flipped = sum(asyncio.run(score_again(f"trace-{number}")) == 0 for number in range(600))
    assert scipy.stats.binomtest(flipped, 600, 0.25).pvalue > 1e-3


def test_a_bad_key_is_one_sentence():
    with pytest.raises(ConfigError, match=r"fixed_secret=9 is not in \[0, 8\)"):
        load_environment(N=8, fixed_secret=9)


def test_the_library_finds_it_by_its_id():
    config = vf.resolve_env_config(
        {"taskset": {"id": "memory-rl-verifiers", "N": 32, "env_type": "multi_step", "num_runs": 3}}
    )
    environment = vf.load_environment(config)
    assert type(environment) is SecretEnv
    assert [task.world.num_steps for task in environment.taskset] == [5, 5, 5]
    assert type(vf.load_harness(environment.config.agent_harnesses()["agent"])) is SecretHarness
