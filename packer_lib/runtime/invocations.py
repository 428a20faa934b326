"""MLflow's scoring protocol, as its server has had it since 2.0 (mlflow/pyfunc/scoring_server).

    POST /invocations     JSON with one of the four below, or CSV with a header → {"predictions": [value or null, …]}
    GET  /ping, /health   200 when ready, else 503
    GET  /version         of the protocol

    {"dataframe_split": {"columns": [name, …], "data": [row, …]}}   {"dataframe_records": [{name: cell}, …]}
    {"instances": [instance, …]}                                    {"inputs": {name: column} or [instance, …]}

A model gets the cells of a row as a list, in the order of the names that it was trained with, or else of the columns; a
function gets an object of them by name.
Errors are `{"error": "…"}`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from . import bodies, metrics
from .front import Request
from .links import Onward
from .manifest import Manifest
from .predict import Answer, Refused, error_answer, predict, wish
from .worker import Worker

ROUTES = frozenset({"/invocations", "/ping", "/health", "/version"})
KINDS = frozenset({bodies.JSON, bodies.CSV})
FORMS = {
    "dataframe_split": '{"columns": [name, …], "data": [row, …]}',
    "dataframe_records": '[{"column": cell, …}, …]',
    "instances": "a list",
    "inputs": 'a list, or {"column": [cell, …], …}',
}
USAGE = f"expected an object with one of {', '.join(FORMS)}"
VERSION = b"2.0.0"
TEXT = b"text/plain; charset=utf-8"

Shape = Callable[[Sequence[Any], Sequence[Any]], list[Any]]  # columns and rows of a table → instances


class Invocations:
    def __init__(self, manifest: Manifest, worker: Worker, onward: Onward | None) -> None:
        self._worker, self._onward = worker, onward
        self._named = any(step.kind == "code" for step in manifest.entries())

    def kinds(self, path: str) -> Collection[bytes] | None:
        return KINDS if path in ROUTES else None

    def predicts(self, path: str) -> bool:
        return path == "/invocations"

    async def answer(self, request: Request) -> Answer:
        if request.path == "/invocations":
            request.require("POST")
            return await self._predict(request)
        request.require("GET", "HEAD")
        if request.path == "/version":
            return Answer(200, VERSION, TEXT)
        if self._worker.unready:
            return error_answer(503, f"not ready: {self._worker.unready}")
        return Answer(200, b"\n", TEXT)

    async def _predict(self, request: Request) -> Answer:
        arrived = time.perf_counter()
        wished = replace(wish(request.query, request.headers), outcomes=False)
        with metrics.IN_FLIGHT.track_inprogress():
            body = await request.body()
            if request.kind == bodies.CSV:
                lines = await bodies.read(bodies.CSV, body, plain=True)
                instances = self._shape(lines[0], lines[1:])
            else:
                instances = parse(body, self._shape)
            answer = await predict(self._worker, self._onward, instances, wished)
        metrics.END_TO_END_SECONDS.observe(time.perf_counter() - arrived)
        return answer

    def _shape(self, columns: Sequence[Any], data: Sequence[Any]) -> list[Any]:
        rows = table(columns, data)
        if self._named and any(isinstance(name, str) for name in columns):
            return [dict(zip(map(str, columns), row, strict=True)) for row in rows]
        return in_order(columns, rows, self._worker.columns())


def parse(body: bytes, shape: Shape) -> list[Any]:
    """The instances in `body`, tables by `shape`. `Refused` says what is wrong."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise Refused(400, USAGE)
    given = [form for form in FORMS if form in request]
    if len(given) != 1:
        raise Refused(400, f"{USAGE}; it has {' and '.join(given) or 'none'}")
    if request.get("params"):
        raise Refused(400, "params are not taken: a unit has no parameters beside its data")
    instances = _instances(given[0], request[given[0]], shape)
    if instances is None:
        raise Refused(400, f"{given[0]}: expected {FORMS[given[0]]}")
    return instances


def _instances(form: str, value: Any, shape: Shape) -> list[Any] | None:
    """None: `value` is not as that form has it."""
    if form == "dataframe_split":
        return _split(value, shape) if isinstance(value, dict) else None
    if form == "inputs" and isinstance(value, dict):
        return shape(list(value), by_columns(value))
    if not isinstance(value, list):
        return None
    if form != "inputs" and value and isinstance(value[0], dict):
        return shape(list(value[0]), records(value))
    return None if form == "dataframe_records" and value else value


def _split(value: Mapping[str, Any], shape: Shape) -> list[Any] | None:
    columns, data = value.get("columns"), value.get("data")
    if not isinstance(data, list) or not isinstance(columns, list | None):
        return None
    if columns is None:
        columns = list(range(len(data[0]) if data and isinstance(data[0], list) else 0))
    return shape(columns, data)


def table(columns: Sequence[Any], rows: Sequence[Any]) -> list[list[Any]]:
    """`rows`, or `Refused` when one has not a cell for each of `columns`."""
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            found = f"{len(row)} cells" if isinstance(row, list) else "no list"
            raise Refused(400, f"data[{place}]: {found} for {len(columns)} columns")
    return list(rows)


def records(rows: Sequence[Any]) -> list[list[Any]]:
    """The rows of a table whose rows are objects with the same keys, in the order of the first one's."""
    columns = list(rows[0])
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != rows[0].keys():
            raise Refused(400, f"data[{place}]: it has not the columns of data[0] ({', '.join(columns)[:500]})")
    return [[row[name] for name in columns] for row in rows]


def by_columns(columns: Mapping[str, Any]) -> list[list[Any]]:
    """The rows of a table given column by column."""
    lengths = {len(column) if isinstance(column, list) else None for column in columns.values()}
    if None in lengths or len(lengths) > 1:
        raise Refused(400, "inputs: expected lists of the same length, one per column")
    return [list(row) for row in zip(*columns.values(), strict=True)]


def in_order(columns: Sequence[Any], rows: list[list[Any]], wanted: Sequence[str]) -> list[list[Any]]:
    """`rows` with the columns `wanted` in that order and no others; as they are, when none is wanted or has a name."""
    if not wanted or list(columns) == list(wanted) or not any(isinstance(name, str) for name in columns):
        return rows
    places = {name: place for place, name in enumerate(columns)}
    if lacking := [name for name in wanted if name not in places]:
        raise Refused(400, f"there is no column {lacking[0]!r}; the model was trained with {', '.join(wanted)[:500]}")
    order = [places[name] for name in wanted]
    return [[row[place] for place in order] for row in rows]
