"""Makes rollouts of many gigabytes and audits them: seconds and peak memory.

    python benchmarks/audit.py FOLDER [GIGABYTES]

The files are those of verl: a JSON object a line, with the texts of prompt and answer, a file a step. The
audit runs in a process of its own; what is there already is not made again.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

PROMPTS, GROUP, GROUPS_A_STEP = 20_000, 8, 128
PROMPT_LENGTH, ANSWER_LENGTH = 800, 3600
"""Characters."""


def make(folder: Path, gigabytes: float) -> None:
    """Writes steps until there are so many gigabytes."""
    folder.mkdir(parents=True, exist_ok=True)
    source, written, step = random.Random(0), 0, 0  # noqa: S311
    letters = "".join(source.choices('abcdefghijklmnopqrstuvwxyz      \n".,', k=1_000_000))
    rates = [source.betavariate(0.4, 0.8) for _ in range(PROMPTS)]
    while written < gigabytes * 1e9:
        step += 1
        path = folder / f"{step}.jsonl"
        if not path.is_file():
            path.write_text("".join(_lines(source, letters, rates, step)), encoding="utf-8")
        written += path.stat().st_size


def _lines(source: random.Random, letters: str, rates: list[float], step: int) -> list[str]:
    lines = []
    for prompt in source.sample(range(PROMPTS), GROUPS_A_STEP):
        start = prompt * 7
        for _ in range(GROUP):
            answer = source.randrange(len(letters) - ANSWER_LENGTH)
            score = float(source.random() < rates[prompt])
            line = {
                "input": f"{prompt} {letters[start : start + PROMPT_LENGTH]}",
                "output": letters[answer : answer + ANSWER_LENGTH],
                "gts": str(prompt),
                "score": score,
                "step": step,
                "acc": score,
            }
            lines.append(json.dumps(line) + "\n")
    return lines


def main() -> None:
    """Makes the files, audits them, and prints what it took."""
    folder = Path(sys.argv[1])
    make(folder, float(sys.argv[2]) if len(sys.argv) > 2 else 2.0)
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "memory_rl", "audit", str(folder)], check=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{size / 1e9:.2f} GB in {seconds:.0f} s, with {peak:.2f} GiB of memory at the most")  # noqa: T201


if __name__ == "__main__":
    main()
