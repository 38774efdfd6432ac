//! `io.jwt.…` as OPA has it: tokens decoded, and verified by keys that the policy brings (`jwt_keys.rs`). Nothing is fetched,
//! nothing is remembered, and the only time is the decision's own. What is not good in form is an error, and an error denies.

use super::jwt_keys::{Alg, Keys};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use regorus::Value;
use serde_json::{Map, Value as Json};

/// Base64 of RFC 7515: with or without padding. Bits that nothing is made of are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// What the content type of a token within a token is.
const NESTED: &str = "JWT";
const NANOS: f64 = 1_000_000_000.0;

/// Calls one of them, by its name. The error is one sentence, without anything of the token or the key.
pub(super) fn call(name: &str, args: &[Value], now_ns: i64) -> Result<Value, String> {
    match (name.strip_prefix("io.jwt."), args) {
        (Some("decode"), [token]) => decode(text(token, "token")?),
        (Some("decode_verify"), [token, constraints]) => {
            let constraints = Constraints::read(constraints, now_ns)?;
            decode_verify(text(token, "token")?, &constraints)
        }
        (Some(rest), [token, key]) => {
            let alg = rest.strip_prefix("verify_").and_then(Alg::of_builtin);
            let alg = alg.ok_or_else(|| format!("`{name}` is not one of the built-ins for tokens"))?;
            verify(text(token, "token")?, text(key, "key")?, alg).map(Value::from)
        }
        _ => Err(format!("`{name}` is not called so")),
    }
}

fn text<'v>(value: &'v Value, what: &str) -> Result<&'v str, String> {
    value.as_string().map(|text| &**text).map_err(|_| format!("the {what} is not a text"))
}

/// The three parts of a token in their compact form.
struct Token<'t> {
    /// Header and payload: what is signed.
    signed: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Token<'t> {
    fn split(token: &'t str) -> Result<Self, String> {
        let bad = || "the token has not three parts".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(bad)?;
        let (header, payload) = signed.split_once('.').filter(|(_, payload)| !payload.contains('.')).ok_or_else(bad)?;
        Ok(Self { signed, header, payload, signature })
    }

    fn header(&self) -> Result<Header, String> {
        let fields = object(&decoded(self.header, "header")?, "header")?;
        if fields.contains_key("enc") {
            return Err("the token is encrypted, which is not read".to_owned());
        }
        Header::of(fields)
    }

    fn signature(&self) -> Result<Vec<u8>, String> {
        decoded(self.signature, "signature")
    }
}

fn decoded(part: &str, what: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(part).map_err(|_| format!("the {what} of the token is not base64url"))
}

fn object(bytes: &[u8], what: &str) -> Result<Map<String, Json>, String> {
    match serde_json::from_slice(bytes) {
        Ok(Json::Object(fields)) => Ok(fields),
        _ => Err(format!("the {what} of the token is no JSON object")),
    }
}

/// What a header says that counts.
struct Header {
    fields: Map<String, Json>,
    alg: String,
    kid: String,
    cty: String,
    /// Whether it asks for something that nobody here knows.
    asks_too_much: bool,
}

impl Header {
    fn of(fields: Map<String, Json>) -> Result<Self, String> {
        let text = |name: &str| match fields.get(name) {
            None => Ok(String::new()),
            Some(Json::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("`{name}` in the header of the token is not a text")),
        };
        text("typ")?;
        let known = ["alg", "kid", "typ", "cty", "crit"];
        let critical: Vec<&str> = match fields.get("crit") {
            None => Vec::new(),
            Some(Json::Array(names)) => names.iter().map_while(Json::as_str).collect(),
            Some(_) => return Err("`crit` in the header of the token is not a list".to_owned()),
        };
        if critical.is_empty() && fields.contains_key("crit") {
            return Err("`crit` in the header of the token names nothing".to_owned());
        }
        let asks_too_much = critical.iter().any(|name| !known.contains(name) && fields.contains_key(*name));
        Ok(Self { alg: text("alg")?, kid: text("kid")?, cty: text("cty")?, asks_too_much, fields })
    }
}

/// `[header, payload, signature in hex]`; the innermost of tokens in one another.
fn decode(token: &str) -> Result<Value, String> {
    let mut inner = token.to_owned();
    loop {
        let token = Token::split(&inner)?;
        let header = token.header()?;
        let payload = decoded(token.payload, "payload")?;
        if header.cty == NESTED {
            // What jwt.io makes of it is quoted.
            let nested = String::from_utf8(payload).map_err(|_| "the inner token is no text".to_owned())?;
            nested.trim_matches(['"', '\'']).clone_into(&mut inner);
            continue;
        }
        let payload = object(&payload, "payload")?;
        let signature = crate::model::hex(&token.signature()?);
        return Ok(Value::from(vec![to_value(header.fields)?, to_value(payload)?, Value::from(signature)]));
    }
}

/// The fields as a document of Rego's.
fn to_value(fields: Map<String, Json>) -> Result<Value, String> {
    match Value::from(Json::Object(fields)) {
        Value::Undefined => Err("the token has a value that Rego has not".to_owned()),
        value => Ok(value),
    }
}

fn verify(token: &str, key: &str, alg: Alg) -> Result<bool, String> {
    let parts = Token::split(token)?;
    if alg.is_symmetric() {
        return Ok(alg.verify_secret(key.as_bytes(), parts.signed.as_bytes(), &parts.signature()?));
    }
    let keys = Keys::parse(key)?;
    let (signature, header) = (parts.signature()?, parts.header()?);
    keys.verify(&header.kid, &header.alg, alg, parts.signed.as_bytes(), &signature)
}

/// What `io.jwt.decode_verify` is to hold a token against.
struct Constraints {
    keys: Option<Keys>,
    secret: String,
    alg: String,
    iss: String,
    aud: String,
    /// In nanoseconds.
    time: f64,
}

impl Constraints {
    #[expect(clippy::cast_precision_loss, reason = "a token's times are seconds; OPA compares them so, too")]
    fn read(value: &Value, now_ns: i64) -> Result<Self, String> {
        let empty = String::new;
        let mut read =
            Self { keys: None, secret: empty(), alg: empty(), iss: empty(), aud: empty(), time: now_ns as f64 };
        let fields = value.as_object().map_err(|_| "the constraints are not an object".to_owned())?;
        for (name, value) in fields.iter() {
            let name = text(name, "name of a constraint")?;
            let bad = |_| format!("the constraint `{name}` is not a text");
            match name {
                "cert" => read.keys = Some(Keys::parse(text(value, "").map_err(bad)?)?),
                "secret" => text(value, "").map_err(bad)?.clone_into(&mut read.secret),
                "alg" => text(value, "").map_err(bad)?.clone_into(&mut read.alg),
                "iss" => text(value, "").map_err(bad)?.clone_into(&mut read.iss),
                "aud" => text(value, "").map_err(bad)?.clone_into(&mut read.aud),
                "time" => {
                    let time = value.as_f64().ok().filter(|time| *time >= 0.0);
                    read.time = time.ok_or("the constraint `time` is not a number of nanoseconds")?;
                }
                _ => return Err(format!("no constraint of tokens is called `{name}`")),
            }
        }
        match (&read.keys, read.secret.is_empty()) {
            (Some(_), true) | (None, false) => Ok(read),
            (Some(_), false) => Err("the constraints name both `cert` and `secret`".to_owned()),
            (None, true) => Err("the constraints name neither `cert` nor `secret`".to_owned()),
        }
    }

    /// Whether the signature is good; by an algorithm that is none of JWT's it never is.
    fn verify(&self, header: &Header, token: &Token<'_>) -> Result<bool, String> {
        let signature = token.signature()?;
        let Some(alg) = Alg::of_header(&header.alg) else { return Ok(false) };
        match &self.keys {
            Some(keys) => keys.verify(&header.kid, &header.alg, alg, token.signed.as_bytes(), &signature),
            None => Ok(alg.verify_secret(self.secret.as_bytes(), token.signed.as_bytes(), &signature)),
        }
    }

    fn takes_audience(&self, audience: Option<&Json>) -> bool {
        match audience {
            None => self.aud.is_empty(),
            Some(Json::String(one)) => *one == self.aud,
            Some(Json::Array(several)) => several.iter().any(|one| one.as_str() == Some(&self.aud)),
            Some(_) => false,
        }
    }

    /// Claims against constraints, and against the time.
    fn take(&self, payload: &Map<String, Json>) -> Result<bool, String> {
        if !self.iss.is_empty() {
            match payload.get("iss") {
                Some(Json::String(issuer)) if *issuer == self.iss => {}
                None | Some(Json::String(_)) => return Ok(false),
                Some(_) => return Err("`iss` of the token is not a text".to_owned()),
            }
        }
        if !self.takes_audience(payload.get("aud")) {
            return Ok(false);
        }
        let seconds = |name: &str| match payload.get(name) {
            None => Ok(None),
            Some(Json::Number(number)) => Ok(number.as_f64()),
            Some(_) => Err(format!("`{name}` of the token is not a number")),
        };
        let now = self.time / NANOS;
        Ok(seconds("exp")?.is_none_or(|end| now < end) && seconds("nbf")?.is_none_or(|start| now >= start))
    }
}

/// `[valid, header, payload]`, both empty unless it is valid.
fn decode_verify(token: &str, constraints: &Constraints) -> Result<Value, String> {
    let mut inner = token.to_owned();
    loop {
        let token = Token::split(&inner)?;
        let header = token.header()?;
        let is_other = !constraints.alg.is_empty() && constraints.alg != header.alg;
        if header.alg.is_empty() || header.asks_too_much || is_other || !constraints.verify(&header, &token)? {
            return Ok(unverified());
        }
        let payload = decoded(token.payload, "payload")?;
        if header.cty.eq_ignore_ascii_case(NESTED) {
            inner = String::from_utf8(payload).map_err(|_| "the inner token is no text".to_owned())?;
            continue;
        }
        let payload = object(&payload, "payload")?;
        if !constraints.take(&payload)? {
            return Ok(unverified());
        }
        return Ok(Value::from(vec![Value::from(true), to_value(header.fields)?, to_value(payload)?]));
    }
}

fn unverified() -> Value {
    Value::from(vec![Value::from(false), Value::new_object(), Value::new_object()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rego::meter;

    #[test]
    fn tokens_are_verified_as_opa_verifies_them() {
        let all: Json =
            serde_json::from_str(include_str!("../../../../../tests/vectors/opa_envoy/tokens.json")).unwrap();
        let now = all["now"].as_i64().unwrap() * 1_000_000_000;
        for case in all["cases"].as_array().unwrap() {
            meter::begin(now);
            let args: Vec<Value> = case["args"].as_array().unwrap().iter().cloned().map(Value::from).collect();
            let said = call(case["call"].as_str().unwrap(), &args, now);
            let name = &case["name"];
            if case["error"] == Json::Bool(true) {
                assert!(said.is_err(), "{name}: {said:?}");
            } else {
                assert_eq!(said, Ok(Value::from(case["want"].clone())), "{name}");
            }
        }
    }

    #[test]
    fn no_error_repeats_a_token_or_a_key() {
        let bad = ["a-secret-text", "a-secret-text.b.c", "eyJhIjoxfQ.a-secret-text.", "-----BEGIN a-secret-text-----"];
        for token in bad {
            for (name, arity) in [("io.jwt.decode", 1), ("io.jwt.verify_rs256", 2), ("io.jwt.decode_verify", 2)] {
                let args: Vec<Value> = (0..arity).map(|_| Value::from(token)).collect();
                let why = call(name, &args, 0).unwrap_err();
                assert!(!why.contains("a-secret"), "{name}: {why}");
            }
        }
    }
}
