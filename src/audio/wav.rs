//! Reading wav files as they are found: whole, cut off, or with sizes that were never corrected.
//!
//! What a killed recorder left is played to its last whole sample; what is no audio is refused with the fault in words.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::codec::g711::Law;
use super::resample::FILE_RATES;

/// Chunks looked at before the audio; a file with more is made to waste time.
const MAX_CHUNKS: usize = 1_000;
/// Channels a file may have; all are averaged.
const MAX_CHANNELS: u16 = 64;
/// Frames read at a time.
const BLOCK_FRAMES: usize = 1_024;

/// What is wrong with a wav file.
#[derive(Debug, thiserror::Error)]
pub enum WavFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("is not a wav file: it begins with {}", .0.escape_ascii())]
    NotWav(Vec<u8>),
    #[error("ends inside its header, after {0} bytes")]
    CutInHeader(u64),
    #[error("has a chunk {:?} at byte {at} that says {size} bytes, and only {left} follow", String::from_utf8_lossy(.id))]
    ChunkTooLong { id: [u8; 4], at: u64, size: u64, left: u64 },
    #[error("has more than {MAX_CHUNKS} chunks before its audio")]
    TooManyChunks,
    #[error("has no {0:?} chunk")]
    Missing(&'static str),
    #[error("says it has {0} channels")]
    Channels(u16),
    #[error("says it has a sample rate of {0} Hz")]
    Rate(u32),
    #[error("has {bits} bits a sample in format {format:#06x}, which is not supported")]
    Format { format: u16, bits: u16 },
}

/// A wav file that cannot be played, and why.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {fault}")]
pub struct WavError {
    /// The file, as the caller named it.
    pub name: String,
    pub fault: WavFault,
}

/// How samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    U8,
    I16,
    I24,
    I32,
    F32,
    F64,
    G711(Law),
}

impl Encoding {
    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::G711(_) => 1,
            Self::I16 => 2,
            Self::I24 => 3,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn sample(self, bytes: &[u8]) -> i16 {
        match (self, bytes) {
            (Self::U8, &[a]) => (i16::from(a) - 128) << 8,
            (Self::G711(law), bytes) => {
                let mut out = [0];
                law.decode(bytes, &mut out);
                out[0]
            }
            // The two highest bytes are the sample to 16 bits.
            (Self::I16, &[a, b]) | (Self::I24, &[_, a, b]) | (Self::I32, &[_, _, a, b]) => i16::from_le_bytes([a, b]),
            (Self::F32, &[a, b, c, d]) => to_i16(f32::from_le_bytes([a, b, c, d])),
            (Self::F64, &[a, b, c, d, e, f, g, h]) => to_i16(f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32),
            _ => 0, // not reached: chunks are cut by `bytes()`
        }
    }
}

/// Full scale is ±1; `as` saturates and makes 0 of what is no number.
fn to_i16(value: f32) -> i16 {
    (value * 32_768.0).round() as i16
}

/// Reads a wav file as mono `i16` at its own rate.
pub struct WavReader<R> {
    reader: R,
    name: String,
    encoding: Encoding,
    channels: usize,
    rate: u32,
    data_start: u64,
    /// Bytes of whole frames in the data chunk.
    data_length: u64,
    /// Bytes of them read so far.
    at: u64,
    block: Vec<u8>,
}

impl<R> fmt::Debug for WavReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WavReader")
            .field("name", &self.name)
            .field("encoding", &self.encoding)
            .field("channels", &self.channels)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl<R: Read + Seek> WavReader<R> {
    /// Reads the header; `name` is what errors call the file.
    ///
    /// # Errors
    /// The fault that makes it unplayable.
    pub fn new(reader: R, name: impl Into<String>) -> Result<Self, WavError> {
        let name = name.into();
        Self::open(reader, name.clone()).map_err(|fault| WavError { name, fault })
    }

    fn open(mut reader: R, name: String) -> Result<Self, WavFault> {
        let length = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        let mut riff = [0; 12];
        let got = read_up_to(&mut reader, &mut riff)?;
        let wave = (riff.starts_with(b"RIFF") || riff.starts_with(b"RF64")) && riff[8..] == *b"WAVE";
        if got < 12 && got > 0 && b"RIFF".starts_with(&riff[..got.min(4)]) {
            return Err(WavFault::CutInHeader(length));
        }
        if !wave {
            return Err(WavFault::NotWav(riff[..got].to_vec()));
        }

        let (mut at, mut format, mut size64) = (12, None, None);
        for _ in 0..MAX_CHUNKS {
            reader.seek(SeekFrom::Start(at))?;
            let Some((id, size)) = read_chunk_header(&mut reader)? else {
                return Err(match (at < length, format) {
                    (true, _) => WavFault::CutInHeader(length),
                    (false, None) => WavFault::Missing("fmt "),
                    (false, Some(_)) => WavFault::Missing("data"),
                });
            };
            let start = at + 8;
            let left = length.saturating_sub(start);
            if &id == b"data" {
                let (encoding, channels, rate) = format.ok_or(WavFault::Missing("fmt "))?;
                let frame = (Encoding::bytes(encoding) * channels) as u64;
                let said = size64.filter(|_| size == u32::MAX).unwrap_or(u64::from(size));
                let there = data_length(&mut reader, start, said, left)?;
                reader.seek(SeekFrom::Start(start))?;
                return Ok(Self {
                    reader,
                    name,
                    encoding,
                    channels,
                    rate,
                    data_start: start,
                    data_length: there / frame * frame,
                    at: 0,
                    block: vec![0; BLOCK_FRAMES * frame as usize],
                });
            }
            if u64::from(size) > left {
                let cut = &id == b"fmt " || &id == b"ds64";
                return Err(if cut && size < 100 {
                    WavFault::CutInHeader(length)
                } else {
                    WavFault::ChunkTooLong { id, at, size: size.into(), left }
                });
            }
            match &id {
                b"fmt " => format = Some(read_format(&mut reader, size)?),
                b"ds64" => size64 = read_size64(&mut reader, size)?,
                _ => {}
            }
            at = start + u64::from(size) + u64::from(size % 2); // chunks begin at even places
        }
        Err(WavFault::TooManyChunks)
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels in the file; what is read is their average.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Frames (samples of mono) that are there.
    pub fn frames(&self) -> u64 {
        self.data_length / (self.encoding.bytes() * self.channels) as u64
    }

    /// Appends up to 1,024 samples to `out`; returns how many, 0 at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self, out: &mut Vec<i16>) -> Result<usize, WavError> {
        let frame = self.encoding.bytes() * self.channels;
        let left = (self.data_length - self.at).min(self.block.len() as u64) as usize;
        let block = &mut self.block[..left];
        let got = read_up_to(&mut self.reader, block)
            .map_err(|error| WavError { name: self.name.clone(), fault: error.into() })?;
        let whole = &block[..got / frame * frame];
        if whole.is_empty() {
            self.data_length = self.at; // the file became shorter
        }
        self.at += whole.len() as u64;
        for frame in whole.chunks_exact(frame) {
            let samples = frame.chunks_exact(self.encoding.bytes());
            let sum: i32 = samples.map(|bytes| i32::from(self.encoding.sample(bytes))).sum();
            out.push((sum / self.channels as i32) as i16);
        }
        Ok(whole.len() / frame)
    }

    /// Goes back to the first sample.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn rewind(&mut self) -> Result<(), WavError> {
        let sought = self.reader.seek(SeekFrom::Start(self.data_start));
        sought.map_err(|error| WavError { name: self.name.clone(), fault: error.into() })?;
        self.at = 0;
        Ok(())
    }
}

/// Bytes of audio there are, given what the chunk says and what follows it in the file.
///
/// A recorder corrects the size at its end, or never: 0 and 0xffffffff mean "until the end of the file". A size that is
/// merely old is told by what stands where the next chunk should begin: no chunk, so it is audio.
fn data_length(reader: &mut (impl Read + Seek), start: u64, said: u64, left: u64) -> Result<u64, WavFault> {
    if said >= left || said >= u64::from(u32::MAX) {
        return Ok(left);
    }
    let next = said + said % 2;
    reader.seek(SeekFrom::Start(start + next))?;
    let after = left.saturating_sub(next + 8);
    let followed = read_chunk_header(reader)?.is_some_and(|(id, size)| {
        u64::from(size) <= after && id.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ' || *byte == b'_')
    });
    // Less than a chunk header is padding or a torn sample, never a second of audio.
    Ok(if followed || (said > 0 && left - said < 8) { said } else { left })
}

/// The id and size of a chunk; `None` when the file ends before.
fn read_chunk_header(reader: &mut impl Read) -> io::Result<Option<([u8; 4], u32)>> {
    let mut header = [0; 8];
    if read_up_to(reader, &mut header)? < 8 {
        return Ok(None);
    }
    let [a, b, c, d, e, f, g, h] = header;
    Ok(Some(([a, b, c, d], u32::from_le_bytes([e, f, g, h]))))
}

/// The `fmt ` chunk: how samples are stored, channels, rate.
fn read_format(reader: &mut impl Read, size: u32) -> Result<(Encoding, usize, u32), WavFault> {
    let mut bytes = [0; 40];
    let got = read_up_to(reader, &mut bytes[..size.min(40) as usize])?;
    if got < 16 {
        return Err(WavFault::Missing("fmt "));
    }
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let (channels, bits) = (short(2), short(14));
    // WAVE_FORMAT_EXTENSIBLE: the real one begins the GUID.
    let format = if short(0) == 0xfffe && got >= 26 { short(24) } else { short(0) };
    let rate = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return Err(WavFault::Channels(channels));
    }
    if !FILE_RATES.contains(&rate) {
        return Err(WavFault::Rate(rate));
    }
    let encoding = match (format, bits) {
        (1, 8) => Encoding::U8,
        (1, 16) => Encoding::I16,
        (1, 24) => Encoding::I24,
        (1, 32) => Encoding::I32,
        (3, 32) => Encoding::F32,
        (3, 64) => Encoding::F64,
        (6, 8) => Encoding::G711(Law::A),
        (7, 8) => Encoding::G711(Law::Mu),
        _ => return Err(WavFault::Format { format, bits }),
    };
    Ok((encoding, channels.into(), rate))
}

/// The size of the data chunk in the `ds64` chunk of a file larger than 4 GiB (EBU Tech 3306).
fn read_size64(reader: &mut impl Read, size: u32) -> io::Result<Option<u64>> {
    let mut bytes = [0; 16];
    let got = read_up_to(reader, &mut bytes[..size.min(16) as usize])?;
    let [.., a, b, c, d, e, f, g, h] = bytes;
    Ok((got == 16).then(|| u64::from_le_bytes([a, b, c, d, e, f, g, h])))
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(reader: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match reader.read(buffer) {
            Ok(0) => break,
            Ok(count) => {
                total += count;
                buffer = &mut buffer[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// Reads a whole wav file from memory: mono samples and their rate.
///
/// # Errors
/// As [`WavReader::new`].
pub fn read_all(bytes: &[u8], name: &str) -> Result<(Vec<i16>, u32), WavError> {
    let mut reader = WavReader::new(io::Cursor::new(bytes), name)?;
    let mut out = Vec::new();
    while reader.read(&mut out)? > 0 {}
    Ok((out, reader.rate()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/data/wav/{name}.wav", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    /// A wav file with this format and data.
    fn wav(format: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let block = channels * bits / 8;
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        for field in [format, channels] {
            bytes.extend(field.to_le_bytes());
        }
        for field in [rate, rate * u32::from(block)] {
            bytes.extend(field.to_le_bytes());
        }
        for field in [block, bits] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(b"data");
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn whole_and_broken_files_play_what_is_there() {
        let (good, _) = read_all(&file("good"), "good").unwrap();
        assert_eq!(good.len(), 400);
        for name in [
            "killed-sizes-zero",
            "killed-sizes-stale",
            "killed-odd-tail",
            "sizes-ffffffff",
            "list-chunk-first",
            "odd-chunk-padding",
        ] {
            let (pcm, rate) = read_all(&file(name), name).unwrap();
            assert_eq!((pcm == good, rate), (true, 8_000), "{name}: {} frames", pcm.len());
        }
        assert_eq!(read_all(&file("empty-data"), "empty").unwrap().0, [0i16; 0]);
        let mut stereo = WavReader::new(io::Cursor::new(file("stereo")), "stereo").unwrap();
        assert_eq!((stereo.channels(), stereo.frames()), (2, 200));
        let mut pcm = vec![];
        assert_eq!(stereo.read(&mut pcm).unwrap(), 200);
        let average = |at: usize| (i32::from(good[at]) + i32::from(good[at + 1])) / 2;
        assert_eq!([pcm[0], pcm[199]].map(i32::from), [average(0), average(398)]);
        assert_eq!(stereo.read(&mut pcm).unwrap(), 0);
        stereo.rewind().unwrap();
        assert_eq!(stereo.read(&mut pcm).unwrap(), 200);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (name, words) in [
            ("cut-in-header", "ends inside its header, after 30 bytes"),
            ("zero-channels", "says it has 0 channels"),
            ("rate-zero", "says it has a sample rate of 0 Hz"),
            ("bits-0", "has 0 bits a sample in format 0x0001, which is not supported"),
            ("chunk-size-negative", "has a chunk \"junk\" at byte 12 that says 4294967280 bytes, and only 832 follow"),
        ] {
            let error = read_all(&file(name), "greeting.wav").unwrap_err();
            assert_eq!(error.to_string(), format!("greeting.wav: {words}"));
        }
        for (bytes, words) in [
            (&b""[..], "is not a wav file: it begins with "),
            (b"ID3\x04 and so on", "is not a wav file: it begins with ID3\\x04 and so "),
            (b"RIFF", "ends inside its header, after 4 bytes"),
            (b"RIFF\0\0\0\0WAVE", "has no \"fmt \" chunk"),
            (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "has no \"fmt \" chunk"),
        ] {
            assert_eq!(read_all(bytes, "x").unwrap_err().to_string(), format!("x: {words}"));
        }
        let mut endless = b"RIFF\0\0\0\0WAVE".to_vec();
        endless.extend(b"junk\0\0\0\0".repeat(MAX_CHUNKS + 1));
        assert!(matches!(read_all(&endless, "x").unwrap_err().fault, WavFault::TooManyChunks));
    }

    #[test]
    fn every_encoding_means_the_same_sound() {
        let expected = [0, 16_384, -16_384, 32_767, -32_768];
        let float = |v: f64| v.clamp(-1.0, 0.99999);
        let values = [0.0, 0.5, -0.5, 1.0, -1.0];
        let cases: [(u16, u16, Vec<u8>, i32); 6] = [
            (1, 8, vec![128, 192, 64, 255, 0], 256),
            (1, 16, expected.iter().flat_map(|v: &i16| v.to_le_bytes()).collect(), 0),
            (1, 24, expected.iter().flat_map(|v| [&[9], v.to_le_bytes().as_slice()].concat()).collect(), 0),
            (1, 32, expected.iter().flat_map(|v| [&[9, 9], v.to_le_bytes().as_slice()].concat()).collect(), 0),
            (3, 32, values.iter().flat_map(|&v| (float(v) as f32).to_le_bytes()).collect(), 1),
            (3, 64, values.iter().flat_map(|&v| float(v).to_le_bytes()).collect(), 1),
        ];
        for (format, bits, data, off) in cases {
            let (pcm, _) = read_all(&wav(format, 1, 8_000, bits, &data), "x").unwrap();
            let difference = pcm.iter().zip(expected).map(|(&a, b)| (i32::from(a) - i32::from(b)).abs()).max();
            assert!(pcm.len() == 5 && difference.unwrap() <= off, "format {format}, {bits} bits: {pcm:?}");
        }
        let (pcm, _) = read_all(&wav(3, 1, 8_000, 32, &f32::NAN.to_le_bytes()), "x").unwrap();
        assert_eq!(pcm, [0]);
        for (format, law) in [(6, Law::A), (7, Law::Mu)] {
            let (pcm, _) = read_all(&wav(format, 1, 8_000, 8, &[0x12, 0xfe]), "x").unwrap();
            let mut expected = [0; 2];
            law.decode(&[0x12, 0xfe], &mut expected);
            assert_eq!(pcm, expected);
        }
    }

    #[test]
    fn a_chunk_after_the_audio_is_not_played() {
        let mut bytes = wav(1, 1, 8_000, 16, &[1, 0, 2, 0, 3, 0]);
        bytes.extend(b"LIST\x04\0\0\0INFO");
        assert_eq!(read_all(&bytes, "x").unwrap().0, [1, 2, 3]);
    }

    #[test]
    fn no_cut_and_no_mutation_panics() {
        use rand::{RngExt, SeedableRng};
        let good = file("list-chunk-first");
        for length in 0..good.len() {
            let _ = read_all(&good[..length], "cut");
        }
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                let at = random.random_range(0..60);
                bytes[at] = random.random();
            }
            if let Ok((pcm, rate)) = read_all(&bytes, "mutated") {
                assert!(pcm.len() <= bytes.len() && FILE_RATES.contains(&rate));
            }
        }
    }
}
