"""Quix Streams on the same work. usage: quix.py BROKER SOURCE SINK MODEL.joblib pass|predict"""

import sys
import uuid

import joblib
import numpy as np
from quixstreams import Application

broker, source, sink, model_path, work = sys.argv[1:]
model = joblib.load(model_path)


def answer(value):
    return value if work == "pass" else model.predict(np.asarray([value])).tolist()[0]


app = Application(
    broker, consumer_group=uuid.uuid4().hex, auto_offset_reset="earliest", loglevel="ERROR", commit_every=2000
)
stream = app.dataframe(app.topic(source, value_deserializer="json"))
stream.apply(answer).to_topic(app.topic(sink, value_serializer="json"))
app.run()
