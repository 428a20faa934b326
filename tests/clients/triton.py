"""Asks a unit by `tritonclient[http]`, as it is: `python triton.py HOST:PORT MODEL`; prints what came as JSON.

The unit's one step answers each row of numbers with its sum.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy
import tritonclient.http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException


def tensor(array: Any, datatype: str, binary: bool) -> Any:
    made = triton.InferInput("x", list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def sums(client: Any, model: str, array: Any, datatype: str, binary: bool, **more: Any) -> Any:
    return client.infer(model, [tensor(array, datatype, binary)], **more)


def refusal(call: Any) -> str:
    try:
        call()
    except InferenceServerException as error:
        return str(error.message())
    return ""


async def asynchronously(address: str, model: str, array: Any) -> list[Any]:
    async with aio.InferenceServerClient(address) as client:
        found = [await client.infer(model, [tensor(array, "FP64", binary)]) for binary in (True, False)]
        assert isinstance(await client.get_model_repository_index(), list)
        return [each.as_numpy("predict").tolist() for each in found]


def main(address: str, model: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    rows = numpy.array([[1, 2, 3], [4, 5, 6]])
    version = client.get_model_metadata(model)["versions"][0]
    said: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model": client.is_model_ready(model, version),
        "nobody": client.is_model_ready("nobody"),
        "extensions": client.get_server_metadata()["extensions"],
        "index": client.get_model_repository_index(),
        "load": refusal(lambda: client.load_model(model)),
        "bad": refusal(lambda: sums(client, model, numpy.array(5.0).reshape(1), "FP64", True)),
        "aio": asyncio.run(asynchronously(address, model, rows.astype(float))),
        "id": sums(client, model, rows, "INT64", True, request_id="7").get_response()["id"],
    }
    for datatype, dtype in (("FP16", "f2"), ("FP32", "f4"), ("FP64", "f8"), ("INT8", "i1"), ("UINT64", "u8")):
        for binary in (True, False):
            answer = sums(client, model, rows.astype(dtype), datatype, binary)
            said[f"{datatype} {'binary' if binary else 'json'}"] = answer.as_numpy("predict").tolist()
    return said


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
