"""An application of aiohttp's: what it is sent comes back in the ways in which applications answer."""

import asyncio
import hashlib
import sys

from aiohttp import web


async def told(request):
    """How the request looks from here."""
    return web.json_response(
        {
            "method": request.method,
            "host": request.host,
            "path": request.path_qs,
            "forwarded-for": request.headers.getall("X-Forwarded-For", []),
            "cookies": dict(request.cookies),
        }
    )


async def digest(request):
    """Reads an upload as it comes, and answers with what it was."""
    sha256, size = hashlib.sha256(), 0
    async for piece in request.content.iter_any():
        sha256.update(piece)
        size += len(piece)
    return web.json_response({"size": size, "sha256": sha256.hexdigest(), "chunked": "Content-Length" not in request.headers})


async def events(request):
    """Server-sent events, one after the other."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(5):
        await response.write(f"data: {number}\n\n".encode())
        await asyncio.sleep(0.05)
    await response.write_eof()
    return response


async def form(request):
    """A form with a file, as browsers send them; then a redirect with a cookie."""
    posted = await request.post()
    response = web.HTTPSeeOther(f"/told?name={posted['name']}&bytes={len(posted['file'].file.read())}")
    response.set_cookie("session", "s-1", httponly=True, samesite="Lax")
    raise response


async def broken(_request):
    """What a mistake in an application looks like."""
    raise RuntimeError("this is meant to fail")


def main():
    app = web.Application(client_max_size=64 << 20)
    app.add_routes(
        [
            web.get("/told", told),
            web.post("/digest", digest),
            web.put("/digest", digest),
            web.get("/events", events),
            web.post("/form", form),
            web.get("/broken", broken),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


main()
