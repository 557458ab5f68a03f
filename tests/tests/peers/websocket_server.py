"""A WebSocket server: sends back what it gets. At /close it closes with 4001; at /greet it speaks first."""

import asyncio
import sys

import websockets


async def serve(socket):
    if socket.path == "/close":
        await socket.close(4001, "so long")
        return
    if socket.path == "/greet":
        await socket.send("welcome")
    async for message in socket:
        await socket.send(message)


async def main(port):
    async with websockets.serve(
        serve, "127.0.0.1", port, max_size=None, subprotocols=["chat"], ping_interval=0.2
    ):
        await asyncio.Future()


asyncio.run(main(int(sys.argv[1])))
