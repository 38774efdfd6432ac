//! Keys that verify tokens: a certificate, a public key, or a set of JSON Web Keys, and what each of them verifies.
//!
//! What can't be verified here at all, such as P-521 or an RSA key below 2048 bits, is an error and never "not verified": a
//! policy may negate that.

use super::meter;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use ring::{hmac, signature as scheme};
use serde_json::{Map, Value as Json};

/// Base64 of RFC 7518.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Sizes of RSA keys that are taken.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// What looking at one signature counts for: about as long as that takes with a large key.
const STEPS_PER_SIGNATURE: u64 = 1_000;
/// Most keys of one set.
const MAX_KEYS: usize = 1_024;

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// An algorithm of JWT (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alg {
    Hs(Bits),
    Rs(Bits),
    Ps(Bits),
    Es(Bits),
    EdDsa,
}

/// Bits of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    B256,
    B384,
    B512,
}

impl Alg {
    /// By the word of a token's header.
    pub(super) fn of_header(word: &str) -> Option<Self> {
        if word == "EdDSA" {
            return Some(Self::EdDsa);
        }
        let (family, bits) = word.split_at_checked(2)?;
        let bits = match bits {
            "256" => Bits::B256,
            "384" => Bits::B384,
            "512" => Bits::B512,
            _ => return None,
        };
        Some(match family {
            "HS" => Self::Hs(bits),
            "RS" => Self::Rs(bits),
            "PS" => Self::Ps(bits),
            "ES" => Self::Es(bits),
            _ => return None,
        })
    }

    /// By what stands after `io.jwt.verify_`.
    pub(super) fn of_builtin(word: &str) -> Option<Self> {
        if word == "eddsa" { Some(Self::EdDsa) } else { Self::of_header(&word.to_ascii_uppercase()) }
    }

    /// Whether its key is a secret.
    pub(super) const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs(_))
    }

    /// Whether a signature was made with this secret; false for every other kind of algorithm.
    pub(super) fn verify_secret(self, secret: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let Self::Hs(bits) = self else { return false };
        let hash = match bits {
            Bits::B256 => hmac::HMAC_SHA256,
            Bits::B384 => hmac::HMAC_SHA384,
            Bits::B512 => hmac::HMAC_SHA512,
        };
        hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
    }
}

/// Keys that a policy brings.
pub(super) struct Keys(Vec<Known>);

/// A key with what its set says of it; empty where it says nothing.
struct Known {
    kid: String,
    alg: String,
    key: Key,
}

enum Key {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
    /// Of a kind that nothing here verifies by.
    Other,
}

impl Keys {
    /// Reads PEM or JSON. The error is one sentence, without the key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains("-----BEGIN ") {
            let key = of_pem(text)?;
            return Ok(Self(vec![Known { kid: String::new(), alg: String::new(), key }]));
        }
        let bad = || "the key is neither PEM nor a set of JSON Web Keys".to_owned();
        let Ok(Json::Object(set)) = serde_json::from_str(text) else { return Err(bad()) };
        let keys = match set.get("keys") {
            Some(Json::Array(keys)) if keys.len() <= MAX_KEYS => {
                keys.iter().map(|key| key.as_object().ok_or_else(bad)).collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(bad()),
            None => vec![&set],
        };
        let known = keys.into_iter().map(of_jwk).collect::<Result<Vec<_>, _>>()?;
        // A key for an algorithm that is none of JWT's is as if it were not there.
        Ok(Self(known.into_iter().filter(|key| key.alg.is_empty() || Alg::of_header(&key.alg).is_some()).collect()))
    }

    /// Whether one of them verifies. `named`: the algorithm in the header of the token, for keys that name theirs.
    pub(super) fn verify(
        &self,
        kid: &str,
        named: &str,
        alg: Alg,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, String> {
        if let Some(known) = self.0.iter().find(|known| !kid.is_empty() && known.kid == kid) {
            return known.key.verify(alg, message, signature);
        }
        let mut failed = None;
        for known in self.0.iter().filter(|known| known.alg.is_empty() || known.alg == named) {
            match known.key.verify(alg, message, signature) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(why) => failed = Some(why),
            }
        }
        failed.map_or(Ok(false), Err)
    }
}

impl Key {
    fn verify(&self, alg: Alg, message: &[u8], signature: &[u8]) -> Result<bool, String> {
        meter::work(STEPS_PER_SIGNATURE)?;
        let by = |algorithm: &'static dyn scheme::VerificationAlgorithm, key: &[u8]| {
            scheme::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        Ok(match (alg, self) {
            (Alg::Hs(_), Self::Secret(secret)) => alg.verify_secret(secret, message, signature),
            (Alg::Rs(bits), Self::Rsa { n, e }) => {
                let how = match bits {
                    Bits::B256 => &scheme::RSA_PKCS1_2048_8192_SHA256,
                    Bits::B384 => &scheme::RSA_PKCS1_2048_8192_SHA384,
                    Bits::B512 => &scheme::RSA_PKCS1_2048_8192_SHA512,
                };
                by_rsa(how, n, e, message, signature)?
            }
            (Alg::Ps(bits), Self::Rsa { n, e }) => {
                let how = match bits {
                    Bits::B256 => &scheme::RSA_PSS_2048_8192_SHA256,
                    Bits::B384 => &scheme::RSA_PSS_2048_8192_SHA384,
                    Bits::B512 => &scheme::RSA_PSS_2048_8192_SHA512,
                };
                by_rsa(how, n, e, message, signature)?
            }
            (Alg::Es(Bits::B256), Self::P256(point)) => by(&scheme::ECDSA_P256_SHA256_FIXED, point),
            (Alg::Es(Bits::B384), Self::P384(point)) => by(&scheme::ECDSA_P384_SHA384_FIXED, point),
            (Alg::EdDsa, Self::Ed25519(point)) => by(&scheme::ED25519, point),
            (Alg::Es(_), Self::P256(_) | Self::P384(_)) => {
                return Err("the key is on another curve than the algorithm, which is not verified here".to_owned());
            }
            (_, Self::Other) => return Err("the key is of a kind that is not verified here".to_owned()),
            _ => false,
        })
    }
}

fn by_rsa(
    how: &'static scheme::RsaParameters,
    n: &[u8],
    e: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, String> {
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Err(format!("the RSA key has {bits} bits, and {least} to {most} are taken"));
    }
    Ok(scheme::RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok())
}

fn of_jwk(fields: &Map<String, Json>) -> Result<Known, String> {
    let text = |name: &str| fields.get(name).and_then(Json::as_str).unwrap_or_default();
    let bytes = |name: &str| {
        let decoded = BASE64URL.decode(text(name)).ok().filter(|bytes| !bytes.is_empty());
        decoded.ok_or_else(|| format!("`{name}` of a JSON Web Key is missing, or not base64url"))
    };
    let key = match (text("kty"), text("crv")) {
        ("RSA", _) => Key::Rsa { n: without_zeros(&bytes("n")?), e: without_zeros(&bytes("e")?) },
        ("EC", "P-256") => Key::P256(point(&bytes("x")?, &bytes("y")?)),
        ("EC", "P-384") => Key::P384(point(&bytes("x")?, &bytes("y")?)),
        ("OKP", "Ed25519") => Key::Ed25519(bytes("x")?),
        ("oct", _) => Key::Secret(bytes("k")?),
        ("EC" | "OKP", _) => Key::Other,
        _ => return Err("a JSON Web Key has no `kty` that is known".to_owned()),
    };
    Ok(Known { kid: text("kid").to_owned(), alg: text("alg").to_owned(), key })
}

/// An uncompressed point (SEC 1 section 2.3.3).
fn point(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

fn without_zeros(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// One block of PEM (RFC 7468).
fn of_pem(text: &str) -> Result<Key, String> {
    let bad = || "the key is no whole PEM".to_owned();
    let (_, rest) = text.split_once("-----BEGIN ").ok_or_else(bad)?;
    let (label, rest) = rest.split_once("-----").ok_or_else(bad)?;
    let (body, rest) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(bad)?;
    if !rest.trim().is_empty() {
        return Err("there is more after the PEM of the key".to_owned());
    }
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| bad())?;
    let info = match label {
        "PUBLIC KEY" => Some(der.as_slice()),
        "CERTIFICATE" => key_info_of_certificate(&der),
        _ => return Err("the PEM is neither a certificate nor a public key".to_owned()),
    };
    info.and_then(of_key_info).ok_or_else(bad)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
/// The version of a certificate.
const EXPLICIT_0: u8 = 0xa0;

/// One value of DER with its tag (X.690 section 8.1): tag, content, and the bytes of all of it.
struct Tlv<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

fn tlv<'a>(input: &mut &'a [u8]) -> Option<Tlv<'a>> {
    let start = *input;
    let (tag, rest) = start.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let length = if *first < 0x80 {
        usize::from(*first)
    } else {
        let (digits, after) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(d, _)| (1..=4).contains(&d.len()))?;
        rest = after;
        digits.iter().try_fold(0_usize, |length, digit| length.checked_mul(256)?.checked_add(usize::from(*digit)))?
    };
    let (content, after) = rest.split_at_checked(length)?;
    *input = after;
    Some(Tlv { tag: *tag, content, whole: start.get(..start.len() - after.len())? })
}

fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    tlv(input).filter(|found| found.tag == tag).map(|found| found.content)
}

/// The `SubjectPublicKeyInfo` of a certificate (RFC 5280 section 4.1).
fn key_info_of_certificate(mut der: &[u8]) -> Option<&[u8]> {
    let mut certificate = expect(&mut der, SEQUENCE)?;
    let mut fields = expect(&mut certificate, SEQUENCE)?;
    if fields.first() == Some(&EXPLICIT_0) {
        tlv(&mut fields)?;
    }
    // Serial number, signature, issuer, validity, subject.
    for _ in 0..5 {
        tlv(&mut fields)?;
    }
    tlv(&mut fields).map(|found| found.whole)
}

fn of_key_info(mut der: &[u8]) -> Option<Key> {
    let mut info = expect(&mut der, SEQUENCE)?;
    let mut algorithm = expect(&mut info, SEQUENCE)?;
    let (unused, key) = expect(&mut info, BIT_STRING)?.split_first()?;
    if *unused != 0 {
        return None;
    }
    let oid = expect(&mut algorithm, OID)?;
    if oid == OID_RSA {
        let mut rest = key;
        let mut numbers = expect(&mut rest, SEQUENCE)?;
        let (n, e) = (expect(&mut numbers, INTEGER)?, expect(&mut numbers, INTEGER)?);
        return Some(Key::Rsa { n: without_zeros(n), e: without_zeros(e) });
    }
    if oid == OID_ED25519 {
        return Some(Key::Ed25519(key.to_vec()));
    }
    if oid != OID_EC {
        return Some(Key::Other);
    }
    let curve = expect(&mut algorithm, OID)?;
    Some(match curve {
        _ if curve == OID_P256 => Key::P256(key.to_vec()),
        _ if curve == OID_P384 => Key::P384(key.to_vec()),
        _ => Key::Other,
    })
}
