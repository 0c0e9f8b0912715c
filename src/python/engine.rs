//! The engine: options and verbs in, events out.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::audio::PyAudio;
use super::convert;
use super::error::engine_error;
use super::event::{Posted, notification};
use super::snapshot::PySnapshot;
use super::stats::PyEngineStats;
use super::uri::PyUri;
use crate::engine::{ClientCertificates, Engine, EngineOptions};
use crate::event::{AccountId, Route, SessionId, SubscriptionId};
use crate::media::{CodecKind, RecordingLayout, SrtpPolicy};
use crate::sip::digest::{Algorithm, Credentials};
use crate::sip::event_package::EndReason;
use crate::sip::imdn::{Status, Wanted};
use crate::sip::transport::Transport;
use crate::ua::messages::{SendMessage, SendReport, Wrap};
use crate::ua::subscription::{Publish, Subscribe, Verdict};
use crate::ua::{AccountSettings, Connect, RegistrationSettings};

/// A value of an option, or an error that names both.
fn option<'py, T>(name: &str, value: &Bound<'py, PyAny>, wanted: &str) -> PyResult<T>
where
    T: FromPyObjectOwned<'py>,
{
    value.extract().map_err(|_| engine_error(format!("{name}={}: not {wanted}", text(value))))
}

fn text(value: &Bound<'_, PyAny>) -> String {
    value.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string())
}

/// An IP address or none.
fn ip(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<IpAddr>> {
    let given: Option<String> = option(name, value, "an IP address")?;
    given
        .map(|address| address.parse().map_err(|_| engine_error(format!("{name}={}: not an IP address", text(value)))))
        .transpose()
}

/// Name servers by address, with or without a port; none: those of the system.
fn nameservers(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<SocketAddr>>> {
    const WANTED: &str = "a list of \"address\" or \"address:port\"";
    let given: Option<Vec<String>> = option(name, value, WANTED)?;
    let Some(given) = given else { return Ok(None) };
    if given.is_empty() {
        return Err(engine_error(format!("{name}={}: needs at least one name server", text(value))));
    }
    let read = |server: &String| {
        let bare = server.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)).or_else(|_| server.parse());
        address.map_err(|_| engine_error(format!("{name}={}: {server:?} is not {WANTED}", text(value))))
    };
    given.iter().map(read).collect::<PyResult<_>>().map(Some)
}

/// Codec names into codecs.
fn codecs(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<CodecKind>> {
    let known = "\"opus\", \"G722\", \"PCMU\" and \"PCMA\"";
    let names: Vec<String> = option(name, value, "a list of codec names")?;
    if names.is_empty() {
        return Err(engine_error(format!("{name}={}: needs at least one codec", text(value))));
    }
    names
        .iter()
        .map(|codec| {
            CodecKind::from_name(codec).ok_or_else(|| {
                engine_error(format!("{name}={}: codec {codec:?} is unknown, there are {known}", text(value)))
            })
        })
        .collect()
}

const PORT: &str = "a port from 0 to 65535 or None";
const COUNT: &str = "a count";
const PATH: &str = "a path or None";

/// Whether clients have to show certificates.
fn client_certificates(name: &str, value: &Bound<'_, PyAny>) -> PyResult<ClientCertificates> {
    let wanted = "None, \"optional\" or \"required\"";
    match option::<Option<String>>(name, value, wanted)?.as_deref() {
        None => Ok(ClientCertificates::Off),
        Some("optional") => Ok(ClientCertificates::Optional),
        Some("required") => Ok(ClientCertificates::Required),
        Some(_) => Err(engine_error(format!("{name}={}: not {wanted}", text(value)))),
    }
}

/// Pages that may connect.
fn origins(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<String>>> {
    let given: Option<Vec<String>> = option(name, value, "a list of origins or None")?;
    let is_origin = |origin: &String| origin == "*" || origin == "null" || origin.contains("://");
    match given.iter().flatten().find(|origin| !is_origin(origin)) {
        Some(origin) => {
            Err(engine_error(format!("{name}: {origin:?} is no origin like \"https://phone.example.com\"")))
        }
        None => Ok(given),
    }
}

/// Reads keyword arguments into options.
pub(super) fn options(given: &Bound<'_, PyDict>) -> PyResult<EngineOptions> {
    let mut options = EngineOptions::default();
    for (key, value) in given {
        let name: String = key.extract()?;
        let (name, value) = (name.as_str(), &value);
        match name {
            "local_ip" => options.local_ip = ip(name, value)?,
            "advertised_ip" => options.advertised_ip = ip(name, value)?,
            "udp_port" => options.udp_port = option(name, value, PORT)?,
            "tcp_port" => options.tcp_port = option(name, value, PORT)?,
            "tls_port" => options.tls_port = option(name, value, PORT)?,
            "ws_port" => options.ws_port = option(name, value, PORT)?,
            "wss_port" => options.wss_port = option(name, value, PORT)?,
            "tls_certificate" => options.tls_certificate = option::<Option<PathBuf>>(name, value, PATH)?,
            "tls_private_key" => options.tls_private_key = option::<Option<PathBuf>>(name, value, PATH)?,
            "tls_ca" => options.tls_ca = option::<Option<PathBuf>>(name, value, PATH)?,
            "tls_verify" => options.tls_verify = option(name, value, "True or False")?,
            "tls_verify_client" => options.tls_verify_client = client_certificates(name, value)?,
            "websocket_origins" => options.websocket_origins = origins(name, value)?,
            "user_agent" => options.user_agent = option(name, value, "a text")?,
            "rtp_port_range" => options.rtp_port_range = option(name, value, "a pair of ports")?,
            "audio_device" => options.audio_device = option(name, value, "a name")?,
            "codecs" => options.codecs = codecs(name, value)?,
            "media_threads" => options.media_threads = option(name, value, "a count or None")?,
            "max_sessions" => options.max_sessions = option(name, value, COUNT)?,
            "invite_rate" => options.invite_rate = option(name, value, COUNT)?,
            "invite_rate_per_source" => options.invite_rate_per_source = option(name, value, COUNT)?,
            "trace_sip" => options.trace_sip = option(name, value, "True or False")?,
            "trace_rtp" => options.trace_rtp = option(name, value, "True or False")?,
            "auto_ring" => options.auto_ring = option(name, value, "True or False")?,
            "nameservers" => options.nameservers = nameservers(name, value)?,
            "accepts_calls" => options.accepts_calls = option(name, value, "True or False")?,
            "accepts_messages" => options.accepts_messages = option(name, value, "True or False")?,
            "devices_library" => options.devices_library = option::<Option<PathBuf>>(name, value, PATH)?,
            "event_packages" => options.event_packages = option(name, value, "a list of event packages")?,
            _ => return Err(engine_error(format!("{name}={}: there is no such option", text(value)))),
        }
    }
    Ok(options)
}

/// The settings of an account, as plain values.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Settings {
    uri: PyUri,
    display_name: Option<String>,
    catch_all: bool,
    outbound_proxy: Option<(String, u16, String)>,
    srtp_encryption: String,
    audio_codec_list: Option<Vec<String>>,
    info_packages: Vec<String>,
    symmetric: bool,
    /// Name and password.
    credentials: Option<(String, String)>,
    digest_algorithms: Vec<String>,
    transport_list: Vec<String>,
    register: bool,
    registrar: Option<PyUri>,
    register_interval: f64,
    instance: Option<String>,
    follow_redirects: u8,
    session_timer: Option<f64>,
    require_100rel: bool,
    message_summary: bool,
}

impl TryFrom<Settings> for AccountSettings {
    type Error = PyErr;

    fn try_from(settings: Settings) -> PyResult<Self> {
        let srtp = match settings.srtp_encryption.as_str() {
            "disabled" => SrtpPolicy::Disabled,
            "optional" => SrtpPolicy::Optional,
            "mandatory" => SrtpPolicy::Mandatory,
            other => return Err(engine_error(format!("srtp_encryption={other:?}: unknown"))),
        };
        let codec = |name: String| {
            CodecKind::from_name(&name)
                .ok_or_else(|| engine_error(format!("audio_codec_list: codec {name:?} is unknown")))
        };
        let uri = settings.uri.0;
        let algorithm = |name: String| {
            algorithm(&name).ok_or_else(|| engine_error(format!("digest_algorithms: {name:?} is unknown")))
        };
        let registration = RegistrationSettings {
            registrar: settings.registrar.map(|registrar| registrar.0),
            expires: convert::seconds(settings.register_interval)?,
            instance: settings.instance,
        };
        Ok(Self {
            credentials: settings.credentials.map(|(username, password)| Credentials { username, password }),
            digest_algorithms: settings.digest_algorithms.into_iter().map(algorithm).collect::<PyResult<_>>()?,
            transports: settings.transport_list.iter().map(|name| convert::transport(name)).collect::<PyResult<_>>()?,
            registration: settings.register.then_some(registration),
            session_timer: settings.session_timer.map(convert::seconds).transpose()?,
            require_100rel: settings.require_100rel,
            follow_redirects: settings.follow_redirects,
            message_summary: settings.message_summary,
            display_name: settings.display_name,
            catch_all: settings.catch_all,
            outbound_proxy: settings.outbound_proxy.map(convert::route).transpose()?,
            srtp,
            codecs: settings.audio_codec_list.map(|names| names.into_iter().map(codec).collect()).transpose()?,
            symmetric_rtp: settings.symmetric,
            info_packages: settings.info_packages,
            ..Self::new(uri)
        })
    }
}

/// An algorithm by its name in challenges.
fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "MD5" => Some(Algorithm::Md5),
        "SHA-256" => Some(Algorithm::Sha256),
        "SHA-512-256" => Some(Algorithm::Sha512_256),
        _ => None,
    }
}

fn routes(given: Vec<(String, u16, String)>) -> PyResult<Vec<Route>> {
    given.into_iter().map(convert::route).collect()
}

/// A running engine. Every method may be called from any thread and waits a bounded time.
#[pyclass(frozen, name = "Engine", module = "sipwire._core")]
pub struct PyEngine(Engine);

#[pymethods]
impl PyEngine {
    /// Binds the sockets and starts the threads; both are ready on return.
    #[new]
    #[pyo3(signature = (**given))]
    fn new(py: Python<'_>, given: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let options = given.map_or_else(|| Ok(EngineOptions::default()), options)?;
        Ok(Self(py.detach(|| Engine::start(options))?))
    }

    /// Ends all sessions and joins the threads; returns (sessions there were, of those unfinished, joined).
    fn stop(&self, py: Python<'_>, timeout: f64) -> PyResult<(usize, usize, bool)> {
        let timeout = convert::seconds(timeout)?;
        let report = py.detach(|| self.0.stop(timeout));
        Ok((report.sessions, report.unfinished, report.joined))
    }

    #[getter]
    fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// Transport → (host, port).
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let addresses = self.0.addresses();
        let all = PyDict::new(py);
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
            if let Some(address) = addresses.get(transport) {
                all.set_item(transport.name(), convert::address(address))?;
            }
        }
        Ok(all)
    }

    /// Reads the TLS certificates again.
    fn reload_certificates(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.reload_certificates())?)
    }

    fn stats(&self, py: Python<'_>) -> PyEngineStats {
        py.detach(|| self.0.stats()).into()
    }

    /// Waits up to `timeout` seconds for events and gives at most `limit`, oldest first:
    /// (sender, name, data, seconds since 1970, snapshot).
    fn next_events<'py>(&self, py: Python<'py>, limit: usize, timeout: f64) -> PyResult<Vec<Posted<'py>>> {
        let timeout = convert::seconds(timeout)?;
        let events = py.detach(|| self.0.next_events(limit, timeout));
        events.into_iter().map(|event| notification(py, event)).collect()
    }

    /// Makes a waiting `next_events` return at once.
    fn wake_events(&self) {
        self.0.wake_events();
    }

    /// Keeps the engine from ever being taken down: for a fork, where its threads do not exist.
    fn leak(&self) {
        std::mem::forget(self.0.clone());
    }

    // --- accounts ----------------------------------------------------------------------------------------------------

    fn add_account(&self, py: Python<'_>, settings: Settings) -> PyResult<u64> {
        let settings = settings.try_into()?;
        Ok(py.detach(|| self.0.add_account(settings))?.0)
    }

    fn set_account(&self, py: Python<'_>, account: u64, settings: Settings) -> PyResult<()> {
        let settings = settings.try_into()?;
        Ok(py.detach(|| self.0.set_account(AccountId(account), settings))?)
    }

    fn remove_account(&self, py: Python<'_>, account: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.remove_account(AccountId(account)))?)
    }

    /// Replaces the settings and registers now; SIPAccountRegistrationDidSucceed or DidFail follows.
    fn register(&self, py: Python<'_>, account: u64, settings: Settings) -> PyResult<()> {
        let settings = settings.try_into()?;
        Ok(py.detach(|| self.0.register(AccountId(account), settings))?)
    }

    /// Ends a registration; false when there was none, else SIPAccountRegistrationDidEnd follows.
    fn unregister(&self, py: Python<'_>, account: u64) -> PyResult<bool> {
        Ok(py.detach(|| self.0.unregister(AccountId(account)))?)
    }

    fn set_accepts_calls(&self, py: Python<'_>, accepts: bool) -> PyResult<()> {
        Ok(py.detach(|| self.0.set_accepts_calls(accepts))?)
    }

    // --- sessions ----------------------------------------------------------------------------------------------------

    #[allow(clippy::too_many_arguments)]
    fn connect(
        &self,
        py: Python<'_>,
        account: u64,
        callee: PyUri,
        routes: Vec<(String, u16, String)>,
        audio: bool,
        chat: bool,
        extra_headers: Vec<(String, String)>,
        late_offer: bool,
    ) -> PyResult<u64> {
        let routes = self::routes(routes)?;
        let call =
            Connect { account: AccountId(account), callee: callee.0, routes, audio, chat, late_offer, extra_headers };
        Ok(py.detach(|| self.0.connect(call))?.0)
    }

    fn accept(&self, py: Python<'_>, session: u64, audio: bool, chat: bool) -> PyResult<()> {
        Ok(py.detach(|| self.0.accept(SessionId(session), audio, chat))?)
    }

    fn reject(&self, py: Python<'_>, session: u64, code: u16, reason: Option<&str>) -> PyResult<()> {
        Ok(py.detach(|| self.0.reject(SessionId(session), code, reason))?)
    }

    fn hold(&self, py: Python<'_>, session: u64, hold: bool) -> PyResult<()> {
        Ok(py.detach(|| self.0.hold(SessionId(session), hold))?)
    }

    fn add_audio(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.add_audio(SessionId(session)))?)
    }

    fn remove_audio(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.remove_audio(SessionId(session)))?)
    }

    fn add_chat(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.add_chat(SessionId(session)))?)
    }

    fn remove_chat(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.remove_chat(SessionId(session)))?)
    }

    fn accept_proposal(&self, py: Python<'_>, session: u64, audio: bool, chat: bool) -> PyResult<()> {
        Ok(py.detach(|| self.0.accept_proposal(SessionId(session), audio, chat))?)
    }

    fn reject_proposal(&self, py: Python<'_>, session: u64, code: u16, reason: Option<&str>) -> PyResult<()> {
        Ok(py.detach(|| self.0.reject_proposal(SessionId(session), code, reason))?)
    }

    fn ring(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.ring(SessionId(session)))?)
    }

    fn early_media(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.early_media(SessionId(session)))?)
    }

    fn redirect(&self, py: Python<'_>, session: u64, targets: Vec<PyUri>) -> PyResult<()> {
        let targets = targets.into_iter().map(|target| target.0).collect();
        Ok(py.detach(|| self.0.redirect(SessionId(session), targets))?)
    }

    fn end(&self, py: Python<'_>, session: u64, reason: Option<&str>) -> PyResult<()> {
        Ok(py.detach(|| self.0.end(SessionId(session), reason))?)
    }

    /// Records into a new file and returns its absolute path.
    fn start_recording(&self, py: Python<'_>, session: u64, path: PathBuf, stereo: bool) -> PyResult<String> {
        let layout = if stereo { RecordingLayout::Stereo } else { RecordingLayout::Mix };
        let path = py.detach(|| self.0.start_recording(SessionId(session), &path, layout))?;
        Ok(convert::path(&path))
    }

    fn stop_recording(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.stop_recording(SessionId(session)))?)
    }

    fn pause_recording(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.pause_recording(SessionId(session)))?)
    }

    fn resume_recording(&self, py: Python<'_>, session: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.resume_recording(SessionId(session)))?)
    }

    fn send_dtmf(&self, py: Python<'_>, session: u64, digit: char) -> PyResult<()> {
        Ok(py.detach(|| self.0.send_dtmf(SessionId(session), digit))?)
    }

    /// Returns the number that SIPSessionDidDeliverInfo or SIPSessionDidNotDeliverInfo carries.
    fn send_info(
        &self,
        py: Python<'_>,
        session: u64,
        content: Vec<u8>,
        content_type: String,
        info_package: Option<String>,
    ) -> PyResult<u64> {
        let sent = py.detach(|| self.0.send_info(SessionId(session), content.into(), content_type, info_package));
        Ok(sent?.0)
    }

    fn transfer(&self, py: Python<'_>, session: u64, target: Option<PyUri>, replaces: Option<u64>) -> PyResult<()> {
        let target = target.map(|target| target.0);
        Ok(py.detach(|| self.0.transfer(SessionId(session), target, replaces.map(SessionId)))?)
    }

    /// Returns the number of the new session.
    fn accept_transfer(&self, py: Python<'_>, session: u64, routes: Vec<(String, u16, String)>) -> PyResult<u64> {
        let routes = self::routes(routes)?;
        Ok(py.detach(|| self.0.accept_transfer(SessionId(session), routes))?.0)
    }

    fn reject_transfer(&self, py: Python<'_>, session: u64, code: u16) -> PyResult<()> {
        Ok(py.detach(|| self.0.reject_transfer(SessionId(session), code))?)
    }

    /// Finds the routes to a URI; returns the number its DNSLookupDidSucceed or DNSLookupDidFail carries.
    fn lookup(&self, py: Python<'_>, uri: PyUri, transports: Vec<String>) -> PyResult<u64> {
        let transports = transports.iter().map(|name| convert::transport(name)).collect::<PyResult<_>>()?;
        Ok(py.detach(|| self.0.lookup(uri.0, transports))?.0)
    }

    /// Pings a peer; returns the number its SIPOptionsDidAnswer carries.
    fn options(&self, py: Python<'_>, account: u64, uri: PyUri, routes: Vec<(String, u16, String)>) -> PyResult<u64> {
        let routes = self::routes(routes)?;
        Ok(py.detach(|| self.0.options(AccountId(account), uri.0, routes))?.0)
    }

    /// Sends a message; returns the number its SIPMessageDidSucceed or SIPMessageDidFail carries, and the id that reports
    /// name when it asks for any. `wrap`: (CPIM subject, reports wanted).
    #[allow(clippy::too_many_arguments)]
    fn message(
        &self,
        py: Python<'_>,
        account: u64,
        uri: PyUri,
        routes: Vec<(String, u16, String)>,
        content_type: String,
        body: &[u8],
        wrap: Option<(Option<String>, String)>,
    ) -> PyResult<(u64, Option<String>)> {
        let message = SendMessage {
            account: AccountId(account),
            uri: uri.0,
            routes: self::routes(routes)?,
            content_type,
            body: Bytes::copy_from_slice(body),
            wrap: wrap.map(|(subject, wanted)| Wrap {
                at: Engine::wall_clock(),
                wanted: Wanted::parse(&wanted),
                subject,
            }),
        };
        let (request, message_id) = py.detach(|| self.0.message(message))?;
        Ok((request.0, message_id))
    }

    /// Tells the sender of a message what became of it; answered like a message. `status` is "delivered", "displayed", …
    #[allow(clippy::too_many_arguments)]
    fn report(
        &self,
        py: Python<'_>,
        account: u64,
        uri: PyUri,
        routes: Vec<(String, u16, String)>,
        message_id: String,
        date_time: String,
        status: &str,
    ) -> PyResult<u64> {
        let (disposition, status) = Status::ALL
            .into_iter()
            .find(|known| known.name() == status)
            .and_then(|status| Some((status.disposition()?, status)))
            .ok_or_else(|| PyValueError::new_err(format!("status {status:?} of a report is unknown")))?;
        let report = SendReport {
            account: AccountId(account),
            uri: uri.0,
            routes: self::routes(routes)?,
            message_id,
            date_time,
            disposition,
            status,
        };
        Ok(py.detach(|| self.0.report(report))?.0)
    }

    // --- subscriptions and publications ------------------------------------------------------------------------------

    #[allow(clippy::too_many_arguments)]
    fn subscribe(
        &self,
        py: Python<'_>,
        account: u64,
        event: String,
        uri: Option<PyUri>,
        routes: Vec<(String, u16, String)>,
        expires: u32,
        accept: Vec<String>,
    ) -> PyResult<u64> {
        let uri = uri.map(|uri| uri.0);
        let routes = self::routes(routes)?;
        let what = Subscribe { account: AccountId(account), event, uri, routes, expires, accept };
        Ok(py.detach(|| self.0.subscribe(what))?.0)
    }

    /// Ends a subscription or a publication of ours.
    fn unsubscribe(&self, py: Python<'_>, subscription: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.unsubscribe(SubscriptionId(subscription)))?)
    }

    #[allow(clippy::too_many_arguments)]
    fn publish(
        &self,
        py: Python<'_>,
        account: u64,
        event: String,
        routes: Vec<(String, u16, String)>,
        expires: u32,
        content_type: String,
        body: &[u8],
    ) -> PyResult<u64> {
        let (routes, body) = (self::routes(routes)?, Bytes::copy_from_slice(body));
        let what = Publish { account: AccountId(account), event, routes, expires, content_type, body };
        Ok(py.detach(|| self.0.publish(what))?.0)
    }

    fn modify_publication(&self, py: Python<'_>, publication: u64, content_type: String, body: &[u8]) -> PyResult<()> {
        let body = Bytes::copy_from_slice(body);
        Ok(py.detach(|| self.0.modify_publication(SubscriptionId(publication), content_type, body))?)
    }

    /// Event packages that others may subscribe to from now on.
    fn set_event_packages(&self, py: Python<'_>, packages: Vec<String>) -> PyResult<()> {
        Ok(py.detach(|| self.0.set_event_packages(packages))?)
    }

    /// Accepts a peer's subscription, with its first state when there is one: content type and bytes.
    fn accept_subscription(&self, py: Python<'_>, subscription: u64, body: Option<(String, Vec<u8>)>) -> PyResult<()> {
        let verdict = Verdict::Accept(body.map(|(kind, bytes)| (kind, bytes.into())));
        Ok(py.detach(|| self.0.decide_subscription(SubscriptionId(subscription), verdict))?)
    }

    fn reject_subscription(&self, py: Python<'_>, subscription: u64, code: u16) -> PyResult<()> {
        Ok(py.detach(|| self.0.decide_subscription(SubscriptionId(subscription), Verdict::Reject(code)))?)
    }

    /// Tells a subscriber the state as it is now.
    fn notify_subscription(&self, py: Python<'_>, subscription: u64, body: Option<(String, Vec<u8>)>) -> PyResult<()> {
        let body = body.map(|(kind, bytes)| (kind, bytes.into()));
        Ok(py.detach(|| self.0.notify_subscription(SubscriptionId(subscription), body))?)
    }

    fn terminate_subscription(&self, py: Python<'_>, subscription: u64, reason: &str) -> PyResult<()> {
        let reason = EndReason::of(reason);
        Ok(py.detach(|| self.0.terminate_subscription(SubscriptionId(subscription), reason))?)
    }

    /// Sessions that are neither new nor over.
    fn sessions(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        Ok(py.detach(|| self.0.sessions())?.into_iter().map(|session| session.0).collect())
    }

    /// What a session looks like now; `None` once it is forgotten.
    fn snapshot(&self, py: Python<'_>, session: u64) -> PyResult<Option<PySnapshot>> {
        Ok(py.detach(|| self.0.snapshot(SessionId(session)))?.map(PySnapshot::new))
    }

    /// For `benches/notifications.py` only: posts `count` SIPSessionGotDTMF of a session; returns how many.
    fn _flood(&self, py: Python<'_>, session: u64, count: usize) -> PyResult<usize> {
        Ok(py.detach(|| self.0.flood(SessionId(session), count))?)
    }

    /// The audio stream of a session; `None` while it has none.
    fn audio(&self, py: Python<'_>, session: u64) -> Option<PyAudio> {
        py.detach(|| self.0.audio(SessionId(session))).map(PyAudio)
    }
}
