//! How large a value can get by how it is written: `y := [x, x]` is two of what `x` is, and a chain of forty such lines is a
//! value that takes little memory and a year to compare. Such chains are refused at load. What loops add is not counted here:
//! it is bounded by the steps of an evaluation.

use super::{
    graph::Index,
    parse::{Parsed, place, static_path},
    walk::{self, Kind, Reading},
};
use crate::{findings::Findings, limits::MAX_REGO_GROWTH};
use regorus::unstable::{ArithOp, AssignOp, Expr, Literal, LiteralStmt, Query, Ref, Rule, RuleHead};
use std::collections::{BTreeMap, HashMap};

/// The size of a value in parts: so many, and so many for each part of its parameters.
#[derive(Clone, Copy, Default)]
struct Size {
    alone: u64,
    with_parameters: u64,
}

/// What a size is made of.
#[derive(Clone)]
enum Term {
    One,
    Sum(Vec<Term>),
    Most(Vec<Term>),
    /// One in place of each part of the other: what `with` may come to.
    Times(Box<Term>, Box<Term>),
    /// A variable, or a rule of the package with this path: the larger of those that there are.
    Named(String, Vec<String>),
    Document(Vec<String>),
    Call(Vec<String>, Box<Term>),
}

/// Refuses the first rule whose value, or whose variable, can get too large. `order`: each after those that it refers to.
pub(super) fn check(
    files: &[Parsed],
    readings: &[Reading],
    index: &Index<'_>,
    order: &[usize],
    findings: &mut Findings,
) {
    let rules: Vec<(&Parsed, &Rule)> =
        files.iter().flat_map(|file| file.module.policy.iter().map(move |rule| (file, rule.as_ref()))).collect();
    let mut sizes = vec![Size::default(); rules.len()];
    for at in order {
        let (Some((file, rule)), Some(reading)) = (rules.get(*at), readings.get(*at)) else { continue };
        let parts = Parts::of(file, rule);
        let known = Known { index, readings, sizes: &sizes, package: &file.package };
        let size = Size { alone: parts.size(&known, 0), with_parameters: parts.size(&known, 1) };
        if size.with_parameters > MAX_REGO_GROWTH {
            let message = format!(
                "the rule `{}` can come to a value of more than {MAX_REGO_GROWTH} parts, by values that stand in one another \
                 several times: build it from fewer",
                super::checks::dotted(&reading.path)
            );
            findings.error(&reading.file, place(rule.span()), "too_much_growth", message);
            return;
        }
        if let Some(slot) = sizes.get_mut(*at) {
            *slot = size;
        }
    }
}

/// What is known of the rules that stand earlier in the order.
struct Known<'a> {
    index: &'a Index<'a>,
    readings: &'a [Reading],
    sizes: &'a [Size],
    package: &'a [String],
}

impl Known<'_> {
    /// Rules of one name come to the largest of them, or to all of them where each gives a part.
    fn joined<'r>(&self, rules: impl Iterator<Item = &'r usize>, pick: fn(&Size) -> u64) -> u64 {
        let mut by_path: BTreeMap<&[String], u64> = BTreeMap::new();
        for at in rules {
            let (Some(reading), Some(size)) = (self.readings.get(*at), self.sizes.get(*at)) else { continue };
            let sum = by_path.entry(&reading.path).or_default();
            *sum = if reading.is_part { sum.saturating_add(pick(size)) } else { pick(size).max(*sum) };
        }
        by_path.into_values().fold(1, u64::saturating_add)
    }

    fn document(&self, path: &[String]) -> u64 {
        self.joined(self.index.touched(path).iter(), |size| size.alone)
    }

    fn call(&self, path: &[String], arguments: u64) -> u64 {
        let rules = self.index.called(path, self.package);
        if rules.is_empty() {
            return arguments.saturating_add(1);
        }
        let alone = self.joined(rules.iter(), |size| size.alone);
        let each = self.joined(rules.iter(), |size| size.with_parameters.saturating_sub(size.alone));
        alone.saturating_add(each.saturating_sub(1).saturating_mul(arguments))
    }
}

/// What the values and the variables of one rule are made of.
struct Parts<'p> {
    package: &'p [String],
    imports: BTreeMap<String, Vec<String>>,
    parameters: Vec<String>,
    /// In the order of the text.
    bindings: Vec<(String, Term)>,
    values: Vec<Term>,
    /// What is compared, and thrown away.
    compared: Vec<Term>,
}

impl<'p> Parts<'p> {
    fn of(file: &'p Parsed, rule: &Rule) -> Self {
        let mut parts = Self {
            package: &file.package,
            imports: walk::imports(file),
            parameters: Vec::new(),
            bindings: Vec::new(),
            values: Vec::new(),
            compared: Vec::new(),
        };
        match rule {
            Rule::Default { value, .. } => {
                let value = parts.term(value);
                parts.values.push(value);
            }
            Rule::Spec { head, bodies, .. } => {
                let (key, assign) = match head {
                    RuleHead::Set { key, .. } => (key.as_ref(), None),
                    RuleHead::Compr { assign, .. } => (None, assign.as_ref()),
                    RuleHead::Func { args, assign, .. } => {
                        for arg in args {
                            variables(arg, &mut parts.parameters);
                        }
                        (None, assign.as_ref())
                    }
                };
                for body in bodies {
                    parts.query(&body.query);
                    if let Some(assign) = &body.assign {
                        let value = parts.term(&assign.value);
                        parts.values.push(value);
                    }
                }
                for value in key.into_iter().chain(assign.map(|assign| &assign.value)) {
                    let value = parts.term(value);
                    parts.values.push(value);
                }
            }
        }
        parts
    }

    /// The largest of its values and variables, each part of the parameters counted so many times.
    fn size(&self, known: &Known<'_>, parameter: u64) -> u64 {
        let mut locals: HashMap<&str, u64> = self.parameters.iter().map(|name| (name.as_str(), parameter)).collect();
        // Statements may stand in any order: as often as there are, until nothing grows.
        for _ in 0..=self.bindings.len() {
            let mut has_grown = false;
            for (name, term) in &self.bindings {
                let size = evaluate(term, &locals, known);
                let before = locals.entry(name).or_default();
                if size > *before {
                    *before = size;
                    has_grown = true;
                }
                if size > MAX_REGO_GROWTH {
                    return size;
                }
            }
            if !has_grown {
                break;
            }
        }
        let largest = |terms: &[Term]| terms.iter().map(|term| evaluate(term, &locals, known)).max().unwrap_or(1);
        let compared = largest(&self.compared);
        if compared > MAX_REGO_GROWTH { compared } else { largest(&self.values) }
    }

    fn query(&mut self, query: &Query) {
        for stmt in &query.stmts {
            let (bound, compared) = (self.bindings.len(), self.compared.len());
            match &stmt.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    for pattern in key.iter().chain([value]) {
                        self.bind(pattern, collection);
                    }
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                    let term = self.term(expr);
                    self.compared.push(term);
                }
                Literal::Every { key, value, domain, query, .. } => {
                    let term = self.term(domain);
                    for name in key.iter().chain([value]) {
                        self.bindings.push((name.text().to_owned(), term.clone()));
                    }
                    self.query(query);
                }
            }
            self.replaced(stmt, bound, compared);
        }
    }

    /// What a statement comes to where `with` puts other values in place of what it reads. `bound`, `compared`: where what
    /// it bound and compared begins.
    fn replaced(&mut self, stmt: &LiteralStmt, bound: usize, compared: usize) {
        if stmt.with_mods.is_empty() {
            return;
        }
        let put = Term::Sum(self.terms(stmt.with_mods.iter().map(|with| &with.r#as)));
        let of_bindings = self.bindings.iter_mut().skip(bound).map(|(_, term)| term);
        for term in of_bindings.chain(self.compared.iter_mut().skip(compared)) {
            *term = Term::Times(Box::new(std::mem::replace(term, Term::One)), Box::new(put.clone()));
        }
        self.compared.push(put);
    }

    /// What a pattern is given: each of its variables may be all of it.
    fn bind(&mut self, pattern: &Ref<Expr>, value: &Ref<Expr>) {
        if let (Expr::Array { items: left, .. }, Expr::Array { items: right, .. }) = (pattern.as_ref(), value.as_ref())
            && left.len() == right.len()
        {
            return left.iter().zip(right).for_each(|(left, right)| self.bind(left, right));
        }
        let mut names = Vec::new();
        variables(pattern, &mut names);
        if !matches!(pattern.as_ref(), Expr::Var { .. }) {
            // What of it is no variable is compared.
            let term = self.term(pattern);
            self.compared.push(term);
        }
        let term = self.term(value);
        self.bindings.extend(names.iter().map(|name| (name.clone(), term.clone())));
        if names.is_empty() {
            self.compared.push(term);
        }
    }

    fn is_bound(&self, expr: &Expr) -> bool {
        let Expr::Var { span, .. } = expr else { return true };
        let name = span.text();
        self.parameters.iter().any(|known| known == name) || self.bindings.iter().any(|(known, _)| known == name)
    }

    fn terms<'e>(&mut self, parts: impl IntoIterator<Item = &'e Ref<Expr>>) -> Vec<Term> {
        parts.into_iter().map(|part| self.term(part)).collect()
    }

    /// What an expression's size is made of; notes the variables that it binds.
    fn term(&mut self, expr: &Ref<Expr>) -> Term {
        match expr.as_ref() {
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.chain(expr),
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                let mut parts = self.terms(items);
                parts.push(Term::One);
                Term::Sum(parts)
            }
            Expr::Object { fields, .. } => {
                let mut parts = self.terms(fields.iter().flat_map(|(_, key, value)| [key, value]));
                parts.push(Term::One);
                Term::Sum(parts)
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.query(query);
                Term::Sum(vec![self.term(term), Term::One])
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.query(query);
                Term::Sum(vec![self.term(key), self.term(value), Term::One])
            }
            Expr::Call { fcn, params, .. } => self.call(fcn, params),
            Expr::UnaryExpr { expr, .. } => self.term(expr),
            Expr::BinExpr { lhs, rhs, .. } | Expr::ArithExpr { op: ArithOp::Mul, lhs, rhs, .. } => {
                Term::Sum(self.terms([lhs, rhs]))
            }
            Expr::ArithExpr { lhs, rhs, .. } => Term::Most(self.terms([lhs, rhs])),
            Expr::BoolExpr { lhs, rhs, .. } => {
                let compared = self.terms([lhs, rhs]);
                self.compared.extend(compared);
                Term::One
            }
            Expr::Membership { key, value, collection, .. } => {
                let compared = self.terms(key.iter().chain([value, collection]));
                self.compared.extend(compared);
                Term::One
            }
            Expr::AssignExpr { op, lhs, rhs, .. } => {
                self.assignment(op, lhs, rhs);
                Term::One
            }
            _ => Term::One,
        }
    }

    fn assignment(&mut self, op: &AssignOp, lhs: &Ref<Expr>, rhs: &Ref<Expr>) {
        let is_name = |expr: &Ref<Expr>| matches!(expr.as_ref(), Expr::Var { .. });
        if *op == AssignOp::ColEq {
            return self.bind(lhs, rhs);
        }
        // `=` gives a value to the side that has none yet.
        let is_given = match (is_name(lhs), is_name(rhs)) {
            (false, true) => !self.is_bound(rhs),
            (true, false) => self.is_bound(lhs),
            _ => false,
        };
        if is_given { self.bind(rhs, lhs) } else { self.bind(lhs, rhs) }
    }

    fn call(&mut self, function: &Ref<Expr>, params: &[Ref<Expr>]) -> Term {
        let terms = self.terms(params);
        let arguments = Term::Sum(terms.clone());
        let Some(mut path) = static_path(function) else { return arguments };
        if let Some(target) = path.first().and_then(|first| self.imports.get(first)).cloned() {
            path.splice(0..1, target);
        }
        if let Some(Expr::Var { span, .. }) = params.last().map(AsRef::as_ref)
            && !params.last().is_some_and(|last| self.is_bound(last))
        {
            // The last argument may take the result.
            let others = terms.split_last().map_or(&[] as &[Term], |(_, others)| others);
            let others = Term::Sum(others.to_vec());
            self.bindings.push((span.text().to_owned(), Term::Call(path.clone(), Box::new(others))));
        }
        Term::Call(path, Box::new(arguments))
    }

    fn chain(&mut self, expr: &Ref<Expr>) -> Term {
        let mut names = Vec::new();
        let mut indices = Vec::new();
        let mut at = expr;
        loop {
            match at.as_ref() {
                Expr::RefDot { refr, field, .. } => {
                    names.push(Some(field.0.text().to_owned()));
                    at = refr;
                }
                Expr::RefBrack { refr, index, .. } => {
                    let literal = super::parse::literal(index);
                    if literal.is_none() {
                        indices.push(index);
                    }
                    names.push(literal);
                    at = refr;
                }
                _ => break,
            }
        }
        names.reverse();
        let whole = match at.as_ref() {
            Expr::Var { span, .. } => self.named(span.text(), names),
            _ => self.term(at),
        };
        for index in indices {
            if matches!(index.as_ref(), Expr::Var { .. }) {
                // A key is a part of what it is a key of; what it is made of was counted there.
                continue;
            }
            self.term(index);
        }
        whole
    }

    fn named(&self, name: &str, names: Vec<Option<String>>) -> Term {
        let below = || names.into_iter().map_while(|name| name);
        if name == "input" {
            return Term::One;
        }
        if name == "data" {
            return Term::Document(below().collect());
        }
        if let Some((root, rest)) = self.imports.get(name).and_then(|path| path.split_first()) {
            return if root == "data" {
                Term::Document(rest.iter().cloned().chain(below()).collect())
            } else {
                Term::One
            };
        }
        let own = self.package.iter().cloned().chain([name.to_owned()]).chain(below()).collect();
        Term::Named(name.to_owned(), own)
    }
}

fn evaluate(term: &Term, locals: &HashMap<&str, u64>, known: &Known<'_>) -> u64 {
    let sum = |terms: &[Term]| terms.iter().map(|term| evaluate(term, locals, known)).fold(0, u64::saturating_add);
    match term {
        Term::Sum(terms) => sum(terms),
        Term::Times(term, by) => evaluate(term, locals, known).saturating_mul(evaluate(by, locals, known).max(1)),
        Term::Most(terms) => terms.iter().map(|term| evaluate(term, locals, known)).max().unwrap_or(1),
        Term::Named(name, path) => {
            let local = locals.get(name.as_str()).copied();
            let rule = is_defined(path, known).then(|| known.document(path));
            local.max(rule).unwrap_or(1)
        }
        Term::Document(path) if is_defined(path, known) => known.document(path),
        Term::One | Term::Document(_) => 1,
        Term::Call(path, arguments) => known.call(path, evaluate(arguments, locals, known)),
    }
}

/// Whether there is a rule of that name, not only a package that holds it.
fn is_defined(path: &[String], known: &Known<'_>) -> bool {
    let is_value = |at: &usize| known.readings.get(*at).is_some_and(|rule| !matches!(rule.kind, Kind::Function(_)));
    known.index.touched(path).iter().any(is_value)
}

/// The variables of a pattern.
fn variables(pattern: &Ref<Expr>, names: &mut Vec<String>) {
    match pattern.as_ref() {
        Expr::Var { span, .. } => names.push(span.text().to_owned()),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| variables(item, names)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| variables(value, names)),
        _ => {}
    }
}
