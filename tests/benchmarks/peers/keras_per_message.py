"""What a user of Keras would write: `model.predict` for each message.

usage: keras_per_message.py train MODEL.keras                        a small LSTM autoencoder on windows of 30×3
       keras_per_message.py loop MODEL.keras BROKER SOURCE SINK      produce, flush, then commit
       keras_per_message.py calls MODEL.keras                        seconds of one call, here and in our runtime
"""

import json
import os
import statistics
import sys
import time
import uuid

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

what, path, *rest = sys.argv[1:]


def train():
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((30, 3)),
            layers.LSTM(16),
            layers.RepeatVector(30),
            layers.LSTM(16, return_sequences=True),
            layers.TimeDistributed(layers.Dense(3)),
        ]
    )
    model.compile("adam", "mae")
    windows = np.random.default_rng(0).normal(size=(256, 30, 3))
    model.fit(windows, windows, epochs=1, verbose=0)
    model.save(path)


def loop(broker, source, sink):
    from confluent_kafka import Consumer, Producer

    model = tf.keras.models.load_model(path)
    options = {"bootstrap.servers": broker, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**options, "enable.auto.commit": False})
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5, "acks": "all", "enable.idempotence": True})
    consumer.subscribe([source])
    while True:
        batch = consumer.consume(10, 0.2)
        for message in batch:
            answer = model.predict(np.asarray([json.loads(message.value())]), verbose=0)
            producer.produce(sink, json.dumps(answer[0].tolist()).encode(), key=message.key())
        if batch:
            producer.flush()
            consumer.commit(asynchronous=False)


def calls():
    from packer_lib.runtime.frameworks.tensorflow import TensorFlow

    model, ours = tf.keras.models.load_model(path), TensorFlow("keras")
    ours.load_model(path)
    window = np.random.default_rng(0).normal(size=(30, 3)).tolist()
    ways = {
        "predict": lambda: model.predict(np.asarray([window]), verbose=0).tolist(),
        "ours": lambda: ours.get_model_result([window]),
    }
    print(json.dumps({name: median(way) for name, way in ways.items()}))


def median(call):
    spans = []
    for _ in range(60):
        start = time.perf_counter()
        call()
        spans.append(time.perf_counter() - start)
    return statistics.median(spans[10:])


{"train": train, "loop": loop, "calls": calls}[what](*rest)
