//! What is wrong with a configuration directory: findings with file, line and column, all of them in one pass.

use std::{fmt, sync::Arc};

/// How bad a finding is: errors stop a load, warnings do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The directory is not loaded.
    Error,
    /// Said aloud, loaded all the same.
    Warning,
}

/// A place in a file; lines and columns count from 1, 0 means "the whole file".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Where lines begin in a file, so that a place is found without reading the file again.
#[derive(Debug)]
pub(crate) struct Lines {
    text: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text: text.into(), starts }
    }

    /// Line and column (from 1) of a byte offset.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|at| self.starts.get(at)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

/// One mistake, in one sentence: what, where, what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// Path relative to the directory.
    pub file: String,
    /// Where in the file.
    pub place: Place,
    /// A short stable code such as `unknown_key`, for tools.
    pub code: &'static str,
    /// The sentence, lowercase, input in backticks.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        if self.place.line == 0 {
            write!(f, "{}: {word}: {}", self.file, self.message)
        } else {
            write!(f, "{}:{}:{}: {word}: {}", self.file, self.place.line, self.place.column, self.message)
        }
    }
}

/// A collector of findings. Reading goes on after a mistake, so that all are found in one pass.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    found: Vec<Finding>,
    /// How many of them are errors: asked for each policy, of which there are very many.
    errors: usize,
}

impl Findings {
    /// Adds an error.
    pub fn error(&mut self, file: &str, place: Place, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Error, file, place, code, message.into());
    }

    /// Adds a warning.
    pub fn warning(&mut self, file: &str, place: Place, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Warning, file, place, code, message.into());
    }

    fn push(&mut self, severity: Severity, file: &str, place: Place, code: &'static str, message: String) {
        self.errors += usize::from(severity == Severity::Error);
        self.found.push(Finding { severity, file: file.to_owned(), place, code, message });
    }

    /// Leaves out the findings of one code in other files than this one, whose own mistakes they only follow from.
    pub fn drop_followers(&mut self, code: &str, file: &str) {
        self.found.retain(|finding| finding.code != code || finding.file == file);
        self.errors = self.found.iter().filter(|finding| finding.severity == Severity::Error).count();
    }

    /// True if any finding is an error.
    pub const fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How many errors there are so far.
    pub const fn errors(&self) -> usize {
        self.errors
    }

    /// All findings, by file, then place.
    pub fn into_sorted(mut self) -> Vec<Finding> {
        self.found.sort_by(|a, b| (&a.file, a.place, a.severity).cmp(&(&b.file, b.place, b.severity)));
        self.found
    }

    /// The findings so far, in the order they were found.
    pub fn as_slice(&self) -> &[Finding] {
        &self.found
    }
}

/// The known name nearest to what was written, if one is near enough to be meant:
/// edit distance at most a third of its length, at least 1.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(d, candidate)| *d <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// `", did you mean `x`?"`, or nothing.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, known).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// Optimal string alignment distance: a swap of neighbours counts as one slip.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let get = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX - 1);
            let mut best = (get(&last, j) + usize::from(ca != cb)).min(get(&last, j + 1) + 1).min(get(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(get(&before_last, j - 1) + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_finds_its_name() {
        assert_eq!(nearest("max_aeg", ["type", "max_age", "owner"]), Some("max_age"));
        assert_eq!(nearest("onwer", ["type", "max_age", "owner"]), Some("owner"));
        assert_eq!(nearest("zzz", ["type", "max_age", "owner"]), None);
    }
}
