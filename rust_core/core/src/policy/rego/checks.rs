//! What `check` finds in files of Rego. INVARIANT I1: an entry point sees the signals that it was found to read, and what
//! can't be found is refused.

use super::{
    builtins, functions,
    graph::{Graph, Index, literal_part},
    growth,
    input::{PARTS, SIGNALS},
    outputs,
    parse::Parsed,
    walk::{self, Call, Kind, Read, Reading},
};
use crate::{
    findings::{Findings, Place, did_you_mean},
    limits::MAX_REGO_DEPTH,
    model::{ActionId, Influence, Tier},
    policy::{ActionRule, SignalIndex, SignalRule},
};
use std::collections::{BTreeMap, BTreeSet};

/// What the settings are named in findings.
pub(super) const SETTINGS: &str = "signalwarden.yaml";

/// What was found of an entry point.
pub(super) struct Entry {
    /// The first of its rules.
    pub(super) first: usize,
    /// Whether a rule has exactly its name; else it is the document that holds several.
    pub(super) is_rule: bool,
    /// Everything that it reaches.
    pub(super) reached: BTreeSet<usize>,
}

/// The rules of a directory, read and joined.
pub(super) struct Rules<'p> {
    pub(super) readings: &'p [Reading],
    packages: Vec<&'p [String]>,
    index: Index<'p>,
    graph: Graph,
}

impl<'p> Rules<'p> {
    /// `readings` are those of `files`, in order.
    pub(super) fn of(files: &'p [Parsed], readings: &'p [Reading]) -> Self {
        let package = |file: &'p Parsed| std::iter::repeat_n(file.package.as_slice(), file.module.policy.len());
        let packages: Vec<&[String]> = files.iter().flat_map(package).collect();
        let index = Index::of(readings);
        let graph = Graph::of(readings, &packages, &index);
        Self { readings, packages, index, graph }
    }

    fn at(&self, at: usize) -> Option<&'p Reading> {
        self.readings.get(at)
    }

    /// The components of the entry point that the settings name, below `data`.
    pub(super) fn components(query: &str, findings: &mut Findings) -> Option<Vec<String>> {
        let path: Option<Vec<String>> =
            query.strip_prefix("data.").map(|rest| rest.split('.').map(str::to_owned).collect());
        let is_word = |word: &String| {
            !word.starts_with(|first: char| first.is_ascii_digit())
                && !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let path = path.filter(|path| path.iter().all(is_word));
        if path.is_none() {
            let message = format!("`policies.rego.query`: expected a path such as `data.authz.allow`, found `{query}`");
            findings.error(SETTINGS, Place::default(), "bad_query", message);
        }
        path
    }

    /// The entry point, if there is one.
    pub(super) fn entry(&self, path: &[String], findings: &mut Findings) -> Option<Entry> {
        let named = |at: &usize| self.at(*at).is_some_and(|rule| !matches!(rule.kind, Kind::Function(_)));
        let exact: Vec<usize> = self.index.exactly(path).iter().copied().filter(named).collect();
        let below = self
            .index
            .touched(path)
            .into_iter()
            .filter(|at| named(at) && self.at(*at).is_some_and(|rule| rule.path.starts_with(path)));
        let rules: Vec<usize> = if exact.is_empty() { below.collect() } else { exact.clone() };
        let Some(first) = rules.iter().copied().min() else {
            let known: Vec<String> = self.index.paths().map(dotted).collect();
            let meant = did_you_mean(&dotted(path), known.iter().map(String::as_str));
            let message = format!("`policies.rego.query`: no rule is called `{}`{meant}", dotted(path));
            findings.error(SETTINGS, Place::default(), "no_entry_point", message);
            return None;
        };
        // A document below it may be asked for as part of it.
        let from = self.index.touched(path);
        Some(Entry { first, is_rule: !exact.is_empty(), reached: self.graph.reachable(&from) })
    }

    /// What holds for every rule, whatever `input` is: known functions, safe names, no circle, not too deep.
    pub(super) fn sound(&self, files: &[Parsed], findings: &mut Findings) {
        for file in files {
            imports(file, findings);
        }
        let known = functions::known();
        for (reading, package) in self.readings.iter().zip(&self.packages) {
            for (place, code, message) in &reading.misuses {
                findings.error(&reading.file, *place, code, message.as_str());
            }
            for call in &reading.calls {
                self.call(reading, package, call, &known, findings);
            }
            for (name, place) in &reading.unsafe_names {
                if known.keys().any(|function| function.split('.').next() == Some(name)) {
                    continue;
                }
                let own =
                    self.index.paths().filter_map(|path| path.strip_prefix(*package)).filter_map(|rest| rest.first());
                let meant = did_you_mean(name, own.map(String::as_str).chain(["input", "data"]));
                let message =
                    format!("`{name}` is neither a rule nor an import nor a variable that is given a value{meant}");
                findings.error(&reading.file, *place, "unsafe_name", message);
            }
        }
        match self.graph.order() {
            Ok(order) => {
                self.shallow(&order, findings);
                growth::check(files, self.readings, &self.index, &order, findings);
            }
            Err((rule, by)) => {
                if let (Some(rule), Some(by)) = (self.at(rule), self.at(by)) {
                    let message = format!(
                        "the rule `{}` depends on itself, by way of `{}` at {}:{}",
                        dotted(&rule.path),
                        dotted(&by.path),
                        by.file,
                        by.place.line
                    );
                    findings.error(&rule.file, rule.place, "recursion", message);
                }
            }
        }
    }

    fn shallow(&self, order: &[usize], findings: &mut Findings) {
        let depths = self.graph.depths(self.readings, order);
        // The shallowest of those that are too deep: the others only follow from it.
        let too_deep = order.iter().find(|at| depths.get(**at).is_some_and(|depth| *depth > MAX_REGO_DEPTH));
        if let Some(rule) = too_deep.and_then(|at| self.at(*at)) {
            let message = format!(
                "the rule `{}` with all that it refers to is nested deeper than an evaluation may go: split it",
                dotted(&rule.path)
            );
            findings.error(&rule.file, rule.place, "too_nested", message);
        }
    }

    fn call(
        &self,
        reading: &Reading,
        package: &[String],
        call: &Call,
        known: &BTreeMap<&str, Option<u8>>,
        findings: &mut Findings,
    ) {
        let name = call.path.join(".");
        let defined = self.index.called(&call.path, package).iter().filter_map(|at| self.at(*at));
        let arities: Vec<usize> = defined
            .filter_map(|rule| match rule.kind {
                Kind::Function(args) => Some(args),
                Kind::Default => Some(usize::MAX),
                Kind::Value => None,
            })
            .collect();
        // The last argument may take the result: of rules, and of the interpreter's own functions.
        let may_take = !arities.is_empty()
            || functions::takes_result(&name)
            || (call.turned.is_some() && outputs::is_turned(&name, call.args));
        let fits = |arity: usize| call.args == usize::MAX || call.args == arity || (may_take && call.args == arity + 1);
        let arity = match (arities.iter().find(|arity| **arity != usize::MAX), known.get(name.as_str())) {
            (Some(arity), _) => Some(*arity),
            (None, _) if !arities.is_empty() => None,
            (None, Some(arity)) => arity.map(usize::from),
            (None, None) => {
                let (code, message) = if let Some(why) = builtins::refused(&name) {
                    ("refused_builtin", format!("the built-in `{name}` is refused: {why}"))
                } else {
                    let meant = did_you_mean(&name, known.keys().copied());
                    ("unknown_function", format!("there is no function `{name}`{meant}"))
                };
                findings.error(&reading.file, call.place, code, message);
                return;
            }
        };
        if let Some(arity) = arity.filter(|arity| !fits(*arity)) {
            let message = format!("`{name}` takes {arity} arguments, found {}", call.args);
            findings.error(&reading.file, call.place, "wrong_arguments", message);
        }
    }
}

/// Words that once needed an import, and may have one.
const KEYWORDS: [&str; 4] = ["contains", "every", "if", "in"];

/// Imports of what is not there would be undefined for ever.
fn imports(file: &Parsed, findings: &mut Findings) {
    let known = walk::imports(file);
    for import in &file.module.imports {
        let at = super::parse::place(&import.span);
        let Some(path) = super::parse::static_path(&import.refr) else {
            findings.error(&file.file, at, "bad_import", "an import is a path of names");
            continue;
        };
        let (root, rest) = path.split_first().map_or(("", &[] as &[String]), |(root, rest)| (root.as_str(), rest));
        // That it begins with `input`, `data`, `rego` or `future` is what the parser wants.
        match root {
            "rego" if rest == ["v1"] => continue,
            "future" if matches!(rest, [_, word] if KEYWORDS.contains(&word.as_str())) => continue,
            "rego" | "future" => {
                let message = format!(
                    "`import {}` is refused: version 1 of Rego has the words {} without an import, and no others are taken",
                    path.join("."),
                    KEYWORDS.map(|word| format!("`{word}`")).join(", ")
                );
                findings.error(&file.file, at, "refused_construct", message);
                continue;
            }
            "data" if rest.is_empty() => {
                findings.error(&file.file, at, "bad_import", "an import is of something below `data`");
                continue;
            }
            _ => {}
        }
        let alias = import.r#as.as_ref().map(|alias| alias.text().to_owned()).or_else(|| path.last().cloned());
        if alias.is_some_and(|alias| (alias == "input" || alias == "data") && known.get(&alias) != Some(&vec![alias])) {
            findings.error(&file.file, at, "shadowed_document", "an alias may not be called `input` or `data`");
        }
    }
}

/// What an entry point reads of the register: checked, and told.
pub(super) struct Governed<'a> {
    pub(super) actions: Vec<&'a ActionRule>,
    pub(super) signals: &'a [SignalRule],
}

impl Governed<'_> {
    fn signal(&self, name: &str) -> Option<(SignalIndex, &SignalRule)> {
        let at = self.signals.iter().position(|rule| rule.name.as_str() == name)?;
        Some((SignalIndex(u16::try_from(at).ok()?), self.signals.get(at)?))
    }

    /// Checks every rule, and gives the signals that those which are reached mention.
    pub(super) fn check(
        &self,
        rules: &Rules<'_>,
        reached: &BTreeSet<usize>,
        findings: &mut Findings,
    ) -> BTreeSet<SignalIndex> {
        let mut mentions = BTreeSet::new();
        for (at, reading) in rules.readings.iter().enumerate() {
            let is_reached = reached.contains(&at);
            for read in &reading.inputs {
                if let Some(signal) = self.read(reading, read, is_reached, findings) {
                    mentions.insert(signal);
                }
            }
            for place in reading.overrides.iter().filter(|_| is_reached) {
                let message = "`with input` would show a policy another input than the decision's: leave it out";
                findings.error(&reading.file, *place, "input_overridden", message);
            }
        }
        mentions
    }

    /// INVARIANT I1: `input` is read by names that are written out, so that what is read is known.
    fn read(&self, reading: &Reading, read: &Read, is_reached: bool, findings: &mut Findings) -> Option<SignalIndex> {
        let mut refuse = |code, message: String| {
            if !findings.as_slice().iter().any(|f| f.code == code && f.place == read.place && f.file == *reading.file) {
                findings.error(&reading.file, read.place, code, message);
            }
        };
        let path = literal_part(&read.path);
        let Some(part) = path.first() else {
            let message = "`input` is used whole, or with a name that is not written out: use `input.NAME`";
            refuse("input_whole", message.to_owned());
            return None;
        };
        let Some((_, below)) = PARTS.iter().find(|(name, _)| name == part) else {
            let meant = did_you_mean(part, PARTS.iter().map(|(name, _)| *name));
            refuse("unknown_input", format!("there is no `input.{part}`{meant}"));
            return None;
        };
        let name = path.get(1);
        if *part != SIGNALS {
            let unknown = name.filter(|name| !below.is_empty() && !below.contains(&name.as_str()));
            if let Some(name) = unknown {
                let meant = did_you_mean(name, below.iter().copied());
                refuse("unknown_input", format!("there is no `input.{part}.{name}`{meant}"));
            } else if part == "request" && name.is_some_and(|name| name == "args") {
                self.argument(path.get(2), &mut refuse);
            }
            return None;
        }
        let Some(name) = name else {
            let message =
                "`input.signals` is used whole, or with a name that is not written out: use `input.signals.NAME`";
            refuse("input_whole", message.to_owned());
            return None;
        };
        let Some((signal, rule)) = self.signal(name) else {
            let meant = did_you_mean(name, self.signals.iter().map(|rule| rule.name.as_str()));
            refuse("unregistered_signal", format!("the signal `{name}` is not registered in signals.yaml{meant}"));
            return None;
        };
        if !is_reached {
            return None;
        }
        self.allowed(reading, read.place, rule, findings);
        Some(signal)
    }

    /// An argument that no route of its actions has is always absent.
    fn argument(&self, name: Option<&String>, refuse: &mut impl FnMut(&'static str, String)) {
        let Some(name) = name else { return };
        if self.actions.iter().any(|action| action.args.contains_key(name.as_str())) {
            return;
        }
        let known = self.actions.iter().flat_map(|action| action.args.keys());
        let meant = did_you_mean(name, known.map(AsRef::as_ref));
        refuse("unknown_input", format!("no route of its actions has the argument `{name}`{meant}"));
    }

    /// The same rules as for Cedar: the contract names each action, none is coarse, and what is observed decides nothing.
    fn allowed(&self, reading: &Reading, place: Place, rule: &SignalRule, findings: &mut Findings) {
        let contract = format!("its contract is at signals.yaml:{}", rule.place.line);
        let mut refuse = |code, message: String| {
            let is_told = |f: &crate::findings::Finding| f.code == code && f.message == message;
            if !findings.as_slice().iter().any(is_told) {
                findings.error(&reading.file, place, code, message);
            }
        };
        if rule.influence == Influence::Observe {
            let message =
                format!("the signal `{}` may only be observed, so no Rego policy reads it: {contract}", rule.name);
            return refuse("observed_signal", message);
        }
        for action in &self.actions {
            if action.tier == Tier::Coarse {
                let message = format!(
                    "this policy is asked for the action `{}` of tier coarse and reads the signal `{}`: name other actions in \
                     `policies.rego.actions`, or give the action another tier",
                    action.id, rule.name
                );
                refuse("ungoverned_read", message);
            } else if !rule.used_by.contains(&action.id) {
                let message = format!(
                    "this policy is asked for the action `{}`, which `used_by` of the signal `{}` does not list; {contract}",
                    action.id, rule.name
                );
                refuse("ungoverned_read", message);
            }
        }
    }
}

/// The actions that the settings name; every one of the routes where they name none.
pub(super) fn actions<'a>(
    wanted: Option<&[String]>,
    actions: &'a [ActionRule],
    findings: &mut Findings,
) -> Vec<&'a ActionRule> {
    let Some(wanted) = wanted else { return actions.iter().collect() };
    let find = |name: &String| {
        let found = actions.iter().find(|action| action.id.as_str() == name);
        if found.is_none() {
            let meant = did_you_mean(name, actions.iter().map(|action| ActionId::as_str(&action.id)));
            let message = format!("`policies.rego.actions`: no route has the action `{name}`{meant}");
            findings.error(SETTINGS, Place::default(), "unknown_action", message);
        }
        found
    };
    wanted.iter().filter_map(find).collect()
}

/// `data.…`, as it is written.
pub(super) fn dotted(path: &[String]) -> String {
    std::iter::once("data").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(".")
}

impl Rules<'_> {
    /// Nothing is defined twice in ways that exclude each other.
    pub(super) fn apart(&self, files: &[Parsed], data: &regorus::Value, findings: &mut Findings) {
        let mut told = BTreeSet::new();
        for reading in self.readings {
            if told.insert(&reading.path) {
                self.one_kind(reading, findings);
                self.mixed(reading, findings);
            }
            if in_data(&reading.path, data) {
                let message = format!("`{}` is defined here and in data.json", dotted(&reading.path));
                findings.error(&reading.file, reading.place, "data_clash", message);
            }
        }
        let mut aliases: BTreeMap<(&[String], String), Vec<String>> = BTreeMap::new();
        for file in files {
            self.package(file, findings);
            for (alias, path) in walk::imports(file) {
                let known = aliases.entry((&file.package, alias.clone())).or_insert_with(|| path.clone());
                if *known != path {
                    let at = super::parse::place(&file.module.package.span);
                    let message = format!(
                        "`{alias}` is imported as `{}` here and as `{}` in another file of this package: use two names",
                        path.join("."),
                        known.join(".")
                    );
                    findings.error(&file.file, at, "import_clash", message);
                }
            }
        }
    }

    /// Asked for one part of a document, the interpreter finds the rules of exactly that part or those of the whole.
    fn mixed(&self, reading: &Reading, findings: &mut Findings) {
        let indexed = (0..reading.path.len()).filter_map(|length| reading.path.get(..length)).find_map(|prefix| {
            self.index.exactly(prefix).iter().filter_map(|at| self.at(*at)).find(|rule| rule.is_indexed)
        });
        if let Some(rule) = indexed {
            let message = format!(
                "`{}` is a part of what the rule at {}:{} makes by an index: write that index out there, or make this one by it",
                dotted(&reading.path),
                rule.file,
                rule.place.line
            );
            findings.error(&reading.file, reading.place, "refused_construct", message);
        }
    }

    /// A name is a value or a function, and has one default.
    fn one_kind(&self, reading: &Reading, findings: &mut Findings) {
        let all = || self.index.exactly(&reading.path).iter().filter_map(|at| self.at(*at));
        let mut refuse = |rule: &Reading, what: &str| {
            let message = format!("`{}` {what}", dotted(&rule.path));
            findings.error(&rule.file, rule.place, "rule_clash", message);
        };
        let function = all().find(|rule| matches!(rule.kind, Kind::Function(_)));
        let value = all().find(|rule| rule.kind == Kind::Value);
        if let (Some(_), Some(value)) = (function, value) {
            refuse(value, "is a function elsewhere, and a value here");
        }
        if let Some(second) = all().filter(|rule| rule.kind == Kind::Default && !rule.is_indexed).nth(1) {
            refuse(second, "has a default already");
        }
        if let Some(Kind::Function(arity)) = function.map(|rule| rule.kind)
            && let Some(other) = all().find(|rule| matches!(rule.kind, Kind::Function(args) if args != arity))
        {
            refuse(other, "takes another number of arguments elsewhere");
        }
    }

    /// A package may not be called as a rule is.
    fn package(&self, file: &Parsed, findings: &mut Findings) {
        for length in 1..=file.package.len() {
            let Some(prefix) = file.package.get(..length) else { continue };
            let rule = self.index.exactly(prefix).iter().find_map(|at| self.at(*at));
            if let Some(rule) = rule {
                let at = super::parse::place(&file.module.package.span);
                let message = format!(
                    "the package `{}` is called as the rule at {}:{} is",
                    dotted(&file.package),
                    rule.file,
                    rule.place.line
                );
                findings.error(&file.file, at, "package_clash", message);
                return;
            }
        }
    }
}

/// Whether `data.json` says something where a rule does.
fn in_data(path: &[String], data: &regorus::Value) -> bool {
    let mut at = data;
    for name in path {
        let regorus::Value::Object(fields) = at else { return true };
        match fields.get(&regorus::Value::from(name.as_str())) {
            Some(below) => at = below,
            None => return false,
        }
    }
    true
}
