"""Models that can be told apart by their answers, and the state folder of a unit as a deployer writes it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy
from sklearn.linear_model import LinearRegression

from tests.support import wait_for

APART = 1_000_000


def line(number: int, features: int = 1, outputs: int = 0) -> LinearRegression:
    """Answers `[n]` with `n + number * APART`; with `outputs` a list of as many."""
    model = LinearRegression()
    model.coef_ = numpy.ones((outputs, features) if outputs else features)
    model.intercept_, model.n_features_in_ = float(number * APART), features
    return model


class Slow:
    """Takes `seconds` to load, and is then what is in `file`."""

    def __init__(self, file: Path, seconds: float) -> None:
        self.text = f"(__import__('time').sleep({seconds}), __import__('joblib').load({str(file)!r}))[1]"

    def __reduce__(self) -> Any:
        return eval, (self.text,)


class Deadly:
    """Ends the process that loads it."""

    def __reduce__(self) -> Any:
        return eval, ("__import__('os')._exit(9)",)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Deployer:
    """Writes what is wanted of the step `model` into the state folder `state`."""

    def __init__(self, state: Path, scratch: Path) -> None:
        self.state, self.scratch = state, scratch
        self.count = 0

    def stage(self, model: Any, sha256: str = "", cut: int = 0) -> dict[str, str]:
        """The entry of `wanted.json` for `model`, or for a file; `cut` leaves only its first bytes, `sha256` lies."""
        file = self.scratch / "new.joblib"
        self.scratch.mkdir(parents=True, exist_ok=True)
        joblib.dump(model, file)
        if cut:
            file.write_bytes(file.read_bytes()[:cut])
        found = sha256 or digest(file)
        path = f"models/model/{found}/model.joblib"
        (self.state / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, self.state / path)
        return {"path": path, "sha256": found, "serializer": "joblib"}

    def want(self, model: dict[str, str] | None, **others: Any) -> str:
        """The id of the wish; `None`: the bundle's own."""
        self.count += 1
        wish = f"wish-{self.count}"
        models = {**({"model": model} if model else {}), **others}
        new = self.state / "wanted.new"
        self.state.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps({"id": wish, "models": models}))
        new.replace(self.state / "wanted.json")
        return wish

    def answer(self, wish: str, seconds: float = 30, replica: int = 0) -> dict[str, Any]:
        """What the unit says to it."""
        file = self.state / f"swapped.{replica}.json"

        def told() -> dict[str, Any] | None:
            found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
            return found if found.get("id") == wish and found["state"] != "ready" else None

        return wait_for(told, seconds, f"an answer to {wish}", every=0.01)

    def swap(self, model: Any, **how: Any) -> dict[str, Any]:
        return self.answer(self.want(self.stage(model, **how)))
