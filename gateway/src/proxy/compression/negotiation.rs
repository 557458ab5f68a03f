//! Which coding a client takes: Accept-Encoding (RFC 9110, section 12.5.3).

use http::header::{self, HeaderMap, HeaderValue};

use crate::config::Coding;

/// The coding that a client likes best of those that there are; among those that it likes alike, the first. None when it
/// takes none of them, likes content better as it is, or does not say.
pub fn choose(codings: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    let asked = Asked::of(headers);
    let mut best: Option<(Coding, u16)> = None;
    for &coding in codings {
        let weight = asked.weight(coding);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((coding, weight));
        }
    }
    // Who gives `identity` a weight of its own compares by it; who does not would rather have it compressed.
    best.filter(|(_, weight)| *weight >= asked.identity.unwrap_or(0))
        .map(|(coding, _)| coding)
}

/// What a client said, in thousandths; none of what it did not mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    brotli: Option<u16>,
    zstd: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Asked {
    /// What the client says in its request.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        for line in headers.get_all(header::ACCEPT_ENCODING) {
            asked.read(line);
        }
        asked
    }

    /// Whether the client says that it takes this coding. Who says nothing may take any (RFC 9110, section 12.5.3), and is
    /// mostly a program that takes none.
    pub fn takes(self, coding: Coding) -> bool {
        self.weight(coding) > 0
    }

    /// Whether the client says that it takes content in a coding only.
    pub fn refuses_plain(self) -> bool {
        self.identity.or(self.any) == Some(0)
    }

    fn read(&mut self, line: &HeaderValue) {
        for element in line.as_bytes().split(|byte| *byte == b',') {
            let mut parts = element.split(|byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            // One that cannot be read is one that was not said.
            let Some(weight) = weight(parts) else { continue };
            let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
            let slot = if is("br") {
                &mut self.brotli
            } else if is("zstd") {
                &mut self.zstd
            } else if is("gzip") || is("x-gzip") {
                &mut self.gzip
            } else if is("identity") {
                &mut self.identity
            } else if is("*") {
                &mut self.any
            } else {
                continue;
            };
            *slot = Some(weight);
        }
    }

    fn weight(self, coding: Coding) -> u16 {
        let said = match coding {
            Coding::Brotli => self.brotli,
            Coding::Zstd => self.zstd,
            Coding::Gzip => self.gzip,
        };
        said.or(self.any).unwrap_or(0)
    }
}

/// `;q=0.5` in thousandths; 1000 where it does not stand. None where it is malformed.
fn weight<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let mut weight = 1000;
    for part in parts {
        let part = part.trim_ascii();
        let value = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="))?;
        weight = match value {
            [digit @ (b'0' | b'1'), rest @ ..] => {
                let whole = u16::from(digit - b'0') * 1000;
                let digits = match rest {
                    [] => &[][..],
                    [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
                    _ => return None,
                };
                let places = [100, 10, 1];
                let fraction = digits
                    .iter()
                    .zip(places)
                    .map(|(digit, place)| u16::from(digit - b'0') * place);
                (whole + fraction.sum::<u16>()).min(1000)
            }
            _ => return None,
        };
    }
    Some(weight)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(line: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        choose(&[Coding::Brotli, Coding::Zstd, Coding::Gzip], &headers).map(Coding::name)
    }

    #[test]
    fn the_client_s_weights_count_first_and_our_order_then() {
        for (line, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip", Some("gzip")),
            ("X-GZIP", Some("gzip")),
            ("gzip;q=1.0, br;q=0.5", Some("gzip")),
            ("gzip ; q=0.001 , br;q=0", Some("gzip")),
            ("zstd;Q=0.9, gzip;q=0.8", Some("zstd")),
            ("*", Some("br")),
            ("br;q=0, *;q=0.3", Some("zstd")),
            ("*;q=0", None),
            ("identity", None),
            ("", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("identity;q=0, gzip;q=0.1", Some("gzip")),
            ("gzip;q=0", None),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;level=9", None),
            ("deflate", None),
        ] {
            assert_eq!(chosen(line), expected, "{line}");
        }
    }

    #[test]
    fn who_says_nothing_gets_content_as_it_is() {
        assert_eq!(choose(&[Coding::Gzip], &HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn what_is_chosen_was_not_refused(q in 0u16..=1000, other in 0u16..=1000) {
            let text = format!("gzip;q={}.{:03}, identity;q={}.{:03}", q / 1000, q % 1000, other / 1000, other % 1000);
            prop_assert_eq!(chosen(&text).is_some(), q > 0 && q >= other);
        }
    }
}
