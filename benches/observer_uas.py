"""Answers every call from a Python observer: `observer_uas.py PORT`; ended by SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading

from sipwire import Account, Engine, SessionManager
from sipwire.notification import Notification, NotificationCenter


class Answerer:
    def handle_notification(self, notification: Notification) -> None:
        if notification.name == "SIPSessionNewIncoming":
            notification.sender.accept(audio=True)


def main() -> None:
    host, port = "127.0.0.1", int(sys.argv[1])
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    engine = Engine()
    engine.start(
        local_ip=host,
        udp_port=port,
        tcp_port=None,
        max_sessions=60_000,
        invite_rate=20_000,
        invite_rate_per_source=20_000,
    )
    SessionManager()
    account = Account(f"bench@{host}")
    account.sip.catch_all = True
    account.save()
    NotificationCenter().add_observer(Answerer(), name="SIPSessionNewIncoming")
    print("listening", flush=True)
    done.wait()
    engine.stop()


if __name__ == "__main__":
    main()
