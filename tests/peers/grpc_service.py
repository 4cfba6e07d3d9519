"""A gRPC service on a free port, of grpcio and raw bytes: one method of each kind, and one that fails.

usage: grpc_service.py
Prints `serving on PORT`; ends when its input closes.
"""
import sys
from concurrent import futures

import grpc


def unary(request, context):
    context.set_trailing_metadata((("x-seen", str(len(request))),))
    return request.upper()


def server_stream(request, context):
    for number in range(int(request)):
        yield f"part {number}".encode() * 100
    context.set_trailing_metadata((("x-parts", request.decode()),))


def client_stream(requests, context):
    return b"+".join(requests)


def bidi(requests, context):
    for request in requests:
        yield b"<" + request + b">"


def fail(request, context):
    context.set_trailing_metadata((("x-why", "test"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such order: 100% gone, \u00e9")


def slow(request, context):
    import time

    time.sleep(float(request))
    return b"late"


handler = grpc.method_handlers_generic_handler(
    "shop.v1.Orders",
    {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
    },
)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((handler,))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"serving on {port}", flush=True)
sys.stdin.read()
server.stop(None)
