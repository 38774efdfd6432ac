//! OPA's conformance cases through the loader and the evaluation of every other policy. Only in tests and in builds with
//! the feature `conformance`: `examples/rego_cases.rs` runs them.

use super::{RegoEngine, RegoFiles, evaluate};
use crate::{
    findings::Findings,
    policy::settings::{RegoInput, RegoSettings},
};
use regorus::Value;
use std::collections::BTreeSet;

/// The moment of every case: what a case expects does not depend on it.
const NOW_NS: i64 = 1_790_000_000_000_000_000;

/// Where a query that is more than the path of a rule is put.
const ASKED: &str = "data.conformance_case.answers";

/// One case. Documents are texts of JSON, so that no reader changes their numbers.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Case {
    /// Below which folder of the suite it stands, such as `v1/aggregates`.
    pub folder: String,
    /// What it is called there; a few share a name.
    pub note: String,
    /// What is asked, such as `data.test.p = x`.
    pub query: String,
    /// The policies.
    #[serde(default)]
    pub modules: Vec<String>,
    /// `data`.
    #[serde(default)]
    pub data: Option<String>,
    /// `input`.
    #[serde(default)]
    pub input: Option<String>,
    /// `input` as a term of Rego.
    #[serde(default)]
    pub input_term: Option<String>,
    /// The answers: an array of objects, a value for each variable of the query. None where an error is wanted.
    #[serde(default)]
    pub want_result: Option<String>,
    /// Arrays are compared as if they were sorted.
    #[serde(default)]
    pub sort_bindings: bool,
}

/// How a case stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As OPA answers, or an error where OPA gives one.
    Passed,
    /// Not loaded: the code of the first finding, and its sentence.
    Refused(&'static str, String),
    /// An error, which denies, where OPA gives an answer.
    Denied(String),
    /// Another answer than OPA's. There must be none.
    Wrong(String),
}

/// What became of the question.
enum Gave {
    Refused(&'static str, String),
    Failed(String),
    Answers(BTreeSet<Value>),
}

/// Runs a case.
pub fn run(case: &Case) -> Standing {
    judged(case, ask(case))
}

fn judged(case: &Case, gave: Gave) -> Standing {
    let answers = match gave {
        Gave::Refused(code, message) => return Standing::Refused(code, message),
        Gave::Failed(_) if case.want_result.is_none() => return Standing::Passed,
        Gave::Failed(why) => return Standing::Denied(why),
        Gave::Answers(answers) => answers,
    };
    let found: BTreeSet<Value> = answers.iter().filter_map(|answer| comparable(answer, case.sort_bindings)).collect();
    let shown = |answers: &BTreeSet<Value>| answers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let Some(wanted) = &case.want_result else {
        return Standing::Wrong(format!("gives {} where OPA gives an error", shown(&found)));
    };
    let Ok(Value::Array(wanted)) = Value::from_json_str(wanted) else {
        return Standing::Wrong("what is wanted can't be read".to_owned());
    };
    let wanted: BTreeSet<Value> = wanted.iter().filter_map(|answer| comparable(answer, case.sort_bindings)).collect();
    if found == wanted && found.len() == answers.len() {
        Standing::Passed
    } else {
        Standing::Wrong(format!("gives {} where OPA gives {}", shown(&found), shown(&wanted)))
    }
}

/// An answer as JSON has it: sets as sorted arrays, keys as texts.
fn comparable(answer: &Value, sorted: bool) -> Option<Value> {
    let mut plain = Value::from_json_str(&answer.to_json_str().ok()?).ok()?;
    if sorted && let Ok(variables) = plain.as_object_mut() {
        for (_, value) in variables.iter_mut() {
            if let Ok(items) = value.as_array_mut() {
                items.sort();
            }
        }
    }
    Some(plain)
}

fn ask(case: &Case) -> Gave {
    let input = match input(case) {
        Ok(input) => input,
        Err(why) => return Gave::Refused("input_term", why),
    };
    if let Some((path, variable)) = path(&case.query) {
        match load(case, path, None) {
            Ok(engine) => {
                return match evaluate::evaluate(&engine, input, NOW_NS) {
                    Ok(Value::Undefined) => Gave::Answers(BTreeSet::new()),
                    Ok(value) => Gave::Answers(one(variable, value).into_iter().collect()),
                    Err(why) => Gave::Failed(why),
                };
            }
            // A document without a rule: asked for by a rule of ours, as any other query.
            Err(("no_entry_point", _)) => {}
            Err((_, message)) if message.contains("not a valid rule path") => {}
            Err((code, message)) => return Gave::Refused(code, message),
        }
    }
    let engine = match load(case, ASKED, Some(&asking(case))) {
        Ok(engine) => engine,
        Err((code, message)) => return Gave::Refused(code, message),
    };
    match evaluate::evaluate(&engine, input, NOW_NS) {
        Ok(Value::Set(answers)) => Gave::Answers(answers.iter().cloned().collect()),
        Ok(Value::Undefined) => Gave::Answers(BTreeSet::new()),
        Ok(other) => Gave::Failed(format!("answers are a set, found `{other}`")),
        Err(why) => Gave::Failed(why),
    }
}

fn one(variable: &str, value: Value) -> Option<Value> {
    let mut answer = Value::new_object();
    answer.as_object_mut().ok()?.insert(Value::from(variable), value);
    Some(answer)
}

/// `data.a.b = x`: the path and the variable.
fn path(query: &str) -> Option<(&str, &str)> {
    let (path, variable) = query.split_once('=')?;
    let (path, variable) = (path.trim(), variable.trim());
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let below = path.strip_prefix("data.")?;
    (below.split('.').all(word) && word(variable) && !matches!(variable, "true" | "false" | "null" | "input" | "data"))
        .then_some((path, variable))
}

/// A rule that gives the answers of any query: an object of its variables for each.
fn asking(case: &Case) -> String {
    let wanted = case.want_result.as_deref().and_then(|wanted| Value::from_json_str(wanted).ok());
    let first = wanted.as_ref().and_then(|wanted| wanted.as_array().ok()).and_then(|wanted| wanted.iter().next());
    let names: Vec<String> = first
        .and_then(|first| first.as_object().ok())
        .map(|first| {
            first
                .iter_sorted()
                .filter_map(|(name, _)| name.as_string().ok())
                .map(|name| format!("\"{name}\": {name}"))
                .collect()
        })
        .unwrap_or_default();
    format!("package conformance_case\n\nanswers contains {{{}}} if {{\n\t{}\n}}\n", names.join(", "), case.query)
}

fn load(case: &Case, query: &str, beside: Option<&str>) -> Result<RegoEngine, (&'static str, String)> {
    let named: Vec<String> = (0..case.modules.len()).map(|nth| format!("policies/{nth}.rego")).collect();
    let mut policies: Vec<(&str, &str)> =
        named.iter().zip(&case.modules).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    policies.extend(beside.map(|text| ("policies/asking.rego", text)));
    // Any input at all: in the governed form most of what the cases read would be refused.
    let settings = RegoSettings {
        query: query.to_owned(),
        input: RegoInput::OpaEnvoy,
        ungoverned: true,
        ..RegoSettings::default()
    };
    let mut findings = Findings::default();
    let files = RegoFiles { policies: &policies, data: case.data.as_deref(), settings: &settings };
    let loaded = RegoEngine::load(files, &[], &[], &mut findings);
    let refusal =
        findings.into_sorted().into_iter().find(|finding| finding.severity == crate::findings::Severity::Error);
    match (loaded, refusal) {
        (Some(engine), None) => Ok(engine),
        (_, Some(finding)) => Err((finding.code, finding.message)),
        (None, None) => Err(("unknown", "not loaded, without a finding".to_owned())),
    }
}

fn input(case: &Case) -> Result<Value, String> {
    match (&case.input_term, &case.input) {
        (Some(term), _) => {
            let results = regorus::Engine::new().eval_query(term.clone(), false).map_err(|error| error.to_string())?;
            let value = results.result.last().and_then(|result| result.expressions.last());
            value.map(|expression| expression.value.clone()).ok_or_else(|| "the input has no value".to_owned())
        }
        (None, Some(input)) => Value::from_json_str(input).map_err(|error| error.to_string()),
        (None, None) => Ok(Value::Undefined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(query: &str, module: &str, wanted: Option<&str>) -> Case {
        Case {
            query: query.to_owned(),
            modules: vec![module.to_owned()],
            want_result: wanted.map(str::to_owned),
            input: Some(r#"{"n": 7}"#.to_owned()),
            ..Case::default()
        }
    }

    const MODULE: &str = "package test\n\np := input.n + 1\n\nq contains x if some x in [1, 2]\n\nf(x) := x * 2\n";

    #[test]
    fn an_answer_as_opas_passes() {
        assert_eq!(run(&case("data.test.p = x", MODULE, Some(r#"[{"x": 8}]"#))), Standing::Passed);
        assert_eq!(run(&case("data.test.q = x", MODULE, Some(r#"[{"x": [1, 2]}]"#))), Standing::Passed);
        assert_eq!(run(&case("data.test.f(2) = y", MODULE, Some(r#"[{"y": 4}]"#))), Standing::Passed);
        assert_eq!(run(&case("data.test.q[y]; y > 1", MODULE, Some(r#"[{"y": 2}]"#))), Standing::Passed);
        assert_eq!(run(&case("data.test.missing = x", MODULE, Some("[]"))), Standing::Passed);
    }

    #[test]
    fn a_seeded_wrong_answer_is_caught() {
        for (query, wanted) in [
            ("data.test.p = x", Some(r#"[{"x": 9}]"#)),
            ("data.test.p = x", Some("[]")),
            ("data.test.p = x", None),
            ("data.test.q = x", Some(r#"[{"x": [1]}]"#)),
            ("data.test.f(2) = y", Some(r#"[{"y": 5}]"#)),
            ("data.test.missing = x", Some(r#"[{"x": 1}]"#)),
        ] {
            let standing = run(&case(query, MODULE, wanted));
            assert!(matches!(standing, Standing::Wrong(_)), "{query} {wanted:?}: {standing:?}");
        }
    }

    #[test]
    fn a_refused_function_is_refused_and_an_error_denies() {
        let refused = run(&case("data.test.p = x", "package test\n\np := http.send({})\n", Some("[]")));
        assert!(matches!(refused, Standing::Refused("refused_builtin", _)), "{refused:?}");
        let failing = "package test\n\np := to_number(\"x\")\n";
        assert!(matches!(run(&case("data.test.p = x", failing, Some("[]"))), Standing::Denied(_)));
        assert_eq!(run(&case("data.test.p = x", failing, None)), Standing::Passed);
    }

    #[test]
    fn the_last_argument_of_a_function_of_ours_may_take_its_result() {
        for (body, wanted) in [
            (r#"net.cidr_contains("10.0.0.0/8", input.a, x)"#, "true"),
            ("array.flatten([[1], 2], [x, _])", "1"),
            ("crypto.sha256(\n\t\t\"abc\", y,\n\t); x := count(y)", "64"),
            ("y := [z | strings.split_n(\"a,b\", \",\", 1, z)]; x := y[0][0]", "\"a\""),
            ("not net.cidr_contains(\"10.0.0.0/8\", \"11.1.1.1\", true); x := 7", "7"),
        ] {
            let module = format!("package test\n\np := x if {{\n\t{body}\n}}\n");
            let mut asked = case("data.test.p = x", &module, Some(&format!(r#"[{{"x": {wanted}}}]"#)));
            asked.input = Some(r#"{"a": "10.1.1.1"}"#.to_owned());
            assert_eq!(run(&asked), Standing::Passed, "{body}");
        }
        let nested = case("data.test.p = x", "package test\n\np if [crypto.sha256(\"a\", x)] == [true]\n", None);
        assert!(matches!(run(&nested), Standing::Refused("wrong_arguments", _)));
    }

    #[test]
    fn what_the_interpreter_answers_otherwise_than_opa_is_refused() {
        for module in [
            "package test\n\np if 1, 1 in {1}\n",
            "package test\n\np := [v | [_, v] := walk(input)]\n",
            "package test\n\np := 1\n\ndefault f.g(_) := 1\n",
            "package test\n\np[x] := 1 if x := \"a\"\n\np.b := 2 if false\n",
            "package test\n\nimport future.keywords.not\n\np := 1\n",
            "package test\n\nimport future.keywords\n\np := 1\n",
        ] {
            let standing = run(&case("data.test.p = x", module, Some("[]")));
            assert!(matches!(standing, Standing::Refused("refused_construct", _)), "{module}: {standing:?}");
        }
        for import in ["future.keywords.in", "rego.v1"] {
            let module = format!("package test\n\nimport {import}\n\np if 1 in {{1}}\n");
            assert_eq!(run(&case("data.test.p = x", &module, Some(r#"[{"x": true}]"#))), Standing::Passed, "{import}");
        }
    }

    #[test]
    fn sorted_answers_are_compared_without_their_order() {
        let module = "package test\n\np := [2, 1]\n";
        let mut unsorted = case("data.test.p = x", module, Some(r#"[{"x": [1, 2]}]"#));
        assert!(matches!(run(&unsorted), Standing::Wrong(_)));
        unsorted.sort_bindings = true;
        assert_eq!(run(&unsorted), Standing::Passed);
    }
}
