"""A WebSocket service by the library `websockets`: `ws_service.py [deflate|changed] [cert key]`. What it does depends on the path:

/echo answers each message with itself; /reverse sends text back turned around; /fragments sends a message in fragments
with a ping between; /close closes with the code and reason asked for; /refuse answers 403; /push sends a thousand. `changed` makes /echo do what
/reverse does, and /push leave after the first.
"""
import asyncio
import http
import ssl
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def reverse(connection):
    async for message in connection:
        await connection.send(message[::-1])


async def fragments(connection):
    async for message in connection:
        half = len(message) // 2

        async def parts():
            yield message[:half]
            await (await connection.ping(b"between"))
            yield message[half:]

        await connection.send(parts())


async def close(connection):
    code, reason = (await connection.recv()).split(" ", 1)
    await connection.close(int(code), reason)


async def push(connection):
    for number in range(1000):
        await connection.send(f"event {number}")


async def leave(connection):
    await connection.send("event 0")
    await connection.close(1012, "later")


async def hold(connection):
    await connection.send("holding")
    await connection.wait_closed()


async def abort(connection):
    await connection.recv()
    connection.transport.abort()


PATHS = {"/echo": echo, "/reverse": reverse, "/fragments": fragments, "/close": close, "/push": push,
         "/hold": hold, "/abort": abort}


if sys.argv[1:2] == ["changed"]:
    PATHS["/echo"] = reverse
    PATHS["/push"] = leave


async def handler(connection):
    await PATHS[connection.request.path.split("?")[0]](connection)


def check(connection, request):
    if request.path == "/refuse":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
    return None


def choose(_connection, offered):
    return "chat.v2" if "chat.v2" in offered else None


async def main():
    arguments = sys.argv[1:]
    compression = "deflate" if arguments[:1] == ["deflate"] else None
    tls = None
    if len(arguments) >= 3:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*arguments[1:3])
    async with serve(handler, "127.0.0.1", 0, compression=compression, process_request=check, select_subprotocol=choose,
                     max_size=64 << 20, ssl=tls) as server:
        print("serving on", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
