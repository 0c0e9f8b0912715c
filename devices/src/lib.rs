//! Sound cards for sipwire, behind a small C interface.
//!
//! The extension itself links no sound system, so that it imports everywhere; it loads this library when a sound card is
//! asked for. The library lists devices and opens a microphone and a speaker as mono streams of `i16`. Callbacks only
//! copy: samples go to and come from functions of the caller, which run on the sound system's threads.
//!
//! The interface is versioned as a whole: [`sipwire_devices_abi`] must return what the caller was built for.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, FromSample, Sample, SampleFormat, SizedSample, StreamConfig};

/// Raised with every change of a function or struct here; `src/engine/devices.rs` has the same number.
const ABI: u32 = 1;
/// Rates tried, best first: what Opus runs at, what telephones run at, what every card can.
const RATES: [u32; 5] = [48_000, 16_000, 32_000, 44_100, 8_000];
/// Samples converted at a time, on the stack of the sound system's thread.
const BLOCK: usize = 480;

/// A device is in the list because it can do this; flags of [`Found`].
pub const CAN_RECORD: u32 = 1;
pub const CAN_PLAY: u32 = 2;
pub const IS_DEFAULT_INPUT: u32 = 4;
pub const IS_DEFAULT_OUTPUT: u32 = 8;

/// Told once for each device: its name in UTF-8 (valid during the call only) and flags.
pub type Found = unsafe extern "C" fn(context: *mut c_void, name: *const u8, length: usize, flags: u32);
/// Given mono samples from the microphone.
pub type Captured = unsafe extern "C" fn(context: *mut c_void, samples: *const i16, count: usize);
/// Asked to fill mono samples for the speaker.
pub type Wanted = unsafe extern "C" fn(context: *mut c_void, samples: *mut i16, count: usize);
/// Told in UTF-8 why a stream stopped.
pub type Failed = unsafe extern "C" fn(context: *mut c_void, text: *const u8, length: usize);

/// What to open. Each context is passed to its own callback only; that of `failed` must bear two threads at once.
#[repr(C)]
pub struct Request {
    /// Device name in UTF-8; "default" for the system's choice.
    pub name: *const u8,
    pub name_length: usize,
    pub captured: Option<Captured>,
    pub captured_context: *mut c_void,
    pub wanted: Option<Wanted>,
    pub wanted_context: *mut c_void,
    pub failed: Option<Failed>,
    pub failed_context: *mut c_void,
}

/// What was opened; a rate of 0 means that the device has no such direction.
#[repr(C)]
pub struct Opened {
    pub handle: *mut c_void,
    pub input_rate: u32,
    pub output_rate: u32,
}

/// The version of this interface.
#[unsafe(no_mangle)]
pub extern "C" fn sipwire_devices_abi() -> u32 {
    ABI
}

/// Tells `found` every device. Returns 0, or 1 with the reason in `error` (cut to `error_length` bytes, ended by a 0).
///
/// # Safety
/// `found` may be called with `context` until this returns; `error` has room for `error_length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sipwire_devices_list(
    found: Found,
    context: *mut c_void,
    error: *mut u8,
    error_length: usize,
) -> i32 {
    let result = guarded(|| {
        for (name, flags) in list()? {
            // SAFETY: the caller's function and context, as promised; the name lives through the call.
            unsafe { found(context, name.as_ptr(), name.len(), flags) };
        }
        Ok(())
    });
    // SAFETY: the caller's promise about `error`.
    unsafe { report(result, error, error_length) }
}

/// Opens the device's microphone and speaker, whichever it has and the request has a callback for. Returns 0 and fills
/// `opened`, or 1 with the reason in `error`.
///
/// # Safety
/// `request` and `opened` are valid; its callbacks may be called with their contexts, each from one thread at a time,
/// until [`sipwire_devices_close`] has returned; `error` has room for `error_length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sipwire_devices_open(
    request: *const Request,
    opened: *mut Opened,
    error: *mut u8,
    error_length: usize,
) -> i32 {
    let result = guarded(|| {
        // SAFETY: valid by the caller's promise, and the name's length is its own.
        let request = unsafe { &*request };
        let name = unsafe { std::slice::from_raw_parts(request.name, request.name_length) };
        let (card, rates) = open(&String::from_utf8_lossy(name), request)?;
        let handle = Box::into_raw(Box::new(card)).cast();
        // SAFETY: valid by the caller's promise.
        unsafe { *opened = Opened { handle, input_rate: rates.0, output_rate: rates.1 } };
        Ok(())
    });
    // SAFETY: the caller's promise about `error`.
    unsafe { report(result, error, error_length) }
}

/// Closes what was opened. No callback runs any more when this returns.
///
/// # Safety
/// `handle` comes from [`sipwire_devices_open`] and is closed once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sipwire_devices_close(handle: *mut c_void) {
    // SAFETY: made by Box::into_raw above.
    let card: Box<Card> = unsafe { Box::from_raw(handle.cast()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(card)));
}

/// A panic must not cross into the caller's language.
fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the sound system's library panicked".to_owned()))
}

/// # Safety
/// `error` has room for `length` bytes.
unsafe fn report(result: Result<(), String>, error: *mut u8, length: usize) -> i32 {
    let Err(text) = result else { return 0 };
    if length > 0 {
        // SAFETY: the caller's promise.
        let room = unsafe { std::slice::from_raw_parts_mut(error, length) };
        let count = text.len().min(length - 1);
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        room[count] = 0;
    }
    1
}

fn words(what: &str) -> impl FnOnce(cpal::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn name_of(device: &cpal::Device) -> String {
    device.description().map(|description| description.name().to_owned()).unwrap_or_default()
}

fn list() -> Result<Vec<(String, u32)>, String> {
    let host = cpal::default_host();
    let (input, output) = (host.default_input_device(), host.default_output_device());
    let devices = host.devices().map_err(words("the sound system gives no list of devices"))?;
    Ok(devices
        .map(|device| {
            let flags = [
                (device.supports_input(), CAN_RECORD),
                (device.supports_output(), CAN_PLAY),
                (input.as_ref() == Some(&device), IS_DEFAULT_INPUT),
                (output.as_ref() == Some(&device), IS_DEFAULT_OUTPUT),
            ];
            let flags = flags.into_iter().filter(|(has, _)| *has).map(|(_, flag)| flag).sum();
            (name_of(&device), flags)
        })
        .filter(|(name, flags)| !name.is_empty() && flags & (CAN_RECORD | CAN_PLAY) != 0)
        .collect())
}

/// A pointer of the caller's, used by one stream only.
struct Context(*mut c_void);

// SAFETY: the caller promised that its contexts may be used from the sound system's threads.
unsafe impl Send for Context {}

/// Says whether the caller still wants to be called. Some sound systems run a callback after their stream is dropped.
#[derive(Default)]
struct Gate(Mutex<bool>);

impl Gate {
    /// Runs `work` unless closed. The lock is only ever contended by closing.
    fn pass(&self, work: impl FnOnce()) {
        if let Ok(closed) = self.0.lock()
            && !*closed
        {
            work();
        }
    }

    /// Waits for a running callback; none begins afterwards.
    fn close(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
    }
}

struct Card {
    streams: Vec<cpal::Stream>,
    gates: Vec<Arc<Gate>>,
}

impl Drop for Card {
    fn drop(&mut self) {
        for gate in &self.gates {
            gate.close();
        }
        self.streams.clear();
    }
}

fn open(name: &str, request: &Request) -> Result<(Card, (u32, u32)), String> {
    let host = cpal::default_host();
    let default = name.is_empty() || name == "default";
    let named = |able: fn(&cpal::Device) -> bool| -> Result<Option<cpal::Device>, String> {
        let mut devices = host.devices().map_err(words("the sound system gives no list of devices"))?;
        Ok(devices.find(|device| name_of(device) == name && able(device)))
    };
    let input = if default { host.default_input_device() } else { named(cpal::Device::supports_input)? };
    let output = if default { host.default_output_device() } else { named(cpal::Device::supports_output)? };
    let mut card = Card { streams: Vec::new(), gates: Vec::new() };
    let mut rates = (0, 0);
    if let (Some(device), Some(captured)) = (&input, request.captured) {
        let configs = device.supported_input_configs().map_err(words("the microphone tells nothing of itself"))?;
        let (config, format) = choose(configs).ok_or("the microphone has no usable format")?;
        let (context, failure) = (Context(request.captured_context), Failure::new(request));
        card.add(rates_of(config), |config, gate| match format {
            SampleFormat::I16 => record::<i16>(device, config, captured, &context, &failure, gate),
            SampleFormat::I32 => record::<i32>(device, config, captured, &context, &failure, gate),
            _ => record::<f32>(device, config, captured, &context, &failure, gate),
        })
        .map_err(words("the microphone does not open"))?;
        rates.0 = config.sample_rate;
    }
    if let (Some(device), Some(wanted)) = (&output, request.wanted) {
        let configs = device.supported_output_configs().map_err(words("the speaker tells nothing of itself"))?;
        let (config, format) = choose(configs).ok_or("the speaker has no usable format")?;
        let (context, failure) = (Context(request.wanted_context), Failure::new(request));
        card.add(rates_of(config), |config, gate| match format {
            SampleFormat::I16 => play::<i16>(device, config, wanted, &context, &failure, gate),
            SampleFormat::I32 => play::<i32>(device, config, wanted, &context, &failure, gate),
            _ => play::<f32>(device, config, wanted, &context, &failure, gate),
        })
        .map_err(words("the speaker does not open"))?;
        rates.1 = config.sample_rate;
    }
    match rates {
        (0, 0) if default => Err("this machine has no sound card".to_owned()),
        (0, 0) => Err(format!("there is no sound card named {name:?}")),
        _ => Ok((card, rates)),
    }
}

/// 10 ms buffers where the card has them, else what it likes.
fn rates_of(config: StreamConfig) -> [StreamConfig; 2] {
    let buffer_size = BufferSize::Fixed(config.sample_rate / 100);
    [StreamConfig { buffer_size, ..config }, config]
}

impl Card {
    fn add(
        &mut self,
        configs: [StreamConfig; 2],
        build: impl Fn(StreamConfig, Arc<Gate>) -> Result<cpal::Stream, cpal::Error>,
    ) -> Result<(), cpal::Error> {
        let gate = Arc::new(Gate::default());
        let [first, second] = configs;
        let stream = build(first, Arc::clone(&gate)).or_else(|_| build(second, Arc::clone(&gate)))?;
        self.gates.push(gate);
        stream.play()?;
        self.streams.push(stream);
        Ok(())
    }
}

/// The best rate in a format we read, with as few channels as there are.
fn choose(configs: impl Iterator<Item = cpal::SupportedStreamConfigRange>) -> Option<(StreamConfig, SampleFormat)> {
    let configs: Vec<_> = configs.collect();
    let rank = |format| [SampleFormat::I16, SampleFormat::F32, SampleFormat::I32].iter().position(|&f| f == format);
    RATES.into_iter().find_map(|rate| {
        let able = configs.iter().filter(|config| config.contains_rate(rate) && config.channels() > 0);
        let best = able.filter_map(|config| Some(((config.channels(), rank(config.sample_format())?), config)));
        let (_, config) = best.min_by_key(|(key, _)| *key)?;
        let format = config.sample_format();
        let config = StreamConfig { channels: config.channels(), sample_rate: rate, buffer_size: BufferSize::Default };
        Some((config, format))
    })
}

/// Tells the caller what ended a stream.
#[derive(Clone)]
struct Failure {
    failed: Option<Failed>,
    context: *mut c_void,
}

// SAFETY: the caller promised that this context may be used by several threads.
unsafe impl Send for Failure {}

impl Failure {
    fn new(request: &Request) -> Self {
        Self { failed: request.failed, context: request.failed_context }
    }

    fn tell(&self, error: &cpal::Error) {
        // What the sound system mends itself is no failure.
        if matches!(
            error.kind(),
            cpal::ErrorKind::Xrun | cpal::ErrorKind::DeviceChanged | cpal::ErrorKind::RealtimeDenied
        ) {
            return;
        }
        if let Some(failed) = self.failed {
            let text = error.to_string();
            // SAFETY: the caller's function and context; the text lives through the call.
            unsafe { failed(self.context, text.as_ptr(), text.len()) };
        }
    }
}

fn record<T>(
    device: &cpal::Device,
    config: StreamConfig,
    captured: Captured,
    context: &Context,
    failure: &Failure,
    gate: Arc<Gate>,
) -> Result<cpal::Stream, cpal::Error>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    let channels = usize::from(config.channels);
    let (context, failure, error_gate) = (Context(context.0), failure.clone(), Arc::clone(&gate));
    let data = move |samples: &[T], _: &cpal::InputCallbackInfo| {
        let context = &context; // the whole of it, which is Send
        gate.pass(|| {
            let mut block = [0i16; BLOCK];
            for frames in samples.chunks(BLOCK * channels) {
                let mut count = 0;
                for (to, frame) in block.iter_mut().zip(frames.chunks_exact(channels)) {
                    let sum: f32 = frame.iter().map(|&sample| f32::from_sample(sample)).sum();
                    *to = (sum / channels as f32 * 32_767.0).round() as i16;
                    count += 1;
                }
                // SAFETY: `count` samples of a live array; the gate keeps the context alive.
                unsafe { captured(context.0, block.as_ptr(), count) };
            }
        });
    };
    let error = move |error| {
        error_gate.pass(|| {
            let failure = &failure;
            failure.tell(&error)
        })
    };
    device.build_input_stream(config, data, error, None)
}

fn play<T>(
    device: &cpal::Device,
    config: StreamConfig,
    wanted: Wanted,
    context: &Context,
    failure: &Failure,
    gate: Arc<Gate>,
) -> Result<cpal::Stream, cpal::Error>
where
    T: SizedSample + FromSample<i16>,
{
    let channels = usize::from(config.channels);
    let (context, failure, error_gate) = (Context(context.0), failure.clone(), Arc::clone(&gate));
    let data = move |samples: &mut [T], _: &cpal::OutputCallbackInfo| {
        let context = &context;
        samples.fill(T::EQUILIBRIUM);
        gate.pass(|| {
            let mut block = [0i16; BLOCK];
            for frames in samples.chunks_mut(BLOCK * channels) {
                let count = frames.len() / channels;
                // SAFETY: room for `count` samples, at most a block; the gate keeps the context alive.
                unsafe { wanted(context.0, block.as_mut_ptr(), count) };
                for (frame, &sample) in frames.chunks_exact_mut(channels).zip(&block) {
                    frame.fill(T::from_sample(sample));
                }
            }
        });
    };
    let error = move |error| {
        error_gate.pass(|| {
            let failure = &failure;
            failure.tell(&error)
        })
    };
    device.build_output_stream(config, data, error, None)
}
