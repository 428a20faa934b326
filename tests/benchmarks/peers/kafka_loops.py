"""Loops that a user would write with confluent-kafka: the bytes passed on (the limit), and one message at a time.

usage: kafka_loops.py BROKER SOURCE SINK MODEL.joblib pass|one|poll      at-least-once: flush, then commit;
`one` after up to 500 messages, `poll` after each, for whom latency counts
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
    batch = consumer.consume({"pass": 2000, "one": 500, "poll": 1}[work], 0.2)
    for message in batch:
        value = message.value()
        if work != "pass":
            answer = model.predict(np.asarray([json.loads(value)])).tolist()
            value = json.dumps(answer[0]).encode()
        producer.produce(sink, value, key=message.key())
    if batch:
        producer.flush()
        consumer.commit(asynchronous=False)
