//! What MESSAGE, NOTIFY and PUBLISH carry: read or refused, and what is written and read again is the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sipwire::sip::bodies::Parsed;
use sipwire::sip::bodies::presence::Presence;
use sipwire::sip::cpim::Cpim;
use sipwire::sip::event_package::{EventPackage, SubscriptionState};
use sipwire::sip::imdn::Report;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Cpim::parse(Bytes::copy_from_slice(data)) {
        let _ = (message.from(), message.to(), message.date_time(), message.not_understood(), message.imdn("Message-ID"));
        // Replaced bytes can make headers longer than they may be.
        if let Ok(again) = Cpim::parse(message.write()) {
            assert_eq!(again.body, message.body);
        }
    }
    for kind in ["application/simple-message-summary", "application/dialog-info+xml", "application/pidf+xml"] {
        let _ = Parsed::read(kind, data).expect("a type we read");
    }
    // As escapes can a document.
    if let Ok(presence) = Presence::parse(data)
        && let Ok(again) = Presence::parse(presence.write().as_bytes())
    {
        assert_eq!(again.tuples.len(), presence.tuples.len());
    }
    if let Ok(report) = Report::parse(data)
        && let Ok(again) = Report::parse(report.write().as_bytes())
    {
        assert_eq!(again.status, report.status);
    }
    if let Some(event) = EventPackage::parse(data) {
        let _ = event.to_string();
    }
    if let Some(state) = SubscriptionState::parse(data) {
        let again = SubscriptionState::parse(state.to_string().as_bytes()).expect("a state we wrote");
        assert_eq!(again.name(), state.name());
    }
});
