"""Manages a unit's models by `tritonclient[http]`, as it is: `python … PUBLIC ADMIN TOKEN MODEL FILE`, addresses as
HOST:PORT; prints what came as JSON. The unit's one step answers `[1]` with a number."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def answer(client: Any, model: str) -> Any:
    tensor = triton.InferInput("x", [1, 1], "FP64")
    tensor.set_data_from_numpy(numpy.array([[1.0]]))
    return client.infer(model, [tensor])


def refusal(call: Any) -> str:
    try:
        call()
    except InferenceServerException as error:
        return str(error.message())
    return ""


def main(public: str, admin: str, token: str, model: str, file: str) -> dict[str, Any]:
    asking, managing = triton.InferenceServerClient(public), triton.InferenceServerClient(admin)
    headers = {"Authorization": f"Bearer {token}"}
    said: dict[str, Any] = {"first": managing.get_model_repository_index(headers=headers)}
    said["own"] = answer(asking, model).as_numpy("predict").ravel().tolist()[0]
    managing.unload_model(model, headers=headers)
    said["unloaded"] = managing.get_model_repository_index(headers=headers)[0]["state"]
    said["ready without"] = asking.is_server_ready()
    managing.load_model(model, headers=headers)
    said["ready again"] = asking.is_server_ready() and asking.is_model_ready(model)
    data = Path(file).read_bytes()
    managing.load_model(model, headers=headers, config="{}", files={"file:1/model.skops": data})
    found = answer(asking, model)
    said["loaded"] = found.as_numpy("predict").ravel().tolist()[0]
    said["version"] = found.get_response()["model_version"]
    said["index"] = managing.get_model_repository_index(headers=headers)
    bad = {"file:1/model.skops": b"nothing"}
    said["refused"] = refusal(lambda: managing.load_model(model, headers=headers, config="{}", files=bad))
    said["without a token"] = refusal(lambda: managing.load_model(model))
    return said


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
