//! What a policy may cost: bounded by counting, the same in every run, and nobody else's trouble.

use super::*;
use std::time::{Duration, Instant};

/// Far more than any of these takes, also on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(20);

fn fails_in_bound(text: &str, part: &str) {
    let engine = load(text).unwrap_or_else(|findings| panic!("{text}: {findings:?}"));
    let start = Instant::now();
    let first = judged(&engine, &[]);
    let Judged::Failed(why) = &first else { panic!("{text}: {first:?}") };
    assert!(why.contains(part), "{text}: {why}");
    assert!(start.elapsed() < LONG, "{text}: {:?}", start.elapsed());
    assert_eq!(judged(&engine, &[]), first, "a replay gives the same answer");
}

#[test]
fn a_policy_that_loops_for_long_is_denied() {
    fails_in_bound(
        "allow if {\n some x in numbers.range(1, 1000)\n some y in numbers.range(1, 1000)\n some z in numbers.range(1, 1000)\n x + y + z == 0\n}",
        "steps",
    );
    fails_in_bound(
        "allow if count([x | some x in numbers.range(1, 400); some y in numbers.range(1, 400); x == y]) == 1",
        "steps",
    );
    fails_in_bound("allow if every x in numbers.range(1, 200000) { x > 0 }", "steps");
}

#[test]
fn a_policy_that_makes_too_much_is_denied() {
    fails_in_bound("allow if count(numbers.range(1, 1000000000)) == 1", "bytes");
    fails_in_bound("allow if count(numbers.range_step(1, 1000000000, 1)) == 1", "bytes");
    let often = |step: &str| {
        let step = |n: usize| step.replace('X', &format!("x{n}"));
        let lines: Vec<String> = (0..4).map(|n| format!(" x{} := {}", n + 1, step(n))).collect();
        format!("allow if {{\n ns := numbers.range(1, 1000)\n x0 := \"ab\"\n{}\n count(x4) == 1\n}}", lines.join("\n"))
    };
    fails_in_bound(&often("concat(\"\", [X | some n in ns; n > 0])"), "bytes");
    fails_in_bound(&often("sprintf(\"%v\", [[X | some n in ns; n > 0]])"), "bytes");
    fails_in_bound(&often("replace(concat(\"\", [\"a\" | some n in ns; n > 0]), \"a\", X)"), "bytes");
    fails_in_bound(
        "allow if { xs := numbers.range(1, 400000); ys := array.concat(xs, xs); zs := array.concat(ys, ys); count(zs) == 1 }",
        "bytes",
    );
    fails_in_bound("allow if bits.lsh(1, 4000000000) == 1", "bits.lsh");
}

#[test]
fn a_value_that_doubles_again_and_again_is_refused() {
    let chain = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n");
    let pairs = |n: usize| format!(" x{} := [x{n}, x{n}]", n + 1);
    for text in [
        format!("allow if {{\n x0 := 1\n{}\n x40 == x40\n}}", chain(40, &pairs)),
        format!("allow if {{\n x40 == x40\n x0 = [1]\n{}\n}}", chain(40, &|n| format!(" x{} = [x{n}, x{n}]", n + 1))),
        format!(
            "allow if {{\n x0 := \"ab\"\n{}\n x40 != 1\n}}",
            chain(40, &|n| format!(" x{} := concat(x{n}, [x{n}])", n + 1))
        ),
        format!("allow if {{\n x0 := 3\n{}\n x40 > 0\n}}", chain(40, &|n| format!(" x{} := x{n} * x{n}", n + 1))),
        format!("allow if r40\nr0 := 1\n{}", chain(40, &|n| format!("r{} := {{\"a\": r{n}, \"b\": r{n}}}", n + 1))),
        format!("allow if f40(1)\nf0(x) := x\n{}", chain(40, &|n| format!("f{}(x) := [f{n}(x), f{n}(x)]", n + 1))),
        format!("f(x) := [x, x]\nallow if {}1{} != 1", "f(".repeat(25), ")".repeat(25)),
        format!("allow if count(s) == 1\ns contains x40 if {{\n x0 := 1\n{}\n}}", chain(40, &pairs)),
    ] {
        assert_eq!(refused(&text).first().map(|(code, ..)| *code), Some("too_much_growth"), "{text}");
    }
    for fine in [
        format!("allow if {{\n x0 := 1\n{}\n x10 == x10\n}}", chain(10, &pairs)),
        "allow if { x := input.request; y := {\"a\": x, \"b\": x}; [p, q] = [y, y]; p == q; {\"a\": z} = y; z == x }"
            .to_owned(),
        "allow if { [a, b] := f([1, 2]); a == b }\nf(x) := [y, y] if { [y, _] = x }".to_owned(),
        format!(
            "allow if {{ {}  true }}",
            chain(100, &|n| format!("input.request.args.amount != {n} + {n} * 7;")).replace("!= 10 + 10 * 7", "!= 11")
        ),
    ] {
        assert!(matches!(judge(&fine), Judged::True | Judged::False), "{fine}");
    }
}

#[test]
fn a_value_that_is_far_larger_than_its_memory_is_not_read_by_a_built_in() {
    let text = "allow if {\n a := [x | some i in numbers.range(1, 300); x := 1 * i]\n b := [a | some i in numbers.range(1, 300); i > 0]\n c := [b | some i in numbers.range(1, 300); i > 0]\n count(json.marshal(c)) == 1\n}";
    fails_in_bound(text, "larger than");
}

#[test]
fn a_policy_that_goes_too_deep_is_refused() {
    let rules: Vec<String> = (0..2000).map(|n| format!("r{n} := r{}", n + 1)).collect();
    let text = format!("allow := r0\n{}\nr2000 := true", rules.join("\n"));
    assert_eq!(refused(&text)[0].0, "too_nested");
    let loops: Vec<String> = (0..2000).map(|n| format!(" some x{n} in [1]")).collect();
    assert_eq!(refused(&format!("allow if {{\n{}\n}}", loops.join("\n")))[0].0, "too_nested");
}

#[test]
fn what_is_deep_enough_to_be_allowed_fits_a_small_stack() {
    // As deep as the check lets it be, in each of the ways in which an evaluation goes deep.
    let chain = |rules: usize, body: &dyn Fn(usize) -> String| {
        let lines: Vec<String> = (0..rules).map(body).collect();
        format!("allow := r0\n{}\nr{rules} := true", lines.join("\n"))
    };
    let nested = |n: usize| format!("r{n} := {}r{}{}[0][0][0][0][0][0][0][0]", "[".repeat(8), n + 1, "]".repeat(8));
    let called = |n: usize| format!("r{n} := f{n}(1)\nf{n}(x) := r{} if x == 1", n + 1);
    let with_loop = |n: usize| format!("r{n} if {{ some x in [1]; x == 1; r{} }}", n + 1);
    let compr = |n: usize| format!("r{n} := [x | x := r{}][0]", n + 1);
    let plain = |n: usize| format!("r{n} if r{}", n + 1);
    let ways: [&(dyn Fn(usize) -> String + Sync); 5] = [&nested, &called, &with_loop, &compr, &plain];
    for body in ways {
        let most = (1..200).take_while(|rules| load(&chain(*rules, body)).is_ok()).last().unwrap();
        assert!(most < 199 && most > 5, "{most} {}", body(0));
        let engine = load(&chain(most, body)).unwrap();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(1_500_000);
            let judged = thread.spawn_scoped(scope, || judged(&engine, &[])).unwrap().join().unwrap();
            assert_eq!(judged, Judged::True, "{most} {}", body(0));
        });
    }
}

/// What may stand in itself, and how the innermost is closed, in each of the ways in which the parser goes into itself.
const NESTS: [(&str, &str, &str); 12] = [
    ("[", "1", "]"),
    ("{", "1", "}"),
    ("{\"a\": ", "1", "}"),
    ("{[", "1", "]}"),
    ("[1, ", "1", "]"),
    ("(", "1", ")"),
    ("count(", "[]", ")"),
    ("data[", "\"a\"", "]"),
    ("- ", "1", ""),
    ("[x | x := ", "1", "]"),
    ("[1 | ", "1", "]"),
    ("[-", "1", "]"),
];

#[test]
fn what_the_parser_would_be_lost_in_is_refused_at_once() {
    let start = Instant::now();
    for (open, inner, close) in NESTS {
        let is_read_again = open.starts_with(['[', '{']) && open != "[1, ";
        for times in [40, 1_000, 50_000] {
            let (open, close) = (format!("{open}\n").repeat(times), close.repeat(times));
            for text in
                [format!("allow := {open}{inner}{close}"), format!("allow if {{\n{open}"), format!("x := {open}")]
            {
                let refused = load(&text).err();
                let code = refused.as_ref().and_then(|findings| findings.first()).map(|finding| finding.code);
                assert!(code == Some("too_nested") || (times == 40 && !is_read_again), "{open:.20} {times}: {code:?}");
            }
        }
    }
    for joined in ["1 +\n", "[1] |\n", "1 -1 ", "1 <\n", "1 in\n", "set(\n"] {
        let text = format!("allow := {}1", joined.repeat(50_000));
        let refused = load(&text).err().unwrap();
        assert_eq!((refused[0].code, refused[0].place.line > 0), ("too_nested", true), "{joined}");
    }
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
}

#[test]
fn a_number_whose_digits_would_fill_the_memory_is_refused() {
    let start = Instant::now();
    for number in ["0E222222222", "0e+99999999999999999999", "0.0e2049", "-0e2049"] {
        let refused = load(&format!("allow if input.request.args.amount == {number}")).err().unwrap();
        assert_eq!((refused[0].code, refused[0].place.line), ("too_large", 2), "{number}: {refused:?}");
    }
    for number in ["0e2048", "0e-2222222222", "1.5e3", "1e2049", "0xe9"] {
        let refused = load(&format!("allow if input.request.args.amount == {number}")).err();
        assert!(refused.is_none_or(|found| found[0].code != "too_large"), "{number}");
    }
    for read in [r#"to_number("0e222222222") == 0"#, r#"json.unmarshal("[0e222222222]") == [0]"#] {
        assert_eq!(judge(&format!("allow if {read}")), Judged::True, "{read}");
    }
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
}

#[test]
fn the_deepest_that_is_parsed_fits_a_small_stack() {
    let is_too_nested = |text: &str| load(text).is_err_and(|findings| findings[0].code == "too_nested");
    for (open, inner, close) in NESTS {
        let text = move |times: usize| format!("allow := {}{inner}{}", open.repeat(times), close.repeat(times));
        let thread = std::thread::Builder::new().stack_size(1_500_000);
        let most = move || (1..200).take_while(|times| !is_too_nested(&text(*times))).last();
        let most = thread.spawn(most).unwrap().join().unwrap().unwrap();
        assert!((8..=65).contains(&most), "{open}: {most}");
    }
    let thread = std::thread::Builder::new().stack_size(1_500_000);
    let sums = move || {
        let text = |times: usize| format!("allow if {}1 > 0", "1 +\n".repeat(times));
        (400..1_200).step_by(50).take_while(|times| !is_too_nested(&text(*times))).last()
    };
    assert!(thread.spawn(sums).unwrap().join().unwrap().unwrap() >= 900);
}

#[test]
fn nested_data_as_policies_have_it_is_read() {
    let pod =
        "{\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"ports\": [{\"name\": {\"a\": [[1], [2, 3]]}}]}]}}}}";
    load(&format!("pod := {pod}\nallow if {{\n some x in [{pod}, {pod}]\n x == pod\n}}")).unwrap();
    let row = |n: usize| format!("  \"row-{n}\": {{\"names\": [\"a-{n}\", \"b-{n}\"], \"limit\": {n}}}");
    let rows: Vec<String> = (0..5_000).map(row).collect();
    load(&format!("rows := {{\n{}\n}}\nallow if rows[\"row-7\"].limit == 7", rows.join(",\n"))).unwrap();
    let sums: Vec<String> = (0..300).map(|n| format!("  x{n} := {n} - -1 - 1\n  x{n} - -1\n    - 1 == {n}")).collect();
    load(&format!("allow if {{\n{}\n}}", sums.join("\n"))).unwrap();
}

#[test]
fn a_huge_result_is_denied() {
    assert!(
        failure("allow := {\"allowed\": true, \"dynamic_metadata\": {\"x\": numbers.range(1, 10000)}}")
            .contains("larger than")
    );
    assert!(failure("allow := {\"allowed\": false, \"body\": concat(\"\", [x | some y in numbers.range(1, 100); x := sprintf(\"%01000d\", [y])])}").contains("larger than"));
}

#[test]
fn others_are_unaffected_by_a_bomb() {
    let bomb = load("allow if {\n some x in numbers.range(1, 1000)\n some y in numbers.range(1, 1000)\n x + y == 0\n}")
        .unwrap();
    let other = load("allow if input.request.args.amount < 50").unwrap();
    for _ in 0..3 {
        assert!(matches!(judged(&bomb, &[]), Judged::Failed(_)));
        assert_eq!(judged(&other, &[]), Judged::True);
    }
}

#[test]
fn a_usual_policy_takes_a_small_part_of_its_budget() {
    let text = "default allow := false\nallow if {\n input.request.method == \"POST\"\n input.signals.risk < 50\n not blocked\n}\nblocked if input.signals.posture == \"bad\"";
    let engine = load(text).unwrap();
    assert_eq!(judged(&engine, &[("risk", value("long", "7"))]), Judged::True);
    assert!(meter::steps() < crate::limits::MAX_REGO_STEPS / 100, "{}", meter::steps());
}

#[test]
fn what_doubles_unseen_by_names_is_refused_too() {
    let chain = |last: &str| {
        let lines: Vec<String> = (0..40).map(|n| format!(" x{} := [x{n}, x{n}]", n + 1)).collect();
        format!("allow if {{\n x0 := 1\n{}\n {last}\n}}", lines.join("\n"))
    };
    for last in ["[] = [x40]", "some 1 in [x40]", "x40 == x40"] {
        assert!(load(&chain(last)).is_err(), "{last}");
    }
    // A chain by what `with` puts in the place of data.
    let lines: Vec<String> = (0..40).map(|n| format!("r{} := r{n} with data.m.x as r{n}", n + 1)).collect();
    let text = format!("r0 := [data.m.x, data.m.x]\n{}\nallow if r40 == 1", lines.join("\n"));
    assert!(load(&text).is_err());
    // Names of many patterns in one another are looked at once each.
    let names: Vec<String> = (0..16).map(|n| format!("a{n}")).collect();
    let mut text = "1".to_owned();
    for depth in 0..12 {
        let names: Vec<String> = names.iter().map(|name| format!("{name}_{depth}")).collect();
        text = format!("[x | [{}] := [{text}]; x := 1]", names.join(", "));
    }
    let start = Instant::now();
    let _ = load(&format!("allow if count({text}) == 0"));
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
}
