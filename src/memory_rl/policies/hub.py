"""Models of the Hugging Face hub: it is asked once, within a time limit, before a loader asks for each file.

The loaders themselves try for a minute to reach a hub that is not there, and print each try.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HFValidationError

from memory_rl.config import TINY, TINY_TEXT
from memory_rl.errors import ModelError, one_line

_FILE = "config.json"  # every model has one
_REFUSED = (401, 403, 404)
_INSTEAD = (
    f"give {TINY}, {TINY_TEXT}, a .gguf file, a directory or a hub id such as HuggingFaceTB/SmolLM2-135M"
)


def refuse_unknown(name: str) -> None:
    """Looks for a model without loading anything, since what loads it takes seconds to be imported.

    Args:
        name: a directory, a GGUF file or a hub id.

    Raises:
        ModelError: if it is nothing on this machine, and no hub can have it or may be asked; else as
            `how_to_load`.
    """
    if Path(name).is_dir() or name.endswith(".gguf"):
        return
    try:
        hf_hub_url(name, _FILE)
    except HFValidationError:
        why = "is no directory, and no hub can have a model of that name"
        raise ModelError(f"model_name={name!r} {why}: {_INSTEAD}.") from None
    if isinstance(try_to_load_from_cache(name, _FILE), str):
        return
    if constants.is_offline_mode():
        why = "is neither a directory nor in the hub's cache, and HF_HUB_OFFLINE forbids to ask the hub"
        raise ModelError(f"model_name={name!r} {why}: {_INSTEAD}, or unset HF_HUB_OFFLINE.")
    how_to_load(name)


def how_to_load(name: str) -> dict[str, Any]:
    """What to tell a loader beside the name of a model: to use the hub's cache alone, where the hub is away.

    Args:
        name: a directory, for which nobody is asked, or a hub id. The hub has HF_HUB_ETAG_TIMEOUT seconds to
            answer.

    Raises:
        ModelError: if the hub has no such model, keeps it from this user or does not answer, and the cache
            does not hold it.
    """
    if Path(name).is_dir() or constants.is_offline_mode():
        return {}
    try:
        get_hf_file_metadata(hf_hub_url(name, _FILE), timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (
        EntryNotFoundError,
        HFValidationError,
    ):  # it is there, or no hub id: the loader says what is wrong
        return {}
    except Exception as error:  # whatever it is, the cache may have the model
        if isinstance(try_to_load_from_cache(name, _FILE), str):
            return {"local_files_only": True}
        raise ModelError(_why_not(name, error)) from error
    return {}


def _why_not(name: str, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"model_name={name!r} is gated: ask for access at {constants.ENDPOINT}/{name}, then type hf auth "
            "login."
        )
    if getattr(getattr(error, "response", None), "status_code", None) in _REFUSED:
        return (
            f"model_name={name!r} is no directory, and the hub has no such model or keeps it private: check "
            "the spelling, or type hf auth login first."
        )
    reason = one_line((str(error).splitlines() or [type(error).__name__])[0])
    return (
        f"model_name={name!r} is neither a directory nor in the hub's cache, and the hub at "
        f"{constants.ENDPOINT} does not answer ({reason}): check the network, give a slow hub more than "
        f"HF_HUB_ETAG_TIMEOUT={constants.HF_HUB_ETAG_TIMEOUT} seconds, or give a directory."
    )
