//! The crate's one error, grouped by whose fault it is.

use crate::findings::Finding;
use crate::refusal::Refusal;
use std::fmt;

/// What can go wrong outside a decision. A decision itself never fails: it is a deny with a reason.
#[derive(Debug)]
pub enum Error {
    /// The directory's author: every mistake of the directory, in one pass.
    Configuration(Vec<Finding>),
    /// The caller of a function that takes outside input: one sentence.
    BadInput(String),
    /// The caller of a function about tasks or approvals: what it asks for is not to be had. Why, and one sentence.
    Refused(Box<Refusal>, String),
    /// Ours: an invariant did not hold.
    Internal(String),
}

impl Error {
    /// A refusal with its sentence.
    pub fn refused(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(refusal), detail.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(findings) => {
                for (at, finding) in findings.iter().enumerate() {
                    if at > 0 {
                        f.write_str("\n")?;
                    }
                    write!(f, "{finding}")?;
                }
                Ok(())
            }
            Self::BadInput(sentence) | Self::Refused(_, sentence) | Self::Internal(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for Error {}
