//! The sound-card library against a PulseAudio server of our own, with a null sink for a speaker and its monitor for a
//! microphone: a tone played is a tone heard.
//!
//! Needs `cargo build -p sipwire-devices` (ALSA headers) and the program `pulseaudio`; says so and passes without them.
#![allow(clippy::disallowed_methods)] // a sound card has a clock of its own

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sipwire::audio::analysis::dominant_tone;
use sipwire::audio::graph::{Sink, Source};
use sipwire::audio::tone::{Signal, ToneSource};
use sipwire::engine::devices::{Devices, DevicesError};

struct PulseAudio {
    server: Child,
    folder: PathBuf,
}

impl PulseAudio {
    /// Starts a server that only this process knows of.
    fn start() -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("sipwire-pulse-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("native");
        let server = Command::new("pulseaudio")
            .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disallow-exit"])
            .args(["-L", "module-null-sink sink_name=test rate=48000"])
            .args(["-L", &format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display())])
            .env("HOME", &folder)
            .env("XDG_RUNTIME_DIR", &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let pulse = Self { server, folder };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "pulseaudio does not start");
            sleep(Duration::from_millis(50));
        }
        // SAFETY: this test file has one test, so no other thread reads the environment.
        unsafe {
            std::env::set_var("PULSE_SERVER", format!("unix:{}", socket.display()));
            std::env::set_var("XDG_RUNTIME_DIR", &pulse.folder);
            std::env::set_var("HOME", &pulse.folder);
        }
        Some(pulse)
    }
}

impl Drop for PulseAudio {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn library() -> Option<PathBuf> {
    let folder = std::env::current_exe().ok()?.parent()?.parent()?.to_owned();
    let path = folder.join(libloading::library_filename("sipwire_devices"));
    path.exists().then_some(path)
}

#[test]
fn a_tone_played_is_a_tone_heard() {
    let Some(library) = library() else {
        eprintln!("skipped: no sound-card library; `cargo build -p sipwire-devices` makes it");
        return;
    };
    let Some(_pulse) = PulseAudio::start() else {
        eprintln!("skipped: no program `pulseaudio`");
        return;
    };
    let devices = Devices::load(Some(&library)).unwrap();
    let list = devices.list().unwrap();
    assert!(list.iter().any(|device| device.can_play) && list.iter().any(|device| device.can_record), "{list:?}");
    let missing = devices.open("no such card").err().unwrap();
    assert_eq!(missing, DevicesError::Card("there is no sound card named \"no such card\"".to_owned()));

    let card = devices.open("default").unwrap();
    let (mut microphone, mut speaker) = (card.microphone.unwrap(), card.speaker.unwrap());
    let mut tone = ToneSource::new(Signal::Sine(440.0), speaker.rate(), -6.0);
    let (mut out, mut input) = (vec![0; speaker.rate() as usize / 50], vec![0; microphone.rate() as usize / 50]);
    let mut heard = vec![];
    let mut due = Instant::now();
    for _ in 0..150 {
        tone.fill(&mut out);
        speaker.push(&out, true, due);
        if microphone.pull(&mut input, due) {
            heard.extend_from_slice(&input);
        }
        due += Duration::from_millis(20);
        sleep(due.saturating_duration_since(Instant::now()));
    }
    assert_eq!(card.stream.error(), None);
    assert!(heard.len() > microphone.rate() as usize * 2, "only {} samples came back", heard.len());
    let last_second = &heard[heard.len() - microphone.rate() as usize..];
    let found = dominant_tone(last_second, microphone.rate()).expect("the monitor hears something");
    eprintln!("heard {found:?} at {} Hz", microphone.rate());
    assert!((found.hz - 440.0).abs() < 3.0 && found.level > -15.0, "{found:?}");
    drop(card.stream);
}
