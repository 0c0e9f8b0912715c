//! `a=crypto` of SDES (RFC 4568): one key of one direction of a stream.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::media::{SrtpKey, SrtpSuite};

/// Longest line worth decoding: suite, key and every parameter we know fit in a third of it.
const MAX_LENGTH: usize = 512;
/// The most packets one key may protect (RFC 3711 §9.2).
const MAX_LIFETIME: u64 = 1 << 48;

/// A usable `a=crypto` line. Its `Debug` does not show the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crypto {
    /// Names the line in the answer, 0 to 999 999 999.
    pub tag: u32,
    pub suite: SrtpSuite,
    pub key: SrtpKey,
    /// How many packets the key may protect, when the author limits it.
    pub lifetime: Option<u64>,
}

/// Why a line cannot be used. The texts hold no key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    #[error("a=crypto is not `tag suite inline:key`")]
    Syntax,
    #[error("the crypto suite is not one of ours")]
    UnknownSuite,
    #[error("the key of an a=crypto line is not base64 of 30 octets")]
    Key,
    #[error("the lifetime of an a=crypto line is not 1 to 2^48 packets")]
    Lifetime,
    #[error("a=crypto with a master key identifier or several keys is not supported")]
    Mki,
    #[error("a session parameter of a=crypto weakens the stream or is not supported")]
    Parameter,
}

impl Crypto {
    /// Reads the value of the attribute: `1 AES_CM_128_HMAC_SHA1_80 inline:… |2^20`.
    ///
    /// # Errors
    /// A line that asks for less protection (`UNENCRYPTED_SRTP`, …), for MKIs or key derivation rates is refused rather
    /// than half obeyed.
    pub fn parse(value: &str) -> Result<Self, CryptoError> {
        if value.len() > MAX_LENGTH {
            return Err(CryptoError::Syntax);
        }
        let mut fields = value.split_ascii_whitespace();
        let mut field = || fields.next().ok_or(CryptoError::Syntax);
        let (tag, suite, key) = (field()?, field()?, field()?);
        if tag.is_empty() || tag.len() > 9 || !tag.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CryptoError::Syntax);
        }
        let tag = tag.parse().map_err(|_| CryptoError::Syntax)?;
        let suite = SrtpSuite::from_name(suite).ok_or(CryptoError::UnknownSuite)?;
        let (key, lifetime) = key_parameters(key)?;
        fields.try_for_each(session_parameter)?;
        Ok(Self { tag, suite, key, lifetime })
    }
}

/// `inline:<key and salt>["|" lifetime]["|" MKI ":" length]` (RFC 4568 §6.1).
fn key_parameters(text: &str) -> Result<(SrtpKey, Option<u64>), CryptoError> {
    let (method, info) = text.split_once(':').ok_or(CryptoError::Syntax)?;
    if !method.eq_ignore_ascii_case("inline") {
        return Err(CryptoError::Syntax);
    }
    if info.contains(';') {
        return Err(CryptoError::Mki); // several keys need an MKI to tell them apart
    }
    let mut parts = info.split('|');
    let key = STANDARD.decode(parts.next().unwrap_or_default()).map_err(|_| CryptoError::Key)?;
    let key = SrtpKey(key.try_into().map_err(|_| CryptoError::Key)?);
    let mut lifetime = None;
    for part in parts {
        if part.contains(':') {
            return Err(CryptoError::Mki);
        }
        if lifetime.is_some() {
            return Err(CryptoError::Syntax);
        }
        lifetime = Some(packets(part).ok_or(CryptoError::Lifetime)?);
    }
    Ok((key, lifetime))
}

/// A lifetime: `2^20` or a plain number.
fn packets(text: &str) -> Option<u64> {
    let packets = match text.strip_prefix("2^") {
        Some(power) => 1u64.checked_shl(power.parse().ok()?)?,
        None => text.parse().ok()?,
    };
    (1..=MAX_LIFETIME).contains(&packets).then_some(packets)
}

/// Session parameters (RFC 4568 §6.3): those that change nothing for us pass.
fn session_parameter(text: &str) -> Result<(), CryptoError> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name {
        "KDR" if value == "0" => Ok(()),                 // the default: keys are derived once
        "WSH" if value.parse::<u32>().is_ok() => Ok(()), // a hint; our window is at least 128
        _ if name.starts_with('-') => Ok(()),            // an extension its author lets us ignore
        _ => Err(CryptoError::Parameter),
    }
}

/// The value as it goes on the wire, key included.
impl fmt::Display for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} inline:{}", self.tag, self.suite.name(), STANDARD.encode(self.key.0))?;
        match self.lifetime {
            Some(packets) if packets.is_power_of_two() => write!(f, "|2^{}", packets.ilog2()),
            Some(packets) => write!(f, "|{packets}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    #[test]
    fn usable_lines_are_read_and_printed() {
        for (line, tag, suite, lifetime) in [
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), 1, SrtpSuite::AesCm128HmacSha1_80, None),
            (
                format!("22 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^20"),
                22,
                SrtpSuite::AesCm128HmacSha1_32,
                Some(1 << 20),
            ),
            (
                format!("3 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1066400"),
                3,
                SrtpSuite::AesCm128HmacSha1_80,
                Some(1_066_400),
            ),
        ] {
            let crypto = Crypto::parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!((crypto.tag, crypto.suite, crypto.lifetime), (tag, suite, lifetime), "{line}");
            assert_eq!(crypto.key.0.as_slice(), b"wDfvg&T+)xG7@fb5jU,RaA}\\|p0%*#", "{line}");
            assert_eq!(crypto.to_string(), line);
        }
    }

    #[test]
    fn harmless_parameters_pass() {
        for parameters in ["KDR=0", "WSH=1024", "-future=1 WSH=64"] {
            assert!(
                Crypto::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} {parameters}")).is_ok(),
                "{parameters}"
            );
        }
    }

    #[test]
    fn unusable_lines_are_refused() {
        let long = "x".repeat(600);
        for (line, expected) in [
            ("", CryptoError::Syntax),
            ("1", CryptoError::Syntax),
            ("1 AES_CM_128_HMAC_SHA1_80", CryptoError::Syntax),
            ("x AES_CM_128_HMAC_SHA1_80 inline:KEY", CryptoError::Syntax),
            ("+1 AES_CM_128_HMAC_SHA1_80 inline:KEY", CryptoError::Syntax),
            ("1234567890 AES_CM_128_HMAC_SHA1_80 inline:KEY", CryptoError::Syntax),
            ("1 AES_CM_128_HMAC_SHA1_80 outline:KEY", CryptoError::Syntax),
            ("1 AES_CM_128_HMAC_SHA1_80 KEY", CryptoError::Syntax),
            (long.as_str(), CryptoError::Syntax),
            ("1 AES_256_CM_HMAC_SHA1_80 inline:KEY", CryptoError::UnknownSuite),
            ("1 NULL_HMAC_SHA1_80 inline:KEY", CryptoError::UnknownSuite),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:", CryptoError::Key),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEYA", CryptoError::Key),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:!KEY", CryptoError::Key),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|0", CryptoError::Lifetime),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^49", CryptoError::Lifetime),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^64", CryptoError::Lifetime),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|x", CryptoError::Lifetime),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|2^20", CryptoError::Syntax),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4", CryptoError::Mki),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|1:4", CryptoError::Mki),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY;inline:KEY", CryptoError::Mki),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY UNENCRYPTED_SRTP", CryptoError::Parameter),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY UNENCRYPTED_SRTCP", CryptoError::Parameter),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY WSH=64 UNAUTHENTICATED_SRTP", CryptoError::Parameter),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY KDR=8", CryptoError::Parameter),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY FEC_ORDER=FEC_SRTP", CryptoError::Parameter),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:KEY future=1", CryptoError::Parameter),
        ] {
            assert_eq!(Crypto::parse(&line.replace("KEY", KEY)), Err(expected), "{line}");
        }
    }

    #[test]
    fn debug_holds_no_key() {
        let crypto = Crypto::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}")).unwrap();
        assert!(!format!("{crypto:?}").contains("119"), "{crypto:?}");
    }
}
