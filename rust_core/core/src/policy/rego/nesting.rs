//! How deep a file of Rego goes, how often its parser would read it and how long its numbers get, told by its tokens alone. The
//! parser goes into itself for each bracket and each sign without a bound of its own, reads most brackets twice, and writes
//! out what an exponent stands for: a line of thirty would take hours, and one of a thousand the whole process.

use super::parse::{self, Unread};
use crate::{
    findings::{Lines, Place},
    limits::{MAX_REGO_BRACKETS, MAX_REGO_DEPTH, MAX_REGO_EXPONENT, MAX_REGO_READINGS, MIN_REGO_TOKENS},
};
use regorus::{
    Source,
    unstable::{Lexer, Token, TokenKind},
};
use std::num::NonZeroU32;

/// How often the parser reads what stands in a bracket when it reads the bracket once: its first part as the term of a
/// comprehension, and as a part of an array, a set or an object…
const READINGS_OF_A_BRACKET: u64 = 2;
/// …and behind a `|` twice as the beginning of a statement, too: what is assigned to, and what is compared.
const READINGS_BEHIND_A_BAR: u64 = 3;

/// Refuses what the parser would go too deep in, or take too long for. What has no tokens is left to the parser to tell.
pub(super) fn check(source: &Source, max_col: NonZeroU32) -> Result<(), Unread> {
    empty_sets(source.contents())?;
    let mut lexer = Lexer::new(source);
    lexer.set_max_col(max_col);
    let file = Level { times: 1, ..Level::default() };
    let mut scan = Scan { levels: vec![file], before: None, tokens: 0, readings: 0, most: (0, Place::default()) };
    while let Ok(token) = lexer.next_token() {
        if token.0 == TokenKind::Eof {
            break;
        }
        scan.token(token)?;
    }
    scan.end()
}

/// `set(` that begins again before it ends: the lexer looks ahead by going into itself.
fn empty_sets(text: &str) -> Result<(), Unread> {
    let nothing =
        |between: &str| between.lines().all(|line| matches!(line.trim_start().chars().next(), None | Some('#')));
    let mut chain = 0;
    for ((at, _), between) in text.match_indices("set(").zip(text.split("set(").skip(1)) {
        chain = if nothing(between) { chain + 1 } else { 0 };
        if chain > MAX_REGO_BRACKETS {
            let message = format!("`set(` stands in itself more than {MAX_REGO_BRACKETS} times");
            return Err(Unread::too_nested(Lines::of(text).place(at), message));
        }
    }
    Ok(())
}

/// What an open bracket holds so far; the first one is the file.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Operators and references that hold each other, outside of this bracket and in what is written in it now.
    links_outside: usize,
    links: usize,
    /// Brackets and signs, likewise.
    open_outside: usize,
    signs: usize,
    /// How often the bracket is read.
    times: u64,
    /// Whether it could begin a comprehension…
    is_tried: bool,
    /// …and is known to be a list, behind its first part: the others are read once.
    is_list: bool,
    has_bar: bool,
}

impl Level {
    fn times(&self) -> u64 {
        let by = match self {
            Self { is_tried: false, .. } => 1,
            Self { has_bar: true, .. } => READINGS_BEHIND_A_BAR,
            Self { is_list: true, .. } => 1,
            _ => READINGS_OF_A_BRACKET,
        };
        self.times.saturating_mul(by)
    }

    fn next_part(&mut self, is_list: bool) {
        self.links = 0;
        self.signs = 0;
        self.is_list = is_list;
    }
}

struct Scan {
    levels: Vec<Level>,
    before: Option<Token>,
    tokens: u64,
    readings: u64,
    /// Where a token is read most often.
    most: (u64, Place),
}

impl Scan {
    fn token(&mut self, token: Token) -> Result<(), Unread> {
        let Some(&at) = self.levels.last() else { return Ok(()) };
        let mut level = at;
        let text = word(&token);
        let before = self.before.as_ref().map_or("", |before| word(before));
        let is_first = self.before.is_none() || joins(before) || is_opening(before) || before == ",";
        let is_below = self.before.as_ref().is_some_and(|before| before.1.line < token.1.line);
        if is_below && !is_first && !joins(text) && !is_closing(text) {
            level.next_part(false);
        }
        let place = parse::place(&token.1);
        if token.0 == TokenKind::Number && exponent(text) > MAX_REGO_EXPONENT {
            let message = format!("a number with an exponent above {MAX_REGO_EXPONENT}");
            return Err(Unread::too_large(place, message));
        }
        self.tokens += 1;
        let times = level.times();
        self.readings = self.readings.saturating_add(times);
        if times > self.most.0 {
            self.most = (times, place);
        }
        let mut opened = None;
        match text {
            "," => level.next_part(true),
            ";" => level.next_part(false),
            "-" if is_first => level.signs += 1,
            "[" | "{" | "(" | "set(" => {
                let is_index = text == "[" && self.is_adjacent(&token) && !is_first;
                opened = Some(Level {
                    links_outside: level.links_outside + level.links + 1,
                    open_outside: level.open_outside + level.signs + 1,
                    times,
                    is_tried: matches!(text, "[" | "{") && !is_index,
                    ..Level::default()
                });
            }
            _ if joins(text) => {
                level.links += 1;
                level.has_bar |= text == "|";
            }
            _ => level.links += usize::from(token.0 == TokenKind::Number && token.1.text().starts_with('-')),
        }
        if let Some(last) = self.levels.last_mut() {
            *last = level;
        }
        if is_closing(text) && self.levels.len() > 1 {
            self.levels.pop();
            if let Some(outside) = self.levels.last_mut() {
                outside.links += 1;
            }
        }
        self.levels.extend(opened);
        self.before = Some(token);
        self.bounded(place)
    }

    fn is_adjacent(&self, token: &Token) -> bool {
        self.before.as_ref().is_some_and(|before| {
            let gap = u32::from(matches!(before.0, TokenKind::String | TokenKind::RawString));
            before.1.end + gap == token.1.start
        })
    }

    fn bounded(&self, place: Place) -> Result<(), Unread> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let message = if level.open_outside + level.signs > MAX_REGO_BRACKETS {
            format!("more than {MAX_REGO_BRACKETS} brackets and signs stand in one another here: split it")
        } else if level.links_outside + level.links > MAX_REGO_DEPTH {
            format!("more than {MAX_REGO_DEPTH} operators and references hang together here: split it")
        } else {
            return Ok(());
        };
        Err(Unread::too_nested(place, message))
    }

    fn end(&self) -> Result<(), Unread> {
        if self.readings <= self.tokens.max(MIN_REGO_TOKENS).saturating_mul(MAX_REGO_READINGS) {
            return Ok(());
        }
        let message = "brackets stand in one another at the beginning of each other so often that reading them would take for \
                       ever: split this, or put it into data.json";
        Err(Unread::too_nested(self.most.1, message))
    }
}

/// That of a number. The lexer refuses what is above the range of a fraction, which a zero never is; but the parser reckons its
/// power of ten all the same, and takes minutes for nine letters.
fn exponent(number: &str) -> u64 {
    match number.split_once(['e', 'E']) {
        Some((_, exponent)) if !exponent.starts_with('-') => {
            exponent.trim_start_matches('+').parse().unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}

/// A token as a word of the language; nothing for what is a text.
fn word(token: &Token) -> &str {
    match token.0 {
        TokenKind::String | TokenKind::RawString => "",
        _ => token.1.text(),
    }
}

fn is_opening(text: &str) -> bool {
    matches!(text, "[" | "{" | "(" | "set(")
}

fn is_closing(text: &str) -> bool {
    matches!(text, "]" | "}" | ")")
}

/// What makes one expression of two, also across lines.
fn joins(text: &str) -> bool {
    matches!(
        text,
        "+" | "-" | "*" | "/" | "%" | "&" | "|" | "<" | "<=" | ">" | ">=" | "=" | "==" | "!=" | ":=" | ":" | "." | "in"
    )
}
