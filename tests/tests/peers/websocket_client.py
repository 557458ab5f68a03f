"""A WebSocket client that asks everything of the connection that RFC 6455 promises. Arguments: a URL, then the file of the
certificate authority if it is one of wss. Ends with 1 and what went wrong, or says how many messages came back."""

import asyncio
import os
import ssl
import sys

import websockets


async def main(url, authority=None):
    tls = {}
    if authority:
        tls = {"ssl": ssl.create_default_context(cafile=authority), "server_hostname": "ws.example"}

    def connect(path, **more):
        return websockets.connect(url + path, max_size=None, open_timeout=20, **tls, **more)

    count = 0
    async with connect("/", subprotocols=["chat"]) as socket:
        assert socket.subprotocol == "chat", socket.subprotocol
        for message in ["", "text", "grüße", b"", bytes(range(256)), "x" * 125, "x" * 126, "x" * 65536, os.urandom(1 << 20)]:
            await socket.send(message)
            assert await socket.recv() == message, len(message)
            count += 1
        # One message in many frames.
        parts = [os.urandom(1000) for _ in range(100)]
        await socket.send(parts)
        assert await socket.recv() == b"".join(parts)
        # Sent before anything is read back.
        many = [f"message {n}" for n in range(1000)]
        for message in many:
            await socket.send(message)
        for message in many:
            assert await socket.recv() == message
        count += 1 + len(many)
        await asyncio.wait_for(await socket.ping(b"are you there"), 10)
        # The server pings too; who does not hear them is closed.
        await asyncio.sleep(0.5)
        await asyncio.wait_for(await socket.ping(), 10)
        await socket.close(1000, "done")
    assert (socket.close_code, socket.close_reason) == (1000, "done"), (socket.close_code, socket.close_reason)

    async with connect("/close") as socket:
        try:
            await socket.recv()
            raise AssertionError("it did not close")
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "so long"), closed

    async def talk(n):
        async with connect("/greet") as socket:
            assert await socket.recv() == "welcome"
            for round in range(5):
                await socket.send(f"{n} {round}")
                assert await socket.recv() == f"{n} {round}"
        return 6

    count += sum(await asyncio.gather(*(talk(n) for n in range(100))))
    print(count)


asyncio.run(main(*sys.argv[1:]))
