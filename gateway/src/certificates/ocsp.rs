//! OCSP responses (RFC 6960): read as far as is needed to know whose they are and how long they are good for. Their signature is
//! for clients to verify.

use rustls_pki_types::pem::PemObject;

/// A response in DER, of a file that has it like that or as PEM, and until when it is good, in Unix time. Fails unless it says
/// that the certificate with this serial number is good.
pub(super) fn response(bytes: Vec<u8>, serial: &[u8]) -> Result<(Vec<u8>, Option<i64>), &'static str> {
    let bytes = match bytes.first() {
        Some(&SEQUENCE) => bytes,
        _ => from_pem(&bytes).ok_or("neither DER nor PEM")?,
    };
    let until = good_until(&bytes, serial)?;
    Ok((bytes, until))
}

fn from_pem(bytes: &[u8]) -> Option<Vec<u8>> {
    // The library knows no such section: the lines between its marks are base64 like those of any other.
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("-----BEGIN OCSP RESPONSE-----")?;
    let (body, _) = rest.split_once("-----END OCSP RESPONSE-----")?;
    let wrapped = format!("-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----\n");
    let section = rustls_pki_types::CertificateDer::from_pem_slice(wrapped.as_bytes()).ok()?;
    Some(section.to_vec())
}

fn good_until(der: &[u8], serial: &[u8]) -> Result<Option<i64>, &'static str> {
    let malformed = "it is malformed";
    let mut outer = Reader(Reader(der).take(SEQUENCE).ok_or(malformed)?);
    if outer.take(ENUMERATED).ok_or(malformed)? != [0] {
        return Err("the authority's server refused to say anything");
    }
    let mut bytes = Reader(
        Reader(outer.take(CONTEXT).ok_or(malformed)?)
            .take(SEQUENCE)
            .ok_or(malformed)?,
    );
    if bytes.take(OBJECT).ok_or(malformed)? != BASIC {
        return Err("it is of an unknown kind");
    }
    let basic = bytes.take(OCTETS).ok_or(malformed)?;
    let mut basic = Reader(Reader(basic).take(SEQUENCE).ok_or(malformed)?);
    let mut data = Reader(basic.take(SEQUENCE).ok_or(malformed)?);
    // Version, unless it is the first one; then who says it, and when.
    if data.peek() == Some(CONTEXT) {
        data.skip().ok_or(malformed)?;
    }
    data.skip().ok_or(malformed)?;
    data.take(TIME).ok_or(malformed)?;
    let mut responses = Reader(data.take(SEQUENCE).ok_or(malformed)?);
    while let Some(single) = responses.take(SEQUENCE) {
        let mut single = Reader(single);
        let mut id = Reader(single.take(SEQUENCE).ok_or(malformed)?);
        for tag in [SEQUENCE, OCTETS, OCTETS] {
            id.take(tag).ok_or(malformed)?;
        }
        if id.take(INTEGER).ok_or(malformed)? != serial {
            continue;
        }
        match single.peek().ok_or(malformed)? {
            GOOD => single.skip().ok_or(malformed)?,
            REVOKED => return Err("it says that the certificate is revoked"),
            _ => return Err("it does not know the certificate"),
        }
        single.take(TIME).ok_or(malformed)?;
        let Some(next) = single.take(CONTEXT) else {
            return Ok(None);
        };
        let next = Reader(next).take(TIME).ok_or(malformed)?;
        return time(next).map(Some).ok_or(malformed);
    }
    Err("it is about another certificate")
}

/// `20260101000000Z`, with seconds and in UTC (RFC 5280, section 4.1.2.5.2).
fn time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(time.timestamp().as_second())
}

/// What is left of a DER encoding. Takes one value after another, never looks into one by itself, and so cannot go deep.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next value, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        (self.peek()? == tag).then(|| self.next())?
    }

    fn skip(&mut self) -> Option<()> {
        self.next().map(drop)
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let (_tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Up to four bytes of length: more than a file has.
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const CONTEXT: u8 = 0xa0;
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
/// id-pkix-ocsp-basic (RFC 6960, section 4.2.1).
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let head: &[u8] = match length {
            0..=0x7f => &[tag, length],
            _ => &[tag, 0x81, length],
        };
        [head, content].concat()
    }

    /// A response about one certificate: its serial number, what is said of it, and until when that is good.
    fn about(serial: &[u8], status: &[u8], until: Option<&str>) -> Vec<u8> {
        let id = der(
            SEQUENCE,
            &[
                der(SEQUENCE, b""),
                der(OCTETS, b"name"),
                der(OCTETS, b"key"),
                der(INTEGER, serial),
            ]
            .concat(),
        );
        let now = der(TIME, b"20260101000000Z");
        let until = until.map_or(Vec::new(), |until| der(CONTEXT, &der(TIME, until.as_bytes())));
        let single = der(SEQUENCE, &[&id[..], status, &now, &until].concat());
        let who = der(0xa2, &der(OCTETS, b"key"));
        let data = der(SEQUENCE, &[&who[..], &now, &der(SEQUENCE, &single)].concat());
        let basic = der(SEQUENCE, &data);
        let bytes = der(SEQUENCE, &[der(OBJECT, BASIC), der(OCTETS, &basic)].concat());
        der(SEQUENCE, &[der(ENUMERATED, &[0]), der(CONTEXT, &bytes)].concat())
    }

    #[test]
    fn a_response_is_good_for_its_certificate_and_its_time() {
        let (good, revoked, unknown) = (&[GOOD, 0][..], &[REVOKED, 0][..], &[0x82, 0][..]);
        let says = |response: Vec<u8>| response_for(response, &[7]);
        assert_eq!(says(about(&[7], good, None)), Ok(None));
        assert_eq!(
            says(about(&[7], good, Some("20260102000000Z"))),
            Ok(Some(1_767_312_000))
        );
        for (response, why) in [
            (about(&[8], good, None), "it is about another certificate"),
            (about(&[7], revoked, None), "it says that the certificate is revoked"),
            (about(&[7], unknown, None), "it does not know the certificate"),
            (about(&[7], good, Some("tomorrow")), "it is malformed"),
            (
                vec![0x30, 3, 0x0a, 1, 6],
                "the authority's server refused to say anything",
            ),
            (vec![0x30, 0x85, 1, 1, 1, 1, 1], "it is malformed"),
            (vec![0x30], "it is malformed"),
            (Vec::new(), "neither DER nor PEM"),
            (b"-----BEGIN OCSP RESPONSE-----\n!\n".to_vec(), "neither DER nor PEM"),
        ] {
            assert_eq!(says(response), Err(why));
        }
    }

    fn response_for(response: Vec<u8>, serial: &[u8]) -> Result<Option<i64>, &'static str> {
        super::response(response, serial).map(|(_, until)| until)
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(cut in 0..90_usize, place in 0..90_usize, byte: u8, rest: Vec<u8>) {
            let mut response = about(&[7], &[GOOD, 0], Some("20260102000000Z"));
            if let Some(changed) = response.get_mut(place) {
                *changed = byte;
            }
            response.truncate(response.len().saturating_sub(cut));
            response.extend(rest);
            let _ = response_for(response, &[7]);
        }
    }
}
