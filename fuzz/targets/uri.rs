//! A URI: what is printed reads back as the same, and equality is symmetric.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sipwire::sip::headers::NameAddr;
use sipwire::sip::uri::Uri;

fuzz_target!(|data: &[u8]| {
    if let Some(address) = NameAddr::parse(data) {
        let _ = (address.uri(), address.display_name(), address.tag());
    }
    let Ok(uri) = Uri::parse(data) else { return };
    let text = uri.to_string();
    let again = Uri::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?} cannot be read again: {error}"));
    assert_eq!(again, uri, "{text}");
    assert_eq!(uri, again, "{text}");
});
