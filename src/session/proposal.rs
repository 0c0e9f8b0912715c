//! Streams that come and go in a call that is up (`session-api` M11–M16): proposals of ours and of the peer's.
//!
//! ```text
//! ESTABLISHED ─add_*()─▶ PROPOSING ─2xx with the stream──────────▶ ESTABLISHED, Accepted(local)
//!                             ╰────refusal, 2xx without it───────▶ ESTABLISHED, Rejected(local)
//! ESTABLISHED ─re-INVITE that adds─▶ PROPOSED ─accept_proposal()─▶ ESTABLISHED, Accepted(remote)
//!                             ╰────reject_proposal(), CANCEL─────▶ ESTABLISHED, Rejected(remote)
//! ```
//! A stream that goes away needs nobody's consent.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::ending::check_refusal;
use super::incoming::{KEEP_RINGING_EVERY, nowhere};
use super::media::local_audio;
use super::table::{Permission, Verb};
use super::{Leg, Session};
use crate::event::{EventKind, Originator, SessionState, Streams};
use crate::sdp::description::Description;
use crate::sdp::negotiation::{Local, NegotiationError};
use crate::sip::build::reason_phrase;
use crate::sip::message::Message;
use crate::sip::transaction::ServerId;
use crate::sip::transport::Flow;
use crate::ua::VerbError;
use crate::ua::core::{ALLOW, Core};
use crate::ua::timers::Timer;

/// A re-INVITE of the peer's that adds streams, until the application has decided.
#[derive(Debug)]
pub(super) struct Proposal {
    server: ServerId,
    /// As it came.
    invite: Bytes,
    flow: Flow,
    /// What it adds.
    streams: Streams,
    /// What the application takes of it, while that is got ready.
    accepting: Option<Streams>,
}

impl Proposal {
    fn request(&self) -> Message {
        Message::parse(self.invite.clone()).expect("the re-INVITE was read before")
    }
}

/// Which streams a verb is about.
const AUDIO: Streams = Streams { audio: true, chat: false };
const CHAT: Streams = Streams { audio: false, chat: true };

fn names(streams: Streams) -> &'static str {
    match (streams.audio, streams.chat) {
        (true, false) => "audio",
        (false, true) => "chat",
        _ => "audio and chat",
    }
}

impl Session {
    // --- ours --------------------------------------------------------------------------------------------------------

    /// M11, M13.
    ///
    /// # Errors
    /// Outside ESTABLISHED, or when the stream is there already or cannot be.
    pub fn add_stream(&mut self, verb: Verb, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = verb.check(self.state())? else { return Ok(()) };
        let streams = if verb == Verb::AddChat { CHAT } else { AUDIO };
        let running = self.running_streams();
        if (streams.audio && running.audio) || (streams.chat && running.chat) {
            return Err(verb.impossible(self.state(), format!("the session has {} already", names(streams))));
        }
        if streams.chat && !core.config.chat {
            return Err(verb.impossible(self.state(), "chat is not available"));
        }
        let Leg::Confirmed(confirmed) = &mut self.leg else { return Ok(()) };
        confirmed.modify.add(streams);
        let peer = confirmed.dialog.flow().remote;
        self.change(|snapshot| snapshot.proposed_streams = streams);
        self.set_state(SessionState::Proposing, core);
        self.post(EventKind::SessionGotStreamProposal { proposer: Originator::Local, streams }, core);
        if self.open_streams(streams, peer, core) {
            self.tell_changes(core, now);
        }
        Ok(())
    }

    /// M12, M14.
    ///
    /// # Errors
    /// Outside ESTABLISHED, without the stream, or when it is the last one (ruling R13).
    pub fn remove_stream(&mut self, verb: Verb, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = verb.check(self.state())? else { return Ok(()) };
        let running = self.running_streams();
        let (name, is_there, is_last) = match verb {
            Verb::RemoveChat => ("chat", running.chat, !running.audio),
            _ => ("audio", running.audio, !running.chat),
        };
        if !is_there {
            return Err(verb.impossible(self.state(), format!("the session has no {name}")));
        }
        if is_last {
            return Err(verb.impossible(self.state(), format!("{name} is the session's last stream")));
        }
        match verb {
            Verb::RemoveChat => self.stop_chat(core),
            _ => self.stop_audio(core),
        }
        self.offer_anew(core, now);
        Ok(())
    }

    /// Our proposal is decided: CS, then Accepted or Rejected. What was got ready for a stream nobody wants is closed.
    pub(super) fn settle_proposal(&mut self, outcome: Result<(), Arc<str>>, core: &mut Core) {
        self.change(|snapshot| snapshot.proposed_streams = Streams::default());
        self.set_state(SessionState::Established, core);
        let proposer = Originator::Local;
        match outcome {
            Ok(()) => self.post(EventKind::SessionAcceptedStreamProposal { proposer }, core),
            Err(reason) => {
                self.close_idle_streams(core);
                self.post(EventKind::SessionRejectedStreamProposal { proposer, reason }, core);
            }
        }
    }

    // --- theirs ------------------------------------------------------------------------------------------------------

    /// The streams that an offer adds and that we could take; what we cannot take is answered with port 0.
    pub(super) fn proposed_by(&self, offer: &Description, core: &mut Core) -> Streams {
        let added = self.negotiator.added(offer);
        let chat = added.chat && core.config.chat;
        if !added.audio {
            return Streams { audio: false, chat };
        }
        let running = self.running_streams();
        let Leg::Confirmed(confirmed) = &self.leg else { return Streams::default() };
        let audio = local_audio(nowhere(confirmed.dialog.flow().remote), self.account, core);
        let tried = self.negotiator.clone().answer(offer, Some(&audio), &mut core.random);
        let audio = !running.audio && tried.is_ok_and(|(_, agreed)| agreed.audio.is_some());
        Streams { audio, chat }
    }

    /// A re-INVITE proposes streams: it rings until the application decides.
    pub(super) fn take_proposal(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        streams: Streams,
        core: &mut Core,
        now: Instant,
    ) {
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        let invite = request.as_bytes().clone();
        confirmed.proposal = Some(Box::new(Proposal { server, invite, flow, streams, accepting: None }));
        core.servers.insert(server, self.id);
        self.ring_for_proposal(core, now);
        self.change(|snapshot| snapshot.proposed_streams = streams);
        self.set_state(SessionState::Proposed, core);
        self.post(EventKind::SessionGotStreamProposal { proposer: Originator::Remote, streams }, core);
    }

    /// 180 to the re-INVITE, now and again.
    pub(super) fn ring_for_proposal(&mut self, core: &mut Core, now: Instant) {
        let Leg::Confirmed(confirmed) = &self.leg else { return };
        let Some(proposal) = &confirmed.proposal else { return };
        let contact = core.contact(self.account, proposal.flow, confirmed.dialog.is_secure());
        let ringing = core
            .response(&proposal.request(), 180, Some(&self.tag), proposal.flow)
            .header("Contact", contact)
            .header("Allow", ALLOW);
        core.transactions.respond(proposal.server, 180, ringing.finish(None), now);
        core.timers.set(self.id, Timer::KeepRinging, now + KEEP_RINGING_EVERY);
    }

    /// M15. The answer leaves when the streams are there.
    ///
    /// # Errors
    /// Outside PROPOSED, for streams that were not proposed, for none, or when it was called before.
    pub fn accept_proposal(&mut self, audio: bool, chat: bool, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let verb = Verb::AcceptProposal;
        let state = self.state();
        let Permission::Act = verb.check(state)? else { return Ok(()) };
        let Leg::Confirmed(confirmed) = &mut self.leg else { return Ok(()) };
        let peer = confirmed.dialog.flow().remote;
        let Some(proposal) = &mut confirmed.proposal else { return Ok(()) };
        for (name, wanted, proposed) in
            [("audio", audio, proposal.streams.audio), ("chat", chat, proposal.streams.chat)]
        {
            if wanted && !proposed {
                return Err(VerbError::BadArgument(format!("{name} was not proposed")));
            }
        }
        if !audio && !chat {
            return Err(VerbError::BadArgument("no stream is accepted: audio and chat are False".into()));
        }
        if proposal.accepting.is_some() {
            return Err(verb.impossible(state, "it is being accepted already"));
        }
        let streams = Streams { audio, chat };
        proposal.accepting = Some(streams);
        if self.open_streams(streams, peer, core) {
            self.answer_proposal(core, now);
        }
        Ok(())
    }

    /// M16, R9.
    ///
    /// # Errors
    /// Outside PROPOSED, or for a code that is no refusal.
    pub fn reject_proposal(
        &mut self,
        code: u16,
        phrase: Option<&str>,
        core: &mut Core,
        now: Instant,
    ) -> Result<(), VerbError> {
        let Permission::Act = Verb::RejectProposal.check(self.state())? else { return Ok(()) };
        check_refusal(code)?;
        self.refuse_proposal(code, phrase, "Rejected by user", core, now);
        Ok(())
    }

    fn answer_proposal(&mut self, core: &mut Core, now: Instant) {
        let Leg::Confirmed(confirmed) = &self.leg else { return };
        let Some(proposal) = &confirmed.proposal else { return };
        let Some(accepted) = proposal.accepting else { return };
        let (server, flow, request) = (proposal.server, proposal.flow, proposal.request());
        let running = self.running_streams();
        let audio = self.local_audio(core).filter(|_| running.audio || accepted.audio);
        let chat = self.local_chat().filter(|_| running.chat || accepted.chat);
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        let answer = Description::parse(request.body())
            .map_err(NegotiationError::from)
            .and_then(|offer| self.negotiator.answer(&offer, local, &mut core.random));
        let (answer, agreed) = match answer {
            Ok(answered) => answered,
            Err(error) => return self.refuse_proposal(488, None, &error.to_string(), core, now),
        };
        self.take_off_proposal(core);
        self.accept_reinvite(server, &request, flow, &answer.to_string(), false, core, now);
        self.set_state(SessionState::Established, core);
        self.post(EventKind::SessionAcceptedStreamProposal { proposer: Originator::Remote }, core);
        self.apply_offer(&request, agreed, core);
        self.close_idle_streams(core);
    }

    /// The peer's proposal is over: nothing of it waits any more.
    fn take_off_proposal(&mut self, core: &mut Core) -> Option<Box<Proposal>> {
        let Leg::Confirmed(confirmed) = &mut self.leg else { return None };
        let proposal = confirmed.proposal.take()?;
        core.servers.remove(&proposal.server);
        core.timers.cancel(self.id, Timer::KeepRinging);
        self.change(|snapshot| snapshot.proposed_streams = Streams::default());
        Some(proposal)
    }

    /// The final refusal on the wire; true when there was something to refuse.
    pub(super) fn end_proposal(&mut self, code: u16, phrase: Option<&str>, core: &mut Core, now: Instant) -> bool {
        let Some(proposal) = self.take_off_proposal(core) else { return false };
        let phrase = phrase.unwrap_or_else(|| reason_phrase(code));
        let response = core.response_with(&proposal.request(), code, phrase, Some(&self.tag), proposal.flow);
        core.transactions.respond(proposal.server, code, response.finish(None), now);
        true
    }

    fn refuse_proposal(&mut self, code: u16, phrase: Option<&str>, reason: &str, core: &mut Core, now: Instant) {
        if self.end_proposal(code, phrase, core, now) {
            self.close_idle_streams(core);
            self.set_state(SessionState::Established, core);
            let (proposer, reason) = (Originator::Remote, reason.into());
            self.post(EventKind::SessionRejectedStreamProposal { proposer, reason }, core);
            self.tell_changes(core, now);
        }
    }

    /// CANCEL of the re-INVITE (ruling R15).
    pub(super) fn proposal_cancelled(&mut self, core: &mut Core, now: Instant) {
        self.refuse_proposal(487, None, "Proposal cancelled", core, now);
    }

    // --- both --------------------------------------------------------------------------------------------------------

    /// The streams of a proposal are ready.
    pub(super) fn streams_ready(&mut self, core: &mut Core, now: Instant) {
        match self.state() {
            SessionState::Proposed => self.answer_proposal(core, now),
            _ => self.tell_changes(core, now),
        }
    }

    /// A stream of a proposal cannot be got ready.
    pub(super) fn stream_is_missing(&mut self, error: &str, core: &mut Core, now: Instant) {
        match self.state() {
            SessionState::Proposed => self.refuse_proposal(500, None, error, core, now),
            SessionState::Proposing => {
                if let Leg::Confirmed(confirmed) = &mut self.leg {
                    confirmed.modify.withdraw();
                }
                self.settle_proposal(Err(error.into()), core);
                self.tell_changes(core, now);
            }
            _ => {}
        }
    }
}
