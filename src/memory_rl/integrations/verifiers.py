"""Verifiers (0.4 and later): a taskset, an environment and a harness, under the id `memory-rl-verifiers`.

    # with the library's own command:
    vf-eval memory-rl-verifiers --env.taskset.N 64 --env.taskset.env-type multi_step --no-push

    # in Python:
    from memory_rl.integrations.verifiers import load_environment
    environment = load_environment(N=64, env_type="multi_step")

A task is a run: one secret, which no message reveals. In multi_step the environment asks for one bit after
another, and each bit has a reward of its own name in `trace.rewards` (bit_1 ... bit_k). The library keeps
them apart in the trace and on disk, and its `trace.reward` is their sum, which a trainer that knows one
reward per episode will take: what we call credit=episode. A trainer that fills in `MessageNode.advantages`
can credit each step as it likes.

The harness only asks the model, in this process. The library's own (`--env.agent.harness.id null`) works as
well.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, cast

import numpy as np

from memory_rl.errors import require
from memory_rl.integrations.worlds import AskedWorld, keys_of_world, make_world
from memory_rl.seeding import generator
from memory_rl.task import INVALID

require("verifiers", "verifiers", "memory_rl.integrations.verifiers")

import httpx  # noqa: E402  # verifiers needs it
import verifiers.v1 as vf  # noqa: E402  # its absence is said first
from verifiers.v1.dialects.chat import message_to_wire  # noqa: E402

__all__ = ["SecretEnv", "SecretHarness", "SecretTaskset", "load_environment"]


class SecretData(vf.TaskData):
    """A run, as a trace records it: all that is needed to score it again."""

    secret: int
    """S. It is in no prompt."""
    keys: dict[str, Any]
    """Those of `memory_rl.integrations.worlds.make_world`."""


class SecretTask(vf.Task[SecretData]):
    """Scores an episode."""

    @cached_property
    def world(self) -> AskedWorld:
        """The world of the task."""
        return make_world(**self.data.keys)

    @property
    def reward_names(self) -> list[str]:
        """What the rewards of the steps are called."""
        if self.world.world.env_type == "single_step":
            return ["answer"]
        return [f"bit_{step}" for step in range(1, self.world.num_steps + 1)]

    def read(self, trace: vf.Trace) -> np.ndarray:
        """The choices of the model's replies so far, (K,); one that was cut off is invalid."""
        cut_off = {call.node for call in trace.calls if call.finish_reason == "length"}
        replies = [
            None if index in cut_off else node.message.content or ""
            for index, node in enumerate(trace.nodes)
            if node.sampled
        ]
        return self.world.read(replies[: self.world.num_steps])

    @vf.reward
    async def step_rewards(self, trace: vf.Trace) -> dict[str, float]:
        """The reward of each step, by name.

        Its noise depends on the trace alone, so that scoring it again gives the same.
        """
        chance = generator(self.world.world.seed, "reward noise", int.from_bytes(trace.id.encode()))
        rewards = self.world.score(self.read(trace), self.data.secret, chance)
        return dict(zip(self.reward_names, rewards.tolist(), strict=True))

    @vf.metric
    async def valid(self, trace: vf.Trace) -> float:
        """Whether every turn was a canonical answer."""
        return float((self.read(trace) != INVALID).all())


class SecretTasksetConfig(vf.TasksetConfig):
    """The keys of an experiment's world, as `memory_rl.train` takes them."""

    id: str = "memory-rl-verifiers"
    env_type: str = "single_step"
    N: int = 64
    reward_type: str | None = None
    reward_bins: int | None = None
    reward_noise: float = 0.0
    seed: int = 0
    fixed_secret: int | None = None
    num_runs: int = 1
    """The number of tasks, each with the secret that the run has in an experiment with this seed.

    One model is meant to learn one of them.
    """


class SecretTaskset(vf.Taskset[SecretTask, SecretTasksetConfig]):
    """One task per run."""

    def load(self) -> Iterator[SecretTask]:
        """The tasks.

        Raises:
            ConfigError: one sentence about the first bad value.
        """
        keys = keys_of_world(self.config)
        world = make_world(**keys)
        for run in range(self.config.num_runs):
            data = SecretData(
                name=f"run-{run}", prompt=world.environment.prompt(0), secret=world.secret(run), keys=keys
            )
            yield SecretTask(data, self.config.task)


class SecretEnvConfig(vf.EnvConfig):
    """One agent: the model that is to learn."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class SecretEnv(vf.Env[SecretEnvConfig]):
    """Asks the K questions of an episode; the first invalid reply ends it."""

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        """One episode."""
        task = cast(SecretTask, task)
        if task.world.num_steps == 1:
            await agents.agent.run(task)
            return
        async with agents.agent.interaction(task) as talk:
            segment = await talk.turn()
            for step in range(1, task.world.num_steps):
                if segment.terminated or task.read(talk.trace)[step - 1] == INVALID:
                    break
                segment = await talk.turn(task.world.environment.prompt(step))


class SecretHarness(vf.Harness[vf.HarnessConfig]):
    """Asks the model for one reply to the conversation, in this process."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Sends one chat completion request; `secret` is the endpoint's token, and no secret of ours."""
        system, prompt = self.resolve_prompt(data)
        asked = (
            [{"role": "user", "content": prompt}]
            if isinstance(prompt, str)
            else [message_to_wire(message) for message in prompt or []]
        )
        messages = asked if system is None else [{"role": "system", "content": system}, *asked]
        # The library has time limits of its own.
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113
            body = {"model": ctx.model, "messages": messages}
            reply = await client.post(
                f"{endpoint}/chat/completions", headers={"Authorization": f"Bearer {secret}"}, json=body
            )
        return vf.ProgramResult(
            exit_code=0 if reply.is_success else 1, stdout="", stderr="" if reply.is_success else reply.text
        )


def load_environment(**keys: Any) -> SecretEnv:
    """The environment of these keys, which are those of `SecretTasksetConfig`.

    Raises:
        ConfigError: one sentence about the first bad value.
    """
    environment = SecretEnv(SecretEnvConfig(taskset=SecretTasksetConfig(**keys)))
    list(environment.taskset)  # a bad value is reported at once
    return environment
