//! A peer that the test plays message by message, where a user agent would never say what must be answered.

use std::time::Duration;

use bytes::Bytes;

use sipwire::sip::message::{HeaderName, Message, Method};

use super::SimNet;

/// A description that any of our user agents can take: PCMU without SRTP.
pub const SDP: &str = "v=0\no=carol 1 1 IN IP4 192.0.2.4\ns=-\nc=IN IP4 192.0.2.4\nt=0 0\nm=audio 4000 RTP/AVP 0\n";

/// One request of a peer; the fields are what a test may want to get wrong.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub uri: String,
    pub version: &'static str,
    pub branch: String,
    pub via: &'static str, // more parameters
    pub from_tag: &'static str,
    pub to_tag: String,
    pub call_id: &'static str,
    pub cseq: u32,
    pub cseq_method: &'static str,
    pub max_forwards: u32,
    pub contact: bool,
    pub more: String,
    pub body: (&'static str, String),
}

impl Ask {
    /// A request to bob outside a dialog; INVITE comes with [`SDP`].
    pub fn new(method: &'static str) -> Self {
        let body = if method == "INVITE" { SDP } else { "" };
        Self {
            method,
            uri: "sip:bob@example.com".to_owned(),
            version: "SIP/2.0",
            branch: format!("z9hG4bK-{method}-1"),
            via: ";rport",
            from_tag: "carol1",
            to_tag: String::new(),
            call_id: "call-1@carol",
            cseq: 1,
            cseq_method: method,
            max_forwards: 70,
            contact: true,
            more: String::new(),
            body: ("application/sdp", body.to_owned()),
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn text(&self, address: std::net::SocketAddr) -> String {
        let Self { method, uri, version, branch, via, from_tag, call_id, cseq, cseq_method, .. } = self;
        let to_tag = if self.to_tag.is_empty() { String::new() } else { format!(";tag={}", self.to_tag) };
        let contact = if self.contact { format!("Contact: <sip:carol@{address}>\n") } else { String::new() };
        let (content_type, body) = &self.body;
        let content_type = if body.is_empty() { String::new() } else { format!("Content-Type: {content_type}\n") };
        format!(
            "{method} {uri} {version}\nVia: SIP/2.0/UDP {address};branch={branch}{via}\n\
             Max-Forwards: {}\nFrom: <sip:carol@example.com>;tag={from_tag}\nTo: <sip:bob@example.com>{to_tag}\n\
             Call-ID: {call_id}\nCSeq: {cseq} {cseq_method}\n{contact}{}{content_type}Content-Length: {}\n\n{body}",
            self.max_forwards,
            self.more,
            body.replace('\n', "\r\n").len(),
        )
    }
}

/// What a response of a peer says.
#[derive(Clone, Debug)]
pub struct Reply {
    pub code: u16,
    /// None adds no tag.
    pub tag: Option<&'static str>,
    pub contact: bool,
    pub more: String,
    pub body: &'static str,
}

impl Reply {
    pub fn new(code: u16) -> Self {
        Self { code, tag: (code > 100).then_some("carol9"), contact: true, more: String::new(), body: "" }
    }

    /// A 200 to INVITE.
    pub fn ok() -> Self {
        Self { body: SDP, ..Self::new(200) }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl SimNet {
    /// Sends a request of a played peer and gives the network time to bring what comes back.
    pub fn ask(&mut self, peer: usize, to: usize, ask: &Ask) {
        let text = ask.text(self.nodes[peer].address);
        self.send_raw(peer, to, &text);
        self.run_ms(50);
    }

    /// Answers a request that came to a played peer.
    pub fn reply(&mut self, peer: usize, request: &Message, reply: &Reply) {
        let value = |name| String::from_utf8_lossy(request.header(name).unwrap_or_default()).into_owned();
        let vias: String = request
            .header_lines(HeaderName::Via)
            .map(|via| format!("Via: {}\n", String::from_utf8_lossy(via)))
            .collect();
        let tag = match reply.tag {
            Some(tag) if request.to().is_ok_and(|to| to.tag().is_none()) => format!(";tag={tag}"),
            _ => String::new(),
        };
        let contact =
            if reply.contact { format!("Contact: <sip:carol@{}>\n", self.nodes[peer].address) } else { String::new() };
        let content_type = if reply.body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
        let text = format!(
            "SIP/2.0 {} Text\n{vias}From: {}\nTo: {}{tag}\nCall-ID: {}\nCSeq: {}\n{contact}{}{content_type}\
             Content-Length: {}\n\n{}",
            reply.code,
            value(HeaderName::From),
            value(HeaderName::To),
            value(HeaderName::CallId),
            value(HeaderName::CSeq),
            reply.more,
            reply.body.replace('\n', "\r\n").len(),
            reply.body,
        );
        let to = (0..self.nodes.len()).find(|node| {
            let host = request.top_via().map(|via| String::from_utf8_lossy(via.host).into_owned()).unwrap_or_default();
            self.nodes[*node].address.ip().to_string() == host
        });
        self.send_raw(peer, to.expect("the sender of the request"), &text);
        self.run_ms(50);
    }

    /// What came to a played peer since it was asked last.
    pub fn came(&mut self, peer: usize) -> Vec<Message> {
        std::mem::take(&mut self.nodes[peer].inbox)
    }

    /// The status codes that came to a played peer since it was asked last, without 100.
    pub fn codes(&mut self, peer: usize) -> Vec<u16> {
        self.came(peer).iter().filter_map(Message::status).filter(|code| *code != 100).collect()
    }

    /// The one final response that came; acknowledges it when it answers an INVITE with a failure.
    pub fn only_answer(&mut self, peer: usize, to: usize, ask: &Ask) -> Message {
        let mut finals = self.came(peer);
        finals.retain(|message| message.status().is_some_and(|status| status >= 200));
        assert_eq!(finals.len(), 1, "seed {}: {ask:?} brought {finals:?}", self.seed);
        let answer = finals.remove(0);
        if *answer.method() == Method::Invite && answer.status().is_some_and(|status| status >= 300) {
            self.ask(peer, to, &ack(ask, &answer));
        }
        answer
    }

    /// Everything still on its way arrives, every timer of the next ten minutes runs out.
    pub fn settle(&mut self) {
        self.run_to_the_end(Duration::from_secs(600));
        self.assert_good();
    }
}

/// The ACK to a final response.
pub fn ack(ask: &Ask, answer: &Message) -> Ask {
    let is_2xx = answer.status().is_some_and(|status| status < 300);
    Ask {
        method: "ACK",
        cseq_method: "ACK",
        branch: if is_2xx { format!("{}-ack", ask.branch) } else { ask.branch.clone() },
        to_tag: tag(answer),
        contact: false,
        more: String::new(),
        body: ("", String::new()),
        ..ask.clone()
    }
}

/// The To tag of a response.
pub fn tag(answer: &Message) -> String {
    let to = answer.to().expect("a readable To");
    String::from_utf8_lossy(to.tag().unwrap_or_default()).into_owned()
}

pub fn header(message: &Message, name: &str) -> String {
    String::from_utf8_lossy(message.header_named(name).unwrap_or_default()).into_owned()
}

/// Reads a message from text with `\n` line ends.
pub fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n"))).expect("a readable message")
}
