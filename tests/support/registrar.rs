//! A registrar played by a raw node: it keeps bindings as RFC 3261 §10.3 says and answers as the test wants.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use sipwire::sip::build::Builder;
use sipwire::sip::headers::clamped;
use sipwire::sip::message::{HeaderName, Message, Method};

use super::SimNet;

/// One REGISTER as it came.
#[derive(Clone, Debug)]
pub struct Register {
    pub at: Duration,
    pub aor: String,
    pub call_id: String,
    pub number: u32,
    pub expires: u32,
    /// Values of Contact, in order.
    pub contacts: Vec<String>,
    pub message: Message,
}

/// An answer of the test's instead of the usual one: code and further headers.
pub type Answer = Option<(u16, Vec<(&'static str, String)>)>;
pub type Script = Box<dyn FnMut(&Register) -> Answer>;

#[derive(Default)]
pub struct Registrar {
    /// Address of record and contact URI → until when.
    pub bindings: BTreeMap<(String, String), Duration>,
    pub log: Vec<Register>,
    last: BTreeMap<String, (String, u32)>,
    /// Says something else than 200; `None` from it lets the usual happen.
    pub script: Option<Script>,
    /// Answers nothing at all.
    pub is_dead: bool,
    /// Headers of each 200.
    pub extra: Vec<(&'static str, String)>,
    answers: Vec<(Bytes, Bytes)>,
}

impl Registrar {
    /// Puts a registrar on a raw node; the test shares it.
    pub fn serve(net: &mut SimNet, node: usize) -> Rc<RefCell<Self>> {
        let registrar = Rc::new(RefCell::new(Self::default()));
        let shared = registrar.clone();
        net.nodes[node].serve = Some(Box::new(move |message, from, at| shared.borrow_mut().take(message, from, at)));
        registrar
    }

    /// The contacts of an address of record that have not run out.
    pub fn bound(&self, aor: &str, now: Duration) -> Vec<String> {
        let live = self.bindings.iter().filter(|((owner, _), until)| owner == aor && **until > now);
        live.map(|((_, contact), _)| contact.clone()).collect()
    }

    fn take(&mut self, message: &Message, from: SocketAddr, at: Duration) -> Vec<Bytes> {
        if self.is_dead || !message.is_request() || *message.method() != Method::Register {
            return Vec::new();
        }
        // A retransmission gets the same answer.
        let repeated = self.answers.iter().find(|(request, _)| request == message.as_bytes());
        if let Some((_, answer)) = repeated {
            return vec![answer.clone()];
        }
        let answer = self.answer(message, from, at);
        self.answers.push((message.as_bytes().clone(), answer.clone()));
        if self.answers.len() > 200 {
            self.answers.remove(0);
        }
        vec![answer]
    }

    fn answer(&mut self, message: &Message, from: SocketAddr, at: Duration) -> Bytes {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let register = Register {
            at,
            aor: text(message.to().expect("To").uri_raw),
            call_id: text(message.call_id().expect("Call-ID")),
            number: message.cseq().expect("CSeq").number,
            expires: message.header(HeaderName::Expires).and_then(clamped).expect("Expires"),
            contacts: message.header_values(HeaderName::Contact).map(text).collect(),
            message: message.clone(),
        };
        self.log.push(register.clone());
        let order = (register.call_id.clone(), register.number);
        if let Some((call_id, number)) = self.last.insert(register.aor.clone(), order) {
            assert_eq!(register.call_id, call_id, "one Call-ID for each account");
            assert!(register.number > number, "the CSeq number rises");
        }
        let (code, headers) = match self.script.as_mut().and_then(|script| script(&register)) {
            Some(answer) => answer,
            None => (200, self.grant(&register, message)),
        };
        let mut response = Builder::response(message, code, "", Some("registrar"), from);
        for (name, value) in headers.into_iter().chain(if code == 200 { self.extra.clone() } else { Vec::new() }) {
            response = response.header(name, value);
        }
        response.finish(None)
    }

    fn grant(&mut self, register: &Register, message: &Message) -> Vec<(&'static str, String)> {
        for contact in message.contacts().map(|contact| contact.expect("a contact")) {
            let key = (register.aor.clone(), String::from_utf8(contact.uri_raw.to_vec()).expect("text"));
            match contact.expires().unwrap_or(register.expires) {
                0 => drop(self.bindings.remove(&key)),
                seconds => drop(self.bindings.insert(key, register.at + Duration::from_secs(seconds.into()))),
            }
        }
        let listed = self.bound(&register.aor, register.at).into_iter().map(|contact| {
            let until = self.bindings[&(register.aor.clone(), contact.clone())];
            ("Contact", format!("<{contact}>;expires={}", (until - register.at).as_secs()))
        });
        listed.collect()
    }
}
