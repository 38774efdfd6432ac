//! Functions of addresses and networks, as Go's `net` reads them.

use super::{Answer, charge_values, kind, list, operand, text};
use regorus::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A network: its first address as a number, how many of its bits are fixed, and whether it is of IPv4.
#[derive(Clone, Copy)]
struct Network {
    first: u128,
    fixed: u32,
    four: bool,
}

impl Network {
    fn bits(self) -> u32 {
        if self.four { 32 } else { 128 }
    }

    /// The bits that may differ within it.
    fn free(self) -> u128 {
        let free = self.bits().saturating_sub(self.fixed);
        if free >= 128 { u128::MAX } else { (1_u128 << free).wrapping_sub(1) }
    }

    fn last(self) -> u128 {
        self.first | self.free()
    }

    fn has(self, address: u128, four: bool) -> bool {
        self.four == four && address & !self.free() == self.first
    }
}

/// As a number, and whether it is of IPv4. Go takes an address of IPv4 written as one of IPv6 for the former.
fn number(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(four) => (u128::from(u32::from(four)), true),
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => (u128::from(u32::from(four)), true),
            None => (u128::from(six), false),
        },
    }
}

fn network(written: &str) -> Result<Network, String> {
    let invalid = || format!("invalid CIDR address: {written}");
    let (address, fixed) = written.split_once('/').ok_or_else(invalid)?;
    if fixed.is_empty() || !fixed.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    // Of an address of IPv4 written as one of IPv6, Go's mask and address are of two kinds.
    if matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some()) {
        return Err(format!("a network of IPv4 must be written as one: {written}"));
    }
    let (value, four) = number(address);
    let fixed: u32 = fixed.parse().map_err(|_| invalid())?;
    let mut network = Network { first: 0, fixed, four };
    if fixed > network.bits() {
        return Err(invalid());
    }
    network.first = value & !network.free();
    Ok(network)
}

fn within(outer: Network, inner: &str) -> Result<bool, String> {
    if let Ok(address) = inner.parse::<IpAddr>() {
        let (address, four) = number(address);
        return Ok(outer.has(address, four));
    }
    let inner = network(inner)?;
    Ok(outer.has(inner.first, inner.four) && outer.has(inner.last(), inner.four))
}

pub(super) fn contains(args: &[Value], _: i64) -> Answer {
    Ok(Value::Bool(within(network(text(args, 0)?)?, text(args, 1)?)?))
}

pub(super) fn intersects(args: &[Value], _: i64) -> Answer {
    let (one, other) = (network(text(args, 0)?)?, network(text(args, 1)?)?);
    Ok(Value::Bool(one.has(other.first, other.four) || other.has(one.first, one.four)))
}

pub(super) fn is_valid(args: &[Value], _: i64) -> Answer {
    let Value::String(written) = operand(args, 0)? else {
        return Ok(Value::Bool(false));
    };
    // What Go takes and this does not is an error, not a no.
    let address = written.split_once('/').and_then(|(address, _)| address.parse().ok());
    if matches!(address, Some(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some()) {
        network(written)?;
    }
    Ok(Value::Bool(network(written).is_ok()))
}

pub(super) fn expand(args: &[Value], _: i64) -> Answer {
    let network = network(text(args, 0)?)?;
    let count = usize::try_from(network.free()).unwrap_or(usize::MAX).saturating_add(1);
    charge_values(count.saturating_mul(4))?;
    let written = |address: u128| {
        let four = u32::try_from(address).ok().filter(|_| network.four);
        let written = four.map_or_else(|| Ipv6Addr::from(address).to_string(), |four| Ipv4Addr::from(four).to_string());
        Value::String(written.into())
    };
    Ok(Value::from((network.first..=network.last()).map(written).collect::<BTreeSet<_>>()))
}

/// The network or address of an element: itself, or the first of a list.
fn written_of(at: usize, item: &Value) -> Result<&str, String> {
    let first = if let Value::Array(parts) = item { parts.as_slice().first() } else { Some(item) };
    match first {
        Some(Value::String(written)) => Ok(written),
        _ => Err(format!("operand {}: element must be string or non-empty array", at.saturating_add(1))),
    }
}

/// Networks or addresses and what each is called: itself, its place or its key.
fn named(at: usize, operand: &Value) -> Result<Vec<(&str, Value)>, String> {
    match operand {
        Value::String(written) => Ok(vec![(written, operand.clone())]),
        Value::Array(items) => {
            items.iter().enumerate().map(|(nth, item)| Ok((written_of(at, item)?, Value::from(nth as u64)))).collect()
        }
        Value::Set(items) => items.iter().map(|item| Ok((written_of(at, item)?, item.clone()))).collect(),
        Value::Object(fields) => fields.iter().map(|(key, item)| Ok((written_of(at, item)?, key.clone()))).collect(),
        other => Err(format!(
            "operand {} must be string, array, set or object but got {}",
            at.saturating_add(1),
            kind(other)
        )),
    }
}

pub(super) fn contains_matches(args: &[Value], _: i64) -> Answer {
    let (outer, inner) = (named(0, operand(args, 0)?)?, named(1, operand(args, 1)?)?);
    let mut found = BTreeSet::new();
    for (written, outer_name) in &outer {
        for (candidate, inner_name) in &inner {
            if within(network(written)?, candidate)? {
                charge_values(3)?;
                found.insert(list(vec![outer_name.clone(), inner_name.clone()]));
            }
        }
    }
    Ok(Value::from(found))
}
