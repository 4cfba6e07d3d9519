"""An MQTT 5 client that is none of ours (paho-mqtt), against the broker on the port given. Prints one line per check
and stops at the first that fails."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 20


class Peer:
    def __init__(self, port, client_id, expiry=0, clean=True, will=None, **announced):
        self.events = {name: queue.Queue() for name in ("connect", "message", "publish", "subscribe", "disconnect")}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self.client.on_connect = lambda c, u, flags, reason, props: self.put("connect", (flags, reason, props))
        self.client.on_message = lambda c, u, message: self.put("message", message)
        self.client.on_publish = lambda c, u, mid, reason, props: self.put("publish", reason)
        self.client.on_subscribe = lambda c, u, mid, reasons, props: self.put("subscribe", reasons)
        self.client.on_disconnect = lambda c, u, flags, reason, props: self.put("disconnect", reason)
        if will:
            self.client.will_set(*will[:3], properties=will[3])
        props = Properties(PacketTypes.CONNECT)
        props.SessionExpiryInterval = expiry
        for name, value in announced.items():
            setattr(props, name, value)
        self.client.connect("127.0.0.1", port, clean_start=clean, properties=props)
        self.client.loop_start()
        self.flags, self.reason, self.told = self.next("connect")

    def put(self, name, event):
        self.events[name].put(event)

    def next(self, name):
        return self.events[name].get(timeout=PATIENCE)

    def subscribe(self, *filters, number=None):
        props = Properties(PacketTypes.SUBSCRIBE)
        if number:
            props.SubscriptionIdentifier = number
        self.client.subscribe(list(filters), properties=props)
        return [reason.value for reason in self.next("subscribe")]

    def publish(self, topic, payload, qos=1, retain=False, **said):
        props = Properties(PacketTypes.PUBLISH)
        for name, value in said.items():
            setattr(props, name, value)
        self.client.publish(topic, payload, qos, retain, properties=props)
        return self.next("publish").value

    def close(self):
        self.client.disconnect()
        self.next("disconnect")
        self.client.loop_stop()


def check(name, seen, expected):
    if seen != expected:
        sys.exit(f"{name}: {seen!r} and not {expected!r}")
    print(name)


def main(port):
    watcher = Peer(port, "watcher", TopicAliasMaximum=10, ReceiveMaximum=1)
    check("limits are told", watcher.told.MaximumPacketSize, 1024 * 1024)
    check("one filter", watcher.subscribe(("shop/#", SubscribeOptions(qos=2)), number=7), [2])
    check("another", watcher.subscribe(("shop/+", SubscribeOptions(qos=1)), number=9), [1])

    sender = Peer(port, "")
    check("a client id is assigned", sender.told.AssignedClientIdentifier.startswith("auto-"), True)
    check("somebody listens", sender.publish(
        "shop/é", b"hello", PayloadFormatIndicator=1, MessageExpiryInterval=60, ContentType="text/plain",
        ResponseTopic="answers/1", CorrelationData=b"\x00\xff", UserProperty=[("b", "1"), ("a", "2"), ("b", "1")]), 0)
    message = watcher.next("message")
    said = message.properties
    check("topic and payload", (message.topic, message.payload), ("shop/é", b"hello"))
    check("identifiers", sorted(said.SubscriptionIdentifier), [7, 9])
    check("user properties in order", said.UserProperty, [("b", "1"), ("a", "2"), ("b", "1")])
    check("request", (said.ResponseTopic, said.CorrelationData), ("answers/1", b"\x00\xff"))
    check("what it is", (said.ContentType, said.PayloadFormatIndicator), ("text/plain", 1))
    check("expiry", 50 <= said.MessageExpiryInterval <= 60, True)
    check("nobody listens", sender.publish("nowhere", b"x"), 0x10)
    check("not allowed", sender.publish("$SYS/x", b"x"), 0x87)

    for number in range(20):
        sender.publish("shop/many", str(number).encode(), qos=number % 3)
    # Of one QoS, that is (4.6): paho hands on a message of QoS 2 at its PUBREL, and a later one of QoS 0 may come before that.
    came = [int(watcher.next("message").payload) for _ in range(20)]
    for qos in range(3):
        check(f"all of QoS {qos} come in order", [number for number in came if number % 3 == qos], list(range(qos, 20, 3)))

    shy = Peer(port, "shy")
    shy.subscribe(("own", SubscribeOptions(qos=1, noLocal=True)), ("$share/g/x", SubscribeOptions(qos=1)))
    check("own messages are not heard", shy.publish("own", b"1"), 0x10)
    shy.publish("x", b"2")
    check("shared ones are", shy.next("message").payload, b"2")

    sender.publish("kept", b"1", retain=True)
    for handling, expected in ((2, []), (0, [True])):
        options = SubscribeOptions(qos=1, retainHandling=handling, retainAsPublished=True)
        check("subscribed", shy.subscribe(("kept", options)), [1])
        check("retain handling", [shy.next("message").retain for _ in expected], expected)

    delay = Properties(PacketTypes.WILLMESSAGE)
    delay.WillDelayInterval = 0
    delay.ContentType = "will"
    dying = Peer(port, "dying", expiry=600, will=("shop/will", b"gone", 1, delay))
    check("subscribed for later", dying.subscribe(("later", SubscribeOptions(qos=1))), [1])
    successor = Peer(port, "dying", expiry=600, clean=False)
    check("taken over", dying.next("disconnect").value, 0x8E)
    dying.client.loop_stop()
    check("the will has its properties", watcher.next("message").properties.ContentType, "will")
    check("session present", successor.flags.session_present, True)
    successor.close()
    sender.publish("later", b"3")
    successor = Peer(port, "dying", expiry=600, clean=False)
    check("kept for later", successor.next("message").payload, b"3")

    for peer in (watcher, sender, shy, successor):
        peer.close()
    print("done")


main(int(sys.argv[1]))
