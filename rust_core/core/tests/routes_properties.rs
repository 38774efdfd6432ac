//! What holds of every route table and every request: order, totality, one meaning or none, non-interference.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_push_string,
    missing_docs
)]

use proptest::{collection::vec, prelude::*, sample::select};
use signalwarden_core::{
    findings::{Finding, Findings},
    model::{Body, HeaderEntry, Headers, Request},
    reason::Reason,
    route::{Resolved, Routes, Unresolved},
};

const HOSTS: [&str; 8] = ["*", "a.b", "c.b", "*.b", "*-a.b", "*.a.b", "a.*", "a-*"];
const ASKED_HOSTS: [&str; 10] = ["a.b", "-a.b", "c.b", "b", "x-a.b", "x.a.b", "a.c", "a-x", "A.B.:80", "z"];
const PATHS: [&str; 24] = [
    "/",
    "/a",
    "/a/",
    "/b",
    "/{x}",
    "/{x}/",
    "/{*r}",
    "/a/{x}",
    "/a/{*r}",
    "/a/b",
    "/{x}/b",
    "/{x}/{y}",
    "/{x}/{*r}",
    "/a-{x}",
    "/{x}-b",
    "/a-{x}-b",
    "/a-{x}/b",
    "/{x}-b/{y}",
    "/a/b/c",
    "/a/{x}/c",
    "/{x}/b/{*r}",
    "/{x}/{y}/c",
    "/a/b/{x}",
    "/{x}-b/c",
];
const ASKED_SEGMENTS: [&str; 10] = ["a", "b", "c", "a-", "-b", "a-b", "a-x-b", "a--b", "x", "%C3%A9"];
const METHODS: [&str; 4] = ["", "GET", "POST", "[GET, PUT]"];
const EXTENSIONS: [&str; 4] = ["", "k: v", "k: w", "k: v, l: v"];

type Spec = (&'static str, &'static str, &'static str, &'static str);

/// Few hosts, and mostly no further conditions: so that routes meet.
fn specs() -> impl Strategy<Value = Vec<Spec>> {
    (vec(select(&HOSTS), 1..3), any::<bool>()).prop_flat_map(|(hosts, plain)| {
        let (methods, extensions) =
            if plain { (&METHODS[..1], &EXTENSIONS[..1]) } else { (&METHODS[..], &EXTENSIONS[..]) };
        let spec = (select(hosts), select(&PATHS), select(methods), select(extensions));
        vec(spec, 1..14).prop_map(|mut specs| {
            specs.sort_unstable();
            specs.dedup();
            specs
        })
    })
}

fn yaml(specs: &[Spec]) -> String {
    let mut text = "routes:\n".to_owned();
    for spec in specs {
        let (host, path, method, extensions) = spec;
        let method = if method.is_empty() { String::new() } else { format!(", method: {method}") };
        let extensions = if extensions.is_empty() { String::new() } else { format!(", extensions: {{{extensions}}}") };
        text.push_str(&format!(
            "  - {{match: {{host: '{host}', path: '{path}'{method}{extensions}}}, action: a{}, resource: {{type: T, id: x}}, \
             tier: runtime, sensitivity: low}}\n",
            ALL.with(|all| all.iter().position(|known| known == spec).unwrap())
        ));
    }
    text
}

thread_local! {
    /// Every possible route, so that each has an action of its own whatever the order.
    static ALL: Vec<Spec> = HOSTS
        .iter()
        .flat_map(|h| PATHS.iter().flat_map(move |p| METHODS.iter().flat_map(move |m| EXTENSIONS.iter().map(move |e| (*h, *p, *m, *e)))))
        .collect();
}

/// Loads the table without the routes that tie with an earlier one; the routes that are left.
fn load_without_ties(specs: Vec<Spec>) -> (Routes, Vec<Spec>) {
    let (routes, specs, _) = load_and_hear(specs);
    (routes, specs)
}

/// The same, and those of the routes that are said to be shadowed.
fn load_and_hear(mut specs: Vec<Spec>) -> (Routes, Vec<Spec>, Vec<Spec>) {
    loop {
        let mut findings = Findings::default();
        let routes = Routes::load("routes.yaml", &yaml(&specs), &mut findings);
        let spec_of = |finding: &Finding| finding.place.line as usize - 2;
        let Some(tie) = findings.as_slice().iter().find(|finding| finding.code == "equal_routes") else {
            assert!(findings.as_slice().iter().all(|f| f.code == "shadowed_route"), "{findings:?}");
            let shadowed = findings.as_slice().iter().map(|finding| specs[spec_of(finding)]).collect();
            return (routes, specs, shadowed);
        };
        specs.remove(spec_of(tie));
    }
}

fn asked() -> impl Strategy<Value = Request> {
    let path = (vec(select(&ASKED_SEGMENTS), 0..4), any::<bool>()).prop_map(|(parts, slash)| {
        format!("/{}{}", parts.join("/"), if slash && !parts.is_empty() { "/" } else { "" })
    });
    let extensions =
        select(vec![vec![], vec![("k", "v")], vec![("k", "w")], vec![("k", "v"), ("l", "v")], vec![("l", "v")]]);
    (select(&ASKED_HOSTS), path, select(vec!["GET", "POST", "PUT", "PATCH"]), extensions).prop_map(
        |(host, path, method, extensions)| Request {
            host: host.into(),
            path,
            method: method.into(),
            extensions: extensions.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            ..Request::default()
        },
    )
}

/// Host, its length, path segment by segment, whether the method is named, how many further matches.
type Weight = (u8, usize, Vec<(u8, usize)>, bool, usize);

/// The rules of DESIGN section 5 said once more, slowly: every route is looked at. `None`: it does not match.
fn weight(spec: &Spec, request: &Request) -> Option<Weight> {
    let (host, path, method, extensions) = *spec;
    let asked_host = request.host.split(':').next().unwrap().trim_end_matches('.').to_lowercase();
    let host_weight = match (host.strip_prefix('*'), host.strip_suffix('*')) {
        (Some(""), _) => (0, 0),
        (Some(suffix), _) if asked_host.ends_with(suffix) && asked_host.len() > suffix.len() => (2, suffix.len()),
        (_, Some(prefix)) if asked_host.starts_with(prefix) && asked_host.len() > prefix.len() => (1, prefix.len()),
        (None, None) if asked_host == host => (3, 0),
        _ => return None,
    };
    let segments: Vec<&str> = path[1..].split('/').collect();
    let asked: Vec<&str> = request.path[1..].split('/').collect();
    let mut path_weight = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let part = asked.get(at)?;
        path_weight.push(match segment.split_once('{') {
            None if segment == part => (3, 0),
            None => return None,
            Some((_, rest)) if rest.starts_with('*') => (0, 0),
            Some((before, rest)) => {
                let after = rest.split_once('}').unwrap().1;
                let text = before.len() + after.len();
                if !(part.starts_with(before) && part.ends_with(after) && part.len() > text) {
                    return None;
                }
                (if text == 0 { 1 } else { 2 }, text)
            }
        });
    }
    if asked.len() > segments.len() && !path.ends_with("{*r}") {
        return None;
    }
    if !method.is_empty() && !method.trim_matches(['[', ']']).split(", ").any(|m| m == request.method) {
        return None;
    }
    let mut pairs = extensions.split(", ").filter(|pair| !pair.is_empty()).map(|pair| pair.split_once(": ").unwrap());
    let holds = pairs.all(|(key, value)| request.extensions.get(key).is_some_and(|v| v == value));
    holds.then_some((host_weight.0, host_weight.1, path_weight, !method.is_empty(), extensions.len()))
}

fn action(result: &Result<Resolved, Unresolved>) -> Option<usize> {
    result.as_ref().ok().map(|resolved| resolved.route.action.as_str()[1..].parse().unwrap())
}

const GUARDED: &str = r#"routes:
  - match: {host: "*", method: POST, path: "/pay/{to}"}
    action: pay
    resource: {type: T, id: "{to}"}
    args: {query: {dry: "bool?", n: long}, body: {amount: {pointer: /a/amount, type: long}, memo: "string?"}}
    tier: runtime
    sensitivity: low
  - match: {host: "*", path: "/{*all}"}
    action: other
    resource: {type: T, id: "{all}"}
    tier: runtime
    sensitivity: low
"#;

fn guarded() -> Routes {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", GUARDED, &mut findings);
    assert!(findings.as_slice().is_empty());
    routes
}

fn pay(query: &str, body: &str, headers: Vec<(String, String)>) -> Request {
    let mut entries = vec![("content-type".to_owned(), "application/json".to_owned())];
    entries.extend(headers);
    let header = |(name, value)| HeaderEntry { name, value, is_utf8: true };
    Request {
        method: "POST".into(),
        host: "x".into(),
        path: format!("/pay/me?{query}"),
        headers: Headers::new(entries.into_iter().map(header).collect()),
        body: Body::Forwarded { bytes: body.as_bytes().to_vec(), truncated: false },
        ..Request::default()
    }
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("-1.5e300".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            vec((select(vec!["amount", "a", "memo", "x"]), inner), 0..4).prop_map(|items| format!(
                "{{{}}}",
                items.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect::<Vec<_>>().join(",")
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn the_index_finds_what_a_look_at_every_route_finds(specs in specs(), requests in vec(asked(), 24)) {
        let (routes, specs) = load_without_ties(specs);
        for request in requests {
            let best = specs.iter().filter_map(|spec| weight(spec, &request).map(|weight| (weight, spec))).max_by(|a, b| a.0.cmp(&b.0));
            let expected = best.map(|(_, spec)| ALL.with(|all| all.iter().position(|known| known == spec).unwrap()));
            let result = routes.resolve(&request);
            prop_assert_eq!(action(&result), expected, "{:?} among {:?}: {:?}", &request, &specs, result);
        }
    }

    #[test]
    fn a_route_that_is_said_to_be_shadowed_is_never_found(more in specs(), host in select(&HOSTS), method in select(&METHODS), requests in vec(asked(), 24)) {
        // Shadows are rare by chance: the paths that cast one are given.
        let mut specs = ["/{*r}", "/", "/{x}", "/{x}/{*r}"].map(|path| (host, path, method, "")).to_vec();
        specs.extend(more.iter().filter(|spec| !specs.contains(spec)).copied().collect::<Vec<_>>());
        let (routes, left, shadowed) = load_and_hear(specs.clone());
        prop_assert!(!shadowed.is_empty() || left.len() < specs.len(), "{specs:?}");
        for request in requests {
            let found = action(&routes.resolve(&request)).map(|at| ALL.with(|all| all[at]));
            prop_assert!(found.is_none_or(|found| !shadowed.contains(&found)), "{found:?} among {left:?}");
        }
    }

    #[test]
    fn order_never_matters(specs in specs(), requests in vec(asked(), 24), seed in any::<u64>()) {
        let (routes, specs) = load_without_ties(specs);
        let mut shuffled = specs.clone();
        let mut state = seed;
        shuffled.sort_by_cached_key(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        });
        let mut findings = Findings::default();
        let other = Routes::load("routes.yaml", &yaml(&shuffled), &mut findings);
        prop_assert!(!findings.has_errors());
        for request in requests {
            prop_assert_eq!(action(&routes.resolve(&request)), action(&other.resolve(&request)));
        }
    }

    #[test]
    fn a_tie_is_a_tie_in_every_order(specs in specs()) {
        let ties = |specs: &[Spec]| {
            let mut findings = Findings::default();
            Routes::load("routes.yaml", &yaml(specs), &mut findings);
            findings.has_errors()
        };
        let backwards: Vec<Spec> = specs.iter().rev().copied().collect();
        prop_assert_eq!(ties(&specs), ties(&backwards));
    }

    #[test]
    fn no_request_makes_it_panic(host in any::<String>(), method in any::<String>(), path in any::<String>(), body in vec(any::<u8>(), 0..40)) {
        let routes = guarded();
        for path in [path.clone(), format!("/pay/{path}"), format!("/pay/x?n=1&{path}"), format!("/pay/x?dry={path}&n={path}")] {
            for host in ["x", &host] {
                for method in ["POST", &method] {
                    let body = Body::Forwarded { bytes: body.clone(), truncated: false };
                    let request = Request { path: path.clone(), host: host.into(), method: method.into(), body, ..pay("", "", vec![]) };
                    if let Err(unresolved) = routes.resolve(&request) {
                        prop_assert!(matches!(unresolved.reason, Reason::RouteUnknown | Reason::MalformedRequest));
                        prop_assert_eq!(unresolved.reason == Reason::MalformedRequest, unresolved.route.is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn no_file_makes_it_panic(cut in 0..GUARDED.len(), put in "[a-z{}\\[\\]:,\\-\"'*?/ \n]{0,6}") {
        let mut text = GUARDED.to_owned();
        text.insert_str(cut, &put);
        let mut findings = Findings::default();
        Routes::load("routes.yaml", &text, &mut findings);
        text.truncate(cut);
        Routes::load("routes.yaml", &text, &mut findings);
    }

    #[test]
    fn an_ambiguous_path_never_resolves(
        before in vec(select(&ASKED_SEGMENTS), 0..3),
        after in vec(select(&ASKED_SEGMENTS), 0..3),
        bad in select(vec![
            "..", ".", "", "%2e%2e", "%2E", "a%2fb", "%5C", "a\\b", "%252e", "%2500", "a;b", "%00", "%", "%4", "%g0", "%61", "%7E",
            "%0a", "a b", "\u{e9}", "a#", "%ff", "%ed%a0%80", "\u{0}", "%c0%ae",
        ]),
    ) {
        // An empty segment is ambiguous only before another one.
        let after = if after.is_empty() && bad.is_empty() { vec!["a"] } else { after };
        let path = format!("/{}", before.into_iter().chain([bad]).chain(after).collect::<Vec<_>>().join("/"));
        let request = Request { method: "GET".into(), host: "x".into(), path, ..Request::default() };
        prop_assert_eq!(guarded().resolve(&request).err().map(|unresolved| unresolved.reason), Some(Reason::RouteUnknown));
    }

    #[test]
    fn what_the_route_does_not_name_never_counts(
        others in vec(("[a-mo-z%+]{0,4}", "[ -%'-:<-~%\u{e9}]{0,8}"), 0..5),
        at in any::<prop::sample::Index>(),
        members in vec(("[b-ln-z\u{e9}]{1,3}", json()), 0..4),
        deeper in vec(("[b-z]{1,3}", json()), 0..3),
        headers in vec(("x-[a-z]{1,6}", any::<String>()), 0..4),
        n in any::<i64>(),
        amount in any::<i64>(),
        wrong in any::<bool>(),
    ) {
        let routes = guarded();
        let n = if wrong { "x".to_owned() } else { n.to_string() };
        let plain = routes.resolve(&pay(&format!("n={n}&dry=true"), &format!("{{\"a\":{{\"amount\":{amount}}}}}"), vec![]));
        // Names that decode to `n` or `dry` can't come up: neither letter is among the hexadecimal digits of a name.
        let mut query: Vec<String> = others.iter().map(|(k, v)| format!("{k}={}", v.replace([';', '#'], ""))).collect();
        query.retain(|pair| !pair.starts_with("dry="));
        query.insert(at.index(query.len() + 1), format!("n={n}&dry=true"));
        let member = |(k, v): &(String, String)| format!("\"{k}\":{v}");
        let inner: Vec<String> = deeper.iter().map(member).chain([format!("\"amount\":{amount}")]).collect();
        let outer: Vec<String> = members.iter().map(member).chain([format!("\"a\": {{{}}}", inner.join(","))]).collect();
        let varied = routes.resolve(&pay(&query.join("&"), &format!(" {{{}}} ", outer.join(",")), headers));
        let seen = |result: Result<Resolved, Unresolved>| match result {
            Ok(r) => (r.route.action.to_string(), r.resource.to_string(), format!("{:?}", r.args), r.host, r.path),
            Err(u) => (u.reason.code().to_owned(), u.detail, String::new(), String::new(), String::new()),
        };
        prop_assert_eq!(seen(plain), seen(varied));
    }
}
