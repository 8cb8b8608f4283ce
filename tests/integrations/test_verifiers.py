"""Verifiers: episodes by the real library, whose model is a local server that answers from a list."""

import asyncio
import json
import math

import pytest
import scipy.stats

pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install 'memory-rl[verifiers]'")
import verifiers.v1 as vf
from aiohttp import web
from helpers import secrets_of

import memory_rl
from memory_rl.dosimeter.recorder import RecordingWarning
from memory_rl.dosimeter.verifiers import record_traces
from memory_rl.errors import ConfigError, DataError
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
    (trace,) = play_episode(model, **keys).traces
    return trace


def play_episode(model, number=0, **keys):
    """One episode about the task of this number."""

    async def run():
        environment = load_environment(**keys)
        task = [*environment.taskset][number]
        async with model, environment.serving():
            context = vf.ModelContext(
                model="listed", client=vf.EvalClientConfig(base_url=model.url, api_key_var="NO_SUCH_KEY")
            )
            return await environment.run_episode(task, context)

    episode = asyncio.run(run())
    assert episode.ok, episode.errors
    return episode


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


def prime(episode, step, group, kind="train"):
    """As prime-rl stamps an episode: the step of its trainer, and the group."""
    from verifiers.v1.episode import EvalWorkInfo, GroupInfo, TrainRunInfo, TrainWorkInfo

    work = (TrainWorkInfo if kind == "train" else EvalWorkInfo)(step=step)
    return episode.model_copy(update={"run": TrainRunInfo(id="1", work=work), "group": GroupInfo(id=group)})


def write(folder, episodes):
    from verifiers.v1.utils.trace_store import write_episode

    folder.mkdir(exist_ok=True)
    for episode in episodes:
        write_episode(folder, episode)


def test_traces_become_a_run_directory_of_what_was_answered_and_told(tmp_path):
    keys = {"N": 8, "reward_type": "log_distance", "seed": 4}
    S = int(secrets_of(N=8, num_runs=1, seed=4)[0, 0])
    said = [(2, "b", "0"), (1, "a", "7"), (1, "a", "eight"), (2, "b", "0"), (3, "c", str(S))]
    episodes = [prime(play_episode(Model(reply), **keys), step, group) for step, group, reply in said]
    episodes.append(prime(play_episode(Model("3"), **keys), 3, "d", kind="eval"))
    write(tmp_path / "outputs", episodes)
    with (tmp_path / "outputs" / "traces.jsonl").open("a") as file:
        file.write('{"cut off')
    with pytest.warns(RecordingWarning, match=r"traces.jsonl, line 7, is left out, since it cannot be read"):
        (result,) = record_traces(tmp_path / "outputs", "dose", figures=False)
    rows = result.episodes.select("update", "answer", "reward").rows()
    level = [max(0.0, 1 - math.log2(1 + abs(answer - S)) / 3) for answer in range(8)]
    expected = [(1, 7, level[7]), (1, None, 0.0), (2, 0, level[0]), (2, 0, level[0]), (3, S, 1.0)]
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    assert [row[2] for row in rows] == pytest.approx([row[2] for row in expected])
    assert result.metrics["zero_advantage_fraction"].to_list() == [None, float(level[7] == 0), 1.0, 1.0]
    possible = {one for one in range(8) if abs(7 - one) == abs(7 - S)}  # the first answer's distance
    assert result.ledger["observer_bits"][0] == pytest.approx(math.log2(8 / len(possible)))
    assert result.ledger["observer_bits"][-1] == pytest.approx(3.0)
    assert result.outcome is memory_rl.Outcome.UNMEASURED
    assert result.config["seed"] == 4


def test_each_secret_of_a_file_of_traces_has_a_directory(tmp_path):
    keys = {"N": 8, "env_type": "multi_step", "num_runs": 2}
    secrets = secrets_of(N=8, num_runs=2)[:, 0]
    episodes = [play_episode(Model("1", "0", "1"), number, **keys) for number in (0, 1, 0)]
    episodes.append(play_episode(Model("1", "two"), 1, **keys))
    write(tmp_path / "outputs", episodes)
    results = record_traces(tmp_path / "outputs" / "traces.jsonl", "dose", figures=False)
    assert [result.path.name for result in results] == ["run-0", "run-1"]
    assert [result.metrics["secret"][0] for result in results] == secrets.tolist()
    assert results[0].episodes["answer"].to_list() == [1, 0, 1, 1, 0, 1]
    assert results[1].episodes["answer"].to_list() == [1, 0, 1, 1, None, None]
    for result, S in zip(results, secrets, strict=True):
        right = [float(bit == S >> place & 1) for bit, place in zip((1, 0, 1), (2, 1, 0), strict=True)]
        assert result.episodes["reward"].to_list()[:3] == right
        assert result.ledger["observer_bits"].to_list() == pytest.approx([3.0, 3.0])


def test_traces_that_cannot_be_recorded_are_told_in_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"traces.jsonl cannot be read \(No such file or directory\): give"):
        record_traces(tmp_path / "traces.jsonl")
    (tmp_path / "traces.jsonl").write_text("")
    with pytest.raises(
        DataError, match="holds no scored trace about a secret: give what memory-rl-verifiers"
    ):
        record_traces(tmp_path)
