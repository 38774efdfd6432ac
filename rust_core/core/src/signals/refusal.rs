//! The closed list of reasons why a published value is refused: one row each.

use crate::model::SignalName;
use std::fmt;

macro_rules! refusals {
    ($( $variant:ident $code:literal $doc:literal; )*) => {
        /// Why a published value was refused. What is refused never alters a stored value or state.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RefusalReason { $( #[doc = $doc] $variant, )* }

        impl RefusalReason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [RefusalReason] = &[ $( RefusalReason::$variant, )* ];

            /// The stable code, as it stands in answers and counters.
            pub const fn code(self) -> &'static str { match self { $( RefusalReason::$variant => $code, )* } }

            /// One sentence for people.
            pub const fn sentence(self) -> &'static str { match self { $( RefusalReason::$variant => $doc, )* } }
        }
    };
}

refusals! {
    Malformed "malformed" "The entry is not an object of exactly `name`, `subject`, `value` and `observed_at`.";
    UnknownSignal "unknown_signal" "No contract in the register has this name.";
    NotPushed "not_pushed" "The contract's values do not come from a publisher.";
    WrongPublisher "wrong_publisher" "The contract names another publisher.";
    PublisherDisabled "publisher_disabled" "The publisher, or this signal of it, is switched off.";
    BadSubject "bad_subject" "The subject is not of the form that the contract's subject kind has.";
    TooLarge "too_large" "The value is larger than a signal may be.";
    WrongType "wrong_type" "The value is not of the contract's type.";
    Future "future" "The value was observed later than now, beyond the allowed clock skew.";
    Older "older" "A newer value of this publisher and subject is already known.";
    TooMany "too_many" "The store is full: known subjects are still updated, new ones are not taken.";
}

/// A refused value: why, and what exactly was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The row of the table.
    pub reason: RefusalReason,
    /// One sentence about this very value.
    pub detail: String,
    /// The contract that it was about, if there is one of that name.
    pub signal: Option<SignalName>,
}

impl Refusal {
    pub(super) fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), signal: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.code(), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_refusal_has_a_code_and_a_sentence_of_its_own() {
        let codes: BTreeSet<_> = RefusalReason::ALL.iter().map(|r| r.code()).collect();
        let sentences: BTreeSet<_> = RefusalReason::ALL.iter().map(|r| r.sentence()).collect();
        assert_eq!((codes.len(), sentences.len()), (RefusalReason::ALL.len(), RefusalReason::ALL.len()));
        assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        assert!(sentences.iter().all(|s| s.ends_with('.')));
    }
}
