//! INFO inside a call (RFC 6086, and the older use of RFC 2976): digits, and whatever else two applications have to say.

use std::time::Instant;

use bytes::Bytes;

use super::Session;
use super::in_dialog::{Answer, Purpose};
use super::media::Media;
use super::table::{Permission, Verb};
use crate::event::{AccountId, CallDirection, EventKind, RequestId};
use crate::sip::headers::{ContentType, list_contains};
use crate::sip::info;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::ServerId;
use crate::sip::transport::Flow;
use crate::ua::VerbError;
use crate::ua::core::Core;
use crate::ua::dialog_request::DialogRequest;
use crate::ua::limits::Bucket;

/// Digits a second that a peer's INFOs may bring, as many as by RFC 4733: nobody types faster.
const MAX_DIGIT_RATE: u32 = 20;

/// INFOs of any other kind a second: each becomes a notification, which is never dropped.
const MAX_INFO_RATE: u32 = 50;

/// Seconds a peer above these rates is asked to wait.
const RETRY_AFTER: &str = "1";

/// What we write into `Duration` of a digit, milliseconds: as long as the tone of RFC 4733 would be.
const DIGIT_MS: u32 = 100;

/// INFO of a session.
#[derive(Debug, Default)]
pub(super) struct Infos {
    digits: Option<Bucket>,
    others: Option<Bucket>,
    /// INFOs of the application without a final answer.
    waiting: Vec<RequestId>,
}

/// What came.
enum Content {
    Digit(char),
    Other { content: Bytes, content_type: String, package: Option<String> },
}

/// A refusal: code and headers.
type Refusal = (u16, Vec<(&'static str, String)>);

/// What `Recv-Info` of an INVITE and its answer says; `None` for an account that takes no packages: its peers may then use
/// INFO in the older way (RFC 6086 §4.2.3).
pub(super) fn info_packages(account: AccountId, core: &Core) -> Option<String> {
    let packages = &core.accounts.get(account)?.info_packages;
    (!packages.is_empty()).then(|| packages.join(", "))
}

impl Session {
    /// An INFO of the peer. Its transaction already sees to it that a repeated one counts once.
    pub(super) fn handle_info(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        core: &mut Core,
        now: Instant,
    ) {
        match self.judge_info(request, core, now) {
            Ok(content) => {
                core.answer(server, request, flow, 200, now);
                match content {
                    Some(Content::Digit(digit)) => self.post(EventKind::SessionGotDTMF { digit }, core),
                    Some(Content::Other { content, content_type, package }) => {
                        let content_type = content_type.into();
                        let info_package = package.map(Into::into);
                        self.post(EventKind::SessionGotInfo { content, content_type, info_package }, core);
                    }
                    None => {} // an empty one only asks whether we are there
                }
            }
            Err((code, headers)) => {
                let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                core.answer_with(server, request, flow, code, &headers, now);
            }
        }
    }

    fn judge_info(&mut self, request: &Message, core: &Core, now: Instant) -> Result<Option<Content>, Refusal> {
        let mut packages = request.lines_named("Info-Package");
        let package = match (packages.next(), packages.next()) {
            (None, _) => None,
            (Some(value), None) => Some(info::package(value).ok_or((400, Vec::new()))?),
            (Some(_), Some(_)) => return Err((400, Vec::new())),
        };
        if let Some(package) = package {
            let ours = info_packages(self.account, core).unwrap_or_default();
            if !info::receives(ours.as_bytes(), package) {
                return Err((469, vec![("Recv-Info", ours)]));
            }
        }
        let encoding = request.header(HeaderName::ContentEncoding).unwrap_or_default();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
            return Err((415, vec![("Accept-Encoding", "identity".into())]));
        }
        let body = request.body();
        let kind = request.header(HeaderName::ContentType);
        let content_type = kind.and_then(ContentType::parse);
        if content_type.is_none() && (kind.is_some() || !body.is_empty()) {
            return Err((415, vec![("Accept", "*/*".into())]));
        }
        let digit = content_type.and_then(|kind| info::dtmf_digit(kind, body)).filter(|_| package.is_none());
        let infos = self.infos.get_or_insert_default();
        let (bucket, rate) = match digit {
            Some(_) => (&mut infos.digits, MAX_DIGIT_RATE),
            None => (&mut infos.others, MAX_INFO_RATE),
        };
        if !bucket.get_or_insert_with(|| Bucket::new(now)).take(rate, now) {
            return Err((500, vec![("Retry-After", RETRY_AFTER.into())]));
        }
        if let Some(digit) = digit {
            return Ok(Some(Content::Digit(digit)));
        }
        if body.is_empty() && package.is_none() {
            return Ok(None);
        }
        Ok(Some(Content::Other {
            content: Bytes::copy_from_slice(body), // it outlives the message it came in
            content_type: String::from_utf8_lossy(kind.unwrap_or_default()).into_owned(),
            package: package.map(str::to_owned),
        }))
    }

    /// Sends an INFO; its answer is SIPSessionDidDeliverInfo or SIPSessionDidNotDeliverInfo with this number.
    ///
    /// # Errors
    /// Outside ESTABLISHED, PROPOSING and PROPOSED, for a type or package that is none, and where the peer has said that it
    /// takes no INFO or not this package.
    pub fn send_info(
        &mut self,
        content: Bytes,
        content_type: &str,
        package: Option<&str>,
        core: &mut Core,
        now: Instant,
    ) -> Result<RequestId, VerbError> {
        Verb::SendInfo.check(self.state())?;
        if content_type.contains(['\r', '\n', '\0']) || ContentType::parse(content_type.as_bytes()).is_none() {
            return Err(VerbError::BadArgument(format!("{content_type:?} is no content type")));
        }
        if package.is_some_and(|package| info::package(package.as_bytes()) != Some(package)) {
            return Err(VerbError::BadArgument(format!("{package:?} is no name of an info package")));
        }
        let impossible = |why: String| Err(Verb::SendInfo.impossible(self.state(), why));
        if !self.peer_allows(&Method::Info) {
            return impossible("the peer takes no INFO".into());
        }
        if let Some(package) = package {
            let theirs = self.peer_said("Recv-Info").unwrap_or_default();
            if !info::receives(theirs.as_bytes(), package) {
                return impossible(format!("the peer does not take info package {package}, but: {theirs}"));
            }
        }
        let id = RequestId(core.next_id());
        let mut request = DialogRequest::new(Method::Info, self.account);
        if let Some(package) = package {
            request = request.header("Info-Package", package);
            if !content.is_empty() {
                request = request.header("Content-Disposition", "Info-Package"); // RFC 6086 §4.2.2
            }
        }
        if !content.is_empty() {
            request = request.body(content_type, content);
        }
        match self.request_in_dialog(request, Purpose::Info(Some(id)), core, now) {
            Some(_) => {
                self.infos.get_or_insert_default().waiting.push(id);
                Ok(id)
            }
            None => Err(Verb::SendInfo.impossible(self.state(), "too many requests are not answered yet")),
        }
    }

    /// M9: by RFC 4733 where that was negotiated, else by INFO where the peer takes it.
    ///
    /// # Errors
    /// Outside ESTABLISHED, PROPOSING and PROPOSED, without audio, for anything but one of `0-9*#A-D` (ruling R11), or when
    /// the peer takes digits neither way.
    pub fn send_dtmf(&mut self, digit: char, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = Verb::SendDtmf.check(self.state())? else { return Ok(()) };
        if !matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D') {
            return Err(VerbError::BadArgument(format!("{digit:?} is no DTMF digit: one of 0-9, *, #, A-D is")));
        }
        let impossible = |why| Err(Verb::SendDtmf.impossible(self.state(), why));
        if !self.snapshot.has_audio {
            return impossible("the session has no audio");
        }
        if matches!(&self.media, Media::Open { running: Some(params), .. } if params.dtmf_send.is_some()) {
            self.send_media(crate::media::MediaCommand::SendDtmf(digit), core);
            return Ok(());
        }
        if !self.peer_allows(&Method::Info) {
            return impossible("the peer takes digits neither as telephone events nor in INFO");
        }
        let body = info::dtmf_relay(digit, DIGIT_MS);
        let request = DialogRequest::new(Method::Info, self.account).body(info::DTMF_RELAY, body);
        match self.request_in_dialog(request, Purpose::Info(None), core, now) {
            Some(_) => Ok(()),
            None => Err(Verb::SendDtmf.impossible(self.state(), "too many requests are not answered yet")),
        }
    }

    /// The answer to an INFO of ours; `None` for a digit, of which nobody hears.
    pub(super) fn info_answered(&mut self, request: Option<RequestId>, answer: &Answer<'_>, core: &mut Core) {
        let Some(request) = request else { return };
        let Some(infos) = &mut self.infos else { return };
        let Some(index) = infos.waiting.iter().position(|waiting| *waiting == request) else { return };
        infos.waiting.remove(index);
        let (code, reason) = (answer.code, answer.reason.as_str().into());
        let delivered = (200..300).contains(&code);
        self.post(
            if delivered {
                EventKind::SessionDidDeliverInfo { request, code, reason }
            } else {
                EventKind::SessionDidNotDeliverInfo { request, code, reason }
            },
            core,
        );
    }

    /// The call ends: what is not answered by now counts as not delivered.
    pub(super) fn drop_infos(&mut self, core: &mut Core) {
        for request in self.infos.take().map(|infos| infos.waiting).unwrap_or_default() {
            let reason = "the call ended first".into();
            self.post(EventKind::SessionDidNotDeliverInfo { request, code: 487, reason }, core);
        }
    }

    // --- what the peer has said of itself ----------------------------------------------------------------------------

    /// A header of its INVITE, or of its answer to ours.
    pub(super) fn peer_said(&self, name: &str) -> Option<String> {
        let headers = match self.snapshot.direction? {
            CallDirection::Incoming => self.snapshot.request_headers.as_ref(),
            CallDirection::Outgoing => self.snapshot.response_headers.as_ref(),
        };
        let lines = headers?.list().into_iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value).reduce(|all, line| all + ", " + &line)
    }

    /// False only when it has said so: phones that send no Allow take more than they say.
    pub(super) fn peer_allows(&self, method: &Method) -> bool {
        self.peer_said("Allow").is_none_or(|allow| list_contains(allow.as_bytes(), method.as_str()))
    }
}
