use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use crate::semconv::number;

/// A set of IP networks: those of a service's own load balancers and callers.
///
/// ```
/// use tower_image_trace::trace::Networks;
///
/// let networks: Networks = "10.0.0.0/8, 192.0.2.7, fd00::/8".parse()?;
/// assert!(networks.contains("10.1.2.3".parse()?));
/// assert!(networks.contains("fd12::1".parse()?));
/// assert!(!networks.contains("192.0.2.8".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// An IPv4 network is kept as the IPv6 network of its mapped addresses (RFC 4291 §2.5.5.2), because a
/// dual-stack socket reports IPv4 clients with mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    bits: u128,
    mask: u128,
}

impl Networks {
    /// Loopback, link-local and private addresses (RFC 1918, RFC 3927, RFC 4193, RFC 4291).
    #[must_use]
    pub fn private() -> Self {
        let prefixes = [
            ([127, 0, 0, 0], 8),
            ([10, 0, 0, 0], 8),
            ([172, 16, 0, 0], 12),
            ([192, 168, 0, 0], 16),
            ([169, 254, 0, 0], 16),
        ];
        let v4 =
            prefixes.map(|(address, length)| Network::new(mapped(address.into()), 96 + length));
        let v6 = [
            Network::new(Ipv6Addr::LOCALHOST, 128),
            Network::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
            Network::new(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
        ];
        Self(v4.into_iter().chain(v6).collect())
    }

    /// Whether the address is in one of the networks.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = mapped(address).to_bits();
        self.0
            .iter()
            .any(|network| bits & network.mask == network.bits)
    }
}

impl FromStr for Networks {
    type Err = NetworksError;

    /// Addresses and CIDRs, separated by commas; blanks are ignored.
    fn from_str(list: &str) -> Result<Self, NetworksError> {
        list.split(',')
            .map(str::trim)
            .filter(|network| !network.is_empty())
            .map(|network| Network::parse(network).ok_or_else(|| NetworksError(network.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The text is not a list of networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no network: expected addresses like 192.0.2.7 or CIDRs like 10.0.0.0/8 and fd00::/8, separated by commas"
)]
pub struct NetworksError(String);

impl Network {
    fn new(address: Ipv6Addr, length: u32) -> Self {
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        Self {
            bits: address.to_bits() & mask,
            mask,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => number(length).filter(|length| *length <= most)?,
            None => most,
        };
        Some(Self::new(mapped(address), 128 - most + length))
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_network_contains() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1, 10.0.0.0/8,", "10.0.0.1", true),
            ("", "127.0.0.1", false),
        ];
        for (networks, address, expected) in cases {
            let parsed: Networks = networks.parse().unwrap();
            let contains = parsed.contains(address.parse().unwrap());
            assert_eq!(contains, expected, "{networks} {address}");
        }
    }

    #[test]
    fn private_networks() {
        for (address, expected) in [
            ("127.255.255.255", true),
            ("128.0.0.0", false),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.167.255.255", false),
            ("192.168.255.255", true),
            ("192.169.0.0", false),
            ("169.254.255.255", true),
            ("169.255.0.0", false),
            ("fc00::1", true),
            ("fd00::1", true),
            ("fe00::1", false),
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", false),
            ("::1", true),
            ("::2", false),
            ("8.8.8.8", false),
            ("2001:4860:4860::8888", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Networks::private().contains(address), expected, "{address}");
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "::1/129",
            "host",
            "10.0.0.0/",
            "10.0.0.0/+8",
        ] {
            let list = format!("127.0.0.1,{bad}");
            let error = list.parse::<Networks>().unwrap_err();
            assert_eq!(error, NetworksError(bad.to_owned()));
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
