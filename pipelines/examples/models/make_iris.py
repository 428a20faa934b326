"""Makes iris.skops beside this file: a logistic regression on Fisher's iris data, as scikit-learn ships it.

python pipelines/examples/models/make_iris.py        (needs scikit-learn and skops)
"""

from pathlib import Path

import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

features, species = load_iris(return_X_y=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, species)
skops.io.dump(model, Path(__file__).with_name("iris.skops"))
