//! Framing of SIP on byte streams (RFC 3261 §18.3, RFC 5626 §4.4.1): cut and glue anywhere, the same messages come out.

use bytes::Bytes;

use super::message::{Message, ParseError};

/// One thing found in the stream.
#[derive(Debug)]
pub enum Frame {
    Message(Message),
    /// CRLF CRLF: to be answered with one CRLF.
    Ping,
    /// A single CRLF that answers our ping.
    Pong,
    /// A message that cannot be used but whose end is known: answer it and go on.
    Bad(Box<ParseError>),
    /// The stream cannot be followed any more (no end in sight, over the limits): answer if there is an answer, then close.
    Lost(Box<ParseError>),
}

/// Collects bytes of one connection and gives back whole messages.
#[derive(Debug, Default)]
pub struct StreamFramer {}

impl StreamFramer {
    pub fn push(&mut self, _bytes: &[u8]) {
        todo!()
    }
    /// The next whole thing; `None` until more bytes come.
    pub fn next_frame(&mut self) -> Option<Frame> {
        todo!()
    }
    #[doc(hidden)]
    pub fn buffered(&self) -> Bytes {
        todo!()
    }
}
