//! Requests of ours inside the session's dialog: sent, sent again with credentials, and their answers given to whoever
//! asked. BYE is not among them, because it outlives the session ([`Core::send_bye`]).

use std::time::Instant;

use super::{Leg, Session};
use crate::event::{Originator, RequestId};
use crate::sip::dialog::Dialog;
use crate::sip::message::{Message, Method};
use crate::sip::transaction::ClientId;
use crate::sip::transport::Flow;
use crate::ua::core::{ClientUse, Core};
use crate::ua::dialog_request::DialogRequest;

/// Requests of one session without a final answer. Each lives 32 s at most, so only an application that sends faster than
/// its peer answers meets it.
const MAX_REQUESTS: usize = 32;

/// What a request is for: decides who hears of its answer.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Our offer in a re-INVITE.
    Reinvite,
    /// UPDATE without a body: the session goes on (RFC 4028).
    Refresh,
    /// It tells that we are there: the rules for all of them are all there is to its answer.
    #[cfg(test)]
    Probe,
    /// It acknowledges a provisional response: whatever comes of it, the INVITE's own responses tell.
    Prack,
    /// INFO; the number of one that the application sent.
    Info(Option<RequestId>),
    Refer,
    /// NOTIFY to who asked for a transfer; the last one or not.
    Report {
        last: bool,
    },
}

impl Purpose {
    /// 408 and 481 mean that the dialog is gone (RFC 3261 §12.2.1.2). They mean less for a request with a subject of its
    /// own: a provisional response (PRACK), a subscription (NOTIFY) (RFC 5057 §5.1).
    fn is_about_the_dialog(&self) -> bool {
        match self {
            Self::Reinvite | Self::Refresh | Self::Info(_) => true,
            #[cfg(test)]
            Self::Probe => true,
            // A peer whose user thinks about a REFER for too long has not gone.
            Self::Prack | Self::Refer | Self::Report { .. } => false,
        }
    }
}

/// The final answer to a request, or what stands for it.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub client: ClientId,
    /// 408 when none came, 503 when it could not be sent.
    pub code: u16,
    pub reason: String,
    pub response: Option<(&'a Message, Flow)>,
    /// CSeq number of the request.
    pub number: u32,
}

#[derive(Debug)]
struct Pending {
    client: ClientId,
    request: DialogRequest,
    purpose: Purpose,
    /// The dialog it was sent in: an early one, while forks are about.
    remote_tag: Box<[u8]>,
}

/// Those that are open.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: Vec<Pending>,
}

impl Requests {
    fn take(&mut self, client: ClientId) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| pending.client == client)?;
        Some(self.pending.remove(index))
    }

    /// Our re-INVITE, while it is open.
    pub(super) fn reinvite(&self) -> Option<ClientId> {
        let mut pending = self.pending.iter();
        pending.find(|pending| matches!(pending.purpose, Purpose::Reinvite)).map(|pending| pending.client)
    }
}

impl Session {
    /// Sends a request in the confirmed dialog, or in the one dialog there is; its answer goes to the method of its
    /// purpose. `None`: there is no dialog, or too many requests are open; nothing was sent.
    pub(super) fn request_in_dialog(
        &mut self,
        request: DialogRequest,
        purpose: Purpose,
        core: &mut Core,
        now: Instant,
    ) -> Option<ClientId> {
        let remote_tag = self.our_dialogs().first()?.remote_tag().into();
        self.request_in_fork(remote_tag, request, purpose, core, now)
    }

    /// The same in the dialog with this remote tag.
    pub(super) fn request_in_fork(
        &mut self,
        remote_tag: Box<[u8]>,
        mut request: DialogRequest,
        purpose: Purpose,
        core: &mut Core,
        now: Instant,
    ) -> Option<ClientId> {
        if self.requests.pending.len() >= MAX_REQUESTS {
            return None;
        }
        let client = self.send_in_fork(&remote_tag, &mut request, core, now)?;
        self.requests.pending.push(Pending { client, request, purpose, remote_tag });
        Some(client)
    }

    fn send_in_fork(
        &mut self,
        remote_tag: &[u8],
        request: &mut DialogRequest,
        core: &mut Core,
        now: Instant,
    ) -> Option<ClientId> {
        let used = match request.method {
            Method::Invite => ClientUse::Reinvite(self.id),
            _ => ClientUse::InDialog(self.id),
        };
        let dialog = self.our_dialogs().iter_mut().find(|dialog| dialog.remote_tag() == remote_tag)?;
        Some(request.send(dialog, used, core, now))
    }

    /// The dialogs there are: early ones until the call is answered, then one.
    pub(super) fn our_dialogs(&mut self) -> &mut [Dialog] {
        match &mut self.leg {
            Leg::Outgoing(outgoing) => outgoing.early_dialogs(),
            Leg::Incoming(incoming) => std::slice::from_mut(&mut incoming.dialog),
            Leg::Answered(answered) => std::slice::from_mut(&mut answered.dialog),
            Leg::Confirmed(confirmed) => std::slice::from_mut(&mut confirmed.dialog),
            Leg::Ending(ending) => ending.dialog.as_mut_slice(),
            Leg::Over => &mut [],
        }
    }

    /// A response to a request of ours inside the dialog; false when it is none (any more).
    pub fn handle_response(
        &mut self,
        client: ClientId,
        response: &Message,
        flow: Flow,
        core: &mut Core,
        now: Instant,
    ) -> bool {
        if !self.is_ours(response) {
            return false;
        }
        let code = response.status().unwrap_or_default();
        if code < 200 {
            if code > 100 && self.requests.reinvite() == Some(client) {
                self.reinvite_rings(core, now);
            }
            return true;
        }
        let Some(mut pending) = self.requests.take(client) else { return false };
        if matches!(code, 401 | 407) && pending.request.challenged(response, core).is_ok() {
            if let Some(client) = self.send_in_fork(&pending.remote_tag, &mut pending.request, core, now) {
                self.requests.pending.push(Pending { client, ..pending });
            }
            return true;
        }
        if code < 300 {
            pending.request.accepted(response, core);
        }
        if (200..300).contains(&code) && matches!(pending.request.method, Method::Invite | Method::Update) {
            let dialogs = self.our_dialogs().iter_mut();
            if let Some(dialog) = dialogs.into_iter().find(|dialog| dialog.remote_tag() == &*pending.remote_tag) {
                dialog.refresh_target(response, flow);
            }
        }
        let reason = response.reason().into_owned();
        let number = pending.request.number;
        let answer = Answer { client, code, reason, response: Some((response, flow)), number };
        self.take_answer_of(pending.purpose, &answer, core, now);
        true
    }

    /// No answer came (408), or it could not be sent (503).
    pub fn handle_no_response(&mut self, client: ClientId, code: u16, why: &str, core: &mut Core, now: Instant) {
        let Some(pending) = self.requests.take(client) else { return };
        let number = pending.request.number;
        let answer = Answer { client, code, reason: why.to_owned(), response: None, number };
        self.take_answer_of(pending.purpose, &answer, core, now);
    }

    /// One method for each purpose; then the end of the dialog, when that is what the answer means.
    fn take_answer_of(&mut self, purpose: Purpose, answer: &Answer<'_>, core: &mut Core, now: Instant) {
        let is_the_end = purpose.is_about_the_dialog() && matches!(answer.code, 408 | 481);
        match purpose {
            Purpose::Reinvite => self.reinvite_answered(answer, core, now),
            Purpose::Refresh => self.refresh_answered(answer, core, now),
            #[cfg(test)]
            Purpose::Probe => {}
            Purpose::Prack => {}
            Purpose::Info(request) => self.info_answered(request, answer, core),
            Purpose::Refer => self.refer_answered(answer, core, now),
            Purpose::Report { last } => self.report_answered(last, answer, core, now),
        }
        if is_the_end {
            self.dialog_is_dead(answer, core, now);
        }
    }

    /// 408 or 481 to a request of ours: the peer is gone, or knows of no call (RFC 3261 §12.2.1.2). BYE is for what may
    /// stand between.
    fn dialog_is_dead(&mut self, answer: &Answer<'_>, core: &mut Core, now: Instant) {
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        let reason = format!("{} {}", answer.code, answer.reason);
        core.send_bye(&mut confirmed.dialog, Some(self.account), Some(&reason), None, now);
        let originator = if answer.response.is_some() { Originator::Remote } else { Originator::Local };
        self.close_established(originator, Some(reason.into()), core, now);
    }
}

#[cfg(test)]
impl Session {
    /// Sends a request that means nothing.
    pub fn probe(&mut self, method: Method, core: &mut Core, now: Instant) -> Option<ClientId> {
        self.request_in_dialog(DialogRequest::new(method, self.account), Purpose::Probe, core, now)
    }
}
