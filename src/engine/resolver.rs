//! Host names to addresses, off the lane: the system's resolver on a few threads of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use crate::ua::QueryId;
use crate::ua::locate::{Answer, Question};

/// Lookups at once, a thread each.
pub(super) const LOOKUP_LIMIT: usize = 16;
/// Questions open at once, waiting ones included.
pub(super) const RESOLVED_LIMIT: usize = 1024;
/// Addresses taken from one answer.
const ADDRESS_LIMIT: usize = 16;

/// An answer for the user agent.
#[derive(Debug)]
pub(super) struct Resolved {
    pub query: QueryId,
    pub answer: Result<Answer, String>,
}

pub(super) struct Resolver {
    answers: mpsc::Sender<Resolved>,
    open: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Resolver {
    pub fn new(answers: mpsc::Sender<Resolved>) -> Self {
        Self {
            answers,
            open: Arc::new(Semaphore::new(RESOLVED_LIMIT)),
            running: Arc::new(Semaphore::new(LOOKUP_LIMIT)),
        }
    }

    /// Starts a lookup; the answer comes through the queue.
    ///
    /// # Errors
    /// When too many are open.
    pub fn ask(&self, query: QueryId, question: Question, patience: Duration) -> Result<(), String> {
        let Ok(permit) = self.open.clone().try_acquire_owned() else {
            return Err(format!("too many lookups are open to resolve {}", question.name()));
        };
        let (answers, running) = (self.answers.clone(), self.running.clone());
        tokio::spawn(async move {
            let lookup = async {
                let Question::Address { host, .. } = question else {
                    return Err("only addresses are looked up".to_owned());
                };
                // A lookup given up on still occupies its thread: the permit goes with it.
                let thread = running.acquire_owned().await.map_err(|error| error.to_string())?;
                let found = tokio::task::spawn_blocking(move || {
                    let _thread = thread;
                    std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), 0))
                        .map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
                });
                let found = found.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                let mut addresses: Vec<IpAddr> = Vec::new();
                for address in found {
                    if !addresses.contains(&address) && addresses.len() < ADDRESS_LIMIT {
                        addresses.push(address);
                    }
                }
                Ok(Answer::Address(addresses))
            };
            let answer = match tokio::time::timeout(patience, lookup).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {} s", patience.as_secs_f32())),
            };
            let _ = answers.send(Resolved { query, answer }).await;
            drop(permit);
        });
        Ok(())
    }
}
