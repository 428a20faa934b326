"""The benchmark's model, trained by the scikit-learn of who runs this: writes model.joblib, one.json and v2.json."""

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

features, labels = load_breast_cancer(return_X_y=True)
joblib.dump(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(features, labels), "model.joblib")
row = features[0].tolist()
tensor = {"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}  # Open Inference Protocol, version 2
for name, body in (("one.json", {"data": [row]}), ("v2.json", {"inputs": [tensor]})):
    Path(name).write_text(json.dumps(body))
