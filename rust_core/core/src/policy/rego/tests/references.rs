//! What files of Rego may refer to: governed signals by names that are written out, functions that are known, and nothing
//! that can't be analysed.

use super::*;

#[test]
fn an_unregistered_signal_is_refused_with_the_nearest_name() {
    let message = is_refused("allow if {\n  input.signals.postur == \"ok\"\n}", "unregistered_signal", 3);
    assert!(message.contains("`postur`") && message.contains("did you mean `posture`?"), "{message}");
    // Even where no rule that is asked for reaches it.
    is_refused("allow := true\nother if input.signals.postur", "unregistered_signal", 3);
}

#[test]
fn a_signal_whose_contract_does_not_name_the_action_is_refused() {
    let two = RegoSettings { actions: Some(vec!["pay".into(), "read".into()]), ..RegoSettings::default() };
    let text = "package authz\nallow if input.signals.risk < 5";
    let findings = load_with(&[text], None, &two).err().unwrap();
    assert_eq!((findings[0].code, findings[0].place.line), ("ungoverned_read", 2));
    assert!(findings[0].message.contains("`read`") && findings[0].message.contains("signals.yaml:7"));
    let coarse = RegoSettings { actions: Some(vec!["list".into()]), ..RegoSettings::default() };
    let findings = load_with(&[text], None, &coarse).err().unwrap();
    assert!(findings[0].message.contains("coarse"), "{findings:?}");
}

#[test]
fn a_rule_that_is_not_reached_is_no_mention() {
    let engine = load("allow if input.signals.risk < 5\nother if input.signals.posture == \"ok\"").unwrap();
    assert_eq!(engine.info.mentions, [index("risk")]);
}

#[test]
fn mentions_are_found_through_rules_functions_imports_and_files() {
    let first = "package authz\nimport data.lib.checks\nallow if checks.calm(1)\nallow if data.lib.other";
    let second = "package lib\nother if input.signals[\"posture\"] == \"ok\"";
    let third = "package lib.checks\nimport input.signals.score as s\ncalm(x) if { deeper; x == 1 }\ndeeper if to_number(s) < input.signals.risk";
    let engine = load_with(&[first, second, third], None, &settings()).unwrap();
    assert_eq!(engine.info.mentions, [index("posture"), index("risk"), index("score")]);
}

#[test]
fn a_signal_that_may_only_be_observed_is_refused() {
    is_refused("allow if input.signals.watched", "observed_signal", 2);
}

#[test]
fn input_as_a_whole_is_refused_in_whatever_dress() {
    for text in [
        "allow if {\n x := input\n x.signals.risk < 5\n}",
        "allow if {\n some k\n input[k] == 1\n}",
        "allow if {\n some k\n input.signals[k] == 1\n}",
        "allow if {\n k := \"risk\"\n input.signals[k] < 5\n}",
        "allow if {\n walk(input, [p, v])\n v == 1\n p\n}",
        "allow if {\n count(input.signals) > 0\n}",
        "allow if {\n f(input)\n}\nf(x) if x.signals.risk < 5",
        "allow if {\n {\"a\": input}.a.signals.risk < 5\n}",
        "allow if {\n some v in input.signals\n v == 1\n}",
        "allow if {\n every v in input.signals { v == 1 }\n}",
        "allow if {\n \"x\" in input\n}",
        "allow if {\n [input][0].signals.risk < 5\n}",
        "allow if {\n object.get(input, [\"signals\", \"risk\"], 9) < 5\n}",
        "allow if {\n json.marshal(input) == \"{}\"\n}",
        "allow if {\n sprintf(\"%v\", [input.signals]) == \"x\"\n}",
        "allow if {\n input == {}\n}",
        "allow if {\n x = input.signals\n x.risk < 5\n}",
        "allow if {\n not input.signals\n}",
    ] {
        let found = refused(text);
        assert!(!found.is_empty() && found.iter().all(|(code, ..)| *code == "input_whole"), "{text}: {found:?}");
    }
}

#[test]
fn an_import_of_all_signals_gives_no_more_than_input_does() {
    is_refused("import input.signals as s\nallow if {\n some k\n s[k] == 1\n}", "input_whole", 5);
    is_refused("import input as i\nallow if {\n x := i\n x.signals.risk < 5\n}", "input_whole", 4);
    let engine = load("import input.signals as s\nallow if s.risk < 5").unwrap();
    assert_eq!(engine.info.mentions, [index("risk")]);
    let engine = load("import input\nallow if input.signals.risk < 5").unwrap();
    assert_eq!(engine.info.mentions, [index("risk")]);
}

#[test]
fn a_variable_or_alias_may_not_be_called_as_a_document_is() {
    is_refused("allow if f(1)\nf(input) if input.signals.risk < 5", "shadowed_document", 3);
    assert!(
        refused("allow if {\n some data in [1]\n data == 1\n}").iter().any(|(code, ..)| *code == "shadowed_document")
    );
    assert!(refused("import data.lib.input\nallow := true").iter().any(|(code, ..)| *code == "shadowed_document"));
}

#[test]
fn an_override_of_input_is_refused_where_it_is_reached() {
    is_refused("allow if {\n other with input as {}\n}\nother := true", "input_overridden", 3);
    is_refused("allow if {\n other with input.signals.risk as 1\n}\nother := true", "input_overridden", 3);
    is_refused(
        "import input.signals as s\nallow if {\n other with s.risk as 1\n}\nother := true",
        "input_overridden",
        4,
    );
    assert!(load("allow := true\ntest_it if { allow with input as {} }").is_ok());
}

#[test]
fn a_name_that_the_input_does_not_have_is_refused() {
    assert!(
        is_refused("allow if input.reqest.method == \"GET\"", "unknown_input", 2).contains("did you mean `request`?")
    );
    assert!(is_refused("allow if input.request.verb == \"GET\"", "unknown_input", 2).contains("input.request.verb"));
    assert!(is_refused("allow if input.request.args.amont < 5", "unknown_input", 2).contains("did you mean `amount`?"));
    is_refused("allow if input.attributes.request.http.method == \"GET\"", "unknown_input", 2);
}

#[test]
fn a_dynamic_reach_into_data_mentions_all_that_lies_there() {
    let text = "allow if {\n some name\n data.lib[name] == true\n}";
    let lib = "package lib\na if input.signals.risk < 5\nb if input.signals.posture == \"ok\"";
    let engine = load_with(&[&format!("package authz\n{text}"), lib], None, &settings()).unwrap();
    assert_eq!(engine.info.mentions, [index("posture"), index("risk")]);
}

#[test]
fn recursion_is_refused() {
    assert!(is_refused("allow if other\nother if allow", "recursion", 2).contains("data.authz.other"));
    is_refused("allow if f(1)\nf(x) := f(x + 1)", "recursion", 3);
    is_refused("allow if {\n some k\n data.authz[k]\n}", "recursion", 2);
    is_refused("allow if {\n some k\n data[k]\n}", "recursion", 2);
    is_refused("allow if count(s) > 0\ns contains x if { some x in s }", "recursion", 3);
}

#[test]
fn a_refused_built_in_is_named_with_its_alternative() {
    let message = is_refused(
        "allow if http.send({\"method\": \"GET\", \"url\": \"x\"}).status_code == 200",
        "refused_builtin",
        2,
    );
    assert!(message.contains("`http.send`") && message.contains("signal"), "{message}");
    is_refused("allow if rand.intn(\"x\", 2) == 1", "refused_builtin", 2);
    is_refused("allow if uuid.rfc4122(\"x\") == \"\"", "refused_builtin", 2);
    is_refused("allow if opa.runtime().env == {}", "refused_builtin", 2);
    // Also where only a `with` names it.
    is_refused("allow if {\n f(1) == 1 with f as http.send\n}\nf(x) := x", "refused_builtin", 3);
}

#[test]
fn a_function_that_nobody_has_is_refused() {
    assert!(is_refused("allow if cont([1]) == 1", "unknown_function", 2).contains("did you mean `count`?"));
    assert!(is_refused("allow if data.lib.f(1)", "unknown_function", 2).contains("data.lib.f"));
    is_refused("allow if count([1], 2, 3) == 1", "wrong_arguments", 2);
    is_refused("allow if f(1)\nf(x, y, z) := x + y + z", "wrong_arguments", 2);
}

#[test]
fn a_name_that_is_given_no_value_is_refused() {
    assert!(is_refused("allow if usr == 1\nuser := 1", "unsafe_name", 2).contains("did you mean `user`?"));
    for fine in [
        "allow if { x = 1; x == 1 }",
        "allow if { xs := [1, 2]; xs[i] == 2; i == 1 }",
        "allow if { split(\"a b\", \" \", parts); parts[0] == \"a\" }",
        "allow if { [_, y] := [1, 2]; y == 2 }",
        "allow if count([x | x = 1]) == 1",
        "allow if { walk({\"a\": 1}, [p, v]); v == 1; p == [\"a\"] }",
        "allow if { {\"a\": z} = {\"a\": 1}; z == 1 }",
    ] {
        assert_eq!(judge(fine), Judged::True, "{fine}");
    }
}

#[test]
fn a_syntax_error_has_its_line_and_column() {
    let findings = load("allow if {\n  input.request.method == \n}").err().unwrap();
    assert_eq!((findings[0].code, findings[0].place.line), ("syntax", 4), "{findings:?}");
    assert!(findings[0].place.column > 0 && !findings[0].message.contains('\n'), "{findings:?}");
    // What follows from a file that can't be read is not told.
    assert_eq!(findings.len(), 1);
}

#[test]
fn an_entry_point_that_is_not_there_is_told_with_the_nearest_name() {
    let findings = load("alow := true").err().unwrap();
    assert_eq!(findings[0].code, "no_entry_point");
    assert!(findings[0].message.contains("did you mean `data.authz.alow`?"), "{findings:?}");
    let bad = RegoSettings { query: "authz.allow".to_owned(), ..settings() };
    assert_eq!(load_with(&["package authz\nallow := true"], None, &bad).err().unwrap()[0].code, "bad_query");
    let bad = RegoSettings { actions: Some(vec!["py".to_owned()]), ..settings() };
    let findings = load_with(&["package authz\nallow := true"], None, &bad).err().unwrap();
    assert!(findings[0].code == "unknown_action" && findings[0].message.contains("did you mean `pay`?"));
}

#[test]
fn what_is_defined_in_ways_that_exclude_each_other_is_refused() {
    is_refused("allow := true\ndefault allow := false\ndefault allow := true", "rule_clash", 4);
    is_refused("allow := true\nf(x) := x\nf := 1", "rule_clash", 4);
    is_refused("allow := true\ndefault other := input.signals.risk\nother := 1", "bad_default", 3);
    let clash = load_with(&["package authz\nallow := true\nlib := 1", "package authz.lib\nx := 1"], None, &settings());
    assert_eq!(clash.err().unwrap()[0].code, "package_clash");
    let ours = load_with(&["package signalwarden.entry\nallow := true"], None, &settings());
    assert_eq!(ours.err().unwrap()[0].code, "reserved_package");
    let two = ["package authz\nimport data.a.x\nallow := x", "package authz\nimport data.b.x\nother := x"];
    assert_eq!(load_with(&two, None, &settings()).err().unwrap()[0].code, "import_clash");
    is_refused("import lib.x\nallow := true", "syntax", 2);
}
