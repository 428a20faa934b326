"""What of Acumos' routes changes a unit: on its admin port, all of it or nothing, and for good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from packer_lib.runtime.contract import MODEL
from packer_lib.runtime.modelrunner.schema import DEFAULT
from tests.runtime.administering import TOKEN, Unit, administered, bundle, safe
from tests.runtime.handmade import Reply, code_step, model_step, write_bundle
from tests.runtime.swapping import APART, line
from tests.runtime.test_modelrunner import csv, form, made, post, refused, send, texts

pytestmark = pytest.mark.slow

RENAMED = DEFAULT.replace("predict", "guess")
OTHER = DEFAULT.replace("repeated double y = 1", "repeated double y = 7")
GOOD = "# of the model\nmodelClassName=org.acumos.Model\nmodelMethod: predict\nmodelInputType=CSV\n"
FILE = {"model": "application/zip", "modelConfig": "text/plain"}


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    bundle(tmp_path)
    with administered(tmp_path) as started:
        yield started


def ask(unit: Unit, path: str, method: str, **parts: str | bytes) -> Reply:
    """On the admin port."""
    there = replace(unit.service, url=f"http://127.0.0.1:{unit.port}")
    return send(there, path, form(parts, **FILE), method, authorization=f"Bearer {TOKEN}")


def put(unit: Unit, path: str, **parts: str | bytes) -> Reply:
    return ask(unit, path, "PUT", **parts)


def predicted(unit: Unit, operation: str = "predict", text: str = DEFAULT) -> list[Any]:
    """By `/transformCSVDefault` for the row `[1]`."""
    found = post(unit.service, "/transformCSVDefault", csvFile="x\n1", operation=operation)
    return texts(found, text, operation, "y")


def ok(reply: Reply) -> None:
    assert (reply.status, reply.json) == (200, {"status": "ok"}), reply.body


class TestPut:
    @pytest.mark.parametrize("prefix", ["", "/modelrunner"])
    def test_each_part_by_itself(self, unit: Unit, prefix: str) -> None:
        ok(put(unit, f"{prefix}/model", model=safe(line(1))))
        assert predicted(unit) == [1 + APART]
        ok(put(unit, f"{prefix}/proto", proto=RENAMED))
        assert predicted(unit, "guess", RENAMED) == [1 + APART]
        ok(put(unit, f"{prefix}/model/configuration", modelConfig=GOOD))
        refused(unit.admin(f"{prefix}/proto"), 405, "/proto takes PUT, got GET")
        kind = "application/x-protobuf"
        refused(unit.service.ask("/model/methods/predict", b"", content_type=kind), 404, "only guess")

    def test_what_cannot_be_used_changes_nothing(self, unit: Unit) -> None:
        for path, parts, status, said in [
            ("/proto", {"proto": ""}, 400, "'proto' is empty, and nothing has changed"),
            ("/proto", {"proto": RENAMED + "?"}, 400, "this belongs to no schema"),
            ("/proto", {"proto": 'syntax = "proto3"; import "x";'}, 400, "import is not supported"),
            ("/proto", {"proto": b"\xff"}, 400, "nothing has changed"),
            ("/proto", {"model": "x"}, 400, "a part 'model'"),
            ("/proto", {}, 400, "no part 'proto'"),
            ("/model/configuration", {"modelConfig": "modelInputType=XML"}, 400, "modelInputType is CSV or JSON"),
            ("/model/configuration", {"modelConfig": "# only this"}, 400, "there is none of"),
            ("/model", {"model": ""}, 400, "'model' is empty"),
            ("/model", {"model": "x"}, 422, "none of the formats"),
            ("/model", {"proto": DEFAULT}, 400, "no part 'model'"),
            ("/model", {"model": safe(line(1)), "proto": "?"}, 400, "proto: 1:1"),
            (
                "/model",
                {"model": safe(line(1)), "proto": RENAMED, "modelConfig": "x=y"},
                400,
                "modelConfig: 1: expected",
            ),
            ("/model", {"model": safe(line(1))[:-9], "proto": RENAMED, "modelConfig": GOOD}, 422, "damaged"),
            ("/model", {"model": safe(line(1, features=2)), "proto": RENAMED}, 422, "expected (2,), got (1,)"),
            (f"/model?sha256={'0' * 64}", {"model": safe(line(1)), "proto": RENAMED}, 422, "the sha256 of what came"),
            ("/model?step=other", {"model": safe(line(1))}, 404, "no model step 'other', only model"),
        ]:
            assert predicted(unit) == [1]
            refused(put(unit, path, **parts), status, said)
            assert unit.files() == []
            assert not (unit.state / "modelrunner.json").exists()
        assert (predicted(unit), unit.said()) == ([1], 1)

    def test_it_outlives_the_process_and_all_workers_have_it(self, unit: Unit, tmp_path: Path) -> None:
        ok(put(unit, "/model", model=safe(line(1)), proto=RENAMED, modelConfig=GOOD))
        assert predicted(unit, "guess", RENAMED) == [1 + APART]
        unit.service.stop()
        with administered(tmp_path, MLPACKER_WORKERS="2") as again, ThreadPoolExecutor(6) as clients:
            answers = clients.map(lambda _: predicted(again, "guess", RENAMED), range(18))
            assert {number for numbers in answers for number in numbers} == {1 + APART}

    def test_a_schema_goes_back_with_its_model(self, unit: Unit) -> None:
        ok(put(unit, "/model", model=safe(line(1)), proto=RENAMED))
        assert unit.put(safe(line(2))).status == 200  # another way, without a schema of its own
        assert predicted(unit) == [1 + 2 * APART]
        ok(put(unit, "/model", model=safe(line(1))))
        assert predicted(unit) == [1 + APART]

    def test_requests_meanwhile_see_one_model_with_its_own_schema(self, unit: Unit) -> None:
        """Field 1 holds what models of even numbers answer, field 7 what the others do."""
        stop, mixed, seen = Event(), [], set()

        def users() -> None:
            while not stop.is_set():
                reply = post(unit.service, "/transformCSVDefault", csvFile="x\n1", operation="predict")
                odd = list(made(OTHER)[1].FromString(reply.body).y)
                number = int((odd or list(made(DEFAULT)[1].FromString(reply.body).y))[0]) // APART
                seen.add(number)
                if reply.status != 200 or bool(odd) != bool(number % 2):
                    mixed.append((reply.status, number, odd))

        with ThreadPoolExecutor(3) as clients:
            asking = [clients.submit(users) for _ in range(3)]
            try:
                for number in range(1, 7):
                    ok(put(unit, "/model", model=safe(line(number)), proto=(DEFAULT, OTHER)[number % 2]))
                    time.sleep(0.2)
            finally:
                stop.set()
            for each in asking:
                each.result()
        assert not mixed, mixed[:5]
        assert seen == set(range(7))


class TestTransform:
    def test_a_model_of_ones_own_answers_in_isolation(self, unit: Unit) -> None:
        parts = {"csvFile": csv([[1], [2]], "x"), "model": safe(line(5)), "proto": RENAMED, "operation": "guess"}
        refused(send(unit.service, "/transformCSV", form(parts)), 422, "on the admin port (MLPACKER_ADMIN_PORT")
        reply = ask(unit, "/transformCSV", "POST", **parts)
        assert texts(reply, RENAMED, "guess", "y") == [1 + 5 * APART, 2 + 5 * APART]
        assert reply.headers["x-model-version"].startswith("model=")
        assert (predicted(unit), unit.said(), unit.files()) == ([1], 1, [])
        json = {"jsonFile": '{"rows": [{"x": [1]}]}', "model": safe(line(6)), "proto": "", "operation": "predict"}
        assert texts(ask(unit, "/modelrunner/transformJSON", "POST", **json), field="y") == [1 + 6 * APART]
        assert unit.said() == 1

    def test_and_for_everybody_when_it_is_promoted(self, unit: Unit) -> None:
        parts = {"csvFile": csv([[1]], "x"), "model": safe(line(5)), "proto": RENAMED, "operation": "guess"}
        reply = ask(unit, "/transformCSV?promote=true", "POST", **parts)
        assert texts(reply, RENAMED, "guess", "y") == [1 + 5 * APART]
        assert predicted(unit, "guess", RENAMED) == [1 + 5 * APART]
        version = reply.headers["x-model-version"]
        assert unit.service.predict([[1]]).headers[MODEL] == version

    def test_what_cannot_be_used_is_not(self, unit: Unit) -> None:
        good = {"csvFile": csv([[1]], "x"), "model": safe(line(5)), "proto": "", "operation": "predict"}
        for parts, status, said in [
            ({**good, "model": ""}, 400, "ask on the public port"),
            ({**good, "model": b"\x80\x04."}, 422, "can run code of its author"),
            ({**good, "model": safe(line(5))[:-9]}, 422, "damaged"),
            ({**good, "proto": "?"}, 422, "proto: 1:1"),
            ({**good, "operation": "no"}, 422, "no operation 'no'"),
            ({**good, "model": safe(line(5, features=2))}, 422, "expected (2,), got (1,)"),
        ]:
            refused(ask(unit, "/transformCSV?promote=true", "POST", **parts), status, said)
        assert (unit.said(), unit.files()) == (1, [])

    def test_one_of_several_steps_is_staged_instead(self, tmp_path: Path) -> None:
        first = code_step(tmp_path, "double", "def handler(value):\n    return [2 * value[0]]", outputs=("model",))
        write_bundle(tmp_path, first, model_step(tmp_path, line(0), inputs=("double",)))
        with administered(tmp_path) as unit:
            parts = {"csvFile": csv([[1]], "x"), "model": safe(line(5)), "proto": "", "operation": "predict"}
            refused(ask(unit, "/transformCSV", "POST", **parts), 422, "stage it")
            ok(put(unit, "/model", model=safe(line(5))))
            assert unit.said() == 2 + 5 * APART
