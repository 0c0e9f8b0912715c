"""Loop delay: a burst written in Python → a remote Python echo in another process → read in Python again.

`loop_delay.py CODEC RATE` prints JSON: median, p99 (ms) and count. `loop_delay.py echo PORT RATE` is the remote side.

Where it goes with 20 ms frames: half a frame until the line takes what was written, one frame at each side's grid,
part of a frame of jitter buffer each way, 5 ms for the echo to answer within the tick, and 1.25 to 5 ms for each
conversion where RATE is not the codec's.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time

import numpy

import sipwire
from sipwire.testing import tone_bytes

BURSTS = 60
LOUD = 3000  # peak above which a frame holds the burst


async def echo(port: int, rate: int) -> None:
    async with sipwire.Engine("echo").configured(local_ip="127.0.0.1", udp_port=port) as engine:
        account = await engine.add_account("sip:echo@127.0.0.1")
        account.sip.catch_all = True
        account.save()
        print("listening", flush=True)
        async for session in engine.incoming():
            session.accept(audio=True)
            await session.wait_for("SIPSessionDidStart")
            assert session.audio is not None
            async for frame in session.audio.frames(rate=rate):
                await session.audio.write(frame, rate=rate)
            return


async def measure(port: int, codec: str, rate: int) -> list[float]:
    burst = tone_bytes(1000, seconds=0.02, rate=rate, level_db=-6)
    delays: list[float] = []
    async with sipwire.Engine("measure").configured(local_ip="127.0.0.1", codecs=(codec,)) as engine:
        account = await engine.add_account("sip:measure@127.0.0.1")
        async with account.call(f"sip:echo@127.0.0.1:{port}") as session:
            assert session.audio is not None
            heard = asyncio.Queue[float]()

            async def listen() -> None:
                quiet_since = 0.0
                async for frame in session.audio.frames(rate=rate):
                    now = time.monotonic()
                    if int(numpy.abs(numpy.frombuffer(frame, "<i2").astype(int)).max()) > LOUD:
                        if now - quiet_since > 0.1:
                            heard.put_nowait(now)
                        quiet_since = now

            task = asyncio.ensure_future(listen())
            await asyncio.sleep(1)
            for _ in range(BURSTS):
                sent = time.monotonic()
                await session.audio.write(burst, rate=rate)
                delays.append((await asyncio.wait_for(heard.get(), 2)) - sent)
                await asyncio.sleep(random.uniform(0.15, 0.25))
            task.cancel()
    return sorted(1000 * delay for delay in delays)


def main() -> None:
    if sys.argv[1:2] == ["echo"]:
        asyncio.run(echo(int(sys.argv[2]), int(sys.argv[3])))
        return
    codec, rate = sys.argv[1:]
    port = random.randrange(20000, 30000) & ~1
    command = [sys.executable, __file__, "echo", str(port), rate]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        peer.stdout.readline()
        delays = asyncio.run(measure(port, codec, int(rate)))
        peer.terminate()
    figures = {"median": statistics.median(delays), "p99": delays[int(len(delays) * 0.99) - 1], "count": len(delays)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
