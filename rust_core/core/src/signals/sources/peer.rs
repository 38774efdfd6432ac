//! Source kind `peer`: where the request came from, as the name of a zone of addresses. The address is what Envoy
//! takes for the caller's: of the connection, or of `x-forwarded-for` where Envoy is told to trust it. So it is as
//! good as Envoy's configuration, and at best `sourced`.

use super::{Circumstances, Flow, Kind, ReadRequest, Reading, Source, of_this_request_alone};
use crate::findings::Place;
use crate::limits::MAX_NETWORKS;
use crate::model::{Assurance, Request, SignalType, State, Value};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

pub(super) const KIND: Kind = Kind {
    word: "peer",
    ceiling: |_| (Assurance::Sourced, ""),
    objection: |subject| {
        let why = "a `peer` source speaks of this request only: its contract's subject is `request`";
        of_this_request_alone(subject, why)
    },
    read,
};

/// The address of the caller, without its port; an IPv4 address that came as IPv6 is the IPv4 address. `None` for
/// a pipe or an internal connection.
pub fn address_of(request: &Request) -> Option<IpAddr> {
    let (host, _port) = request.source.address.rsplit_once(':')?;
    let address = match host.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(host.parse().ok()?),
    };
    Some(address.to_canonical())
}

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let (networks, described) = zones(reading).unzip();
    let otherwise = match reading.fields.take("otherwise") {
        Some(node) => {
            let word = node.text(reading.file, "otherwise", reading.findings);
            Some(word.filter(|word| reading.is_value("`otherwise`", word, node.place))?)
        }
        None => None,
    };
    let (networks, described): (Networks, Json) = (networks?, described?);
    let mut settings = vec![("zones", described)];
    settings.extend(otherwise.map(|word| ("otherwise", word.into())));
    let otherwise = otherwise.map(Arc::from);
    Some(Source {
        kind: KIND.word,
        assurance,
        label: "peer".into(),
        settings,
        flow: Flow::OnRequest(Arc::new(FromPeer { networks, otherwise })),
    })
}

fn zones(reading: &mut Reading<'_, '_>) -> Option<(Networks, Json)> {
    let node = reading.fields.require("zones", reading.findings)?;
    let entries = node.map(reading.file, "zones", reading.findings)?;
    let mut networks = Networks::default();
    let mut places: BTreeMap<Network, Place> = BTreeMap::new();
    let mut good = true;
    for entry in entries {
        let zone: Arc<str> = entry.key.as_str().into();
        good &= reading.is_value("`zones`", &zone, entry.place);
        let Some(written) = entry.value.texts(reading.file, &entry.key, reading.findings) else {
            good = false;
            continue;
        };
        if written.is_empty() {
            let message = format!("`{zone}`: expected at least one network, found none");
            reading.error(entry.value.place, "empty_list", message);
            good = false;
        }
        for (text, place) in written {
            match Network::parse(text) {
                Ok(network) => {
                    if let Some(before) = places.insert(network, place) {
                        let message = format!("`{zone}`: the network `{text}` stands in line {} already", before.line);
                        reading.error(place, "repeated_network", message);
                        good = false;
                    }
                    networks.insert(network, &zone);
                }
                Err(expected) => {
                    reading.error(place, "bad_network", format!("`{zone}`: {expected}, found `{text}`"));
                    good = false;
                }
            }
        }
    }
    if entries.is_empty() {
        reading.error(node.place, "empty_list", "`zones`: expected at least one zone, found none");
    }
    if places.len() > MAX_NETWORKS {
        let message = format!("`zones`: expected at most {MAX_NETWORKS} networks, found {}", places.len());
        reading.error(node.place, "too_many_networks", message);
        good = false;
    }
    (good && !entries.is_empty()).then(|| (networks, node.to_json()))
}

/// A network of either family, its host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    v6: bool,
    prefix: u32,
    base: u128,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or one address. The error is the rest of a sentence.
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected a network such as `10.0.0.0/8`".to_owned();
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match length {
            None => bits,
            Some(length) => {
                let number: u32 = length.parse().map_err(|_| expected())?;
                if number > bits || number.to_string() != length {
                    return Err(expected());
                }
                number
            }
        };
        let (v6, width, base) = match address {
            IpAddr::V4(v4) => (false, 32, u128::from(v4.to_bits())),
            // The IPv4 addresses of IPv6 (RFC 4291, section 2.5.5.2) are those of IPv4.
            IpAddr::V6(v6) if prefix >= 96 && v6.to_ipv4_mapped().is_some() => {
                (false, 128, u128::from(v6.to_ipv4_mapped().map_or(0, Ipv4Addr::to_bits)))
            }
            IpAddr::V6(v6) => (true, 128, v6.to_bits()),
        };
        let prefix = if !v6 && width == 128 { prefix - 96 } else { prefix };
        let network = Self { v6, prefix, base: masked(base, v6, prefix) };
        if network.base == base { Ok(network) } else { Err(format!("expected the network's own address, `{network}`")) }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.v6 {
            write!(f, "{}/{}", Ipv6Addr::from_bits(self.base), self.prefix)
        } else {
            let v4 = Ipv4Addr::from_bits(u32::try_from(self.base).unwrap_or_default());
            write!(f, "{v4}/{}", self.prefix)
        }
    }
}

/// The first `prefix` bits of an address.
fn masked(address: u128, v6: bool, prefix: u32) -> u128 {
    let host_bits = if v6 { 128 } else { 32 } - prefix;
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    address & mask
}

/// Networks by prefix length, longest first: a lookup is one search for each length that occurs.
#[derive(Debug, Default)]
struct Networks(Vec<OfLength>);

#[derive(Debug)]
struct OfLength {
    v6: bool,
    prefix: u32,
    zones: BTreeMap<u128, Arc<str>>,
}

impl Networks {
    fn insert(&mut self, network: Network, zone: &Arc<str>) {
        let Network { v6, prefix, base } = network;
        let zone = Arc::clone(zone);
        match self.0.iter_mut().find(|known| (known.v6, known.prefix) == (v6, prefix)) {
            Some(known) => drop(known.zones.insert(base, zone)),
            None => self.0.push(OfLength { v6, prefix, zones: BTreeMap::from([(base, zone)]) }),
        }
        self.0.sort_by_key(|known| std::cmp::Reverse(known.prefix));
    }

    fn find(&self, address: IpAddr) -> Option<&Arc<str>> {
        let (is_v6, bits) = match address {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (true, v6.to_bits()),
        };
        let of_family = self.0.iter().filter(|known| known.v6 == is_v6);
        let mut found = of_family.filter_map(|known| known.zones.get(&masked(bits, is_v6, known.prefix)));
        found.next()
    }
}

#[derive(Debug)]
struct FromPeer {
    networks: Networks,
    otherwise: Option<Arc<str>>,
}

impl ReadRequest for FromPeer {
    /// No address is no origin: `otherwise` is for addresses that are in no zone.
    fn read(&self, circumstances: &Circumstances<'_>, _: &SignalType) -> (State, Option<Value>) {
        let address = address_of(circumstances.request);
        let zone = address.and_then(|address| self.networks.find(address).or(self.otherwise.as_ref()));
        match zone {
            Some(zone) => (State::Fresh, Some(Value::String(Arc::clone(zone)))),
            None => (State::Missing, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, mistakes};
    use super::*;
    use crate::model::Peer;

    const ZONES: &str = "{kind: peer, zones: {office: [10.0.0.0/8, \"2001:db8::/32\"], lab: [10.1.0.0/16, 192.0.2.7, \
                         \"::ffff:198.51.100.0/120\"], v6: [\"::/0\"]}, assurance: sourced}";

    fn zone(source: &str, address: &str) -> Option<String> {
        let request = Request { source: Peer { address: address.into(), ..Peer::default() }, ..Request::default() };
        let (state, value) = testing::read("string", source, &request, "2026-11-24T10:00:00Z");
        assert_eq!(state == State::Fresh, value.is_some());
        value.map(|value| value.to_json().as_str().unwrap().to_owned())
    }

    #[test]
    fn the_longest_prefix_wins() {
        for (address, expected) in [
            ("10.9.9.9:1", Some("office")),
            ("10.1.2.3:40000", Some("lab")),
            ("192.0.2.7:1", Some("lab")),
            ("192.0.2.8:1", None),
            ("[2001:db8::5]:443", Some("office")),
            ("[2001:db9::5]:443", Some("v6")),
            ("[::ffff:10.1.0.9]:443", Some("lab")),
            ("198.51.100.200:1", Some("lab")),
            ("[::ffff:203.0.113.1]:443", None),
        ] {
            assert_eq!(zone(ZONES, address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn without_an_address_it_is_missing_even_if_there_is_an_otherwise() {
        let source = ZONES.replace("assurance", "otherwise: public, assurance");
        assert_eq!(zone(&source, "203.0.113.1:1").as_deref(), Some("public"));
        for none in [
            "",
            "/run/envoy.sock",
            "envoy://inner/1",
            "10.0.0.1",
            "host:80",
            "::1:80",
            "[10.0.0.1]:80",
            "[fe80::1%eth0]:1",
        ] {
            assert_eq!(zone(&source, none), None, "{none}");
        }
    }

    #[test]
    fn every_word_is_a_value_of_the_contract() {
        let source = ZONES.replace("assurance", "otherwise: public, assurance");
        assert_eq!(mistakes("enum[office, lab, v6, public]", "request", &source), [""; 0]);
        assert_eq!(mistakes("enum[office, lab, v6]", "request", &source).len(), 1);
        assert_eq!(mistakes("enum[office, public, v6]", "request", &source).len(), 1);
        assert!(mistakes("bool", "request", &source).iter().all(|said| said.starts_with("not_a_value")));
    }

    #[test]
    fn each_mistake_in_zones_is_found() {
        let said = |zones: &str| {
            mistakes("string", "request", &format!("{{kind: peer, zones: {zones}, assurance: sourced}}")).join(";")
        };
        assert!(said("{a: [10.0.0.1/8]}").contains("the network's own address, `10.0.0.0/8`"));
        assert!(said("{a: [\"2001:db8::1/32\"]}").contains("`2001:db8::/32`"));
        assert!(said("{a: [10.0.0.0/8], b: [10.0.0.0/8]}").starts_with("repeated_network"));
        assert!(said("{a: [10.0.0.0/8, \"::ffff:10.0.0.0/104\"]}").starts_with("repeated_network"));
        for bad in ["10.0.0.0/33", "10.0.0.0/08", "10.0.0/8", "host", "10.0.0.0/", "\"::/129\"", "10.0.0.0/-1"] {
            assert!(said(&format!("{{a: [{bad}]}}")).starts_with("bad_network"), "{bad}");
        }
        assert!(said("{}").starts_with("empty_list"));
        assert!(said("{a: []}").starts_with("empty_list"));
        let many: Vec<String> = (0..=MAX_NETWORKS).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
        assert!(said(&format!("{{a: [{}]}}", many.join(", "))).starts_with("too_many_networks"));
        let said = mistakes("string", "request", &ZONES.replace("sourced", "authoritative"));
        assert!(said[0].contains("at best `sourced`"), "{said:?}");
        assert!(mistakes("string", "global", ZONES).iter().any(|said| said.starts_with("source_subject")));
    }
}
