"""Whole experiments with backend=tinker on a service in memory: what they write, what they refuse, what they
never write."""

import copy
import json
import math
import sys
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from helpers import complaint

pytest.importorskip("tinker.types", reason="the tinker SDK is not installed: pip install 'memory-rl[tinker]'")
import tinker
from fake_tinker import FakeService

import memory_rl
from memory_rl.cli import main
from memory_rl.policies import tiny_model
from memory_rl.policies.hosted import service as hosted

KEY = "tml-very-secret-0123456789"


@pytest.fixture
def serve(make_policy, monkeypatch):
    """Puts a fresh service with a warmed-up tiny model in place of the hosted one, and returns it."""
    monkeypatch.setenv("TINKER_API_KEY", KEY)

    def serve(kind="single_step", N=8, num_runs=2, num_secrets=1):
        service = FakeService(make_policy(kind, N, num_runs=num_runs, num_secrets=num_secrets))
        monkeypatch.setattr(hosted, "open_service", lambda name, url: hosted.Service(service, service))
        monkeypatch.setattr(hosted, "find_tokenizer", lambda service, name: tiny_model.make_tokenizer())
        return service

    return serve


SETTINGS = {
    "backend": "tinker",
    "N": 8,
    "num_runs": 2,
    "learning_rate": 3e-3,
    "warmup": False,
    "wording": "terse",
}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("single_step", {}),
        ("multi_step", {"max_episodes": 400}),
        ("single_step", {"algorithm": "ppo", "ppo_epochs": 2, "scoring": "all"}),
        ("single_step", {"signal": "teacher", "told": "sampled"}),
        ("single_step", {"signal": "teacher", "told": "sampled", "teacher": "observer"}),
        ("multi_step", {"signal": "teacher", "told": "sampled"}),
    ],
    ids=["binary", "dense", "ppo, all answers scored", "teacher", "observer as teacher", "teacher of bits"],
)
def test_learns_and_keeps_an_exact_ledger(serve, kind, more):
    service = serve(kind)
    result = memory_rl.train(env_type=kind, log_path="run", **SETTINGS, **more)
    [summary] = result.summary.values()
    assert summary["memorised"] == 2
    assert result.config["model_name"] == summary["model"] == "meta-llama/Llama-3.1-8B"
    counts = summary["usage"]["requests"]
    assert {name: count for name, count in counts.items() if name != "total"} == dict(service.calls)
    assert summary["usage"]["tokens"] == {**service.tokens, "total": service.tokens.total()}
    assert json.loads(Path("run/usage.json").read_text()) == summary["usage"]
    assert summary["stopped"] is None
    assert (result.episodes["count"] == 1).all()  # every answer was really given
    ends, again = (
        frame.sort("episode").group_by("run").last().sort("run")["observer_bits"].to_numpy()
        for frame in (result.metrics, result.ledger)
    )
    assert ends == pytest.approx(again)
    assert Path("run/film.parquet").exists() == (more.get("scoring") == "all")
    assert not service.states  # nothing is left behind on the service


def test_supervised_learning_memorises(serve):
    service = serve()
    result = memory_rl.sft(**SETTINGS, log_path="run")
    assert result.summary["sft"]["memorised"] == 2
    assert service.calls["forward_backward"] == service.calls["optim_step"]


SEVERAL = {**SETTINGS, "num_secrets": 3, "log_path": "run"}


@pytest.mark.parametrize(
    ("learn", "more"),
    [(memory_rl.train, {"batch_size": 2, "evaluate_every": 2}), (memory_rl.sft, {"order": "cycle"})],
    ids=["by reward", "by example"],
)
def test_several_secrets_are_memorised_and_accounted_for(serve, learn, more):
    service = serve(num_secrets=3)
    result = learn(**SEVERAL, **more)
    [summary] = result.summary.values()
    assert summary["memorised"] == 2
    counts = summary["usage"]["requests"]
    assert {name: count for name, count in counts.items() if name != "total"} == dict(service.calls)
    assert summary["usage"]["tokens"] == {**service.tokens, "total": service.tokens.total()}
    assert counts["compute_logprobs"] == 3 * len(result.metrics)  # of each secret, at each measurement
    secrets = {
        (run, prompt): secret
        for run, prompt, secret in pl.read_parquet("run/secrets.parquet")
        .select("run", "prompt", "secret")
        .iter_rows()
    }
    told = [
        (row["answer"] == secrets[row["run"], row["prompt"]], row["reward"])
        for row in result.episodes.iter_rows(named=True)
    ]
    assert all(right if reward is None else right == bool(reward) for right, reward in told)
    ends, again = (
        frame.sort("episode").group_by("run").last().sort("run")["observer_bits"].to_numpy()
        for frame in (result.metrics, result.ledger)
    )
    assert ends == pytest.approx(again)
    assert ends == pytest.approx(9)


def break_down(service, after: int):
    """The service answers no more after so many requests; returns what it answered with, to mend it."""
    ask, answered = service.ask, []

    def answer(name, give):
        answered.append(name)
        return ask(name, give if len(answered) < after else fail)

    def fail():
        raise tinker.APIConnectionError(httpx.Request("POST", "http://nowhere"))

    service.ask = answer
    return ask


def test_a_broken_run_with_several_secrets_is_gone_on_with(serve):
    service = serve(num_secrets=3)
    settings = {**SEVERAL, "max_episodes": 120, "learning_rate": 1e-3}
    ask = break_down(service, after=200)
    with pytest.raises(memory_rl.MemoryRLError, match=r"the service does not answer"):
        memory_rl.train(**settings)
    measured = memory_rl.load("run").metrics
    service.ask = ask
    result = memory_rl.train(**settings, resume=True)
    assert len(measured) > 4
    assert result.metrics.head(len(measured)).equals(measured)
    episodes = result.episodes.group_by("run").len().sort("run")["len"].to_list()
    assert (
        episodes
        == result.metrics.group_by("run").agg(pl.col("episode").max()).sort("run")["episode"].to_list()
    )


def test_max_tokens_total_ends_it_in_good_order(serve, capsys):
    service = serve()
    settings = {**SETTINGS, "learning_rate": 1e-6, "max_tokens_total": 2500, "log_path": "run"}
    result = memory_rl.train(**settings, quiet=False)
    [summary] = result.summary.values()
    assert service.tokens.total() == summary["usage"]["tokens"]["total"] <= 2500
    assert summary["censored"] == 2
    assert summary["stopped"].startswith("max_tokens_total=2500 leaves ")
    assert result.outcome is memory_rl.Outcome.BUDGET_SPENT
    said = capsys.readouterr()
    assert "note: max_tokens_total=2500 leaves " in said.out
    assert "note: an update of one run costs at most " in said.err  # before anything is spent
    episodes = result.episodes.group_by("run").len().sort("run")["len"].to_list()
    assert (
        episodes
        == result.metrics.group_by("run").agg(pl.col("episode").max()).sort("run")["episode"].to_list()
    )


def test_too_small_a_limit_is_refused_with_one_that_is_not(serve, capsys):
    serve()
    words = "backend=tinker N=8 num_runs=2 max_tokens_total="
    sentence = complaint("train", words + "50", capsys)
    enough = int(sentence.split("use max_tokens_total=")[1].split(" ")[0])
    serve()
    assert str(enough) in complaint("train", f"{words}{enough - 1}", capsys)
    service = serve()
    result = memory_rl.train(**SETTINGS, max_tokens_total=enough, log_path="run")
    assert result.metrics["episode"].max() >= 4  # the first update was made
    assert service.tokens.total() <= enough


def test_the_key_is_written_nowhere(serve):
    serve()
    result = memory_rl.train(**SETTINGS, max_episodes=40, log_path="run", checkpoint_every=0)
    for file in result.path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_a_failing_service_keeps_what_was_measured_and_resume_goes_on(serve):
    service = serve()
    ask = break_down(service, after=60)
    settings = {**SETTINGS, "learning_rate": 1e-3, "log_path": "run", "max_episodes": 400}
    with pytest.raises(memory_rl.MemoryRLError, match=r"the service does not answer"):
        memory_rl.train(**settings)
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["status"] == "failed"
    spent = json.loads(Path("run/usage.json").read_text())["tokens"]["total"]
    measured = memory_rl.load("run").metrics
    service.ask = ask
    result = memory_rl.train(**settings, resume=True)
    again = result.metrics.head(len(measured))
    assert again.equals(measured)  # nothing that was paid for is lost
    assert result.summary["binary"]["usage"]["tokens"]["total"] > spent
    assert result.summary["binary"]["usage"]["tokens"]["total"] == pytest.approx(
        service.tokens.total(), abs=200
    )


def test_the_format_of_bits_adds_up(serve):
    serve()
    metrics = memory_rl.train(**SETTINGS, max_episodes=80).metrics
    assert metrics["bits_known"].to_numpy() == pytest.approx(
        (metrics["content_bits"] + metrics["format_bits"]).to_numpy()
    )
    assert metrics["format_bits"].max() <= 0
    first = metrics.filter(pl.col("episode") == 0).sort("run")
    assert np.abs(first["bits_known"].to_numpy()).max() < 0.5 * math.log2(
        8
    )  # a base model that knows nothing


REFUSED = {
    "no key": ("", ["TINKER_API_KEY", "export TINKER_API_KEY=tml-"]),
    "sgd": ("optimiser=sgd", ["optimiser=sgd", "leave optimiser out"]),
    "posterior": ("algorithm=posterior", ["algorithm=posterior", "backend=local"]),
    "alpha": ("lora_alpha=16", ["lora_alpha=16", "leave lora_alpha out"]),
    "skipping": ("skip_ahead=True", ["skip_ahead=True", "leave skip_ahead out"]),
    "an address that is none": ("tinker_base_url=localhost", ["tinker_base_url=localhost", "http://"]),
    "no tokens": ("max_tokens_total=0", ["max_tokens_total=0", "max_tokens_total=1"]),
    "too many answers": ("N=5000", ["N=5000", "backend=tinker", "N=4096"]),
    "nobody there": (
        "tinker_base_url=http://127.0.0.1:9",
        ["does not answer", "http://127.0.0.1:9", "tinker_base_url"],
    ),
    "remote code": ("model_name=moonshotai/Kimi-K2.6", ["moonshotai/Kimi-K2.6", "another model"]),
}


@pytest.mark.parametrize(("words", "parts"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(words, parts, capsys, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    if not words:
        monkeypatch.delenv("TINKER_API_KEY")
    sentence = complaint("train", f"backend=tinker {words}", capsys)
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("words", ["max_tokens_total=100", "tinker_base_url=http://127.0.0.1:1"])
def test_keys_of_the_service_are_refused_elsewhere(words, capsys):
    assert "belongs to backend=tinker: add backend=tinker" in complaint("train", words, capsys)


def test_without_the_sdk_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tinker", None)
    assert "type pip install 'memory-rl[tinker]'" in complaint("train", "backend=tinker", capsys)


def status(code, body):
    response = httpx.Response(code, request=httpx.Request("POST", "http://service"), json=body)
    kinds = {401: tinker.AuthenticationError, 402: tinker.BillingError, 500: tinker.InternalServerError}
    return kinds[code](f"Error code: {code} - {body}", response=response, body=body)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            status(401, {"detail": f"no such key {KEY}"}),
            ["TINKER_API_KEY is not accepted", "give a valid key"],
        ),
        (status(402, {"detail": "no money"}), ["cannot pay", "billing"]),
        (status(500, {"detail": "oh"}), ["the service failed", "resume=True"]),
        (
            tinker.APIConnectionError(httpx.Request("POST", "http://service")),
            ["does not answer", "tinker_base_url"],
        ),
    ],
    ids=["401", "402", "500", "no connection"],
)
def test_an_error_of_the_service_is_one_sentence(error, parts, capsys, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", KEY)

    def refuse(**settings):
        raise copy.copy(error)

    monkeypatch.setattr(hosted, "_knock", lambda address: None)
    monkeypatch.setattr(tinker, "ServiceClient", refuse)
    sentence = complaint("train", "backend=tinker", capsys)
    assert KEY not in sentence
    for part in parts:
        assert part in sentence


def test_an_unknown_model_is_answered_with_a_known_one(capsys, monkeypatch):
    class Rest:
        def __init__(self, **settings):
            pass

        def get_server_capabilities(self):
            return self

        def result(self):
            return type(
                "Answer",
                (),
                {
                    "supported_models": [
                        type("Model", (), {"model_name": name})
                        for name in ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B")
                    ]
                },
            )

    monkeypatch.setenv("TINKER_API_KEY", KEY)
    monkeypatch.setattr(hosted, "_knock", lambda address: None)
    monkeypatch.setattr(
        tinker,
        "ServiceClient",
        lambda **settings: type("Session", (), {"_check_accessible": lambda self: None})(),
    )
    monkeypatch.setattr(tinker, "RestClient", Rest)
    sentence = complaint("train", "backend=tinker model_name=meta-llama/Llama-3.1-8", capsys)
    assert "did you mean meta-llama/Llama-3.1-8B?" in sentence


def test_a_sweep_says_what_hosted_cells_would_cost(capsys):
    assert main(["sweep", "backend=tinker", "conditions=sft,binary,multi_step", "N=16", "dry_run=True"]) == 0
    assert "3 cells" in capsys.readouterr().out
