"""Tokens that callers bring: validated here once, kept by the core as evidence. What one may do is not asked here."""

from signalwarden.tokens.desk import MAX_WAITING, Desk
from signalwarden.tokens.issuers import Issuers
from signalwarden.tokens.proof import Proof, TokenRefused
from signalwarden.tokens.terms import Limits, PrincipalTemplate, Terms, TokenClass
from signalwarden.tokens.validate import Entry, Validator

__all__ = [
    "MAX_WAITING",
    "Desk",
    "Entry",
    "Issuers",
    "Limits",
    "PrincipalTemplate",
    "Proof",
    "Terms",
    "TokenClass",
    "TokenRefused",
    "Validator",
]
