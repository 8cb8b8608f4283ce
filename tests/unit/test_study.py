"""What a report calls cells that differ in their model."""

from pathlib import Path

from memory_rl.analysis.collect import Cell
from memory_rl.reporting.study import make_study


def test_a_model_in_a_directory_goes_by_the_directorys_name():
    names = ["tiny", "/home/somebody/models/SmolLM2/", "meta-llama/Llama-3.1-8B"]
    cells = [
        Cell(
            Path(str(place)),
            {
                "kind": "train",
                "condition": "binary",
                "status": "completed",
                "config": {"N": 16, "model_name": name, "seed": 0, "num_runs": 4},
            },
            {},
        )
        for place, name in enumerate(names)
    ]
    labels = {entry.label for entry in make_study(cells).entries}
    assert labels == {
        "binary model_name=tiny",
        "binary model_name=SmolLM2",
        "binary model_name=meta-llama/Llama-3.1-8B",
    }
