//! Whole engines against each other over loopback: sockets, threads and files as in real life.

#![expect(clippy::disallowed_methods, reason = "these tests run in real time")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sipwire::engine::{AudioHandle, Engine, EngineError, EngineOptions, PlaySource};
use sipwire::event::{AccountId, Event, EventKind, Route, SessionId};
use sipwire::media::{CodecKind, RecordingLayout, SrtpPolicy};
use sipwire::sip::transport::Transport;
use sipwire::sip::uri::Uri;
use sipwire::ua::{AccountSettings, Connect};

/// Longer than anything here may take, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine with one account, and the events it has not been asked about yet.
struct Peer {
    engine: Engine,
    account: AccountId,
    events: Vec<Event>,
}

impl Peer {
    fn new(change: impl FnOnce(&mut EngineOptions, &mut AccountSettings)) -> Self {
        let mut options = EngineOptions {
            local_ip: Some("127.0.0.1".parse().expect("an address")),
            accepts_calls: true,
            media_threads: Some(1),
            ..EngineOptions::default()
        };
        let mut settings = AccountSettings {
            catch_all: true,
            ..AccountSettings::new(Uri::parse(b"sip:peer@127.0.0.1").expect("a URI"))
        };
        change(&mut options, &mut settings);
        let engine = Engine::start(options).expect("free ports on loopback");
        let account = engine.add_account(settings).expect("the engine runs");
        Self { engine, account, events: Vec::new() }
    }

    fn plain() -> Self {
        Self::new(|_, _| {})
    }

    /// Calls another peer.
    fn call(&self, other: &Self, transport: Transport) -> SessionId {
        let addresses = other.engine.addresses();
        let address = addresses.get(transport).expect("it listens");
        let route = Route::new(address.ip().to_string(), address.port(), transport);
        let call = Connect {
            account: self.account,
            callee: Uri::parse(b"sip:other@127.0.0.1").expect("a URI"),
            routes: vec![route],
            audio: true,
            chat: false,
            late_offer: false,
            extra_headers: Vec::new(),
        };
        self.engine.connect(call).expect("a call can be made")
    }

    /// Waits for the first event that fits and forgets it and those before it.
    fn wait(&mut self, what: &str, fits: impl Fn(&EventKind) -> bool) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.events.iter().position(|event| fits(&event.kind)) {
                return self.events.drain(..=at).next_back().expect("it was just found");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what}, but {:#?}", self.events.iter().map(|e| &e.kind).collect::<Vec<_>>());
            self.events.extend(self.engine.next_events(100, left).into_iter().map(|timed| timed.event));
        }
    }

    fn incoming(&mut self) -> SessionId {
        let event = self.wait("incoming call", |kind| matches!(kind, EventKind::SessionNewIncoming { .. }));
        event.session().expect("a session event")
    }

    fn started(&mut self) -> Event {
        self.wait("start", |kind| matches!(kind, EventKind::SessionDidStart))
    }

    fn ended(&mut self) -> Event {
        self.wait("end", |kind| matches!(kind, EventKind::SessionDidEnd { .. }))
    }

    fn recording_stopped(&mut self) -> Option<String> {
        let event =
            self.wait("finished recording", |kind| matches!(kind, EventKind::SessionDidStopRecordingAudio { .. }));
        match event.kind {
            EventKind::SessionDidStopRecordingAudio { error, .. } => error.map(|error| error.to_string()),
            _ => None,
        }
    }

    fn audio(&self, session: SessionId) -> AudioHandle {
        self.engine.audio(session).expect("the session has audio")
    }

    /// Nothing panicked inside.
    fn assert_sound(&self) {
        let stats = self.engine.stats();
        assert_eq!(stats.panics, 0, "{stats:#?}");
    }
}

/// Two peers in a call: (caller, its session), (callee, its session).
fn talk(mut caller: Peer, mut callee: Peer, transport: Transport) -> ((Peer, SessionId), (Peer, SessionId)) {
    let out = caller.call(&callee, transport);
    let into = callee.incoming();
    callee.engine.accept(into, true, false).expect("it rings");
    caller.started();
    callee.started();
    ((caller, out), (callee, into))
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sipwire-engine-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a temporary folder");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The channels of a wav file, and its rate.
fn wav(path: &Path) -> (Vec<Vec<i16>>, u32) {
    let mut reader = hound::WavReader::open(path).expect("a wav file");
    let spec = reader.spec();
    let mut channels = vec![Vec::new(); usize::from(spec.channels)];
    let count = channels.len();
    for (n, sample) in reader.samples::<i16>().enumerate() {
        channels[n % count].push(sample.expect("a sample"));
    }
    (channels, spec.sample_rate)
}

/// The share of a signal's power that is at `hz`, 0 to 1.
fn share(samples: &[i16], rate: u32, hz: f64) -> f64 {
    let (mut sine, mut cosine, mut power) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let (angle, sample) = (n as f64 * hz / f64::from(rate) * std::f64::consts::TAU, f64::from(*sample));
        sine += sample * angle.sin();
        cosine += sample * angle.cos();
        power += sample * sample;
    }
    if power == 0.0 { 0.0 } else { 2.0 * (sine * sine + cosine * cosine) / (samples.len() as f64 * power) }
}

/// Reads until the tone has been there for half a second.
fn hear(audio: &AudioHandle, hz: f64) {
    let mut reader = audio.reader(8000, 1000).expect("an open stream");
    let (deadline, mut heard) = (Instant::now() + PATIENCE, 0);
    while heard < 25 {
        assert!(Instant::now() < deadline, "no {hz} Hz: {:#?}", audio.statistics());
        if let Some(frame) = reader.read_frame(Duration::from_millis(200)) {
            heard = if share(&frame.samples, frame.rate, hz) > 0.9 && frame.level() > -40.0 { heard + 1 } else { 0 };
        }
    }
}

/// A call with this codec and SRTP policy, a tone each way, recorded at both ends.
fn tones_both_ways(codec: CodecKind, srtp: SrtpPolicy, transport: Transport) {
    let folder = Folder::new();
    let peer = || {
        Peer::new(|options, settings| {
            options.codecs = vec![codec];
            settings.srtp = srtp;
        })
    };
    let ((mut caller, out), (mut callee, into)) = talk(peer(), peer(), transport);
    let (caller_wav, callee_wav) = (folder.path("caller.wav"), folder.path("callee.wav"));
    caller.engine.start_recording(out, &caller_wav, RecordingLayout::Stereo).expect("a new file");
    callee.engine.start_recording(into, &callee_wav, RecordingLayout::Mix).expect("a new file");
    caller.audio(out).tone(Some((1000.0, -12.0))).expect("an open stream");
    callee.audio(into).tone(Some((600.0, -12.0))).expect("an open stream");
    hear(&callee.audio(into), 1000.0);
    hear(&caller.audio(out), 600.0);

    let statistics = caller.audio(out).statistics();
    assert_eq!(statistics.codec, Some(codec));
    assert_eq!(statistics.srtp_suite.is_some(), srtp != SrtpPolicy::Disabled);
    assert_eq!(statistics.rtp.lost, 0, "{statistics:#?}");
    caller.engine.end(out, None).expect("a running call");
    assert_eq!(caller.recording_stopped(), None);
    assert_eq!(callee.recording_stopped(), None);
    caller.ended();
    callee.ended();

    let (channels, rate) = wav(&caller_wav);
    let [remote, local] = &channels[..] else { panic!("stereo") };
    let last = |samples: &Vec<i16>| samples[samples.len() - rate as usize / 2..].to_vec();
    assert!(share(&last(remote), rate, 600.0) > 0.95, "{}", share(&last(remote), rate, 600.0));
    assert!(share(&last(local), rate, 1000.0) > 0.95);
    let (channels, rate) = wav(&callee_wav);
    let [mix] = &channels[..] else { panic!("mono") };
    let last = &mix[mix.len() - rate as usize / 2..];
    assert!(share(last, rate, 600.0) > 0.4 && share(last, rate, 1000.0) > 0.4, "both parties are in the mix");
    // Numbers stay after the end.
    assert!(caller.audio(out).statistics().rtp.packets_sent >= statistics.rtp.packets_sent);
    caller.assert_sound();
    callee.assert_sound();
}

#[test]
fn opus_over_srtp_carries_tones() {
    tones_both_ways(CodecKind::Opus, SrtpPolicy::Mandatory, Transport::Udp);
}

#[test]
fn opus_in_the_clear_carries_tones() {
    tones_both_ways(CodecKind::Opus, SrtpPolicy::Disabled, Transport::Tcp);
}

#[test]
fn g722_over_srtp_carries_tones() {
    tones_both_ways(CodecKind::G722, SrtpPolicy::Mandatory, Transport::Tcp);
}

#[test]
fn g722_in_the_clear_carries_tones() {
    tones_both_ways(CodecKind::G722, SrtpPolicy::Disabled, Transport::Udp);
}

#[test]
fn pcmu_over_srtp_carries_tones() {
    tones_both_ways(CodecKind::Pcmu, SrtpPolicy::Optional, Transport::Udp);
}

#[test]
fn pcmu_in_the_clear_carries_tones() {
    tones_both_ways(CodecKind::Pcmu, SrtpPolicy::Disabled, Transport::Tcp);
}

#[test]
fn pcma_over_srtp_carries_tones() {
    tones_both_ways(CodecKind::Pcma, SrtpPolicy::Mandatory, Transport::Tcp);
}

#[test]
fn pcma_in_the_clear_carries_tones() {
    tones_both_ways(CodecKind::Pcma, SrtpPolicy::Disabled, Transport::Udp);
}

#[test]
fn tones_cross_over_tls_and_websockets() {
    let file = |name| Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name));
    for transport in [Transport::Tls, Transport::Ws, Transport::Wss] {
        let callee = Peer::new(|options, _| {
            (options.tls_port, options.ws_port, options.wss_port) = (Some(0), Some(0), Some(0));
            options.tls_certificate = file("loopback.pem");
        });
        let caller = Peer::new(|options, _| options.tls_ca = file("authority.pem"));
        let ((mut caller, out), (mut callee, into)) = talk(caller, callee, transport);
        let snapshot = callee.engine.snapshot(into).expect("it runs").expect("the call");
        assert_eq!(snapshot.transport, Some(transport));
        // The caller listens nowhere for this transport: BYE has to come over the connection it made.
        callee.engine.end(into, None).expect("it is established");
        caller.ended();
        callee.ended();
        assert!(caller.engine.snapshot(out).expect("it runs").is_none());
        caller.assert_sound();
        callee.assert_sound();
    }
}

#[test]
fn a_written_tone_comes_back_through_echo() {
    let ((caller, out), (callee, into)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    callee.audio(into).echo(true).expect("an open stream");
    let audio = caller.audio(out);
    let mut writer = audio.writer(200).expect("an open stream");
    let rate = 16_000;
    let tone: Vec<i16> = (0..3 * rate)
        .map(|n| ((f64::from(n) * 440.0 / f64::from(rate) * std::f64::consts::TAU).sin() * 8000.0) as i16)
        .collect();
    let listening = std::thread::spawn(move || hear(&audio, 440.0));
    assert_eq!(writer.write(&tone, rate as u32, PATIENCE), Ok(tone.len()));
    assert!(writer.queued_ms() <= 200);
    assert!(writer.wait_drained(PATIENCE));
    assert_eq!(writer.clear(), (3000, 0));
    listening.join().expect("the tone came back");
    assert_eq!(caller.audio(out).statistics().underruns, 0);

    caller.engine.end(out, None).expect("a running call");
    let mut caller = caller;
    caller.ended();
    assert_eq!(writer.write(&tone, rate as u32, PATIENCE), Err(EngineError::NoAudio));
    assert!(writer.is_over());
}

#[test]
fn clear_drops_what_waits() {
    let ((caller, out), (_callee, _)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    let mut writer = caller.audio(out).writer(1000).expect("an open stream");
    assert_eq!(writer.try_write(&[1000; 48_000], 48_000), Ok(48_000));
    assert_eq!(writer.try_write(&[1000; 960], 48_000), Ok(0));
    let (played, dropped) = writer.clear();
    assert!(played < 1000 && dropped > 0 && played + dropped == 1000, "{played} + {dropped}");
    assert!(writer.is_drained());
}

#[test]
fn samples_at_odd_rates_are_converted() {
    let ((caller, out), (callee, into)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    let mut writer = caller.audio(out).writer(500).expect("an open stream");
    let rate = 11_025;
    let tone: Vec<i16> = (0..3 * rate)
        .map(|n| ((f64::from(n) * 440.0 / f64::from(rate) * std::f64::consts::TAU).sin() * 8000.0) as i16)
        .collect();
    let audio = callee.audio(into);
    let listening = std::thread::spawn(move || hear(&audio, 440.0));
    assert_eq!(writer.write(&tone, rate as u32, PATIENCE), Ok(tone.len()));
    listening.join().expect("the tone arrived");
    assert!(writer.wait_drained(PATIENCE));
    let (played, _) = writer.clear();
    assert!((2990..=3010).contains(&played), "{played} ms");
}

#[test]
fn a_wav_file_plays_loops_and_stops() {
    let folder = Folder::new();
    let path = folder.path("tone.wav");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = hound::WavWriter::create(&path, spec).expect("a new file");
    for n in 0..8000 {
        file.write_sample(((f64::from(n) * 0.05 * std::f64::consts::TAU).sin() * 8000.0) as i16).expect("room");
    }
    file.finalize().expect("room");

    let ((caller, out), (callee, into)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    let audio = caller.audio(out);
    let missing = audio.play(PlaySource::Path(folder.path("missing.wav")), 1).err().expect("no such file");
    assert_eq!(missing.to_string(), format!("{}: no such file or folder", folder.path("missing.wav").display()));
    let nonsense = audio.play(PlaySource::Bytes(b"nonsense".as_slice().into()), 1).err().expect("no wav");
    assert!(nonsense.to_string().contains("not a wav file"), "{nonsense}");

    let endless = audio.play(PlaySource::Path(path.clone()), 0).expect("a wav file");
    hear(&callee.audio(into), 800.0);
    assert!(!endless.is_finished());
    endless.stop();
    assert!(endless.wait(PATIENCE));
    let once = audio.play(PlaySource::Bytes(std::fs::read(&path).expect("the file").into()), 2).expect("a wav file");
    assert!(once.wait(PATIENCE));
    assert!((980..=1020).contains(&once.position_ms()), "{} ms", once.position_ms());
    assert_eq!(once.error(), None);
    let cut_short = audio.play(PlaySource::Path(path), 0).expect("a wav file");
    caller.engine.end(out, None).expect("a running call");
    assert!(cut_short.wait(PATIENCE), "the end of a call ends its players");
}

#[test]
fn bridged_calls_hear_each_other_on_one_thread_and_across_two() {
    for threads in [1, 2] {
        let hub = Peer::new(|options, _| options.media_threads = Some(threads));
        let ((hub, first), (left, left_session)) = talk(hub, Peer::plain(), Transport::Udp);
        let ((hub, second), (right, right_session)) = talk(hub, Peer::plain(), Transport::Udp);
        let bridge = hub.audio(first).bridge(&hub.audio(second)).expect("two open streams");
        left.audio(left_session).tone(Some((500.0, -12.0))).expect("an open stream");
        right.audio(right_session).tone(Some((700.0, -12.0))).expect("an open stream");
        hear(&right.audio(right_session), 500.0);
        hear(&left.audio(left_session), 700.0);
        drop(bridge);
        let mut reader = left.audio(left_session).reader(8000, 1000).expect("an open stream");
        let deadline = Instant::now() + PATIENCE;
        while reader.read_frame(PATIENCE).is_none_or(|frame| frame.level() > -60.0) {
            assert!(Instant::now() < deadline, "still bridged");
        }
        hub.assert_sound();
    }
}

#[test]
fn muted_is_silent_for_the_peer() {
    let ((caller, out), (callee, into)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    let audio = caller.audio(out);
    audio.tone(Some((500.0, -12.0))).expect("an open stream");
    hear(&callee.audio(into), 500.0);
    audio.set_muted(true).expect("an open stream");
    let mut reader = callee.audio(into).reader(8000, 1000).expect("an open stream");
    let deadline = Instant::now() + PATIENCE;
    while reader.read_frame(PATIENCE).is_none_or(|frame| frame.level() > -60.0) {
        assert!(Instant::now() < deadline, "still heard");
    }
    audio.set_muted(false).expect("an open stream");
    hear(&callee.audio(into), 500.0);
}

#[test]
fn digits_arrive_once_each_and_in_order() {
    let ((caller, out), (mut callee, _)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    for digit in "12#".chars() {
        caller.engine.send_dtmf(out, digit).expect("an open stream");
    }
    for expected in "12#".chars() {
        let event = callee.wait("digit", |kind| matches!(kind, EventKind::SessionGotDTMF { .. }));
        assert_eq!(event.kind, EventKind::SessionGotDTMF { digit: expected });
    }
}

#[test]
fn garbage_harms_neither_the_engine_nor_a_call() {
    let ((caller, out), (callee, into)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    let addresses = callee.engine.addresses();
    let (sip, tcp) = (addresses.udp.expect("UDP is on"), addresses.tcp.expect("TCP is on"));
    let snapshot = callee.engine.snapshot(into).expect("it runs").expect("it lives");
    let rtp = snapshot.audio.as_ref().and_then(|audio| audio.local_rtp).expect("our RTP address");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let invite = b"INVITE sip:other@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKx\r\n\
        From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    let mut noise = 1u32;
    for round in 0..2000usize {
        let mut bytes = invite.to_vec();
        for _ in 0..round % 7 + 1 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = noise as usize % bytes.len();
            bytes[at] = (noise >> 24) as u8;
        }
        bytes.truncate(bytes.len() - round % bytes.len());
        socket.send_to(&bytes, sip).expect("sent");
        socket.send_to(&bytes, rtp).expect("sent");
        socket.send_to(&bytes, SocketAddr::new(rtp.ip(), rtp.port() + 1)).expect("sent");
        if round % 20 == 0 {
            let mut stream = TcpStream::connect(tcp).expect("it listens");
            let _ = stream.write_all(&bytes);
        }
    }
    caller.audio(out).tone(Some((1000.0, -12.0))).expect("an open stream");
    hear(&callee.audio(into), 1000.0);
    caller.assert_sound();
    callee.assert_sound();
    let mut callee = callee;
    caller.engine.end(out, None).expect("a running call");
    callee.ended();
}

/// An OPTIONS over TCP.
fn options(tcp: SocketAddr, number: u32) -> String {
    format!(
        "OPTIONS sip:other@{tcp} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n\
         From: <sip:a@127.0.0.1>;tag={number}\r\nTo: <sip:other@{tcp}>\r\nCall-ID: {number}@test\r\n\
         CSeq: {number} OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Reads until `count` responses are there.
fn responses(stream: &mut TcpStream, count: usize) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while text.matches("SIP/2.0 ").count() < count || !text.ends_with("\r\n\r\n") {
        let size = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {text}"));
        assert!(size > 0, "closed after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..size]));
    }
    text
}

#[test]
fn torn_and_glued_streams_are_followed_and_pings_answered() {
    let peer = Peer::plain();
    let tcp = peer.engine.addresses().tcp.expect("TCP is on");
    let mut stream = TcpStream::connect(tcp).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    for byte in options(tcp, 1).bytes() {
        stream.write_all(&[byte]).expect("sent");
    }
    assert!(responses(&mut stream, 1).starts_with("SIP/2.0 200 "));
    let glued = (2..12).map(|number| options(tcp, number)).collect::<String>();
    stream.write_all(glued.as_bytes()).expect("sent");
    assert_eq!(responses(&mut stream, 10).matches("SIP/2.0 200 ").count(), 10);
    stream.write_all(b"\r\n\r\n").expect("sent");
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).expect("an answer to the ping");
    assert_eq!(&pong, b"\r\n");

    // The peer closes its half after the request and still gets the answer, then the end.
    stream.write_all(options(tcp, 12).as_bytes()).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    assert!(responses(&mut stream, 1).starts_with("SIP/2.0 200 "));
    peer.assert_sound();
}

#[test]
fn a_stream_that_cannot_be_followed_is_closed_and_others_go_on() {
    let peer = Peer::plain();
    let tcp = peer.engine.addresses().tcp.expect("TCP is on");
    let mut good = TcpStream::connect(tcp).expect("it listens");
    let mut bad = TcpStream::connect(tcp).expect("it listens");
    bad.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let endless = options(tcp, 1).replace("Content-Length: 0", "Content-Length: 99999999999");
    bad.write_all(endless.as_bytes()).expect("sent");
    let mut rest = Vec::new();
    let _ = bad.read_to_end(&mut rest); // an answer or none; the end must come
    good.write_all(options(tcp, 2).as_bytes()).expect("sent");
    assert!(responses(&mut good, 1).starts_with("SIP/2.0 200 "));
    assert_eq!(peer.engine.stats().transport.tcp.lost, 1);
}

#[test]
fn a_refused_connection_fails_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    assert_fails_at_once(Peer::plain(), port);
}

#[test]
fn a_connection_closed_under_a_request_fails_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let accepting = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut first = [0; 6];
        stream.read_exact(&mut first).expect("the INVITE"); // and close without an answer
        assert_eq!(&first, b"INVITE");
    });
    assert_fails_at_once(Peer::plain(), port);
    accepting.join().expect("an INVITE came");
}

fn assert_fails_at_once(mut caller: Peer, port: u16) {
    let route = Route::new("127.0.0.1", port, Transport::Tcp);
    let call = Connect {
        account: caller.account,
        callee: Uri::parse(b"sip:nobody@127.0.0.1").expect("a URI"),
        routes: vec![route],
        audio: true,
        chat: false,
        late_offer: false,
        extra_headers: Vec::new(),
    };
    let began = Instant::now();
    caller.engine.connect(call).expect("a call can be tried");
    let failed = caller.wait("failure", |kind| matches!(kind, EventKind::SessionDidFail { .. }));
    let EventKind::SessionDidFail { code, .. } = failed.kind else { unreachable!("it was just matched") };
    assert_eq!(code, 503, "{failed:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let snapshot = failed.snapshot.expect("a last look");
    assert!(snapshot.start_time.is_none() && snapshot.stop_time.is_none(), "{snapshot:#?}");
}

#[test]
fn a_name_is_resolved_and_a_wrong_one_fails() {
    let (mut caller, mut callee) = (Peer::plain(), Peer::plain());
    let port = callee.engine.addresses().udp.expect("UDP is on").port();
    let account = caller.account;
    let connect = |host: &str| Connect {
        account,
        callee: Uri::parse(b"sip:other@127.0.0.1").expect("a URI"),
        routes: vec![Route::new(host, port, Transport::Udp)],
        audio: true,
        chat: false,
        late_offer: false,
        extra_headers: Vec::new(),
    };
    caller.engine.connect(connect("localhost")).expect("a call can be made");
    let session = callee.incoming();
    callee.engine.reject(session, 603, None).expect("it rings");
    caller.wait("refusal", |kind| matches!(kind, EventKind::SessionDidFail { code: 603, .. }));
    caller.engine.connect(connect("no-such-host.invalid")).expect("a call can be tried");
    caller.wait("failure", |kind| matches!(kind, EventKind::SessionDidFail { .. }));
}

#[test]
fn options_are_answered_with_a_round_trip() {
    let (mut caller, callee) = (Peer::plain(), Peer::plain());
    for (transport, address) in
        [(Transport::Udp, callee.engine.addresses().udp), (Transport::Tcp, callee.engine.addresses().tcp)]
    {
        let address = address.expect("it listens");
        let route = Route::new(address.ip().to_string(), address.port(), transport);
        let uri = Uri::parse(b"sip:other@127.0.0.1").expect("a URI");
        let asked = caller.engine.options(caller.account, uri, vec![route]).expect("it can be asked");
        let answer = caller.wait("answer", |kind| matches!(kind, EventKind::OptionsDidAnswer { .. }));
        let EventKind::OptionsDidAnswer { request, code, rtt, .. } = answer.kind else { unreachable!("just matched") };
        assert_eq!((request, code), (asked, 200));
        assert!(rtt.is_some_and(|rtt| rtt < 5.0));
    }
}

#[test]
fn stop_ends_calls_finishes_recordings_and_tells_the_peer() {
    let folder = Folder::new();
    let mut callee = Peer::plain();
    let caller = Peer::plain();
    let calls: Vec<SessionId> = (0..20).map(|_| caller.call(&callee, Transport::Udp)).collect();
    for _ in &calls {
        let session = callee.incoming();
        callee.engine.accept(session, true, false).expect("it rings");
    }
    let mut caller = caller;
    for (number, _) in calls.iter().enumerate() {
        let session = caller.started().session().expect("a session event");
        caller
            .engine
            .start_recording(session, &folder.path(&format!("{number}.wav")), RecordingLayout::Mix)
            .expect("a new file");
    }
    for _ in &calls {
        caller.wait("recording", |kind| matches!(kind, EventKind::SessionDidStartRecordingAudio { .. }));
    }
    let ringing = caller.call(&callee, Transport::Udp);
    callee.incoming();
    let began = Instant::now();
    let report = caller.engine.stop(Duration::from_secs(2));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!((report.sessions, report.unfinished, report.joined), (21, 0, true));
    for _ in 0..20 {
        callee.ended();
    }
    callee.wait("cancelled call", |kind| matches!(kind, EventKind::SessionDidFail { code: 487, .. }));
    for number in 0..20 {
        hound::WavReader::open(folder.path(&format!("{number}.wav"))).expect("a finished wav file");
    }
    let ended = caller.wait("end", |kind| matches!(kind, EventKind::EngineDidEnd));
    assert_eq!(ended.session(), None);
    assert!(caller.engine.next_events(10, PATIENCE).is_empty(), "at once, and nothing after the end");
    assert!(!caller.engine.is_running());
    assert_eq!(caller.engine.end(ringing, None), Err(EngineError::Stopped));
    assert_eq!(caller.engine.stop(Duration::from_secs(2)), report, "stopping twice is harmless");
    caller.engine.stats();
}

#[test]
fn stop_does_not_wait_for_a_peer_that_is_gone() {
    let ((caller, _), (callee, _)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    // The callee's engine ends without a word: nothing answers the BYE.
    let relay = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = relay.local_addr().expect("bound");
    let route = Route::new("127.0.0.1", address.port(), Transport::Udp);
    let call = Connect {
        account: caller.account,
        callee: Uri::parse(b"sip:deaf@127.0.0.1").expect("a URI"),
        routes: vec![route],
        audio: true,
        chat: false,
        late_offer: false,
        extra_headers: Vec::new(),
    };
    caller.engine.connect(call).expect("a call can be tried");
    let began = Instant::now();
    let report = caller.engine.stop(Duration::from_secs(1));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(report.joined, "{report:?}");
    drop(callee);
}

#[test]
fn a_busy_port_is_named() {
    let peer = Peer::plain();
    let port = peer.engine.addresses().udp.expect("UDP is on").port();
    let local_ip = Some("127.0.0.1".parse().expect("an address"));
    let options = EngineOptions { local_ip, udp_port: Some(port), ..EngineOptions::default() };
    let error = Engine::start(options).err().expect("the port is taken");
    assert_eq!(error.to_string(), format!("udp_port {port} on 127.0.0.1: address in use"));
    let tcp_port = peer.engine.addresses().tcp.expect("TCP is on").port();
    let options = EngineOptions { local_ip, udp_port: None, tcp_port: Some(tcp_port), ..EngineOptions::default() };
    let error = Engine::start(options).err().expect("the port is taken");
    assert_eq!(error.to_string(), format!("tcp_port {tcp_port} on 127.0.0.1: address in use"));
    let options = EngineOptions { media_threads: Some(0), ..EngineOptions::default() };
    let error = Engine::start(options).err().expect("no threads");
    assert_eq!(error.to_string(), "media_threads 0: at least 1");
    let options = EngineOptions { audio_device: "default".to_owned(), ..EngineOptions::default() };
    let error = Engine::start(options).err().expect("no library was named");
    assert!(error.to_string().starts_with("audio_device \"default\": no sound-card library"), "{error}");
}

#[test]
fn a_recording_that_cannot_be_written_is_refused_at_once() {
    let folder = Folder::new();
    let ((caller, out), (_callee, _)) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    let nowhere = folder.path("missing/call.wav");
    let error = caller.engine.start_recording(out, &nowhere, RecordingLayout::Mix).expect_err("no such folder");
    assert_eq!(error.to_string(), format!("{}: no such file or folder", nowhere.display()));
    let path = folder.path("call.wav");
    std::fs::write(&path, "precious").expect("room");
    let error = caller.engine.start_recording(out, &path, RecordingLayout::Mix).expect_err("it exists");
    assert_eq!(error.to_string(), format!("{}: the file exists", path.display()));
    assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    // A verb that is refused leaves no file behind.
    let other = folder.path("other.wav");
    assert!(matches!(
        caller.engine.start_recording(SessionId(4711), &other, RecordingLayout::Mix),
        Err(EngineError::Verb(_))
    ));
    assert!(!other.exists());
}

#[test]
fn the_trace_shows_messages_without_keys() {
    let traced = || {
        Peer::new(|options, settings| {
            options.trace_sip = true;
            settings.srtp = SrtpPolicy::Mandatory;
        })
    };
    let mut caller = traced();
    let callee = traced();
    let callee_address = callee.engine.addresses().udp.expect("UDP is on");
    caller.call(&callee, Transport::Udp);
    let event = caller.wait("trace", |kind| matches!(kind, EventKind::EngineSIPTrace { received: false, .. }));
    let EventKind::EngineSIPTrace { source, destination, transport, data, .. } = event.kind else {
        unreachable!("just matched")
    };
    assert_eq!((source, destination), (caller.engine.addresses().udp.expect("UDP is on"), callee_address));
    assert_eq!(transport, Transport::Udp);
    let text = String::from_utf8_lossy(&data);
    assert!(text.starts_with("INVITE ") && text.contains("inline:********"), "{text}");
}

#[test]
fn times_are_stamped_at_start_and_end() {
    let before = std::time::SystemTime::now();
    let ((mut caller, out), _callee) = talk(Peer::plain(), Peer::plain(), Transport::Udp);
    let snapshot = caller.engine.snapshot(out).expect("it runs").expect("it lives");
    let start = snapshot.start_time.expect("stamped");
    assert!(start >= before && snapshot.stop_time.is_none());
    caller.engine.end(out, None).expect("a running call");
    let snapshot = caller.ended().snapshot.expect("a last look");
    assert_eq!(snapshot.start_time, Some(start));
    assert!(snapshot.stop_time.is_some_and(|stop| stop >= start));
}

#[test]
fn many_threads_may_use_one_engine() {
    let (mut caller, callee) = (Peer::plain(), Peer::plain());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let session = caller.call(&callee, Transport::Udp);
                    caller.engine.snapshot(session).expect("it runs");
                    caller.engine.sessions().expect("it runs");
                    caller.engine.stats();
                    caller.engine.end(session, None).expect("a session of ours");
                }
            });
        }
    });
    for _ in 0..80 {
        caller.wait("cancelled call", |kind| {
            matches!(kind, EventKind::SessionDidFail { .. } | EventKind::SessionDidEnd { .. })
        });
    }
    caller.assert_sound();
    callee.assert_sound();
}
