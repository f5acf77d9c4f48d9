"""Links between real sockets of this machine, with a bandwidth each way and a latency of their own.

    python links.py PORT RATES

RATES is JSON: for each link [down_bytes_per_s, up_bytes_per_s, latency_s]. The first line of the
answer is JSON, too: the port of each link, whose other end is PORT. A byte that is handed in leaves
when those before it have left, at the link's rate, and arrives a latency later.
"""

import asyncio
import contextlib
import json
import sys

CHUNK = 8_192
AHEAD_S = 0.2
"""How far the link reads ahead, so that a late wake-up of this process costs no bandwidth."""


async def carry(reader, writer, bytes_per_s, latency_s):
    """Carry bytes one way until either end is closed."""
    clock = asyncio.get_running_loop().time
    on_the_way = asyncio.Queue()

    async def deliver():
        while True:
            arrives_s, chunk = await on_the_way.get()
            await asyncio.sleep(arrives_s - clock())
            writer.write(chunk)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    left_s = clock()
    try:
        while chunk := await reader.read(CHUNK):
            left_s = max(left_s, clock()) + len(chunk) / bytes_per_s
            on_the_way.put_nowait((left_s + latency_s, chunk))
            await asyncio.sleep(left_s - clock() - AHEAD_S)
    finally:
        # Whoever hangs up loses what is on its way.
        delivering.cancel()


async def link(near, near_writer, port, down_bytes_per_s, up_bytes_per_s, latency_s):
    """Join one connection of a client to one of the server's until either hangs up."""
    far, far_writer = await asyncio.open_connection("127.0.0.1", port)
    ways = [
        asyncio.create_task(carry(near, far_writer, up_bytes_per_s, latency_s)),
        asyncio.create_task(carry(far, near_writer, down_bytes_per_s, latency_s)),
    ]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way, writer in zip(ways, (near_writer, far_writer), strict=True):
        way.cancel()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await way
        writer.transport.abort()


async def main(port, rates):
    """Open a port for each link, and carry until this process is ended."""

    def joined(one):
        async def accept(reader, writer):
            with contextlib.suppress(OSError):
                await link(reader, writer, port, *one)

        return accept

    servers = [await asyncio.start_server(joined(one), "127.0.0.1", 0) for one in rates]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps(ports), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
