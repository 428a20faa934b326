"""Loops that a user would write with confluent-kafka: the bytes passed on (the limit), and one message at a time.

usage: kafka_loops.py BROKER SOURCE SINK MODEL.joblib pass|one      at-least-once: flush, then commit
"""

import json
import sys
import uuid

import joblib
import numpy as np
from confluent_kafka import Consumer, Producer

broker, source, sink, model_path, work = sys.argv[1:]
model = joblib.load(model_path)
consumer = Consumer(
    {
        "bootstrap.servers": broker,
        "group.id": uuid.uuid4().hex,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
producer = Producer(
    {
        "bootstrap.servers": broker,
        "linger.ms": 5,
        "acks": "all",
        "enable.idempotence": True,
        "queue.buffering.max.messages": 1_000_000,
    }
)
consumer.subscribe([source])
while True:
    batch = consumer.consume(2000 if work == "pass" else 500, 0.2)
    for message in batch:
        value = message.value()
        if work == "one":
            answer = model.predict(np.asarray([json.loads(value)])).tolist()
            value = json.dumps(answer[0]).encode()
        producer.produce(sink, value, key=message.key())
    if batch:
        producer.flush()
        consumer.commit(asynchronous=False)
