"""What the benchmarks share: the model, the peers' own environments, the recorded figures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from uv import find_uv_bin

from tests.support import ROOT

PEERS = Path(__file__).parent / "peers"
FIGURES = ROOT / "docs" / "benchmarks"


def train(folder: Path) -> tuple[Path, list[float]]:
    """The benchmark model (scaler and logistic regression on 569 breast-cancer rows of scikit-learn) and one row."""
    import joblib
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder.mkdir(parents=True, exist_ok=True)
    features, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(features, labels)
    joblib.dump(model, folder / "model.joblib")
    return folder / "model.joblib", features[0].tolist()


def own_environment(folder: Path, name: str, *requirements: str) -> str:
    """The python of a virtual environment that holds `requirements` and nothing of ours; made once in `folder`."""
    place = folder / "peers" / name
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        print(f"[bench] installing {name} …", flush=True)
        subprocess.run([find_uv_bin(), "venv", "--quiet", "--clear", place], check=True)
        subprocess.run([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *requirements], check=True)
        (place / "ready").touch()
    return str(python)


def record(name: str, figures: dict[str, object]) -> None:
    """Writes `docs/benchmarks/<name>.json`."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
