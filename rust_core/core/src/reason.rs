//! The closed list of reasons: one row each (DESIGN section 7). To add a reason, add a row here
//! and a vector in `tests/vectors/reasons.json`; the completeness test finds what is missing.

/// gRPC status codes that an answer may carry (google.rpc.Code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[expect(missing_docs, reason = "the names are those of google.rpc.Code")]
pub enum GrpcStatus {
    Ok = 0,
    InvalidArgument = 3,
    PermissionDenied = 7,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether the feature behind a reason is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Given by this version.
    Live,
    /// Named already, given once its feature is built.
    Reserved,
}

/// What a route with `enforce: false` makes of a reason. A column of the table, so that it is said of each one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unenforced {
    /// Let pass: policies, signals or the tier stand against the call, and nothing else.
    Passes,
    /// Denied all the same: who asks for what is not known for sure, or the decision could not be made or kept.
    Denies,
}

macro_rules! reasons {
    ($( $variant:ident $code:literal $http:literal $grpc:ident $unenforced:ident $standing:ident $doc:literal; )*) => {
        /// Why a decision came out as it did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $( #[doc = $doc] $variant, )* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];

            /// The stable code, as it stands in records and answers.
            pub const fn code(self) -> &'static str { match self { $( Reason::$variant => $code, )* } }

            /// HTTP status of the answer.
            pub const fn http_status(self) -> u16 { match self { $( Reason::$variant => $http, )* } }

            /// gRPC status of the answer: `Ok` for `allowed` alone.
            pub const fn grpc_status(self) -> GrpcStatus { match self { $( Reason::$variant => GrpcStatus::$grpc, )* } }

            /// Whether a denial for it is let pass on a route with `enforce: false`.
            pub const fn may_be_unenforced(self) -> bool {
                match self { $( Reason::$variant => matches!(Unenforced::$unenforced, Unenforced::Passes), )* }
            }

            /// Whether this version can give it.
            pub const fn standing(self) -> Standing { match self { $( Reason::$variant => Standing::$standing, )* } }

            /// One sentence for people.
            pub const fn sentence(self) -> &'static str { match self { $( Reason::$variant => $doc, )* } }
        }
    };
}

reasons! {
    Allowed "allowed" 200 Ok Denies Live "Policies permit the call and no signal stands against it.";
    PolicyDenied "policy_denied" 403 PermissionDenied Passes Live "A forbid policy applies whatever the unavailable signals are.";
    NoPolicyPermits "no_policy_permits" 403 PermissionDenied Passes Live "No policy permits the call, whatever the unavailable signals are.";
    SignalUnavailable "signal_unavailable" 403 PermissionDenied Passes Live "The answer depends on a signal that is missing, stale, disputed, unverified or from the future.";
    SignalWideningRefused "signal_widening_refused" 403 PermissionDenied Passes Live "The call would only be allowed because of a signal that may only restrict.";
    RouteUnknown "route_unknown" 403 PermissionDenied Denies Live "No route matches the request, or its path has more than one meaning.";
    EntityUnknown "entity_unknown" 403 PermissionDenied Denies Live "The principal or resource is not listed, and a policy or the settings ask for it.";
    EnvironmentMismatch "environment_mismatch" 403 PermissionDenied Denies Live "Principal and resource belong to different environments.";
    IdentityMissing "identity_missing" 401 Unauthenticated Denies Live "The caller has no verified identity.";
    IdentityInvalid "identity_invalid" 401 Unauthenticated Denies Live "The caller's identity is not a valid SPIFFE ID, or its proofs disagree.";
    TrustDomainUnknown "trust_domain_unknown" 403 PermissionDenied Denies Live "The caller's trust domain is neither ours nor federated.";
    PrincipalRetired "principal_retired" 403 PermissionDenied Denies Live "The principal has been retired.";
    TokenInvalid "token_invalid" 401 Unauthenticated Denies Live "The token does not verify, or does not count any more.";
    TokenExpired "token_expired" 401 Unauthenticated Denies Live "The token has expired.";
    TokenTooLongLived "token_too_long_lived" 401 Unauthenticated Denies Live "The credential lives longer than its class may.";
    CredentialRefused "credential_refused" 403 PermissionDenied Denies Live "This class of credential is not accepted here.";
    GrantRequired "grant_required" 403 PermissionDenied Passes Live "The action needs a live grant of a task.";
    GrantInvalid "grant_invalid" 403 PermissionDenied Denies Live "The grant does not verify, or is not this caller's own.";
    GrantExpired "grant_expired" 403 PermissionDenied Denies Live "The grant has expired.";
    GrantRevoked "grant_revoked" 403 PermissionDenied Denies Live "The grant's task was completed or revoked.";
    GrantScopeExceeded "grant_scope_exceeded" 403 PermissionDenied Denies Live "The grant does not cover this call.";
    DelegationWidens "delegation_widens" 403 PermissionDenied Denies Live "The delegated grant exceeds its parent.";
    ApprovalRequired "approval_required" 403 PermissionDenied Passes Live "The call needs an approval.";
    ApprovalDenied "approval_denied" 403 PermissionDenied Denies Live "The approval was denied.";
    ApprovalExpired "approval_expired" 403 PermissionDenied Denies Live "The approval has expired.";
    ApprovalMismatch "approval_mismatch" 403 PermissionDenied Denies Live "The approval belongs to another call.";
    BodyIncomplete "body_incomplete" 403 PermissionDenied Denies Live "The body was announced but did not arrive whole.";
    MalformedRequest "malformed_request" 400 InvalidArgument Denies Live "The request could not be read, or means two things at once.";
    LogUnavailable "log_unavailable" 503 Unavailable Denies Live "The decision could not be recorded.";
    NotReady "not_ready" 503 Unavailable Denies Live "No configuration is loaded, or the server is stopping.";
    EngineError "engine_error" 500 Internal Denies Live "A policy failed while it was evaluated, or the engine itself did.";
}

impl Reason {
    /// Whether it stands against the principal itself, before its grant or any policy is looked at. `entity_unknown` can,
    /// and so can the record of a resource later on.
    pub const fn is_of_principal(self) -> bool {
        matches!(
            self,
            Self::EntityUnknown | Self::PrincipalRetired | Self::EnvironmentMismatch | Self::CredentialRefused
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_one_row_of_its_own() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert_eq!(Reason::ALL.len(), 31);
    }

    #[test]
    fn what_is_let_pass_unenforced_is_what_policies_signals_and_tiers_say_and_nothing_else() {
        let passing: Vec<_> = Reason::ALL.iter().filter(|r| r.may_be_unenforced()).map(|r| r.code()).collect();
        let expected = [
            "policy_denied",
            "no_policy_permits",
            "signal_unavailable",
            "signal_widening_refused",
            "grant_required",
            "approval_required",
        ];
        assert_eq!(passing, expected);
    }

    #[test]
    fn only_allowed_is_ok_and_every_denial_has_a_denying_status() {
        for reason in Reason::ALL {
            let allowed = *reason == Reason::Allowed;
            assert_eq!(reason.grpc_status() == GrpcStatus::Ok, allowed);
            assert_eq!((400..=599).contains(&reason.http_status()), !allowed);
            let expected = match reason.http_status() {
                200 => GrpcStatus::Ok,
                400 => GrpcStatus::InvalidArgument,
                401 => GrpcStatus::Unauthenticated,
                403 => GrpcStatus::PermissionDenied,
                503 => GrpcStatus::Unavailable,
                _ => GrpcStatus::Internal,
            };
            assert_eq!(reason.grpc_status(), expected, "{}", reason.code());
        }
    }
}
