//! The sound card, from a library of its own that is loaded on first use.
//!
//! The extension links no sound system: a server without one imports it all the same, and hears of it only when it asks
//! for a sound card. [`Devices::load`] opens the library of the wheel (`devices/` in the tree), [`Devices::open`] a card;
//! its microphone and speaker are ports of the audio graph.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use libloading::Library;

use crate::audio::graph::{Sink, Source};
use crate::audio::ring::{Consumer, Producer, ring};

/// The interface both sides must have; `devices/src/lib.rs` has the same number.
const ABI: u32 = 1;
/// Room for what the library says went wrong.
const ERROR_LENGTH: usize = 512;
/// Room between a callback and the tick: half a second at 48 kHz, far more than either is late.
const RING: usize = 24_000;
/// Audio kept between the tick and the card: one frame and the jitter of both.
const TARGET_MS: usize = 30;
/// More than this waits only because two clocks differ; then the line skips back to the target.
const MOST_MS: usize = 100;

// Flags of a listed device.
const CAN_RECORD: u32 = 1;
const CAN_PLAY: u32 = 2;
const IS_DEFAULT_INPUT: u32 = 4;
const IS_DEFAULT_OUTPUT: u32 = 8;

type Found = unsafe extern "C" fn(*mut c_void, *const u8, usize, u32);
type AbiFn = unsafe extern "C" fn() -> u32;
type ListFn = unsafe extern "C" fn(Found, *mut c_void, *mut u8, usize) -> i32;
type OpenFn = unsafe extern "C" fn(*const Request, *mut Opened, *mut u8, usize) -> i32;
type CloseFn = unsafe extern "C" fn(*mut c_void);

#[repr(C)]
struct Request {
    name: *const u8,
    name_length: usize,
    captured: Option<unsafe extern "C" fn(*mut c_void, *const i16, usize)>,
    captured_context: *mut c_void,
    wanted: Option<unsafe extern "C" fn(*mut c_void, *mut i16, usize)>,
    wanted_context: *mut c_void,
    failed: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize)>,
    failed_context: *mut c_void,
}

#[repr(C)]
struct Opened {
    handle: *mut c_void,
    input_rate: u32,
    output_rate: u32,
}

/// Why there is no sound card.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DevicesError {
    #[error("no sound-card library in this build (it is made where ALSA headers are); use audio_device=\"null\"")]
    NoLibrary,
    #[error("the sound-card library {path} does not load: {reason}")]
    Load { path: String, reason: String },
    #[error("the sound-card library {path} has interface {found}, this build needs {ABI}: reinstall sipwire")]
    Version { path: String, found: u32 },
    #[error("{0}")]
    Card(String),
}

/// A sound card in the system's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub can_record: bool,
    pub can_play: bool,
    pub is_default_input: bool,
    pub is_default_output: bool,
}

struct Functions {
    list: ListFn,
    open: OpenFn,
    close: CloseFn,
    /// Never unloaded: the sound system's threads may outlive our last stream.
    _library: ManuallyDrop<Library>,
}

/// The loaded library.
#[derive(Clone)]
pub struct Devices(Arc<Functions>);

impl Devices {
    /// Loads the library at `path`; `None` where the wheel was built without it.
    ///
    /// # Errors
    /// There is none, it does not load (its sound system is missing), or it is of another version.
    pub fn load(path: Option<&Path>) -> Result<Self, DevicesError> {
        let path = path.filter(|path| path.exists()).ok_or(DevicesError::NoLibrary)?;
        let name = path.display().to_string();
        let failed = |error: libloading::Error| DevicesError::Load { path: name.clone(), reason: error.to_string() };
        // SAFETY: loading runs the library's initialisers; it is ours, and those of the sound system it links are made
        // to be loaded by any program.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        // SAFETY: the types are those of the functions in `devices/src/lib.rs`, which the version pins; this first one
        // never changes.
        let found = unsafe { library.get::<AbiFn>(b"sipwire_devices_abi").map_err(failed)?() };
        if found != ABI {
            return Err(DevicesError::Version { path: name, found });
        }
        // SAFETY: as above.
        let functions = unsafe {
            Functions {
                list: *library.get::<ListFn>(b"sipwire_devices_list").map_err(failed)?,
                open: *library.get::<OpenFn>(b"sipwire_devices_open").map_err(failed)?,
                close: *library.get::<CloseFn>(b"sipwire_devices_close").map_err(failed)?,
                _library: ManuallyDrop::new(library),
            }
        };
        Ok(Self(Arc::new(functions)))
    }

    /// All sound cards of the machine. Takes some milliseconds.
    ///
    /// # Errors
    /// The sound system does not answer.
    pub fn list(&self) -> Result<Vec<Device>, DevicesError> {
        unsafe extern "C" fn found(context: *mut c_void, name: *const u8, length: usize, flags: u32) {
            // SAFETY: `context` is the vector below; the library gives `length` bytes for the time of the call.
            let (devices, name) =
                unsafe { (&mut *context.cast::<Vec<Device>>(), std::slice::from_raw_parts(name, length)) };
            devices.push(Device {
                name: String::from_utf8_lossy(name).into_owned(),
                can_record: flags & CAN_RECORD != 0,
                can_play: flags & CAN_PLAY != 0,
                is_default_input: flags & IS_DEFAULT_INPUT != 0,
                is_default_output: flags & IS_DEFAULT_OUTPUT != 0,
            });
        }
        let mut devices: Vec<Device> = Vec::new();
        let mut error = [0; ERROR_LENGTH];
        // SAFETY: the callback and its context live through the call; the buffer has the length told.
        let result = unsafe { (self.0.list)(found, (&raw mut devices).cast(), error.as_mut_ptr(), error.len()) };
        if result == 0 { Ok(devices) } else { Err(card_error(&error)) }
    }

    /// Opens the card of this name, or the system's choice for "default". Takes some milliseconds.
    ///
    /// # Errors
    /// There is no such card, or it is taken by another program.
    pub fn open(&self, name: &str) -> Result<Card, DevicesError> {
        let (microphone, mut captured) = ring_for_callback();
        let (speaker, mut wanted) = {
            let (producer, consumer) = ring(RING);
            (producer, Box::new(Playout { ring: consumer, target: usize::MAX, playing: false }))
        };
        // The card's rate is known only once it is open and calls back: until then the speaker waits for this much.
        wanted.target = 48 * TARGET_MS;
        let failure: Box<OnceLock<String>> = Box::default();
        let request = Request {
            name: name.as_ptr(),
            name_length: name.len(),
            captured: Some(on_captured),
            captured_context: ptr::from_mut(&mut *captured).cast(),
            wanted: Some(on_wanted),
            wanted_context: ptr::from_mut(&mut *wanted).cast(),
            failed: Some(on_failed),
            failed_context: ptr::from_ref(&*failure).cast_mut().cast(),
        };
        let mut opened = Opened { handle: ptr::null_mut(), input_rate: 0, output_rate: 0 };
        let mut error = [0; ERROR_LENGTH];
        // SAFETY: request, result and buffer live through the call; the contexts are boxed and kept by the stream until
        // after it is closed, and each is touched by its own callback only (the failure is a OnceLock).
        let result = unsafe { (self.0.open)(&raw const request, &raw mut opened, error.as_mut_ptr(), error.len()) };
        if result != 0 {
            return Err(card_error(&error));
        }
        let stream = CardStream {
            functions: Arc::clone(&self.0),
            handle: opened.handle,
            failure,
            _contexts: (captured, wanted),
        };
        let microphone = (opened.input_rate > 0).then(|| Microphone::new(microphone, opened.input_rate));
        let speaker = (opened.output_rate > 0).then_some(Speaker { ring: speaker, rate: opened.output_rate });
        Ok(Card { microphone, speaker, stream })
    }
}

fn card_error(text: &[u8; ERROR_LENGTH]) -> DevicesError {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    DevicesError::Card(String::from_utf8_lossy(&text[..end]).into_owned())
}

fn ring_for_callback() -> (Consumer, Box<Producer>) {
    let (producer, consumer) = ring(RING);
    (consumer, Box::new(producer))
}

unsafe extern "C" fn on_captured(context: *mut c_void, samples: *const i16, count: usize) {
    // SAFETY: `context` is the producer given to `open`, for this callback alone; the library gives `count` samples.
    let (ring, samples) = unsafe { (&mut *context.cast::<Producer>(), std::slice::from_raw_parts(samples, count)) };
    ring.push_dropping(samples);
}

unsafe extern "C" fn on_wanted(context: *mut c_void, samples: *mut i16, count: usize) {
    // SAFETY: as above; the library wants `count` samples written.
    let (playout, samples) =
        unsafe { (&mut *context.cast::<Playout>(), std::slice::from_raw_parts_mut(samples, count)) };
    playout.fill(samples);
}

unsafe extern "C" fn on_failed(context: *mut c_void, text: *const u8, length: usize) {
    // SAFETY: `context` is the lock given to `open`; the library gives `length` bytes.
    let (failure, text) = unsafe { (&*context.cast::<OnceLock<String>>(), std::slice::from_raw_parts(text, length)) };
    let _ = failure.set(String::from_utf8_lossy(text).into_owned()); // the first reason is the one that matters
}

/// What the card's callback plays.
struct Playout {
    ring: Consumer,
    target: usize,
    playing: bool,
}

impl Playout {
    /// Begins once the target waits, so that a tick a little late is not heard; silence when dry.
    fn fill(&mut self, out: &mut [i16]) {
        self.playing |= self.ring.queued() >= self.target;
        let count = if self.playing { self.ring.pop(out) } else { 0 };
        out[count..].fill(0);
        if self.playing && count < out.len() {
            self.ring.count_underrun(out.len() - count);
            self.playing = false;
        }
    }
}

/// An open sound card; `None` for a direction it does not have.
pub struct Card {
    pub microphone: Option<Microphone>,
    pub speaker: Option<Speaker>,
    /// Closes the card when dropped; the ports then give and take silence.
    pub stream: CardStream,
}

/// The running streams of a card.
pub struct CardStream {
    functions: Arc<Functions>,
    handle: *mut c_void,
    failure: Box<OnceLock<String>>,
    /// What the callbacks use until the card is closed.
    _contexts: (Box<Producer>, Box<Playout>),
}

// SAFETY: the handle is only given back to the library, which lets any thread close it; the contexts are not touched
// on this side.
unsafe impl Send for CardStream {}

impl CardStream {
    /// Why the card stopped, as when it was unplugged.
    pub fn error(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

impl Drop for CardStream {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; no callback uses the contexts after this.
        unsafe { (self.functions.close)(self.handle) }
    }
}

/// What the card hears, as a source.
#[derive(Debug)]
pub struct Microphone {
    ring: Consumer,
    rate: u32,
    started: bool,
}

impl Microphone {
    fn new(ring: Consumer, rate: u32) -> Self {
        Self { ring, rate, started: false }
    }
}

impl Source for Microphone {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn pull(&mut self, out: &mut [i16], _now: Instant) -> bool {
        let per_ms = self.rate as usize / 1_000;
        if !self.started && self.ring.queued() < TARGET_MS * per_ms {
            return false;
        }
        if self.ring.queued() > MOST_MS * per_ms {
            let mut scrap = [0; 480];
            while self.ring.queued() > TARGET_MS * per_ms && self.ring.pop(&mut scrap) > 0 {}
        }
        let count = self.ring.pop(out);
        out[count..].fill(0);
        self.started = count == out.len();
        if !self.started {
            self.ring.count_underrun(out.len() - count);
        }
        count > 0
    }
}

/// What the card plays, as a sink.
#[derive(Debug)]
pub struct Speaker {
    ring: Producer,
    rate: u32,
}

impl Sink for Speaker {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn push(&mut self, frame: &[i16], _active: bool, _now: Instant) {
        if self.ring.queued() > MOST_MS * self.rate as usize / 1_000 {
            self.ring.count_overrun(frame.len()); // the card's clock is slower than ours: skip a frame
        } else {
            self.ring.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_said_in_words() {
        for path in [None, Some(Path::new("/no/libsipwire_devices.so"))] {
            let error = Devices::load(path).err().unwrap();
            assert_eq!(error, DevicesError::NoLibrary);
            assert!(error.to_string().contains("no sound-card library in this build"));
        }
    }

    #[test]
    fn what_is_no_library_is_refused_by_name() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let error = Devices::load(Some(path)).err().unwrap();
        assert!(error.to_string().starts_with(&format!("the sound-card library {} does not load:", path.display())));
    }

    #[test]
    fn the_speaker_starts_with_a_reserve_and_is_silent_when_dry() {
        let (mut producer, consumer) = ring(RING);
        let mut playout = Playout { ring: consumer, target: 480, playing: false };
        let mut out = [7; 240];
        producer.push(&[1; 320]);
        playout.fill(&mut out);
        assert_eq!(out, [0; 240], "not enough yet");
        producer.push(&[1; 320]);
        playout.fill(&mut out);
        playout.fill(&mut out);
        assert_eq!(out, [1; 240]);
        playout.fill(&mut out);
        assert_eq!((out[159], out[160], producer.monitor().underrun()), (1, 0, 80));
        producer.push(&[1; 320]);
        playout.fill(&mut out);
        assert_eq!(out, [0; 240], "the reserve is filled again first");
    }

    #[test]
    fn two_clocks_apart_skip_and_never_pile_up() {
        let (mut producer, consumer) = ring(RING);
        let mut microphone = Microphone::new(consumer, 8_000);
        let mut out = [0; 160];
        let now = Instant::now();
        assert!(!microphone.pull(&mut out, now));
        producer.push(&[1; 240]);
        assert!(microphone.pull(&mut out, now));
        producer.push(&[2; 2_000]);
        assert!(microphone.pull(&mut out, now));
        assert!(producer.queued() <= TARGET_MS * 8, "{}", producer.queued());

        let (producer, consumer) = ring(RING);
        let monitor = producer.monitor();
        let mut speaker = Speaker { ring: producer, rate: 8_000 };
        for _ in 0..50 {
            speaker.push(&[1; 160], true, now);
        }
        assert!(consumer.queued() <= (MOST_MS + 20) * 8 && monitor.overrun() > 0);
    }
}
