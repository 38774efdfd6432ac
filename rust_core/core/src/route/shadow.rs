//! Routes that can never be chosen: more specific ones of the same host take every request that they match.
//! Other hosts, and conditions that only some requests meet, never take all. So it is `{*rest}` alone that can be
//! taken: by routes for nothing, for one segment, and for more.

use super::{
    Route,
    forms::{Form, Tree},
    matches::Methods,
    paths::Segment,
};
use crate::findings::Findings;
use std::{collections::BTreeSet, sync::Arc};

/// Most lines that one message names.
const MAX_NAMED: usize = 8;

/// Warns of each shadowed route. `routes`: of one host, the most specific first.
pub(super) fn warn(file: &str, routes: &[Arc<Route>], tree: &Tree, findings: &mut Findings) {
    for (at, route) in routes.iter().enumerate() {
        if route.path.segments.last() != Some(&Segment::Rest) {
            continue;
        }
        let near = tree.overlapping(&Form::exactly(&route.path.segments)).into_iter();
        let before: Vec<&Route> = near
            .filter(|other| *other < at)
            .filter_map(|other| routes.get(other).map(AsRef::as_ref))
            .filter(|other| route.further.asks_for_all_of(&other.further))
            .collect();
        if let Some(lines) = takers(route, &before) {
            let named: Vec<String> = lines.iter().take(MAX_NAMED).map(ToString::to_string).collect();
            let message = format!(
                "this route can never be chosen: more specific ones take every request that it matches (lines {}{})",
                named.join(", "),
                if lines.len() > MAX_NAMED { " and more" } else { "" }
            );
            findings.warning(file, route.place, "shadowed_route", message);
        }
    }
}

/// Lines of the routes that together take all of a route; `None` if something is left for it.
fn takers(route: &Route, before: &[&Route]) -> Option<BTreeSet<u32>> {
    let mut lines = BTreeSet::new();
    let mut taken_by = |takers: Vec<&Route>| take(&route.path.segments, &takers, &mut lines);
    let taken = match &route.methods {
        // Methods are without number, so names alone don't take them all.
        Methods::Any => taken_by(before.iter().copied().filter(|other| !other.methods.is_named()).collect()),
        Methods::Named(names) => names
            .iter()
            .all(|name| taken_by(before.iter().copied().filter(|other| other.methods.matches(name)).collect())),
    };
    taken.then_some(lines)
}

/// Whether every path of a template is of one of these routes.
fn take(segments: &[Segment], takers: &[&Route], lines: &mut BTreeSet<u32>) -> bool {
    if let Some(taker) = takers.iter().find(|taker| covers(&taker.path.segments, segments)) {
        lines.insert(taker.place.line);
        return true;
    }
    let [before @ .., Segment::Rest] = segments else { return false };
    // Nothing longer than the longest taker is worth a look.
    if takers.iter().all(|taker| taker.path.segments.len() < segments.len()) {
        return false;
    }
    let plain = || Segment::Param { prefix: "".into(), suffix: "".into() };
    let with = |ends: Vec<Segment>| before.iter().cloned().chain(ends).collect::<Vec<_>>();
    // What `{*rest}` stands for: nothing, one segment, one segment and more.
    let parts = [with(vec![Segment::Literal("".into())]), with(vec![plain()]), with(vec![plain(), Segment::Rest])];
    parts.iter().all(|part| take(part, takers, lines))
}

/// Whether every path of the form `inner` is of the form `outer`.
fn covers(outer: &[Segment], inner: &[Segment]) -> bool {
    match (outer, inner) {
        ([], []) | ([Segment::Rest, ..], [_, ..]) => true,
        ([one, outer @ ..], [two, inner @ ..]) => segment_covers(one, two) && covers(outer, inner),
        _ => false,
    }
}

fn segment_covers(outer: &Segment, inner: &Segment) -> bool {
    match (outer, inner) {
        (Segment::Literal(outer), Segment::Literal(inner)) => outer == inner,
        (Segment::Param { prefix, suffix }, Segment::Literal(text)) => {
            text.len() > prefix.len() + suffix.len() && text.starts_with(&**prefix) && text.ends_with(&**suffix)
        }
        (Segment::Param { prefix: p1, suffix: s1 }, Segment::Param { prefix: p2, suffix: s2 }) => {
            p2.starts_with(&**p1) && s2.ends_with(&**s1)
        }
        _ => false,
    }
}
