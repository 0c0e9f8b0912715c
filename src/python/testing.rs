//! The test proxy: what `sipwire.testing.Proxy` is made of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::convert;
use super::engine::options;
use crate::engine::TestProxy;
use crate::sip::digest::{Algorithm, Qop};
use crate::sip::message::Method;
use crate::testing::{Match, Misbehaviour, Seen, Settings, User};

/// (user, Contact, transport, address, port, seconds left, instance).
type Registration = (String, String, &'static str, String, u16, f64, Option<String>);

/// (seconds since 1970, received, transport, address, port, bytes, dropped).
type Message = (f64, bool, &'static str, String, u16, Py<PyBytes>, bool);

/// How it begins.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Given {
    domain: String,
    users: BTreeMap<String, String>,
    auth_names: BTreeMap<String, String>,
    authenticate: bool,
    algorithms: Vec<String>,
    qops: Vec<String>,
    nonce_life: f64,
    second_realm: Option<String>,
    record_route: bool,
    min_expires: u32,
    max_expires: u32,
    service_route: bool,
    gruu: bool,
    outbound: bool,
    hosts: BTreeMap<String, (String, u16)>,
}

impl TryFrom<Given> for Settings {
    type Error = PyErr;

    fn try_from(given: Given) -> PyResult<Self> {
        let mut settings = Self::new(&given.domain);
        for (name, password) in &given.users {
            let auth_name = given.auth_names.get(name).cloned();
            settings.users.insert(name.clone(), User { auth_name, ..User::with_password(password) });
        }
        settings.authenticate = given.authenticate;
        settings.algorithms = given
            .algorithms
            .iter()
            .map(|name| match Algorithm::parse(name) {
                Some((algorithm, false)) => Ok(algorithm),
                _ => Err(PyValueError::new_err(format!("algorithm {name:?} is none of SHA-512-256, SHA-256 and MD5"))),
            })
            .collect::<PyResult<_>>()?;
        settings.qops = given
            .qops
            .iter()
            .map(|name| {
                Qop::parse(name).ok_or_else(|| PyValueError::new_err(format!("qop {name:?} is not auth or auth-int")))
            })
            .collect::<PyResult<_>>()?;
        settings.nonce_life = convert::seconds(given.nonce_life)?;
        settings.second_realm = given.second_realm;
        settings.record_route = given.record_route;
        settings.min_expires = given.min_expires;
        settings.max_expires = given.max_expires;
        settings.service_route = given.service_route;
        settings.gruu = given.gruu;
        settings.outbound = given.outbound;
        for (host, (address, port)) in given.hosts {
            let ip = address.parse().map_err(|_| PyValueError::new_err(format!("{address:?} is no IP address")))?;
            settings.hosts.insert(host.to_ascii_lowercase(), SocketAddr::new(ip, port));
        }
        Ok(settings)
    }
}

/// What it is to do wrong.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Wrong {
    what: String,
    method: Option<String>,
    code: Option<u16>,
    skip: u32,
    times: Option<u32>,
    stale: bool,
    seconds: f64,
    status: u16,
    reason: String,
    headers: Vec<(String, String)>,
}

impl TryFrom<Wrong> for (Misbehaviour, Match) {
    type Error = PyErr;

    fn try_from(wrong: Wrong) -> PyResult<Self> {
        let Wrong { what, method, code, skip, times, stale, seconds, status, reason, headers } = wrong;
        let method = method.map(|name| {
            Method::parse(name.as_bytes()).ok_or_else(|| PyValueError::new_err(format!("{name:?} is no method")))
        });
        let which = Match { method: method.transpose()?, code, skip, times };
        let what = match what.as_str() {
            "challenge" => Misbehaviour::ChallengeForEver { stale },
            "answer" if (300..700).contains(&status) => Misbehaviour::Answer { code: status, reason, headers },
            "answer" => return Err(PyValueError::new_err(format!("status {status} is not from 300 to 699"))),
            "loop" => Misbehaviour::Loop,
            "drop" => Misbehaviour::Drop,
            "delay" => Misbehaviour::Delay(convert::seconds(seconds)?),
            "other_port" => Misbehaviour::OtherPort,
            "second_answer" => Misbehaviour::SecondAnswer,
            _ => {
                let all = "challenge, answer, loop, drop, delay, other_port and second_answer";
                return Err(PyValueError::new_err(format!("misbehaviour {what:?} is unknown, there are {all}")));
            }
        };
        Ok((what, which))
    }
}

/// A registrar and proxy on a thread of its own.
#[pyclass(name = "TestProxy", module = "sipwire._core", frozen)]
pub struct PyTestProxy(TestProxy);

#[pymethods]
impl PyTestProxy {
    /// `transports` are options of an engine, as far as sockets and certificates are concerned.
    #[staticmethod]
    fn start(py: Python<'_>, settings: Given, transports: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = options(transports)?;
        let settings = settings.try_into()?;
        Ok(Self(py.detach(|| TestProxy::start(&options, settings))?))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }

    /// Transport → (address, port), of those that listen.
    fn addresses(&self) -> BTreeMap<&'static str, (String, u16)> {
        let all = self.0.addresses();
        let named = [("udp", all.udp), ("tcp", all.tcp), ("tls", all.tls), ("ws", all.ws), ("wss", all.wss)];
        let there = named.into_iter().filter_map(|(name, address)| Some((name, address?)));
        there.map(|(name, address)| (name, (address.ip().to_string(), address.port()))).collect()
    }

    fn set_user(&self, py: Python<'_>, name: String, password: String, auth_name: Option<String>) -> PyResult<()> {
        let user = User { auth_name, ..User::with_password(&password) };
        Ok(py.detach(|| {
            self.0.with(move |proxy, _| {
                proxy.settings_mut().users.insert(name, user);
            })
        })?)
    }

    fn remove_user(&self, py: Python<'_>, name: String) -> PyResult<bool> {
        Ok(py.detach(|| self.0.with(move |proxy, _| proxy.settings_mut().users.remove(&name).is_some()))?)
    }

    fn registrations(&self, py: Python<'_>) -> PyResult<Vec<Registration>> {
        let (all, now) = py.detach(|| self.0.with(|proxy, now| (proxy.registrations(now), now)))?;
        let row = |one: crate::testing::Registration| {
            let left = one.expires_at.saturating_duration_since(now).as_secs_f64();
            let (transport, remote) = (one.flow.transport.name(), one.flow.remote);
            (one.user, one.contact.to_string(), transport, remote.ip().to_string(), remote.port(), left, one.instance)
        };
        Ok(all.into_iter().map(row).collect())
    }

    fn forget_registrations(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.with(|proxy, _| proxy.forget_registrations()))?)
    }

    fn misbehave(&self, py: Python<'_>, wrong: Wrong) -> PyResult<()> {
        let (what, which) = wrong.try_into()?;
        Ok(py.detach(|| self.0.with(move |proxy, _| proxy.misbehave(what, which)))?)
    }

    fn behave(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.with(|proxy, _| proxy.behave()))?)
    }

    fn messages(&self, py: Python<'_>) -> PyResult<Vec<Message>> {
        let seen = py.detach(|| self.0.messages())?;
        let row = |(at, one): (SystemTime, Seen)| {
            let (transport, remote) = (one.flow.transport.name(), one.flow.remote);
            let bytes = PyBytes::new(py, &one.bytes).unbind();
            (convert::epoch(at), one.received, transport, remote.ip().to_string(), remote.port(), bytes, one.dropped)
        };
        Ok(seen.into_iter().map(row).collect())
    }

    fn clear_messages(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.with(|proxy, _| proxy.forget_seen()))?)
    }
}
