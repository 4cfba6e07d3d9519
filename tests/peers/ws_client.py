"""Talks to ws_service.py and prints what came of it, one JSON object per line: `ws_client.py URL [deflate] [ca]`."""
import asyncio
import hashlib
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

URL, COMPRESSION = sys.argv[1], "deflate" if sys.argv[2:3] == ["deflate"] else None
TLS = ssl.create_default_context(cafile=sys.argv[3]) if len(sys.argv) > 3 else None


def open_at(path, **options):
    return connect(URL + path, compression=COMPRESSION, max_size=64 << 20, ssl=TLS, **options)


def say(**facts):
    print(json.dumps(facts, sort_keys=True), flush=True)


def brief(message):
    if len(message) <= 100:
        return message if isinstance(message, str) else message.hex()
    data = message.encode() if isinstance(message, str) else message
    return hashlib.sha256(data).hexdigest()


async def messages():
    async with open_at("/echo?room=1", subprotocols=["chat.v1", "chat.v2"]) as connection:
        for message in ["hello", "", "é and 茶", b"\x00\xff", "tea " * 30000, bytes(range(256)) * 40960]:
            await connection.send(message)
            say(case="echo", got=brief(await connection.recv()), kind=type(message).__name__)
        pong = await connection.ping(b"there?")
        await pong
        say(case="ping", subprotocol=connection.subprotocol)
        await connection.send(iter(["in ", "three ", "parts"]))
        say(case="fragments sent", got=await connection.recv())
        await connection.close(4001, "enough")
    say(case="closed by the client", code=connection.close_code, reason=connection.close_reason)


async def many():
    async with open_at("/reverse") as connection:
        async def send():
            for number in range(1000):
                await connection.send(f"message {number}")
        sending = asyncio.create_task(send())
        got = [await connection.recv() for _ in range(1000)]
        await sending
        say(case="many", right=got == [f"message {number}"[::-1] for number in range(1000)])
    async with open_at("/push") as connection:
        got = [message async for message in connection]
        say(case="pushed", right=got == [f"event {number}" for number in range(1000)], code=connection.close_code)


async def fragments():
    async with open_at("/fragments") as connection:
        await connection.send("one and two")
        parts = [part async for part in connection.recv_streaming()]
        say(case="fragments got", got="".join(parts))


async def closes():
    for code, reason in [(1000, "done"), (1011, "broken"), (4999, "as we like")]:
        async with open_at("/close") as connection:
            await connection.send(f"{code} {reason}")
            try:
                await connection.recv()
            except ConnectionClosed as closed:
                say(case="closed", code=closed.rcvd.code, reason=closed.rcvd.reason)


async def refused():
    try:
        async with open_at("/refuse"):
            say(case="refused", status=101)
    except InvalidStatus as error:
        response = error.response
        say(case="refused", status=response.status_code, body=response.body.decode())


async def main():
    await messages()
    await many()
    await fragments()
    await closes()
    await refused()


asyncio.run(main())
