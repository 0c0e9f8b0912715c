//! Calls to us: every check of an INVITE in the order of RFC 3261 §8.2, then ringing, CANCEL, answers.

use std::time::Duration;

use super::harness::*;
use crate::event::SessionState;
use crate::media::MediaCommand;
use crate::ua::core::{ACCEPT_ALL, ALLOW};

#[test]
fn requests_that_cannot_be_served_get_the_answer_of_the_rfc() {
    let invite = Draft::invite;
    let at = |uri| Draft { uri, ..invite() };
    let without_contact = Draft { extra: vec!["Content-Type: application/sdp".into()], ..invite() };
    let tagged = Draft { to_tag: Some("stranger".into()), ..invite() };
    let text = |body: &str| Draft::new("INVITE", "x").with("Content-Type: text/plain").body(body);
    let cases: Vec<(Draft, &str, &str, &str)> = vec![
        (tagged.clone(), "481", "", ""),
        (Draft { method: "BYE", ..tagged.clone() }, "481", "", ""),
        (Draft::new("BYE", "b"), "481", "", ""),
        (Draft::new("FLY", "f"), "501", "Allow", ALLOW),
        (Draft::new("SUBSCRIBE", "s"), "489", "", ""),
        (Draft::new("REGISTER", "r"), "405", "Allow", ALLOW),
        (at("tel:+431234"), "416", "", ""),
        (at("sip:nobody@192.0.2.1"), "404", "", ""),
        (at("sip:alice@elsewhere.example"), "404", "", ""),
        (invite().with("Require: 100rel, x-unheard"), "420", "Unsupported", "x-unheard"),
        (without_contact, "400", "", ""),
        (text("hello"), "415", "Accept", "application/sdp"),
        (invite().with("Content-Encoding: gzip"), "415", "Accept-Encoding", "identity"),
        (invite().body("v=0\r\nwhat\r\n"), "400", "", ""),
        (invite().body(&SDP.replace("AVP 0", "AVP 96")), "488", "", ""),
        (invite().body(&SDP.replace("audio", "video")), "415", "Accept", "application/sdp"),
        (
            invite()
                .body(&SDP.replace("m=audio 6000 RTP/AVP 0", "m=message 2855 TCP/MSRP *\r\na=path:msrp://h:1/s;tcp")),
            "488",
            "Warning",
            "304 sipwire \"chat is not available\"",
        ),
    ];
    for (draft, code, name, value) in cases {
        let mut phone = Lone::new();
        phone.side.ua.config_mut().chat = false;
        let answers = phone.ask(&draft);
        let expected = format!("{code} {}", draft.method);
        assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), [expected], "{}", draft.text());
        if !name.is_empty() {
            assert_eq!(header(&answers[0], name), value, "{}", draft.text());
        }
        assert!(answers[0].to().unwrap().tag().is_some_and(|tag| !tag.is_empty()));
        assert_eq!(phone.side.take_log(), Vec::<String>::new(), "{}", draft.text());
        phone.expect_nothing_left();
    }
}

#[test]
fn a_refused_offer_says_why() {
    let mut phone = Lone::new();
    let answer = phone.ask(&Draft::invite().body(&SDP.replace("AVP 0", "AVP 96"))).remove(0);
    assert!(header(&answer, "Warning").starts_with("305 sipwire \""), "{answer:?}");
}

#[test]
fn broken_requests_get_400_and_broken_responses_silence() {
    let mut phone = Lone::new();
    let good = Draft::invite().text();
    for (part, other, answered) in [
        ("CSeq: 1 INVITE", "CSeq: 1 BYE", true),
        ("CSeq: 1 INVITE", "CSeq: x INVITE", true),
        ("Call-ID: written-by-hand\r\n", "", true),
        ("Max-Forwards: 70", "Max-Forwards: 300", true),
        ("INVITE sip:alice@192.0.2.1 SIP/2.0", "SIP/2.0 200 OK", false),
    ] {
        let mut text = good.replace(part, other);
        if !answered {
            text = text.replace("CSeq: 1 INVITE", "CSeq: x INVITE");
        }
        phone.receive(text);
        let lines = phone.take();
        let codes: Vec<_> = lines.iter().map(|message| message.status()).collect();
        assert_eq!(codes, if answered { vec![Some(400)] } else { vec![] }, "{other}");
    }
    assert_eq!(phone.side.ua.stats().bad_messages, 5);
    phone.expect_nothing_left();
}

#[test]
fn a_call_rings_with_tag_and_contact_and_is_told_in_order() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&Draft::invite());
    assert_eq!(ringing.iter().map(first_line).collect::<Vec<_>>(), ["180 INVITE"]);
    assert_eq!(ringing[0].to().unwrap().tag().unwrap().len(), 16);
    assert_eq!(header(&ringing[0], "Contact"), "<sip:alice@192.0.2.1:5060>");
    assert_eq!(phone.side.take_log(), ["NULL>INCOMING", "NewIncoming audio"]);
    assert_eq!(phone.side.snapshot().remote_display_name.as_deref(), Some("Bob"));
    // Its retransmission gets the same answer and no second session.
    assert_eq!(phone.ask(&Draft::invite()), ringing);
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    // The same call by another path is a loop.
    let merged = Draft { branch: "other".into(), ..Draft::invite() };
    assert_eq!(first_line(&phone.ask(&merged)[0]), "482 INVITE");
}

#[test]
fn without_auto_ring_100_comes_after_200_ms_and_180_when_the_application_says() {
    let mut phone = Lone::new();
    phone.side.ua.config_mut().auto_ring = false;
    assert!(phone.ask(&Draft::invite()).is_empty());
    phone.pass(Duration::from_millis(200));
    assert_eq!(phone.take_lines(), ["100 INVITE"]);
    let session = phone.side.last();
    phone.side.ua.ring(session, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["180 INVITE"]);
}

#[test]
fn a_long_ringing_call_reminds_the_proxies_each_minute() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    phone.pass(Duration::from_secs(185));
    assert_eq!(phone.take_lines(), ["180 INVITE"; 3]);
}

#[test]
fn nobody_is_there_before_the_application_takes_calls() {
    let mut phone = Lone::new();
    phone.side.ua.config_mut().accepts_calls = false;
    assert_eq!(first_line(&phone.ask(&Draft::invite())[0]), "480 INVITE");
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}

#[test]
fn a_catch_all_account_takes_every_user() {
    let mut phone = Lone::new();
    let settings = crate::ua::AccountSettings {
        catch_all: true,
        srtp: crate::media::SrtpPolicy::Disabled,
        symmetric_rtp: false,
        ..crate::ua::AccountSettings::new(uri("sip:all@192.0.2.1"))
    };
    phone.side.ua.set_account(crate::event::AccountId(2), settings);
    phone.ask(&Draft { uri: "sip:anybody@elsewhere.example", ..Draft::invite() });
    assert_eq!(phone.side.snapshot().account, Some(crate::event::AccountId(2)));
    phone.side.ua.remove_account(crate::event::AccountId(2), phone.now);
    let other = Draft { uri: "sip:anybody@elsewhere.example", branch: "2".into(), number: 2, ..Draft::invite() };
    assert_eq!(first_line(&phone.ask(&other)[0]), "404 INVITE");
}

#[test]
fn the_200_listens_at_once_and_the_ack_makes_the_call() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().remove(0);
    assert_eq!(ok.status(), Some(200));
    assert!(String::from_utf8_lossy(ok.body()).contains("m=audio 4000 RTP/AVP 0"));
    assert!(matches!(phone.side.media[..], [MediaCommand::Open { .. }, MediaCommand::Start(_)]));
    assert_eq!(phone.side.take_log()[2..], ["INCOMING>ACCEPTING"]);
    // An ACK with another number or of another dialog is not the one.
    phone.receive(Draft::new("ACK", "a").in_dialog(2, &ok).text());
    phone.receive(Draft { to_tag: Some("stranger".into()), ..Draft::new("ACK", "b") }.text());
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    phone.receive(Draft::new("ACK", "c").in_dialog(1, &ok).text());
    assert_eq!(phone.side.take_log(), ["WillStart", "GotStreamUpdate audio", "ACCEPTING>ESTABLISHED", "DidStart"]);
    phone.receive(Draft::new("ACK", "c").in_dialog(1, &ok).text());
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}

#[test]
fn an_invite_without_offer_gets_ours_and_the_ack_answers_it() {
    let mut phone = Lone::new();
    phone.ask(&Draft::new("INVITE", "late"));
    assert_eq!(phone.side.take_log(), ["NULL>INCOMING", "NewIncoming audio"]);
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().remove(0);
    assert!(String::from_utf8_lossy(ok.body()).contains("a=rtpmap:96 opus/48000/2"));
    let ack = Draft::new("ACK", "a").with("Content-Type: application/sdp").body(SDP);
    phone.receive(ack.in_dialog(1, &ok).text());
    assert_eq!(
        phone.side.take_log(),
        ["INCOMING>ACCEPTING", "WillStart", "GotStreamUpdate audio", "ACCEPTING>ESTABLISHED", "DidStart"]
    );
    assert!(matches!(phone.side.media.last(), Some(MediaCommand::Start(_))));
}

#[test]
fn an_ack_without_the_answer_it_owes_ends_the_call() {
    let mut phone = Lone::new();
    phone.ask(&Draft::new("INVITE", "late"));
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().remove(0);
    phone.receive(Draft::new("ACK", "a").in_dialog(1, &ok).text());
    assert_eq!(phone.take_lines(), ["BYE"]);
    assert_eq!(
        phone.side.take_log()[3..],
        ["ACCEPTING>TERMINATED", "DidFail local 488 the ACK carries no answer to our offer", "DidEnd local"]
    );
    phone.expect_nothing_left();
}

#[test]
fn sockets_that_cannot_be_had_refuse_the_call() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    phone.side.media_error = Some("no port is free".into());
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["500 INVITE"]);
    assert_eq!(
        phone.side.take_log()[2..],
        ["INCOMING>ACCEPTING", "ACCEPTING>TERMINATED", "DidFail local 0 no port is free", "DidEnd local"]
    );
}

#[test]
fn accept_refuses_streams_that_were_not_proposed() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    for (audio, chat, why) in
        [(false, true, "chat was not proposed"), (false, false, "no stream is accepted: audio and chat are False")]
    {
        let error = phone.side.ua.accept(session, audio, chat, phone.now).unwrap_err();
        assert_eq!(error.to_string(), why);
    }
    assert_eq!(phone.side.ua.snapshot(session).unwrap().state, SessionState::Incoming);
}

#[test]
fn reject_takes_refusals_only() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    for code in [0, 180, 200, 302, 700] {
        assert!(phone.side.ua.reject(session, code, None, phone.now).is_err());
    }
    phone.side.ua.reject(session, 404, Some("Gone fishing"), phone.now).unwrap();
    phone.run();
    let refusal = phone.take().remove(0);
    assert_eq!((refusal.status(), &*refusal.reason()), (Some(404), "Gone fishing"));
}

#[test]
fn cancel_is_answered_and_the_invite_gets_487() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&Draft::invite());
    let cancel = Draft { branch: "invite".into(), ..Draft::new("CANCEL", "") };
    let cancel = cancel.with("Reason: SIP;cause=200;text=\"Call completed elsewhere\"");
    let answers = phone.ask(&cancel);
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 CANCEL", "487 INVITE"]);
    assert_eq!(answers[1].to().unwrap().tag(), ringing[0].to().unwrap().tag());
    assert_eq!(
        phone.side.take_log()[2..],
        ["INCOMING>TERMINATED", "DidFail remote 487 Request cancelled", "DidEnd remote Call completed elsewhere"]
    );
    phone.receive(Draft { branch: "invite".into(), ..Draft::new("ACK", "") }.text());
    phone.expect_nothing_left();
    // The verbs that come too late.
    let session = phone.side.last();
    assert!(phone.side.ua.reject(session, 486, None, phone.now).is_ok());
    assert!(phone.side.ua.accept(session, true, false, phone.now).is_err());
}

#[test]
fn cancel_while_sockets_are_awaited_still_cancels() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap(); // the media side has not been asked yet
    let cancel = Draft { branch: "invite".into(), ..Draft::new("CANCEL", "") };
    assert_eq!(phone.ask(&cancel).iter().map(first_line).collect::<Vec<_>>(), ["200 CANCEL", "487 INVITE"]);
    assert_eq!(
        phone.side.take_log()[2..],
        ["INCOMING>ACCEPTING", "ACCEPTING>TERMINATED", "DidFail remote 487 Request cancelled", "DidEnd remote"]
    );
}

#[test]
fn cancel_after_the_answer_has_no_effect_and_of_nothing_is_481() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let cancel = Draft { branch: "invite".into(), ..Draft::new("CANCEL", "") };
    assert_eq!(phone.ask(&cancel).iter().map(first_line).collect::<Vec<_>>(), ["200 CANCEL"]);
    assert_eq!(phone.side.take_log()[2..], ["INCOMING>ACCEPTING"]);
    let stray = Draft { branch: "never".into(), ..Draft::new("CANCEL", "") };
    assert_eq!(phone.ask(&stray).iter().map(first_line).collect::<Vec<_>>(), ["481 CANCEL"]);
}

#[test]
fn an_invite_expires() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite().with("Expires: 20"));
    phone.pass(Duration::from_secs(19));
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    phone.pass(Duration::from_secs(1));
    assert_eq!(phone.take_lines(), ["487 INVITE"]);
    assert_eq!(
        phone.side.take_log()[2..],
        ["INCOMING>TERMINATED", "DidFail remote 487 Request expired", "DidEnd remote"]
    );
    phone.expect_nothing_left();
}

#[test]
fn a_bye_while_it_rings_ends_it() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&Draft::invite()).remove(0);
    let answers = phone.ask(&Draft::new("BYE", "bye").in_dialog(2, &ringing));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 BYE", "487 INVITE"]);
    assert_eq!(
        phone.side.take_log()[2..],
        ["INCOMING>TERMINATED", "DidFail remote 487 Request cancelled", "DidEnd remote"]
    );
}

#[test]
fn a_bye_that_overtakes_the_ack_shows_that_the_200_arrived() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().remove(0);
    phone.ask(&Draft::new("BYE", "bye").in_dialog(2, &ok));
    assert_eq!(
        phone.side.take_log()[3..],
        [
            "WillStart",
            "GotStreamUpdate audio",
            "ACCEPTING>ESTABLISHED",
            "DidStart",
            "GotStreamUpdate ",
            "ESTABLISHED>TERMINATED",
            "DidEnd remote"
        ]
    );
    phone.expect_nothing_left();
}

#[test]
fn options_tells_what_we_can_do() {
    let mut phone = Lone::new();
    for uri in ["sip:alice@192.0.2.1", "sip:192.0.2.1"] {
        let answer = phone.ask(&Draft { uri, branch: uri.into(), ..Draft::new("OPTIONS", "") }).remove(0);
        assert_eq!(first_line(&answer), "200 OPTIONS");
        assert_eq!(header(&answer, "Allow"), ALLOW);
        assert_eq!(header(&answer, "Accept"), ACCEPT_ALL);
        assert!(answer.header_named("Supported").is_some());
    }
    let nobody = Draft { uri: "sip:nobody@192.0.2.1", ..Draft::new("OPTIONS", "n") };
    assert_eq!(first_line(&phone.ask(&nobody)[0]), "404 OPTIONS");
}

fn numbered(number: u32) -> Draft {
    Draft { number, branch: format!("flood{number}"), ..Draft::invite() }
}

#[test]
fn more_calls_than_the_rate_get_503_then_silence() {
    let mut phone = Lone::new();
    phone.side.ua.config_mut().invite_rate = 3;
    let codes: Vec<_> = (1..=10)
        .map(|number| phone.ask(&numbered(number)).first().and_then(|answer| answer.status()).unwrap_or(0))
        .collect();
    assert_eq!(codes, [180, 180, 180, 503, 503, 503, 0, 0, 0, 0]);
    assert_eq!(phone.side.ua.stats().refused_by_rate, 7);
    // Calls that exist are served meanwhile.
    let cancel = Draft { method: "CANCEL", body: String::new(), ..numbered(1) };
    assert_eq!(first_line(&phone.ask(&cancel)[0]), "200 CANCEL");
    phone.pass(Duration::from_secs(1));
    phone.take();
    assert_eq!(first_line(&phone.ask(&numbered(11))[0]), "180 INVITE");
}

#[test]
fn one_source_cannot_take_the_rate_of_all() {
    let mut phone = Lone::new();
    phone.side.ua.config_mut().invite_rate_per_source = 2;
    let codes: Vec<_> = (1..=4).map(|number| phone.ask(&numbered(number))[0].status().unwrap()).collect();
    assert_eq!(codes, [180, 180, 503, 503]);
    assert_eq!(header(&phone.ask(&numbered(5))[0], "Retry-After"), "5");
}

#[test]
fn sessions_have_a_limit() {
    let mut phone = Lone::new();
    phone.side.ua.config_mut().max_sessions = 2;
    let codes: Vec<_> = (1..=3).map(|number| phone.ask(&numbered(number))[0].status().unwrap()).collect();
    assert_eq!(codes, [180, 180, 503]);
    let error = phone.side.call("sip:bob@example.com", &[PEER], phone.now).unwrap_err();
    assert_eq!(error.to_string(), "connect() is not possible now: 2 sessions exist already");
    assert_eq!(phone.side.ua.stats().refused_by_limit, 2);
}

#[test]
fn a_redirected_caller_gets_302_and_the_targets_in_order() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    phone.side.take_log();
    assert!(phone.side.ua.redirect(session, &[], phone.now).is_err());
    let targets = [uri("sip:carol@192.0.2.10"), uri("tel:+43123")];
    phone.side.ua.redirect(session, &targets, phone.now).unwrap();
    phone.run();
    let answer = phone.take().remove(0);
    assert_eq!(first_line(&answer), "302 INVITE");
    let contacts: Vec<_> =
        answer.header_lines(crate::sip::message::HeaderName::Contact).map(String::from_utf8_lossy).collect();
    assert_eq!(contacts, ["<sip:carol@192.0.2.10>;q=1.0", "<tel:+43123>;q=0.9"]);
    assert_eq!(phone.side.take_log(), ["INCOMING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local"]);
    phone.side.ua.redirect(session, &targets, phone.now).expect("a CANCEL may have come first");
    phone.receive(Draft::new("ACK", "invite").in_dialog(1, &answer).text());
    phone.expect_nothing_left();
}
