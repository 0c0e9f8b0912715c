"""Notifications a second from the engine's own queue, through the dispatcher, to one Python observer.

A call between two engines is set up; then the core posts digits of it as fast as it can while the observer counts them.
Prints JSON: per_second (the best of the rounds: what the machine's other work slows is not the engine) and count.
"""

from __future__ import annotations

import json
import threading
import time

from sipwire import Account, Engine, Route, Session, SessionManager
from sipwire.notification import Notification, NotificationCenter

ROUNDS, COUNT = 5, 300_000


class Counter:
    """Counts the digits and looks at each."""

    def __init__(self) -> None:
        self.count = 0
        self.full = threading.Event()

    def handle_notification(self, notification: Notification) -> None:
        if notification.data.digit == "5":
            self.count += 1
            if self.count % COUNT == 0:
                self.full.set()


def main() -> None:
    callee, caller = Engine("callee"), Engine("caller")
    for engine in (callee, caller):
        engine.start(local_ip="127.0.0.1")
    SessionManager()
    Account("bob@127.0.0.1", engine=callee)
    session = Session(Account("alice@127.0.0.1", engine=caller))
    center, counter, started = NotificationCenter(), Counter(), threading.Event()
    center.add_observer(lambda notification: notification.sender.accept(audio=True), "SIPSessionNewIncoming")
    center.add_observer(lambda _: started.set(), "SIPSessionDidStart", session)
    center.add_observer(counter, "SIPSessionGotDTMF", session)
    session.connect(callee.sip_uri("bob"), [Route(*callee.addresses["udp"])], audio=True)
    assert started.wait(10)
    core, number = session._core, session._number
    assert core is not None
    assert number is not None
    rates = []
    for number_of_rounds in range(1, ROUNDS + 1):
        counter.full.clear()
        began = time.perf_counter()
        assert core._flood(number, COUNT) == COUNT
        assert counter.full.wait(60), f"{counter.count} of {COUNT * number_of_rounds} arrived"
        rates.append(COUNT / (time.perf_counter() - began))
    for engine in (caller, callee):
        engine.stop()
    print(json.dumps({"per_second": max(rates), "count": counter.count}))


if __name__ == "__main__":
    main()
