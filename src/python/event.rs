//! Events as notifications: the one table between [`EventKind`] and Python.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use pyo3::IntoPyObjectExt;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};

use super::convert;
use super::snapshot::PySnapshot;
use super::uri::PyUri;
use crate::engine::TimedEvent;
use crate::event::{
    AccountId, EventKind, Originator, RequestId, Route, Sender, SessionId, SessionState, Streams, SubscriptionId,
};
use crate::sip::bodies::Parsed;
use crate::sip::bodies::dialog_info::WatchedDialog;
use crate::sip::bodies::message_summary::Count;
use crate::sip::bodies::presence::{Presence, Tuple};
use crate::sip::transport::Transport;
use crate::sip::uri::Uri;

/// The name of a notification: "SIP" and the variant, unless it has one of its own.
macro_rules! name {
    ($variant:ident) => {
        concat!("SIP", stringify!($variant))
    };
    ($variant:ident $name:literal) => {
        $name
    };
}

/// Each row gives the variant, its name when that is not "SIP" and the variant, and the keys of its data. The compiler sees to it that
/// no variant and no field is forgotten.
macro_rules! table {
    ($($variant:ident $(as $name:literal)? { $($key:ident),* })*) => {
        enum Row { $($variant),* }

        const TABLE: &[(&str, &[&str])] =
            &[$((name!($variant $($name)?), &["timestamp", $(stringify!($key)),*])),*];

        /// The row of an event and the values of its data.
        fn values<'py>(py: Python<'py>, kind: &EventKind, at: f64) -> PyResult<(Row, Bound<'py, PyTuple>)> {
            match kind {
                $(EventKind::$variant { $($key),* } => {
                    let values: &[Bound<'py, PyAny>] = &[at.value(py)?, $($key.value(py)?),*];
                    Ok((Row::$variant, PyTuple::new(py, values)?))
                })*
            }
        }
    };
}

table! {
    // --- sessions ---
    SessionChangedState { prev_state, state }
    SessionNewIncoming { streams }
    SessionNewOutgoing { streams }
    SessionGotRingIndication {}
    SessionWillStart {}
    SessionDidStart {}
    SessionDidFail { originator, code, reason }
    SessionWillEnd {}
    SessionDidEnd { originator, end_reason }
    SessionGotHoldRequest { originator }
    SessionGotUnholdRequest { originator }
    SessionWillStartRecordingAudio { file_name }
    SessionDidStartRecordingAudio { file_name }
    SessionWillStopRecordingAudio { file_name }
    SessionDidStopRecordingAudio { file_name, error }
    SessionGotNoAudio {}
    SessionGotDTMF { digit }
    SessionGotStreamUpdate { streams }
    SessionGotStreamProposal { proposer, streams }
    SessionAcceptedStreamProposal { proposer }
    SessionRejectedStreamProposal { proposer, reason }
    SessionDidChangeRoute { route, code, reason }
    SessionAudioUnderrun { missing_ms }
    SessionGotInfo { content, content_type, info_package }
    SessionDidDeliverInfo { request, code, reason }
    SessionDidNotDeliverInfo { request, code, reason }
    SessionGotTransferRequest { target, replaces, referred_by }
    SessionTransferNewOutgoing { target, replaces }
    SessionTransferDidStart { session }
    SessionTransferGotProgress { code, reason }
    SessionTransferDidEnd { code, reason }
    SessionTransferDidFail { code, reason }
    // --- requests outside sessions ---
    OptionsDidAnswer { request, code, reason, rtt }
    MessageDidSucceed { request, code, reason }
    MessageDidFail { request, originator, code, reason }
    MessageDidGetDeliveryReport { from_uri, message_id, disposition, status }
    EngineGotMessage {
        account, session, from_uri, from_display_name, to_uri, content, content_type, cpim_headers, message_id,
        disposition
    }
    LookupDidSucceed as "DNSLookupDidSucceed" { request, result }
    LookupDidFail as "DNSLookupDidFail" { request, error }
    // --- accounts and their registrations ---
    AccountWillRegister {}
    AccountRegistrationDidSucceed { contact, expires, registrar }
    AccountRegistrationDidFail { code, reason, retry_after }
    AccountRegistrationDidEnd {}
    // --- subscriptions and publications ---
    SubscriptionDidStart { state, expires }
    SubscriptionGotNotify { event, state, content_type, body, parsed, error }
    SubscriptionDidFail { code, reason, retry_after }
    SubscriptionDidEnd { reason }
    EngineGotSubscription { subscription, account, event, from_uri, from_display_name, to_uri, expires, accept }
    AccountGotMessageSummary { messages_waiting, account_uri, counts }
    PublicationDidSucceed { expires }
    PublicationDidFail { code, reason, retry_after }
    PublicationDidEnd { reason }
    // --- the engine ---
    EngineWillStart {}
    EngineDidStart {}
    EngineDidFail { error }
    EngineWillEnd {}
    EngineDidEnd {}
    EngineCertificateWillExpire { certificate, expires }
    EngineSIPTrace { received, source, destination, transport, data }
    EngineGotException { error }
}

/// What the dispatcher gets: sender (its kind and number), name, data, seconds since 1970, snapshot.
/// Kinds of senders: 0 the engine, 1 a session, 2 an account, 3 a subscription.
pub type Posted<'py> = ((u8, u64), Bound<'py, PyString>, Bound<'py, PyAny>, f64, Option<PySnapshot>);

/// Turns one event into a notification.
pub fn notification<'py>(py: Python<'py>, timed: TimedEvent) -> PyResult<Posted<'py>> {
    static CLASSES: PyOnceLock<Vec<(Py<PyString>, Py<PyType>)>> = PyOnceLock::new();
    let classes = CLASSES.get_or_try_init(py, || -> PyResult<_> {
        let all = py.import("sipwire.notification_data")?.getattr("NOTIFICATION_DATA")?;
        TABLE
            .iter()
            .map(|(name, _)| {
                let class = all.get_item(name)?.cast_into::<PyType>()?;
                Ok((PyString::intern(py, name).unbind(), class.unbind()))
            })
            .collect()
    })?;
    let at = convert::epoch(timed.at);
    let (row, values) = values(py, &timed.event.kind, at)?;
    let (name, class) = &classes[row as usize];
    let data = class.bind(py).call1(values)?;
    Ok((
        match timed.event.sender {
            Sender::Engine => (0, 0),
            Sender::Session(session) => (1, session.0),
            Sender::Account(account) => (2, account.0),
            Sender::Subscription(subscription) => (3, subscription.0),
        },
        name.bind(py).clone(),
        data,
        at,
        timed.event.snapshot.map(PySnapshot::new),
    ))
}

/// Name → keys of every notification the core makes, in the order its values are given.
#[pyfunction]
pub fn notification_table(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let table = PyDict::new(py);
    for (name, keys) in TABLE {
        table.set_item(name, keys.to_vec())?;
    }
    Ok(table)
}

/// How a field of an event looks in Python.
trait Value {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(impl Value for $type {
            fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                (*self).into_bound_py_any(py)
            }
        })*
    };
}

plain!(bool, u16, u32, f64, char);

impl Value for Arc<str> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyString::new(py, self).into_any())
    }
}

impl Value for SystemTime {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let datetime = py.import("datetime")?;
        let utc = datetime.getattr("timezone")?.getattr("utc")?;
        datetime.getattr("datetime")?.call_method1("fromtimestamp", (convert::epoch(*self), utc))
    }
}

impl Value for PathBuf {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::path(self).into_bound_py_any(py)
    }
}

impl Value for Bytes {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyBytes::new(py, self).into_any())
    }
}

impl Value for SessionState {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::state(py, *self)
    }
}

impl Value for Originator {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let name = match self {
            Self::Local => pyo3::intern!(py, "local"),
            Self::Remote => pyo3::intern!(py, "remote"),
        };
        Ok(name.clone().into_any())
    }
}

impl Value for Streams {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::streams(*self).into_bound_py_any(py)
    }
}

impl Value for Route {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::route_object(py, self)
    }
}

impl Value for Transport {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.name().into_bound_py_any(py)
    }
}

impl Value for SocketAddr {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::address(*self).into_bound_py_any(py)
    }
}

impl Value for AccountId {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl Value for SessionId {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl Value for &'static str {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyString::intern(py, self).into_any())
    }
}

impl Value for SubscriptionId {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl Value for Vec<String> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.into_bound_py_any(py)
    }
}

/// A class of `sipwire.subscription`, made of these values.
fn made<'py>(py: Python<'py>, class: &str, values: impl PyCallArgs<'py>) -> PyResult<Bound<'py, PyAny>> {
    py.import("sipwire.subscription")?.getattr(class)?.call1(values)
}

impl Value for Arc<Vec<Count>> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let one = |count: &Count| {
            made(py, "MessageCount", (&count.class, count.new, count.old, count.urgent_new, count.urgent_old))
        };
        self.iter().map(one).collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)
    }
}

/// As a `MessageSummary`, `DialogInfo` or `Presence`.
impl Value for Arc<Parsed> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &**self {
            Parsed::MessageSummary(summary) => {
                let counts = Arc::new(summary.counts.clone()).value(py)?;
                made(py, "MessageSummary", (summary.messages_waiting, &summary.account, counts))
            }
            Parsed::DialogInfo(info) => {
                let one = |dialog: &WatchedDialog| {
                    let values = (
                        (&dialog.id, &dialog.state, &dialog.direction, &dialog.local_uri, &dialog.local_display_name),
                        (&dialog.remote_uri, &dialog.remote_display_name, &dialog.event, dialog.code, dialog.duration),
                        (&dialog.call_id, &dialog.local_tag, &dialog.remote_tag),
                    );
                    made(py, "_watched_dialog", values)
                };
                let dialogs = info.dialogs.iter().map(one).collect::<PyResult<Vec<_>>>()?;
                made(py, "DialogInfo", (&info.entity, info.version, info.is_full, dialogs))
            }
            Parsed::Presence(presence) => {
                let one = |tuple: &Tuple| {
                    let values = (&tuple.id, tuple.is_open, &tuple.contact, &tuple.note, &tuple.timestamp);
                    made(py, "PresenceTuple", values)
                };
                let tuples = presence.tuples.iter().map(one).collect::<PyResult<Vec<_>>>()?;
                let values = (&presence.entity, tuples, presence.notes.clone(), presence.activities.clone());
                made(py, "Presence", values)
            }
        }
    }
}

/// A presence document (`application/pidf+xml`) about one presentity.
#[pyfunction]
pub fn presence_document(
    entity: String,
    is_open: bool,
    contact: Option<String>,
    note: Option<String>,
    activities: Vec<String>,
) -> String {
    let tuple = Tuple { id: "sipwire".into(), is_open: Some(is_open), contact, ..Tuple::default() };
    Presence { entity, tuples: vec![tuple], notes: note.into_iter().collect(), activities }.write()
}

impl Value for Vec<&'static str> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.into_bound_py_any(py)
    }
}

impl Value for Arc<BTreeMap<String, String>> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let all = PyDict::new(py);
        for (name, text) in self.iter() {
            all.set_item(name, text)?;
        }
        Ok(all.into_any())
    }
}

impl Value for Arc<Uri> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        (**self).value(py)
    }
}

impl Value for Uri {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyUri(self.clone()).into_bound_py_any(py)
    }
}

impl Value for RequestId {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl Value for Vec<Route> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let routes: Vec<_> = self.iter().map(|route| convert::route_object(py, route)).collect::<PyResult<_>>()?;
        routes.into_bound_py_any(py)
    }
}

impl<T: Value> Value for Option<T> {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Some(value) => value.value(py),
            None => Ok(py.None().into_bound(py)),
        }
    }
}
