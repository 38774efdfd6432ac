//! Go's regular expressions, written anew in the dialect of the engine that runs them: the two are of one family, but
//! differ in what `\d`, `\w`, `\s` and `\b` are (ASCII in Go), in classes, in braces and in flags. What has no
//! counterpart is an error.

use std::{fmt::Write as _, iter::Peekable, str::Chars};

/// Go's bound of a repetition.
const MAX_REPEAT: u32 = 1_000;

/// Scripts that may be named in `\p{…}`; all categories of one or two letters may.
const SCRIPTS: &[&str] = &[
    "Arabic",
    "Armenian",
    "Bengali",
    "Cyrillic",
    "Devanagari",
    "Georgian",
    "Greek",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Katakana",
    "Latin",
    "Thai",
];

/// Categories, as both know them.
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No", "P", "Pc",
    "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];

const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = "\\t\\n\\x0C\\r ";

/// True for what Go refuses for certain: brackets that do not match, a repetition of nothing.
pub(super) fn is_hopeless(pattern: &str) -> bool {
    let mut letters = pattern.chars();
    let mut depth = 0_i64;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                None => return true,
                // A quotation hides brackets, and so do classes: whether those are right is not asked here.
                Some('Q') => return false,
                Some(_) => {}
            },
            '[' => return !pattern.contains(']'),
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth < 0 {
            return true;
        }
    }
    depth != 0 || pattern.starts_with(['*', '+', '?'])
}

/// The expression in the engine's dialect.
pub(super) fn translated(pattern: &str) -> Result<String, String> {
    let mut reader = Reader { letters: pattern.chars().peekable(), made: String::new() };
    reader.all()?;
    Ok(reader.made)
}

struct Reader<'p> {
    letters: Peekable<Chars<'p>>,
    made: String,
}

impl Reader<'_> {
    fn all(&mut self) -> Result<(), String> {
        // What may be repeated has just been written.
        let mut repeated = false;
        while let Some(letter) = self.letters.next() {
            match letter {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '(' => self.group()?,
                '*' | '+' | '?' => {
                    self.repeat(&letter.to_string(), repeated)?;
                    repeated = true;
                    continue;
                }
                '{' => match self.braces()? {
                    Some(braces) => {
                        self.repeat(&braces, repeated)?;
                        repeated = true;
                        continue;
                    }
                    None => self.literal('{'),
                },
                '.' | '^' | '$' | '|' | ')' => self.made.push(letter),
                other => self.literal(other),
            }
            repeated = false;
        }
        Ok(())
    }

    /// A letter for itself.
    fn literal(&mut self, letter: char) {
        if letter.is_alphanumeric() {
            self.made.push(letter);
        } else {
            let _ = write!(self.made, "\\x{{{:x}}}", u32::from(letter));
        }
    }

    /// A repetition, which Go does not repeat again; a `?` after it means as few as possible.
    fn repeat(&mut self, operator: &str, repeated: bool) -> Result<(), String> {
        if repeated {
            return Err("invalid nested repetition operator".to_owned());
        }
        self.made.push_str(operator);
        if self.letters.next_if_eq(&'?').is_some() {
            self.made.push('?');
        }
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}` after its brace; none if it is a brace for itself.
    fn braces(&mut self) -> Result<Option<String>, String> {
        let ahead: String = self.letters.clone().take_while(|letter| *letter != '}').collect();
        let (least, most) = ahead.split_once(',').map_or((ahead.as_str(), None), |(least, most)| (least, Some(most)));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let closed = self.letters.clone().any(|letter| letter == '}');
        if !closed || least.is_empty() || !digits(least) || !most.is_none_or(digits) {
            return Ok(None);
        }
        let bound = |text: &str| {
            text.parse().ok().filter(|bound: &u32| *bound <= MAX_REPEAT && (text == "0" || !text.starts_with('0')))
        };
        let least = bound(least).ok_or("invalid repeat count")?;
        let written = match most {
            None => format!("{{{least}}}"),
            Some("") => format!("{{{least},}}"),
            Some(most) => {
                let most = bound(most).filter(|most| *most >= least).ok_or("invalid repeat count")?;
                format!("{{{least},{most}}}")
            }
        };
        for _ in 0..=ahead.chars().count() {
            self.letters.next();
        }
        Ok(Some(written))
    }

    /// What follows an opening parenthesis.
    fn group(&mut self) -> Result<(), String> {
        self.made.push('(');
        if self.letters.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.made.push('?');
        let unknown = "invalid or unsupported Perl syntax";
        match self.letters.peek() {
            Some('P' | '<') => {
                if self.letters.next_if_eq(&'P').is_some() {
                    self.made.push('P');
                }
                if self.letters.next_if_eq(&'<').is_none() {
                    return Err(unknown.to_owned());
                }
                self.made.push('<');
                while let Some(letter) = self.letters.next() {
                    self.made.push(letter);
                    match letter {
                        '>' => return Ok(()),
                        '_' | '0'..='9' | 'a'..='z' | 'A'..='Z' => {}
                        _ => return Err("invalid named capture".to_owned()),
                    }
                }
                Err("invalid named capture".to_owned())
            }
            _ => {
                for letter in self.letters.by_ref() {
                    self.made.push(letter);
                    match letter {
                        ':' | ')' => return Ok(()),
                        'i' | 'm' | 's' | 'U' | '-' => {}
                        _ => return Err(unknown.to_owned()),
                    }
                }
                Err(unknown.to_owned())
            }
        }
    }

    /// What follows a backslash, outside a class or in one.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let letter = self.letters.next().ok_or("trailing backslash at end of expression")?;
        let unknown = || format!("invalid or unsupported escape sequence: `\\{letter}`");
        let set = |inner: &str, negated: bool| match (in_class, negated) {
            (true, false) => Ok(inner.to_owned()),
            (true, true) => Ok(format!("[^{inner}]")),
            (false, _) => Ok(format!("[{}{inner}]", if negated { "^" } else { "" })),
        };
        let written: Result<String, String> = match letter {
            'd' | 'D' => set(DIGIT, letter == 'D'),
            'w' | 'W' => set(WORD, letter == 'W'),
            's' | 'S' => set(SPACE, letter == 'S'),
            'b' if !in_class => Ok("(?-u:\\b)".to_owned()),
            'A' | 'z' if !in_class => Ok(format!("\\{letter}")),
            'a' => Ok("\\x{7}".to_owned()),
            'f' => Ok("\\x{c}".to_owned()),
            'n' => Ok("\\x{a}".to_owned()),
            'r' => Ok("\\x{d}".to_owned()),
            't' => Ok("\\x{9}".to_owned()),
            'v' => Ok("\\x{b}".to_owned()),
            'x' => self.code_point(),
            'p' | 'P' => self.property(letter),
            'Q' if !in_class => {
                self.quotation();
                Ok(String::new())
            }
            _ if letter.is_ascii() && !letter.is_ascii_alphanumeric() => Ok(format!("\\x{{{:x}}}", u32::from(letter))),
            _ => Err(unknown()),
        };
        self.made.push_str(&written?);
        Ok(())
    }

    /// `\x7F` or `\x{10FFFF}`, after the `x`.
    fn code_point(&mut self) -> Result<String, String> {
        let wrong = "invalid escape sequence: `\\x`";
        let digits: String = if self.letters.next_if_eq(&'{').is_some() {
            let digits = self.letters.by_ref().take_while(|letter| *letter != '}').collect();
            digits
        } else {
            self.letters.by_ref().take(2).collect()
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong.to_owned());
        }
        let letter = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).ok_or(wrong)?;
        Ok(format!("\\x{{{:x}}}", u32::from(letter)))
    }

    /// `\pN`, `\p{Greek}`, `\p{^Greek}`, after the `p`.
    fn property(&mut self, letter: char) -> Result<String, String> {
        let name: String = if self.letters.next_if_eq(&'{').is_some() {
            let name = self.letters.by_ref().take_while(|letter| *letter != '}').collect();
            name
        } else {
            self.letters.by_ref().take(1).collect()
        };
        let (negated, name) = name.strip_prefix('^').map_or((false, name.as_str()), |name| (true, name));
        if !CATEGORIES.contains(&name) && !SCRIPTS.contains(&name) {
            return Err(format!(
                "`\\p{{{name}}}` is not taken: a category of one or two letters, or one of the usual scripts"
            ));
        }
        let letter = if negated == (letter == 'P') { 'p' } else { 'P' };
        Ok(format!("\\{letter}{{{name}}}"))
    }

    /// Letters for themselves until `\E`.
    fn quotation(&mut self) {
        while let Some(letter) = self.letters.next() {
            if letter == '\\' && self.letters.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(letter);
        }
    }

    /// A class, after its opening bracket.
    fn class(&mut self) -> Result<(), String> {
        self.made.push('[');
        if self.letters.next_if_eq(&'^').is_some() {
            self.made.push('^');
        }
        let mut first = true;
        // Where a range could begin or end: `[a-z]`, but not `[\d-z]`.
        while let Some(letter) = self.letters.next() {
            match letter {
                ']' if !first => {
                    self.made.push(']');
                    return Ok(());
                }
                '[' if self.letters.peek() == Some(&':') => self.posix()?,
                // Go takes a hyphen for itself only at either end.
                '-' if first || self.letters.peek() == Some(&']') => self.literal('-'),
                '-' => return Err("invalid character class range".to_owned()),
                _ => self.member(letter)?,
            }
            first = false;
        }
        Err("missing closing ]".to_owned())
    }

    /// A member of a class, or a range that begins with it.
    fn member(&mut self, letter: char) -> Result<(), String> {
        if letter == '\\' {
            let set = matches!(self.letters.peek(), Some('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'p' | 'P'));
            self.escape(true)?;
            if set {
                return Ok(());
            }
        } else {
            self.literal(letter);
        }
        let mut ahead = self.letters.clone();
        if ahead.next() != Some('-') || ahead.next().is_none_or(|last| last == ']') {
            return Ok(());
        }
        self.letters.next();
        self.made.push('-');
        match self.letters.next() {
            Some('\\') if !matches!(self.letters.peek(), Some('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'p' | 'P')) => {
                self.escape(true)
            }
            Some('\\') | None => Err("invalid character class range".to_owned()),
            Some('[') if self.letters.peek() == Some(&':') => Err("invalid character class range".to_owned()),
            Some(last) => {
                self.literal(last);
                Ok(())
            }
        }
    }

    /// `[:alpha:]` within a class, after its bracket.
    fn posix(&mut self) -> Result<(), String> {
        let name: String = self.letters.clone().take_while(|letter| *letter != ']').collect();
        let known = name.strip_prefix(':').and_then(|name| name.strip_suffix(':'));
        let known = known.map(|name| name.strip_prefix('^').unwrap_or(name));
        let ascii = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
            "word", "xdigit",
        ];
        if !known.is_some_and(|name| ascii.contains(&name)) {
            return Err("a class within a class is not taken".to_owned());
        }
        let _ = write!(self.made, "[{name}]");
        for _ in 0..=name.chars().count() {
            self.letters.next();
        }
        Ok(())
    }
}
