//! TLS for SIP: whom we trust, what we show, and both again when the files change.

mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use self::verify::{ClientVerifier, Refused, ServerVerifier};
use crate::engine::sockets::words;
use crate::engine::{EngineError, EngineOptions};

/// RFC 8996: nothing older.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// How often the files are looked at, at most.
const FILES_CHECK: Duration = Duration::from_secs(2);
/// How long before its end our certificate is reported.
const EXPIRY_NOTICE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often that is looked at.
const EXPIRY_CHECK: Duration = Duration::from_secs(3600);

/// Whether clients have to show a certificate on `tls_port`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for.
    #[default]
    Off,
    /// Checked where there is one.
    Optional,
    Required,
}

/// What TLS is made from.
#[derive(Clone, Debug)]
struct Files {
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    ca: Option<PathBuf>,
    verify: bool,
    clients: ClientCertificates,
}

/// A file's time and size: when they are the same, so is the file.
type Stamp = Option<(SystemTime, u64)>;

/// The certificates of an engine.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    stamps: Vec<Stamp>,
    checked_at: Option<Instant>,
    loaded: Loaded,
    /// Made with the first connection: reading the system's authorities takes its time.
    client: Option<Arc<ClientConfig>>,
    expiry_checked_at: Option<Instant>,
    reported: bool,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Loaded {
    /// Ours, and its key.
    shown: Option<Arc<CertifiedKey>>,
    /// Authorities of `tls_ca`.
    trusted: Option<Vec<CertificateDer<'static>>>,
    /// For SIP over TLS and for secure WebSockets.
    servers: Option<(Arc<ServerConfig>, Arc<ServerConfig>)>,
    expires: Option<SystemTime>,
}

impl Tls {
    /// # Errors
    /// [`EngineError::Option`] names the file at fault: "tls_certificate /etc/cert.pem: no such file or folder".
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let files = Files {
            certificate: options.tls_certificate.clone(),
            private_key: options.tls_private_key.clone(),
            ca: options.tls_ca.clone(),
            verify: options.tls_verify,
            clients: options.tls_verify_client,
        };
        for (option, port) in [("tls_port", options.tls_port), ("wss_port", options.wss_port)] {
            if let Some(port) = port.filter(|_| files.certificate.is_none()) {
                return Err(wrong(option, format!("{port} needs tls_certificate")));
            }
        }
        if files.private_key.is_some() && files.certificate.is_none() {
            return Err(wrong("tls_private_key", "needs tls_certificate".to_owned()));
        }
        if files.clients != ClientCertificates::Off && files.ca.is_none() {
            return Err(wrong("tls_verify_client", "needs tls_ca, the authorities of the clients".to_owned()));
        }
        if !files.verify {
            tracing::warn!("tls_verify is off: whoever sits between can read and change everything sent over TLS");
        }
        let stamps = files.stamps();
        let loaded = files.load()?;
        let (checked_at, client, expiry_checked_at, reported, last_error) = (None, None, None, false, None);
        Ok(Self { files, stamps, checked_at, loaded, client, expiry_checked_at, reported, last_error })
    }

    /// Reads the files again; what was read before goes on when something is wrong with them. Connections that are open
    /// stay as they are.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn reload(&mut self) -> Result<(), EngineError> {
        let stamps = self.files.stamps();
        self.loaded = self.files.load()?;
        (self.stamps, self.client, self.reported, self.expiry_checked_at) = (stamps, None, false, None);
        self.last_error = None;
        Ok(())
    }

    /// Reloads when a file has changed since; called before each use.
    fn refresh(&mut self, now: Instant) {
        if self.checked_at.is_some_and(|at| now.saturating_duration_since(at) < FILES_CHECK) {
            return;
        }
        self.checked_at = Some(now);
        if self.files.stamps() == self.stamps {
            return;
        }
        match self.reload() {
            Ok(()) => tracing::info!("the TLS files have changed and were read again"),
            Err(error) => {
                // Perhaps half written: looked at again in a moment, told once.
                let error = error.to_string();
                if self.last_error.as_ref() != Some(&error) {
                    tracing::warn!(error, "the TLS files have changed and cannot be used; the old ones go on");
                    self.last_error = Some(error);
                }
            }
        }
    }

    /// How we connect.
    ///
    /// # Errors
    /// When there is nobody to trust.
    pub fn client(&mut self, now: Instant) -> Result<Arc<ClientConfig>, String> {
        self.refresh(now);
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.loaded.client(self.files.verify)?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// How we take connections; `None` without a certificate.
    pub fn server(&mut self, websocket: bool, now: Instant) -> Option<Arc<ServerConfig>> {
        self.refresh(now);
        let (tls, wss) = self.loaded.servers.as_ref()?;
        Some(if websocket { wss.clone() } else { tls.clone() })
    }

    /// Our certificate and its end when that is near (7 days) or past; once for each certificate.
    pub fn expiring(&mut self, now: Instant) -> Option<(PathBuf, SystemTime)> {
        let recently = self.expiry_checked_at.is_some_and(|at| now.saturating_duration_since(at) < EXPIRY_CHECK);
        if self.reported || recently {
            return None;
        }
        self.expiry_checked_at = Some(now);
        let expires = self.loaded.expires.filter(|at| *at < SystemTime::now() + EXPIRY_NOTICE)?;
        self.reported = true;
        Some((self.files.certificate.clone()?, expires))
    }
}

impl Files {
    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &Option<PathBuf>| {
            let metadata = std::fs::metadata(path.as_ref()?).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [&self.certificate, &self.private_key, &self.ca].map(stamp).into()
    }

    fn load(&self) -> Result<Loaded, EngineError> {
        let trusted = self.ca.as_ref().map(|path| certificates("tls_ca", path)).transpose()?;
        let shown = match &self.certificate {
            Some(path) => Some(Arc::new(self.certified(path)?)),
            None => None,
        };
        let expires = shown.as_ref().and_then(|shown| expiry(shown.cert.first()?));
        let servers = match &shown {
            Some(shown) => {
                let clients = self.client_verifier(trusted.as_deref().unwrap_or_default())?;
                Some((server(shown.clone(), clients)?, server(shown.clone(), Arc::new(NoClientAuth))?))
            }
            None => None,
        };
        Ok(Loaded { shown, trusted, servers, expires })
    }

    /// Our certificate with its key, which may be in the same file.
    fn certified(&self, path: &Path) -> Result<CertifiedKey, EngineError> {
        let chain = certificates("tls_certificate", path)?;
        let (option, key_path) = match &self.private_key {
            Some(path) => ("tls_private_key", path.as_path()),
            None => ("tls_certificate", path),
        };
        let at_fault = |what: String| wrong(option, format!("{}: {what}", key_path.display()));
        let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| match error {
            PemError::NoItemsFound if self.private_key.is_none() => {
                at_fault("holds no private key, and tls_private_key is not given".to_owned())
            }
            error => at_fault(pem_words(&error, "private key")),
        })?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(_) => at_fault(format!("the key is not that of {}", path.display())),
            error => at_fault(format!("cannot be used: {error}")),
        })
    }

    fn client_verifier(&self, trusted: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, EngineError> {
        if self.clients == ClientCertificates::Off {
            return Ok(Arc::new(NoClientAuth));
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(trusted)), provider());
        let builder = match self.clients {
            ClientCertificates::Optional => builder.allow_unauthenticated(),
            _ => builder,
        };
        let verifier = builder.build().map_err(|error| wrong("tls_ca", format!("cannot be used: {error}")))?;
        Ok(Arc::new(ClientVerifier(verifier)))
    }
}

impl Loaded {
    fn client(&self, verify: bool) -> Result<Arc<ClientConfig>, String> {
        let pinned = self.trusted.clone().unwrap_or_default();
        let roots = match &self.trusted {
            Some(trusted) => Arc::new(roots(trusted)),
            None if verify => system_roots()?,
            None => Arc::new(RootCertStore::empty()),
        };
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(ServerVerifier { roots, pinned, algorithms, enabled: verify });
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS);
        let builder = builder.expect("the provider has both versions").dangerous();
        let builder = builder.with_custom_certificate_verifier(verifier);
        let mut config = match &self.shown {
            Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled(); // each connection is checked anew
        Ok(Arc::new(config))
    }
}

fn server(shown: Arc<CertifiedKey>, clients: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, EngineError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
    let builder = builder.map_err(|error| wrong("tls_certificate", error.to_string()))?;
    let mut config =
        builder.with_client_cert_verifier(clients).with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn roots(trusted: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    roots
}

/// The authorities this machine trusts, read once for the process. `SSL_CERT_FILE` and `SSL_CERT_DIR` have their say.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| Arc::new(roots(&rustls_native_certs::load_native_certs().certs)));
    if roots.is_empty() {
        return Err("this machine has no list of authorities to trust: tls_ca has to name one".to_owned());
    }
    Ok(roots.clone())
}

fn wrong(option: &'static str, what: String) -> EngineError {
    EngineError::Option { option, what }
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    let at_fault = |error: &PemError| wrong(option, format!("{}: {}", path.display(), pem_words(error, "certificate")));
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(|error| at_fault(&error))?;
    if found.is_empty() {
        return Err(at_fault(&PemError::NoItemsFound));
    }
    for certificate in &found {
        if verify::not_after(certificate).is_none() {
            return Err(wrong(option, format!("{}: holds a certificate that cannot be read", path.display())));
        }
    }
    Ok(found)
}

fn pem_words(error: &PemError, what: &str) -> String {
    match error {
        PemError::NoItemsFound => format!("holds no {what} in PEM"),
        PemError::Io(error) => words(error),
        _ => format!("is no PEM file: {error}"),
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let seconds = u64::try_from(verify::not_after(certificate)?).unwrap_or_default();
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The SIP domains that a client has proved to be.
pub(super) fn domains(chain: Option<&[CertificateDer<'_>]>) -> Vec<String> {
    chain.and_then(<[_]>::first).map(verify::domains).unwrap_or_default()
}

/// Why a handshake failed, or a connection that may be one over TLS ended.
pub(super) fn error_words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(other))) if other.0.is::<Refused>() => {
            other.0.to_string()
        }
        Some(Error::InvalidCertificate(CertificateError::BadSignature)) => {
            "the peer has not the key of the certificate it shows".to_owned()
        }
        Some(Error::NoCertificatesPresented) => "the peer shows no certificate".to_owned(),
        Some(Error::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateRequired => {
                "the peer wants a certificate of ours (tls_certificate)".to_owned()
            }
            AlertDescription::ProtocolVersion => "the peer speaks no version of TLS that we do".to_owned(),
            AlertDescription::UnknownCA => {
                "the peer does not trust our certificate: its authority is unknown there".to_owned()
            }
            AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate => {
                format!("the peer does not accept our certificate: {alert:?}")
            }
            alert => format!("the peer refused the TLS handshake: {alert:?}"),
        },
        Some(Error::InvalidMessage(_)) => "what the peer sends is not TLS".to_owned(),
        Some(Error::PeerIncompatible(why)) => format!("there is no common way to speak TLS: {why:?}"),
        Some(error) => format!("TLS failed: {error}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the peer closed the connection".to_owned(),
        None => words(error),
    }
}
