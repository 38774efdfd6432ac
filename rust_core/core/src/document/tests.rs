//! Facts about the YAML that files may contain.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut findings = Findings::default();
    let node = parse("f.yaml", text, &mut findings);
    (node, findings.as_slice().iter().map(ToString::to_string).collect())
}

fn good(text: &str) -> Node {
    let (node, findings) = read(text);
    assert!(findings.is_empty(), "{findings:?}");
    node.unwrap()
}

fn codes(text: &str) -> Vec<&'static str> {
    let mut findings = Findings::default();
    parse("f.yaml", text, &mut findings);
    findings.as_slice().iter().map(|finding| finding.code).collect()
}

#[test]
fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_text() {
    let node = good(
        "{a: 5m, b: 2027-06-30, c: yes, d: 0x10, e: 0o17, f: -7, g: 1.5, h: 'true', i: \"12\", j: ~, k: , l: True, m: 99999999999999999999, n: +5}",
    );
    let expected = json!({"a": "5m", "b": "2027-06-30", "c": "yes", "d": 16, "e": 15, "f": -7, "g": "1.5", "h": "true",
        "i": "12", "j": null, "k": null, "l": true, "m": "99999999999999999999", "n": 5});
    assert_eq!(node.to_json(), expected);
}

#[test]
fn an_empty_file_is_nothing() {
    for text in ["", "# only a comment\n", "---\n"] {
        assert_eq!(good(text).kind, Kind::Null, "{text:?}");
    }
}

#[test]
fn places_count_from_one_and_an_entry_stands_where_its_key_is() {
    let node = good("routes:\n  - match: {path: /x}\n    a/b: ü\n");
    let places: Vec<_> = node.places().into_iter().map(|(p, at)| (p, at.line, at.column)).collect();
    let expected = [
        ("", 1, 1),
        ("/routes", 1, 1),
        ("/routes/0", 2, 5),
        ("/routes/0/match", 2, 5),
        ("/routes/0/match/path", 2, 13),
        ("/routes/0/a~1b", 3, 5),
    ];
    assert_eq!(places, expected.map(|(p, line, column)| (p.to_owned(), line, column)));
}

#[test]
fn what_hides_meaning_is_refused_with_its_place() {
    for (text, code, line) in [
        ("a: &x 1\n", "yaml_anchor", 1),
        ("a: 1\nb: !!str 2\n", "yaml_tag", 2),
        ("a: !x {}\n", "yaml_tag", 1),
        ("<<: {a: 1}\n", "yaml_merge", 1),
        ("a: 1\nb: 2\na: 3\n", "duplicate_key", 3),
        ("a: 1\n'a': 3\n", "duplicate_key", 2),
        ("a: 1\n---\nb: 2\n", "yaml_documents", 2),
        ("? [a]\n: 1\n", "yaml_key", 1),
        ("~: 1\n", "yaml_key", 1),
        ("a: [1\n", "yaml_syntax", 2),
        ("a: b: c\n", "yaml_syntax", 1),
    ] {
        let mut findings = Findings::default();
        parse("f.yaml", text, &mut findings);
        let [finding] = findings.as_slice() else { panic!("{text:?}: {findings:?}") };
        assert_eq!((finding.code, finding.place.line), (code, line), "{text:?}: {finding}");
    }
    assert_eq!(codes("a: &x 1\nb: *x\n"), ["yaml_anchor", "yaml_alias"]);
}

#[test]
fn several_mistakes_are_found_in_one_pass_and_the_rest_is_kept() {
    let (node, findings) = read("a: &x 1\nb: !t 2\nb: 3\nc: 4\n");
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert_eq!(node.unwrap().to_json(), json!({"a": 1, "b": 2, "c": 4}));
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(codes(&deep(crate::limits::MAX_YAML_DEPTH)).is_empty());
    assert_eq!(codes(&deep(crate::limits::MAX_YAML_DEPTH + 1)), ["yaml_depth"]);
    assert_eq!(codes(&"{a: ".repeat(100_000)).len(), 1);
    assert_eq!(codes(&"- ".repeat(100_000)), ["yaml_depth"]);
    assert_eq!(codes(&" ".repeat(crate::limits::MAX_FILE_BYTES + 1)), ["file_too_large"]);
}

#[test]
fn a_map_is_read_strictly() {
    let node = good("max_aeg: 5m\nowner: 12\ncolour: gren\nmembers: [a, 1]\n");
    let mut findings = Findings::default();
    let mut fields = Fields::of("f.yaml", "device", &node, &mut findings).unwrap();
    assert_eq!(fields.require_text("max_age", &mut findings), None);
    assert_eq!(fields.text("owner", &mut findings), None);
    assert_eq!(fields.word("colour", &[("green", 1), ("red", 2)], &mut findings), None);
    assert_eq!(fields.texts("members", &mut findings), None);
    assert_eq!(fields.flag("absent", &mut findings), None);
    fields.finish(&mut findings);
    let said: Vec<_> = findings.into_sorted().iter().map(ToString::to_string).collect();
    let expected = [
        "f.yaml:1:1: error: `max_age` is missing",
        "f.yaml:1:1: error: unknown key `max_aeg`, did you mean `max_age`?",
        "f.yaml:2:8: error: `owner`: expected text, found the number `12`; put it in quotes to make it text",
        "f.yaml:3:9: error: `colour`: expected one of `green`, `red`, found `gren`, did you mean `green`?",
        "f.yaml:4:14: error: `members`: expected text, found the number `1`; put it in quotes to make it text",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_feature_that_is_not_built_says_so() {
    let node = good("normalize: true\n");
    let mut findings = Findings::default();
    let mut fields = Fields::of("f.yaml", "file", &node, &mut findings).unwrap();
    fields.not_built("normalize", &mut findings);
    fields.finish(&mut findings);
    assert_eq!(findings.as_slice().len(), 1);
    assert_eq!(findings.as_slice().first().unwrap().code, "not_built");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_text_is_read_or_refused_and_never_panics(text in "[a-c \\-:\\[\\]{}&*!?<|>'\"#\n,%@~0-2]{0,60}") {
        let (node, findings) = read(&text);
        prop_assert!(node.is_some() || !findings.is_empty());
    }
}
