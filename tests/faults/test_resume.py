"""What resume=True continues, and what it leaves alone; signals, locks and disks that fail."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import peft
import polars as pl
import pytest
import torch
from helpers import measured, snapshot, stopped_at, without_progress
from transformers import AutoModelForCausalLM

import memory_rl
from memory_rl.cli import main
from memory_rl.errors import LockWarning
from memory_rl.policies import tiny_model
from memory_rl.runs import interruption
from memory_rl.runs.lock import Lock, is_locked
from memory_rl.training.meter import Meter

ROOT = Path(__file__).parents[2]
SMALL = "backend=tabular N=16 num_runs=4 max_episodes=800 learning_rate=0.02 quiet=True"
LONG = (
    "backend=tabular N=256 num_runs=16 reward_type=log_distance max_episodes=40000 memorised_at=0.9 "
    "learning_rate=0.001 ledger=False quiet=True"
)


def start(words: str, **popen) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def status_of(path: str | Path) -> str | None:
    try:
        return json.loads(Path(path, "manifest.json").read_text())["status"]
    except FileNotFoundError:
        return None


def has_checkpoint(path: str | Path) -> bool:
    return any(Path(path).glob("checkpoint/[0-9]*"))


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refuses(words: str, capsys) -> str:
    """The one sentence with which train refuses; it changes nothing in any file below."""
    before = snapshot(".")
    assert main(["train", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert snapshot(".") == before
    return captured.err


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> Path:
    """A run that failed after 100 episodes, with a checkpoint after each update, and the same without the
    mishap."""
    folder = tmp_path_factory.mktemp("templates")
    with stopped_at(100):
        main(["train", *SMALL.split(), f"log_path={folder / 'started'}", "checkpoint_every=0"])
    main(["train", *SMALL.split(), f"log_path={folder / 'whole'}"])
    return folder


@pytest.fixture
def unfinished(templates) -> Path:
    shutil.copytree(templates / "started", "started")
    assert status_of("started") == "failed"
    return Path("started")


@pytest.fixture
def whole(templates) -> dict[str, bytes]:
    """What an undisturbed run measures."""
    return measured(templates / "whole")


def test_resuming_gives_the_same_bytes_and_says_when(unfinished, whole, templates):
    assert main(["train", *SMALL.split(), "log_path=started", "resume=True"]) == 0
    assert measured("started") == whole
    manifest = memory_rl.load("started").manifest
    assert [entry["stopped_as"] for entry in manifest["resumed"]] == ["failed"]
    assert manifest["seconds"] > 0
    assert "seconds" not in memory_rl.load("started").summary["binary"]
    timing = memory_rl.load("started").timing
    assert timing["seconds"].is_sorted()
    assert timing["episode"].to_list() == memory_rl.load(templates / "whole").timing["episode"].to_list()


def test_checkpoints_change_nothing(whole):
    assert main(["train", *SMALL.split(), "log_path=often", "checkpoint_every=0"]) == 0
    assert measured("often") == whole
    assert not Path("often/checkpoint").exists()
    assert not Path("often/.lock").exists()


def test_a_completed_run_is_returned_as_it_is(capsys):
    main(["train", *SMALL.split(), "log_path=done"])
    before = snapshot("done")
    again = memory_rl.train(
        backend="tabular",
        N=16,
        num_runs=4,
        max_episodes=800,
        learning_rate=0.02,
        log_path="done",
        resume=True,
    )
    assert again.summary == memory_rl.load("done").summary
    words = SMALL.replace("quiet=True", "").split()
    assert main(["train", *words, "log_path=done", "resume=True"]) == 0
    assert "done is complete already" in capsys.readouterr().out
    assert snapshot("done") == before


def test_a_kill_between_the_end_and_the_last_clean_up_leaves_no_checkpoint():
    main(["train", *SMALL.split(), "log_path=killed"])
    Path("killed/checkpoint/3").mkdir(parents=True)
    assert main(["train", *SMALL.split(), "log_path=killed", "resume=True"]) == 0
    assert not Path("killed/checkpoint").exists()


@pytest.mark.parametrize("folder", ["absent", "empty", "killed at once"])
def test_where_there_is_no_checkpoint_it_starts_from_nothing(folder, whole):
    if folder != "absent":
        Path("new").mkdir()
    if folder == "killed at once":
        Path("new/.lock").touch()
        Path("new/.manifest.json.part").write_text("{")
    assert main(["train", *SMALL.split(), "log_path=new", "resume=True"]) == 0
    assert measured("new") == whole


def test_killed_before_its_first_checkpoint_a_run_starts_over(whole):
    with stopped_at(100):
        main(["train", *SMALL.split(), "log_path=started"])
    assert not Path("started/checkpoint").exists()
    assert main(["train", *SMALL.split(), "log_path=started", "resume=True"]) == 0
    assert measured("started") == whole


def test_what_resume_refuses(unfinished, capsys):
    assert "already holds a run (failed): add resume=True to continue it" in refuses(
        f"{SMALL} log_path=started", capsys
    )
    message = refuses(f"{SMALL} seed=3 log_path=started resume=True", capsys)
    assert "log_path=started holds another experiment: it has seed=0, and this command seed=3" in message
    assert "resume=True belongs to log_path" in refuses(f"{SMALL} resume=True", capsys)
    assert "checkpoint_every=-1" in refuses(f"{SMALL} checkpoint_every=-1", capsys)
    assert "save_adapters=True belongs to backend=local" in refuses(f"{SMALL} save_adapters=True", capsys)
    with pytest.raises(memory_rl.RunDirectoryError, match="it is of kind train, and this command's is sft"):
        memory_rl.sft(N=16, log_path="started", resume=True)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert "already holds other files (notes.txt)" in refuses(f"{SMALL} log_path=mine resume=True", capsys)


def test_a_default_that_is_written_out_is_the_same_experiment(unfinished, whole):
    words = f"{SMALL} reward_type=binary stop_at=0.95 evaluate_every=1 threads=2 log_path=started resume=True"
    assert main(["train", *words.split()]) == 0
    assert measured("started") == whole


OF_VERSION_0_1 = {
    "reward_bins": None,
    "credit": "step",
    "order": "uniform",
    "memorised_share": 0.95,
    "tabular_bits": "positions",
    "adapter": "lora",
    "lora_rank": 8,
    "model_name": "tiny",
    "warmup": True,
    "ppo_clip": 0.2,
    "posterior_epochs": 16,
    "save_adapters": False,
}
"""Keys without a meaning in SMALL, which manifests had then."""


@pytest.mark.parametrize(("words", "same"), [("", True), ("seed=3", False)])
def test_a_manifest_of_version_0_1_is_compared(unfinished, whole, words, same, capsys):
    manifest = json.loads((unfinished / "manifest.json").read_text())
    config = {key: value for key, value in manifest["config"].items() if key != "signal"}
    del manifest["resolved"]
    manifest["config"] = {**config, **OF_VERSION_0_1}
    (unfinished / "manifest.json").write_text(json.dumps(manifest))
    if same:
        assert main(["train", *SMALL.split(), "log_path=started", "resume=True"]) == 0
        assert measured("started") == whole
    else:
        message = refuses(f"{SMALL} {words} log_path=started resume=True", capsys)
        assert "it has seed=0, and this command seed=3" in message


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "metrics.parquet", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "foreign"])
def test_a_damaged_checkpoint_is_reported_and_left(unfinished, file, damage, capsys):
    (checkpoint,) = (unfinished / "checkpoint").iterdir()
    if damage == "truncated":
        (checkpoint / file).write_bytes((checkpoint / file).read_bytes()[:-20])
    elif damage == "missing":
        (checkpoint / file).unlink()
    else:
        (checkpoint / file).write_bytes(b'{"schema": 1, "files": {"state.json": {}}}')
    message = refuses(f"{SMALL} log_path=started resume=True", capsys)
    assert "is damaged or of another version" in message
    assert "remove started/checkpoint to start over" in message
    shutil.rmtree(unfinished / "checkpoint")
    assert main(["train", *SMALL.split(), "log_path=started", "resume=True"]) == 0


@pytest.mark.parametrize("content", ["", '{"schema": 1, "stat', "[]", '{"what": 1}'])
def test_a_damaged_manifest_is_reported_and_left(unfinished, content, capsys):
    (unfinished / "manifest.json").write_text(content)
    assert "started/manifest.json" in refuses(f"{SMALL} log_path=started resume=True", capsys)


def test_damaged_metrics_are_made_anew_from_the_checkpoint(unfinished, whole):
    for name in ("metrics.parquet", "episodes.parquet", "film.parquet", "timing.parquet"):
        (unfinished / name).write_bytes(b"PAR1 and then nothing")
    assert main(["train", *SMALL.split(), "log_path=started", "resume=True"]) == 0
    assert measured("started") == whole


def test_an_own_reward_that_was_changed_is_reported(capsys):
    Path("reward.py").write_text("def near(answer, secret):\n    return float(abs(answer - secret) < 2)\n")
    words = f"{SMALL} reward_type=reward.py:near log_path=started memorised_at=0.3"
    with stopped_at(40):
        main(["train", *words.split(), "checkpoint_every=0"])
    Path("reward.py").write_text("def near(answer, secret):\n    return float(abs(answer - secret) < 3)\n")
    capsys.readouterr()
    assert "holds another experiment: reward.py (code of reward_type) has changed since it began" in refuses(
        f"{words} resume=True", capsys
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_update_and_saves(number, code):
    process = start(f"{LONG} log_path=stopped checkpoint_every=0.5")
    wait_until(lambda: has_checkpoint("stopped"))
    assert memory_rl.load("stopped").outcome is memory_rl.Outcome.RUNNING
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    errors = without_progress(errors)
    assert process.returncode == code
    assert (
        errors
        == "memory-rl: interrupted; what was measured is kept, and the same command with log_path=stopped "
        "resume=True resumes it.\n"
    )
    result = memory_rl.load("stopped")
    assert result.outcome is memory_rl.Outcome.INTERRUPTED
    (checkpoint,) = Path("stopped/checkpoint").iterdir()
    assert result.metrics.equals(pl.read_parquet(checkpoint / "metrics.parquet"))  # nothing is lost
    assert result.metrics.height % 16 == 0  # whole updates of all runs
    assert result.metrics["episode"].max() == result.episodes["episode"].max() > 0
    assert not Path("stopped/.lock").exists()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_signal_while_the_manifest_is_written_is_noted(nth, whole, monkeypatch):
    """Whether it says that the run starts, that the model is loaded, or that the run is complete."""
    replace, manifests = os.replace, []

    def interrupted(source, target):
        replace(source, target)
        if Path(target).name == "manifest.json":
            manifests.append(target)
            if len(manifests) == nth:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        assert main(["train", *SMALL.split(), "log_path=stopped"]) == 130
    assert status_of("stopped") == "interrupted"
    assert main(["train", *SMALL.split(), "log_path=stopped", "resume=True"]) == 0
    assert measured("stopped") == whole


def test_a_second_signal_does_not_wait(monkeypatch):
    """The first one is noted, the second one has the effect it would have had without an experiment."""
    evaluate = Meter._evaluate

    def signalled(self, policy, runs, episode, *more):
        if np.max(episode) == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return evaluate(self, policy, runs, episode, *more)

    monkeypatch.setattr(Meter, "_evaluate", signalled)
    monkeypatch.setattr(interruption, "_SAME_SECONDS", 0.0)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]  # Ray's, where it was started
    assert main(["train", *SMALL.split(), "log_path=stopped"]) == 130
    assert memory_rl.load("stopped").metrics["episode"].max() == 4
    assert not Path("stopped/checkpoint").exists()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_handler_of_ones_own_gets_its_signal_after_the_update(monkeypatch):
    evaluate, seen = Meter._evaluate, []

    def signalled(self, policy, runs, episode, *more):
        if np.max(episode) == 8:
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
        return evaluate(self, policy, runs, episode, *more)

    monkeypatch.setattr(Meter, "_evaluate", signalled)
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        assert main(["train", *SMALL.split(), "log_path=done"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert status_of("done") == "completed"


def test_a_directory_in_use_is_refused_also_to_look_on(capsys):
    process = start(f"{LONG} log_path=taken checkpoint_every=0.2")
    try:
        wait_until(lambda: has_checkpoint("taken"))
        for words in (f"{LONG} log_path=taken", f"{LONG} log_path=taken resume=True"):
            assert main(["train", *words.split()]) == 2
            message = capsys.readouterr().err
            assert "log_path=taken is in use by another process" in message
            assert message.count("\n") == 1
        assert memory_rl.load("taken").outcome is memory_rl.Outcome.RUNNING
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert status_of("taken") == "running"  # it had no chance to say
    assert memory_rl.load("taken").outcome is memory_rl.Outcome.KILLED
    assert main(["train", *f"{LONG} log_path=taken".split()]) == 2
    assert "already holds a run (killed): add resume=True" in capsys.readouterr().err

    first = start(f"{LONG} log_path=taken resume=True")  # of two that continue it, the second is refused
    try:
        wait_until(lambda: is_locked(Path("taken")))
        assert main(["train", *f"{LONG} log_path=taken resume=True".split()]) == 2
        assert "in use by another process" in capsys.readouterr().err
    finally:
        first.kill()
        first.communicate(timeout=60)


def test_a_lock_is_one_persons():
    Path("folder").mkdir()
    assert not is_locked(Path("folder"))
    lock = Lock(Path("folder/.lock"))
    assert is_locked(Path("folder"))
    with pytest.raises(BlockingIOError):
        Lock(Path("folder/.lock"))
    lock.release()
    assert not list(Path("folder").iterdir())
    Path("folder/.lock").touch()  # a killed process leaves its file, and nothing else
    assert not is_locked(Path("folder"))
    Lock(Path("folder/.lock")).release()
    assert not list(Path("folder").iterdir())


def test_someone_who_looks_does_not_disturb():
    """Locks and looks in turns, for as long as another process only looks."""
    Path("folder").mkdir()
    look = "from memory_rl.runs.lock import is_locked; import pathlib\nprint(flush=True)\n"
    look += "while True: is_locked(pathlib.Path('folder'))"
    process = subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        for _ in range(200):
            lock = Lock(Path("folder/.lock"))
            assert is_locked(Path("folder"))
            lock.release()
            assert not is_locked(Path("folder"))
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert not list(Path("folder").iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out(number, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    Path("folder").mkdir()
    for _ in range(2):
        with pytest.warns(LockWarning, match="folder is on a file system without locks"):
            lock = Lock(Path("folder/.lock"))
        assert not is_locked(Path("folder"))
        lock.release()
        assert not list(Path("folder").iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_in_a_checkpoint_leaves_the_one_before(monkeypatch, number, whole, capsys):
    from memory_rl.runs import checkpoint

    write, calls = checkpoint.save_file, []

    def failing(tensors, file, metadata=None):
        calls.append(file)
        if len(calls) == 5:
            Path(file).write_bytes(b"half")
            raise OSError(number, os.strerror(number))
        write(tensors, file, metadata)

    monkeypatch.setattr(checkpoint, "save_file", failing)
    assert main(["train", *SMALL.split(), "log_path=full", "checkpoint_every=0"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "full/checkpoint cannot be written" in message
    assert os.strerror(number) in message
    assert "resume=True" in message
    assert [folder.name for folder in Path("full/checkpoint").iterdir()] == ["4"]
    assert memory_rl.load("full").outcome is memory_rl.Outcome.FAILED
    assert os.strerror(number) in memory_rl.load("full").manifest["why"]
    monkeypatch.setattr(checkpoint, "save_file", write)
    assert main(["train", *SMALL.split(), "log_path=full", "resume=True"]) == 0
    assert measured("full") == whole


@pytest.mark.parametrize("limit", [4_000, 30_000])
def test_a_file_size_limit_is_reported(limit):
    """RLIMIT_FSIZE: what the system refuses in the middle of a file, whoever writes it."""
    process = start(
        f"{LONG.replace('N=256', 'N=2048')} log_path=full checkpoint_every=0",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    _, errors = process.communicate(timeout=120)
    errors = without_progress(errors)
    assert process.returncode == 2, errors
    assert errors.count("\n") == 1
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    assert status_of("full") == "failed"
    assert not [
        file for file in Path("full").rglob("*") if file.name.endswith(".part") or file.name == ".next"
    ]


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser writes everywhere")
def test_a_read_only_directory_is_reported(unfinished, capsys):
    unfinished.chmod(0o555)
    try:
        assert "log_path=started cannot be written" in refuses(
            f"{SMALL} log_path=started resume=True", capsys
        )
    finally:
        unfinished.chmod(0o755)


def test_a_file_system_that_is_read_only_is_reported(unfinished, monkeypatch, capsys):
    monkeypatch.setattr(
        os, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, os.strerror(errno.EROFS)))
    )
    message = refuses(f"{SMALL} log_path=started resume=True", capsys)
    assert "log_path=started cannot be written (Read-only file system)" in message


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "processes workers=2"])
def test_a_killed_sweep_continues_its_cells(executor):
    grid = (
        "conditions=log_distance seed=0,1 backend=tabular N=256 max_episodes=6000 memorised_at=0.9 "
        "learning_rate=0.001 quiet=True checkpoint_every=0.3"
    )
    words = [*grid.split(), *f"executor={executor}".split()]
    process = subprocess.Popen([sys.executable, ROOT / "sweep.py", *words, "log_path=killed"])
    wait_until(lambda: any(Path("killed/cells").glob("*/checkpoint/[0-9]*")))
    process.kill()
    process.communicate(timeout=60)
    wait_until(
        lambda: not any(is_locked(cell) for cell in Path("killed/cells").iterdir())
    )  # its workers end with it
    unfinished = [
        cell
        for cell in Path("killed/cells").iterdir()
        if has_checkpoint(cell) and status_of(cell) == "running"
    ]
    assert unfinished
    assert main(["sweep", *words, "log_path=killed"]) == 0
    assert main(["sweep", *words, "log_path=whole"]) == 0
    assert all(memory_rl.load(cell).manifest["resumed"][0]["stopped_as"] == "running" for cell in unfinished)
    set_aside = {
        folder.name.rpartition("-")[0] for folder in Path("killed").glob("discarded/*")
    }  # what had not come to a checkpoint
    assert not set_aside & {cell.name for cell in unfinished}
    for cell in Path("whole/cells").iterdir():
        assert measured(Path("killed/cells") / cell.name) == measured(cell)


KINDS = {
    "lora": {"learning_rate": 1e-4},
    "some layers": {"learning_rate": 5e-4, "lora_rank": 1, "lora_layers": "1"},
    "shared": {"learning_rate": 0.05, "adapter": "shared", "adapter_parameters": 200},
    "full": {"learning_rate": 1e-4, "adapter": "full"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_what_peft_loads(kind):
    """Those of a checkpoint and those that are kept at the end: the same model by PEFT, or by transformers,
    gives the P(S) that was measured."""
    settings = {
        "N": 16,
        "num_runs": 2,
        "warmup": False,
        "max_episodes": 24,
        "save_adapters": True,
        "log_path": "kept",
        **KINDS[kind],
    }
    with stopped_at(6):
        memory_rl.sft(**settings, checkpoint_every=0)
    (checkpoint,) = Path("kept/checkpoint").iterdir()
    check_adapters(checkpoint / "adapters", memory_rl.load("kept"))
    result = memory_rl.sft(**settings, resume=True)
    assert not Path("kept/checkpoint").exists()
    assert result.metrics["episode"].max() > 5
    check_adapters(Path("kept/adapters"), result)
    undisturbed = memory_rl.sft(**{**settings, "log_path": "undisturbed"})
    assert measured("kept") == measured("undisturbed")
    assert snapshot("kept/adapters") == snapshot("undisturbed/adapters")
    parameters = undisturbed.summary["sft"]["trained_parameters"]
    assert parameters == {"lora": 39040, "some layers": 2440, "shared": 200, "full": 416128}[kind]
    assert undisturbed.summary["sft"]["trained_bytes"] == 4 * parameters


@pytest.mark.parametrize("kind", ["shared", "full"])
def test_other_kinds_of_adapters_continue_to_the_same_bytes_where_paths_are_scored(kind):
    settings = {
        "N": 16,
        "num_runs": 3,
        "warmup": False,
        "scoring": "paths",
        "max_episodes": 12,
        **KINDS[kind],
    }
    with stopped_at(6):
        memory_rl.sft(**settings, log_path="started", checkpoint_every=0)
    memory_rl.sft(**settings, log_path="started", resume=True)
    memory_rl.sft(**settings, log_path="whole")
    assert measured("started") == measured("whole")


def test_a_stretch_of_silent_groups_on_paths_continues_to_the_same_bytes():
    """Samples that were drawn ahead, and how many will be, are kept."""
    settings = {"N": 64, "num_runs": 2, "scoring": "paths", "skip_ahead": False, "max_episodes": 160}
    with stopped_at(23):
        memory_rl.train(**settings, log_path="started", checkpoint_every=0)
    memory_rl.train(**settings, log_path="started", resume=True)
    whole = memory_rl.train(**settings, log_path="whole")
    assert whole.metrics["zero_advantage_fraction"].mean() > 0.8
    assert measured("started") == measured("whole")


def check_adapters(folder: Path, result) -> None:
    tokenizer = tiny_model.make_tokenizer()
    for run in range(2):
        whole = (folder / f"run-{run}" / "model.safetensors").exists()
        base = None if whole else tiny_model.make_model(0)
        model = (
            AutoModelForCausalLM.from_pretrained(folder / f"run-{run}")
            if whole
            else peft.PeftModel.from_pretrained(base, folder / f"run-{run}")
        )
        last = result.metrics.filter(run=run).sort("episode").tail(1)
        turn = [
            {"role": "user", "content": "Secret in [0,16)?"},
            {"role": "assistant", "content": str(last["secret"][0])},
        ]
        tokens = tokenizer.apply_chat_template(turn, return_dict=False)
        prompt = len(tokenizer.apply_chat_template(turn[:1], return_dict=False))
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double().log_softmax(dim=1)
        log_prob = logits[prompt - 1 : -1].gather(1, torch.tensor(tokens[prompt:])[:, None]).sum()
        assert 4 + float(log_prob) / np.log(2) == pytest.approx(float(last["bits_known"][0]), abs=1e-3)
