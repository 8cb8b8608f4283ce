"""Where parameters live: the policy protocol and its implementations."""

import sys
import warnings
from importlib import import_module

if "ipykernel" in sys.modules:  # there tqdm, which transformers imports, asks for ipywidgets without need
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("tqdm.auto")
