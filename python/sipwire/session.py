"""Sessions: calls made and taken, their attributes and what can be done with them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import typing as t
from collections import deque

from sipwire.core import SIPURI, Route
from sipwire.errors import (
    EngineError,
    MediaError,
    SessionStateError,
    SIPWireError,
    TransferFailed,
    UnknownSession,
    call_failed,
)
from sipwire.notification import Any, Notification, NotificationCenter, NotificationStream, viewing
from sipwire.notification_data import SessionState, SIPSessionDidStopRecordingAudioData
from sipwire.requests import InfoOutcome, InfoRequest, TransferOutcome, TransferRequest

if t.TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Sequence

    from sipwire import _core
    from sipwire.account import Account
    from sipwire.audio import AudioStream
    from sipwire.engine import Engine

__all__ = ["Session", "SessionManager", "SessionState"]

_DTMF_DIGITS = frozenset("0123456789*#ABCD")

_DIGITS_KEPT = 64
"""Digits that wait for :meth:`AudioStream.collect_digits`: more than anybody types ahead."""

_UNTOLD_KEPT = 16
"""Notifications of one name that wait for :meth:`Session.wait_for`; the oldest go first."""

_NAME_LIMIT = 120
"""Bytes of a default recording name, far below what file systems take."""

_OUTCOMES = frozenset(
    {
        "SIPSessionDidDeliverInfo",
        "SIPSessionDidNotDeliverInfo",
        "SIPSessionGotTransferRequest",
        "SIPSessionTransferDidEnd",
        "SIPSessionTransferDidFail",
    }
)
"""Notifications that end a request or begin one."""

_UP: t.Final = [SessionState.ESTABLISHED, SessionState.PROPOSING, SessionState.PROPOSED]

_ONCE = frozenset(
    {
        "SIPSessionNewIncoming",
        "SIPSessionNewOutgoing",
        "SIPSessionWillStart",
        "SIPSessionDidStart",
        "SIPSessionDidFail",
        "SIPSessionWillEnd",
        "SIPSessionDidEnd",
    }
)
"""Notifications a session posts once at most: waiting for one that was there is over at once."""


class Session:
    """One call, made with :meth:`connect` or taken from SIPSessionNewIncoming.

    Every method may be called in any thread and in any handler. While a handler runs, the attributes of the sender are
    those right after the event it is told; everywhere else they are the present ones. A method called in the wrong
    state raises :exc:`SessionStateError` at once and changes nothing.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.engine: Engine = account.engine
        self._core: _core.Engine | None = None
        self._number: int | None = None
        self._last: _core.Snapshot | None = None
        self._seen: dict[str, Notification] = {}
        self._untold: dict[str, deque[Notification]] = {}
        self._digits: deque[str] = deque(maxlen=_DIGITS_KEPT)
        self._audio: AudioStream | None = None
        self._infos: dict[int, InfoRequest] = {}
        self._transfer: TransferRequest | None = None
        self._asked: SIPURI | None = None

    @classmethod
    def _arrived(cls, account: Account, engine: Engine, number: int, snapshot: _core.Snapshot) -> Session:
        session = cls(account)
        session.engine = engine
        session._core, session._number, session._last = engine._core, number, snapshot
        return session

    def _heard(self, notification: Notification) -> None:
        """Takes in what is about to be delivered."""
        snapshot = notification._snapshot
        if snapshot is not None:
            self._last = snapshot
        if notification.name in _ONCE:
            self._seen[notification.name] = notification
            if notification.name == "SIPSessionDidStart":
                self._keep_audio()
            elif notification.name == "SIPSessionDidEnd":
                self._no_outcome()
            return
        untold = self._untold.get(notification.name)
        if untold is None:
            untold = self._untold[notification.name] = deque(maxlen=_UNTOLD_KEPT)
        untold.append(notification)
        if notification.name == "SIPSessionGotDTMF":
            self._digits.append(notification.data.digit)
        elif notification.name in _OUTCOMES:
            self._take_outcome(notification.name, notification.data)

    def _take_outcome(self, name: str, data: t.Any) -> None:
        if name == "SIPSessionGotTransferRequest":
            self._asked = data.target
        elif name in ("SIPSessionDidDeliverInfo", "SIPSessionDidNotDeliverInfo"):
            with self.engine._binding:  # whoever sends it notes its number under the same lock
                info = self._infos.pop(data.request, None)
            if info is not None:
                info._over(InfoOutcome(data.code, data.reason))
        else:
            with self.engine._binding:
                transfer, self._transfer = self._transfer, None
            if transfer is not None:
                failed = name == "SIPSessionTransferDidFail"
                transfer._over((TransferFailed if failed else TransferOutcome)(data.code, data.reason))

    def _no_outcome(self) -> None:
        """The session is over, and with it whatever somebody still waits for."""
        with self.engine._binding:
            infos, self._infos = self._infos, {}
            transfer, self._transfer = self._transfer, None
        for info in infos.values():
            info._over(InfoOutcome(487, "the call ended first"))
        if transfer is not None:
            transfer._over(TransferFailed(487, "the call ended first"))

    def _view(self) -> _core.Snapshot | None:
        """What the attributes are read from; ``None`` before the session exists."""
        if viewing.sender is self and viewing.snapshot is not None:
            return t.cast("_core.Snapshot", viewing.snapshot)
        core, number = self._core, self._number
        if core is None or number is None or "SIPSessionDidEnd" in self._seen or core is not self.engine._core:
            return self._last
        try:
            return core.snapshot(number) or self._last
        except EngineError:  # it stops at this moment
            return self._last

    def __repr__(self) -> str:
        view = self._last
        if view is None:
            return f"<Session of {self.account.id!r}, {self.state.value}>"
        return f"<Session {self._number} {view.direction} {view.remote_uri} {view.state.value}>"

    # --- attributes --------------------------------------------------------------------------------------------------

    @property
    def id(self) -> int | None:
        """A number no other session of the engine has; ``None`` in NULL."""
        return self._number

    @property
    def state(self) -> SessionState:
        view = self._view()
        return SessionState.NULL if view is None else view.state

    @property
    def direction(self) -> t.Literal["incoming", "outgoing"] | None:
        view = self._view()
        return None if view is None else view.direction

    @property
    def start_time(self) -> datetime.datetime | None:
        """When the final response came or left: aware, local."""
        view = self._view()
        return None if view is None else _datetime(view.start_time)

    @property
    def stop_time(self) -> datetime.datetime | None:
        """When the session ended; ``None`` also when it never started."""
        view = self._view()
        return None if view is None else _datetime(view.stop_time)

    @property
    def on_hold_by_local(self) -> bool:
        view = self._view()
        return False if view is None else view.on_hold_by_local

    @property
    def on_hold_by_remote(self) -> bool:
        view = self._view()
        return False if view is None else view.on_hold_by_remote

    @property
    def on_hold(self) -> bool:
        view = self._view()
        return False if view is None else view.on_hold_by_local or view.on_hold_by_remote

    @property
    def remote_user_agent(self) -> str | None:
        view = self._view()
        return None if view is None else view.remote_user_agent

    @property
    def local_uri(self) -> SIPURI | None:
        view = self._view()
        return None if view is None else view.local_uri

    @property
    def remote_uri(self) -> SIPURI | None:
        view = self._view()
        return None if view is None else view.remote_uri

    @property
    def caller_uri(self) -> SIPURI | None:
        view = self._view()
        if view is None:
            return None
        return view.local_uri if view.direction == "outgoing" else view.remote_uri

    @property
    def callee_uri(self) -> SIPURI | None:
        view = self._view()
        if view is None:
            return None
        return view.remote_uri if view.direction == "outgoing" else view.local_uri

    @property
    def route(self) -> Route | None:
        """The route in use; ``None`` for incoming sessions."""
        view = self._view()
        return None if view is None else view.route

    @property
    def audio_transport(self) -> AudioStream | None:
        """The audio stream from before the INVITE leaves."""
        view = self._view()
        return self._stream() if view is not None and view.has_audio_transport else None

    @property
    def audio(self) -> AudioStream | None:
        """The audio stream while it runs, and after the call for its statistics."""
        core, number = self._core, self._number
        if self._audio is not None or core is None or number is None:
            return self._audio
        return self._stream() if core.audio(number) is not None else None

    def _keep_audio(self) -> None:
        """Takes hold of the stream while the core has it, for the statistics after the call."""
        if self._core is not None and self._number is not None and self._core.audio(self._number) is not None:
            with contextlib.suppress(MediaError):  # the call may be over already
                self._stream()._handle()

    def _stream(self) -> AudioStream:
        if self._audio is None:
            from sipwire.audio import AudioStream

            self._audio = AudioStream(self)
        return self._audio

    @property
    def has_audio(self) -> bool:
        view = self._view()
        return False if view is None else view.has_audio

    @property
    def audio_sample_rate(self) -> int | None:
        view = self._view()
        return None if view is None else view.audio_sample_rate

    @property
    def audio_codec(self) -> str | None:
        view = self._view()
        return None if view is None else view.audio_codec

    @property
    def audio_srtp_active(self) -> bool:
        view = self._view()
        return False if view is None else view.audio_srtp_suite is not None

    @property
    def audio_local_rtp_address(self) -> str | None:
        view = self._view()
        return None if view is None or view.audio_local_rtp is None else view.audio_local_rtp[0]

    @property
    def audio_local_rtp_port(self) -> int | None:
        view = self._view()
        return None if view is None or view.audio_local_rtp is None else view.audio_local_rtp[1]

    @property
    def audio_remote_rtp_address_sdp(self) -> str | None:
        view = self._view()
        return None if view is None or view.audio_remote_rtp_sdp is None else view.audio_remote_rtp_sdp[0]

    @property
    def audio_remote_rtp_port_sdp(self) -> int | None:
        view = self._view()
        return None if view is None or view.audio_remote_rtp_sdp is None else view.audio_remote_rtp_sdp[1]

    @property
    def audio_remote_rtp_address_received(self) -> str | None:
        view = self._view()
        return None if view is None or view.audio_remote_rtp_received is None else view.audio_remote_rtp_received[0]

    @property
    def audio_remote_rtp_port_received(self) -> int | None:
        view = self._view()
        return None if view is None or view.audio_remote_rtp_received is None else view.audio_remote_rtp_received[1]

    @property
    def audio_was_received(self) -> bool:
        view = self._view()
        return view is not None and view.has_audio and view.audio_remote_rtp_received is not None

    @property
    def audio_recording_file_name(self) -> str | None:
        """The full path while recording."""
        view = self._view()
        return None if view is None else view.audio_recording_file_name

    @property
    def chat_transport(self) -> None:
        """This version has no chat."""
        return None

    @property
    def has_chat(self) -> bool:
        view = self._view()
        return False if view is None else view.has_chat

    @property
    def proposed_streams(self) -> list[str]:
        """What is proposed in PROPOSING and PROPOSED; empty otherwise."""
        view = self._view()
        return [] if view is None else view.proposed_streams

    @property
    def proposed_audio(self) -> bool:
        return "audio" in self.proposed_streams

    @property
    def proposed_chat(self) -> bool:
        return "chat" in self.proposed_streams

    @property
    def replaces(self) -> Session | None:
        """The session that this incoming one takes the place of once it is accepted (RFC 3891); it is ended then."""
        view = self._view()
        number = None if view is None else view.replaces
        return None if number is None else self.engine._sessions.get(number)

    @property
    def call_id(self) -> str | None:
        view = self._view()
        return None if view is None else view.call_id

    @property
    def local_sdp(self) -> str | None:
        view = self._view()
        return None if view is None else view.local_sdp

    @property
    def remote_sdp(self) -> str | None:
        view = self._view()
        return None if view is None else view.remote_sdp

    @property
    def remote_display_name(self) -> str | None:
        view = self._view()
        return None if view is None else view.remote_display_name

    @property
    def request_headers(self) -> list[tuple[str, str]]:
        """The headers of the INVITE, in order, as they were."""
        view = self._view()
        return [] if view is None or view.request_headers is None else view.request_headers

    @property
    def response_headers(self) -> list[tuple[str, str]]:
        """The headers of the last response to the INVITE, in order."""
        view = self._view()
        return [] if view is None or view.response_headers is None else view.response_headers

    @property
    def end_reason(self) -> str | None:
        """Why the session ended, where somebody said so."""
        view = self._view()
        return None if view is None else view.end_reason

    @property
    def failure(self) -> tuple[int, str] | None:
        """Code and reason of SIPSessionDidFail."""
        view = self._view()
        return None if view is None else view.failure

    @property
    def retry_after(self) -> int | None:
        """Seconds the peer asked us to stay away when it refused the call (Retry-After)."""
        view = self._view()
        return None if view is None else view.retry_after

    @property
    def redirect_targets(self) -> list[SIPURI]:
        """Where a 3xx says the callee is, the best first. They are called only where the account says so."""
        view = self._view()
        return [] if view is None else view.redirect_targets

    @property
    def peer_address(self) -> tuple[str, int] | None:
        """Where SIP messages of the peer come from: (host, port)."""
        view = self._view()
        return None if view is None else view.peer_address

    @property
    def transport(self) -> str | None:
        view = self._view()
        return None if view is None else view.transport

    # --- verbs -------------------------------------------------------------------------------------------------------

    def connect(
        self,
        callee_uri: SIPURI | str,
        routes: Iterable[Route],
        audio: bool = False,
        chat: bool = False,
        extra_headers: Sequence[tuple[str, str]] = (),
        *,
        late_offer: bool = False,
    ) -> None:
        """Calls; allowed in NULL. On return the state is CALLING.

        Posts SIPSessionChangedState, SIPSessionNewOutgoing, SIPSessionGotRingIndication for each 180, then
        SIPSessionWillStart, SIPSessionGotStreamUpdate, SIPSessionChangedState and SIPSessionDidStart; or
        SIPSessionChangedState, SIPSessionDidFail and SIPSessionDidEnd. The routes are tried in order:
        SIPSessionDidChangeRoute tells of each further one. With ``late_offer`` the INVITE carries no description: the
        callee offers.

        Raises :exc:`ValueError` without a stream or a route, :exc:`EngineError` when the engine does not run.
        """
        given = list(routes)
        if not given:
            raise ValueError(f"routes to {callee_uri} are empty")
        self._call(callee_uri, given, audio, chat, extra_headers, late_offer=late_offer)

    def _call(
        self,
        callee_uri: SIPURI | str,
        routes: Sequence[Route],
        audio: bool,
        chat: bool,
        extra_headers: Sequence[tuple[str, str]] = (),
        *,
        late_offer: bool = False,
    ) -> None:
        """The same; without routes the core locates the URI."""
        uri = callee_uri if isinstance(callee_uri, SIPURI) else SIPURI(callee_uri)
        chosen = []
        for route in routes:
            if not isinstance(route, Route):
                raise TypeError(f"route {route!r} is not a Route")
            chosen.append((route.address, route.port, route.transport))
        _check_streams("connect", audio, chat)
        core = self.engine._running()
        account = self.engine._account_number(self.account)
        with self.engine._binding:
            if self._number is not None:
                number = None
            else:
                number = core.connect(account, uri, chosen, audio, chat, list(extra_headers), late_offer)
                self._core, self._number = core, number
                self.engine._sessions[number] = self
        if number is None:
            raise SessionStateError(f"connect() is not allowed in state {self.state}", self.state, ["NULL"])

    def accept(self, audio: bool = False, chat: bool = False) -> None:
        """Takes the call with the streams chosen; allowed in INCOMING, goes to ACCEPTING.

        Posts SIPSessionChangedState, then SIPSessionWillStart, SIPSessionGotStreamUpdate, SIPSessionChangedState and
        SIPSessionDidStart; or SIPSessionChangedState, SIPSessionDidFail and SIPSessionDidEnd. Raises :exc:`ValueError`
        for no stream or one that was not offered.
        """
        self._verb("accept", [SessionState.INCOMING], lambda core, number: core.accept(number, audio, chat))

    def reject(self, code: int = 486, reason: str | None = None) -> None:
        """Refuses the call; allowed in INCOMING, does nothing in TERMINATED.

        Posts SIPSessionChangedState, SIPSessionWillEnd, SIPSessionChangedState and SIPSessionDidEnd. Raises
        :exc:`ValueError` unless ``code`` is a final one, 300 to 699.
        """
        if isinstance(code, bool) or not isinstance(code, int) or not 300 <= code <= 699:
            raise ValueError(f"code {code!r} is not a final SIP code from 300 to 699")
        try:
            self._verb("reject", [SessionState.INCOMING], lambda core, number: core.reject(number, code, reason))
        except SessionStateError as error:
            if error.state != SessionState.TERMINATED:
                raise

    def hold(self) -> None:
        """Holds the call: the peer hears silence and is told; allowed in ESTABLISHED with audio, a second time without
        effect.

        Posts SIPSessionGotHoldRequest (local) when the request leaves: at once, or when the change before it is
        through. The call stays held for us when the peer refuses. A recording pauses.
        """
        self._verb("hold", [SessionState.ESTABLISHED], lambda core, number: core.hold(number, True))

    def unhold(self) -> None:
        """Ends :meth:`hold`; allowed in ESTABLISHED with audio. Posts SIPSessionGotUnholdRequest (local)."""
        self._verb("unhold", [SessionState.ESTABLISHED], lambda core, number: core.hold(number, False))

    def add_audio(self) -> None:
        """Proposes audio to the peer; allowed in ESTABLISHED without audio, goes to PROPOSING.

        Posts SIPSessionChangedState and SIPSessionGotStreamProposal (local); when the peer has decided
        SIPSessionChangedState with SIPSessionAcceptedStreamProposal and SIPSessionGotStreamUpdate, or with
        SIPSessionRejectedStreamProposal.
        """
        self._verb("add_audio", [SessionState.ESTABLISHED], lambda core, number: core.add_audio(number))

    def remove_audio(self) -> None:
        """Stops audio and tells the peer; allowed in ESTABLISHED with audio that is not the last stream.

        Posts SIPSessionGotStreamUpdate at once.
        """
        self._verb("remove_audio", [SessionState.ESTABLISHED], lambda core, number: core.remove_audio(number))

    def add_chat(self) -> None:
        """Proposes chat to the peer, as :meth:`add_audio` does audio."""
        self._verb("add_chat", [SessionState.ESTABLISHED], lambda core, number: core.add_chat(number))

    def remove_chat(self) -> None:
        """Stops chat and tells the peer, as :meth:`remove_audio` does audio."""
        self._verb("remove_chat", [SessionState.ESTABLISHED], lambda core, number: core.remove_chat(number))

    def accept_proposal(self, audio: bool = False, chat: bool = False) -> None:
        """Takes streams of :attr:`proposed_streams`; allowed in PROPOSED, goes to ESTABLISHED.

        Posts SIPSessionChangedState, SIPSessionAcceptedStreamProposal (remote) and SIPSessionGotStreamUpdate; or, when
        the streams cannot be had, SIPSessionChangedState and SIPSessionRejectedStreamProposal (remote). Raises
        :exc:`ValueError` for no stream or one that is not proposed.
        """
        self._verb(
            "accept_proposal",
            [SessionState.PROPOSED],
            lambda core, number: core.accept_proposal(number, audio, chat),
        )

    def reject_proposal(self, code: int = 488, reason: str | None = None) -> None:
        """Refuses :attr:`proposed_streams`; allowed in PROPOSED, goes to ESTABLISHED.

        Posts SIPSessionChangedState and SIPSessionRejectedStreamProposal (remote). Raises :exc:`ValueError` unless
        ``code`` is a refusal, 400 to 699.
        """
        if isinstance(code, bool) or not isinstance(code, int) or not 400 <= code <= 699:
            raise ValueError(f"code {code!r} is not a refusal from 400 to 699")
        self._verb(
            "reject_proposal",
            [SessionState.PROPOSED],
            lambda core, number: core.reject_proposal(number, code, reason),
        )

    def ring(self) -> None:
        """Tells the caller that it rings (180); allowed in INCOMING. Needed with the option ``auto_ring`` off only."""
        self._verb("ring", [SessionState.INCOMING], lambda core, number: core.ring(number))

    def early_media(self) -> None:
        """Lets audio run before the call is taken (183 with our answer); allowed in INCOMING, the second time in vain.

        Posts SIPSessionGotStreamUpdate when :attr:`audio` runs. Raises :exc:`SessionStateError` also for a caller that
        made no offer and does not support reliable provisional responses.
        """
        self._verb("early_media", [SessionState.INCOMING], lambda core, number: core.early_media(number))

    def redirect(self, targets: SIPURI | str | Iterable[SIPURI | str]) -> None:
        """Sends the caller to other addresses (302), the first one preferred; allowed in INCOMING, does nothing in
        TERMINATED.

        Posts SIPSessionChangedState, SIPSessionWillEnd, SIPSessionChangedState and SIPSessionDidEnd. Raises
        :exc:`ValueError` without a target.
        """
        given = [targets] if isinstance(targets, SIPURI | str) else list(targets)
        uris = [target if isinstance(target, SIPURI) else SIPURI(target) for target in given]
        if not uris:
            raise ValueError("targets is empty")
        try:
            self._verb("redirect", [SessionState.INCOMING], lambda core, number: core.redirect(number, uris))
        except SessionStateError as error:
            if error.state != SessionState.TERMINATED:
                raise

    def end(self, reason: str | None = None) -> None:
        """Ends the session; does nothing in NULL, TERMINATING and TERMINATED.

        Posts SIPSessionChangedState, SIPSessionWillEnd, SIPSessionGotStreamUpdate if media ran, SIPSessionChangedState
        and SIPSessionDidEnd, at the latest one second after BYE left.
        """
        try:
            self._verb("end", [], lambda core, number: core.end(number, reason))
        except SessionStateError:
            pass
        except EngineError:
            if self.engine.is_running or self.engine._forked_from is not None:
                raise  # otherwise the engine has ended the session

    def start_recording_audio(self, file_name: str | os.PathLike[str] | None = None) -> None:
        """Records both parties into a new wav file; allowed in ESTABLISHED with audio, once at a time.

        A relative name is joined to the engine's ``recordings_directory``; without a name there is one of the time, the
        peer and the direction. Posts SIPSessionWillStartRecordingAudio and SIPSessionDidStartRecordingAudio. Raises
        :exc:`SessionStateError`, or :exc:`MediaError` when the file cannot be written.
        """
        self._record(file_name, stereo=False)

    def _record(self, file_name: str | os.PathLike[str] | None, stereo: bool) -> None:
        directory = self.engine.recordings_directory
        if file_name is None:
            path = os.path.join(directory, self._recording_name(directory))
        else:
            path = os.path.join(directory, os.fspath(file_name))
        path = os.path.abspath(path)
        allowed = [SessionState.ESTABLISHED, SessionState.PROPOSING, SessionState.PROPOSED]
        try:
            self._verb(
                "start_recording_audio", allowed, lambda core, number: core.start_recording(number, path, stereo)
            )
        except MediaError as error:
            data = SIPSessionDidStopRecordingAudioData(timestamp=_local_now(), file_name=path, error=str(error))
            self.engine._post(self, "SIPSessionDidStopRecordingAudio", data)
            raise

    def _recording_name(self, directory: str) -> str:
        """``YYYYmmdd-HHMMSS-user@host-direction.wav`` that does not exist, of harmless characters."""
        import re

        uri, stamp = self.remote_uri, time.strftime("%Y%m%d-%H%M%S")
        party = "unknown" if uri is None else f"{uri.user or 'anonymous'}@{uri.host}"
        party = re.sub(r"[^A-Za-z0-9@._+-]", "_", party)
        tail = f"-{self.direction or 'unknown'}"
        for number in range(1, 10_000):
            end = f"{tail}.wav" if number == 1 else f"{tail}-{number}.wav"
            name = f"{stamp}-{party[: _NAME_LIMIT - len(stamp) - len(end) - 1]}{end}"
            if not os.path.lexists(os.path.join(directory, name)):
                return name
        raise MediaError(f"{directory}: too many recordings of {party} at {stamp}")

    def stop_recording_audio(self) -> None:
        """Finishes the recording; allowed in ESTABLISHED while recording.

        Posts SIPSessionWillStopRecordingAudio and SIPSessionDidStopRecordingAudio, as the end of the audio does.
        """
        allowed = [SessionState.ESTABLISHED, SessionState.PROPOSING, SessionState.PROPOSED]
        self._verb("stop_recording_audio", allowed, lambda core, number: core.stop_recording(number))

    def send_dtmf(self, digit: str) -> None:
        """Sends one of ``0-9*#A-D``; allowed in ESTABLISHED, PROPOSING and PROPOSED with audio. Posts nothing.

        By RFC 4733 where the SDP agreed on telephone events, else in an INFO (``application/dtmf-relay``) unless the
        peer says that it takes none.
        """
        if not isinstance(digit, str) or digit not in _DTMF_DIGITS:
            raise ValueError(f"digit {digit!r} is not one of 0-9, *, #, A-D")
        self._verb("send_dtmf", _UP, lambda core, number: core.send_dtmf(number, digit))

    def send_info(
        self, content: str | bytes, content_type: str = "text/plain", info_package: str | None = None
    ) -> InfoRequest:
        """Sends an INFO inside the call (RFC 6086); allowed in ESTABLISHED, PROPOSING and PROPOSED.

        ``await`` the :class:`InfoOutcome` or ``wait()`` for it. Posts SIPSessionDidDeliverInfo or
        SIPSessionDidNotDeliverInfo(request, code, reason). Raises :exc:`SessionStateError` also when the peer has said
        that it takes no INFO, or not this package; :exc:`ValueError` for a type or package that is none.
        """
        if not isinstance(content, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"content {content!r} of an INFO is neither str nor bytes")
        body = content.encode() if isinstance(content, str) else bytes(content)
        request = InfoRequest()
        with self.engine._binding:
            sent = self._verb(
                "send_info", _UP, lambda core, number: core.send_info(number, body, content_type, info_package)
            )
            self._infos[sent] = request
        return request

    def transfer(self, target: SIPURI | str | None = None, *, replaces: Session | None = None) -> TransferRequest:
        """Asks the peer to call ``target`` in place of this call (REFER); allowed in ESTABLISHED.

        With ``replaces``, another established session of this engine, the peer takes our place in that call (attended
        transfer); ``target`` is the peer of that call then, unless given. ``await`` the :class:`TransferOutcome` or
        ``wait()`` for it: it raises :exc:`TransferFailed` when the transfer fails, and this call goes on.

        Posts SIPSessionTransferNewOutgoing, SIPSessionTransferDidStart when the peer agrees,
        SIPSessionTransferGotProgress for what it reports, then SIPSessionTransferDidEnd and all of :meth:`end`, which
        is called by itself; or SIPSessionTransferDidFail. Raises :exc:`SessionStateError` also during another transfer
        and when the peer takes no REFER.
        """
        uri = SIPURI(target) if isinstance(target, str) else target
        other = None
        if replaces is not None:
            if replaces.engine is not self.engine:
                raise ValueError("transfer(replaces=…): the other session belongs to another engine")
            if replaces.state != SessionState.ESTABLISHED:
                text = f"transfer() cannot replace a session in state {replaces.state}"
                raise SessionStateError(text, replaces.state, [SessionState.ESTABLISHED])
            other = replaces._number
        request = TransferRequest()
        with self.engine._binding:
            self._verb("transfer", [SessionState.ESTABLISHED], lambda core, number: core.transfer(number, uri, other))
            self._transfer = request
        return request

    def accept_transfer(self, routes: Iterable[Route] | None = None) -> Session:
        """Makes the call that the peer asks for with SIPSessionGotTransferRequest, and returns it, in CALLING.

        Without ``routes`` it goes where :meth:`Account.call` would. The peer hears how the new call goes, and ends this
        one when it likes what it hears. Posts all that :meth:`connect` does (sender: the new session),
        SIPSessionTransferDidStart with the new session, then SIPSessionTransferDidEnd or SIPSessionTransferDidFail,
        unless this session ends first. Raises :exc:`SessionStateError` when no request waits (any more: 20 s).
        """
        from sipwire.account import routes_for

        chosen: list[tuple[str, int, str]] = []
        if self._asked is not None:
            wanted = routes_for(self.account, self._asked, None if routes is None else list(routes))
            chosen = [(route.address, route.port, route.transport) for route in wanted]
        engine = self.engine
        with engine._binding:
            made = self._verb("accept_transfer", _UP, lambda core, number: core.accept_transfer(number, chosen))
            session = Session(self.account)
            session.engine = engine
            session._core, session._number = self._core, made
            engine._sessions[made] = session
        return session

    def reject_transfer(self, code: int = 603) -> None:
        """Refuses the request of SIPSessionGotTransferRequest with a code of 400 to 699; posts nothing.

        A request that nobody answers is refused after 20 s. Raises :exc:`SessionStateError` when none waits.
        """
        self._verb("reject_transfer", _UP, lambda core, number: core.reject_transfer(number, code))

    def _verb(self, name: str, allowed: list[SessionState], call: Callable[[_core.Engine, int], t.Any]) -> t.Any:
        """Asks the core, which knows the table of states and verbs; sessions it does not know are new or over."""
        core, number = self._core, self._number
        if core is None or number is None:
            raise SessionStateError(_not_allowed(name, SessionState.NULL, allowed), SessionState.NULL, allowed)
        if core is self.engine._core:
            try:
                return call(core, number)
            except UnknownSession:
                pass
        elif "SIPSessionDidEnd" not in self._seen:
            self.engine._running()  # raises: the engine was stopped or belongs to the parent process
        raise SessionStateError(_not_allowed(name, SessionState.TERMINATED, allowed), SessionState.TERMINATED, allowed)

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def wait_for(self, *names: str, timeout: float | None = None) -> Notification:
        """Waits for the first of these notifications of this session and returns it.

        What happened before the call counts, so nothing is missed between a verb and waiting for what it does: what
        happens once in a session (``SIPSessionDidStart``) is returned every time, anything else once, oldest first.
        Raises :exc:`CallFailed` when the call fails first, :exc:`SIPWireError` when it ends first, :exc:`TimeoutError`
        after ``timeout`` seconds.
        """
        import asyncio

        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"names {names!r} are not names of notifications")
        keys = tuple((name, self) for name in {*names, "SIPSessionDidEnd"})
        async with NotificationStream(NotificationCenter(), keys) as stream:
            known = [self._seen[name] for name in names if name in self._seen]
            known += [self._untold[name][0] for name in names if self._untold.get(name)]
            if known:
                return self._told(min(known, key=lambda notification: notification.timestamp))
            if "SIPSessionDidEnd" in self._seen:
                raise self._ended(names)
            async with asyncio.timeout(timeout):
                async for notification in stream:
                    if notification.name in names:
                        return self._told(notification)
                    break
        raise self._ended(names)

    def _told(self, notification: Notification) -> Notification:
        """Somebody who waited has got this one."""
        with contextlib.suppress(KeyError, ValueError):  # it happens once, or another task has got it too
            self._untold[notification.name].remove(notification)
        return notification

    def _ended(self, names: tuple[str, ...]) -> SIPWireError:
        failed = self._seen.get("SIPSessionDidFail")
        if failed is not None:
            return call_failed(failed.data.code, failed.data.reason)
        return SIPWireError(f"the session ended before {' or '.join(names)}")

    def notifications(self) -> NotificationStream:
        """What this session posts from now on, for ``async for``; ends behind SIPSessionDidEnd."""
        stream = NotificationStream(
            NotificationCenter(), ((Any, self),), last=lambda notification: notification.name == "SIPSessionDidEnd"
        )
        if "SIPSessionDidEnd" in self._seen:
            stream.close()
        return stream


def _not_allowed(verb: str, state: SessionState, allowed: list[SessionState]) -> str:
    return f"{verb}() is not allowed in state {state}: allowed in {', '.join(allowed)}"


def _check_streams(verb: str, audio: bool, chat: bool) -> None:
    if chat:
        raise ValueError(f"{verb}(chat=True): this version has no chat")
    if not audio:
        raise ValueError(f"{verb}() needs a stream: audio=True")


def _local_now() -> datetime.datetime:
    import datetime

    return datetime.datetime.now().astimezone()


def _datetime(seconds: float | None) -> datetime.datetime | None:
    if seconds is None:
        return None
    import datetime

    return datetime.datetime.fromtimestamp(seconds).astimezone()


class SessionManager:
    """Takes incoming calls once it exists; before, they are answered with 480. Always the same object."""

    _instance: t.ClassVar[SessionManager | None] = None
    _creating: t.ClassVar[threading.Lock] = threading.Lock()

    def __new__(cls) -> SessionManager:
        from sipwire.engine import Engine

        with cls._creating:
            new = cls._instance is None
            if cls._instance is None:
                cls._instance = super().__new__(cls)
            instance = cls._instance
        if new:
            for engine in list(Engine._engines.values()):
                core = engine._core
                if core is not None and core.is_running:
                    core.set_accepts_calls(True)
        return instance

    @classmethod
    def exists(cls) -> bool:
        return cls._instance is not None

    @property
    def sessions(self) -> list[Session]:
        """The sessions of all engines that are neither new nor over."""
        from sipwire.engine import Engine

        return [session for engine in list(Engine._engines.values()) for session in engine.sessions]
