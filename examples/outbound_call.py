"""One outbound call with an observer: the example of the Middleware API, for Python 3.

    python examples/outbound_call.py sip:bob@192.0.2.7

Calls, prints what happens, and hangs up when Enter is pressed (or after SECONDS, as a second argument) or the other
side does.
"""

import sys
from threading import Event

from sipwire.account import AccountManager
from sipwire.configuration import ConfigurationManager
from sipwire.core import SIPURI, EngineError, Route
from sipwire.engine import Engine
from sipwire.notification import IObserver, NotificationCenter
from sipwire.session import Session


class SimpleCallApplication(IObserver):
    def __init__(self, callee, seconds=None):
        self.callee = callee
        self.seconds = seconds
        self.ended = Event()
        self.session = None
        self.code = 0

    def start(self):
        NotificationCenter().add_observer(self, sender=Engine())
        ConfigurationManager().start()
        AccountManager().start()
        Engine().start_cfg()  # returns when the engine runs; raises EngineError otherwise
        self.session = Session(AccountManager().default_account)
        # Listening before the first packet leaves.
        NotificationCenter().add_observer(self, sender=self.session)
        self.session.connect(self.callee, [Route.for_uri(self.callee)], audio=True)

    def run(self):
        if self.seconds is not None:
            self.ended.wait(self.seconds)
        else:
            print("Press Enter to hang up")
            sys.stdin.readline()
        self.session.end()
        self.ended.wait()
        Engine().stop()
        return self.code

    def handle_notification(self, notification):
        handler = getattr(self, f"_NH_{notification.name}", None)
        if handler is not None:
            handler(notification)

    def _NH_SIPSessionGotRingIndication(self, notification):
        print("Ringing!")

    def _NH_SIPSessionDidStart(self, notification):
        print(f"Session started with {notification.sender.remote_uri}")

    def _NH_SIPSessionDidFail(self, notification):
        print(f"Failed to connect: {notification.data.code} {notification.data.reason}")
        self.code = 1

    def _NH_SIPSessionDidEnd(self, notification):
        print(f"Session ended by the {notification.data.originator} side")
        self.ended.set()

    def _NH_SIPEngineDidEnd(self, notification):
        print("Engine stopped")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        application = SimpleCallApplication(SIPURI(sys.argv[1]), *map(float, sys.argv[2:3]))
        application.start()
    except (EngineError, ValueError) as error:
        sys.exit(str(error))
    sys.exit(application.run())
