//! Digest access authentication (RFC 7616, RFC 8760, RFC 3261 §22): the arithmetic, challenges, their answers and the
//! server's side. Sans-IO: time and randomness are arguments.
//!
//! - [`arithmetic`]: what `response=` is, for every algorithm and quality of protection.
//! - [`challenge`]: `WWW-Authenticate` and `Proxy-Authenticate`, read from anybody and printed for everybody.
//! - [`answer`]: `Authorization` and `Proxy-Authorization`, read and printed.
//! - [`client`]: which challenges of a response are answered, the nonce cache, and when to stop.
//! - [`server`]: nonces that say when and for whom they were made, and the check of an answer.

pub mod answer;
pub mod arithmetic;
pub mod challenge;
pub mod client;
pub mod server;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroize;

use crate::sip::text::unquoted;

/// A digest algorithm, as `algorithm=` names it; the `-sess` forms share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Md5,
    Sha256,
    Sha512_256,
}

impl Algorithm {
    /// The name in `algorithm=` (RFC 8760 §2.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    /// Reads `algorithm=` in any case; true for the `-sess` form.
    pub fn parse(name: &str) -> Option<(Self, bool)> {
        let (plain, sess) = match name.len().checked_sub(5).and_then(|at| name.split_at_checked(at)) {
            Some((plain, tail)) if tail.eq_ignore_ascii_case("-sess") => (plain, true),
            _ => (name, false),
        };
        let all = [Self::Md5, Self::Sha256, Self::Sha512_256];
        Some((all.into_iter().find(|one| one.name().eq_ignore_ascii_case(plain))?, sess))
    }
}

/// The quality of protection (RFC 7616 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qop {
    Auth,
    /// The body is protected too.
    AuthInt,
}

impl Qop {
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }

    /// Reads one name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Auth, Self::AuthInt].into_iter().find(|one| one.name().eq_ignore_ascii_case(name.trim()))
    }
}

/// Who asks: the server a request is for (401), or a proxy on the way (407).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asker {
    Server,
    Proxy,
}

impl Asker {
    /// The code of a response that asks.
    pub fn code(self) -> u16 {
        match self {
            Self::Server => 401,
            Self::Proxy => 407,
        }
    }

    /// The header that asks.
    pub fn challenge_header(self) -> &'static str {
        match self {
            Self::Server => "WWW-Authenticate",
            Self::Proxy => "Proxy-Authenticate",
        }
    }

    /// The header that answers.
    pub fn answer_header(self) -> &'static str {
        match self {
            Self::Server => "Authorization",
            Self::Proxy => "Proxy-Authorization",
        }
    }

    /// The header of a success that names the next nonce (RFC 7616 §3.5, RFC 3261 §20.6).
    pub fn info_header(self) -> &'static str {
        match self {
            Self::Server => "Authentication-Info",
            Self::Proxy => "Proxy-Authentication-Info",
        }
    }
}

/// A name and its password. The password never shows, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("password", &"…").finish()
    }
}

/// `name=value` and `name="value"` of a challenge or an answer, in order; names in any case. Values come without their
/// quotes and escapes: that is what is hashed (RFC 7616 §3.4.2, `unq`).
fn parameters(text: &str) -> impl Iterator<Item = (&str, String)> {
    pieces(text).filter_map(|piece| {
        let (name, value) = piece.split_once('=')?;
        Some((name.trim(), unquoted(value.as_bytes())))
    })
}

/// The value of a parameter.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    parameters(text).find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}

/// The parts between commas outside quotes, trimmed, without the empty ones.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.char_indices().find(|(_, letter)| {
            match letter {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ',' if !quoted => return true,
                _ => {}
            }
            false
        });
        let (piece, after) = match end.and_then(|(at, _)| text.split_at_checked(at)) {
            Some((piece, after)) => (piece, after.strip_prefix(',')),
            None => (text, None),
        };
        rest = after;
        Some(piece.trim())
    })
    .filter(|piece| !piece.is_empty())
}

/// A quoted string with the escapes it needs; control characters go.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}
