//! Files of Rego to syntax trees. Mistakes become findings with their place; other files are still read.

use super::{functions::plain, nesting};
use crate::{
    findings::{Findings, Place},
    limits::{MAX_FILE_BYTES, MAX_REGO_COLUMNS, MAX_REGO_LINES},
};
use regorus::{
    PolicyLengthConfig, Source,
    unstable::{Expr, Module, Parser, Span},
};
use std::{
    num::{NonZeroU32, NonZeroUsize},
    panic::catch_unwind,
    sync::Arc,
};

/// One file as parsed.
pub(super) struct Parsed {
    pub(super) file: Arc<str>,
    pub(super) module: Module,
    /// Components of its package.
    pub(super) package: Vec<String>,
}

/// The first component of a package of ours: `prepare.rs` puts the entry point there.
pub(super) const OURS: &str = "signalwarden";

/// How long files may be. `None` can't be: the limits are not zero.
pub(super) fn lengths() -> Option<PolicyLengthConfig> {
    Some(PolicyLengthConfig {
        max_col: NonZeroU32::new(MAX_REGO_COLUMNS)?,
        max_file_bytes: NonZeroUsize::new(MAX_FILE_BYTES)?,
        max_lines: NonZeroUsize::new(MAX_REGO_LINES)?,
    })
}

/// Parses every file.
pub(super) fn parse(files: &[(&str, &str)], findings: &mut Findings) -> Vec<Parsed> {
    let mut all = Vec::with_capacity(files.len());
    for (file, text) in files {
        if text.len() > MAX_FILE_BYTES {
            let message = format!("larger than {MAX_FILE_BYTES} bytes");
            findings.error(file, Place::default(), "too_large", message);
            continue;
        }
        // The parser is written to return errors, not to panic; a file that makes it panic is one that can't be read.
        let parsed = catch_unwind(|| module(file, text)).unwrap_or_else(|_| {
            Err(Unread::at(Place::default(), "the parser fails on this file; this is a bug of ours"))
        });
        let module = match parsed {
            Ok(module) => module,
            Err(Unread { code, place, message }) => {
                findings.error(file, place, code, message);
                continue;
            }
        };
        let Some(package) = static_path(&module.package.refr) else {
            findings.error(file, place(&module.package.span), "syntax", "the name of a package is made of words");
            continue;
        };
        if package.first().is_some_and(|first| first == OURS) {
            let message = format!("the package `{OURS}` is ours: choose another name");
            findings.error(file, place(&module.package.span), "reserved_package", message);
            continue;
        }
        all.push(Parsed { file: Arc::from(*file), module, package });
    }
    all
}

/// Why a file can't be read.
pub(super) struct Unread {
    code: &'static str,
    place: Place,
    message: String,
}

impl Unread {
    fn at(place: Place, message: impl Into<String>) -> Self {
        Self { code: "syntax", place, message: message.into() }
    }

    pub(super) fn too_large(place: Place, message: impl Into<String>) -> Self {
        Self { code: "too_large", place, message: message.into() }
    }

    pub(super) fn too_nested(place: Place, message: impl Into<String>) -> Self {
        Self { code: "too_nested", place, message: message.into() }
    }
}

fn module(file: &str, text: &str) -> Result<Module, Unread> {
    let lengths = lengths().ok_or_else(|| Unread::at(Place::default(), "no lengths"))?;
    let syntax = |error: anyhow::Error| {
        let (place, message) = said(&error.to_string());
        Unread::at(place, message)
    };
    let source =
        Source::from_contents_with_limits(file.to_owned(), text.to_owned(), lengths.max_file_bytes, lengths.max_lines)
            .map_err(syntax)?;
    nesting::check(&source, lengths.max_col)?;
    let read = |version: Version| {
        let mut parser = Parser::new(&source)?;
        parser.set_max_col(lengths.max_col);
        if version == Version::One {
            parser.enable_rego_v1()?;
        }
        parser.parse()
    };
    read(Version::One).map_err(|error| {
        let mut unread = syntax(error);
        if read(Version::Zero).is_ok() {
            unread.message = format!(
                "{}: the file is Rego of version 0, and `opa fmt --v0-v1 --write {file}` brings it to version 1",
                unread.message
            );
        }
        unread
    })
}

/// Of the language. What was written before OPA 1.0 is mostly of version 0, and is not taken: said so, it is soon mended.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    Zero,
    One,
}

/// The place and the sentence of an error of the interpreter.
pub(super) fn said(text: &str) -> (Place, String) {
    let what = plain(text).replace('\n', " ");
    let place = text.split_once("--> ").and_then(|(_, rest)| rest.lines().next()).and_then(|line| {
        let mut parts = line.rsplitn(3, ':');
        let column = parts.next()?.trim().parse().ok()?;
        let line = parts.next()?.parse().ok()?;
        Some(Place { line, column })
    });
    (place.unwrap_or_default(), what)
}

/// Where a part of a file begins.
pub(super) fn place(span: &Span) -> Place {
    Place { line: span.line, column: span.col }
}

/// The components of a reference that is made of names and literal texts only.
pub(super) fn static_path(expr: &Expr) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::Var { span, .. } => {
                path.push(span.text().to_owned());
                path.reverse();
                return Some(path);
            }
            Expr::RefDot { refr, field, .. } => {
                path.push(field.0.text().to_owned());
                at = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                path.push(literal(index)?);
                at = refr;
            }
            _ => return None,
        }
    }
}

/// The text of a literal text.
pub(super) fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => value.as_string().ok().map(ToString::to_string),
        _ => None,
    }
}
