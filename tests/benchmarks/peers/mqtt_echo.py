"""The bare loop of paho: every message is sent on as it came. usage: mqtt_echo.py HOST PORT SOURCE SINK"""

import sys

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

host, port, source, sink = sys.argv[1:]
client = Client(CallbackAPIVersion.VERSION2, f"echo-{source[-8:]}", protocol=MQTTProtocolVersion.MQTTv5)
client.max_queued_messages_set(0)
client.on_message = lambda client, _data, message: client.publish(sink, message.payload, qos=1)
client.on_connect = lambda client, *_: client.subscribe(source, 1)
properties = Properties(PacketTypes.CONNECT)
properties.SessionExpiryInterval = 3600
client.connect(host, int(port), clean_start=False, properties=properties)
client.loop_forever()
