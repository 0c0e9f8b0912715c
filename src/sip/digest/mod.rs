//! Digest access authentication (RFC 7616, RFC 8760, RFC 3261 §22): the arithmetic, challenges and their answers.

use std::fmt;

/// A digest algorithm, as `algorithm=` names it; the `-sess` forms share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Md5,
    Sha256,
    Sha512_256,
}

/// A name and its password. The password never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("password", &"…").finish()
    }
}
