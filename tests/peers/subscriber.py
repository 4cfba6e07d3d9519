"""Reads traffic topics with paho-mqtt and msgpack, none of QProxy's code, and prints a JSON line per item.

usage: subscriber.py PORT FILTER SECONDS
Prints `subscribed` first, then the items; ends after SECONDS or when its input closes.
"""
import io, json, sys, threading
import msgpack
import paho.mqtt.client as mqtt

port, topic_filter, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
out = threading.Lock()


def say(text):
    with out:
        print(text, flush=True)


def plain(value):
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"hex": value.hex()}
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def on_connect(client, _userdata, _flags, reason, _properties):
    if reason.is_failure:
        say(f"refused {reason}")
    client.subscribe(topic_filter, qos=1)


def on_subscribe(*_):
    say("subscribed")


def on_message(_client, _userdata, message):
    for item in msgpack.Unpacker(io.BytesIO(message.payload), raw=False):
        say(json.dumps({"topic": message.topic, "item": plain(item)}))


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect("127.0.0.1", port)
client.loop_start()
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
stop.wait(seconds)
client.disconnect()
