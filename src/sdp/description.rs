//! One session description: every line kept, typed getters on demand.

/// What is wrong with a description, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SdpError {
    pub what: String,
}

/// A parsed description that prints back every line it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {}

impl Description {
    pub fn parse(_bytes: &[u8]) -> Result<Self, SdpError> {
        todo!()
    }
}

impl std::fmt::Display for Description {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
