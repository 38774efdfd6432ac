//! What an entry point gives, read as OPA's Envoy plugin reads it: true or false, or an object with `allowed` and what it
//! says of the answer. Whatever else it gives is a denial with a sentence, never an error of the call.

use crate::{
    limits::{MAX_ANSWER_HEADERS, MAX_REGO_RESULT_BYTES, MAX_REGO_RESULT_DEPTH},
    policy::PolicyAnswer,
};
use regorus::Value;
use serde_json::{Map, Value as Json};

/// An answer that was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) allowed: bool,
    /// What an object says beside `allowed`; `None` if nothing.
    pub(super) answer: Option<PolicyAnswer>,
}

/// Reads the value of an entry point. `Err` says what is wrong with its shape.
pub(super) fn read(value: &Value) -> Result<Said, String> {
    match value {
        // No rule applies.
        Value::Undefined => Ok(Said::default()),
        Value::Bool(allowed) => Ok(Said { allowed: *allowed, answer: None }),
        Value::Object(fields) => {
            // Before anything is copied: a result may share its parts a thousand times over.
            let mut left = MAX_REGO_RESULT_BYTES;
            measure(value, 0, &mut left)?;
            let field = |name: &str| fields.get(&Value::from(name));
            let allowed = match field("allowed") {
                Some(Value::Bool(allowed)) => *allowed,
                Some(other) => return Err(wrong("allowed", "a boolean", other)),
                None => return Err("the result is an object without `allowed`".to_owned()),
            };
            let answer = answer(allowed, field)?;
            Ok(Said { allowed, answer: (answer != PolicyAnswer::default()).then_some(answer) })
        }
        other => Err(format!("the result is {}, expected a boolean or an object with `allowed`", kind(other))),
    }
}

fn answer<'v>(allowed: bool, field: impl Fn(&str) -> Option<&'v Value>) -> Result<PolicyAnswer, String> {
    let mut answer = PolicyAnswer {
        headers: headers("headers", field("headers"))?,
        response_headers: headers("response_headers_to_add", field("response_headers_to_add"))?,
        http_status: field("http_status").map(status).transpose()?,
        body: field("body").map(body).transpose()?,
        query_set: pairs("query_parameters_to_set", field("query_parameters_to_set"))?,
        query_remove: names("query_parameters_to_remove", field("query_parameters_to_remove"))?,
        metadata: field("dynamic_metadata").map(metadata).transpose()?.unwrap_or_default(),
        ..PolicyAnswer::default()
    };
    for name in ["request_headers_to_remove", "headers_to_remove"] {
        answer.remove_headers.extend(names(name, field(name))?);
    }
    if allowed {
        (answer.http_status, answer.body) = (None, None);
    } else {
        answer.response_headers.clear();
        answer.remove_headers.clear();
        answer.query_set.clear();
        answer.query_remove.clear();
    }
    Ok(answer)
}

/// Headers as an object, or as a list of objects.
fn headers(name: &str, value: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let Some(Value::Array(items)) = value else { return pairs(name, value) };
    let mut all = Vec::new();
    for item in items.iter() {
        all.extend(pairs(name, Some(item))?);
    }
    few(name, all)
}

/// An object whose values are texts or lists of texts.
fn pairs(name: &str, value: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let fields = match value {
        None => return Ok(Vec::new()),
        Some(Value::Object(fields)) => fields,
        Some(other) => return Err(wrong(name, "an object", other)),
    };
    let mut all = Vec::new();
    for (key, value) in fields.iter_sorted() {
        let Value::String(key) = key else { return Err(wrong(name, "an object whose keys are texts", key)) };
        match value {
            Value::String(text) => all.push((key.to_string(), text.to_string())),
            Value::Array(texts) => {
                for text in texts.iter() {
                    let Value::String(text) = text else {
                        return Err(format!("a value of `{key}` in `{name}` is {}, expected a text", kind(text)));
                    };
                    all.push((key.to_string(), text.to_string()));
                }
            }
            other => {
                return Err(format!("`{key}` in `{name}` is {}, expected a text or a list of texts", kind(other)));
            }
        }
    }
    few(name, all)
}

/// A list of names; a set is one, too.
fn names(name: &str, value: Option<&Value>) -> Result<Vec<String>, String> {
    let text = |item: &Value| match item {
        Value::String(text) => Ok(text.to_string()),
        other => Err(format!("an entry of `{name}` is {}, expected a text", kind(other))),
    };
    let all: Vec<String> = match value {
        None => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(text).collect::<Result<_, _>>()?,
        Some(Value::Set(items)) => items.iter_sorted().map(text).collect::<Result<_, _>>()?,
        Some(other) => return Err(wrong(name, "a list of texts", other)),
    };
    few(name, all)
}

fn few<T>(name: &str, all: Vec<T>) -> Result<Vec<T>, String> {
    if all.len() > MAX_ANSWER_HEADERS {
        return Err(format!("`{name}` has {} entries, more than {MAX_ANSWER_HEADERS}", all.len()));
    }
    Ok(all)
}

fn status(value: &Value) -> Result<u16, String> {
    let Value::Number(_) = value else { return Err(wrong("http_status", "a number", value)) };
    let number = value.as_u16().ok().filter(|status| (100..600).contains(status));
    number.ok_or_else(|| format!("`http_status` is {value}, which is no HTTP status"))
}

fn body(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.to_string()),
        other => Err(wrong("body", "a text", other)),
    }
}

fn metadata(value: &Value) -> Result<Map<String, Json>, String> {
    match json(value)? {
        Json::Object(fields) => Ok(fields),
        _ => Err(wrong("dynamic_metadata", "an object", value)),
    }
}

/// A value as JSON; a set is a list, a key that is no text is written as JSON. Its depth was measured.
fn json(value: &Value) -> Result<Json, String> {
    Ok(match value {
        Value::Null | Value::Undefined => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::String(text) => Json::String(text.to_string()),
        Value::Number(_) => {
            let text = value.to_json_str().map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| format!("the number {text}: {error}"))?
        }
        Value::Array(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Set(items) => Json::Array(items.iter_sorted().map(json).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let mut object = Map::new();
            for (key, value) in fields.iter_sorted() {
                let key = match key {
                    Value::String(text) => text.to_string(),
                    other => other.to_json_str().map_err(|error| error.to_string())?,
                };
                object.insert(key, json(value)?);
            }
            Json::Object(object)
        }
    })
}

/// Walks a value until it is known to be small, or a byte too large.
fn measure(value: &Value, depth: usize, left: &mut usize) -> Result<(), String> {
    if depth > MAX_REGO_RESULT_DEPTH {
        return Err(format!("the result is nested deeper than {MAX_REGO_RESULT_DEPTH}"));
    }
    let own = match value {
        Value::String(text) => text.len().max(1),
        _ => size_of::<Value>(),
    };
    *left = left.checked_sub(own).ok_or_else(|| format!("the result is larger than {MAX_REGO_RESULT_BYTES} bytes"))?;
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| measure(item, depth + 1, left)),
        Value::Set(items) => items.iter_sorted().try_for_each(|item| measure(item, depth + 1, left)),
        Value::Object(fields) => fields.iter_sorted().try_for_each(|(key, value)| {
            measure(key, depth + 1, left)?;
            measure(value, depth + 1, left)
        }),
        _ => Ok(()),
    }
}

fn wrong(name: &str, expected: &str, found: &Value) -> String {
    format!("`{name}` is {}, expected {expected}", kind(found))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Said, String> {
        read(&Value::from_json_str(json).unwrap())
    }

    fn answer_of(json: &str) -> PolicyAnswer {
        of(json).unwrap().answer.unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_boolean_is_the_whole_answer() {
        assert_eq!(of("true"), Ok(Said { allowed: true, answer: None }));
        assert_eq!(of("false"), Ok(Said::default()));
    }

    #[test]
    fn undefined_is_a_denial() {
        assert_eq!(read(&Value::Undefined), Ok(Said::default()));
    }

    #[test]
    fn an_object_says_more_of_an_allow() {
        let said = answer_of(
            r#"{"allowed": true, "headers": {"x": "y", "z": ["1", "2"]}, "request_headers_to_remove": ["a"],
                "headers_to_remove": ["b"], "response_headers_to_add": [{"r": "s"}], "http_status": 301, "body": "no",
                "query_parameters_to_set": {"q": ["1", "2"]}, "query_parameters_to_remove": ["w"],
                "dynamic_metadata": {"n": 1.5, "l": [true, null]}}"#,
        );
        assert_eq!(said.headers, [pair("x", "y"), pair("z", "1"), pair("z", "2")]);
        assert_eq!(said.remove_headers, ["a", "b"]);
        assert_eq!(said.response_headers, [pair("r", "s")]);
        assert_eq!(said.query_set, [pair("q", "1"), pair("q", "2")]);
        assert_eq!(said.query_remove, ["w"]);
        assert_eq!(said.metadata.get("n"), Some(&serde_json::json!(1.5)));
        assert_eq!((said.http_status, said.body), (None, None), "an allow has neither");
    }

    #[test]
    fn an_object_says_more_of_a_denial() {
        let said = answer_of(
            r#"{"allowed": false, "http_status": 302, "headers": [{"location": "/login"}], "body": "go",
                "response_headers_to_add": {"r": "s"}, "query_parameters_to_set": {"q": "1"}}"#,
        );
        assert_eq!((said.http_status, said.body.as_deref()), (Some(302), Some("go")));
        assert_eq!(said.headers, [pair("location", "/login")]);
        assert!(said.response_headers.is_empty() && said.query_set.is_empty(), "they are for an allow");
    }

    #[test]
    fn a_wrong_shape_is_told_in_a_sentence() {
        for (json, part) in [
            ("1", "the result is a number"),
            ("[true]", "the result is a list"),
            ("null", "the result is null"),
            ("{}", "without `allowed`"),
            (r#"{"allowed": "true"}"#, "`allowed` is a text"),
            (r#"{"allowed": true, "headers": "x"}"#, "`headers` is a text"),
            (r#"{"allowed": true, "headers": {"x": 1}}"#, "`x` in `headers` is a number"),
            (r#"{"allowed": true, "headers": {"x": [1]}}"#, "a value of `x` in `headers` is a number"),
            (r#"{"allowed": true, "headers": ["x"]}"#, "`headers` is a text"),
            (r#"{"allowed": true, "headers_to_remove": {"x": 1}}"#, "`headers_to_remove` is an object"),
            (r#"{"allowed": true, "request_headers_to_remove": [1]}"#, "an entry of `request_headers_to_remove`"),
            (r#"{"allowed": false, "http_status": "302"}"#, "`http_status` is a text"),
            (r#"{"allowed": false, "http_status": 999}"#, "no HTTP status"),
            (r#"{"allowed": false, "http_status": 4.5}"#, "no HTTP status"),
            (r#"{"allowed": false, "body": {}}"#, "`body` is an object"),
            (r#"{"allowed": true, "dynamic_metadata": []}"#, "`dynamic_metadata` is a list"),
            (r#"{"allowed": true, "query_parameters_to_set": {"a": {}}}"#, "`a` in `query_parameters_to_set`"),
        ] {
            let why = of(json).unwrap_err();
            assert!(why.contains(part), "{json}: {why}");
        }
    }

    #[test]
    fn a_huge_or_deep_result_is_refused_before_it_is_copied() {
        let mut shared = Value::from("x".repeat(1000).as_str());
        for _ in 0..12 {
            shared = Value::from(vec![shared.clone(), shared]);
        }
        let mut object = Value::new_object();
        let fields = object.as_object_mut().unwrap();
        fields.insert(Value::from("allowed"), Value::from(true));
        fields.insert(Value::from("dynamic_metadata"), shared);
        assert!(read(&object).unwrap_err().contains("larger than"));
        let deep = format!(r#"{{"allowed": true, "dynamic_metadata": {{"x": {}{}}}}}"#, "[".repeat(40), "]".repeat(40));
        assert!(of(&deep).unwrap_err().contains("nested deeper"));
        let many: Vec<String> = (0..100).map(|n| format!(r#""h{n}": "v""#)).collect();
        let many = format!(r#"{{"allowed": true, "headers": {{{}}}}}"#, many.join(","));
        assert!(of(&many).unwrap_err().contains("more than"));
    }
}
