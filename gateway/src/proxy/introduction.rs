//! How a server is told who its client is: what is known of a connection, as a PROXY header.

use crate::policy::{ConnectionFacts, TlsFacts};
use crate::proxy_protocol::{
    Addresses, Header, Proxied, RawTlv, SSL_CERTIFICATE_CONNECTION, SSL_CERTIFICATE_SESSION, SSL_CLIENT, Ssl, Tlv, ssl,
};

/// The header for a client's connection. What a balancer in front said of the client goes on to the server, but for what is
/// better known here: where TLS ended here, what its handshake settled.
pub fn introduction(facts: &ConnectionFacts) -> Header {
    let said: Option<&Proxied> = match facts.header() {
        Some(Header::Proxied(proxied)) => Some(proxied),
        Some(Header::Local | Header::Unknown) | None => None,
    };
    let addresses = match said.map(|said| &said.addresses) {
        Some(unix @ Addresses::Unix { .. }) => unix.clone(),
        _ => match facts.client().zip(facts.local()) {
            Some((client, local)) => Addresses::tcp(client, local),
            None => Addresses::UNNAMED,
        },
    };
    let mut tlvs = facts.tls.as_deref().map_or_else(Vec::new, of_tls);
    let passed_on = said.into_iter().flat_map(|said| &said.tlvs).filter(|tlv| {
        let is_of_tls = matches!(tlv, Tlv::Alpn(_) | Tlv::Authority(_) | Tlv::Ssl(_));
        facts.tls.is_none() || !is_of_tls
    });
    tlvs.extend(passed_on.cloned());
    Header::proxied(addresses, tlvs)
}

fn of_tls(tls: &TlsFacts) -> Vec<Tlv> {
    let has_certificate = tls.client_certificate.is_some();
    let name = tls.client_certificate.as_ref().and_then(|shown| shown.common_name());
    let name = name.filter(|name| name.len() <= LONGEST_NAME).map(|name| RawTlv {
        kind: ssl::COMMON_NAME,
        value: name.as_bytes().into(),
    });
    let version = RawTlv {
        kind: ssl::VERSION,
        value: tls.version.as_bytes().into(),
    };
    let ssl = Ssl {
        client: match has_certificate {
            true => SSL_CLIENT | SSL_CERTIFICATE_CONNECTION | SSL_CERTIFICATE_SESSION,
            false => SSL_CLIENT,
        },
        // A certificate that did not pass ended the handshake.
        verify: u32::from(!has_certificate),
        details: std::iter::once(version).chain(name).collect(),
    };
    let alpn = tls.alpn.as_deref().map(|alpn| Tlv::Alpn(alpn.into()));
    let authority = tls.sni.as_deref().map(|sni| Tlv::Authority(sni.into()));
    alpn.into_iter().chain(authority).chain([Tlv::Ssl(ssl)]).collect()
}

/// Names have 64 characters at most (RFC 5280, appendix A.1); who issues longer ones has them left out, not the header refused.
const LONGEST_NAME: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::policy::{ClientCertificate, Ends, Introduced, Preamble};

    fn facts(tls: Option<TlsFacts>, proxy: Option<Header>) -> ConnectionFacts {
        ConnectionFacts {
            accepted: tokio::time::Instant::now(),
            ends: Ends::new("192.0.2.1:4711".parse().unwrap(), "198.51.100.7:443".parse().unwrap()),
            tls: tls.map(Box::new),
            preamble: proxy.map(|header| {
                let peer = Some("10.0.0.1:1".parse().unwrap());
                Box::new(Preamble {
                    proxy: Some(Introduced { peer, header }),
                    ..Preamble::default()
                })
            }),
        }
    }

    fn tls(certificate: Option<Vec<u8>>) -> TlsFacts {
        TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            sni: Some("shop.example".to_owned()),
            alpn: Some(b"http/1.1".to_vec()),
            client_certificate: certificate.map(ClientCertificate::new),
        }
    }

    fn tlvs(header: Header) -> Vec<Tlv> {
        match header {
            Header::Proxied(proxied) => proxied.tlvs,
            other => panic!("{other:?}"),
        }
    }

    /// What a balancer in front might have said.
    fn said() -> Vec<Tlv> {
        vec![
            Tlv::Authority("front.example".into()),
            Tlv::UniqueId(b"id-1"[..].into()),
            Tlv::Ssl(Ssl {
                client: SSL_CLIENT,
                verify: 7,
                details: Vec::new(),
            }),
            Tlv::Other(RawTlv {
                kind: 0xee,
                value: b"\x01azure"[..].into(),
            }),
        ]
    }

    #[test]
    fn what_was_said_in_front_is_passed_on() {
        let addresses = Addresses::tcp("192.0.2.1:4711".parse().unwrap(), "198.51.100.7:443".parse().unwrap());
        let header = Header::proxied(addresses, said());
        assert_eq!(introduction(&facts(None, Some(header.clone()))), header);
        for nobody in [Header::Local, Header::Unknown] {
            assert_eq!(tlvs(introduction(&facts(None, Some(nobody)))), []);
        }
    }

    #[test]
    fn a_handshake_here_says_more_than_one_in_front() {
        let addresses = Addresses::tcp("192.0.2.1:4711".parse().unwrap(), "198.51.100.7:443".parse().unwrap());
        let header = Header::proxied(addresses, said());
        let tlvs = tlvs(introduction(&facts(Some(tls(None)), Some(header))));
        let [Tlv::Alpn(alpn), Tlv::Authority(name), Tlv::Ssl(ssl), rest @ ..] = &tlvs[..] else {
            panic!("{tlvs:?}")
        };
        assert_eq!((&alpn[..], &name[..]), (&b"http/1.1"[..], "shop.example"));
        assert_eq!((ssl.client, ssl.verify), (1, 1));
        assert_eq!(ssl.detail(ssl::VERSION), Some(&b"TLSv1.3"[..]));
        assert_eq!(rest, [said()[1].clone(), said()[3].clone()]);
    }

    #[test]
    fn a_certificate_that_passed_is_told() {
        let tlvs = tlvs(introduction(&facts(Some(tls(Some(vec![1]))), None)));
        let told = |tlv: &Tlv| {
            matches!(
                tlv,
                Tlv::Ssl(Ssl {
                    client: 7,
                    verify: 0,
                    ..
                })
            )
        };
        assert!(tlvs.iter().any(told), "{tlvs:?}");
    }

    #[test]
    fn whose_certificate_it_is_is_told() {
        for (length, expected) in [(10, true), (256, true), (257, false)] {
            let name = "n".repeat(length);
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name.as_str());
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let shown = tls(Some(certificate.der().to_vec()));
            let tlvs = tlvs(introduction(&facts(Some(shown), None)));
            let told = tlvs.iter().find_map(|tlv| match tlv {
                Tlv::Ssl(ssl) => ssl.detail(ssl::COMMON_NAME),
                _ => None,
            });
            assert_eq!(told, expected.then_some(name.as_bytes()), "{length}");
        }
    }

    #[test]
    fn of_a_unix_socket_nothing_is_said_but_that_it_is_one() {
        let facts = ConnectionFacts {
            ends: Ends::of(None, None),
            ..facts(Some(tls(None)), None)
        };
        let header = introduction(&facts);
        assert_eq!(header.encode(crate::proxy_protocol::Format::V1), b"PROXY UNKNOWN\r\n");
        let Header::Proxied(proxied) = header else {
            panic!("{header:?}")
        };
        assert_eq!(proxied.addresses, Addresses::UNNAMED);
        assert!(proxied.tlvs.iter().any(|tlv| matches!(tlv, Tlv::Ssl(_))), "{proxied:?}");
    }

    #[test]
    fn ends_on_unix_sockets_are_passed_on_as_they_are() {
        let addresses = Addresses::Unix {
            source: [1; 108],
            destination: [2; 108],
        };
        let header = Header::proxied(addresses, Vec::new());
        assert_eq!(introduction(&facts(None, Some(header.clone()))), header);
    }
}
