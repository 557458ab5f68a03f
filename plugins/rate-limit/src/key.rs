//! Bucket keys. Two requests have the same key exactly when all parts of it are equal: every value is written with its
//! length and every part with the number of its values, so that no two lists of values run together.

use gateway_plugin_sdk::needs::{List, OnRequest, RequestNeed};
use gateway_plugin_sdk::{ConfigError, Request};

use crate::config::KeyPart;

/// How a key is made of a request.
#[derive(Debug)]
pub(crate) struct Key(Vec<Part>);

#[derive(Debug)]
enum Part {
    /// Every value of a fact.
    Values(RequestNeed),
    /// An address of which only the leading bits count.
    Network {
        address: RequestNeed,
        ipv4_prefix: u8,
        ipv6_prefix: u8,
    },
}

impl Key {
    pub(crate) fn compile(parts: &[KeyPart], needs: &mut List<OnRequest>, at: &str) -> Result<Self, ConfigError> {
        let numbered = parts.iter().enumerate();
        let parts = numbered.map(|(index, part)| Part::compile(part, needs, &format!("{at}/{index}")));
        Ok(Self(parts.collect::<Result<_, _>>()?))
    }

    /// Writes the request's key in place of what `key` held.
    pub(crate) fn write(&self, request: &Request<'_>, key: &mut Vec<u8>) {
        key.clear();
        for part in &self.0 {
            match part {
                Part::Values(need) => write_values(request.all(*need), key),
                Part::Network {
                    address,
                    ipv4_prefix,
                    ipv6_prefix,
                } => write_network(request.get(*address), *ipv4_prefix, *ipv6_prefix, key),
            }
        }
    }
}

impl Part {
    fn compile(part: &KeyPart, needs: &mut List<OnRequest>, at: &str) -> Result<Self, ConfigError> {
        Ok(match part {
            KeyPart::ClientIp {
                ipv4_prefix,
                ipv6_prefix,
            } => {
                for (name, prefix, bits) in [("ipv4-prefix", ipv4_prefix, 32), ("ipv6-prefix", ipv6_prefix, 128)] {
                    if *prefix > bits {
                        let message = format!("{name} is {prefix}; an address has {bits} bits");
                        return Err(ConfigError::new(message).at(format!("{at}/client-ip/{name}")));
                    }
                }
                Self::Network {
                    address: needs.client_ip(),
                    ipv4_prefix: *ipv4_prefix,
                    ipv6_prefix: *ipv6_prefix,
                }
            }
            KeyPart::Path => Self::Values(needs.path()),
            KeyPart::Host => Self::Values(needs.host()),
            KeyPart::Method => Self::Values(needs.method()),
            KeyPart::Header(name) => Self::Values(needs.header(name)),
            KeyPart::Cookie(name) => Self::Values(needs.cookie(name)),
            KeyPart::Query(name) => Self::Values(needs.query_param(name)),
        })
    }
}

fn write_values<'a>(values: impl Iterator<Item = &'a [u8]>, key: &mut Vec<u8>) {
    let count_at = key.len();
    key.extend_from_slice(&[0; 4]);
    let mut count = 0_u32;
    for value in values {
        // A guest's memory ends before a length does not fit.
        key.extend_from_slice(&(value.len() as u32).to_le_bytes());
        key.extend_from_slice(value);
        count += 1;
    }
    key[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
}

/// The family is told by the length: 4, 16, or 0 where there is no address.
fn write_network(address: Option<&[u8]>, ipv4_prefix: u8, ipv6_prefix: u8, key: &mut Vec<u8>) {
    let address = address.unwrap_or_default();
    key.push(address.len() as u8);
    if let Ok(v4) = <[u8; 4]>::try_from(address) {
        let mask = u32::MAX.checked_shl(32 - u32::from(ipv4_prefix)).unwrap_or(0);
        key.extend_from_slice(&(u32::from_be_bytes(v4) & mask).to_be_bytes());
    } else if let Ok(v6) = <[u8; 16]>::try_from(address) {
        let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix)).unwrap_or(0);
        key.extend_from_slice(&(u128::from_be_bytes(v6) & mask).to_be_bytes());
    }
}
