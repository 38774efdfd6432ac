//! Our own walk over a policy's syntax tree: which signals it mentions, what else of the context it reads,
//! whether it asks for attributes or parents of principal or resource, and what is refused outright.

use cedar_policy_core::{
    ast::{BinaryOp, Effect, Expr, ExprKind, PrincipalOrResourceConstraint, Template, UnaryOp, Var},
    parser::Loc,
};

/// One `context.signals` name in a policy.
#[derive(Clone, Debug)]
pub(super) struct Mention {
    pub(super) name: String,
    pub(super) offset: usize,
}

/// Something a policy may not do, with the offset in its file.
#[derive(Clone, Debug)]
pub(super) struct Misuse {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) offset: usize,
}

/// What a policy's text tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) mentions: Vec<Mention>,
    pub(super) misuses: Vec<Misuse>,
    /// `context.request` fields that it reads: `method`, `path`, `host`; `*` for the whole of it.
    pub(super) request_fields: Vec<String>,
    /// Names under `context.request.args`; `*` for the whole of it.
    pub(super) args: Vec<String>,
    /// Names under `context.identity`; `*` for the whole of it.
    pub(super) identity_fields: Vec<String>,
    /// Other names after `context.`: `identity`, `grant`, `chain`, `approval`.
    pub(super) context_names: Vec<String>,
    pub(super) asks_principal: bool,
    pub(super) asks_resource: bool,
}

/// How often a subexpression is negated on its way to the policy's condition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Polarity {
    /// True helps the policy to apply.
    Positive,
    /// False helps it.
    Negative,
    /// Either may.
    Both,
}

impl Polarity {
    fn flipped(self) -> Self {
        match self {
            Self::Positive => Self::Negative,
            Self::Negative => Self::Positive,
            Self::Both => Self::Both,
        }
    }
}

/// Reads a whole policy or template: scope and conditions.
pub(super) fn read(policy: &Template) -> Reading {
    let mut walk = Walk { reading: Reading::default(), permit: policy.effect() == Effect::Permit };
    let groups = |constraint: &PrincipalOrResourceConstraint| {
        matches!(constraint, PrincipalOrResourceConstraint::In(_) | PrincipalOrResourceConstraint::IsIn(..))
    };
    walk.reading.asks_principal = groups(policy.principal_constraint().as_inner());
    walk.reading.asks_resource = groups(policy.resource_constraint().as_inner());
    if let Some(condition) = policy.non_scope_constraints() {
        walk.expr(condition, Polarity::Positive);
    }
    walk.reading
}

struct Walk {
    reading: Reading,
    permit: bool,
}

fn offset(loc: Option<&Loc>) -> usize {
    loc.map_or(0, Loc::start)
}

/// `Some(name)` for `context.NAME`.
fn context_field(expr: &Expr) -> Option<&str> {
    match expr.expr_kind() {
        ExprKind::GetAttr { expr, attr } if matches!(expr.expr_kind(), ExprKind::Var(Var::Context)) => Some(attr),
        _ => None,
    }
}

fn is_literal(expr: &Expr, wanted: bool) -> bool {
    *expr == Expr::val(wanted)
}

impl Walk {
    fn misuse(&mut self, code: &'static str, message: impl Into<String>, at: Option<&Loc>) {
        self.reading.misuses.push(Misuse { code, message: message.into(), offset: offset(at) });
    }

    fn mention(&mut self, name: &str, at: Option<&Loc>) {
        self.reading.mentions.push(Mention { name: name.to_owned(), offset: offset(at) });
    }

    fn expr(&mut self, expr: &Expr, polarity: Polarity) {
        let at = expr.source_loc();
        match expr.expr_kind() {
            ExprKind::Var(Var::Context) => self.misuse(
                "context_whole",
                "`context` is used whole: only `context.NAME` is allowed, so that what a policy reads is known",
                at,
            ),
            ExprKind::Unknown(_) => self.misuse("unknown_function", "the function `unknown` is not for policies", at),
            ExprKind::Slot(_) => {
                self.misuse("slot_in_condition", "a slot may only stand in the scope of a template", at);
            }
            ExprKind::ExtensionFunctionApp { fn_name, args } => {
                if fn_name.to_string() == "unknown" {
                    self.misuse("unknown_function", "the function `unknown` is not for policies", at);
                }
                args.iter().for_each(|arg| self.expr(arg, Polarity::Both));
            }
            ExprKind::If { test_expr, then_expr, else_expr } => {
                self.condition(test_expr, then_expr, else_expr, polarity);
            }
            ExprKind::And { left, right } | ExprKind::Or { left, right } => {
                self.expr(left, polarity);
                self.expr(right, polarity);
            }
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => self.expr(arg, polarity.flipped()),
            ExprKind::UnaryApp { arg, .. } => self.expr(arg, Polarity::Both),
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                if matches!(op, BinaryOp::In | BinaryOp::GetTag | BinaryOp::HasTag) {
                    self.asks(arg1);
                }
                self.expr(arg1, Polarity::Both);
                self.expr(arg2, Polarity::Both);
            }
            ExprKind::GetAttr { expr: base, attr } => self.attribute(expr, base, attr),
            ExprKind::HasAttr { expr: base, attr } => self.has(base, std::slice::from_ref(attr), polarity, at),
            ExprKind::ExtHasAttr { expr: base, attrs } => {
                let attrs: Vec<_> = attrs.iter().cloned().collect();
                self.has(base, &attrs, polarity, at);
            }
            ExprKind::Like { expr, .. } | ExprKind::Is { expr, .. } => self.expr(expr, Polarity::Both),
            ExprKind::Set(items) => items.iter().for_each(|item| self.expr(item, Polarity::Both)),
            ExprKind::Record(fields) => fields.values().for_each(|value| self.expr(value, Polarity::Both)),
            ExprKind::Lit(_) | ExprKind::Var(_) => {}
        }
    }

    /// `if a then b else false` is `a && b`; any other `if` asks for both answers of its test.
    fn condition(&mut self, test: &Expr, then: &Expr, other: &Expr, polarity: Polarity) {
        let both = if is_literal(other, false) { polarity } else { Polarity::Both };
        self.expr(test, both);
        self.expr(then, polarity);
        self.expr(other, polarity);
    }

    /// `expr` is `base.attr`.
    fn attribute(&mut self, expr: &Expr, base: &Expr, attr: &str) {
        let at = expr.source_loc();
        if let Some(name) = context_field(expr) {
            match name {
                "signals" => self.misuse(
                    "signals_whole",
                    "`context.signals` is used whole: only `context.signals.NAME`, `[\"NAME\"]` and `has NAME` are allowed",
                    at,
                ),
                "request" => self.reading.request_fields.push("*".to_owned()),
                "identity" => self.identity("*"),
                other => self.reading.context_names.push(other.to_owned()),
            }
            return;
        }
        match context_field(base) {
            Some("signals") => return self.mention(attr, at),
            Some("request") if attr == "args" => return self.reading.args.push("*".to_owned()),
            Some("request") => return self.reading.request_fields.push(attr.to_owned()),
            Some("identity") => return self.identity(attr),
            _ => {}
        }
        if let Some(("request", "args")) = two_fields(base) {
            return self.reading.args.push(attr.to_owned());
        }
        self.asks(base);
        self.expr(base, Polarity::Both);
    }

    fn identity(&mut self, field: &str) {
        self.reading.identity_fields.push(field.to_owned());
        self.reading.context_names.push("identity".to_owned());
    }

    fn has(&mut self, base: &Expr, attrs: &[smol_str::SmolStr], polarity: Polarity, at: Option<&Loc>) {
        let first = attrs.first().map_or("", |name| name.as_str());
        match context_field(base) {
            Some("signals") => {
                if attrs.len() > 1 {
                    self.misuse("signals_whole", "a signal has no attributes of its own", at);
                }
                if self.permit && polarity != Polarity::Positive {
                    self.misuse(
                        "permit_on_absence",
                        format!(
                            "a permit tests the absence of `{first}`: losing a signal must never open; \
                             write `context.signals has {first} && …` without negation around it, or a forbid"
                        ),
                        at,
                    );
                }
                return self.mention(first, at);
            }
            Some("request") if first == "args" && attrs.len() > 1 => {
                return self.reading.args.push(attrs.get(1).map_or_else(String::new, ToString::to_string));
            }
            Some("request") => return self.reading.request_fields.push("*".to_owned()),
            Some("identity") => return self.identity(first),
            _ => {}
        }
        if let Some(("request", "args")) = two_fields(base) {
            return self.reading.args.push(first.to_owned());
        }
        self.asks(base);
        self.expr(base, Polarity::Both);
    }

    /// Notes that the attributes, tags or parents of whatever `base` yields are asked for.
    fn asks(&mut self, base: &Expr) {
        for part in base.subexpressions() {
            match part.expr_kind() {
                ExprKind::Var(Var::Principal) => self.reading.asks_principal = true,
                ExprKind::Var(Var::Resource) => self.reading.asks_resource = true,
                _ => {}
            }
        }
    }
}

/// `Some((a, b))` for `context.a.b`.
fn two_fields(expr: &Expr) -> Option<(&str, &str)> {
    match expr.expr_kind() {
        ExprKind::GetAttr { expr, attr } => context_field(expr).map(|first| (first, attr.as_str())),
        _ => None,
    }
}
