//! `Authorization` and `Proxy-Authorization` (RFC 7616 §3.4).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt;

use super::arithmetic::count_digits;
use super::{Algorithm, Qop, parameter, quoted};

/// The answer to a challenge; its values are without quotes and escapes. `response` never shows but on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub username: String,
    pub realm: String,
    pub nonce: String,
    pub opaque: Option<String>,
    pub uri: String,
    pub algorithm: Algorithm,
    /// The `-sess` form.
    pub sess: bool,
    /// `algorithm=` as the challenge spelled it; `None` when it had none.
    pub spelled: Option<String>,
    pub qop: Option<Qop>,
    /// Written with a qop, and by the `-sess` forms.
    pub cnonce: Option<String>,
    /// Written with a qop.
    pub count: Option<u32>,
    pub response: String,
}

impl Answer {
    /// Reads the value of the header.
    ///
    /// # Errors
    /// What is missing or unknown.
    pub fn parse(value: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(value);
        let (scheme, rest) = text.trim().split_once([' ', '\t']).ok_or("no credentials")?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(format!("scheme {} is unknown", scheme.escape_debug()));
        }
        let find = |wanted: &str| parameter(rest, wanted);
        let needed = |name: &str| find(name).ok_or_else(|| format!("no {name}"));
        let spelled = find("algorithm");
        let (algorithm, sess) = match &spelled {
            None => (Algorithm::Md5, false),
            Some(name) => Algorithm::parse(name).ok_or("algorithm is unknown")?,
        };
        let qop = find("qop").map(|name| Qop::parse(&name).ok_or("qop is unknown")).transpose()?;
        let count = find("nc").map(|digits| u32::from_str_radix(&digits, 16).map_err(|_| "nc is no number"));
        Ok(Self {
            username: needed("username")?,
            realm: needed("realm")?,
            nonce: needed("nonce")?,
            opaque: find("opaque"),
            uri: needed("uri")?,
            algorithm,
            sess,
            spelled,
            qop,
            cnonce: find("cnonce"),
            count: count.transpose()?,
            response: needed("response")?.to_ascii_lowercase(),
        })
    }
}

impl fmt::Display for Answer {
    /// The value of the header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Digest username={}, realm={}, nonce={}, uri={}",
            quoted(&self.username),
            quoted(&self.realm),
            quoted(&self.nonce),
            quoted(&self.uri)
        )?;
        if let Some(qop) = self.qop {
            write!(f, ", qop={}", qop.name())?;
            write!(f, ", nc={}", count_digits(self.count.unwrap_or(1)))?;
        }
        if let Some(cnonce) = &self.cnonce {
            write!(f, ", cnonce={}", quoted(cnonce))?;
        }
        write!(f, ", response=\"{}\"", self.response)?;
        if let Some(spelled) = &self.spelled {
            write!(f, ", algorithm={}", if spelled.is_empty() { "MD5" } else { spelled })?;
        }
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", quoted(opaque))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} at {}, {})", self.username.escape_debug(), self.realm, self.algorithm.name())
    }
}

/// A copy of the header's value for people: what proves the password is left out.
pub fn without_proof(value: &str) -> String {
    let Some((scheme, rest)) = value.trim().split_once([' ', '\t']) else { return "…".into() };
    if !scheme.eq_ignore_ascii_case("Digest") {
        return format!("{scheme} …");
    }
    let hidden =
        |name: &str| ["response", "cnonce", "nonce", "opaque"].iter().any(|one| one.eq_ignore_ascii_case(name));
    let shown: Vec<String> = super::pieces(rest)
        .map(|piece| match piece.split_once('=') {
            Some((name, _)) if hidden(name.trim()) => format!("{}=\"…\"", name.trim()),
            Some(_) => piece.to_owned(),
            None => "…".to_owned(),
        })
        .collect();
    format!("{scheme} {}", shown.join(", "))
}
