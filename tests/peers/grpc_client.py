"""Calls the methods of grpc_service.py and prints what came of each as a JSON line.

usage: grpc_client.py HOST:PORT [METHOD...]
"""
import hashlib, json, sys

import grpc

target, wanted = sys.argv[1], sys.argv[2:]
# A proxy of the environment would stand in the way.
channel = grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
path = "/shop.v1.Orders/"
words = [b"one", b"two", b"three" * 20_000]


def collect(call, messages):
    return call, [bytes(message) for message in messages]


def shown(message):
    text = message.decode()
    return text if len(text) < 50 else f"{text[:20]} {len(message)} {hashlib.sha256(message).hexdigest()[:16]}"


def one(call):
    return collect(call, [call.result()])


def calls():
    yield "Unary", lambda: one(channel.unary_unary(path + "Unary").future(b"hello"))
    yield "ServerStream", lambda: many(channel.unary_stream(path + "ServerStream")(b"40"))
    yield "ClientStream", lambda: one(channel.stream_unary(path + "ClientStream").future(iter(words)))
    yield "Bidi", lambda: many(channel.stream_stream(path + "Bidi")(iter(words)))
    yield "Fail", lambda: one(channel.unary_unary(path + "Fail").future(b"order 7"))
    yield "Unimplemented", lambda: one(channel.unary_unary(path + "Nothing").future(b""))
    yield "Slow", lambda: one(channel.unary_unary(path + "Slow").future(b"30"))


def many(call):
    return collect(call, call)


for name, call in calls():
    if wanted and name not in wanted or name == "Slow" and not wanted:
        continue
    try:
        call, messages = call()
        said = {"messages": [shown(m) for m in messages]}
        status = call
    except grpc.RpcError as error:
        said, status = {"messages": []}, error
    said["code"], said["details"] = status.code().name, status.details()
    # An answer from a record names it in its head, which is the trailers where there is nothing else.
    trailing = status.trailing_metadata() or ()
    said["trailing"] = sorted((k, str(v)) for k, v in trailing if k != "qproxy-record")
    print(json.dumps({"method": name, **said}), flush=True)
