//! SRTP and SRTCP (RFC 3711) with AES-CM and HMAC-SHA1, keyed by SDES (RFC 4568): in place, without allocation.
//!
//! A packet that fails a check changes nothing: neither its bytes, nor the rollover counter, nor the replay window.
//! No MKI, key derivation rate 0 (what RFC 4568 §6.1 and §6.3 have by default).

use std::fmt;

use aes::Aes128;
use ctr::CtrCore;
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use thiserror::Error;

use super::packet::Header;
use crate::media::{SrtpKey, SrtpSuite};

/// The longest tag: what SRTP adds to a packet at most.
pub const MAX_TAG: usize = 10;
/// What SRTCP adds to a packet: the index with the E bit and, in both suites, an 80-bit tag (RFC 4568 §6.2.2).
pub const RTCP_OVERHEAD: usize = 4 + RTCP_TAG;

const RTCP_TAG: usize = 10;
const RTCP_HEADER: usize = 8; // stays in clear: first word and SSRC (RFC 3711 §3.4)
const SALT: usize = 14;
const WINDOW: u64 = u128::BITS as u64; // packets that may come late (RFC 3711 §3.3.2 asks for 64 at least)
/// SSRCs remembered per direction. A peer has one and a new one after a restart; only who holds the key can add any.
const MAX_STREAMS: usize = 4;

/// Why a packet was not opened or not protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SrtpError {
    #[error("no complete SRTP packet")]
    Malformed,
    #[error("SRTP packet was received before")]
    Replay,
    #[error("SRTP packet is too old for the replay window")]
    TooOld,
    #[error("SRTP authentication failed")]
    Authentication,
    #[error("buffer has no room for the authentication tag")]
    NoRoom,
    #[error("SRTP key has protected as many packets as it may")]
    Exhausted,
}

/// Bytes of the SRTP tag of a suite.
fn tag_len(suite: SrtpSuite) -> usize {
    match suite {
        SrtpSuite::AesCm128HmacSha1_80 => 10,
        SrtpSuite::AesCm128HmacSha1_32 => 4,
    }
}

/// XORs `data` with the AES-CM keystream that starts at `iv` (RFC 3711 §4.1.1).
fn apply_keystream(cipher: &Aes128, iv: [u8; 16], data: &mut [u8]) {
    let core = CtrCore::<&Aes128, ctr::flavors::Ctr128BE>::inner_iv_init(cipher, &iv.into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
}

/// Session keys of SRTP or of SRTCP in one direction.
struct SessionKeys {
    cipher: Aes128,
    mac: Hmac<Sha1>, // already fed with the key; cloned for each packet
    salt: [u8; SALT],
}

impl SessionKeys {
    /// Derives cipher key, authentication key and salt with the labels `first`, `first + 1` and `first + 2` (§4.3.1).
    fn derive(master: &SrtpKey, first: u8) -> Self {
        let (key, salt) = master.0.split_first_chunk::<16>().expect("a master key and salt are 30 bytes");
        let kdf = Aes128::new(&(*key).into());
        let derive = |label: u8, out: &mut [u8]| {
            let mut iv = [0; 16];
            iv[..SALT].copy_from_slice(salt);
            iv[7] ^= label;
            out.fill(0);
            apply_keystream(&kdf, iv, out);
        };
        let (mut cipher_key, mut mac_key, mut salt) = ([0; 16], [0; 20], [0; SALT]);
        derive(first, &mut cipher_key);
        derive(first + 1, &mut mac_key);
        derive(first + 2, &mut salt);
        let keys = Self {
            cipher: Aes128::new(&cipher_key.into()),
            mac: Hmac::new_from_slice(&mac_key).expect("HMAC takes a key of any length"),
            salt,
        };
        wipe(&mut cipher_key);
        wipe(&mut mac_key);
        keys
    }

    /// Encrypts or decrypts `data` of the packet with this 48-bit index (§4.1.1).
    fn crypt(&self, ssrc: u32, index: u64, data: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..SALT].copy_from_slice(&self.salt);
        iv[4..8].iter_mut().zip(ssrc.to_be_bytes()).for_each(|(byte, ssrc)| *byte ^= ssrc);
        iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]).for_each(|(byte, index)| *byte ^= index);
        apply_keystream(&self.cipher, iv, data);
    }

    fn mac(&self, authenticated: &[u8], suffix: &[u8]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(authenticated);
        mac.update(suffix);
        mac
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        wipe(&mut self.salt); // cipher and MAC wipe themselves
    }
}

/// Overwrites a secret; `black_box` keeps the compiler from leaving it out as a dead store.
fn wipe(secret: &mut [u8]) {
    secret.fill(0);
    std::hint::black_box(secret);
}

/// Guesses the 48-bit index of `sequence` as the one nearest to `highest` (§3.3.1); `None` before index 0.
fn guess_index(highest: u64, sequence: u16) -> Option<u64> {
    let distance = super::packet::sequence_distance(sequence, highest as u16);
    highest.checked_add_signed(i64::from(distance))
}

/// Protects what we send.
pub struct SrtpSender {
    suite: SrtpSuite,
    rtp: SessionKeys,
    rtcp: SessionKeys,
    highest: Option<u64>, // index: rollover counter and sequence number
    rtcp_index: u32,      // of the last SRTCP packet
}

impl SrtpSender {
    pub fn new(suite: SrtpSuite, master: &SrtpKey) -> Self {
        Self {
            suite,
            rtp: SessionKeys::derive(master, 0),
            rtcp: SessionKeys::derive(master, 3),
            highest: None,
            rtcp_index: 0,
        }
    }

    /// Takes new keys into use; the rollover counter goes on, for the SSRC does (§3.3.1).
    pub fn rekey(&mut self, suite: SrtpSuite, master: &SrtpKey) {
        *self = Self { highest: self.highest, ..Self::new(suite, master) };
    }

    /// Encrypts the RTP packet in the first `len` bytes of `buffer` and appends its tag; returns the new length.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], or [`SrtpError::Exhausted`] after 2^48 packets.
    pub fn protect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let tag_len = tag_len(self.suite);
        let (packet, rest) = buffer.split_at_mut_checked(len).ok_or(SrtpError::NoRoom)?;
        let tag = rest.get_mut(..tag_len).ok_or(SrtpError::NoRoom)?;
        let (header, offset) = Header::parse(packet).map_err(|_| SrtpError::Malformed)?;
        let index = match self.highest {
            None => u64::from(header.sequence),
            Some(highest) => guess_index(highest, header.sequence).ok_or(SrtpError::Exhausted)?,
        };
        if index >> 48 != 0 {
            return Err(SrtpError::Exhausted);
        }
        self.rtp.crypt(header.ssrc, index, packet.get_mut(offset..).unwrap_or_default());
        let roc = ((index >> 16) as u32).to_be_bytes();
        let full = self.rtp.mac(packet, &roc).finalize().into_bytes();
        tag.copy_from_slice(&full[..tag_len]);
        self.highest = self.highest.max(Some(index));
        Ok(len + tag_len)
    }

    /// Encrypts the compound RTCP packet in the first `len` bytes of `buffer`, appends index and tag; returns the length.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], or [`SrtpError::Exhausted`] after 2^31 packets.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let (packet, rest) = buffer.split_at_mut_checked(len).ok_or(SrtpError::NoRoom)?;
        let (trailer, rest) = rest.split_first_chunk_mut::<4>().ok_or(SrtpError::NoRoom)?;
        let tag = rest.first_chunk_mut::<RTCP_TAG>().ok_or(SrtpError::NoRoom)?;
        let ssrc = rtcp_ssrc(packet).ok_or(SrtpError::Malformed)?;
        let index = self.rtcp_index + 1;
        if index >> 31 != 0 {
            return Err(SrtpError::Exhausted);
        }
        self.rtcp.crypt(ssrc, index.into(), packet.get_mut(RTCP_HEADER..).unwrap_or_default());
        *trailer = (1 << 31 | index).to_be_bytes();
        let full = self.rtcp.mac(packet, trailer).finalize().into_bytes();
        tag.copy_from_slice(&full[..RTCP_TAG]);
        self.rtcp_index = index;
        Ok(len + RTCP_OVERHEAD)
    }
}

impl fmt::Debug for SrtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpSender").field("suite", &self.suite).field("highest", &self.highest).finish_non_exhaustive()
    }
}

/// Which of the last 128 indices have come (§3.3.2).
#[derive(Clone, Copy, Debug)]
struct ReplayWindow {
    highest: u64,
    seen: u128, // bit n: `highest - n`
}

impl ReplayWindow {
    fn check(&self, index: u64) -> Result<(), SrtpError> {
        match self.highest.checked_sub(index) {
            Some(behind) if behind >= WINDOW => Err(SrtpError::TooOld),
            Some(behind) if self.seen >> behind & 1 == 1 => Err(SrtpError::Replay),
            _ => Ok(()),
        }
    }

    /// Notes an authenticated index.
    fn note(window: &mut Option<Self>, index: u64) {
        let Some(window) = window else {
            *window = Some(Self { highest: index, seen: 1 });
            return;
        };
        match window.highest.checked_sub(index) {
            Some(behind) => window.seen |= 1u128.checked_shl(behind as u32).unwrap_or(0),
            None => {
                let ahead = (index - window.highest).min(WINDOW) as u32;
                window.seen = window.seen.checked_shl(ahead).unwrap_or(0) | 1;
                window.highest = index;
            }
        }
    }
}

/// What is known of one SSRC.
#[derive(Clone, Copy, Debug)]
struct Stream {
    ssrc: u32,
    rtp: Option<ReplayWindow>,
    rtcp: Option<ReplayWindow>,
    /// The highest index under the keys before, where a peer that obeys §3.3.1 goes on; others begin at 0 again.
    before: Option<u64>,
}

/// Opens what we receive.
pub struct SrtpReceiver {
    suite: SrtpSuite,
    rtp: SessionKeys,
    rtcp: SessionKeys,
    streams: [Option<Stream>; MAX_STREAMS], // the latest first
}

impl SrtpReceiver {
    pub fn new(suite: SrtpSuite, master: &SrtpKey) -> Self {
        Self {
            suite,
            rtp: SessionKeys::derive(master, 0),
            rtcp: SessionKeys::derive(master, 3),
            streams: [None; MAX_STREAMS],
        }
    }

    /// Takes new keys into use. Rollover counters may go on or begin again at 0: both are understood.
    pub fn rekey(&mut self, suite: SrtpSuite, master: &SrtpKey) {
        let streams = self.streams.map(|stream| {
            let Stream { ssrc, rtp, before, .. } = stream?;
            let before = rtp.map(|window| window.highest).or(before);
            Some(Stream { ssrc, rtp: None, rtcp: None, before })
        });
        *self = Self { streams, ..Self::new(suite, master) };
    }

    /// Checks and decrypts an SRTP packet; returns the length of the RTP packet at the front of `packet`.
    ///
    /// # Errors
    /// Any but [`SrtpError::NoRoom`] and [`SrtpError::Exhausted`]; nothing has changed then.
    pub fn unprotect(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let len = packet.len().checked_sub(tag_len(self.suite)).ok_or(SrtpError::Malformed)?;
        let (packet, tag) = packet.split_at_mut_checked(len).ok_or(SrtpError::Malformed)?;
        let (header, offset) = Header::parse(packet).map_err(|_| SrtpError::Malformed)?;
        let mut stream = self.stream(header.ssrc);
        let guesses = match (stream.rtp, stream.before) {
            (Some(window), _) => [Some(guess_index(window.highest, header.sequence).ok_or(SrtpError::TooOld)?), None],
            (None, before) => {
                let first = u64::from(header.sequence);
                let further = before.and_then(|before| guess_index(before, header.sequence));
                [Some(first), further.filter(|&further| further != first)]
            }
        };
        for index in guesses.into_iter().flatten() {
            if let Some(window) = stream.rtp {
                window.check(index)?;
            }
            let roc = ((index >> 16) as u32).to_be_bytes();
            if self.rtp.mac(packet, &roc).verify_truncated_left(tag).is_ok() {
                self.rtp.crypt(header.ssrc, index, packet.get_mut(offset..).unwrap_or_default());
                ReplayWindow::note(&mut stream.rtp, index);
                self.keep(stream);
                return Ok(len);
            }
        }
        Err(SrtpError::Authentication)
    }

    /// Checks and decrypts an SRTCP packet; returns the length of the RTCP packet at the front of `packet`.
    ///
    /// # Errors
    /// As [`Self::unprotect`].
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let len = packet.len().checked_sub(RTCP_OVERHEAD).ok_or(SrtpError::Malformed)?;
        if len < RTCP_HEADER || len % 4 != 0 {
            return Err(SrtpError::Malformed);
        }
        let (packet, rest) = packet.split_at_mut_checked(len).ok_or(SrtpError::Malformed)?;
        let (trailer, tag) = rest.split_first_chunk::<4>().ok_or(SrtpError::Malformed)?;
        let ssrc = rtcp_ssrc(packet).ok_or(SrtpError::Malformed)?;
        let word = u32::from_be_bytes(*trailer);
        let index = u64::from(word & 0x7fff_ffff);
        let mut stream = self.stream(ssrc);
        if let Some(window) = stream.rtcp {
            window.check(index)?;
        }
        self.rtcp.mac(packet, trailer).verify_truncated_left(tag).map_err(|_| SrtpError::Authentication)?;
        if word >> 31 == 1 {
            self.rtcp.crypt(ssrc, index, packet.get_mut(RTCP_HEADER..).unwrap_or_default());
        }
        ReplayWindow::note(&mut stream.rtcp, index);
        self.keep(stream);
        Ok(len)
    }

    fn stream(&self, ssrc: u32) -> Stream {
        let known = self.streams.iter().flatten().find(|stream| stream.ssrc == ssrc);
        known.copied().unwrap_or(Stream { ssrc, rtp: None, rtcp: None, before: None })
    }

    /// Puts a stream to the front; the one not heard for longest falls off a full table.
    fn keep(&mut self, stream: Stream) {
        let place = self.streams.iter().position(|slot| slot.is_none_or(|kept| kept.ssrc == stream.ssrc));
        if let Some(older) = self.streams.get_mut(..=place.unwrap_or(MAX_STREAMS - 1)) {
            older.rotate_right(1);
        }
        if let Some(first) = self.streams.first_mut() {
            *first = Some(stream);
        }
    }
}

impl fmt::Debug for SrtpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = self.streams.iter().flatten().count();
        f.debug_struct("SrtpReceiver").field("suite", &self.suite).field("streams", &streams).finish_non_exhaustive()
    }
}

/// The sender's SSRC of an RTCP packet.
fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    let bytes = packet.get(4..RTCP_HEADER)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> serde_json::Value {
        serde_json::from_str(text).expect("vectors are JSON")
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    fn field(value: &serde_json::Value, name: &str) -> Vec<u8> {
        unhex(value[name].as_str().unwrap_or_else(|| panic!("field {name}")))
    }

    fn master(key: &[u8], salt: &[u8]) -> SrtpKey {
        SrtpKey([key, salt].concat().try_into().expect("30 bytes"))
    }

    #[test]
    fn keystream_and_derivation_are_those_of_the_rfc() {
        let vectors = json(include_str!("../../tests/data/srtp/rfc3711_rfc6188.json"));
        let stream = &vectors["aes_cm_keystream_128"];
        let cipher = Aes128::new_from_slice(&field(stream, "session_key")).expect("16 bytes");
        for (counter, block) in stream["blocks"].as_object().expect("a table") {
            let mut iv: [u8; 16] = field(stream, "session_salt_shifted").try_into().expect("16 bytes");
            let counter = u16::from_str_radix(&counter[2..], 16).expect("hex");
            iv[14..].copy_from_slice(&counter.to_be_bytes());
            let mut out = [0; 16];
            apply_keystream(&cipher, iv, &mut out);
            assert_eq!(out.to_vec(), unhex(block.as_str().expect("hex")), "block {counter:#x}");
        }
        let kdf = &vectors["kdf_128"];
        let master = master(&field(kdf, "master_key"), &field(kdf, "master_salt"));
        for (first, prefix) in [(0, ""), (3, "rtcp_")] {
            let keys = SessionKeys::derive(&master, first);
            assert_eq!(keys.salt.to_vec(), field(kdf, &format!("{prefix}cipher_salt")));
            let (mut ours, mut theirs) = ([0; 64], [0; 64]);
            apply_keystream(&keys.cipher, [7; 16], &mut ours);
            let cipher = Aes128::new_from_slice(&field(kdf, &format!("{prefix}cipher_key"))).expect("16 bytes");
            apply_keystream(&cipher, [7; 16], &mut theirs);
            assert_eq!(ours, theirs);
            // The RFC prints 94 bytes of the authentication key's stream; the suites use the first 20.
            let key = field(kdf, &format!("{prefix}auth_key"));
            let theirs = Hmac::<Sha1>::new_from_slice(&key[..20]).expect("any length").chain_update(b"x").finalize();
            assert_eq!(keys.mac(b"x", b"").finalize().into_bytes(), theirs.into_bytes());
        }
    }

    fn suite_cases() -> Vec<(SrtpSuite, serde_json::Value)> {
        let vectors = json(include_str!("../../tests/data/srtp/packets.json"));
        let cases = vectors["cases"].as_array().expect("a list");
        let ours = |case: &serde_json::Value| {
            SrtpSuite::from_name(case["profile"].as_str().expect("text")).map(|suite| (suite, case.clone()))
        };
        cases.iter().filter_map(ours).collect()
    }

    #[test]
    fn every_packet_vector_of_our_suites_gets_its_verdict_and_its_bytes() {
        let cases = suite_cases();
        assert_eq!(cases.len(), 2);
        for (suite, case) in cases {
            let master = master(&field(&case, "master_key"), &field(&case, "master_salt"));
            let (mut sender, mut receiver) = (SrtpSender::new(suite, &master), SrtpReceiver::new(suite, &master));
            let steps = case["steps"].as_array().expect("a list");
            assert_eq!(steps.len(), 34);
            for step in steps {
                let what = format!("{} {}", suite.name(), step["what"].as_str().expect("text"));
                let (rtcp, protected) = (step["kind"] == "rtcp", field(step, "protected"));
                let mut packet = protected.clone();
                let got = if rtcp { receiver.unprotect_rtcp(&mut packet) } else { receiver.unprotect(&mut packet) };
                match step["receiver"].as_str().expect("text") {
                    "accept" => {
                        let plain = field(step, "plain");
                        let len = got.unwrap_or_else(|error| panic!("{what}: {error}"));
                        assert_eq!(packet[..len], plain, "{what}");
                        let mut out = plain.clone();
                        out.resize(plain.len() + RTCP_OVERHEAD, 0);
                        let send = if rtcp { SrtpSender::protect_rtcp } else { SrtpSender::protect };
                        let len = send(&mut sender, &mut out, plain.len()).unwrap_or_else(|e| panic!("{what}: {e}"));
                        assert_eq!(out[..len], protected, "{what}");
                    }
                    verdict => {
                        let want = match verdict {
                            "replay" => SrtpError::Replay,
                            "too-old" => SrtpError::TooOld,
                            "auth-fail" => SrtpError::Authentication,
                            "malformed" => SrtpError::Malformed,
                            other => panic!("unknown verdict {other}"),
                        };
                        // 5 bytes after the header hold a 32-bit tag: long enough there, and refused as a replay.
                        let whole = suite == SrtpSuite::AesCm128HmacSha1_32 && what.contains("header + 5 bytes");
                        assert_eq!(got, Err(if whole { SrtpError::Replay } else { want }), "{what}");
                        assert_eq!(packet, protected, "{what}: bytes changed");
                    }
                }
            }
        }
    }

    const SUITE: SrtpSuite = SrtpSuite::AesCm128HmacSha1_80;

    fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
        let header = Header { marker: false, payload_type: 0, sequence, timestamp: 160, ssrc };
        [header.to_bytes().as_slice(), &[0x55; 160]].concat()
    }

    fn protected(sender: &mut SrtpSender, ssrc: u32, sequence: u16) -> Vec<u8> {
        let mut buffer = packet(ssrc, sequence);
        let len = buffer.len();
        buffer.resize(len + MAX_TAG, 0);
        let len = sender.protect(&mut buffer, len).expect("room for the tag");
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn new_keys_go_on_with_the_rollover_counter_or_begin_again() {
        let (old, new) = (SrtpKey([1; 30]), SrtpKey([2; 30]));
        for goes_on in [true, false] {
            let (mut sender, mut receiver) = (SrtpSender::new(SUITE, &old), SrtpReceiver::new(SUITE, &old));
            for sequence in [60_000, 20_000, 40_000, 100] {
                let mut packet = protected(&mut sender, 9, sequence);
                receiver.unprotect(&mut packet).expect("authentic");
            }
            match goes_on {
                true => sender.rekey(SUITE, &new),
                false => sender = SrtpSender::new(SUITE, &new),
            }
            receiver.rekey(SUITE, &new);
            for sequence in 101..110 {
                let mut sent = protected(&mut sender, 9, sequence);
                let len = receiver.unprotect(&mut sent).expect("authentic");
                assert_eq!(sent[..len], packet(9, sequence), "goes on: {goes_on}");
            }
        }
    }

    #[test]
    fn a_fifth_ssrc_pushes_out_the_one_not_heard_for_longest() {
        let key = SrtpKey([3; 30]);
        let mut receiver = SrtpReceiver::new(SUITE, &key);
        let first: Vec<_> = (1..=5).map(|ssrc| protected(&mut SrtpSender::new(SUITE, &key), ssrc, 10)).collect();
        for packet in &first[..4] {
            receiver.unprotect(&mut packet.clone()).expect("authentic");
        }
        let again = protected(&mut SrtpSender::new(SUITE, &key), 1, 11);
        receiver.unprotect(&mut again.clone()).expect("authentic");
        receiver.unprotect(&mut first[4].clone()).expect("authentic");
        let kept: Vec<_> = receiver.streams.iter().flatten().map(|stream| stream.ssrc).collect();
        assert_eq!(kept, [5, 1, 4, 3]);
        assert_eq!(receiver.unprotect(&mut again.clone()), Err(SrtpError::Replay));
    }

    #[test]
    fn any_bytes_are_refused_without_a_trace() {
        let key = SrtpKey([4; 30]);
        let mut sender = SrtpSender::new(SUITE, &key);
        let mut receiver = SrtpReceiver::new(SUITE, &key);
        receiver.unprotect(&mut protected(&mut sender, 9, 1)).expect("authentic");
        let good = protected(&mut sender, 9, 2);
        for len in 0..good.len() {
            let mut cut = good[..len].to_vec();
            assert!(receiver.unprotect(&mut cut).is_err() && receiver.unprotect_rtcp(&mut cut).is_err());
            assert_eq!(cut, good[..len]);
        }
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x40;
            assert!(receiver.unprotect(&mut changed).is_err(), "byte {at}");
        }
        assert_eq!(receiver.streams.iter().flatten().count(), 1);
        receiver.unprotect(&mut good.clone()).expect("nothing had changed");
    }

    #[test]
    fn debug_output_holds_no_key() {
        let key = SrtpKey([0xab; 30]);
        let text = format!("{:?} {:?}", SrtpSender::new(SUITE, &key), SrtpReceiver::new(SUITE, &key));
        assert_eq!(
            text,
            "SrtpSender { suite: AesCm128HmacSha1_80, highest: None, .. } \
             SrtpReceiver { suite: AesCm128HmacSha1_80, streams: 0, .. }"
        );
    }
}
