"""Spacing of the packets of a program whose Python is hostile to timing, measured by a socket in another process.

Eight threads spin in pure Python and an observer sleeps 0.5 s in every handler while a wav is played. Prints JSON: p50,
p99, max (ms) and count. `spacing.py caller PORT` is the measured program; a plain UDP socket is the peer, so that only
the sender's timing shows.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time

SECONDS = 12


def caller(port: int) -> None:
    import sipwire
    from sipwire.notification import NotificationCenter

    class Sleeper:
        def handle_notification(self, _: object) -> None:
            time.sleep(0.5)

    def spin() -> None:
        while True:
            sum(range(1000))

    engine = sipwire.Engine()
    engine.start(local_ip="127.0.0.1", codecs=("PCMU",))
    NotificationCenter().add_observer(Sleeper())
    for _ in range(8):
        threading.Thread(target=spin, daemon=True).start()
    account = sipwire.Account("sip:caller@127.0.0.1")
    session = sipwire.Session(account)
    session.connect(sipwire.SIPURI(f"sip:peer@127.0.0.1:{port}"), [sipwire.Route("127.0.0.1", port)], audio=True)
    time.sleep(SECONDS + 2)
    engine.stop()


def answer(sip: socket.socket, rtp_port: int) -> None:
    """Takes the INVITE with the least a UAS can say; BYE and the rest are answered 200."""
    while True:
        data, source = sip.recvfrom(65535)
        text = data.decode()
        if text.startswith(("ACK", "SIP/2.0")):
            continue
        copied = [line for line in text.split("\r\n") if line.split(":")[0] in ("Via", "From", "Call-ID", "CSeq")]
        to = next(line for line in text.split("\r\n") if line.startswith("To:"))
        copied.append(to if ";tag=" in to else to + ";tag=peer")
        body = ""
        if text.startswith("INVITE"):
            body = (
                "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                f"m=audio {rtp_port} RTP/AVP 0\r\n"
            )
            port = sip.getsockname()[1]
            copied += [f"Contact: <sip:peer@127.0.0.1:{port}>", "Content-Type: application/sdp"]
        head = ["SIP/2.0 200 OK", *copied, f"Content-Length: {len(body)}"]
        sip.sendto(("\r\n".join(head) + "\r\n\r\n" + body).encode(), source)


def main() -> None:
    if sys.argv[1:2] == ["caller"]:
        caller(int(sys.argv[2]))
        return
    udp = socket.AF_INET, socket.SOCK_DGRAM
    with socket.socket(*udp) as sip, socket.socket(*udp) as rtp:
        sip.bind(("127.0.0.1", 0))
        rtp.bind(("127.0.0.1", 0))
        rtp.settimeout(15)
        rtp.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS: the kernel says when a packet came
        threading.Thread(target=answer, args=(sip, rtp.getsockname()[1]), daemon=True).start()
        with subprocess.Popen([sys.executable, __file__, "caller", str(sip.getsockname()[1])]) as program:
            times: list[float] = []
            while len(times) < SECONDS * 50:
                _, ancillary, _, _ = rtp.recvmsg(2048, 128)
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
                times.append(seconds + nanoseconds / 1e9)
            program.kill()
    gaps = sorted(1000 * (b - a) for a, b in itertools.pairwise(times))
    figures = {"p50": gaps[len(gaps) // 2], "p99": gaps[int(len(gaps) * 0.99)], "max": gaps[-1], "count": len(gaps)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
