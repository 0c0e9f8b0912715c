//! Whether a certificate proves what its peer claims (RFC 5280, RFC 5922), and in words why not.
//!
//! Stricter than the web: a name matches whole, never by a wildcard (RFC 5922 §7.2); a `sip:` URI among the names leaves
//! no say to the DNS names beside it (§7.1); and the subject's CN is never a name, though §7.1 would let us look at it
//! where there is no subjectAltName: authorities check the names of the extension, not that one.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::sip::uri::{Host, Uri};

/// The least an RSA key has to have: what authorities have signed since 2014.
const RSA_BITS: usize = 2048;
/// Names of a certificate that a refusal lists.
const NAMES_SHOWN: usize = 3;
/// Signature algorithms that can be forged, by object identifier.
const WEAK_SIGNATURES: [(&str, &str); 6] = [
    ("1.2.840.113549.1.1.2", "MD2"),
    ("1.2.840.113549.1.1.3", "MD4"),
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.10040.4.3", "SHA-1"),
];

/// Why a certificate is refused: a whole sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

fn refused(text: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(text)))))
}

/// Checks servers by SIP domain.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub roots: Arc<RootCertStore>,
    /// Certificates that are trusted as they are, whoever signed them: those the application named.
    pub pinned: Vec<CertificateDer<'static>>,
    pub algorithms: WebPkiSupportedAlgorithms,
    /// False: any certificate will do (`tls_verify=False`).
    pub enabled: bool,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.enabled {
            let name = wanted_name(server_name);
            self.check(end_entity, intermediates, &name, now)
                .map_err(|why| refused(format!("the certificate of {name} {why}")))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerVerifier {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &str,
        now: UnixTime,
    ) -> Result<(), String> {
        let certificate = inspect(end_entity, now)?;
        if !self.pinned.contains(end_entity) {
            inspect_chain(&certificate, intermediates)?;
            let parsed = ParsedCertificate::try_from(end_entity).map_err(|error| chain_words(&error, "a server"))?;
            let (roots, algorithms) = (&self.roots, self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
                .map_err(|error| chain_words(&error, "a server"))?;
        }
        let identities = Identities::of(&certificate);
        if identities.include(name) { Ok(()) } else { Err(format!("is for {identities}, not {name}")) }
    }
}

fn wanted_name(name: &ServerName<'_>) -> String {
    match name {
        ServerName::DnsName(name) => name.as_ref().to_owned(),
        ServerName::IpAddress(address) => IpAddr::from(*address).to_string(),
        other => format!("{other:?}"),
    }
}

/// Checks clients that show a certificate.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let certificate = inspect(end_entity, now);
        certificate
            .and_then(|certificate| {
                inspect_chain(&certificate, intermediates)?;
                let verified = self.0.verify_client_cert(end_entity, intermediates, now);
                verified.map_err(|error| chain_words(&error, "a client"))
            })
            .map_err(|why| refused(format!("the certificate of the client {why}")))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The SIP domains a verified certificate stands for.
pub(super) fn domains(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Identities { uris, dns, .. } = Identities::of(&certificate);
    if uris.is_empty() { dns } else { uris }
}

/// When a certificate ends, in seconds since 1970.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// What can be told from a certificate alone.
fn inspect<'a>(der: &'a CertificateDer<'_>, now: UnixTime) -> Result<X509Certificate<'a>, String> {
    let certificate = match X509Certificate::from_der(der) {
        Ok(([], certificate)) => certificate,
        _ => return Err("cannot be read".to_owned()),
    };
    if has_broken_name(&certificate) {
        return Err("holds a name with a NUL or other bytes that are no text".to_owned());
    }
    inspect_strength(&certificate)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if validity.not_after.timestamp() < now {
        return Err(format!("expired on {}", day(&validity.not_after)));
    }
    if validity.not_before.timestamp() > now {
        return Err(format!("is not valid before {}", day(&validity.not_before)));
    }
    Ok(certificate)
}

fn day(time: &ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

/// A name that C programs would read only half of.
fn has_broken_name(certificate: &X509Certificate<'_>) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => {
            text.chars().any(char::is_control)
        }
        GeneralName::Invalid(..) => true,
        _ => false,
    })
}

/// Keys that can be computed and signatures that can be forged.
fn inspect_strength(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    if let Some((_, name)) = WEAK_SIGNATURES.iter().find(|(id, _)| *id == signature) {
        return Err(format!("is signed with {name}, which can be forged"));
    }
    if let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed() {
        let bits = key.modulus.iter().skip_while(|byte| **byte == 0).count() * 8;
        if bits < RSA_BITS {
            return Err(format!("has a weak key: RSA with {bits} bits, at least {RSA_BITS} are needed"));
        }
    }
    Ok(())
}

/// Faults of the certificates in between, which a search for a chain would only call unknown issuers.
fn inspect_chain(certificate: &X509Certificate<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), String> {
    for der in intermediates {
        let Ok((_, between)) = X509Certificate::from_der(der) else {
            return Err("comes with one of an authority that cannot be read".to_owned());
        };
        if between.issuer() == between.subject() {
            continue; // a root: only our own copy of it counts
        }
        if between.subject() == certificate.issuer() && !between.is_ca() {
            return Err(format!("is signed by {}, which is no authority", between.subject()));
        }
        inspect_strength(&between).map_err(|why| format!("comes with one of an authority that {why}"))?;
    }
    if certificate.issuer() == certificate.subject() {
        return Err("is self-signed and not among those we trust".to_owned());
    }
    Ok(())
}

/// What is wrong between a certificate and the authorities we trust.
fn chain_words(error: &Error, role: &str) -> String {
    let Error::InvalidCertificate(error) = error else { return format!("cannot be checked: {error}") };
    match error {
        CertificateError::UnknownIssuer => "is signed by an authority that is not trusted".to_owned(),
        CertificateError::BadEncoding => "cannot be read".to_owned(),
        CertificateError::BadSignature => "has a signature that does not fit".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("is not one for {role} (extended key usage)")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "comes with one of an authority that expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "comes with one of an authority that is not valid yet".to_owned()
        }
        CertificateError::UnhandledCriticalExtension => "has a critical extension that is unknown".to_owned(),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "has a key or a signature of a kind that is not supported".to_owned()
        }
        other => format!("is not acceptable: {other}"),
    }
}

/// Who a certificate is for.
#[derive(Debug, Default)]
struct Identities {
    /// Hosts of `sip:` URIs without a user.
    uris: Vec<String>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
}

impl Identities {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut identities = Self::default();
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return identities };
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => identities.dns.push((*name).to_owned()),
                GeneralName::URI(uri) => identities.uris.extend(sip_domain(uri)),
                GeneralName::IPAddress(bytes) => {
                    let ipv4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    identities.ips.extend(ipv4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
                }
                _ => {}
            }
        }
        identities
    }

    /// RFC 5922 §7.1 and §7.2; addresses by their own kind of name.
    fn include(&self, wanted: &str) -> bool {
        let same = |name: &String| bare(name).eq_ignore_ascii_case(bare(wanted));
        if wanted.parse::<IpAddr>().is_ok_and(|wanted| self.ips.contains(&wanted)) {
            return true;
        }
        if self.uris.is_empty() { self.dns.iter().any(same) } else { self.uris.iter().any(same) }
    }
}

impl std::fmt::Display for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = if self.uris.is_empty() { &self.dns } else { &self.uris };
        let all: Vec<String> = names.iter().cloned().chain(self.ips.iter().map(IpAddr::to_string)).collect();
        if all.is_empty() {
            return f.write_str("no SIP domain at all");
        }
        for (at, name) in all.iter().take(NAMES_SHOWN).enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            // A peer chose these letters.
            name.chars()
                .take(80)
                .try_for_each(|letter| f.write_char(if letter.is_control() { '?' } else { letter }))?;
        }
        if all.len() > NAMES_SHOWN { write!(f, " and {} more", all.len() - NAMES_SHOWN) } else { Ok(()) }
    }
}

/// A name without the dot that ends it.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// The host of a `sip:` URI; one with a user names a person, and `sips:` is no identity (RFC 5922 §7.1).
fn sip_domain(uri: &str) -> Option<String> {
    let uri = Uri::parse(uri.as_bytes()).ok()?;
    if !uri.scheme.eq_ignore_ascii_case("sip") || uri.user.is_some() {
        return None;
    }
    match uri.host? {
        Host::Ip(ip) => Some(ip.to_string()),
        Host::Name(name) => Some(name.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_whole_and_uris_before_dns() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let both = Identities { uris: names(&["sip.example"]), dns: names(&["dns.example"]), ips: vec![] };
        let dns = Identities { uris: vec![], dns: names(&["Example.com", "*.wild.example"]), ips: vec![] };
        let ip = Identities { ips: vec!["192.0.2.1".parse().expect("an address")], ..Identities::default() };
        for (identities, wanted, expected) in [
            (&both, "sip.example", true),
            (&both, "SIP.example.", true),
            (&both, "dns.example", false),
            (&dns, "example.COM", true),
            (&dns, "a.wild.example", false),
            (&dns, "sub.example.com", false),
            (&dns, "ample.com", false),
            (&ip, "192.0.2.1", true),
            (&ip, "192.0.2.2", false),
        ] {
            assert_eq!(identities.include(wanted), expected, "{identities} for {wanted}");
        }
    }

    #[test]
    fn only_sip_uris_without_a_user_are_domains() {
        for (uri, expected) in [
            ("sip:example.com", Some("example.com")),
            ("SIP:example.com", Some("example.com")),
            ("sip:192.0.2.1", Some("192.0.2.1")),
            ("sip:alice@example.com", None),
            ("sips:example.com", None),
            ("https://example.com", None),
        ] {
            assert_eq!(sip_domain(uri).as_deref(), expected, "{uri}");
        }
    }
}
