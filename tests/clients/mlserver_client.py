"""Asks a unit by MLServer's own client, as it is: `python mlserver_client.py HOST:PORT MODEL FOLDER`; prints what came
as JSON. MLServer's types and codecs make the requests and read the answers; `mlserver infer` asks from a file.

The unit's model knows its three columns as a, b and c, and answers each row with its sum.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy
import pandas
from mlserver import types
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec

ROWS = numpy.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
FRAME = pandas.DataFrame(ROWS, columns=["a", "b", "c"])


def ask(address: str, path: str, kind: Any, request: Any = None) -> Any:
    """An instance of `kind`, which checks what it is made of."""
    body = None if request is None else request.model_dump_json(exclude_none=True).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", body, headers)) as answer:
        return kind.model_validate_json(answer.read())


def infer(address: str, model: str, request: types.InferenceRequest) -> list[Any]:
    response = ask(address, f"/v2/models/{model}/infer", types.InferenceResponse, request)
    answer: list[Any] = NumpyCodec.decode_output(response.outputs[0]).ravel().tolist()
    return answer


def in_batches(address: str, model: str, folder: Path, *options: str) -> list[Any]:
    """What `mlserver infer` writes for eight requests of one row."""
    asked, answered = folder / "asked.jsonl", folder / f"answered{''.join(options)}.jsonl"
    requests = (NumpyRequestCodec.encode_request(numpy.array([[n, n, n]], dtype="f8")) for n in range(8))
    asked.write_text("".join(f"{each.model_dump_json(exclude_none=True)}\n" for each in requests))
    command = [sys.executable, "-m", "mlserver.cli.main", "infer", "-u", address, "-m", model]
    subprocess.run([*command, "-i", asked, "-o", answered, *options], check=True, stdout=subprocess.DEVNULL)
    lines = sorted(
        map(json.loads, answered.read_text().splitlines()), key=lambda line: line["parameters"]["batch_index"]
    )
    return [line["outputs"][0]["data"] for line in lines]


def main(address: str, model: str, folder: Path) -> dict[str, Any]:
    metadata = ask(address, f"/v2/models/{model}", types.MetadataModelResponse)
    index = ask(
        address, "/v2/repository/index", types.RepositoryIndexResponse, types.RepositoryIndexRequest(ready=True)
    )
    return {
        "server": ask(address, "/v2", types.MetadataServerResponse).name,
        "metadata": [metadata.inputs[0].shape, metadata.outputs[0].datatype],
        "index": [[each.name, str(each.state)] for each in index.root],
        "numpy": infer(address, model, NumpyRequestCodec.encode_request(ROWS)),
        "pandas": infer(address, model, PandasCodec.encode_request(FRAME)),
        "one input": infer(address, model, types.InferenceRequest(inputs=[NumpyCodec.encode_input("predict", ROWS)])),
        "in JSON": in_batches(address, model, folder, "-s", "3"),
        "in binary": in_batches(address, model, folder, "-b"),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
