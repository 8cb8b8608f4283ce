"""Whether the engine is right on a GPU, what it takes there, and how fast it is: in eight minutes at most.

    PYTHONPATH=src python benchmarks/gpu_check.py                       all sections, 480 seconds
    PYTHONPATH=src python benchmarks/gpu_check.py --sections large lockstep --seconds 300 --json out.json

It needs torch, transformers, numpy and memory_rl's engine; nothing is downloaded. Each row is printed and
written to the JSON file once it is measured, so that a time limit loses nothing; an error, such as memory
that ran out, is a row, too. Without a GPU the same code runs with tiny shapes on the CPU, to test itself.

Sections, the most informative first; each has a share of the seconds, and what it leaves the next ones have:
    matmul       the rate of large bfloat16 products, which all others are compared with
    correctness  log-probabilities, P(S), gradients and updates on the device against those on the CPU
    attention    which attention kernels take the tree's mask, which one PyTorch picks, and their times
    large        an 8-billion Llama with random bfloat16 weights: memory, seconds, utilisation
    lockstep     the tiny model: runs a second against R in lockstep, on the device and on one CPU thread
    profile      where the time of those goes: kernels, launches, transfers, host
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gpu_attention import attention
from gpu_engine import correctness, large, matmul
from gpu_lockstep import lockstep, profiles

Row = dict[str, Any]
SECTIONS: dict[str, tuple[Callable[..., Iterator[tuple[str, Callable[[], Row]]]], float]] = {
    "matmul": (matmul, 15.0),
    "correctness": (correctness, 90.0),
    "attention": (attention, 25.0),
    "large": (large, 200.0),
    "lockstep": (lockstep, 90.0),
    "profile": (profiles, 60.0),
}
"""What gives the settings of a section and how to measure each, and its share of the time."""


class Report:
    """Rows by section, printed and written as they come.

    Args:
        path: of the JSON file.
        about: the machine, the versions and the settings.
    """

    def __init__(self, path: Path, about: Row) -> None:
        self.path, self.content = path, {"about": about, "sections": {}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for name, value in about.items():
            say(f"{name}: {value}")

    def add(self, section: str, setting: str, row: Row) -> None:
        """One row, at once."""
        self.content["sections"].setdefault(section, []).append({"setting": setting, **row})
        say(f"  {setting:44} " + "  ".join(f"{name}={shown(value)}" for name, value in row.items()))
        scratch = self.path.with_suffix(".part")
        scratch.write_text(json.dumps(self.content, indent=1, default=str), encoding="utf-8")
        scratch.replace(self.path)


def say(line: str) -> None:
    """A line of output, now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def shown(value: Any) -> str:
    """A number in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def about(device: str) -> Row:
    """The machine and the versions."""
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, tiny shapes: no measurement"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else 0.0
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    return {
        "device": f"{device} ({name})",
        "device_GiB": round(memory, 1),
        "python": platform.python_version(),
        "cpu_threads": torch.get_num_threads(),
        "tf32_in_float32_products": torch.get_float32_matmul_precision() != "highest",
        **versions,
    }


def failure(error: Exception) -> Row:
    """What went wrong; the memory that it held is given back."""
    text = " ".join(str(error).split())
    frames, here = [], error.__traceback__
    while here is not None:
        code = here.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{here.tb_lineno} {code.co_name}")
        here = here.tb_next
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return {"out_of_memory": text[:160]}
    return {"error": f"{type(error).__name__}: {text[:400]}", "where": " > ".join(frames[-4:])}


def measured(measure: Callable[[], Row]) -> Row:
    """A row, or what went wrong; and the seconds that it took."""
    start = time.perf_counter()
    try:
        row = measure()
    except Exception as error:  # whatever a device may do: the next setting is measured all the same
        row = failure(error)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**row, "took_s": round(time.perf_counter() - start, 2)}


def run_section(report: Report, name: str, device: str, end: float, sizes: str) -> None:
    """All settings of a section for which there is time."""
    say(f"{name}:")
    settings, skipped = SECTIONS[name][0](device, sizes, report.content["sections"]), []
    try:
        for setting, measure in settings:
            if time.monotonic() > end:
                skipped.append(setting)
            else:
                report.add(name, setting, measured(measure))
    except Exception as error:
        report.add(name, "the section ended early", failure(error))
    if skipped:
        report.add(name, "skipped, since the time was up", {"settings": skipped})


def main(words: list[str]) -> None:
    """Runs the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=480.0, help="no setting begins later")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "gpu_check.json")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", choices=["full", "tiny"], help="of models; tiny without a GPU")
    chosen = parser.parse_args(words)
    begin, sizes = time.monotonic(), chosen.sizes or ("full" if chosen.device != "cpu" else "tiny")
    torch.set_float32_matmul_precision("highest")  # no TF32
    report = Report(chosen.json, about(chosen.device))
    names = [name for name in SECTIONS if name in chosen.sections]
    ends = np.cumsum([SECTIONS[name][1] for name in names])
    for name, end in zip(names, begin + chosen.seconds * ends / ends[-1], strict=True):
        run_section(report, name, chosen.device, end, sizes)
    say(f"{time.monotonic() - begin:.0f} seconds; written to {chosen.json}")


if __name__ == "__main__":
    main(sys.argv[1:])
