//! `SIPURI`: a URI that cannot change.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::sip::uri::{Host, Uri};

/// A SIP or SIPS URI (RFC 3261 §19.1). Immutable; equality is that of §19.1.4.
#[pyclass(frozen, name = "SIPURI", module = "sipwire.core", from_py_object)]
#[derive(Clone)]
pub struct PyUri(pub Uri);

/// `{name: value}` or pairs, into pairs. A value of `None` is a parameter without one.
fn pairs(argument: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<(String, Option<String>)>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let items = match value.cast::<PyDict>() {
        Ok(dict) => dict.items().into_any(),
        Err(_) => value.clone(),
    };
    items
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("{argument}={value} is not a mapping of str to str or None")))
}

/// Takes the brackets off an IPv6 address.
fn host(text: &str) -> Host {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_or_else(|_| Host::Name(text.to_owned()), Host::Ip)
}

#[pymethods]
impl PyUri {
    /// From text (`SIPURI("sip:bob@example.com")`) or from parts.
    #[new]
    #[pyo3(signature = (uri=None, /, *, user=None, password=None, host=None, port=None, secure=false, parameters=None, headers=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        uri: Option<&Bound<'_, PyAny>>,
        user: Option<String>,
        password: Option<String>,
        host: Option<&str>,
        port: Option<u16>,
        secure: bool,
        parameters: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        match (uri, host) {
            (Some(uri), None) => {
                if user.is_some() || password.is_some() || port.is_some() || parameters.is_some() || headers.is_some() {
                    return Err(PyTypeError::new_err("SIPURI() takes a text or parts, not both"));
                }
                if let Ok(uri) = uri.cast::<Self>() {
                    return Ok(uri.get().clone());
                }
                let text =
                    uri.cast::<PyString>().map_err(|_| PyTypeError::new_err(format!("URI {uri} is not a str")))?;
                Self::parse(text.to_str()?)
            }
            (None, Some(name)) => {
                let mut uri = Uri::sip(user.as_deref(), self::host(name), port);
                if secure {
                    uri.scheme = "sips".to_owned();
                }
                uri.password = password;
                uri.parameters = pairs("parameters", parameters)?;
                uri.headers = pairs("headers", headers)?
                    .into_iter()
                    .map(|(name, value)| (name, value.unwrap_or_default()))
                    .collect();
                // Parts that make no URI (a host with a space) are found by reading it back.
                Self::parse(&uri.to_string())
            }
            (Some(_), Some(_)) => Err(PyTypeError::new_err("SIPURI() takes a text or parts, not both")),
            (None, None) => Err(PyTypeError::new_err("SIPURI() needs a text or host=")),
        }
    }

    /// Reads a URI, with or without a display name and angle brackets.
    #[staticmethod]
    fn parse(text: &str) -> PyResult<Self> {
        let text = text.trim();
        let inner = match (text.find('<'), text.rfind('>')) {
            (Some(open), Some(close)) if open < close => &text[open + 1..close],
            _ => text,
        };
        let uri = Uri::parse(inner.as_bytes()).map_err(|error| PyValueError::new_err(error.to_string()))?;
        if !uri.is_sip() {
            return Err(PyValueError::new_err(format!(
                "scheme {:?} of URI {inner:?} is neither sip nor sips",
                uri.scheme
            )));
        }
        Ok(Self(uri))
    }

    #[getter]
    fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    #[getter]
    fn password(&self) -> Option<&str> {
        self.0.password.as_deref()
    }

    /// A name or an address, IPv6 without brackets.
    #[getter]
    fn host(&self) -> String {
        match &self.0.host {
            Some(Host::Ip(address)) => address.to_string(),
            Some(Host::Name(name)) => name.clone(),
            None => String::new(),
        }
    }

    /// `None` when the URI gives none.
    #[getter]
    fn port(&self) -> Option<u16> {
        self.0.port
    }

    #[getter]
    fn secure(&self) -> bool {
        self.0.is_secure()
    }

    /// A copy; a parameter without a value has `None`.
    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (name, value) in &self.0.parameters {
            all.set_item(name, value)?;
        }
        Ok(all)
    }

    /// A copy.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (name, value) in &self.0.headers {
            all.set_item(name, value)?;
        }
        Ok(all)
    }

    /// The parameter `transport`, lower case; `None` when there is none.
    #[getter]
    fn transport(&self) -> Option<String> {
        self.0.parameter("transport").flatten().map(str::to_ascii_lowercase)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("SIPURI({:?})", self.0.to_string())
    }

    fn __eq__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        match other.cast::<Self>() {
            Ok(other) => (self.0 == other.get().0).into_bound_py_any(py),
            Err(_) => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    /// Of what equal URIs always share: the comparison lets parameters be missing on one side.
    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.scheme.hash(&mut hasher);
        self.0.user.hash(&mut hasher);
        match &self.0.host {
            Some(Host::Name(name)) => name.to_ascii_lowercase().hash(&mut hasher),
            other => other.hash(&mut hasher),
        }
        self.0.port.hash(&mut hasher);
        hasher.finish()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        Ok((slf.get_type().into_any(), PyTuple::new(py, [slf.get().0.to_string()])?))
    }
}
