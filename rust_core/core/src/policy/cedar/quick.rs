//! Conditions as most are: comparisons of signals, arguments and constants, joined by `&&`, `||`, `!` and `has`. They are
//! judged on our own values, without a context of Cedar's and without its evaluator, which cost twenty times as much.
//!
//! INVARIANT: where this says something, Cedar says the same; where it is not sure, it says nothing and Cedar is asked. So
//! whatever is not a plain comparison of two values of one type is left to Cedar, and so is every error.
//! `tests.rs` here and the properties over generated policies hold the two against each other.

use crate::{
    model::{Decimal, Value},
    policy::{IdentityView, RequestView, Seen, SignalIndex},
};
use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal, UnaryOp, Var};
use smol_str::SmolStr;
use std::{collections::BTreeSet, sync::Arc};

/// How deep a condition may nest; a deeper one is Cedar's, which measures the stack.
const MAX_NESTING: usize = 100;

/// A condition.
#[derive(Debug)]
pub(super) enum Test {
    Is(Term),
    HasSignal(SignalIndex),
    HasArg(Arc<str>),
    Compare(Comparison, Term, Term),
    IsEmpty(Term),
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    If(Box<[Test; 3]>),
}

/// What is compared.
#[derive(Debug)]
pub(super) enum Term {
    Constant(Value),
    Signal(SignalIndex),
    Arg(Arc<str>),
    Request(RequestField),
    Identity(IdentityField),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    DecimalLess,
    DecimalLessOrEqual,
    Contains,
    ContainsAll,
    ContainsAny,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum RequestField {
    Method,
    Path,
    Host,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum IdentityField {
    Kind,
    TrustDomain,
    Bound,
    Interactive,
    Legacy,
}

/// What a condition is judged on.
#[derive(Clone, Copy)]
pub(super) struct World<'w> {
    /// Sorted; without a signal that could be anything.
    pub(super) seen: &'w [(SignalIndex, Seen)],
    pub(super) request: &'w RequestView,
    pub(super) identity: &'w IdentityView,
}

/// A value of a kind that is compared here.
enum Operand<'w> {
    Bool(bool),
    Long(i64),
    Text(&'w str),
    Decimal(Decimal),
    Set(&'w BTreeSet<Arc<str>>),
}

/// Signals by name.
pub(super) type Signals<'n> = dyn Fn(&str) -> Option<SignalIndex> + 'n;

impl Test {
    /// `None` where some part is Cedar's.
    pub(super) fn of(condition: &Expr, signals: &Signals<'_>) -> Option<Self> {
        test(condition, signals, MAX_NESTING)
    }

    /// `None` where Cedar has to be asked.
    pub(super) fn holds(&self, world: &World<'_>) -> Option<bool> {
        match self {
            Self::Is(term) => match term.value(world)? {
                Operand::Bool(is) => Some(is),
                _ => None,
            },
            Self::HasSignal(signal) => Some(world.signal(*signal).is_some()),
            Self::HasArg(name) => Some(world.request.args.contains_key(name)),
            Self::Compare(how, left, right) => how.holds(&left.value(world)?, &right.value(world)?),
            Self::IsEmpty(term) => match term.value(world)? {
                Operand::Set(members) => Some(members.is_empty()),
                _ => None,
            },
            Self::Not(test) => test.holds(world).map(|holds| !holds),
            Self::And(left, right) => {
                if left.holds(world)? {
                    right.holds(world)
                } else {
                    Some(false)
                }
            }
            Self::Or(left, right) => {
                if left.holds(world)? {
                    Some(true)
                } else {
                    right.holds(world)
                }
            }
            Self::If(parts) => {
                let [test, then, other] = &**parts;
                if test.holds(world)? { then.holds(world) } else { other.holds(world) }
            }
        }
    }
}

impl<'w> World<'w> {
    fn signal(&self, signal: SignalIndex) -> Option<&'w Value> {
        let at = self.seen.binary_search_by_key(&signal, |(other, _)| *other).ok()?;
        match self.seen.get(at) {
            Some((_, Seen::Value(value))) => Some(value),
            _ => None,
        }
    }
}

impl Term {
    fn value<'w>(&'w self, world: &World<'w>) -> Option<Operand<'w>> {
        match self {
            Self::Constant(value) => Operand::of(value),
            Self::Signal(signal) => Operand::of(world.signal(*signal)?),
            Self::Arg(name) => Operand::of(world.request.args.get(name)?),
            Self::Request(field) => Some(Operand::Text(match field {
                RequestField::Method => &world.request.method,
                RequestField::Path => &world.request.path,
                RequestField::Host => &world.request.host,
            })),
            Self::Identity(field) => Some(match field {
                IdentityField::Kind => Operand::Text(world.identity.kind),
                IdentityField::TrustDomain => Operand::Text(&world.identity.trust_domain),
                IdentityField::Bound => Operand::Bool(world.identity.bound),
                IdentityField::Interactive => Operand::Bool(world.identity.interactive),
                IdentityField::Legacy => Operand::Bool(world.identity.legacy),
            }),
        }
    }
}

impl<'w> Operand<'w> {
    /// Times and addresses are Cedar's: it has times to the millisecond, and addresses with ranges.
    fn of(value: &'w Value) -> Option<Self> {
        match value {
            Value::Bool(is) => Some(Self::Bool(*is)),
            Value::Long(number) => Some(Self::Long(*number)),
            Value::String(text) => Some(Self::Text(text)),
            Value::Decimal(decimal) => Some(Self::Decimal(*decimal)),
            Value::Set(members) => Some(Self::Set(members)),
            Value::Datetime(_) | Value::Ip(_) => None,
        }
    }
}

impl Comparison {
    fn holds(self, left: &Operand<'_>, right: &Operand<'_>) -> Option<bool> {
        use Operand::{Bool, Decimal, Long, Set, Text};
        match (self, left, right) {
            (Self::Equal, Bool(a), Bool(b)) => Some(a == b),
            (Self::Equal, Long(a), Long(b)) => Some(a == b),
            (Self::Equal, Text(a), Text(b)) => Some(a == b),
            (Self::Equal, Decimal(a), Decimal(b)) => Some(a == b),
            (Self::Equal, Set(a), Set(b)) => Some(a == b),
            (Self::Less, Long(a), Long(b)) => Some(a < b),
            (Self::LessOrEqual, Long(a), Long(b)) => Some(a <= b),
            (Self::DecimalLess, Decimal(a), Decimal(b)) => Some(a < b),
            (Self::DecimalLessOrEqual, Decimal(a), Decimal(b)) => Some(a <= b),
            (Self::Contains, Set(members), Text(member)) => Some(members.contains(*member)),
            (Self::ContainsAll, Set(a), Set(b)) => Some(b.is_subset(a)),
            (Self::ContainsAny, Set(a), Set(b)) => Some(!a.is_disjoint(b)),
            _ => None,
        }
    }
}

fn test(expr: &Expr, signals: &Signals<'_>, nesting: usize) -> Option<Test> {
    let nesting = nesting.checked_sub(1)?;
    let within = |expr: &Expr| test(expr, signals, nesting).map(Box::new);
    Some(match expr.expr_kind() {
        ExprKind::And { left, right } => Test::And(within(left)?, within(right)?),
        ExprKind::Or { left, right } => Test::Or(within(left)?, within(right)?),
        ExprKind::If { test_expr, then_expr, else_expr } => {
            Test::If(Box::new([*within(test_expr)?, *within(then_expr)?, *within(else_expr)?]))
        }
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => Test::Not(within(arg)?),
        ExprKind::UnaryApp { op: UnaryOp::IsEmpty, arg } => Test::IsEmpty(term(arg, signals)?),
        ExprKind::BinaryApp { op, arg1, arg2 } => {
            let how = match op {
                BinaryOp::Eq => Comparison::Equal,
                BinaryOp::Less => Comparison::Less,
                BinaryOp::LessEq => Comparison::LessOrEqual,
                BinaryOp::Contains => Comparison::Contains,
                BinaryOp::ContainsAll => Comparison::ContainsAll,
                BinaryOp::ContainsAny => Comparison::ContainsAny,
                _ => return None,
            };
            Test::Compare(how, term(arg1, signals)?, term(arg2, signals)?)
        }
        ExprKind::ExtensionFunctionApp { fn_name, args } => {
            let [one, other] = args.as_slice() else { return None };
            let (one, other) = (term(one, signals)?, term(other, signals)?);
            match fn_name.to_string().as_str() {
                "lessThan" => Test::Compare(Comparison::DecimalLess, one, other),
                "lessThanOrEqual" => Test::Compare(Comparison::DecimalLessOrEqual, one, other),
                "greaterThan" => Test::Compare(Comparison::DecimalLess, other, one),
                "greaterThanOrEqual" => Test::Compare(Comparison::DecimalLessOrEqual, other, one),
                _ => return None,
            }
        }
        ExprKind::HasAttr { expr, attr } => match path(expr)?.as_slice() {
            ["signals"] => Test::HasSignal(signals(attr)?),
            ["request", "args"] => Test::HasArg(attr.as_str().into()),
            _ => return None,
        },
        ExprKind::Lit(Literal::Bool(_)) | ExprKind::GetAttr { .. } => Test::Is(term(expr, signals)?),
        _ => return None,
    })
}

fn term(expr: &Expr, signals: &Signals<'_>) -> Option<Term> {
    Some(match expr.expr_kind() {
        ExprKind::Lit(literal) => Term::Constant(constant(literal)?),
        ExprKind::Set(members) => {
            let text = |member: &Expr| match member.expr_kind() {
                ExprKind::Lit(Literal::String(text)) => Some(Arc::from(text.as_str())),
                _ => None,
            };
            Term::Constant(Value::Set(Arc::new(members.iter().map(text).collect::<Option<_>>()?)))
        }
        ExprKind::ExtensionFunctionApp { fn_name, args } if fn_name.to_string() == "decimal" => {
            let [argument] = args.as_slice() else { return None };
            let ExprKind::Lit(Literal::String(text)) = argument.expr_kind() else { return None };
            Term::Constant(Value::Decimal(Decimal::parse(text)?))
        }
        ExprKind::GetAttr { .. } => match path(expr)?.as_slice() {
            ["signals", name] => Term::Signal(signals(name)?),
            ["request", "args", name] => Term::Arg((*name).into()),
            ["request", "method"] => Term::Request(RequestField::Method),
            ["request", "path"] => Term::Request(RequestField::Path),
            ["request", "host"] => Term::Request(RequestField::Host),
            ["identity", "kind"] => Term::Identity(IdentityField::Kind),
            ["identity", "trust_domain"] => Term::Identity(IdentityField::TrustDomain),
            ["identity", "bound"] => Term::Identity(IdentityField::Bound),
            ["identity", "interactive"] => Term::Identity(IdentityField::Interactive),
            ["identity", "legacy"] => Term::Identity(IdentityField::Legacy),
            _ => return None,
        },
        _ => return None,
    })
}

fn constant(literal: &Literal) -> Option<Value> {
    match literal {
        Literal::Bool(is) => Some(Value::Bool(*is)),
        Literal::Long(number) => Some(Value::Long(*number)),
        Literal::String(text) => Some(Value::String(text.as_str().into())),
        Literal::EntityUID(_) => None,
    }
}

/// `["a", "b"]` for `context.a.b`; at most three of them.
fn path(expr: &Expr) -> Option<Vec<&str>> {
    const LONGEST: usize = 3;
    let mut names: Vec<&SmolStr> = Vec::with_capacity(LONGEST);
    let mut expr = expr;
    while let ExprKind::GetAttr { expr: base, attr } = expr.expr_kind() {
        if names.len() == LONGEST {
            return None;
        }
        names.push(attr);
        expr = base;
    }
    let is_context = matches!(expr.expr_kind(), ExprKind::Var(Var::Context));
    is_context.then(|| names.into_iter().rev().map(SmolStr::as_str).collect())
}
