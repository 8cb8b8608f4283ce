"""A sweep on a real Ray cluster of several nodes, of which one is killed in mid-sweep: nothing is lost, and
nothing is counted twice."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from helpers import complaint, without_progress

from memory_rl.cli import main
from memory_rl.experiment import make_experiment

ROOT = Path(__file__).parents[2]
CELLS = 6  # of GRID
GRID = (
    "conditions=log_distance,binary N=256 backend=tabular num_runs=16 max_episodes=20000 memorised_at=0.9 "
    "ledger=False seed=0,1,2 group_size=4"
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the end of the process


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("reference") / "sweep"
    assert main(["sweep", *GRID.split(), f"log_path={path}", "quiet=True"]) == 0
    return measured(path)


def measured(path: Path) -> dict[str, bytes]:
    """The tables of the cells; what a stop cut short while it was written is in `discarded` and run again."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*.parquet")
        if file.name != "timing.parquet" and "discarded" not in file.relative_to(path).parts
    }


def start(words: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "sweep.py", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def complete(path: str) -> int:
    return len(list(Path(path).glob("cells/*/manifest.json")))


def wait_until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def busy_workers(raylet: psutil.Process) -> list[psutil.Process]:
    """The workers of a node that are running cells."""
    found = []
    for child in raylet.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found += [child] if "ray::run_task" in " ".join(child.cmdline()) else []
    return found


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )  # the head hands out work and does none
    yield cluster
    cluster.shutdown()


def raylet_of(node) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def test_a_job_whose_node_is_killed_is_finished_on_another(cluster, tmp_path):
    """With what `ray job submit` leaves to a job: RAY_ADDRESS, and no key."""
    words = "conditions=binary,log_distance N=256 backend=tabular num_runs=16 max_episodes=20000 ledger=False"
    assert main(["sweep", *words.split(), "log_path=local", "quiet=True"]) == 0
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    job = {
        "RAY_ADDRESS": cluster.address,
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {"a": "b"}}),
    }
    process = start(f"{words} executor=ray log_path=ray threads=4", **job)  # as many as no node has
    wait_until(lambda: process.poll() is not None or busy_workers(raylet_of(node)))
    assert process.poll() is None, process.stderr.read()
    cluster.remove_node(node, allow_graceful=False)  # with SIGKILL
    assert complete("ray") < 2
    cluster.add_node(num_cpus=1)
    output, errors = process.communicate(timeout=120)
    errors = without_progress(errors)
    assert (process.returncode, errors) == (0, "")
    assert measured(Path("ray")) == measured(Path("local"))
    assert [line[:5] for line in output.splitlines() if line.startswith("[")] == ["[1/2]", "[2/2]"]


@pytest.mark.slow
def test_a_node_is_killed_in_mid_sweep(cluster, reference):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    process = start(f"{GRID} executor=ray ray_address={cluster.address} log_path=ray")
    raylets = [raylet_of(node) for node in nodes]
    wait_until(lambda: complete("ray") >= 1 and all(busy_workers(raylet) for raylet in raylets))
    done_before = complete("ray")
    cluster.remove_node(nodes[1], allow_graceful=False)
    output, _ = process.communicate(timeout=240)
    assert done_before < CELLS
    assert process.returncode == 0
    assert measured(Path("ray")) == reference  # nothing is lost: each cell is what it would have been
    rows = json.loads(Path("ray/summary.json").read_text())["cells"]
    assert [row["status"] for row in rows] == ["completed"] * CELLS
    assert len({row["id"] for row in rows}) == CELLS
    reported = [line for line in output.splitlines() if line.startswith("[")]
    assert len(reported) == CELLS  # nor is one counted twice
    names = {line.split("] ")[1].split(":")[0] for line in reported}
    assert names == {f"{row['condition']} N={row['N']} seed={row['seed']}" for row in rows}
    assert len(names) == CELLS
    assert [line.split("]")[0] for line in reported] == [
        f"[{number}/{CELLS}" for number in range(1, CELLS + 1)
    ]
    assert not Path("ray/discarded").exists()


@pytest.mark.slow
def test_a_killed_worker_is_retried(cluster, reference):
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    process = start(f"{GRID} executor=ray ray_address={cluster.address} log_path=ray")
    raylet = raylet_of(node)
    wait_until(lambda: len(busy_workers(raylet)) == 2)
    busy_workers(raylet)[0].kill()
    process.communicate(timeout=240)
    assert process.returncode == 0
    assert measured(Path("ray")) == reference


@pytest.mark.slow
def test_a_worker_lost_too_often_fails_its_cells_alone(cluster):
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    process = start(f"{GRID} executor=ray ray_address={cluster.address} retries=0 log_path=ray")
    raylet = raylet_of(node)
    wait_until(lambda: len(busy_workers(raylet)) == 2)
    busy_workers(raylet)[0].kill()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    rows = json.loads(Path("ray/summary.json").read_text())["cells"]
    failed = [row for row in rows if row["status"] == "failed"]
    assert 1 <= len(failed) < CELLS
    assert all("its worker was lost 1 times" in row["why"] for row in failed)
    assert errors.count("its worker was lost") == len(failed)
    assert {row["status"] for row in rows} == {"failed", "completed"}


@pytest.mark.slow
def test_a_contest_in_rounds_chooses_the_same():
    """Its cells are only known round by round, from what came back."""
    task = {"command": "train", "backend": "tabular", "N": 4, "num_runs": 4, "max_episodes": 200}
    protocol = {
        "name": "small",
        "grid": [{**task, "ledger": False}],
        "tune": {
            "learners": [{"algorithm": "reinforce"}, {"algorithm": "ppo"}],
            "factors": [1, 3],
            "rounds": [{"num_runs": 4, "keep": 2}, {"num_runs": 12}],
        },
        "beside": "default",
        "seeds": "independent",
    }
    Path("small.yaml").write_text(yaml.safe_dump(protocol))
    for where, *words in ("local",), ("ray", "executor=ray", "workers=2"):
        assert main(["sweep", "protocol=small.yaml", f"log_path={where}", "quiet=True", *words]) == 0
    local, ray = (json.loads(Path(where, "summary.json").read_text()) for where in ("local", "ray"))
    assert [choice["runs"] for choice in local["tuning"]] == [12]
    assert ray["tuning"] == local["tuning"]
    assert measured(Path("ray")) == measured(Path("local"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_the_same_command_continues(number, code, reference):
    process = start(f"{GRID} executor=ray workers=2 log_path=ray")
    wait_until(lambda: complete("ray") >= 1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert signal.Signals(number).name in errors
    assert "Traceback" not in errors
    rows = json.loads(Path("ray/summary.json").read_text())["cells"]
    assert {row["status"] for row in rows} == {"completed", "not run"}
    assert main(["sweep", *GRID.split(), "log_path=ray", "quiet=True"]) == 0
    assert measured(Path("ray")) == reference


REFUSED = "conditions=sft backend=tabular executor=ray log_path=none quiet=True"


@pytest.mark.parametrize("word", ["ray_address", "RAY_ADDRESS"])
def test_a_cluster_that_is_not_there(word, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    told = complaint(
        "sweep", f"{REFUSED} ray_address=127.0.0.1:1" if word == "ray_address" else REFUSED, capsys
    )
    assert f"{word}=127.0.0.1:1 cannot be reached ([Errno 111] Connection refused): start a cluster" in told
    assert make_experiment({}).world.N == 64  # the process is still of use


@pytest.mark.parametrize(
    ("address", "words", "part"),
    [
        (
            "http://127.0.0.1:8265",
            "",
            "RAY_ADDRESS=http://127.0.0.1:8265 is not the address of a cluster's mac",
        ),
        (
            "ray://127.0.0.1:10001",
            "",
            "RAY_ADDRESS=ray://127.0.0.1:10001 is not the address of a cluster's m",
        ),
        ("", "ray_address=ray://a:1", "ray_address=ray://a:1 is not the address of a cluster's machines"),
        ("host:6379", "workers=2", "workers=2 has no meaning with RAY_ADDRESS=host:6379, whose nodes say"),
    ],
)
def test_what_ray_is_told_by_its_environment_is_checked(address, words, part, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert part in complaint("sweep", f"{REFUSED} {words}", capsys)
