"""FastStream (confluent) by its own batches. usage: faststream_batch.py BROKER SOURCE SINK MODEL.joblib"""

import asyncio
import sys
import uuid

import joblib
import numpy as np
from faststream import FastStream
from faststream.confluent import KafkaBroker

broker_url, source, sink, model_path = sys.argv[1:]
model = joblib.load(model_path)
broker = KafkaBroker(broker_url, logger=None)


@broker.subscriber(source, group_id=uuid.uuid4().hex, auto_offset_reset="earliest", batch=True, max_records=2000)
async def handle(body):
    answers = model.predict(np.array(body)).tolist()
    await broker.publish_batch(*answers, topic=sink)


asyncio.run(FastStream(broker, logger=None).run())
