//! Certificates made for a test: DER that no authority signed, for what is read of a leaf without its chain.
#![allow(dead_code)]

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// 2026-11-24T10:00:00Z, from when on they are valid.
pub(crate) const BEGIN_US: i64 = 1_795_514_400_000_000;

/// One DER value.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let mut der = vec![tag];
    match u16::try_from(value.len()).unwrap() {
        short @ 0..0x80 => der.push(u8::try_from(short).unwrap()),
        medium @ 0x80..0x100 => der.extend([0x81, u8::try_from(medium).unwrap()]),
        long => {
            der.push(0x82);
            der.extend(long.to_be_bytes());
        }
    }
    der.extend(value);
    der
}

const KEY_USAGE: u8 = 15;
const NAMES: u8 = 17;
const CONSTRAINTS: u8 = 19;
const URI: u8 = 0x86;

/// What a leaf says; `Leaf::of` is a good one of one hour.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub version: Vec<u8>,
    pub serial: Vec<u8>,
    pub not_before: String,
    pub not_after: String,
    /// Tag and value of each name.
    pub names: Vec<(u8, String)>,
    /// A BIT STRING, and whether it is critical.
    pub key_usage: Option<(Vec<u8>, bool)>,
    pub(crate) constraints: Option<Vec<u8>>,
    /// Extensions after those.
    pub more: Vec<Vec<u8>>,
}

impl Leaf {
    pub(crate) fn of(uri: &str) -> Self {
        Self {
            version: vec![2, 1, 2],
            serial: vec![0x00, 0xa1, 0x05],
            not_before: "261124100000Z".to_owned(),
            not_after: "261124110000Z".to_owned(),
            names: vec![(URI, uri.to_owned())],
            key_usage: Some((vec![3, 2, 7, 0x80], true)),
            constraints: Some(tlv(0x30, &[])),
            more: Vec::new(),
        }
    }

    pub(crate) fn uris(mut self, uris: &[&str]) -> Self {
        self.names = uris.iter().map(|uri| (URI, (*uri).to_owned())).collect();
        self
    }

    pub(crate) fn valid(mut self, not_before: &str, not_after: &str) -> Self {
        (self.not_before, self.not_after) = (not_before.to_owned(), not_after.to_owned());
        self
    }

    pub(crate) fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
        let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
        tlv(0x30, &[&[6, 3, 0x55, 0x1d, number], critical, &tlv(4, &[value])])
    }

    pub(crate) fn names_extension(&self) -> Vec<u8> {
        let names: Vec<Vec<u8>> = self.names.iter().map(|(tag, name)| tlv(*tag, &[name.as_bytes()])).collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        Self::extension(NAMES, false, &tlv(0x30, &names))
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let time = |text: &str| tlv(if text.len() == 13 { 0x17 } else { 0x18 }, &[text.as_bytes()]);
        let mut extensions = Vec::new();
        if let Some((usage, critical)) = &self.key_usage {
            extensions.extend(Self::extension(KEY_USAGE, *critical, usage));
        }
        if let Some(constraints) = &self.constraints {
            extensions.extend(Self::extension(CONSTRAINTS, true, constraints));
        }
        if !self.names.is_empty() {
            extensions.extend(self.names_extension());
        }
        extensions.extend(self.more.concat());
        let empty = tlv(0x30, &[]);
        let signed = tlv(
            0x30,
            &[
                &tlv(0xa0, &[&self.version]),
                &tlv(2, &[&self.serial]),
                &empty,
                &empty,
                &tlv(0x30, &[&time(&self.not_before), &time(&self.not_after)]),
                &empty,
                &empty,
                &tlv(0xa3, &[&tlv(0x30, &[&extensions])]),
            ],
        );
        tlv(0x30, &[&signed, &empty, &[3, 1, 0]])
    }

    /// As Envoy forwards it.
    pub(crate) fn text(&self) -> String {
        url_encoded_pem(&self.der())
    }
}

/// PEM with the escapes that Envoy writes.
pub(crate) fn url_encoded_pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    let mut text = String::new();
    for c in pem.chars() {
        match c {
            '\n' => text.push_str("%0A"),
            ' ' => text.push_str("%20"),
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            plain => text.push(plain),
        }
    }
    text
}
