"""Reads the bus with paho-mqtt and holds every message against docs/asyncapi.json.

usage: asyncapi_subscriber.py PORT DOCUMENT SECONDS
Prints `subscribed` first, then a JSON line per item or message: its channel, its kind, and what the document does not
allow, if anything. A key that the document does not name counts, too. Ends after SECONDS or when its input closes.
"""
import io, json, re, sys, threading
import jsonschema
import msgpack
import paho.mqtt.client as mqtt

port, path, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
document = json.load(open(path))
out = threading.Lock()


def say(text):
    with out:
        print(text, flush=True)


def strict(schema):
    """The same, but with no keys beside those that it names."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def is_text_or_bytes(_checker, value):
    return isinstance(value, (str, bytes))


base = jsonschema.Draft202012Validator
types = base.TYPE_CHECKER.redefine("string", is_text_or_bytes)
types = types.redefine("array", lambda _checker, value: isinstance(value, (list, tuple)))
Validator = jsonschema.validators.extend(base, type_checker=types)
schemas = strict(document["components"]["schemas"])
kinds = {}


def validator(reference):
    if reference not in kinds:
        schema = {"$ref": reference, "components": {"schemas": schemas}}
        kinds[reference] = Validator(schema)
    return kinds[reference]


def pattern(address):
    levels = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(address))
    # A root and the end of a reply's topic may have more levels than one.
    return re.compile(levels.replace("[^/]+", "qproxy", 1) if address.startswith("{root}") else levels + "(/.*)?")


def resolved(reference):
    found = document
    for step in reference["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


channels = [
    (name, pattern(channel["address"]), [resolved(m) for m in channel["messages"].values()])
    for name, channel in document["channels"].items()
]


def report(channel, kind, problem):
    say(json.dumps({"channel": channel, "kind": kind, "problem": problem}))


def fault(reference, value):
    if isinstance(value, dict) and reference.endswith("/Item"):
        kind = "Sealed" if value.get("v") == 2 else str(value.get("kind")).capitalize()
        reference = reference.replace("/Item", "/" + kind)
    error = jsonschema.exceptions.best_match(validator(reference).iter_errors(value))
    return f"{reference} at {list(error.absolute_path)}: {error.message[:300]}" if error else None


def on_message(_client, _userdata, message):
    for name, address, forms in channels:
        if not address.fullmatch(message.topic):
            continue
        if forms[0]["contentType"] == "application/vnd.msgpack":
            for item in msgpack.Unpacker(io.BytesIO(message.payload), raw=False):
                kind = "sealed" if item.get("v") == 2 else item["kind"]
                report(name, kind, fault(forms[0]["payload"]["$ref"], item))
            return
        known = [form for form in forms if form["payload"]]
        if len(known) < len(forms):
            return report(name, "any", None)
        value = json.loads(message.payload)
        faults = [fault(form["payload"]["$ref"], value) for form in known]
        fits = [form["name"] for form, found in zip(known, faults) if found is None]
        return report(name, fits[0] if fits else "?", None if fits else "; ".join(faults))
    report(message.topic, "?", "no channel has this topic")


def on_connect(client, *_):
    client.subscribe([("qproxy/#", 1), ("_r/#", 1)])


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_connect, client.on_message = on_connect, on_message
client.on_subscribe = lambda *_: say("subscribed")
client.connect("127.0.0.1", port)
client.loop_start()
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
stop.wait(seconds)
client.disconnect()
