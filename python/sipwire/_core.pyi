"""The Rust core. Private: the package around it is the API."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from sipwire.core import Route
from sipwire.notification_data import SessionState

__version__: str
__all__ = [
    "Audio",
    "AudioFrame",
    "AudioStatistics",
    "Bridge",
    "DiskStats",
    "Engine",
    "EngineStats",
    "EventQueueStats",
    "FrameReader",
    "FrameWriter",
    "MediaThreadStats",
    "Playback",
    "QueueStats",
    "SIPURI",
    "SignallingStats",
    "Snapshot",
    "StreamStats",
    "TestProxy",
    "TransportStats",
    "WakeHub",
    "WakeToken",
    "__version__",
    "delay_ms",
    "dominant_tone",
    "find_breaks",
    "level_dbfs",
    "notification_table",
    "presence_document",
    "spectrogram",
    "tone_at",
    "voice",
]

def presence_document(
    entity: str, is_open: bool, contact: str | None, note: str | None, activities: Sequence[str]
) -> str:
    """A presence document (``application/pidf+xml``) about one presentity."""

def notification_table() -> dict[str, list[str]]:
    """Name → keys of every notification the core makes, in the order its values are given."""

def dominant_tone(pcm: Any, rate: int) -> tuple[float, float, float] | None:
    """The loudest tone: (Hz, RMS in dB below full scale, dB above everything else); ``None`` when it is silent."""

def tone_at(pcm: Any, rate: int, hz: float) -> tuple[float, float, float]:
    """The tone of ``hz``: (Hz, RMS level in dB below full scale, dB above everything else)."""

def delay_ms(reference: Any, recording: Any, rate: int) -> float | None:
    """How much later ``recording`` holds what ``reference`` does, ms; ``None`` when they have nothing in common."""

def level_dbfs(pcm: Any) -> float:
    """RMS in dB below full scale; a full-scale sine is -3, silence is -127."""

def spectrogram(pcm: Any, rate: int, columns: int, rows: int) -> bytes:
    """``columns`` × ``rows`` levels, row by row from the highest frequency down, 255 the loudest."""

def find_breaks(pcm: Any, rate: int) -> tuple[list[tuple[float, float]], list[float]]:
    """Gaps (start ms, length ms) and clicks (ms) in what should be a steady sound."""

def voice(seconds: float, rate: int, seed: int) -> bytes:
    """Speech-like sound, 16-bit mono; the same for the same seed. Raises ``ValueError`` for more than ten minutes."""

@final
class SIPURI:
    """A SIP or SIPS URI (RFC 3261 §19.1). Immutable; equality is that of §19.1.4."""

    def __new__(
        cls,
        uri: str | SIPURI | None = None,
        /,
        *,
        user: str | None = None,
        password: str | None = None,
        host: str | None = None,
        port: int | None = None,
        secure: bool = False,
        parameters: Mapping[str, str | None] | Sequence[tuple[str, str | None]] | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> SIPURI: ...
    @staticmethod
    def parse(text: str) -> SIPURI:
        """Reads a URI, with or without a display name and angle brackets. Raises ``ValueError``."""

    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def host(self) -> str:
        """A name or an address, IPv6 without brackets."""

    @property
    def port(self) -> int | None:
        """``None`` when the URI gives none."""

    @property
    def secure(self) -> bool: ...
    @property
    def parameters(self) -> dict[str, str | None]:
        """A copy; a parameter without a value has ``None``."""

    @property
    def headers(self) -> dict[str, str]:
        """A copy."""

    @property
    def transport(self) -> str | None:
        """The parameter ``transport``, lower case; ``None`` when there is none."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Snapshot:
    """An immutable view of a session; each attribute is one of the API's."""

    @property
    def state(self) -> SessionState: ...
    @property
    def direction(self) -> Literal["incoming", "outgoing"] | None: ...
    @property
    def account(self) -> int | None: ...
    @property
    def replaces(self) -> int | None: ...
    @property
    def call_id(self) -> str | None: ...
    @property
    def local_uri(self) -> SIPURI | None: ...
    @property
    def remote_uri(self) -> SIPURI | None: ...
    @property
    def remote_display_name(self) -> str | None: ...
    @property
    def remote_user_agent(self) -> str | None: ...
    @property
    def route(self) -> Route | None: ...
    @property
    def transport(self) -> str | None: ...
    @property
    def peer_address(self) -> tuple[str, int] | None: ...
    @property
    def start_time(self) -> float | None:
        """Seconds since 1970."""

    @property
    def stop_time(self) -> float | None:
        """Seconds since 1970."""

    @property
    def on_hold_by_local(self) -> bool: ...
    @property
    def on_hold_by_remote(self) -> bool: ...
    @property
    def proposed_streams(self) -> list[str]: ...
    @property
    def has_audio(self) -> bool: ...
    @property
    def has_chat(self) -> bool: ...
    @property
    def has_audio_transport(self) -> bool:
        """True from the moment the stream's sockets exist."""

    @property
    def audio_codec(self) -> str | None: ...
    @property
    def audio_sample_rate(self) -> int | None: ...
    @property
    def audio_srtp_suite(self) -> str | None:
        """The suite's name while SRTP is in use."""

    @property
    def audio_local_rtp(self) -> tuple[str, int] | None: ...
    @property
    def audio_remote_rtp_sdp(self) -> tuple[str, int] | None: ...
    @property
    def audio_remote_rtp_received(self) -> tuple[str, int] | None: ...
    @property
    def audio_recording_file_name(self) -> str | None: ...
    @property
    def local_sdp(self) -> str | None: ...
    @property
    def remote_sdp(self) -> str | None: ...
    @property
    def request_headers(self) -> list[tuple[str, str]] | None: ...
    @property
    def response_headers(self) -> list[tuple[str, str]] | None: ...
    @property
    def end_reason(self) -> str | None: ...
    @property
    def failure(self) -> tuple[int, str] | None: ...
    @property
    def retry_after(self) -> int | None:
        """Seconds the peer asked us to stay away."""
    @property
    def redirect_targets(self) -> list[SIPURI]: ...

@final
class Engine:
    """A running engine. Every method may be called from any thread and waits a bounded time."""

    def __new__(cls, **given: Any) -> Engine:
        """Binds the sockets and starts the threads; both are ready on return. Raises ``EngineError``."""

    def stop(self, timeout: float) -> tuple[int, int, bool]:
        """Ends all sessions and joins the threads; returns (sessions there were, of those unfinished, joined)."""

    @property
    def is_running(self) -> bool: ...
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Transport → (host, port)."""

    def reload_certificates(self) -> None:
        """Reads the TLS certificates again. Raises ``EngineError`` naming the file at fault."""

    def stats(self) -> EngineStats: ...
    def next_events(self, limit: int, timeout: float) -> list[tuple[tuple[int, int], str, Any, float, Snapshot | None]]:
        """Waits up to ``timeout`` seconds for events and gives at most ``limit``, oldest first:
        (sender, name, data, seconds since 1970, snapshot). A sender is its kind and its number; kinds are 0 the engine,
        1 a session, 2 an account, 3 a subscription."""

    def wake_events(self) -> None:
        """Makes a waiting ``next_events`` return at once."""

    def leak(self) -> None:
        """Keeps the engine from ever being taken down: for a fork, where its threads do not exist."""

    def add_account(self, settings: Mapping[str, Any]) -> int: ...
    def set_account(self, account: int, settings: Mapping[str, Any]) -> None: ...
    def remove_account(self, account: int) -> None: ...
    def register(self, account: int, settings: Mapping[str, Any]) -> None:
        """Replaces the settings and registers now; SIPAccountRegistrationDidSucceed or DidFail follows."""

    def unregister(self, account: int) -> bool:
        """Ends a registration; false when there was none, else SIPAccountRegistrationDidEnd follows."""

    def set_accepts_calls(self, accepts: bool) -> None: ...
    def connect(
        self,
        account: int,
        callee: SIPURI,
        routes: Sequence[tuple[str, int, str]],
        audio: bool,
        chat: bool,
        extra_headers: Sequence[tuple[str, str]],
        late_offer: bool,
    ) -> int: ...
    def accept(self, session: int, audio: bool, chat: bool) -> None: ...
    def reject(self, session: int, code: int, reason: str | None) -> None: ...
    def hold(self, session: int, hold: bool) -> None: ...
    def add_audio(self, session: int) -> None: ...
    def remove_audio(self, session: int) -> None: ...
    def add_chat(self, session: int) -> None: ...
    def remove_chat(self, session: int) -> None: ...
    def accept_proposal(self, session: int, audio: bool, chat: bool) -> None: ...
    def reject_proposal(self, session: int, code: int, reason: str | None) -> None: ...
    def ring(self, session: int) -> None: ...
    def early_media(self, session: int) -> None: ...
    def redirect(self, session: int, targets: Sequence[SIPURI]) -> None: ...
    def end(self, session: int, reason: str | None) -> None: ...
    def start_recording(self, session: int, path: str, stereo: bool) -> str:
        """Records into a new file and returns its absolute path."""

    def stop_recording(self, session: int) -> None: ...
    def pause_recording(self, session: int) -> None: ...
    def resume_recording(self, session: int) -> None: ...
    def send_dtmf(self, session: int, digit: str) -> None: ...
    def send_info(self, session: int, content: bytes, content_type: str, info_package: str | None) -> int:
        """Returns the number that SIPSessionDidDeliverInfo or SIPSessionDidNotDeliverInfo carries."""

    def transfer(self, session: int, target: SIPURI | None, replaces: int | None) -> None: ...
    def accept_transfer(self, session: int, routes: Sequence[tuple[str, int, str]]) -> int:
        """Returns the number of the new session."""

    def reject_transfer(self, session: int, code: int) -> None: ...
    def lookup(self, uri: SIPURI, transports: Sequence[str]) -> int:
        """Finds the routes to a URI; returns the number its DNSLookupDidSucceed or DNSLookupDidFail carries."""

    def options(self, account: int, uri: SIPURI, routes: Sequence[tuple[str, int, str]]) -> int:
        """Pings a peer; returns the number its SIPOptionsDidAnswer carries."""

    def message(
        self,
        account: int,
        uri: SIPURI,
        routes: Sequence[tuple[str, int, str]],
        content_type: str,
        body: bytes,
        wrap: tuple[str | None, str] | None,
    ) -> tuple[int, str | None]:
        """Sends a message; returns the number its SIPMessageDidSucceed or SIPMessageDidFail carries, and the id that
        reports name when it asks for any. ``wrap``: (CPIM subject, reports wanted)."""

    def report(
        self,
        account: int,
        uri: SIPURI,
        routes: Sequence[tuple[str, int, str]],
        message_id: str,
        date_time: str,
        status: str,
    ) -> int:
        """Tells the sender of a message what became of it; answered like a message. ``status`` is "delivered",
        "displayed", …"""

    def subscribe(
        self,
        account: int,
        event: str,
        uri: SIPURI | None,
        routes: Sequence[tuple[str, int, str]],
        expires: int,
        accept: Sequence[str],
    ) -> int: ...
    def unsubscribe(self, subscription: int) -> None:
        """Ends a subscription or a publication of ours."""

    def publish(
        self,
        account: int,
        event: str,
        routes: Sequence[tuple[str, int, str]],
        expires: int,
        content_type: str,
        body: bytes,
    ) -> int: ...
    def modify_publication(self, publication: int, content_type: str, body: bytes) -> None: ...
    def set_event_packages(self, packages: Sequence[str]) -> None:
        """Event packages that others may subscribe to from now on."""

    def accept_subscription(self, subscription: int, body: tuple[str, bytes] | None) -> None:
        """Accepts a peer's subscription, with its first state when there is one: content type and bytes."""

    def reject_subscription(self, subscription: int, code: int) -> None: ...
    def notify_subscription(self, subscription: int, body: tuple[str, bytes] | None) -> None:
        """Tells a subscriber the state as it is now."""

    def terminate_subscription(self, subscription: int, reason: str) -> None: ...
    def sessions(self) -> list[int]:
        """Sessions that are neither new nor over."""

    def snapshot(self, session: int) -> Snapshot | None:
        """What a session looks like now; ``None`` once it is forgotten."""

    def _flood(self, session: int, count: int) -> int:
        """For ``benches/notifications.py`` only: posts ``count`` SIPSessionGotDTMF of a session; returns how many."""

    def audio(self, session: int) -> Audio | None:
        """The audio stream of a session; ``None`` while it has none."""

@final
class AudioFrame:
    """20 ms of signed 16-bit mono audio with the buffer protocol: ``numpy.frombuffer(frame, "<i2")`` copies nothing."""

    @property
    def timestamp(self) -> float:
        """Seconds since the reader was made; a step of more than 0.02 tells what was dropped because nobody read."""

    @property
    def rate(self) -> int:
        """Samples per second."""

    @property
    def level(self) -> float:
        """RMS in dB below full scale: 0 is the loudest, silence is -127."""

    def __len__(self) -> int:
        """Number of samples."""

    def __bytes__(self) -> bytes: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Audio:
    """The audio stream of one session. It outlives the call: the statistics are then the final ones."""

    @property
    def is_open(self) -> bool: ...
    @property
    def sample_rate(self) -> int: ...
    def statistics(self) -> AudioStatistics: ...
    def take_trace(self) -> list[tuple[float, float, float, int]]:
        """Packets received since the last call: (seconds, deviation ms, jitter ms, packets lost before it)."""

    def reader(self, rate: int, capacity_ms: int) -> FrameReader:
        """Opens a ring that gives what the peer says from now on."""

    def writer(self, max_ahead_ms: int) -> FrameWriter:
        """Opens a ring whose samples are sent to the peer."""

    def play(self, source: str | bytes, loops: int) -> Playback:
        """Plays a wav file (a path, or bytes with its content) to the peer; ``loops`` 0 plays until stopped."""

    def tone(self, hz: float | None, level: float) -> None:
        """Sends a sine of ``hz`` at ``level`` dB below full scale until replaced; ``None`` stops it."""

    def echo(self, on: bool) -> None:
        """Sends the peer what it says."""

    def bridge(self, other: Audio) -> Bridge:
        """Lets the two parties hear each other until the bridge is dropped."""

    @property
    def muted(self) -> bool: ...
    def set_muted(self, muted: bool) -> None: ...
    @property
    def level(self) -> float:
        """Of the last frame from the peer, dB below full scale."""

@final
class FrameReader:
    """What the peer says, for one reading thread or task."""

    @property
    def rate(self) -> int: ...
    def read(self, timeout: float) -> AudioFrame | None:
        """Waits up to ``timeout`` seconds for the next frame; ``None`` when none came."""

    def try_read(self) -> AudioFrame | None:
        """The next frame if it is there."""

    def set_waker(self, token: WakeToken) -> None:
        """Wakes the token's loop when a frame is there or the stream is over."""

    @property
    def is_over(self) -> bool:
        """The stream has ended and everything was read."""

    @property
    def overflow_ms(self) -> int:
        """Milliseconds dropped because nobody read."""

@final
class FrameWriter:
    """Samples for the peer, from one writing thread or task."""

    def try_write(self, pcm: Any, rate: int) -> int:
        """Takes as many samples as fit and returns how many."""

    def set_waker(self, token: WakeToken) -> None:
        """Wakes the token's loop whenever samples were played or the stream is over."""

    @property
    def queued_ms(self) -> int: ...
    @property
    def is_drained(self) -> bool: ...
    def clear(self) -> tuple[int, int]:
        """Drops what waits; returns (played, dropped) milliseconds since the last clear."""

    @property
    def is_over(self) -> bool: ...

@final
class Playback:
    """A wav file being played."""

    def stop(self) -> None: ...
    @property
    def is_finished(self) -> bool:
        """Played to the end, stopped, or its stream is over."""

    def wait(self, timeout: float) -> bool:
        """Waits for the end; false when ``timeout`` seconds came first."""

    def set_waker(self, token: WakeToken) -> None: ...
    @property
    def error(self) -> str | None:
        """What went wrong while reading the file."""

@final
class Bridge:
    """Two calls that hear each other."""

    def close(self) -> None:
        """Separates them; a second call does nothing."""

@final
class WakeHub:
    """The end a loop watches: register ``fileno()`` with ``add_reader`` and call ``take()`` when it is readable."""

    def __new__(cls) -> WakeHub: ...
    def fileno(self) -> int: ...
    def token(self) -> WakeToken:
        """A new thing to wait for."""

    def forget(self, token: WakeToken) -> None:
        """Forgets a token; late wake-ups through it do nothing."""

    def take(self) -> list[int]:
        """The numbers of the tokens woken since the last call."""

@final
class WakeToken:
    """One thing a loop waits for."""

    @property
    def number(self) -> int: ...
    def wake(self) -> None:
        """Wakes the loop as the core does."""

@final
class QueueStats:
    """One bounded queue between two lanes."""

    @property
    def depth(self) -> int: ...
    @property
    def high_water(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def refused(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class EventQueueStats:
    """The queue of events to Python: unbounded, watched."""

    @property
    def depth(self) -> int: ...
    @property
    def high_water(self) -> int: ...
    @property
    def posted(self) -> int: ...
    @property
    def lag_warnings(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class StreamStats:
    """Connections of one transport."""

    @property
    def received(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def connected(self) -> int: ...
    @property
    def connect_failures(self) -> int: ...
    @property
    def handshake_failures(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def idle_closed(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class TransportStats:
    """SIP over each transport."""

    @property
    def udp_received(self) -> int: ...
    @property
    def udp_sent(self) -> int: ...
    @property
    def udp_queued(self) -> int: ...
    @property
    def udp_dropped(self) -> int: ...
    @property
    def udp_unreachable(self) -> int: ...
    @property
    def tcp(self) -> StreamStats: ...
    @property
    def tls(self) -> StreamStats: ...
    @property
    def ws(self) -> StreamStats: ...
    @property
    def wss(self) -> StreamStats: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class MediaThreadStats:
    """One media thread."""

    @property
    def calls(self) -> int: ...
    @property
    def ticks(self) -> int: ...
    @property
    def late_ticks(self) -> int: ...
    @property
    def skipped_ticks(self) -> int: ...
    @property
    def worst_late_us(self) -> int: ...
    @property
    def packets_received(self) -> int: ...
    @property
    def packets_sent(self) -> int: ...
    @property
    def packets_dropped(self) -> int: ...
    @property
    def commands(self) -> QueueStats: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class DiskStats:
    """The disk thread."""

    @property
    def recordings(self) -> int: ...
    @property
    def players(self) -> int: ...
    @property
    def commands(self) -> QueueStats: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class SignallingStats:
    """Signalling: what exists and what was refused."""

    @property
    def sessions(self) -> int: ...
    @property
    def dialogs(self) -> int: ...
    @property
    def client_transactions(self) -> int: ...
    @property
    def server_transactions(self) -> int: ...
    @property
    def messages_received(self) -> int: ...
    @property
    def messages_sent(self) -> int: ...
    @property
    def bad_messages(self) -> int: ...
    @property
    def refused_by_rate(self) -> int: ...
    @property
    def silenced(self) -> int: ...
    @property
    def refused_by_limit(self) -> int: ...
    @property
    def refused_sessions(self) -> int: ...
    @property
    def refused_half_open(self) -> int: ...
    @property
    def refused_transactions(self) -> int: ...
    @property
    def too_large(self) -> int: ...
    @property
    def bad_descriptions(self) -> int: ...
    @property
    def broken_sessions(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class EngineStats:
    """Counters of every queue, limit and transport of an engine."""

    @property
    def ua(self) -> SignallingStats: ...
    @property
    def commands(self) -> QueueStats: ...
    @property
    def media_events(self) -> QueueStats: ...
    @property
    def stream_input(self) -> QueueStats: ...
    @property
    def events(self) -> EventQueueStats: ...
    @property
    def transport(self) -> TransportStats: ...
    @property
    def media(self) -> list[MediaThreadStats]: ...
    @property
    def disk(self) -> DiskStats: ...
    @property
    def panics(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class AudioStatistics:
    """Both directions of an audio stream and of the rings to Python, since its start."""

    @property
    def codec(self) -> str | None: ...
    @property
    def encryption(self) -> str | None: ...
    @property
    def packets_sent(self) -> int: ...
    @property
    def bytes_sent(self) -> int: ...
    @property
    def packets_received(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def late(self) -> int: ...
    @property
    def duplicates(self) -> int: ...
    @property
    def discarded(self) -> int: ...
    @property
    def concealed_ms(self) -> int: ...
    @property
    def jitter_ms(self) -> float: ...
    @property
    def buffered_ms(self) -> float: ...
    @property
    def remote_lost(self) -> int: ...
    @property
    def remote_jitter_ms(self) -> float: ...
    @property
    def rtt_ms(self) -> float | None: ...
    @property
    def mos(self) -> float: ...
    @property
    def underruns(self) -> int: ...
    @property
    def underrun_ms(self) -> int: ...
    @property
    def reader_overflow_ms(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class TestProxy:
    """A registrar and proxy on a thread of its own: what ``sipwire.testing.Proxy`` is made of."""

    @staticmethod
    def start(settings: Mapping[str, Any], transports: Mapping[str, Any]) -> TestProxy:
        """``transports`` are options of an engine, as far as sockets and certificates are concerned."""

    def stop(self) -> None: ...
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Transport → (address, port), of those that listen."""

    def set_user(self, name: str, password: str, auth_name: str | None) -> None: ...
    def remove_user(self, name: str) -> bool: ...
    def registrations(self) -> list[tuple[str, str, str, str, int, float, str | None]]:
        """(user, Contact, transport, address, port, seconds left, instance)."""

    def forget_registrations(self) -> None: ...
    def misbehave(self, wrong: Mapping[str, Any]) -> None: ...
    def behave(self) -> None: ...
    def messages(self) -> list[tuple[float, bool, str, str, int, bytes, bool]]:
        """(seconds since 1970, received, transport, address, port, bytes, dropped)."""

    def clear_messages(self) -> None: ...
