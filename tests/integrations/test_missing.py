"""A library that is missing is said in one sentence that names the extra to install; no adapter needs
another's library."""

import importlib
import importlib.util
import sys

import pytest

MODULES = [
    ("gymnasium", "gymnasium", "gymnasium"),
    ("trl", "datasets", "trl"),
    ("verifiers", "verifiers", "verifiers"),
]
MODULES.append(("tinker_cookbook", "tinker_cookbook", "tinker-cookbook"))


@pytest.mark.parametrize(("module", "library", "extra"), MODULES)
def test_a_missing_library_names_its_extra(module, library, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, f"memory_rl.integrations.{module}", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(f"memory_rl.integrations.{module}")
    assert str(caught.value) == (
        f"memory_rl.integrations.{module} needs {library}, which is not installed: "
        f"type pip install 'memory-rl[{extra}]'."
    )
