"""Starts SkyRL's Tinker API on a CPU; runs in the server's own environment, not in the project's (see
live_server.py).

    # The API, which starts the engine as its child:
    python skyrl_server.py --base-model DIR --backend jax ... --port N
    # The engine:
    python skyrl_server.py engine ...

SkyRL 0.4.0 and version 0.38.0 of the SDK disagree in places. Each function below settles one of them, and
says which.
"""

import argparse
import json
import runpy
import sys
import typing

import typing_extensions

if sys.version_info < (3, 12):
    # SkyRL declares Python 3.12; on 3.11 pydantic wants this TypedDict.
    typing.TypedDict = typing_extensions.TypedDict

if sys.argv[1:2] == ["engine"]:
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    runpy.run_module("skyrl.tinker.engine", run_name="__main__")
    sys.exit(0)

import skyrl.tinker.api as api
import skyrl.tinker.proto_serialization as wire
import uvicorn
from fastapi import Depends, HTTPException, Request
from fastapi.routing import APIRoute
from skyrl.tinker import types
from skyrl.tinker.config import EngineConfig, add_model, config_to_argv
from skyrl.tinker.db_models import ModelDB, SessionDB
from sqlmodel import update
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response


def without_uv() -> None:
    """SkyRL starts its engine by `uv run`; here this interpreter runs it."""
    api._build_uv_run_cmd_engine = lambda parent, config: [
        sys.executable,
        __file__,
        "engine",
        *config_to_argv(config),
    ]


async def add_sequence_ids(request, call_next):
    """The SDK asserts that a promise of samples carries an id for each."""
    if request.url.path != "/api/v1/asample":
        return await call_next(request)
    wanted = json.loads(await request.body()).get("num_samples", 1)
    response = await call_next(request)
    body = b"".join([chunk async for chunk in response.body_iterator])
    if response.status_code == 200:
        promise = json.loads(body)
        body = json.dumps(
            {
                **promise,
                "sample_sequence_ids": [f"{promise['request_id']}-{place}" for place in range(wanted)],
            }
        ).encode()
    headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
    return Response(body, status_code=response.status_code, headers=headers)


FINISHED: set[str] = set()
"""The sessions that have ended."""


async def finish_session(session_id: str, request: Request, session=Depends(api.get_session)):  # noqa: B008
    """The SDK ends its session by this call, which SkyRL lacks; its adapters are then freed at the next
    cleanup."""
    from datetime import UTC, datetime

    FINISHED.add(session_id)
    async with request.app.state.db_write_lock:
        await session.exec(
            update(SessionDB)
            .where(SessionDB.session_id == session_id)
            .values(last_heartbeat_at=datetime(2000, 1, 1, tzinfo=UTC))
        )
        await session.commit()
    return {}


async def session_heartbeat(request: Request, session=Depends(api.get_session)):  # noqa: B008
    """One that was under way when its session ended would keep the adapters for another minute."""
    wanted = api.SessionHeartbeatRequest.model_validate(await request.json())
    if wanted.session_id in FINISHED:
        raise HTTPException(410, detail="the session has ended")
    return await api.session_heartbeat(wanted, request, session)


def lead_by_none() -> None:
    """The log-probabilities of a prompt have an entry for each token, the first of them None; the JAX backend
    leaves that one out."""
    serialise = wire.serialize_sample_output
    wire.serialize_sample_output = lambda sequences, prompt, topk: serialise(
        sequences, None if prompt is None else [None, *prompt], topk
    )


def report_loss() -> None:
    """The SDK reads metrics["loss:sum"], of which the JAX backend sends none."""
    serialise = wire._serialize_forward_backward_output

    def with_loss(result):
        losses = [
            sum(output["elementwise_loss"]["data"])
            for output in result["loss_fn_outputs"]
            if "elementwise_loss" in output
        ]
        return serialise(
            {**result, "metrics": {"loss:sum": float(sum(losses)), **(result.get("metrics") or {})}}
        )

    wire._serialize_forward_backward_output = with_loss


async def load_weights(request: Request, session=Depends(api.get_session)):  # noqa: B008
    """The SDK makes a model from a checkpoint in one call, without a model's id; SkyRL knows `create_model`
    and then `load_weights`."""
    wanted = await request.json()
    if not wanted.get("model_id"):
        path = types.TinkerPath.parse(wanted["path"])
        if not path or path.kind != "weights":
            raise HTTPException(400, detail="path must be tinker://model/weights/name")
        source = await api.get_model(session, path.primary_id)
        wanted["model_id"] = f"{wanted['session_id']}:train:{wanted['model_seq_id']}"
        lora = types.LoraConfig.model_validate(source.lora_config)
        made = await api.create_future(
            session=session,
            request_type=types.RequestType.CREATE_MODEL,
            model_id=wanted["model_id"],
            request_data=types.CreateModelInput(lora_config=lora),
        )
        session.add(
            ModelDB(
                model_id=wanted["model_id"],
                base_model=source.base_model,
                lora_config=lora.model_dump(),
                status="created",
                request_id=made,
                session_id=wanted["session_id"],
            )
        )
        await session.commit()
    known = {key: value for key, value in wanted.items() if key in api.LoadWeightsRequest.model_fields}
    return await api.load_weights(api.LoadWeightsRequest.model_validate(known), request, session)


def main() -> None:
    without_uv()
    lead_by_none()
    report_loss()
    api.app.add_middleware(BaseHTTPMiddleware, dispatch=add_sequence_ids)
    api.app.post("/api/v1/sessions/{session_id}/finish")(finish_session)
    for path, instead in (("load_weights", load_weights), ("session_heartbeat", session_heartbeat)):
        api.app.router.routes.insert(0, APIRoute(f"/api/v1/{path}", instead, methods=["POST"]))
    parser = argparse.ArgumentParser()
    add_model(parser, EngineConfig)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    words = vars(parser.parse_args())
    api.app.state.engine_config = EngineConfig.model_validate(
        {key: value for key, value in words.items() if key in EngineConfig.model_fields}
    )
    uvicorn.run(api.app, host=words["host"], port=words["port"], log_level="info", access_log=False)


main()
