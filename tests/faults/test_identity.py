"""What a run is: its keys and the content of every file that it reads. A run is not resumed, and a sweep not
added to, once a model or code of one's own has changed, in one sentence that names the file."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers import complaint, measured, snapshot, stopped_at
from safetensors.torch import load_file, save_file

import memory_rl
from memory_rl import inputs, own_code
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.samples import gather
from memory_rl.cli import main
from memory_rl.experiment import make_experiment
from memory_rl.inputs import changed_input, hash_inputs
from memory_rl.own_code import sources
from memory_rl.policies import tiny_model
from memory_rl.reporting import pictures

WORDS = "N=16 num_runs=2 warmup=False model_name=model max_episodes=6 learning_rate=1e-4 quiet=True"
SWEEP = "conditions=sft,binary N=16 num_runs=2 warmup=False model_name=model max_episodes=8 quiet=True"


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Drawing takes most of a small run's time."""
    monkeypatch.setattr(pictures, "draw_run", lambda _: [])


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The built-in model, as any other is saved."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model.make_model(0).save_pretrained(folder)
    tiny_model.make_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text("A model.")
    return folder


@pytest.fixture
def model(saved) -> Path:
    shutil.copytree(saved, "model")
    return Path("model")


def spoil_weights(model: Path) -> None:
    """Another number in the middle of the file, and nothing else: the size stays."""
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] += 1e-3
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def edit(file: str, old: str, new: str):
    def spoil(model: Path) -> None:
        text = (model / file).read_text()
        assert old in text
        (model / file).write_text(text.replace(old, new))

    return spoil


CHANGES = {
    "model.safetensors (weights of model_name)": spoil_weights,
    "tokenizer.json (tokenizer of model_name)": edit("tokenizer.json", '"version"', ' "version"'),
    "tokenizer_config.json (tokenizer of model_name)": edit("tokenizer_config.json", "<unk>", "<eos>"),
    "chat_template.jinja (template of model_name)": edit("chat_template.jinja", "<bos>", "<bos> "),
    "config.json (configuration of model_name)": edit("config.json", 'eps": 1e-06', 'eps": 1e-05'),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_model_that_was_changed_is_not_resumed(what, model, capsys):
    with stopped_at(4):
        main(["sft-train", *WORDS.split(), "log_path=run", "checkpoint_every=0"])
    CHANGES[what](model)
    capsys.readouterr()
    before = snapshot(".")
    assert complaint("sft-train", f"{WORDS} log_path=run resume=True", capsys) == (
        f"memory-rl: log_path=run holds another experiment: {what} has changed since it began; "
        "restore it, or give another log_path.\n"
    )
    assert snapshot(".") == before


def test_the_same_model_is_resumed_to_the_same_bytes(model, saved):
    """Whenever it was written, and whatever else lies beside it."""
    with stopped_at(4):
        main(["sft-train", *WORDS.split(), "log_path=run", "checkpoint_every=0"])
    shutil.rmtree(model)
    shutil.copytree(saved, model, copy_function=shutil.copy)
    (model / "README.md").write_text("The same model.")
    assert main(["sft-train", *WORDS.split(), "log_path=run", "resume=True"]) == 0
    assert main(["sft-train", *WORDS.split(), "log_path=whole"]) == 0
    assert measured("run") == measured("whole")
    assert str(Path.cwd()) not in Path("run/manifest.json").read_text()


def test_a_complete_run_of_a_changed_model_is_not_taken_for_this_one(model, capsys):
    assert main(["sft-train", *WORDS.split(), "log_path=run"]) == 0
    spoil_weights(model)
    sentence = complaint("sft-train", f"{WORDS} log_path=run resume=True", capsys)
    assert "model.safetensors (weights of model_name) has changed" in sentence


def test_a_run_without_hashes_resumes_as_it_did(model):
    with stopped_at(4):
        main(["sft-train", *WORDS.split(), "log_path=run", "checkpoint_every=0"])
    manifest = json.loads(Path("run/manifest.json").read_text())
    del manifest["inputs"], manifest["prompt"]
    Path("run/manifest.json").write_text(json.dumps(manifest))
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + "\n")
    assert main(["sft-train", *WORDS.split(), "log_path=run", "resume=True"]) == 0
    assert "inputs" not in memory_rl.load("run").manifest  # of the beginning nothing is known


def test_a_prompt_that_has_changed_is_not_resumed(capsys):
    """Such as by another version of a library."""
    words = "N=16 num_runs=2 warmup=False max_episodes=6 learning_rate=1e-4 quiet=True"
    with stopped_at(4):
        main(["sft-train", *words.split(), "log_path=run", "checkpoint_every=0"])
    manifest = json.loads(Path("run/manifest.json").read_text())
    manifest["prompt"] = manifest["prompt"].replace("Secret", "Number")
    Path("run/manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    before = snapshot(".")
    capsys.readouterr()
    sentence = complaint("sft-train", f"{words} log_path=run resume=True", capsys)
    assert "was started with another prompt than '<bos>Secret in" in sentence
    assert snapshot(".") == before


def test_products_are_exact_whatever_the_process_has_set():
    settings = {"N": 4, "num_runs": 2, "warmup": False, "max_episodes": 8, "memorised_at": 0.9}
    memory_rl.train(**settings, log_path="before")
    torch.set_float32_matmul_precision("medium")
    try:
        memory_rl.train(**settings, log_path="after")
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert measured("before") == measured("after")


# Sweeps


def test_a_sweep_is_not_added_to_once_the_model_has_changed(model, saved, capsys):
    assert main(["sweep", *SWEEP.split(), "log_path=sweep"]) == 0
    first = next(row["id"] for row in json.loads(Path("sweep/sweep.json").read_text())["cells"])
    spoil_weights(model)
    before = snapshot("sweep")
    for words in (SWEEP, SWEEP.replace("sft,binary", "binned_log_distance reward_bins=4")):
        sentence = complaint("sweep", f"{words} log_path=sweep", capsys)
        assert sentence == (
            f"memory-rl: log_path=sweep holds the complete cell {first}, and model.safetensors (weights of "
            "model_name) has changed since it was measured: restore it, or give another log_path.\n"
        )
        assert snapshot("sweep") == before
    shutil.rmtree(model)
    shutil.copytree(saved, model)
    assert main(["sweep", *SWEEP.split(), "log_path=sweep"]) == 0
    cells = {name: content for name, content in before.items() if name.startswith("cells/")}
    assert cells.items() <= snapshot("sweep").items()


def test_an_unfinished_cell_of_a_changed_model_starts_over_and_is_kept(model):
    words = SWEEP.replace("sft,binary", "sft")
    assert main(["sweep", *words.split(), "log_path=sweep"]) == 0
    (cell,) = Path("sweep/cells").iterdir()
    shutil.rmtree(cell)
    with stopped_at(4):
        main(["sft-train", *WORDS.replace("=6", "=8").split()[:-2], f"log_path={cell}", "checkpoint_every=0"])
    assert (cell / "checkpoint").is_dir()
    spoil_weights(model)
    assert main(["sweep", *words.split(), "log_path=sweep"]) == 0
    assert "resumed" not in memory_rl.load(cell).manifest
    assert [folder.name for folder in Path("sweep/discarded").iterdir()] == [f"{cell.name}-1"]


def test_runs_of_two_models_of_one_name_are_no_sample(model):
    settings = {"N": 16, "num_runs": 2, "warmup": False, "model_name": "model", "max_episodes": 4}
    memory_rl.sft(**settings, log_path="runs/a", seed=0)
    memory_rl.sft(**settings, log_path="runs/b", seed=1)
    spoil_weights(model)
    memory_rl.sft(**settings, log_path="runs/c", seed=2)
    samples = gather(find_cells(["runs"]))
    assert sorted(len(sample.cells) for sample in samples) == [1, 2]


# What is hashed


def hashes_of(name: str) -> dict:
    return hash_inputs(make_experiment({"model_name": name})).get("model_name", {})


def test_large_files_are_read_once_for_each_of_their_states(model, monkeypatch):
    digest, read = hashlib.file_digest, []
    monkeypatch.setattr(
        hashlib, "file_digest", lambda stream, kind: (read.append(stream.name), digest(stream, kind))[1]
    )
    first = [hashes_of("model") for _ in range(100)]
    assert sorted(Path(name).name for name in read) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    read.clear()
    spoil_weights(model)
    assert changed_input({"model_name": first[0]}, {"model_name": hashes_of("model")})
    assert [Path(name).name for name in read] == ["model.safetensors"]


def test_a_file_that_fails_is_left_to_whoever_loads_it(model, monkeypatch):
    def failing(path):
        raise PermissionError(path)

    monkeypatch.setattr(inputs, "sha256_of", failing)
    assert hashes_of("model") == {}


def test_weights_in_parts_and_a_template_among_the_settings(model):
    weights = (model / "model.safetensors").rename(model / "part-1.safetensors")
    index = {"weight_map": {"lm_head.weight": "part-1.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "other.safetensors").write_bytes(b"of something else")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "one"}))
    one = hashes_of("model")
    assert one["weights"].keys() == {"part-1.safetensors", "model.safetensors.index.json"}
    assert one["weights"][weights.name] == hashlib.sha256(weights.read_bytes()).hexdigest()
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "two"}))
    two = hashes_of("model")
    assert changed_input({"m": one}, {"m": two}) == "tokenizer_config.json (template of m) has changed"
    assert one["tokenizer"] == two["tokenizer"]


def test_a_gguf_file_and_an_adapter_with_its_base(model):
    Path("some.gguf").write_bytes(b"GGUF")
    (kind,) = hashes_of("some.gguf")
    assert kind == "weights, tokenizer and template"
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text('{"base_model_name_or_path": "model"}')
    Path("adapter/adapter_model.safetensors").write_bytes(b"adapter")
    before = {"m": hashes_of("adapter")}
    spoil_weights(model)
    assert changed_input(before, {"m": hashes_of("adapter")}) == (
        "base/model.safetensors (weights of m) has changed"
    )


def test_a_model_of_the_hub_is_what_was_downloaded(model, monkeypatch):
    """By the content of the snapshot that would be loaded now; before there is one nothing is known."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("hub").resolve()))
    assert hashes_of("some/model") == hashes_of("missing") == hashes_of("./not/a/model") == {}
    folder = Path("hub/models--some--model")
    for commit in ("a" * 40, "b" * 40, "c" * 40):
        shutil.copytree(model, folder / "snapshots" / commit)
    spoil_weights(folder / "snapshots" / ("b" * 40))
    (folder / "refs").mkdir()
    found = []
    for commit in ("a" * 40, "b" * 40, "c" * 40):
        (folder / "refs/main").write_text(commit)
        found.append({"m": hashes_of("some/model")})
    assert changed_input(found[0], found[1]) == "model.safetensors (weights of m) has changed"
    assert found[0] == found[2] == {"m": hashes_of("model")}


def test_a_model_that_comes_while_it_is_loaded_is_noted_and_compared(model, monkeypatch, capsys):
    """As one of the hub does, which was not on this machine, or not yet in its present version."""
    from memory_rl import populations

    make = populations._local

    def arriving(*given):
        made = make(*given)
        Path("away").rename("model2")
        return made

    from memory_rl import execution
    from memory_rl.policies import base_model

    load = base_model.find_base_model
    monkeypatch.setattr(execution, "refuse_unknown_model", lambda experiment: None)  # the hub knows it
    monkeypatch.setattr(base_model, "find_base_model", lambda name, *more: load("model", *more))
    monkeypatch.setattr(populations, "_local", arriving)
    shutil.copytree("model", "away")
    words = WORDS.replace("=model ", "=model2 ")
    with stopped_at(4):
        main(["sft-train", *words.split(), "log_path=run", "checkpoint_every=0"])
    noted = json.loads(Path("run/manifest.json").read_text())["inputs"]["model_name"]
    assert noted == hashes_of("model")
    Path("model2").rename("away")
    spoil_weights(Path("away"))
    manifest = Path("run/manifest.json").read_bytes()
    capsys.readouterr()
    sentence = complaint("sft-train", f"{words} log_path=run resume=True", capsys)
    assert "model.safetensors (weights of model_name) has changed since it began" in sentence
    assert Path("run/manifest.json").read_bytes() == manifest


# Code of one's own


REWARD = "from helper import near\n\n\ndef mine(answer, secret):\n    return near(answer, secret)\n"
NEAR = "def near(answer, secret):\n    return float(abs(answer - secret) < 2)\n"
LEARNER = """
from memory_rl import Learner
from rules.scale import FACTOR


class Mine(Learner):
    def advantages(self, returns):
        return FACTOR * super().advantages(returns)
"""
SCALE = "def scale():\n    from .deep import number\n\n    return number\n\n\nFACTOR = scale()\n"
TABULAR = "backend=tabular N=16 num_runs=2 max_episodes=40 learning_rate=0.02 memorised_at=0.3 quiet=True"


def write_code() -> None:
    Path("rules").mkdir()
    Path("own.py").write_text(REWARD)
    Path("helper.py").write_text(NEAR)
    Path("mine.py").write_text(LEARNER)
    Path("rules/__init__.py").write_text("")
    Path("rules/scale.py").write_text(
        "def scale():\n    from .deep import number\n\n    return number\n\n\nFACTOR = scale()\n"
    )
    Path("rules/deep.py").write_text("import json, numpy, torch\n\nnumber = 1.0\n")


@pytest.mark.parametrize(
    ("words", "changed", "name", "text"),
    [
        ("reward_type=own.py:mine", "helper.py", "helper", NEAR.replace("< 2", "< 3")),
        ("reward_type=own.py:mine", "own.py", "own.py", REWARD.replace("return", "return 2 *")),
        ("algorithm=mine.py:Mine", "rules/deep.py", "rules.deep", "number = 2.0\n"),
        ("algorithm=mine.py:Mine", "rules/__init__.py", "rules", "name = 'rules'\n"),
    ],
)
def test_code_that_was_changed_is_not_resumed(words, changed, name, text, capsys):
    write_code()
    before, key, words = Path(changed).read_text(), words.partition("=")[0], f"{TABULAR} {words}"
    with stopped_at(20):
        main(["train", *words.split(), "log_path=run", "checkpoint_every=0"])
    Path(changed).write_text(text)
    files = snapshot(".")
    capsys.readouterr()
    sentence = complaint("train", f"{words} log_path=run resume=True", capsys)
    assert f"{name} (code of {key}) has changed since it began; restore it, or give another" in sentence
    assert snapshot(".") == files
    Path(changed).write_text(before)
    assert main(["train", *words.split(), "log_path=run", "resume=True"]) == 0


def test_only_what_is_theirs_is_hashed():
    write_code()
    found = hash_inputs(make_experiment({"algorithm": "mine.py:Mine", "reward_type": "own.py:mine"}))
    assert {key: [*kinds["code"]] for key, kinds in found.items()} == {
        "reward_type": ["own.py", "helper"],
        "algorithm": ["mine.py", "rules", "rules.scale", "rules.deep"],
    }
    assert found["reward_type"]["code"]["helper"] == hashlib.sha256(NEAR.encode()).hexdigest()
    assert hash_inputs(make_experiment({"reward_type": "nowhere.py:mine"})) == {}


def test_a_sweep_is_not_added_to_once_a_reward_has_changed(capsys):
    write_code()
    words = f"conditions=own.py:mine seed=0,1 {TABULAR} log_path=sweep"
    assert main(["sweep", *words.split()]) == 0
    before = snapshot("sweep/cells")
    Path("helper.py").write_text(NEAR.replace("< 2", "< 3"))
    assert "and helper (code of reward_type) has changed since it was measured" in complaint(
        "sweep", words, capsys
    )
    assert snapshot("sweep/cells") == before


def test_a_module_beside_a_file_is_imported_anew_once_it_has_changed():
    """Also within the same second and in as many characters; the manifest's hash is that of what ran."""
    write_code()
    settings = {"backend": "tabular", "N": 16, "num_runs": 2, "max_episodes": 4, "memorised_at": 0.3}
    levels = []
    for number, text in enumerate([NEAR, NEAR.replace("2", "9"), NEAR]):
        Path("helper.py").write_text(text)
        result = memory_rl.train(**settings, reward_type="own.py:mine", log_path=f"run-{number}")
        code = result.manifest["inputs"]["reward_type"]["code"]
        assert code["helper"] == hashlib.sha256(text.encode()).hexdigest()
        levels.append((result.path / "channel.npz").read_bytes())
    assert levels[0] == levels[2] != levels[1]
    assert not Path("__pycache__").exists()


def test_modules_of_one_name_in_two_folders_are_two(monkeypatch):
    for folder, number in (("one", 1), ("two", 2)):
        Path(folder).mkdir()
        Path(folder, "helper.py").write_text(f"number = {number}\n")
        Path(folder, "own.py").write_text("import helper\n\nnumber = helper.number\n")
    monkeypatch.syspath_prepend("one")
    import helper  # of whoever uses memory_rl

    found = [
        own_code.load_object(f"{folder}/own.py:number", "reward_type", "") for folder in ("two", "one", "two")
    ]
    assert found == [2, 1, 2]
    assert sys.modules["helper"] is helper
    del sys.modules["helper"]


def test_a_class_or_function_from_python_is_its_text_and_what_its_file_imports(monkeypatch):
    write_code()
    monkeypatch.syspath_prepend(str(Path.cwd()))

    def found(text: str) -> dict[str, str]:
        Path("mine.py").write_text(text)
        return sources(own_code.load_object("mine.py:Mine", "algorithm", ""))

    first = found(LEARNER)
    assert [*first] == ["Mine", "rules", "rules.scale", "rules.deep"]
    assert found(LEARNER + "\n\nnotes = 'nothing to do with it'\n") == first
    assert found(LEARNER.replace("FACTOR *", "2 * FACTOR *"))["Mine"] != first["Mine"]
    assert sources(3) == sources(len) == sources(memory_rl.GRPO) == {}


def test_a_file_that_cannot_be_read_is_left_to_whoever_runs_it():
    Path("own.py").write_text(
        "import broken, missing.part, space.inner.leaf\nfrom .. import nothing\nfrom helper import *\n"
    )
    Path("broken.py").write_text("def (:\n")
    Path("helper.py").write_text("import own\n")
    Path("space/inner").mkdir(parents=True)
    Path("space/inner/leaf.py").write_text("")
    assert [*sources("own.py:mine")] == ["own.py", "broken", "space.inner.leaf", "helper"]
