"""Clients of others, as they are, against real units: MLServer's, MLflow's requests, and curl as the docs have it.

Triton's is in test_oip.py, Schemathesis in test_openapi.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import requests
from sklearn.linear_model import LinearRegression
from uv import find_uv_bin

from tests.runtime.handmade import Service, model_step, running, write_bundle
from tests.support import ROOT, missing, require

pytestmark = pytest.mark.slow

CLIENT = ROOT / "tests" / "clients" / "mlserver_client.py"
MLSERVER = "mlserver==1.7.1"
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Answers a row of a, b and c with its sum."""
    folder = tmp_path_factory.mktemp("sums")
    rows = numpy.random.default_rng(7).random((50, 3))
    model = LinearRegression(fit_intercept=False).fit(rows, rows.sum(1))
    model.coef_ = numpy.ones(3)
    model.feature_names_in_ = numpy.array(NAMES, dtype=object)
    write_bundle(folder, model_step(folder, model, "sums"))
    with running(folder) as started:
        yield started


@pytest.mark.timeout(900)  # it takes long to import, three times
def test_mlservers_client(service: Service, tmp_path: Path) -> None:
    command = [find_uv_bin(), "run", "--quiet", "--no-project", "--python", sys.executable, "--with", MLSERVER]
    address = service.url.removeprefix("http://")
    done = subprocess.run([*command, "python", CLIENT, address, "sums", tmp_path], capture_output=True, text=True)
    if done.returncode and "Traceback" not in done.stderr:
        missing("mlserver", f"an index from which uv installs {MLSERVER}; it said: {done.stderr}")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["server"] == "mlpacker"
    assert said["metadata"] == [[-1, 3], "FP64"]
    assert said["index"] == [["sums", "READY"], ["plant", "READY"]]
    assert said["numpy"] == said["pandas"] == said["one input"] == [6.0, 15.0]
    assert said["in JSON"] == said["in binary"] == [[3.0 * n] for n in range(8)]


@pytest.mark.parametrize(
    "sent",
    [
        {"dataframe_split": {"columns": ["c", "a", "b"], "data": [[3, 1, 2], [6.0, 4.0, 5.0]]}},
        {"dataframe_split": {"index": [0, 1], "columns": NAMES, "data": [[1, 2, 3], [4, 5, 6]]}},
        {"dataframe_records": [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}]},
        {"instances": [[1, 2, 3], [4, 5, 6]]},
        {"inputs": [[1, 2, 3], [4, 5, 6]]},
        {"inputs": {"a": [1, 4], "b": [2, 5], "c": [3, 6]}},
    ],
)
def test_mlflows_documented_requests(service: Service, sent: dict[str, Any]) -> None:
    answer = requests.post(f"{service.url}/invocations", json=sent, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"predictions": [6.0, 15.0]})


def test_mlflows_csv(service: Service) -> None:
    kind = {"Content-Type": "text/csv"}
    answer = requests.post(f"{service.url}/invocations", data="a,b,c\n1,2,3\n4,5,6\n", headers=kind, timeout=30)
    assert answer.json() == {"predictions": [6.0, 15.0]}


def documented() -> list[str]:
    """The commands of docs/interfaces.md."""
    text = (ROOT / "docs" / "interfaces.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("command", documented())
def test_curl_as_the_docs_have_it(service: Service, command: str) -> None:
    require("curl", "apt-get install curl")
    environment = {**os.environ, "UNIT": service.url}
    done = subprocess.run(["sh", "-c", f"{command} --fail-with-body"], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert b"6.0" in done.stdout
