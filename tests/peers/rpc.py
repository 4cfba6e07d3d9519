"""The two ends of a query, written with paho-mqtt and none of QProxy's code.

usage: rpc.py respond PORT VERSION TOPIC         answers each request with its payload in capitals; "fail" with an error
       rpc.py ask     PORT VERSION TOPIC COUNT   asks COUNT questions at once, and prints what came as one JSON object

VERSION is 3.1.1, where everything stands in the topics, or 5, where this looks at properties alone: Response Topic and
Correlation Data, and the user property query-status. Prints `ready` when its subscription is granted.
"""
import json, sys, threading
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

role, port, version, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
five = version == "5"
ready, finished = threading.Event(), threading.Event()


def publish_properties(**values):
    if not five:
        return None
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def status(message):
    """What an answer says that it is."""
    if not five:
        return message.topic.split("/")[-1]
    return dict(getattr(message.properties, "UserProperty", [])).get("query-status", "ok")


class Responder:
    filter = f"{topic}/_q/+/+"

    def on_message(self, client, _userdata, request):
        failed = request.payload == b"fail"
        answer = b"refused" if failed else request.payload.upper()
        if five:
            reply_to = request.properties.ResponseTopic
            properties = publish_properties(
                CorrelationData=request.properties.CorrelationData,
                UserProperty=("query-status", "error") if failed else None,
            )
        else:
            caller, correlation = request.topic.split("/")[-2:]
            reply_to = f"_r/{caller}/{correlation}/{'error' if failed else 'ok'}"
            properties = None
        client.publish(reply_to, answer, qos=1, properties=properties)

    def run(self, _client):
        print("ready", flush=True)
        sys.stdin.read()


class Caller:
    name = "python-caller"

    def __init__(self, count):
        self.count, self.answers = count, {}
        self.filter = "answers/for/python" if five else f"_r/{self.name}/#"

    def on_message(self, _client, _userdata, answer):
        if five:
            correlation = answer.properties.CorrelationData.decode()
        else:
            correlation = answer.topic.split("/")[2]
        self.answers[correlation] = [status(answer), answer.payload.decode()]
        if len(self.answers) == self.count:
            finished.set()

    def run(self, client):
        for number in range(self.count):
            correlation = f"c{number}"
            properties = publish_properties(
                ResponseTopic=self.filter, CorrelationData=correlation.encode()
            )
            address = f"{topic}/_q/{self.name}/{correlation}"
            client.publish(address, f"question {number}", qos=1, properties=properties)
        finished.wait(60)
        print(json.dumps(self.answers), flush=True)


end = Responder() if role == "respond" else Caller(int(sys.argv[5]))
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=f"python-{role}",
    protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
)
client.on_connect = lambda client, *_: client.subscribe(end.filter, qos=1)
client.on_subscribe = lambda *_: ready.set()
client.on_message = end.on_message
client.connect("127.0.0.1", port)
client.loop_start()
assert ready.wait(60), "not subscribed"
end.run(client)
client.disconnect()
