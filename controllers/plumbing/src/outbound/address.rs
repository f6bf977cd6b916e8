//! Which addresses may be connected to.
//!
//! Where whoever writes an object chooses a URL, the manager asks for it from inside of the cluster's networks: what is
//! reachable only from there (the metadata server of a cloud, a kubelet, a Service) must not be reached by that
//! way. So an address is refused unless it is one of the public internet, or the manager's configuration allows it.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The texts that a schema takes for a [`Cidr`]; which of them are addresses, parsing says.
const CIDR_PATTERN: &str = "^[0-9a-fA-F:.]+/[0-9]{1,3}$";

/// A range of addresses, such as `10.0.5.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of addresses such as 10.0.5.0/24 or fd00:5::/64")]
pub struct InvalidCidr(String);

impl Cidr {
    const fn v4(a: u8, b: u8, c: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits }
    }

    const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether an address is in the range. One of the other family is not.
    pub fn contains(&self, address: IpAddr) -> bool {
        // As numbers of 128 bits; the low ones are cut off.
        let (range, address, width) = match (self.address, address) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                (u128::from(range.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => (range.to_bits(), address.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let low = width - u32::from(self.bits).min(width);
        (range ^ address).checked_shr(low).unwrap_or(0) == 0
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits: u8 = bits.parse().map_err(|_| invalid())?;
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if bits > most {
            return Err(invalid());
        }
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Cidr {
    type Error = InvalidCidr;

    fn try_from(text: String) -> Result<Self, InvalidCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The schema of a list of [`Cidr`]s.
pub fn cidrs_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 0,
        "maxItems": 64,
        "items": {"type": "string", "minLength": 1, "maxLength": 43, "pattern": CIDR_PATTERN},
    })
}

/// What is not of the public internet: the special-purpose registries of IANA (RFC 6890 and its updates).
const INTERNAL_V4: [(Cidr, &str); 15] = [
    (Cidr::v4(0, 0, 0, 8), "of this very host"),
    (Cidr::v4(10, 0, 0, 8), "private"),
    (Cidr::v4(100, 64, 0, 10), "of a provider's own network"),
    (Cidr::v4(127, 0, 0, 8), "loopback"),
    (Cidr::v4(169, 254, 0, 16), "link-local"),
    (Cidr::v4(172, 16, 0, 12), "private"),
    (Cidr::v4(192, 0, 0, 24), "reserved"),
    (Cidr::v4(192, 0, 2, 24), "reserved"),
    (Cidr::v4(192, 88, 99, 24), "reserved"),
    (Cidr::v4(192, 168, 0, 16), "private"),
    (Cidr::v4(198, 18, 0, 15), "reserved"),
    (Cidr::v4(198, 51, 100, 24), "reserved"),
    (Cidr::v4(203, 0, 113, 24), "reserved"),
    (Cidr::v4(224, 0, 0, 4), "multicast"),
    (Cidr::v4(240, 0, 0, 4), "reserved"),
];

/// The only addresses of IPv6 that are routed in the internet.
const GLOBAL_V6: Cidr = Cidr::v6(0x2000, 0, 0, 3);
/// Those of them that are not, or that hide one of IPv4 which nobody can see.
const INTERNAL_V6: [(Cidr, &str); 3] = [
    // Protocol assignments, Teredo among them.
    (Cidr::v6(0x2001, 0, 0, 23), "reserved"),
    (Cidr::v6(0x2001, 0xdb8, 0, 32), "reserved"),
    (Cidr::v6(0x3fff, 0, 0, 20), "reserved"),
];
/// An address of IPv4 in its low 32 bits: the well-known prefix of NAT64.
const NAT64: Cidr = Cidr::v6(0x64, 0xff9b, 0, 96);
/// An address of IPv4 in the 32 bits that follow: 6to4.
const SIX_TO_FOUR: Cidr = Cidr::v6(0x2002, 0, 0, 16);

/// Which addresses may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Ranges that may be, though they are internal.
    pub allowed: Vec<Cidr>,
    /// Ranges that may not be, whatever else holds: those of a cluster whose Services, pods or nodes have public
    /// addresses.
    pub refused: Vec<Cidr>,
}

impl AddressPolicy {
    /// Every address may be: for URLs that the manager's configuration names itself.
    #[must_use]
    pub fn unrestricted() -> Self {
        let whole = |address: IpAddr| Cidr { address, bits: 0 };
        let allowed = vec![whole(Ipv4Addr::UNSPECIFIED.into()), whole(Ipv6Addr::UNSPECIFIED.into())];
        Self { allowed, refused: Vec::new() }
    }

    /// Why an address may not be connected to, as a word for people; `None` if it may.
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        // As it is and as it is routed: a list may name it either way.
        let forms = [Some(address), embedded(address).map(IpAddr::V4)];
        let is_in = |ranges: &[Cidr]| {
            forms.iter().flatten().any(|form| ranges.iter().any(|range| range.contains(*form)))
        };
        if is_in(&self.refused) {
            return Some("refused by the manager's configuration");
        }
        if is_in(&self.allowed) {
            return None;
        }
        internal(address)
    }
}

/// The address of IPv4 to which one of IPv6 leads.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let bits = v6.to_bits();
    let low = |bits: u128| Ipv4Addr::from_bits((bits & u128::from(u32::MAX)) as u32);
    if let Some(mapped) = v6.to_ipv4_mapped() {
        Some(mapped)
    } else if NAT64.contains(address) {
        Some(low(bits))
    } else if SIX_TO_FOUR.contains(address) {
        Some(low(bits >> 80))
    } else {
        None
    }
}

/// What an address is that is not of the public internet.
fn internal(address: IpAddr) -> Option<&'static str> {
    let find = |table: &[(Cidr, &'static str)], address| {
        table.iter().find(|(range, _)| range.contains(address)).map(|(_, what)| *what)
    };
    match address {
        IpAddr::V4(_) => find(&INTERNAL_V4, address),
        IpAddr::V6(v6) => match embedded(address) {
            Some(v4) => find(&INTERNAL_V4, IpAddr::V4(v4)),
            None if v6.is_loopback() => Some("loopback"),
            None if v6.is_unicast_link_local() => Some("link-local"),
            None if v6.is_unique_local() => Some("private"),
            None if v6.is_multicast() => Some("multicast"),
            None if !GLOBAL_V6.contains(address) => Some("reserved"),
            None => find(&INTERNAL_V6, address),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(address: &str) -> Option<&'static str> {
        AddressPolicy::default().refusal(address.parse().unwrap())
    }

    fn ranges(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_reached_from_inside_alone_is_refused_in_every_form() {
        for (address, word) in [
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("0.0.0.0", "of this very host"),
            ("10.96.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("169.254.169.254", "link-local"),
            ("100.100.100.200", "of a provider's own network"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::1", "loopback"),
            ("::", "reserved"),
            ("fd00:10:96::1", "private"),
            ("fc00::1", "private"),
            ("fe80::1", "link-local"),
            ("ff02::1", "multicast"),
            ("fec0::1", "reserved"),
            // The same addresses of IPv4, as IPv6 writes them.
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.96.0.1", "private"),
            ("::ffff:169.254.169.254", "link-local"),
            ("::127.0.0.1", "reserved"),
            ("64:ff9b::10.96.0.1", "private"),
            ("64:ff9b:1::1", "reserved"),
            ("2002:a60:1::", "private"),
            ("2002:7f00:1::1", "loopback"),
            ("2001:0:a60:1::1", "reserved"),
            ("2001:db8::1", "reserved"),
        ] {
            assert_eq!(refusal(address), Some(word), "{address}");
        }
    }

    #[test]
    fn what_the_internet_routes_is_taken() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "193.0.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert_eq!(refusal(address), None, "{address}");
        }
    }

    #[test]
    fn lists_allow_what_is_internal_and_refuse_what_is_not() {
        let policy = AddressPolicy {
            allowed: ranges(&["10.0.5.0/24", "fd00:5::/64"]),
            refused: ranges(&["20.0.0.0/8", "10.0.5.9/32"]),
        };
        for (address, is_taken) in [
            ("10.0.5.8", true),
            ("::ffff:10.0.5.8", true),
            ("64:ff9b::10.0.5.8", true),
            ("10.0.5.9", false),
            ("::ffff:10.0.5.9", false),
            ("10.0.6.1", false),
            ("fd00:5::1", true),
            ("fd00:6::1", false),
            ("20.1.2.3", false),
            ("::ffff:20.1.2.3", false),
            ("21.1.2.3", true),
        ] {
            assert_eq!(policy.refusal(address.parse().unwrap()).is_none(), is_taken, "{address}");
        }
        let everything = AddressPolicy { allowed: ranges(&["0.0.0.0/0", "::/0"]), refused: Vec::new() };
        assert_eq!(AddressPolicy::unrestricted(), everything);
        for address in ["127.0.0.1", "::1", "169.254.169.254"] {
            assert_eq!(everything.refusal(address.parse().unwrap()), None);
        }
    }

    #[test]
    fn a_text_that_is_no_range_is_refused_by_name() {
        for text in
            ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/", "/8", "10.0.0.0/8/8"]
        {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("10.0.5.0/24"), "{error}");
        }
        assert_eq!(
            ranges(&["10.0.5.0/24", "fd00:5::/64"]).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.5.0/24", "fd00:5::/64"]
        );
    }

    proptest! {
        /// The mapped form of an address is as the address itself.
        #[test]
        fn mapped_addresses_are_those_that_they_map(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let policy = AddressPolicy::default();
            let mapped = policy.refusal(IpAddr::V6(v4.to_ipv6_mapped()));
            prop_assert_eq!(policy.refusal(IpAddr::V4(v4)), mapped);
        }

        /// A range holds exactly the addresses that begin with its bits.
        #[test]
        fn a_range_is_its_first_bits(range: u32, address: u32, bits in 0..=32u8) {
            let cidr: Cidr = format!("{}/{bits}", Ipv4Addr::from_bits(range)).parse().unwrap();
            let shared = (range ^ address).leading_zeros() >= u32::from(bits);
            prop_assert_eq!(cidr.contains(IpAddr::V4(Ipv4Addr::from_bits(address))), shared);
        }
    }
}
