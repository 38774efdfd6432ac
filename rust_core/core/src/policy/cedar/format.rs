//! Policy files as Cedar's own formatter writes them. Policy by policy: the formatter looks for each comment from the start
//! of its text, so that a whole file of thousands of policies would take minutes.

use super::{schema::label, sentence};
use crate::findings::{Finding, Findings, Lines};
use cedar_policy_core::{
    ast::{PolicySet, Template},
    parser::{Loc, parse_policyset},
};
use cedar_policy_formatter::{Config, policies_str_to_pretty};
use std::{collections::BTreeMap, sync::Arc};

/// The text of a policy file, formatted; or why it can't be. A file without a policy stays as it is.
///
/// What comes out says what went in: each policy and each comment is compared, and one that would not is left alone.
pub fn format(file: &str, text: &str) -> Result<String, Vec<Finding>> {
    let mut findings = Findings::default();
    let lines = Lines::of(text);
    let set = match parse_policyset(text) {
        Ok(set) => set,
        Err(errors) => {
            for error in errors.iter() {
                findings.error(file, label(&lines, error), "syntax", sentence(error));
            }
            return Err(findings.into_sorted());
        }
    };
    let mut locs: Vec<&Loc> = set.all_templates().filter_map(Template::loc).collect();
    locs.sort_unstable_by_key(|loc| loc.start());
    if locs.is_empty() {
        return Ok(text.to_owned());
    }
    let mut formatted: Vec<String> = Vec::with_capacity(locs.len());
    for (loc, part) in locs.iter().zip(parts(text, &locs)) {
        match one(part) {
            Ok(part) => formatted.push(part),
            Err(why) => {
                let message = format!("this policy can't be formatted: {why}");
                findings.error(file, lines.place(loc.start()), "unformatted", message);
            }
        }
    }
    if findings.has_errors() { Err(findings.into_sorted()) } else { Ok(formatted.join("\n")) }
}

/// The text cut behind each policy and what stands beside it on its last line.
fn parts<'t>(text: &'t str, locs: &[&Loc]) -> Vec<&'t str> {
    let starts = locs.iter().skip(1).map(|loc| Some(loc.start())).chain([None]);
    let mut from = 0;
    let cut = |(loc, next): (&&Loc, Option<usize>)| {
        let end = next.map_or(text.len(), |next| {
            let between = text.get(loc.end()..next).unwrap_or_default();
            between.find('\n').map_or(next, |newline| loc.end() + newline + 1)
        });
        let part = text.get(from..end).unwrap_or_default();
        from = end;
        part
    };
    locs.iter().zip(starts).map(cut).collect()
}

/// One policy with its comments.
fn one(part: &str) -> Result<String, String> {
    let formatted = policies_str_to_pretty(part, &Config::default()).map_err(|error| sentence(&*error))?;
    // Cedar compares policies, and leaves templates and comments out.
    if !same_policies(part, &formatted) {
        return Err("it would say something else".to_owned());
    }
    if comments(part) != comments(&formatted) {
        return Err("a comment would be lost: put it on a line of its own before the policy".to_owned());
    }
    Ok(formatted)
}

fn same_policies(before: &str, after: &str) -> bool {
    let (Ok(before), Ok(after)) = (parse_policyset(before), parse_policyset(after)) else { return false };
    let by_id = |set: &PolicySet| -> BTreeMap<String, Arc<Template>> {
        set.all_templates().map(|template| (template.id().to_string(), Arc::new(template.clone()))).collect()
    };
    let (before, after) = (by_id(&before), by_id(&after));
    before.len() == after.len()
        && before.iter().zip(&after).all(|((a, before), (b, after))| a == b && same(before, after))
}

fn same(before: &Template, after: &Template) -> bool {
    let annotations = |template: &Template| -> BTreeMap<String, String> {
        template.annotations().map(|(key, value)| (key.to_string(), value.as_ref().to_owned())).collect()
    };
    let conditions = match (before.non_scope_constraints(), after.non_scope_constraints()) {
        (Some(before), Some(after)) => before.eq_shape(after),
        (before, after) => before.is_none() && after.is_none(),
    };
    annotations(before) == annotations(after)
        && before.effect() == after.effect()
        && before.principal_constraint() == after.principal_constraint()
        && before.action_constraint() == after.action_constraint()
        && before.resource_constraint() == after.resource_constraint()
        && conditions
}

/// Every comment, sorted: in which order they stand is the formatter's.
fn comments(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut at, mut is_text) = (0, false);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let next = rest.chars().next().map_or(1, char::len_utf8);
        if is_text {
            at += if rest.starts_with('\\') { next + rest.chars().nth(1).map_or(0, char::len_utf8) } else { next };
            is_text = !rest.starts_with('"');
        } else if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            found.push(rest.get(..end).unwrap_or_default().trim());
            at += end;
        } else {
            is_text = rest.starts_with('"');
            at += next;
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(text: &str) -> String {
        format("p.cedar", text).unwrap()
    }

    #[test]
    fn policies_are_laid_out_as_cedar_lays_them_out() {
        let text = "permit(principal,action,resource)when{context.signals has a};\n\n\n// two\nforbid(principal,action,resource); // last\n// end\n";
        let expected = "permit (principal, action, resource)\nwhen { context.signals has a };\n\n// two\nforbid (principal, action, resource); // last\n// end\n";
        assert_eq!(formatted(text), expected);
        assert_eq!(policies_str_to_pretty(text, &Config::default()).unwrap(), expected);
    }

    #[test]
    fn what_is_formatted_stays_as_it_is() {
        for text in [
            "permit(principal,action,resource);forbid(principal,action,resource);",
            "// head\n\n// more\n@id(\"a // no comment \\\" b\")\npermit(principal == ?principal,action,resource in ?resource) // scope\nwhen { // why\n true };",
            "@advice(\"call us\")@id(\"x\")forbid(principal,action in[Action::\"a\",Action::\"b\"],resource is Account)unless{context.request.args.amount<5&&[1,2].contains(3)};",
        ] {
            let once = formatted(text);
            assert_eq!(formatted(&once), once);
            assert_eq!(comments(text), comments(&once));
        }
    }

    #[test]
    fn a_file_without_a_policy_stays_as_it_is() {
        for text in ["", "\n", "// nothing yet   \n\n\n"] {
            assert_eq!(formatted(text), text);
        }
    }

    #[test]
    fn a_mistake_has_its_place_and_nothing_is_formatted() {
        let findings = format("p.cedar", "permit (principal, action, resource);\nforbid (nobody);\n").unwrap_err();
        let first = findings.first().unwrap();
        assert_eq!((first.file.as_str(), first.place.line, first.code), ("p.cedar", 2, "syntax"));
    }

    #[test]
    fn comments_are_told_from_texts() {
        assert_eq!(comments("a // one\n\"// not \\\" one\" // two\n/ 1"), ["// one", "// two"]);
    }
}
