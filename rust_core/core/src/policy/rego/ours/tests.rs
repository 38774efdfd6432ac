//! What our own functions answer, as OPA 1.22.2 answers the same call; `None` where the decision fails.

use super::{super::builtins, OURS, meter};
use regorus::Value;

const NOW: i64 = 1_790_000_000_123_456_789;

fn called(name: &str, arguments: &str) -> Option<String> {
    meter::begin(NOW);
    let function = OURS.iter().find(|function| function.name == name).unwrap_or_else(|| panic!("{name}"));
    let arguments = value(arguments);
    let arguments = arguments.as_array().unwrap().as_slice().to_vec();
    assert_eq!(builtins::arity(name).map(usize::from), Some(arguments.len()), "{name}");
    (function.run)(&arguments, NOW).ok().map(|answer| answer.to_json_str().unwrap())
}

/// JSON, in which `{"set": […]}` stands for a set.
fn value(written: &str) -> Value {
    fn sets(value: Value) -> Value {
        match &value {
            Value::Object(fields) if fields.len() == 1 && fields.get(&Value::from("set")).is_some() => {
                let items = fields.get(&Value::from("set")).unwrap().as_array().unwrap();
                Value::from(items.iter().cloned().collect::<std::collections::BTreeSet<_>>())
            }
            Value::Array(items) => Value::from(items.iter().cloned().map(sets).collect::<Vec<_>>()),
            _ => value,
        }
    }
    sets(Value::from_json_str(written).unwrap())
}

fn answers(rows: &[(&str, &str, Option<&str>)]) {
    for (name, arguments, wanted) in rows {
        let found = called(name, arguments);
        let wanted = wanted.map(|wanted| value(wanted).to_json_str().unwrap());
        assert_eq!(found, wanted, "{name}({arguments})");
    }
}

#[test]
fn texts_are_counted_and_cut_in_characters() {
    answers(&[
        ("count", r#"["a😀b"]"#, Some("3")),
        ("indexof", r#"["aé😀b", "b"]"#, Some("3")),
        ("indexof", r#"["abc", ""]"#, None),
        ("indexof_n", r#"["aaa", "aa"]"#, Some("[0, 1]")),
        ("substring", r#"["aé😀b", 1, 2]"#, Some(r#""é😀""#)),
        ("substring", r#"["abc", 1, -1]"#, Some(r#""bc""#)),
        ("substring", r#"["abc", -1, 1]"#, None),
        ("strings.count", r#"["aaaa", "aa"]"#, Some("2")),
        ("strings.count", r#"["abc", ""]"#, Some("4")),
        ("split", r#"["", ""]"#, Some("[]")),
        ("split", r#"["", ","]"#, Some(r#"[""]"#)),
        ("split", r#"["aé", ""]"#, Some(r#"["a", "é"]"#)),
        ("strings.split_n", r#"["a,b,c", ",", 2]"#, Some(r#"["a", "b"]"#)),
        ("strings.split_n", r#"["a,b,c", ",", -2]"#, Some(r#"["b", "c"]"#)),
        ("lower", r#"["ÀİΣ"]"#, Some(r#""àiσ""#)),
        ("upper", r#"["ß"]"#, None),
    ]);
}

#[test]
fn what_was_put_in_is_not_replaced_again() {
    answers(&[
        ("strings.replace_n", r#"[{"a": "b", "b": "c"}, "ab"]"#, Some(r#""bc""#)),
        ("strings.replace_n", r#"[{"": "x"}, "ab"]"#, None),
        ("replace", r#"["ab", "", "-"]"#, Some(r#""-a-b-""#)),
    ]);
}

#[test]
fn expressions_mean_what_go_means_by_them() {
    answers(&[
        ("regex.match", r#"["^\\d+$", "٣"]"#, Some("false")),
        ("regex.match", r#"["^\\w+$", "é"]"#, Some("false")),
        ("regex.match", r#"["^\\s$", "\u00a0"]"#, Some("false")),
        ("regex.match", r#"["^[\\D]$", "é"]"#, Some("true")),
        ("regex.match", r#"["^[a&&b]+$", "&"]"#, Some("true")),
        ("regex.match", r#"["^[[a]+$", "[a"]"#, Some("true")),
        ("regex.match", r#"["^a{,2}$", "a{,2}"]"#, Some("true")),
        ("regex.match", r#"["^\\<a$", "<a"]"#, Some("true")),
        ("regex.match", r#"["(?i)^k$", "\u212a"]"#, Some("true")),
        ("regex.match", r#"["^\\pL{2}$", "äö"]"#, Some("true")),
        ("regex.match", r#"["^\\Qa.b\\E$", "a.b"]"#, Some("true")),
        ("regex.match", r#"["(?x) a", "a"]"#, None),
        ("regex.match", r#"["a**", "a"]"#, None),
        ("regex.match", r#"["a{1001}", "a"]"#, None),
        ("regex.is_valid", r#"["a)"]"#, Some("false")),
        ("regex.is_valid", r#"["[a-z]+"]"#, Some("true")),
        ("regex.is_valid", r"[1]", Some("false")),
        ("regex.split", r#"["", "abc"]"#, Some(r#"["a", "b", "c"]"#)),
        ("regex.split", r#"["a*", "baac"]"#, Some(r#"["b", "c"]"#)),
        ("regex.split", r#"["z+", "pizza"]"#, Some(r#"["pi", "a"]"#)),
        ("regex.find_n", r#"["a*", "baaac", -1]"#, Some(r#"["", "aaa", ""]"#)),
        ("regex.find_n", r#"["a", "aaa", 2]"#, Some(r#"["a", "a"]"#)),
        ("regex.replace", r#"["ab", "(a)(b)", "$2$1$$x${9}"]"#, Some(r#""ba$x""#)),
        ("regex.replace", r#"["ab", "(?P<first>a)", "${first}-$firstx$"]"#, Some(r#""a-$b""#)),
        ("regex.template_match", r#"["urn:{.*}", "urn:x", "{", "}"]"#, Some("true")),
        ("regex.template_match", r#"["urn:{a)|(b}", "urn:a", "{", "}"]"#, None),
    ]);
}

#[test]
fn globs_have_separators_classes_and_alternatives() {
    answers(&[
        ("glob.match", r#"["*.github.com", null, "a.b.github.com"]"#, Some("true")),
        ("glob.match", r#"["*.github.com", [], "a.b.github.com"]"#, Some("false")),
        ("glob.match", r#"["**.github.com", ["."], "a.b.github.com"]"#, Some("true")),
        ("glob.match", r#"["a:*", [":"], "a:b/c"]"#, Some("true")),
        ("glob.match", r#"["{cat,b[ao]t}s", [], "bots"]"#, Some("true")),
        ("glob.match", r#"["[!a-c]", [], "d"]"#, Some("true")),
        ("glob.match", r#"["a?c", ["/"], "a/c"]"#, Some("false")),
        ("glob.match", r#"["a\\*", [], "a*"]"#, Some("true")),
        ("glob.match", r#"["a{b", [], "ab"]"#, None),
        ("glob.match", r#"["a", ["ab"], "a"]"#, None),
        ("glob.quote_meta", r#"["*.g{h}"]"#, Some(r#""\\*.g\\{h\\}""#)),
    ]);
}

#[test]
fn networks_are_read_as_go_reads_them() {
    answers(&[
        ("net.cidr_contains", r#"["10.0.0.0/8", "10.1.2.3"]"#, Some("true")),
        ("net.cidr_contains", r#"["10.0.0.0/8", "10.0.0.0/7"]"#, Some("false")),
        ("net.cidr_contains", r#"["10.0.0.1/8", "::ffff:10.1.2.3"]"#, Some("true")),
        ("net.cidr_contains", r#"["::/0", "10.1.2.3"]"#, Some("false")),
        ("net.cidr_contains", r#"["2001:db8::/32", "2001:db8:1::/48"]"#, Some("true")),
        ("net.cidr_contains", r#"["10.0.0.0/8", "010.1.2.3"]"#, None),
        ("net.cidr_intersects", r#"["10.0.0.0/8", "10.1.0.0/16"]"#, Some("true")),
        ("net.cidr_is_valid", r#"["10.0.0.0/33"]"#, Some("false")),
        ("net.cidr_is_valid", r#"["10.0.0.0/08"]"#, Some("true")),
        ("net.cidr_expand", r#"["10.0.0.254/31"]"#, Some(r#"["10.0.0.254", "10.0.0.255"]"#)),
        ("net.cidr_expand", r#"["::/0"]"#, None),
        ("net.cidr_contains_matches", r#"["1.1.1.0/24", ["1.1.1.1", "2.2.2.2"]]"#, Some(r#"[["1.1.1.0/24", 0]]"#)),
    ]);
}

#[test]
fn numbers_are_bounded_and_read_as_json() {
    answers(&[
        ("numbers.range", "[3, 1]", Some("[3, 2, 1]")),
        ("numbers.range", "[1, 100000000000]", None),
        ("numbers.range_step", "[0, 10, 4]", Some("[0, 4, 8]")),
        ("numbers.range_step", "[10, 0, 4]", Some("[10, 6, 2]")),
        ("numbers.range_step", "[0, 10, 0]", None),
        ("bits.lsh", "[1, 100]", Some("1267650600228229401496703205376")),
        ("bits.lsh", "[1, 100000000]", None),
        ("bits.rsh", "[-5, 1]", Some("-3")),
        ("product", "[[2, 3, 0.5]]", Some("3")),
        ("format_int", "[-15.9, 16]", Some(r#""-f""#)),
        ("to_number", r#"["1e3"]"#, Some("1000")),
        ("to_number", r#"[" 5"]"#, None),
        ("units.parse", r#"["1.5Ki"]"#, Some("1536")),
        ("units.parse", r#"["100m"]"#, Some("0.1")),
        ("units.parse", r#"["1Q"]"#, None),
        ("units.parse_bytes", r#"["0.5MiB"]"#, Some("524288")),
        ("units.parse_bytes", r#"["1.1kb"]"#, None),
    ]);
}

#[test]
fn texts_of_other_forms_are_read_and_written_as_gos_library_does() {
    answers(&[
        ("base64.decode", r#"["aGVs\nbG8="]"#, Some(r#""hello""#)),
        ("base64.decode", r#"["/w=="]"#, None),
        ("base64.is_valid", r#"["aGVsbG8"]"#, Some("false")),
        ("base64url.decode", r#"["aGVsbG8"]"#, Some(r#""hello""#)),
        ("hex.decode", r#"["68656C6c6f"]"#, Some(r#""hello""#)),
        ("json.marshal", r#"[{"a": "<&>"}]"#, Some(r#""{\"a\":\"\\u003c\\u0026\\u003e\"}""#)),
        ("urlquery.encode", r#"["a b~*/é"]"#, Some(r#""a+b~%2A%2F%C3%A9""#)),
        ("urlquery.decode", r#"["a%26b&c=d+e"]"#, Some(r#""a&b&c=d e""#)),
        ("urlquery.decode", r#"["%zz"]"#, None),
        ("urlquery.decode_object", r#"["a=1&b=2&a=3&c"]"#, Some(r#"{"a": ["1", "3"], "b": ["2"], "c": [""]}"#)),
        ("urlquery.decode_object", r#"["a=1;b=2"]"#, None),
        ("urlquery.encode_object", r#"[{"b": ["x", "y z"], "a": "1"}]"#, Some(r#""a=1&b=x&b=y+z""#)),
        ("crypto.sha256", r#"["abc"]"#, Some(r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#)),
        (
            "crypto.hmac.sha256",
            r#"["what do ya want for nothing?", "Jefe"]"#,
            Some(r#""5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843""#),
        ),
        ("crypto.hmac.equal", r#"["a", "ab"]"#, Some("false")),
    ]);
}

#[test]
fn sprintf_writes_what_go_writes_or_nothing() {
    answers(&[
        ("sprintf", r#"["%s is %d, %v%%", ["x", 7, [1, "a"]]]"#, Some(r#""x is 7, [1, \"a\"]%""#)),
        ("sprintf", r#"["%05d|%-4d|%+d|%4s", [-42, 7, 7, "é"]]"#, Some(r#""-0042|7   |+7|   é""#)),
        ("sprintf", r#"["%x %X %o %b", [255, 255, 8, 5]]"#, Some(r#""ff FF 10 101""#)),
        ("sprintf", r#"["%.2f %v %v", [1.005, 0.00001, 1.5]]"#, Some(r#""1.00 1e-05 1.5""#)),
        ("sprintf", r#"["%q", ["a\"b\n"]]"#, Some(r#""\"a\\\"b\\n\"""#)),
        ("sprintf", r#"["%v %v", [true, {"a": null}]]"#, Some(r#""true {\"a\": null}""#)),
        ("sprintf", r#"["%d", ["x"]]"#, None),
        ("sprintf", r#"["%s", [1]]"#, None),
        ("sprintf", r#"["%s", []]"#, None),
        ("sprintf", r#"["x", [1]]"#, None),
        ("sprintf", r#"["%99999d", [1]]"#, None),
    ]);
}

#[test]
fn times_have_a_zone_that_is_named() {
    answers(&[
        ("time.now_ns", "[]", Some("1790000000123456789")),
        ("time.clock", "[[1790000000123456789, \"Europe/Berlin\"]]", Some("[16, 13, 20]")),
        ("time.date", "[[1790000000123456789, \"\"]]", Some("[2026, 9, 21]")),
        ("time.weekday", "[1790000000123456789]", Some(r#""Monday""#)),
        ("time.clock", "[[1790000000123456789, \"Local\"]]", None),
        ("time.clock", "[[1790000000123456789, \"Nowhere/Else\"]]", None),
        ("time.add_date", "[1769817600000000000, 0, 1, 0]", Some("1772496000000000000")),
        ("time.diff", "[1769817600000000000, 1772496000000000000]", Some("[0, 1, 3, 0, 0, 0]")),
        ("time.format", "[1790000000123456789]", Some(r#""2026-09-21T14:13:20.123456789Z""#)),
        (
            "time.format",
            r#"[[1790000000123456789, "Asia/Kolkata", "RFC3339"]]"#,
            Some(r#""2026-09-21T19:43:20+05:30""#),
        ),
        ("time.format", r#"[[1790000000123456789, "UTC", "RFC850"]]"#, Some(r#""Monday, 21-Sep-26 14:13:20 UTC""#)),
        ("time.format", r#"[[1790000000123456789, "Asia/Kolkata", "RFC850"]]"#, None),
        ("time.parse_rfc3339_ns", r#"["2026-09-21T16:13:20.5+02:00"]"#, Some("1790000000500000000")),
        ("time.parse_rfc3339_ns", r#"["2026-09-21t16:13:20z"]"#, None),
        ("time.parse_rfc3339_ns", r#"["2026-02-29T00:00:00Z"]"#, None),
        ("time.parse_rfc3339_ns", r#"["2300-01-01T00:00:00Z"]"#, None),
        ("time.parse_ns", r#"["2 Jan 2006", "21 sep 2026"]"#, Some("1789948800000000000")),
        ("time.parse_ns", r#"["ANSIC", "Mon Sep 21 14:13:20 2026"]"#, Some("1790000000000000000")),
        ("time.parse_ns", r#"["03:04PM", "02:13PM"]"#, None),
        ("time.parse_duration_ns", r#"["1h15m30.5s"]"#, Some("4530500000000")),
        ("time.parse_duration_ns", r#"["-1d"]"#, Some("-86400000000000")),
        ("time.parse_duration_ns", r#"["1x"]"#, None),
    ]);
}

#[test]
fn a_part_is_found_in_what_is_of_its_kind() {
    answers(&[
        ("object.subset", r#"[{"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}]"#, Some("true")),
        ("object.subset", "[[1, 2, 3], [2, 3]]", Some("true")),
        ("object.subset", "[[1], []]", Some("true")),
        ("object.subset", r#"[[1, 2], {"set": [2]}]"#, Some("true")),
        ("object.subset", r#"[[1, 1], {"set": [1, 2]}]"#, None),
        ("object.subset", r"[1, 1]", None),
        ("array.flatten", "[[1, [2, [3]]]]", Some("[1, 2, [3]]")),
        ("array.concat", "[[1], [2]]", Some("[1, 2]")),
        ("object.union_n", r#"[[{"a": {"b": 2}}, {"a": 4}, {"a": {"c": 3}}]]"#, Some(r#"{"a": {"c": 3}}"#)),
        ("trace", r#"["x"]"#, Some("true")),
    ]);
}
