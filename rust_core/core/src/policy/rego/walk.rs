//! What the rules of a file read and call, from their syntax trees.

use super::outputs::{self, Turned};
use super::parse::{self, Parsed, literal, place, static_path};
use crate::{findings::Place, model};
use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Query, Ref, Rule, RuleBody, RuleHead};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

/// One step of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A name that is written out.
    Name(String),
    /// Anything: an index that is not literal.
    Any,
}

/// A reference and its place.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// Below `input`, or below `data`.
    pub(super) path: Vec<Step>,
    pub(super) place: Place,
}

/// A call of a function.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// As written, but for import aliases.
    pub(super) path: Vec<String>,
    pub(super) args: usize,
    pub(super) place: Place,
    /// As an equation, if it is a statement by itself.
    pub(super) turned: Option<Turned>,
}

/// What defines a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    /// With its number of arguments.
    Function(usize),
    Default,
}

/// One rule, as far as its text tells.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) file: Arc<str>,
    /// Components below `data`, as far as they are literal.
    pub(super) path: Vec<String>,
    pub(super) kind: Kind,
    /// Whether it gives one part of what it defines, beside others of its name.
    pub(super) is_part: bool,
    /// Whether it defines a part of that by an index that is not literal.
    pub(super) is_indexed: bool,
    pub(super) place: Place,
    /// What it reads of `input`.
    pub(super) inputs: Vec<Read>,
    /// What it refers to below `data`.
    pub(super) data: Vec<Read>,
    pub(super) calls: Vec<Call>,
    /// Overrides of `input` in a `with`.
    pub(super) overrides: Vec<Place>,
    /// What can't be analysed.
    pub(super) misuses: Vec<(Place, &'static str, String)>,
    /// Names that are given no value anywhere, and where they are used.
    pub(super) unsafe_names: Vec<(String, Place)>,
    /// How deep the interpreter goes in it, by its own statements.
    pub(super) depth: usize,
    /// Literal texts and numbers.
    pub(super) literals: Vec<model::Value>,
}

/// What a file can name.
struct Names<'p> {
    package: &'p [String],
    /// First components of the rules of its package, in whichever file.
    own: &'p BTreeSet<String>,
    /// Whole paths, with their root.
    imports: BTreeMap<String, Vec<String>>,
}

/// Reads every rule of every file.
pub(super) fn read(files: &[Parsed]) -> Vec<Reading> {
    let mut own: BTreeMap<&[String], BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let names = own.entry(&file.package).or_default();
        names.extend(file.module.policy.iter().filter_map(|rule| head_path(head_of(rule)).into_iter().next()));
    }
    let nothing = BTreeSet::new();
    let mut all = Vec::new();
    for file in files {
        let names = Names {
            package: &file.package,
            own: own.get(file.package.as_slice()).unwrap_or(&nothing),
            imports: imports(file),
        };
        all.extend(file.module.policy.iter().map(|rule| Walk::new(file, &names).rule(rule)));
    }
    all
}

/// The imports of a file by their alias. What is no path is told by the checks.
pub(super) fn imports(file: &Parsed) -> BTreeMap<String, Vec<String>> {
    let import = |import: &regorus::unstable::Import| {
        let path = static_path(&import.refr)?;
        let alias = import.r#as.as_ref().map_or_else(|| path.last().cloned(), |alias| Some(alias.text().to_owned()))?;
        Some((alias, path))
    };
    file.module.imports.iter().filter_map(import).collect()
}

fn head_of(rule: &Rule) -> &Expr {
    match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
    }
}

/// The literal beginning of the name that a rule defines.
fn head_path(head: &Expr) -> Vec<String> {
    let (root, steps) = unwind(head);
    let mut path: Vec<String> = match root {
        Expr::Var { span, .. } => vec![span.text().to_owned()],
        _ => Vec::new(),
    };
    path.extend(steps.iter().map_while(|step| match step {
        Link::Name(name) => Some(name.clone()),
        Link::Index(_) => None,
    }));
    path
}

/// One link of a chain of references.
enum Link<'a> {
    Name(String),
    Index(&'a Ref<Expr>),
}

/// What a chain begins with, and its links in order.
fn unwind(expr: &Expr) -> (&Expr, Vec<Link<'_>>) {
    let mut links = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::RefDot { refr, field, .. } => {
                links.push(Link::Name(field.0.text().to_owned()));
                at = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                links.push(literal(index).map_or(Link::Index(index), Link::Name));
                at = refr;
            }
            _ => {
                links.reverse();
                return (at, links);
            }
        }
    }
}

struct Walk<'p> {
    names: &'p Names<'p>,
    /// Names that are declared, innermost last.
    scopes: Vec<HashSet<String>>,
    reading: Reading,
    /// Names that are no rule, import or declared variable: given a value by `=`, an index or an output argument…
    bound: HashSet<String>,
    /// …or only used.
    used: Vec<(String, Place)>,
    nesting: usize,
    /// Of the call that is a statement, until it is read.
    turned: Option<Turned>,
    /// How many loops there are so far.
    loops: usize,
}

/// How deep the interpreter goes, in about half a kilobyte of its stack: for a query, for a loop. An expression is one.
const OF_QUERY: usize = 4;
const OF_LOOP: usize = 4;

impl<'p> Walk<'p> {
    fn new(file: &Parsed, names: &'p Names<'p>) -> Self {
        let reading = Reading {
            file: Arc::clone(&file.file),
            path: Vec::new(),
            kind: Kind::Value,
            is_part: false,
            is_indexed: false,
            place: Place::default(),
            inputs: Vec::new(),
            data: Vec::new(),
            calls: Vec::new(),
            overrides: Vec::new(),
            misuses: Vec::new(),
            unsafe_names: Vec::new(),
            depth: 0,
            literals: Vec::new(),
        };
        Self {
            names,
            scopes: Vec::new(),
            reading,
            bound: HashSet::new(),
            used: Vec::new(),
            nesting: 0,
            turned: None,
            loops: 0,
        }
    }

    fn rule(mut self, rule: &Rule) -> Reading {
        let head = head_of(rule);
        self.reading.place = place(rule.span());
        self.reading.is_indexed = !indices(head).is_empty();
        self.reading.is_part = self.reading.is_indexed || matches!(rule, Rule::Spec { head: RuleHead::Set { .. }, .. });
        self.reading.path = self.names.package.iter().cloned().chain(head_path(head)).collect();
        match rule {
            Rule::Default { value, args, refr, .. } => {
                self.reading.kind = Kind::Default;
                if !args.is_empty() && !matches!(refr.as_ref(), Expr::Var { .. }) {
                    let at = self.reading.place;
                    self.refuse(
                        at,
                        "the default of a function whose name has a dot is not right here: put it into a package",
                    );
                }
                self.declared(|declared| args.iter().for_each(|arg| pattern(arg, declared)));
                self.expr(value, false);
                let r = &self.reading;
                if !(r.data.is_empty() && r.inputs.is_empty() && r.calls.is_empty() && self.used.is_empty()) {
                    let message = "a default is a value that is written out".to_owned();
                    self.reading.misuses.push((place(value.span()), "bad_default", message));
                }
            }
            Rule::Spec { head: RuleHead::Func { args, assign, .. }, bodies, .. } => {
                self.reading.kind = Kind::Function(args.len());
                self.declared(|declared| args.iter().for_each(|arg| pattern(arg, declared)));
                let heads: Vec<&Ref<Expr>> = assign.iter().map(|assign| &assign.value).collect();
                self.bodies(&heads, bodies);
            }
            Rule::Spec { head: RuleHead::Set { key, .. }, bodies, .. } => {
                let heads: Vec<&Ref<Expr>> = indices(head).into_iter().chain(key.iter()).collect();
                self.bodies(&heads, bodies);
            }
            Rule::Spec { head: RuleHead::Compr { assign, .. }, bodies, .. } => {
                let value = assign.iter().map(|assign| &assign.value);
                let heads: Vec<&Ref<Expr>> = indices(head).into_iter().chain(value).collect();
                self.bodies(&heads, bodies);
            }
        }
        let Self { mut reading, bound, used, .. } = self;
        reading.unsafe_names = used.into_iter().filter(|(name, _)| !bound.contains(name)).collect();
        reading
    }

    fn declared(&mut self, declare: impl FnOnce(&mut HashSet<String>)) {
        let mut declared = HashSet::new();
        declare(&mut declared);
        for name in ["input", "data"] {
            if declared.contains(name) {
                let at = self.reading.place;
                let message = format!("`{name}` is the name of a document: call the variable something else");
                self.reading.misuses.push((at, "shadowed_document", message));
            }
        }
        self.scopes.push(declared);
    }

    /// The head's own expressions are evaluated where a body has succeeded: its variables are known there.
    fn bodies(&mut self, heads: &[&Ref<Expr>], bodies: &[RuleBody]) {
        if bodies.is_empty() {
            for head in heads {
                self.expr(head, false);
            }
        }
        for body in bodies {
            self.query(&body.query, |walk| {
                for head in heads {
                    walk.expr(head, false);
                }
                if let Some(assign) = &body.assign {
                    walk.expr(&assign.value, false);
                }
            });
        }
    }

    fn query(&mut self, query: &Query, then: impl FnOnce(&mut Self)) {
        self.declared(|declared| query.stmts.iter().for_each(|stmt| declarations(stmt, declared)));
        let outside = self.nesting;
        self.nesting += OF_QUERY;
        for stmt in &query.stmts {
            let before = self.loops;
            self.statement(stmt);
            // What follows a loop is evaluated inside it.
            self.nesting += OF_LOOP * (self.loops - before);
        }
        then(self);
        self.reading.depth = self.reading.depth.max(self.nesting);
        self.nesting = outside;
        self.scopes.pop();
    }

    fn statement(&mut self, stmt: &LiteralStmt) {
        match &stmt.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                self.loops += 1;
                for part in key.iter().chain([value, collection]) {
                    self.expr(part, false);
                }
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                self.turned = outputs::turned(expr);
                self.expr(expr, false);
            }
            Literal::Every { key, value, domain, query, .. } => {
                self.loops += 1;
                self.expr(domain, false);
                self.declared(|declared| {
                    declared.extend(key.iter().chain([value]).map(|name| name.text().to_owned()));
                });
                self.query(query, |_| {});
                self.scopes.pop();
            }
        }
        for with in &stmt.with_mods {
            let (root, links) = unwind(&with.refr);
            if let Expr::Var { span, .. } = root
                && self.target(span.text()).is_some_and(|target| target.first().is_some_and(|root| root == "input"))
            {
                self.reading.overrides.push(place(&with.span));
            }
            for link in &links {
                self.index(link);
            }
            self.stand_in(&with.r#as);
        }
    }

    /// What a `with` puts in another's place: it may be the name of a function.
    fn stand_in(&mut self, expr: &Ref<Expr>) {
        let (root, _) = unwind(expr);
        let Expr::Var { span, .. } = root else { return self.expr(expr, false) };
        if self.is_local(span.text()) || self.target(span.text()).is_some() {
            return self.expr(expr, false);
        }
        if let Some(path) = static_path(expr) {
            self.reading.calls.push(Call { path, args: usize::MAX, place: place(span), turned: None });
        }
    }

    /// `gives`: where it stands, a variable may get its value.
    fn expr(&mut self, expr: &Ref<Expr>, gives: bool) {
        self.nesting += 1;
        self.reading.depth = self.reading.depth.max(self.nesting);
        self.inner(expr, gives);
        self.nesting -= 1;
    }

    fn inner(&mut self, expr: &Ref<Expr>, gives: bool) {
        match expr.as_ref() {
            Expr::String { value, .. } | Expr::RawString { value, .. } => {
                let literal = value.as_string().ok().map(|text| model::Value::String(Arc::from(&**text)));
                self.reading.literals.extend(literal);
            }
            Expr::Number { value, .. } => self.reading.literals.extend(value.as_i64().ok().map(model::Value::Long)),
            Expr::Bool { .. } | Expr::Null { .. } => {}
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.chain(expr, gives),
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| self.expr(item, gives)),
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expr(key, false);
                    self.expr(value, gives);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.query(query, |walk| walk.expr(term, false));
            }
            Expr::ObjectCompr { key, value, query, .. } => self.query(query, |walk| {
                walk.expr(key, false);
                walk.expr(value, false);
            }),
            Expr::Call { fcn, params, .. } => self.call(fcn, params),
            Expr::UnaryExpr { expr, .. } => self.expr(expr, false),
            Expr::BinExpr { lhs, rhs, .. } | Expr::BoolExpr { lhs, rhs, .. } | Expr::ArithExpr { lhs, rhs, .. } => {
                self.expr(lhs, false);
                self.expr(rhs, false);
            }
            Expr::AssignExpr { lhs, rhs, .. } => {
                self.expr(lhs, true);
                self.expr(rhs, true);
            }
            Expr::Membership { span, key, value, collection, .. } => {
                if key.is_some() {
                    self.refuse(
                        place(span),
                        "`k, v in xs` is not right for every kind of `xs` here: write `xs[k] == v`",
                    );
                }
                for part in key.iter().chain([value, collection]) {
                    self.expr(part, false);
                }
            }
        }
    }

    /// What the interpreter answers otherwise than OPA.
    fn refuse(&mut self, at: Place, message: &str) {
        self.reading.misuses.push((at, "refused_construct", message.to_owned()));
    }

    fn call(&mut self, function: &Ref<Expr>, params: &[Ref<Expr>]) {
        let at = place(function.span());
        let turned = self.turned.take();
        // `walk` gives one part after the other.
        self.loops += 1;
        match static_path(function) {
            Some(path) if path == ["walk"] && params.len() != 2 => {
                self.refuse(at, "`walk` is right only with both its arguments here: write `walk(x, [path, value])`");
            }
            Some(mut path) => {
                let alias = path.first().and_then(|first| self.names.imports.get(first)).cloned();
                if let Some(target) = alias {
                    path.splice(0..1, target);
                }
                self.reading.calls.push(Call { path, args: params.len(), place: at, turned });
            }
            None => {
                let message = "a function is called by its name, written out".to_owned();
                self.reading.misuses.push((at, "dynamic_call", message));
            }
        }
        // The last argument may be what the result is given to.
        let last = params.len().saturating_sub(1);
        params.iter().enumerate().for_each(|(n, param)| self.expr(param, n == last));
    }

    fn index(&mut self, link: &Link<'_>) {
        if let Link::Index(index) = link {
            self.loops += 1;
            self.expr(index, true);
        }
    }

    fn is_local(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(name))
    }

    /// The whole path of a name that is no variable.
    fn target(&self, name: &str) -> Option<Vec<String>> {
        if name == "input" || name == "data" {
            return Some(vec![name.to_owned()]);
        }
        if let Some(path) = self.names.imports.get(name) {
            return Some(path.clone());
        }
        let own = || std::iter::once("data".to_owned()).chain(self.names.package.iter().cloned());
        self.names.own.contains(name).then(|| own().chain([name.to_owned()]).collect())
    }

    fn chain(&mut self, expr: &Ref<Expr>, gives: bool) {
        let (root, links) = unwind(expr);
        for link in &links {
            self.index(link);
        }
        let Expr::Var { span, .. } = root else {
            // The root is no reference: a literal, a call, a comprehension.
            return self.part(expr);
        };
        let (name, at) = (span.text(), parse::place(span));
        if self.is_local(name) || name.starts_with('_') || name.starts_with('$') {
            return;
        }
        let Some(target) = self.target(name) else {
            if gives && links.is_empty() {
                self.bound.insert(name.to_owned());
            } else {
                self.used.push((name.to_owned(), at));
            }
            return;
        };
        let mut target = target.into_iter();
        let root = target.next();
        let steps = links.into_iter().map(|link| match link {
            Link::Name(name) => Step::Name(name),
            Link::Index(_) => Step::Any,
        });
        let path = target.map(Step::Name).chain(steps).collect();
        let read = Read { path, place: at };
        match root.as_deref() {
            Some("input") => self.reading.inputs.push(read),
            _ => self.reading.data.push(read),
        }
    }

    /// The part that a chain is taken of.
    fn part(&mut self, expr: &Ref<Expr>) {
        let mut at = expr;
        while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = at.as_ref() {
            at = refr;
        }
        self.expr(at, false);
    }
}

/// Indices of a head that are not literal.
fn indices(head: &Expr) -> Vec<&Ref<Expr>> {
    let mut found = Vec::new();
    let mut at = head;
    loop {
        match at {
            Expr::RefDot { refr, .. } => at = refr,
            Expr::RefBrack { refr, index, .. } => {
                if literal(index).is_none() {
                    found.push(index);
                }
                at = refr;
            }
            _ => return found,
        }
    }
}

/// The names that a statement declares for its query.
fn declarations(stmt: &LiteralStmt, declared: &mut HashSet<String>) {
    match &stmt.literal {
        Literal::SomeVars { vars, .. } => declared.extend(vars.iter().map(|name| name.text().to_owned())),
        Literal::SomeIn { key, value, .. } => key.iter().chain([value]).for_each(|part| pattern(part, declared)),
        Literal::Expr { expr, .. } => {
            if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                pattern(lhs, declared);
            }
        }
        Literal::NotExpr { .. } | Literal::Every { .. } => {}
    }
}

/// The variables of a pattern.
fn pattern(expr: &Ref<Expr>, declared: &mut HashSet<String>) {
    match expr.as_ref() {
        Expr::Var { span, .. } => drop(declared.insert(span.text().to_owned())),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| pattern(item, declared)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| pattern(value, declared)),
        _ => {}
    }
}
