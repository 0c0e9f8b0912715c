//! Wakes an asyncio loop: one socket pair for each loop, however many streams it waits for.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use pyo3::prelude::*;

/// What the waking threads touch: no lock, and a system call only for the first of several wake-ups.
struct Bell {
    write: UnixStream,
    rung: AtomicBool,
}

struct Token {
    bell: Arc<Bell>,
    number: u64,
    ready: AtomicBool,
}

impl Wake for Token {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.ready.swap(true, Ordering::SeqCst) && !self.bell.rung.swap(true, Ordering::SeqCst) {
            // A full pipe already wakes the loop; a closed one has nobody to wake.
            let _ = (&self.bell.write).write(&[1]);
        }
    }
}

/// The end a loop watches: register `fileno()` with `add_reader` and call `take()` when it is readable.
#[pyclass(frozen, name = "WakeHub", module = "sipwire._core")]
pub struct PyWakeHub {
    read: UnixStream,
    bell: Arc<Bell>,
    /// The tokens in use. Never locked by a waking thread.
    tokens: Mutex<(u64, Vec<Arc<Token>>)>,
}

#[pymethods]
impl PyWakeHub {
    #[new]
    fn new() -> PyResult<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let bell = Arc::new(Bell { write, rung: AtomicBool::new(false) });
        Ok(Self { read, bell, tokens: Mutex::default() })
    }

    fn fileno(&self) -> i32 {
        self.read.as_raw_fd()
    }

    /// A new thing to wait for.
    fn token(&self) -> PyWakeToken {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.0 += 1;
        let token = Arc::new(Token { bell: self.bell.clone(), number: tokens.0, ready: AtomicBool::new(false) });
        tokens.1.push(token.clone());
        PyWakeToken { token }
    }

    /// Forgets a token; late wake-ups through it do nothing.
    fn forget(&self, token: &PyWakeToken) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.1.retain(|known| !Arc::ptr_eq(known, &token.token));
    }

    /// The numbers of the tokens woken since the last call.
    fn take(&self) -> PyResult<Vec<u64>> {
        let mut buffer = [0; 64];
        loop {
            match (&self.read).read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        // First: a token that gets ready behind the scan rings again.
        self.bell.rung.store(false, Ordering::SeqCst);
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(tokens
            .1
            .iter()
            .filter(|token| token.ready.swap(false, Ordering::SeqCst))
            .map(|token| token.number)
            .collect())
    }
}

/// One thing a loop waits for.
#[pyclass(frozen, name = "WakeToken", module = "sipwire._core")]
pub struct PyWakeToken {
    token: Arc<Token>,
}

impl PyWakeToken {
    pub fn waker(&self) -> Waker {
        self.token.clone().into()
    }
}

#[pymethods]
impl PyWakeToken {
    #[getter]
    fn number(&self) -> u64 {
        self.token.number
    }

    /// Wakes the loop as the core does.
    fn wake(&self) {
        self.token.wake_by_ref();
    }
}
