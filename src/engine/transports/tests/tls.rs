//! TLS: certificates that are refused, each with its reason, and those that are taken (RFC 5922, reliability row 50).

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::*;
use crate::engine::ClientCertificates;

const DOMAIN: &str = "example.com";

/// A server that shows any certificates at all with any key; its address.
async fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> SocketAddr {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = ring::default_provider().key_provider.load_private_key(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    address
}

/// What a client that trusts `authority` and wants [`DOMAIN`] says about a server's certificates.
async fn refusal(authority: &Authority, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> String {
    let folder = Folder::new();
    let ca = folder.write("ca.pem", &authority.pem);
    let mut client = Side::new(|options| options.tls_ca = Some(ca));
    let address = server(chain, key).await;
    client.request(flow_to(Transport::Tls, address, 1), Some(&peer(DOMAIN)), 1).expect("it is tried");
    let (_, error) = client.failure().await;
    error.strip_prefix(&format!("TLS to {address}: ")).expect("where it was to go").to_owned()
}

fn stored(name: &str) -> CertificateDer<'static> {
    let path = format!("{}/tests/data/tls/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    CertificateDer::from_pem_file(path).expect("a certificate")
}

#[test]
fn bad_certificates_are_refused_each_with_its_reason() {
    run(async {
        let ours = Authority::new("Ours");
        let foreign = Authority::new("Foreign");
        let good = params(&[dns(DOMAIN)]);
        let changed = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = good.clone();
            change(&mut params);
            ours.sign(&params)
        };
        let mut cases: Vec<(&str, Vec<CertificateDer<'static>>, KeyPair, &str)> = Vec::new();
        let mut one = |what, pair: Pair, reason| {
            cases.push((what, vec![pair.certificate.der().clone()], pair.key, reason));
        };
        one(
            "expired",
            changed(&|params| params.not_after = date_time_ymd(2026, 1, 1)),
            "the certificate of example.com expired on 2026-01-01",
        );
        one(
            "not yet valid",
            changed(&|params| params.not_before = date_time_ymd(2999, 12, 31)),
            "the certificate of example.com is not valid before 2999-12-31",
        );
        one(
            "wrong name",
            ours.certify("other.example"),
            "the certificate of example.com is for other.example, not example.com",
        );
        one(
            "unknown authority",
            foreign.certify(DOMAIN),
            "the certificate of example.com is signed by an authority that is not trusted",
        );
        let key = KeyPair::generate().expect("a key");
        let certificate = good.self_signed(&key).expect("a certificate");
        one(
            "self-signed",
            Pair { certificate, key },
            "the certificate of example.com is self-signed and not among those we trust",
        );
        one(
            "NUL in the name",
            ours.sign(&params(&[dns("example.com\0.evil.example")])),
            "the certificate of example.com holds a name with a NUL or other bytes that are no text",
        );
        one(
            "only for clients",
            changed(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "the certificate of example.com is not one for a server (extended key usage)",
        );
        one("wildcard", ours.certify("*.com"), "the certificate of example.com is for *.com, not example.com");
        one(
            "no names but CN",
            changed(&|params| {
                params.subject_alt_names.clear();
                params.distinguished_name.push(DnType::CommonName, DOMAIN);
            }),
            "the certificate of example.com is for no SIP domain at all, not example.com",
        );
        one(
            "a SIP URI of another domain beside the DNS name",
            ours.sign(&params(&[dns(DOMAIN), uri("sip:other.example")])),
            "the certificate of example.com is for other.example, not example.com",
        );
        one(
            "a person's URI",
            ours.sign(&params(&[uri("sip:alice@example.com")])),
            "the certificate of example.com is for no SIP domain at all, not example.com",
        );
        // Signed by a certificate that is signed by our authority and no authority itself.
        let mut between = params(&[dns("between.example")]);
        between.distinguished_name.push(DnType::CommonName, "Between");
        let between_key = KeyPair::generate().expect("a key");
        let between_certificate = between.signed_by(&between_key, &ours.issuer).expect("a certificate");
        let issuer = Issuer::new(between, between_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = good.signed_by(&key, &issuer).expect("a certificate");
        cases.push((
            "signed by no authority",
            vec![leaf.der().clone(), between_certificate.der().clone()],
            key,
            "the certificate of example.com is signed by CN=Between, which is no authority",
        ));
        // An authority in between that has expired.
        let mut between = CertificateParams::default();
        between.distinguished_name.push(DnType::CommonName, "Old");
        between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        between.not_after = date_time_ymd(2020, 1, 1);
        let between_key = KeyPair::generate().expect("a key");
        let between_certificate = between.signed_by(&between_key, &ours.issuer).expect("a certificate");
        let issuer = Issuer::new(between, between_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = good.signed_by(&key, &issuer).expect("a certificate");
        cases.push((
            "an expired authority",
            vec![leaf.der().clone(), between_certificate.der().clone()],
            key,
            "the certificate of example.com comes with one of an authority that expired",
        ));
        for (what, name, reason) in [
            (
                "a weak key",
                "weak-rsa-1024",
                "the certificate of example.com has a weak key: RSA with 1024 bits, at least 2048 are needed",
            ),
            ("SHA-1", "signed-with-sha1", "the certificate of example.com is signed with SHA-1, which can be forged"),
            ("MD5", "signed-with-md5", "the certificate of example.com is signed with MD5, which can be forged"),
        ] {
            cases.push((what, vec![stored(name)], KeyPair::generate().expect("a key"), reason));
        }
        let Pair { certificate, key } = ours.certify(DOMAIN);
        let whole = certificate.der().to_vec();
        cases.push((
            "cut short",
            vec![CertificateDer::from(whole[..whole.len() - 10].to_vec())],
            key,
            "the certificate of example.com cannot be read",
        ));
        cases.push((
            "garbage",
            vec![CertificateDer::from(b"\x30\x03no!".to_vec())],
            KeyPair::generate().expect("a key"),
            "the certificate of example.com cannot be read",
        ));
        cases.push((
            "another's certificate",
            vec![certificate.der().clone()],
            KeyPair::generate().expect("a key"),
            "the peer has not the key of the certificate it shows",
        ));
        assert!(cases.len() >= 12);
        for (what, chain, key, reason) in cases {
            assert_eq!(refusal(&ours, chain, &key).await, reason, "{what}");
        }
    });
}

/// A server and a client that trusts its authority.
fn sides(folder: &Folder, authority: &Authority, pair: &Pair) -> (Side, Side) {
    let (ca, own) = (folder.write("ca.pem", &authority.pem), folder.write("own.pem", &pair.pem()));
    let server = Side::new(|options| {
        options.tls_port = Some(0);
        options.tls_certificate = Some(own);
    });
    let client = Side::new(|options| options.tls_ca = Some(ca));
    (client, server)
}

#[test]
fn good_certificates_are_taken_by_dns_name_sip_uri_and_address() {
    run(async {
        let authority = Authority::new("Ours");
        for (names, wanted) in [
            (vec![dns("Example.com")], Some(DOMAIN)),
            (vec![uri("sip:example.com")], Some(DOMAIN)),
            (vec![uri("https://example.com/"), dns(DOMAIN)], Some(DOMAIN)),
            (vec![SanType::IpAddress(LOOPBACK)], None),
        ] {
            let folder = Folder::new();
            let (mut client, mut server) = sides(&folder, &authority, &authority.sign(&params(&names)));
            let at = server.at(Transport::Tls);
            let wanted = wanted.map(peer);
            let flow = wanted.as_ref().map_or(Flow::to(Transport::Tls, at), |_| flow_to(Transport::Tls, at, 1));
            let came = carry(&mut client, &mut server, flow, wanted.as_ref(), 7).await.expect("it is taken");
            assert_eq!(came.transport, Transport::Tls);
            // The answer goes back over the same connection, although nobody could connect to that port.
            carry(&mut server, &mut client, came, None, 8).await.expect("it goes back");
            assert_eq!(server.counters.stats().tls.accepted, 1);
        }
    });
}

#[test]
fn a_self_signed_certificate_that_is_named_is_trusted() {
    run(async {
        let mut params = params(&[dns(DOMAIN)]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained); // as `openssl req -x509` makes them
        let key = KeyPair::generate().expect("a key");
        let pair = Pair { certificate: params.self_signed(&key).expect("a certificate"), key };
        let folder = Folder::new();
        let authority = Authority { pem: pair.certificate.pem(), issuer: Authority::new("unused").issuer };
        let (mut client, mut server) = sides(&folder, &authority, &pair);
        let flow = flow_to(Transport::Tls, server.at(Transport::Tls), 1);
        carry(&mut client, &mut server, flow, Some(&peer(DOMAIN)), 1).await.expect("it is taken");
    });
}

#[test]
fn a_connection_verified_for_one_domain_never_serves_another() {
    run(async {
        let authority = Authority::new("Ours");
        let folder = Folder::new();
        let pair = authority.sign(&params(&[dns("one.example"), dns("two.example")]));
        let (mut client, mut server) = sides(&folder, &authority, &pair);
        let at = server.at(Transport::Tls);
        let (one, two, evil) = (peer("one.example"), peer("two.example"), peer("evil.example"));
        let first = carry(&mut client, &mut server, flow_to(Transport::Tls, at, 1), Some(&one), 1).await;
        let again = carry(&mut client, &mut server, flow_to(Transport::Tls, at, 1), Some(&one), 2).await;
        let other = carry(&mut client, &mut server, flow_to(Transport::Tls, at, 2), Some(&two), 3).await;
        let (first, again, other) = (first.expect("one"), again.expect("one"), other.expect("two"));
        assert_eq!(first.connection, again.connection);
        assert_ne!(first.connection, other.connection);
        let refused = carry(&mut client, &mut server, flow_to(Transport::Tls, at, 3), Some(&evil), 4).await;
        let refused = refused.expect_err("nobody vouches for it");
        assert!(refused.ends_with("is for one.example, two.example, not evil.example"), "{refused}");
        // And now it is left alone for a moment, while the others go on.
        let error = client.request(flow_to(Transport::Tls, at, 3), Some(&evil), 5).expect_err("too soon");
        assert!(error.contains("not evil.example") && error.contains("tried again in"), "{error}");
        carry(&mut client, &mut server, flow_to(Transport::Tls, at, 1), Some(&one), 6).await.expect("one goes on");
        // Without a name the address has to be proved.
        let error =
            carry(&mut client, &mut server, Flow::to(Transport::Tls, at), None, 7).await.expect_err("no address");
        assert!(error.ends_with("is for one.example, two.example, not 127.0.0.1"), "{error}");
    });
}

#[test]
fn verification_can_be_switched_off() {
    run(async {
        let folder = Folder::new();
        let authority = Authority::new("Unknown");
        let own = folder.write("own.pem", &authority.certify("whoever.example").pem());
        let mut server = Side::new(|options| {
            options.tls_port = Some(0);
            options.tls_certificate = Some(own);
        });
        let mut client = Side::new(|options| options.tls_verify = false);
        let flow = flow_to(Transport::Tls, server.at(Transport::Tls), 1);
        carry(&mut client, &mut server, flow, Some(&peer(DOMAIN)), 1).await.expect("anything will do");
    });
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    run(async {
        let (ours, foreign) = (Authority::new("Ours"), Authority::new("Foreign"));
        let folder = Folder::new();
        let ca = folder.write("ca.pem", &ours.pem);
        let own = folder.write("own.pem", &ours.certify(DOMAIN).pem());
        let client_pem = folder.write("client.pem", &ours.certify("client.example").pem());
        let foreign_pem = folder.write("foreign.pem", &foreign.certify("client.example").pem());
        for (rule, shown, expected) in [
            (ClientCertificates::Required, Some(&client_pem), Ok(())),
            (ClientCertificates::Required, None, Err("the peer wants a certificate of ours (tls_certificate)")),
            (ClientCertificates::Required, Some(&foreign_pem), Err("the peer does not")),
            (ClientCertificates::Optional, Some(&client_pem), Ok(())),
            (ClientCertificates::Optional, None, Ok(())),
            (ClientCertificates::Optional, Some(&foreign_pem), Err("the peer does not")),
        ] {
            let mut server = Side::new(|options| {
                options.tls_port = Some(0);
                options.tls_certificate = Some(own.clone());
                options.tls_ca = Some(ca.clone());
                options.tls_verify_client = rule;
            });
            let mut client = Side::new(|options| {
                options.tls_ca = Some(ca.clone());
                options.tls_certificate = shown.cloned();
            });
            let flow = flow_to(Transport::Tls, server.at(Transport::Tls), 1);
            let got = carry(&mut client, &mut server, flow, Some(&peer(DOMAIN)), 1).await;
            match (got, expected) {
                (Ok(_), Ok(())) => {}
                // A client of TLS 1.3 is through before the server has looked: its request may meet the closed connection
                // before the alert is read.
                (Err(error), Err(reason)) => {
                    let why = [reason, "reset", "Broken pipe"];
                    assert!(why.iter().any(|why| error.contains(why)), "{rule:?} {shown:?}: {error}");
                }
                (got, expected) => panic!("{rule:?} {shown:?}: {got:?}, expected {expected:?}"),
            }
        }
    });
}

#[test]
fn certificates_are_read_again_when_told_and_when_the_file_changes() {
    run(async {
        let authority = Authority::new("Ours");
        let folder = Folder::new();
        let (mut client, mut server) = sides(&folder, &authority, &authority.certify("old.example"));
        let at = server.at(Transport::Tls);
        let (old, new) = (peer("old.example"), peer("new.example"));
        let open = carry(&mut client, &mut server, flow_to(Transport::Tls, at, 1), Some(&old), 1).await.expect("old");
        folder.write("own.pem", &authority.certify("new.example").pem());
        server.transports.reload_certificates().expect("a good file");
        carry(&mut client, &mut server, flow_to(Transport::Tls, at, 2), Some(&new), 2).await.expect("new");
        let still = carry(&mut client, &mut server, flow_to(Transport::Tls, at, 1), Some(&old), 3).await.expect("open");
        assert_eq!(still.connection, open.connection);
        // A broken file is refused by name, and what there was goes on.
        let path = folder.write("own.pem", "nothing");
        let error = server.transports.reload_certificates().expect_err("a bad file").to_string();
        assert_eq!(error, format!("tls_certificate {}: holds no certificate in PEM", path.display()));
        // A file that changes is noticed with a later connection, without being told.
        folder.write("own.pem", &authority.certify("third.example").pem());
        let later = Instant::now() + Duration::from_secs(3);
        let third = peer("third.example");
        let flow = flow_to(Transport::Tls, at, 3);
        server.transports.streams.tls.server(false, later).expect("it has a certificate");
        carry(&mut client, &mut server, flow, Some(&third), 4).await.expect("third");
    });
}

#[test]
fn our_own_end_is_told_once_a_week_ahead() {
    run(async {
        let authority = Authority::new("Ours");
        let folder = Folder::new();
        let soon = std::time::SystemTime::now() + Duration::from_secs(3 * 24 * 3600);
        let mut params = params(&[dns(DOMAIN)]);
        params.not_after = soon.into();
        let (_, mut server) = sides(&folder, &authority, &authority.sign(&params));
        let now = Instant::now();
        server.transports.tidy(now);
        let told = server.transports.poll(now);
        let Some(Arrival::CertificateWillExpire { certificate, expires }) = told else { panic!("{told:?}") };
        assert!(certificate.ends_with("own.pem"));
        assert!(soon.duration_since(expires).is_ok_and(|before| before < Duration::from_secs(1)), "{expires:?}");
        server.transports.tidy(now + Duration::from_secs(7200));
        assert!(server.transports.poll(now).is_none());
        folder.write("own.pem", &authority.certify(DOMAIN).pem());
        server.transports.reload_certificates().expect("a good file");
        server.transports.tidy(now);
        assert!(server.transports.poll(now).is_none(), "the new one lasts");
    });
}

#[test]
fn options_that_cannot_be_used_are_named() {
    run(async {
        let authority = Authority::new("Ours");
        let folder = Folder::new();
        let pair = authority.certify(DOMAIN);
        let own = folder.write("own.pem", &pair.pem());
        let bare = folder.write("bare.pem", &pair.certificate.pem());
        let other = folder.write("other.pem", &authority.certify(DOMAIN).key.serialize_pem());
        let text = folder.write("text.pem", "hello");
        let missing = folder.0.join("missing.pem");
        type Change<'a> = Box<dyn FnOnce(&mut EngineOptions) + 'a>;
        let table: Vec<(Change<'_>, String)> = vec![
            (Box::new(|options| options.tls_port = Some(5061)), "tls_port 5061 needs tls_certificate".to_owned()),
            (Box::new(|options| options.wss_port = Some(0)), "wss_port 0 needs tls_certificate".to_owned()),
            (
                Box::new(|options| options.tls_certificate = Some(missing.clone())),
                format!("tls_certificate {}: no such file or folder", missing.display()),
            ),
            (
                Box::new(|options| options.tls_certificate = Some(bare.clone())),
                format!("tls_certificate {}: holds no private key, and tls_private_key is not given", bare.display()),
            ),
            (
                Box::new(|options| {
                    options.tls_certificate = Some(bare.clone());
                    options.tls_private_key = Some(other.clone());
                }),
                format!("tls_private_key {}: the key is not that of {}", other.display(), bare.display()),
            ),
            (
                Box::new(|options| options.tls_private_key = Some(own.clone())),
                "tls_private_key needs tls_certificate".to_owned(),
            ),
            (
                Box::new(|options| options.tls_ca = Some(text.clone())),
                format!("tls_ca {}: holds no certificate in PEM", text.display()),
            ),
            (
                Box::new(|options| options.tls_verify_client = ClientCertificates::Required),
                "tls_verify_client needs tls_ca, the authorities of the clients".to_owned(),
            ),
        ];
        for (change, expected) in table {
            let error = Side::try_new(change).err().expect("it cannot be used").to_string();
            assert_eq!(error, expected);
        }
    });
}
