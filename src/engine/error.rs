//! What goes wrong between an application and the engine.

use std::path::PathBuf;

use crate::ua::VerbError;

/// Why a call into the engine failed. Nothing happened unless a variant says otherwise.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// An option of [`super::EngineOptions`] cannot be used; the text names the option, its value and what is wrong:
    /// "udp_port 5060 on 127.0.0.1: address in use".
    #[error("{option} {what}")]
    Option { option: &'static str, what: String },
    /// The verb is not allowed now, or names something unknown.
    #[error(transparent)]
    Verb(#[from] VerbError),
    /// A file cannot be read or written; the text names it.
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    /// The audio given cannot be played ("not a wav file: …").
    #[error("{0}")]
    Audio(String),
    /// The session has no running audio stream.
    #[error("the session has no audio")]
    NoAudio,
    /// The engine was stopped.
    #[error("the engine is not running")]
    Stopped,
    /// A lane of the engine did not answer in time; the request may still be carried out.
    #[error("the engine did not answer within {0} ms")]
    NoAnswer(u64),
}
