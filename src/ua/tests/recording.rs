//! Recording in every order its steps can come in (`session-api` M7, M8, M17).

use std::path::PathBuf;
use std::time::Duration;

use super::harness::*;
use crate::event::SessionId;
use crate::media::{MediaCommand, MediaEvent, RecordingLayout};
use crate::ua::VerbError;

fn record(net: &mut Pair, call: SessionId) -> Result<(), VerbError> {
    let result = net.alice.ua.start_recording(call, PathBuf::from("/tmp/call.wav"), RecordingLayout::Mix, net.now);
    net.run();
    result
}

#[test]
fn a_recording_starts_and_stops_with_its_pairs() {
    let mut net = Pair::new();
    let (call, _) = net.talk();
    record(&mut net, call).unwrap();
    assert_eq!(net.alice.take_log(), ["WillStartRecordingAudio", "DidStartRecordingAudio"]);
    let audio = net.alice.snapshot().audio.clone().unwrap();
    assert_eq!(audio.recording_file_name, Some(PathBuf::from("/tmp/call.wav")));
    let why = record(&mut net, call).unwrap_err().to_string();
    assert_eq!(why, "start_recording_audio() is not possible now: already recording to /tmp/call.wav");
    net.alice.ua.stop_recording(call, net.now).unwrap();
    net.run();
    assert_eq!(net.alice.take_log(), ["WillStopRecordingAudio", "DidStopRecordingAudio"]);
    assert_eq!(net.alice.snapshot().audio.clone().unwrap().recording_file_name, None);
    let why = net.alice.ua.stop_recording(call, net.now).unwrap_err().to_string();
    assert_eq!(why, "stop_recording_audio() is not possible now: nothing is being recorded");
}

#[test]
fn the_end_of_the_call_stops_the_recording_first() {
    let mut net = Pair::new();
    let (call, incoming) = net.talk();
    record(&mut net, call).unwrap();
    net.alice.take_log();
    net.bob.ua.end(incoming, None, net.now).unwrap();
    net.run();
    assert_eq!(
        net.alice.take_log(),
        [
            "GotStreamUpdate ",
            "WillStopRecordingAudio",
            "DidStopRecordingAudio",
            "ESTABLISHED>TERMINATED",
            "DidEnd remote"
        ]
    );
    assert_eq!(net.alice.media.last(), Some(&MediaCommand::Close));
    net.expect_nothing_left();
}

#[test]
fn the_call_waits_for_the_file_but_not_for_ever() {
    let mut net = Pair::new();
    let (call, _) = net.talk();
    net.alice.recorder_reports = false;
    record(&mut net, call).unwrap();
    net.alice.recorder_starts(call, net.now);
    net.alice.take_log();
    net.alice.ua.end(call, None, net.now).unwrap();
    net.pass(Duration::from_millis(500));
    let ending = ["DidStartRecordingAudio", "ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate "];
    assert_eq!(net.alice.take_log(), [&ending[..], &["WillStopRecordingAudio"]].concat());
    net.pass(Duration::from_millis(500));
    assert_eq!(
        net.alice.take_log(),
        [
            "DidStopRecordingAudio the recorder has not finished the file in time",
            "TERMINATING>TERMINATED",
            "DidEnd local"
        ]
    );
    net.expect_nothing_left();
}

#[test]
fn a_recorder_slower_than_the_verbs_keeps_the_order_of_the_pairs() {
    let mut net = Pair::new();
    let (call, _) = net.talk();
    net.alice.recorder_reports = false;
    record(&mut net, call).unwrap();
    net.alice.ua.stop_recording(call, net.now).unwrap();
    net.run();
    assert_eq!(net.alice.take_log(), ["WillStartRecordingAudio"]);
    assert!(net.alice.ua.stop_recording(call, net.now).is_err());
    net.alice.recorder_starts(call, net.now);
    net.alice.recorder_stops(call, None, net.now);
    net.run();
    assert_eq!(net.alice.take_log(), ["DidStartRecordingAudio", "WillStopRecordingAudio", "DidStopRecordingAudio"]);
}

#[test]
fn a_file_that_cannot_be_written_does_not_hurt_the_call() {
    let mut net = Pair::new();
    let (call, _) = net.talk();
    net.alice.recorder_reports = false;
    record(&mut net, call).unwrap();
    net.alice.recorder_stops(call, Some("disk full"), net.now);
    net.run();
    assert_eq!(net.alice.take_log(), ["WillStartRecordingAudio", "DidStopRecordingAudio disk full"]);
    record(&mut net, call).unwrap();
    assert_eq!(net.alice.take_log(), ["WillStartRecordingAudio"]);
}

#[test]
fn media_reports_become_notifications_while_audio_runs() {
    let mut net = Pair::new();
    let (call, _) = net.talk();
    let tell = |net: &mut Pair, event| {
        net.alice.ua.handle_media_event(call, event, net.now);
        net.run();
        net.alice.take_log()
    };
    assert_eq!(tell(&mut net, MediaEvent::NoAudio), ["GotNoAudio"]);
    assert_eq!(tell(&mut net, MediaEvent::Dtmf('#')), ["GotDTMF #"]);
    assert_eq!(tell(&mut net, MediaEvent::Underrun { missing_ms: 40 }), ["AudioUnderrun 40"]);
    let from = address("198.51.100.7:9000");
    assert_eq!(tell(&mut net, MediaEvent::Received { from }), Vec::<String>::new());
    let snapshot = net.alice.ua.snapshot(call).unwrap();
    assert_eq!(snapshot.audio.as_ref().unwrap().remote_rtp_received, Some(from));
    assert_eq!(
        tell(&mut net, MediaEvent::Failed("the socket is gone".into())),
        [
            "ESTABLISHED>TERMINATING",
            "WillEnd",
            "GotStreamUpdate ",
            "TERMINATING>TERMINATED",
            "DidEnd local the socket is gone"
        ]
    );
    net.expect_nothing_left();
}
