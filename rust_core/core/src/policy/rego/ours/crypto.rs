//! Hashes that can't be forged.

use super::{Answer, built, text};
use crate::model::hex;
use hmac::{Hmac, KeyInit as _, Mac as _};
use regorus::Value;
use sha2::{Digest as _, Sha256, Sha512};

pub(super) fn sha256(args: &[Value], _: i64) -> Answer {
    built(hex(&Sha256::digest(text(args, 0)?)))
}

pub(super) fn hmac_sha256(args: &[Value], _: i64) -> Answer {
    let mut mac = Hmac::<Sha256>::new_from_slice(text(args, 1)?.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(text(args, 0)?.as_bytes());
    built(hex(&mac.finalize().into_bytes()))
}

pub(super) fn hmac_sha512(args: &[Value], _: i64) -> Answer {
    let mut mac = Hmac::<Sha512>::new_from_slice(text(args, 1)?.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(text(args, 0)?.as_bytes());
    built(hex(&mac.finalize().into_bytes()))
}

/// Takes as long for any two texts of one length.
pub(super) fn hmac_equal(args: &[Value], _: i64) -> Answer {
    let (first, second) = (text(args, 0)?.as_bytes(), text(args, 1)?.as_bytes());
    let differs = first.iter().zip(second).fold(0, |seen, (one, other)| seen | (one ^ other));
    Ok(Value::Bool(first.len() == second.len() && differs == 0))
}
