//! Many calls at once between two engines on loopback, each end playing a wav file and recording: what media costs.
//!
//! `cargo run --release --example media_load -- [CALLS [SECONDS [CODEC]]]`, by default 100 calls of 10 s with PCMU. It
//! prints CPU seconds a call-minute (one end of one call for one minute), what was lost, and how late ticks were.

use std::time::{Duration, Instant};

use sipwire::engine::{Engine, EngineOptions, PlaySource};
use sipwire::event::{AccountId, EventKind, Route, SessionId};
use sipwire::media::{CodecKind, RecordingLayout, SrtpPolicy};
use sipwire::sip::transport::Transport;
use sipwire::sip::uri::Uri;
use sipwire::ua::{AccountSettings, Connect};

type Failure = Box<dyn std::error::Error>;

#[expect(clippy::disallowed_methods, reason = "a program measures real time")]
fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let calls: usize = arguments.first().map_or(Ok(100), |calls| calls.parse())?;
    let seconds: u64 = arguments.get(1).map_or(Ok(10), |seconds| seconds.parse())?;
    let codec = arguments.get(2).map_or("PCMU", String::as_str);
    let codec = CodecKind::from_name(codec).ok_or_else(|| format!("there is no codec {codec:?}"))?;

    let folder = std::env::temp_dir().join(format!("sipwire-media-load-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let (caller, account) = engine(codec, (16_384, 24_575))?;
    let (callee, _) = engine(codec, (24_576, 32_767))?;
    let address = callee.addresses().udp.ok_or("UDP is on")?;
    let route = Route::new(address.ip().to_string(), address.port(), Transport::Udp);
    for _ in 0..calls {
        caller.connect(Connect {
            account,
            callee: Uri::parse(b"sip:callee@127.0.0.1")?,
            routes: vec![route.clone()],
            audio: true,
            chat: false,
            late_offer: false,
            extra_headers: Vec::new(),
        })?;
    }
    let speech: std::sync::Arc<[u8]> = wav(codec.sample_rate())?.into();
    let mut running: Vec<(&Engine, SessionId)> = Vec::new();
    let patience = Instant::now() + Duration::from_secs(30);
    while running.len() < 2 * calls {
        if Instant::now() > patience {
            return Err(format!("only {} of {} ends started", running.len(), 2 * calls).into());
        }
        for engine in [&caller, &callee] {
            for timed in engine.next_events(1000, Duration::from_millis(1)) {
                match (&timed.event.kind, timed.event.session()) {
                    (EventKind::SessionNewIncoming { .. }, Some(session)) => engine.accept(session, true, false)?,
                    (EventKind::SessionDidStart, Some(session)) => running.push((engine, session)),
                    (EventKind::SessionDidFail { code, reason, .. }, _) => println!("failed: {code} {reason}"),
                    _ => {}
                }
            }
        }
    }
    for (number, (engine, session)) in running.iter().enumerate() {
        engine.start_recording(*session, &folder.join(format!("{number}.wav")), RecordingLayout::Mix)?;
        engine.audio(*session).ok_or("it has audio")?.play(PlaySource::Bytes(speech.clone()), 0)?;
    }

    let ticks = |engine: &Engine| {
        engine
            .stats()
            .media
            .iter()
            .map(|thread| (thread.late_ticks, thread.skipped_ticks))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    let (before, began, late_before) = (cpu_time(), Instant::now(), (ticks(&caller), ticks(&callee)));
    let until = began + Duration::from_secs(seconds);
    while Instant::now() < until {
        for engine in [&caller, &callee] {
            engine.next_events(1000, Duration::from_millis(100));
        }
    }
    let (cpu, took) = (cpu_time() - before, began.elapsed());
    let call_minutes = 2.0 * calls as f64 * took.as_secs_f64() / 60.0;
    println!(
        "{calls} {codec} calls, {:.1} s: {:.4} CPU-s a call-minute ({:.1} % of a core in all)",
        took.as_secs_f64(),
        cpu.as_secs_f64() / call_minutes,
        100.0 * cpu.as_secs_f64() / took.as_secs_f64()
    );
    let mut sum = sipwire::rtp::session::Statistics::default();
    for (engine, session) in &running {
        let rtp = engine.audio(*session).ok_or("it has audio")?.statistics().rtp;
        sum.packets_sent += rtp.packets_sent;
        sum.packets_received += rtp.packets_received;
        sum.lost += rtp.lost;
        sum.late += rtp.late;
        sum.discarded += rtp.discarded;
        sum.concealed_ms += rtp.concealed_ms;
    }
    println!("{sum:?}");
    println!("late and skipped ticks before: {late_before:?}, after: {:?}", (ticks(&caller), ticks(&callee)));
    for engine in [&caller, &callee] {
        println!("{:?}", engine.stats().media);
        println!("{:?}", engine.stop(Duration::from_secs(5)));
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn engine(codec: CodecKind, rtp_port_range: (u16, u16)) -> Result<(Engine, AccountId), Failure> {
    let engine = Engine::start(EngineOptions {
        local_ip: Some("127.0.0.1".parse()?),
        codecs: vec![codec],
        accepts_calls: true,
        invite_rate: 100_000,
        invite_rate_per_source: 100_000,
        rtp_port_range,
        ..EngineOptions::default()
    })?;
    let account = engine.add_account(AccountSettings {
        catch_all: true,
        srtp: SrtpPolicy::Disabled,
        ..AccountSettings::new(Uri::parse(b"sip:load@127.0.0.1")?)
    })?;
    Ok((engine, account))
}

/// Ten seconds of the demo voice.
fn wav(rate: u32) -> Result<Vec<u8>, Failure> {
    let spec =
        hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec)?;
    for sample in sipwire::audio::tone::voice(10.0, rate, 1) {
        writer.write_sample(sample)?;
    }
    writer.finalize()?;
    Ok(bytes.into_inner())
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is a valid one, and getrusage only writes into it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
