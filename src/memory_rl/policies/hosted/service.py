"""The service: whether it is there and serves a model, the model's tokenizer, and what its failures mean."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import tinker
from tinker.lib.base_url import resolve_base_url

from memory_rl.errors import ModelError, ServiceError, hushed, suggest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEY = "TINKER_API_KEY"
_REMOTE_CODE = "moonshotai/"  # the SDK runs code from the hub to read the tokenizers of these
FAILURES = (tinker.TinkerError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True)
class Service:
    """What the SDK speaks to the service with.

    Attributes:
        session: a `tinker.ServiceClient`.
        rest: a `tinker.RestClient`, for what needs no session.
    """

    session: Any
    rest: Any


def open_service(model_name: str, base_url: str | None) -> Service:
    """A session with the service, once it is known that it would serve this model.

    Raises:
        ServiceError: one sentence, if there is no key, no answer, or no account.
        ModelError: if there is no such model.
    """
    key = os.environ.get(_KEY)
    if not key:
        raise ServiceError(
            f"backend=tinker needs an API key, and {_KEY} is not set: type export {_KEY}=tml-... first."
        )
    if model_name.startswith(_REMOTE_CODE):
        raise ModelError(
            f"model_name={model_name} has a tokenizer that runs code from the hub, which is never done here: "
            "use another model."
        )
    try:
        _knock(resolve_base_url(base_url))
        clients = (tinker.ServiceClient, tinker.RestClient)
        service = Service(*(client(base_url=base_url, api_key=key) for client in clients))
        # The SDK's public calls wait for minutes where an account lacks money.
        service.session._check_accessible()
        served = service.rest.get_server_capabilities().result().supported_models
    except FAILURES as error:
        raise explain(error, model_name) from None
    models = [model.model_name for model in served]
    if models and model_name not in models:
        raise ModelError(
            f"model_name={model_name} is not a model of the service: "
            f"{suggest(model_name, filter(None, models))}"
        )
    return service


def _knock(address: str) -> None:
    """Whether anything answers there at all, which the SDK would try for minutes.

    Raises:
        OSError: if nothing does.
    """
    try:
        httpx.get(f"{address}/api/v1/healthz", timeout=30, follow_redirects=True)
    except httpx.HTTPError as error:
        raise ConnectionError(f"{address}: {error}") from error


def find_tokenizer(service: Service, model_name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: in the model's directory, if it is one, else where the SDK has it.

    Raises:
        ModelError: if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        if Path(model_name).is_dir():
            return AutoTokenizer.from_pretrained(model_name, trust_remote_code=False)
        client = service.session.create_sampling_client(base_model=model_name).result()
        with hushed("huggingface_hub"):  # which prints each try where it is not reached
            return client.get_tokenizer()
    except tinker.TinkerError as error:
        raise explain(error, model_name) from error
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model_name={model_name} has a tokenizer that cannot be loaded ({reason}): use another model."
        ) from error


def explain(error: Exception, model_name: str) -> ServiceError:
    """What a failure of the SDK means, in one sentence without the key."""
    status = getattr(error, "status_code", None)
    said = " ".join(str(getattr(error, "message", None) or error).split())[:300]
    reason = said.replace(os.environ.get(_KEY) or "\0", f"the {_KEY}").rstrip(".")
    if status in (401, 403) or "must start with" in reason:
        return ServiceError(f"{_KEY} is not accepted by the service ({reason}): give a valid key.")
    if status == 402:
        return ServiceError(
            f"the account of {_KEY} cannot pay ({reason}): see to its billing, then type the same command."
        )
    if isinstance(error, (tinker.APIConnectionError, ConnectionError)):
        return ServiceError(
            f"the service does not answer ({reason}): check tinker_base_url and the network, then type it "
            "again, with resume=True if it had started."
        )
    return ServiceError(
        f"the service failed for model_name={model_name} ({reason}): try again, or continue with "
        "log_path=... resume=True."
    )
