"""Verifiers: the traces that its commands and prime-rl write, as an ordinary run directory.

    from memory_rl.dosimeter.verifiers import record_traces
    record_traces("outputs/run", log_path="runs/dose")

A trace holds the probabilities of what was sampled, and so P(S) only where that was S: what the policy knows
is not measured. What its episodes told is.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from memory_rl.dosimeter.recorder import RecordedEpisodes, RecordedTrainer, Recorder, RecordingWarning
from memory_rl.errors import DataError, one_line
from memory_rl.files import as_path, parse_json
from memory_rl.integrations.verifiers import SecretData, SecretTask  # says that verifiers is missing
from memory_rl.result import Result

import verifiers.v1 as vf  # isort: skip
from verifiers.v1.configs.agent import WireAgentConfig  # isort: skip
from verifiers.v1.episode import WireEpisode  # isort: skip
from verifiers.v1.utils.trace_store import TRACES_FILE, type_adapter  # isort: skip

_TASK = "SecretTask"


class _Told:
    """One trace about a secret: when it was sampled, with whom, and what came of it."""

    def __init__(self, episode: Any, trace: Any) -> None:
        work = None if episode.run is None or episode.run.type == "eval" else episode.run.work
        self.shown = work is not None and work.type == "eval"
        self.update = 0 if work is None else work.step
        self.group = None if episode.group is None else episode.group.id
        self.task = SecretTask(trace.task.data, vf.TaskConfig())
        self.choices = self.task.read(trace)
        found = [trace.rewards.get(name) for name in self.task.reward_names]
        self.whole = None not in found
        self.rewards = [reward.score for reward in found if reward is not None]
        self.tokens = sum(sum(node.mask) for node in trace.nodes if node.sampled)

    @property
    def run(self) -> tuple[str, int]:
        """What tells the runs of a file apart: the keys of their world, and their secret."""
        return repr(sorted(self.task.data.keys.items())), self.task.data.secret


def record_traces(traces: str | Path, log_path: str | None = None, *, figures: bool = True) -> list[Result]:
    """Writes a run directory for each secret of a file of traces; what evaluated a training is left out.

    An update is a step of the trainer that stamped the traces (prime-rl); without one all are of update 0.

    Args:
        traces: traces.jsonl, or the folder that holds it.
        log_path: the run directory; with several secrets the folder of run-0, run-1 and so on. None for new
            ones under runs/.
        figures: whether to draw the figures.

    Raises:
        DataError: if there is no such file, or it holds no trace about a secret.
        RunDirectoryError: if a run directory is taken.
    """
    path = as_path(traces, "traces")
    path = path / TRACES_FILE if path.is_dir() else path
    runs = defaultdict(list)
    for told in _read(path):
        runs[told.run].append(told)
    if not runs:
        raise DataError(
            f"traces={path} holds no scored trace about a secret: give what memory-rl-verifiers has written."
        )
    names = (
        [None if log_path is None else log_path]
        if len(runs) == 1
        else [log_path and f"{log_path}/run-{number}" for number in range(len(runs))]
    )
    return [_record(name, of_run, figures) for name, of_run in zip(names, runs.values(), strict=True)]


def _record(log_path: str | None, traces: list[_Told], figures: bool) -> Result:
    """The run directory of the traces about one secret."""
    data = traces[0].task.data
    keys = {"wording": "terse", **data.keys}
    if traces[0].task.world.secret() != data.secret:  # that of a later run of the same seed
        keys["fixed_secret"] = data.secret
    recorder = Recorder(log_path, figures=figures, **keys)
    recorder.start(RecordedTrainer("verifiers", "traces", {}), None)
    ordered = sorted(traces, key=lambda told: told.update)
    for update, some in groupby(ordered, key=lambda told: told.update):
        recorder.take(_episodes([*some]), update)
        recorder.evaluate(update + 1)
    result = recorder.finish(ordered[-1].update + 1)
    assert result is not None  # noqa: S101  # nothing is measured that could diverge
    return result


def _episodes(some: list[_Told]) -> RecordedEpisodes:
    groups = defaultdict(list)
    for told in some:
        groups[told.group].append(sum(told.rewards))
    groups.pop(None, None)
    return RecordedEpisodes(
        np.zeros(len(some), dtype=np.int64),
        np.stack([told.choices for told in some]),
        np.array([told.rewards for told in some], dtype=float),
        float(np.mean([len(set(rewards)) == 1 for rewards in groups.values()])) if groups else np.nan,
        sum(told.tokens for told in some),
    )


def _read(path: Path) -> Iterator[_Told]:
    """The scored traces about secrets, in the order of the file; a line that is damaged is named."""
    adapter = type_adapter(vf.Trace[SecretData, vf.State, WireAgentConfig])
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = parse_json(line)
                    episode = WireEpisode.model_validate({**row, "traces": []})
                    ours = [trace for trace in row["traces"] if trace["task"]["type"] == _TASK]
                    told = [_Told(episode, adapter.validate_python(trace)) for trace in ours]
                except (ValueError, KeyError, TypeError) as error:
                    warnings.warn(
                        f"{path}, line {number}, is left out, since it cannot be read "
                        f"({one_line(str(error))}).",
                        RecordingWarning,
                        stacklevel=3,
                    )
                    continue
                yield from (one for one in told if one.whole and not one.shown)
    except OSError as error:
        raise DataError(f"traces={path} cannot be read ({error.strerror}): give {TRACES_FILE}.") from error
