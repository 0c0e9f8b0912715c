//! Two sessions against each other over a simulated line in virtual time.

use std::collections::BTreeMap;

use super::*;
use crate::media::{Direction, PayloadFormat, SrtpKey, SrtpSuite};

const A: u8 = 1;
const B: u8 = 2;

fn address(host: u8, port: u16) -> SocketAddr {
    ([192, 0, 2, host], port).into()
}

fn payload_type(codec: CodecKind) -> u8 {
    codec.static_payload_type().unwrap_or(111)
}

/// What `us` runs with towards `peer`.
fn params(codec: CodecKind, us: u8, peer: u8, suite: Option<SrtpSuite>) -> AudioParams {
    let format = PayloadFormat { codec, payload_type: payload_type(codec) };
    let key = |host| SrtpKey([host; 30]);
    AudioParams {
        remote_rtp: address(peer, 4000),
        remote_rtcp: address(peer, 4001),
        rtcp_mux: false,
        direction: Direction::SendRecv,
        send: format,
        receive: vec![format],
        dtmf_send: Some(101),
        dtmf_receive: Some(101),
        ptime_ms: 20,
        srtp: suite.map(|suite| SrtpParams { suite, local: key(us), remote: key(peer) }),
        symmetric: true,
    }
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

struct End {
    session: RtpSession,
    host: u8,
    frequency: f64,
    pushed: usize,
    heard: Vec<i16>,
    received: Vec<Received>,
    events: Vec<MediaEvent>,
    sent: Vec<Vec<u8>>,
}

impl End {
    fn tick(&mut self, now: Instant) {
        let rate = self.session.sample_rate();
        let mut frame = vec![0; rate as usize / 50];
        self.received.push(self.session.pull_frame(&mut frame, now));
        self.heard.extend_from_slice(&frame);
        for sample in &mut frame {
            let phase = std::f64::consts::TAU * self.frequency * self.pushed as f64 / f64::from(rate);
            *sample = (8000.0 * phase.sin()) as i16;
            self.pushed += 1;
        }
        self.session.push_frame(&frame, now);
    }

    fn count(&self, kind: Received) -> usize {
        self.received.iter().filter(|&&received| received == kind).count()
    }

    /// Power of our peer's tone against all power in the last `seconds`, 0 to 1 (Goertzel over blocks of 100 ms).
    fn purity(&self, frequency: f64, seconds: usize) -> f64 {
        let rate = self.session.sample_rate() as usize;
        let samples = &self.heard[self.heard.len().saturating_sub(rate * seconds)..];
        let blocks: Vec<_> =
            samples.chunks_exact(rate / 10).map(|block| goertzel(block, frequency, rate as f64)).collect();
        blocks.iter().sum::<f64>() / blocks.len().max(1) as f64
    }
}

fn goertzel(block: &[i16], frequency: f64, rate: f64) -> f64 {
    let coefficient = 2.0 * (std::f64::consts::TAU * frequency / rate).cos();
    let (mut s1, mut s2, mut energy) = (0.0, 0.0, 1.0);
    for &sample in block {
        let sample = f64::from(sample);
        (s1, s2) = (sample + coefficient * s1 - s2, s1);
        energy += sample * sample;
    }
    (s1 * s1 + s2 * s2 - coefficient * s1 * s2) / (energy * block.len() as f64 / 2.0)
}

/// How a line treats one packet: `None` loses it, else its delay in ms; more than one for duplicates.
type Line = Box<dyn FnMut(&mut StdRng) -> Vec<u64>>;

/// A datagram on its way: from and to host, channel, bytes.
type Flying = (u8, u8, Channel, Vec<u8>);

struct Call {
    a: End,
    b: End,
    start: Instant,
    ms: u64,
    random: StdRng,
    line: Line,
    flying: BTreeMap<(u64, u64), Flying>,
    serial: u64,
}

impl Call {
    fn new(a: AudioParams, b: AudioParams, line: impl FnMut(&mut StdRng) -> Vec<u64> + 'static) -> Self {
        let (start, mut random) = (origin(), StdRng::seed_from_u64(1));
        let mut end = |params, host, frequency| End {
            session: RtpSession::new(params, "test@example.com", &mut random, start),
            host,
            frequency,
            pushed: 0,
            heard: Vec::new(),
            received: Vec::new(),
            events: Vec::new(),
            sent: Vec::new(),
        };
        let (a, b) = (end(a, A, 400.0), end(b, B, 700.0));
        Self { a, b, start, ms: 0, random, line: Box::new(line), flying: BTreeMap::new(), serial: 0 }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    /// Lets the call go on for `ms` milliseconds; ends tick at their own phases.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ms += 1;
            let now = self.now();
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.ms) {
                let (from, to, channel, mut bytes) = entry.remove();
                let port = if channel == Channel::Rtp { 4000 } else { 4001 };
                let end = if to == A { &mut self.a } else { &mut self.b };
                end.session.handle_packet(channel, &mut bytes, address(from, port), now);
            }
            for (end, phase) in [(&mut self.a, 3), (&mut self.b, 14)] {
                if self.ms % 20 == phase {
                    end.tick(now);
                }
                if end.session.poll_timeout().is_some_and(|at| at <= now) {
                    end.session.handle_timeout(now);
                }
                end.events.extend(std::iter::from_fn(|| end.session.poll_event()));
                while let Some((channel, to, bytes)) = end.session.poll_transmit() {
                    let host = if to.ip() == address(A, 0).ip() { A } else { B };
                    end.sent.push(bytes.to_vec());
                    for delay in (self.line)(&mut self.random) {
                        self.serial += 1;
                        let flying = (end.host, host, channel, bytes.to_vec());
                        self.flying.insert((self.ms + delay, self.serial), flying);
                    }
                }
            }
        }
    }
}

fn clean(_: &mut StdRng) -> Vec<u64> {
    vec![5]
}

fn call(codec: CodecKind, suite: Option<SrtpSuite>, line: impl FnMut(&mut StdRng) -> Vec<u64> + 'static) -> Call {
    Call::new(params(codec, A, B, suite), params(codec, B, A, suite), line)
}

#[test]
fn every_codec_carries_a_tone_both_ways_with_and_without_srtp() {
    for codec in CodecKind::ALL {
        for suite in [None, Some(SrtpSuite::AesCm128HmacSha1_80), Some(SrtpSuite::AesCm128HmacSha1_32)] {
            let mut call = call(codec, suite, clean);
            call.run(10_000);
            let what = format!("{codec} {suite:?}");
            for (end, peer) in [(&call.a, 700.0), (&call.b, 400.0)] {
                assert!(end.purity(peer, 8) > 0.98, "{what}: {}", end.purity(peer, 8));
                assert_eq!(end.count(Received::Concealed), 0, "{what}");
                assert!(end.count(Received::Silence) <= 2, "{what}");
                assert_eq!(end.events, [MediaEvent::Received { from: address(3 - end.host, 4000) }], "{what}");
                let statistics = end.session.statistics();
                assert_eq!((statistics.packets_sent, statistics.discarded, statistics.lost), (500, 0, 0), "{what}");
                assert!(statistics.packets_received >= 498, "{what}");
                let rtt = statistics.rtt_ms.expect("reports crossed");
                assert!((9.0..=11.5).contains(&rtt), "{what}: {rtt} ms");
            }
        }
    }
}

#[test]
fn a_tone_survives_loss_jitter_reordering_and_duplication() {
    for codec in CodecKind::ALL {
        let line = |random: &mut StdRng| {
            let copies = if random.random_bool(0.05) { 0 } else { 1 + usize::from(random.random_bool(0.03)) };
            (0..copies).map(|_| 20 + random.random_range(0..40)).collect()
        };
        let mut call = call(codec, Some(SrtpSuite::AesCm128HmacSha1_80), line);
        call.run(60_000);
        for (end, peer) in [(&call.a, 700.0), (&call.b, 400.0)] {
            let statistics = end.session.statistics();
            assert!(end.purity(peer, 50) > 0.8, "{codec}: {}", end.purity(peer, 50));
            assert!((90..=210).contains(&statistics.lost), "{codec}: {statistics:?}");
            assert!(statistics.discarded >= 40, "SRTP discards copies as replays: {statistics:?}");
            let bad = end.count(Received::Concealed) + end.count(Received::Silence);
            assert!((100..=330).contains(&bad), "{codec}: {bad} of 3000 frames not decoded");
            assert!(statistics.remote_lost > 50, "{codec}: {statistics:?}");
            assert!((3.0..=20.0).contains(&statistics.jitter_ms), "{codec}: {statistics:?}");
        }
    }
}

#[test]
fn packets_have_the_agreed_length() {
    for codec in CodecKind::ALL {
        for (ptime_ms, ms) in [(10, 10), (20, 20), (30, 20), (40, 40), (60, 60), (200, 60), (0, 10)] {
            let mut ours = params(codec, A, B, None);
            ours.ptime_ms = ptime_ms;
            let mut call = Call::new(ours, params(codec, B, A, None), clean);
            call.run(6_003);
            let headers = call.a.sent.iter().filter(|bytes| Protocol::of(bytes) == Some(Protocol::Rtp));
            let headers: Vec<_> = headers.map(|bytes| Header::parse(bytes).expect("RTP").0).collect();
            let count = 6_000 / ms;
            assert!(headers.len().abs_diff(count as usize) <= 2, "{codec} {ptime_ms}: {}", headers.len());
            for pair in headers.windows(2) {
                assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
                let units = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
                assert_eq!(units, codec.clock_rate() * ms / 1000, "{codec} {ptime_ms}");
            }
            assert!(headers[0].marker && headers[1..].iter().all(|header| !header.marker));
            assert!(call.b.purity(400.0, 4) > 0.97, "{codec} {ptime_ms}: {}", call.b.purity(400.0, 4));
            assert_eq!(call.b.count(Received::Concealed), 0, "{codec} {ptime_ms}");
        }
    }
}

#[test]
fn forged_packets_change_nothing_that_is_heard() {
    for suite in [None, Some(SrtpSuite::AesCm128HmacSha1_80)] {
        let run = |forge: bool| {
            let mut call = call(CodecKind::Pcmu, suite, clean);
            call.run(100);
            let mut random = StdRng::seed_from_u64(77);
            let real = call.a.sent.last().expect("packets flow").clone();
            for _ in 0..1_000 {
                call.run(2);
                for n in 0..if forge { 100 } else { 0 } {
                    let (mut bytes, channel) = match n % 5 {
                        // Right source address too, for SRTP must stand alone; without it only strangers are told apart.
                        0 | 1 => (real.clone(), Channel::Rtp),
                        2 => ((0..random.random_range(0..200)).map(|_| random.random()).collect(), Channel::Rtp),
                        3 => ([0x80, 203, 0, 1, 1, 2, 3, 4].to_vec(), Channel::Rtcp),
                        _ => ([0x80, 0].into_iter().chain((0..170).map(|_| random.random())).collect(), Channel::Rtp),
                    };
                    if n % 5 < 2 && bytes.len() > 20 {
                        let at = random.random_range(2..bytes.len());
                        bytes[at] ^= 1 << random.random_range(0..8);
                    }
                    let host = if suite.is_some() && n % 2 == 0 { A } else { 9 };
                    let now = call.now();
                    call.b.session.handle_packet(channel, &mut bytes, address(host, 4000), now);
                }
            }
            call
        };
        let (control, attacked) = (run(false), run(true));
        assert_eq!(control.b.heard, attacked.b.heard, "{suite:?}");
        assert_eq!(control.b.events, attacked.b.events);
        let (before, after) = (control.b.session.statistics(), attacked.b.session.statistics());
        assert_eq!(after.discarded, 100_000, "each forged packet is counted");
        assert_eq!(Statistics { discarded: 0, ..after }, Statistics { discarded: 0, ..before });
    }
}

#[test]
fn of_two_senders_only_the_believed_one_is_heard_and_answered() {
    // B's SDP says a private address; its packets come from host 2, and an intruder sends from host 9.
    let mut ours = params(CodecKind::Pcma, A, 77, None);
    ours.remote_rtp = address(77, 4000);
    let mut call = Call::new(ours, params(CodecKind::Pcma, B, A, None), clean);
    let intruder = |n: u16| {
        let header = Header { marker: false, payload_type: 8, sequence: n * 3, timestamp: u32::from(n) * 160, ssrc: 5 };
        [header.to_bytes().as_slice(), &[0x2a; 160]].concat()
    };
    for n in 0..200 {
        call.run(20);
        let now = call.now();
        call.a.session.handle_packet(Channel::Rtp, &mut intruder(n), address(9, 4000), now);
    }
    assert_eq!(call.a.events, [MediaEvent::Received { from: address(B, 4000) }]);
    assert!(call.a.purity(700.0, 3) > 0.98);
    assert!(call.b.purity(400.0, 3) > 0.98, "we send to where the packets come from");
    assert!((200..=204).contains(&call.a.session.statistics().discarded));
}

#[test]
fn without_symmetric_rtp_we_send_where_the_sdp_says() {
    let mut ours = params(CodecKind::Pcmu, A, 77, None);
    ours.symmetric = false;
    let mut session = RtpSession::new(ours, "x", &mut StdRng::seed_from_u64(1), origin());
    let now = origin();
    for n in 0..6 {
        let header = Header { marker: false, payload_type: 0, sequence: n, timestamp: u32::from(n) * 160, ssrc: 5 };
        let mut packet = [header.to_bytes().as_slice(), &[0xff; 160]].concat();
        session.handle_packet(Channel::Rtp, &mut packet, address(9, 4000), now);
    }
    session.push_frame(&[0; 160], now);
    assert_eq!(session.poll_transmit().map(|(_, to, _)| to), Some(address(77, 4000)));
    assert_eq!(session.statistics().packets_received, 3);
}

#[test]
fn digits_arrive_once_each_through_loss_and_audio_goes_on() {
    for codec in CodecKind::ALL {
        let line =
            |random: &mut StdRng| if random.random_bool(0.1) { vec![] } else { vec![10 + random.random_range(0..20)] };
        let mut call = call(codec, Some(SrtpSuite::AesCm128HmacSha1_32), line);
        call.run(1_000);
        let sent = "0123456789*#ABCD55";
        assert!(sent.chars().all(|digit| call.a.session.send_dtmf(digit)));
        assert!(!call.a.session.send_dtmf('x'));
        call.run(6_000);
        let digits: String = call
            .b
            .events
            .iter()
            .filter_map(|event| match event {
                MediaEvent::Dtmf(digit) => Some(*digit),
                _ => None,
            })
            .collect();
        assert_eq!(digits, sent, "{codec}");
        assert!(call.b.purity(400.0, 2) > 0.75, "{codec}: {}", call.b.purity(400.0, 2));
    }
}

#[test]
fn no_audio_is_told_once_after_five_seconds_unless_we_do_not_receive() {
    let mut call = call(CodecKind::Pcmu, None, |_| vec![]);
    call.run(4_999);
    assert_eq!(call.a.events, []);
    call.run(20_000);
    assert_eq!(call.a.events, [MediaEvent::NoAudio]);
    let mut ours = params(CodecKind::Pcmu, A, B, None);
    ours.direction = Direction::SendOnly;
    let mut call = Call::new(ours.clone(), params(CodecKind::Pcmu, B, A, None), |_| vec![]);
    call.run(20_000);
    assert_eq!(call.a.events, []);
    ours.direction = Direction::SendRecv;
    let now = call.now();
    call.a.session.update(ours, now);
    call.run(5_001);
    assert_eq!(call.a.events, [MediaEvent::NoAudio]);
}

#[test]
fn hold_sends_nothing_but_reports_and_resuming_goes_on_with_the_numbers() {
    let suite = Some(SrtpSuite::AesCm128HmacSha1_80);
    let mut call = call(CodecKind::Opus, suite, clean);
    call.run(2_000);
    let last = Header::parse(call.a.sent.last().unwrap()).unwrap().0;
    let mut held = params(CodecKind::Opus, A, B, suite);
    held.direction = Direction::Inactive;
    let now = call.now();
    call.a.session.update(held.clone(), now);
    call.a.sent.clear();
    call.run(20_000);
    assert!((2..=8).contains(&call.a.sent.len()), "{} datagrams", call.a.sent.len());
    assert!(call.a.sent.iter().all(|bytes| Protocol::of(bytes) == Some(Protocol::Rtcp)));
    assert!(call.a.received[call.a.received.len() - 900..].iter().all(|&received| received == Received::Silence));

    call.a.sent.clear();
    let now = call.now();
    call.a.session.update(params(CodecKind::Opus, A, B, suite), now);
    call.run(3_000);
    let next = Header::parse(&call.a.sent[0]).unwrap().0;
    assert!(next.marker && next.ssrc == last.ssrc && next.sequence == last.sequence.wrapping_add(1));
    let gap = next.timestamp.wrapping_sub(last.timestamp);
    assert!((19_900 * 48..=20_100 * 48).contains(&gap), "{gap}");
    assert!(call.a.purity(700.0, 2) > 0.95 && call.b.purity(400.0, 2) > 0.95);
}

#[test]
fn a_reinvite_may_change_codec_keys_and_packet_length() {
    let mut call = call(CodecKind::Pcmu, Some(SrtpSuite::AesCm128HmacSha1_80), clean);
    call.run(2_000);
    let steps = [
        (CodecKind::Opus, Some(SrtpSuite::AesCm128HmacSha1_32), 40),
        (CodecKind::G722, None, 20),
        (CodecKind::Pcma, Some(SrtpSuite::AesCm128HmacSha1_80), 60),
    ];
    for (codec, suite, ptime_ms) in steps {
        let ssrc = call.a.session.ssrc();
        for (end, peer) in [(&mut call.a, B), (&mut call.b, A)] {
            let now = call.start + Duration::from_millis(call.ms);
            let params = AudioParams { ptime_ms, ..params(codec, end.host, peer, suite) };
            end.session.update(params.clone(), now);
            assert_eq!(*end.session.params(), params);
            (end.heard, end.received, end.pushed) = Default::default();
        }
        call.run(4_000);
        assert_eq!(call.a.session.ssrc(), ssrc);
        assert!(call.b.purity(400.0, 2) > 0.97, "{codec}: {}", call.b.purity(400.0, 2));
        assert!(call.a.purity(700.0, 2) > 0.97, "{codec}: {}", call.a.purity(700.0, 2));
    }
}

#[test]
fn the_peer_may_send_any_agreed_codec_at_any_time() {
    let formats = CodecKind::ALL.map(|codec| PayloadFormat { codec, payload_type: payload_type(codec) });
    for ours in CodecKind::ALL {
        let receive = AudioParams { receive: formats.to_vec(), ..params(ours, A, B, None) };
        let mut call = Call::new(receive, params(CodecKind::Pcmu, B, A, None), clean);
        for theirs in CodecKind::ALL {
            let now = call.now();
            let send = AudioParams { receive: formats.to_vec(), ..params(theirs, B, A, None) };
            call.b.session.update(send, now);
            call.b.pushed = 0;
            call.run(3_000);
            let purity = call.a.purity(700.0, 2);
            assert!(purity > 0.97, "we {ours}, they {theirs}: {purity}");
        }
    }
}

#[test]
fn rtcp_is_multiplexed_when_agreed() {
    let mut ours = params(CodecKind::Pcmu, A, B, None);
    ours.rtcp_mux = true;
    let start = origin();
    let mut session = RtpSession::new(ours, "a@b", &mut StdRng::seed_from_u64(1), start);
    let due = session.poll_timeout().expect("a report is due");
    session.handle_timeout(due);
    let (channel, to, bytes) = session.poll_transmit().expect("a report");
    assert_eq!((channel, to, Protocol::of(bytes)), (Channel::Rtp, address(B, 4000), Some(Protocol::Rtcp)));
}

#[test]
fn reports_come_at_random_moments_around_five_seconds() {
    let start = origin();
    let mut session = RtpSession::new(params(CodecKind::Pcmu, A, B, None), "a@b", &mut StdRng::seed_from_u64(1), start);
    session.lock.judge(address(B, 4000), 1, 1, false, start); // so that no NoAudio timer mixes in
    session.silent_until = None;
    let mut at = start;
    let mut intervals = Vec::new();
    for _ in 0..1_000 {
        let due = session.poll_timeout().expect("the next report");
        intervals.push((due - at).as_secs_f64());
        at = due;
        session.handle_timeout(at);
        assert!(session.poll_transmit().is_some() && session.poll_transmit().is_none());
    }
    assert!(intervals[1..].iter().all(|interval| (2.05..=6.16).contains(interval)));
    let mean = intervals.iter().sum::<f64>() / 1_000.0;
    assert!((3.9..=4.3).contains(&mean), "{mean}");
}

#[test]
fn bye_is_sent_last_and_a_received_one_ends_nothing() {
    let mut call = call(CodecKind::Pcmu, None, clean);
    call.run(1_000);
    let now = call.now();
    call.b.session.close(now);
    call.b.session.close(now);
    call.b.sent.clear();
    call.run(1_000);
    assert_eq!(call.b.sent.len(), 1);
    let packets: Vec<_> = rtcp::Compound::parse(&call.b.sent[0]).unwrap().collect();
    assert!(matches!(packets[..], [rtcp::Packet::SenderReport { .. }, _, rtcp::Packet::Bye(_)]), "{packets:?}");
    assert_eq!(call.b.session.poll_timeout(), None);
    assert_eq!(call.a.events.len(), 1);
    assert!(call.a.session.statistics().packets_sent >= 99);
}

#[test]
fn the_trace_tells_arrival_against_timestamp_and_is_bounded() {
    let mut call = call(CodecKind::G722, None, |random| {
        if random.random_bool(0.1) { vec![] } else { vec![20 + random.random_range(0..=5)] }
    });
    call.a.session.trace(100);
    call.run(10_000);
    let trace = call.a.session.take_trace();
    assert_eq!(trace.len(), 100);
    assert!(trace.iter().all(|packet| packet.deviation_ms.abs() <= 5.001), "{trace:?}");
    assert!(trace.iter().map(|packet| packet.lost_before).sum::<u16>() >= 3);
    assert!(trace.is_sorted_by(|a, b| a.at <= b.at) && trace[0].at > 7.0);
    assert_eq!(call.a.session.take_trace(), []);
}

#[test]
fn unknown_payload_types_of_the_peer_are_discarded_without_a_gap() {
    let start = origin();
    let mut session = RtpSession::new(params(CodecKind::Pcmu, A, B, None), "x", &mut StdRng::seed_from_u64(1), start);
    let mut received = Vec::new();
    for n in 0..200u16 {
        let now = start + Duration::from_millis(20 * u64::from(n));
        let payload_type = if n % 20 == 19 { 13 } else { 0 }; // comfort noise, never agreed
        let header = Header { marker: false, payload_type, sequence: n, timestamp: u32::from(n) * 160, ssrc: 5 };
        let mut packet = [header.to_bytes().as_slice(), &[0xff; 160]].concat();
        session.handle_packet(Channel::Rtp, &mut packet, address(B, 4000), now);
        received.push(session.pull_frame(&mut [0; 160], now + Duration::from_millis(12)));
    }
    assert_eq!(session.statistics().discarded, 10);
    assert_eq!(session.statistics().lost, 0);
    assert!(!received.contains(&Received::Concealed), "a pause, no loss");
}
