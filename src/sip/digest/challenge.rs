//! `WWW-Authenticate` and `Proxy-Authenticate` (RFC 7616 §3.3).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt;

use super::{Algorithm, Asker, Qop, parameter, pieces, quoted};
use crate::sip::message::Message;
use crate::sip::text::is_token;

/// Challenges of one response that are looked at: a forking proxy collects a few (RFC 3261 §16.7), each in two or three
/// algorithms.
const MAX_CHALLENGES: usize = 16;

/// A Digest challenge; its values are without quotes and escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub asker: Asker,
    pub realm: String,
    pub nonce: String,
    pub opaque: Option<String>,
    pub algorithm: Algorithm,
    /// The `-sess` form.
    pub sess: bool,
    /// `algorithm=` as it was spelled; `None` when it was left to its default, MD5.
    pub spelled: Option<String>,
    /// The qualities offered that we know; `None` when none is named (RFC 2069).
    pub qops: Option<Vec<Qop>>,
    /// The credentials were right but their nonce is too old.
    pub stale: bool,
}

/// One challenge, or why it can not be answered.
pub type Read = Result<Challenge, String>;

impl Challenge {
    /// Every challenge of a 401 or 407, in order, from both headers: a proxy that forked puts what it collected side by
    /// side.
    pub fn all(response: &Message) -> Vec<Read> {
        let mut all = Vec::new();
        for asker in [Asker::Server, Asker::Proxy] {
            for line in response.lines_named(asker.challenge_header()) {
                let line = String::from_utf8_lossy(line);
                all.extend(Self::parse_line(asker, &line));
            }
        }
        all.truncate(MAX_CHALLENGES);
        all
    }

    /// The challenges of one header line: one by RFC 3261 §20.44, but HTTP joins them with commas and so do some servers.
    pub fn parse_line(asker: Asker, line: &str) -> Vec<Read> {
        let mut starts = Vec::new();
        for piece in pieces(line) {
            let at = (piece.as_ptr() as usize).wrapping_sub(line.as_ptr() as usize);
            if starts.is_empty() || scheme(piece).is_some() {
                starts.push(at);
            }
        }
        let ends = starts.iter().skip(1).copied().chain([line.len()]);
        let parts = starts.iter().zip(ends).filter_map(|(start, end)| line.get(*start..end));
        parts.take(MAX_CHALLENGES).map(|part| Self::parse(asker, part.trim_end_matches([',', ' ', '\t']))).collect()
    }

    /// Reads one challenge.
    ///
    /// # Errors
    /// Why it cannot be answered: another scheme, no realm or nonce, an algorithm or only qualities we do not know.
    pub fn parse(asker: Asker, text: &str) -> Read {
        let text = text.trim();
        let (scheme, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("Basic") {
            return Err("Basic is never answered".into());
        }
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(format!("scheme {} is unknown", scheme.escape_debug()));
        }
        let find = |wanted: &str| parameter(rest, wanted);
        let realm = find("realm").ok_or("a challenge without a realm")?;
        let nonce = find("nonce").ok_or("a challenge without a nonce")?;
        let spelled = find("algorithm");
        let (algorithm, sess) = match &spelled {
            None => (Algorithm::Md5, false),
            Some(name) => {
                Algorithm::parse(name).ok_or_else(|| format!("algorithm {} is unknown", name.escape_debug()))?
            }
        };
        let qops = match find("qop") {
            None => None,
            Some(list) if list.trim().is_empty() => None, // sent by some servers for "none"
            Some(list) => {
                let known: Vec<Qop> = list.split([',', ' ']).filter_map(Qop::parse).collect();
                if known.is_empty() {
                    return Err(format!("qop {} is unknown", list.escape_debug()));
                }
                Some(known)
            }
        };
        let stale = find("stale").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(Self { asker, realm, nonce, opaque: find("opaque"), algorithm, sess, spelled, qops, stale })
    }

    /// The quality to answer with: auth before auth-int, which a proxy that changes the body would break.
    pub fn qop(&self) -> Option<Qop> {
        self.qops.as_ref().and_then(|all| all.iter().min().copied())
    }

    /// The realm as people read it.
    pub fn shown_realm(&self) -> String {
        self.realm.escape_debug().to_string()
    }
}

/// The scheme a piece between commas begins with: `Digest realm="r"` has one, `realm = "r"` has none.
fn scheme(piece: &str) -> Option<&str> {
    let (first, rest) = piece.split_once([' ', '\t'])?;
    let rest = rest.trim_start();
    let starts = is_token(first.as_bytes()) && !rest.starts_with('=');
    let (name, _) = rest.split_once('=')?;
    (starts && is_token(name.trim_end().as_bytes())).then_some(first)
}

impl fmt::Display for Challenge {
    /// The value of the header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest realm={}, nonce={}", quoted(&self.realm), quoted(&self.nonce))?;
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", quoted(opaque))?;
        }
        if let Some(qops) = &self.qops {
            let names: Vec<&str> = qops.iter().map(|qop| qop.name()).collect();
            write!(f, ", qop=\"{}\"", names.join(","))?;
        }
        write!(f, ", algorithm={}{}", self.algorithm.name(), if self.sess { "-sess" } else { "" })?;
        if self.stale {
            f.write_str(", stale=true")?;
        }
        Ok(())
    }
}

/// What `nextnonce=` of (Proxy-)Authentication-Info says (RFC 7616 §3.5).
pub fn next_nonce(info: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(info);
    parameter(&text, "nextnonce").filter(|nonce| !nonce.is_empty())
}
