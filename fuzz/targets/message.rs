//! One message: read, looked at through every typed header, answered; what was read is what came.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sipwire::sip::build::{Builder, reason_phrase};
use sipwire::sip::dialog::Dialog;
use sipwire::sip::headers::{ContentType, List, RAck, Reason, Replaces, RetryAfter, Warning};
use sipwire::sip::message::{HeaderName, Message};
use sipwire::sip::transport::{Flow, Transport};

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(data)) else { return };
    look(&message);
    // Reading again what was read gives the same.
    let again = Message::parse(message.as_bytes().clone()).expect("what was read once can be read again");
    assert_eq!(again.body(), message.body());
    assert_eq!(again.headers().count(), message.headers().count());
    let source = "192.0.2.1:5060".parse().expect("an address");
    if message.is_request() && message.validate().is_ok() {
        let response = Builder::response(&message, 486, reason_phrase(486), Some("tag"), source);
        let response = Message::parse(response.finish(None)).expect("a response we built can be read");
        assert_eq!(response.call_id().ok(), message.call_id().ok());
        let flow = Flow::to(Transport::Udp, source);
        if let Ok(mut dialog) = Dialog::uas(&message, "tag", flow) {
            let method = message.method().clone();
            let request = dialog.request(&method, "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK1").finish(None);
            Message::parse(request).expect("a request we built can be read");
            let _ = dialog.flow();
        }
    }
});

fn look(message: &Message) {
    let _ = (message.validate(), message.request_uri(), message.reason(), message.top_via().map(|via| via.sent_by()));
    let _ = (message.cseq(), message.max_forwards(), message.call_id());
    for address in [message.from(), message.to()].into_iter().flatten() {
        let _ = (address.tag(), address.uri(), address.display_name(), address.expires(), address.q());
    }
    for contact in message.contacts().flatten() {
        let _ = (contact.is_wildcard(), contact.uri());
    }
    for name in [HeaderName::Route, HeaderName::RecordRoute] {
        for route in message.addresses(name).flatten() {
            let _ = route.uri();
        }
    }
    for (_, value) in message.headers() {
        let _ = (ContentType::parse(value), RAck::parse(value), Reason::parse(value), Replaces::parse(value));
        let _ = (RetryAfter::parse(value), Warning::parse(value), List::new(value).count());
    }
}
