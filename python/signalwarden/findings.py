"""Every code that a finding of a directory can have, with one line of help: what it means, and what to do about it.

The message of a finding says what was found where; this says why it matters to somebody who meets the code for the
first time, in a report of a code scanner. A code that is not here has no help and is still reported.
"""

from __future__ import annotations

from typing import Final

__all__ = ["EXCEPTION", "HELP", "OUTSIDE", "help_of"]

EXCEPTION: Final = "declared_exception"
"""Not a finding: what the directory itself declares to be an exception, listed so that nobody overlooks it."""
OUTSIDE: Final = "reads_outside"
"""Not a finding either: where a policy reads the whole request (`input: opa_envoy`)."""

_FILES: Final = {
    "directory_changing": "The directory was written to all the while it was read. Try again once it is still.",
    "ignored_file": "A file that nothing reads. Rename it if it was meant to count, or remove it.",
    "missing_file": "A file that every directory has is not there. `signalwarden init` makes a directory with all.",
    "not_utf8": "Every file is UTF-8 text. Save it as such.",
    "outside": "A link leads out of the directory. Only what the directory itself holds is read.",
    "too_deep": "Folders below `policies/` go too deep, or a link leads back to a folder above.",
    "too_large": "A file, or all of them, are larger than a configuration may be.",
    "file_too_large": "A file is larger than a configuration may be.",
    "unreadable": "A file or folder can't be read. See its mode and owner.",
    "unreadable_directory": "The directory can't be read. See its path, mode and owner.",
}
_YAML: Final = {
    "yaml_alias": "An alias hides what a key says. Write the value out.",
    "yaml_anchor": "An anchor hides what a key says. Write the value out.",
    "yaml_depth": "Values stand deeper inside one another than any key needs.",
    "yaml_documents": "A file holds one YAML document. Remove the `---` and what follows.",
    "yaml_key": "A key is text. Quote it if it reads as a number, a truth or nothing.",
    "yaml_merge": "A merge key hides what a map says. Write the entries out.",
    "yaml_syntax": "The file is not YAML.",
    "yaml_tag": "A tag changes how a value is read. Leave it out.",
    "duplicate_key": "A key stands twice, and only one of them could count. Remove one.",
    "syntax": "The file is not what its name says: Cedar for a policy, JSON for entities.",
}
_VALUES: Final = {
    "bad_date": "A date is written as `2027-12-31`.",
    "bad_key": "This is not one of the keys that such a map may have.",
    "bad_span": "A span is a number and its unit, such as `30s`, `5m`, `12h`, and has bounds.",
    "bad_spiffe_id": "A SPIFFE ID is `spiffe://TRUST-DOMAIN/PATH`.",
    "bad_value": "The value is not one that this key takes.",
    "duplicate": "The same entry stands twice. Remove one.",
    "empty_list": "A list that must name something is empty.",
    "empty_text": "A text that people are to read is empty.",
    "missing_key": "A required key is not there: nothing that matters has a silent default.",
    "needs_body": "Envoy must forward whole bodies on these routes: `signalwarden envoy config` has it do so.",
    "one_of": "Exactly one of several keys is needed here. Remove the others, or add one.",
    "too_many": "A list is longer than it may be.",
    "not_a_value": "The value is not of the declared type.",
    "not_built": "This is planned and not built yet. Leave it out.",
    "unknown_key": "No such key is known here, so it would do nothing. Often it is misspelt.",
    "unknown_type": "The type is not one that an argument or signal can have, or not one that the schema declares.",
    "unknown_value": "The word is not one of those that this key takes. Often it is misspelt.",
    "wrong_type": "The value is of another type than this key takes.",
}
_SETTINGS: Final = {
    "client_expired": "The token of a client has expired, and its calls are refused. Make a new one.",
    "client_long_lived": "The token of a client lives long. Replace it more often, or let the client come by its SVID.",
    "needs_restart": "This setting takes effect only when the server starts. Restart it, or take the change back.",
    "unknown_redaction": "No route has this parameter or argument, so nothing would be hidden. Often it is misspelt.",
    "bad_descriptors": "The file is no whole `FileDescriptorSet`. Make it with `protoc --include_imports "
    "--descriptor_set_out`.",
    "ungoverned": "Policies see the whole request, outside the register. `signalwarden check` lists what they read, "
    "and `--draft` writes the register and the policy that would do without.",
    "unused": "The setting is for something that is not switched on, so it does nothing.",
    "trust_domain": "The name of a trust domain is lower case letters, digits, `.`, `-` and `_`.",
    "trust_domain_unknown": "A client of a trust domain that is neither ours nor federated could never be accepted.",
}
_ROUTES: Final = {
    "action_grant": "Routes of one action differ in `grant`: its policies read a grant, or they don't.",
    "action_tier": "Routes of one action have different tiers: an action has one, or the weaker could be chosen.",
    "argument_type": "Routes of one action read the same argument as different types. Policies see one type.",
    "bad_host": "The host of a route is a name, `*.name`, or `*`.",
    "bad_method": "The method of a route is an HTTP method in upper case; leave it out for any.",
    "bad_name": "A name has another form than names of its kind.",
    "bad_path": "The path of a route begins with `/`; a parameter is `{name}`.",
    "bad_pointer": "Where an argument stands in the body is an RFC 6901 pointer, such as `/order/amount`.",
    "bad_resource_id": "The id of a resource is text with parameters of the path, such as `{account}`.",
    "body_of_grpc": "The body of a gRPC call is protobuf and can't be read as JSON.",
    "duplicate_argument": "Two arguments of a route have one name.",
    "equal_routes": "Two routes match the same requests, and only one could count.",
    "grant_needs_approval": "Only routes of tier `approval` can require a grant.",
    "optional_path_argument": "A parameter of the path is always there, so it can't be optional.",
    "overlapping_pointers": "One argument lies within another, so they could contradict each other.",
    "reserved_name": "The name belongs to signalwarden itself.",
    "shadowed_route": "Every request that this route matches goes to another one, so it never counts.",
    "too_many_arguments": "A route has more arguments than it may.",
    "too_many_series": "Counting so many signals over so many windows takes more memory than there is for it.",
    "too_many_facts": "A route declares more facts than it may.",
    "too_many_routes": "There are more routes than there may be.",
    "tool_of_no_call": "Only a `tools/call` of MCP has a tool and its arguments.",
    "unenforced_route": "Denials of this route are recorded and let pass. Remove `enforce: false` when it is to count.",
    "unknown_parameter": "An argument names a parameter that the path of its route does not have.",
}
_REGISTER: Final = {
    "approval_invalid": "The approvals file, or a signature in it, is not good. Let the approver sign again.",
    "approval_missing": "An approver has not signed what the contract says now: `signalwarden signals approve NAME`.",
    "assurance_too_high": "A source can't be trusted further than its kind allows. Declare it lower.",
    "bad_adverse": "`adverse` says which values are bad news: `{one_of: [...]}`, `{at_least: n}` or `{at_most: n}`.",
    "bad_header": "This header can't be a signal: it is ours, carries a credential, or is no header name.",
    "bad_need": "So many of the group can never be adverse. Ask for fewer, or name more signals.",
    "bad_owner": "The owner is an address of those who answer for the signal, such as `team@prod.example`.",
    "bad_template": "A template is text with `{id}` once.",
    "bad_type": "The type is not one that a signal can have.",
    "coarse_action": "Policies of a coarse action read no signals. Give its routes a tier that does.",
    "workflow_type": "Whether a workflow is approved is a yes or a no: the type of the signal is `bool`.",
    "derived_type": "What is counted is a whole number: the type of its signal is `long`.",
    "max_age_interval": "A source speaks less often than `max_age` allows, so the signal is stale between two values.",
    "max_age_on_derived": "What the core counts is as old as the decision. Leave `max_age` out.",
    "max_age_on_request": "What rides on the request is as old as the request. Leave `max_age` out.",
    "missing_adverse": "Without `adverse` nobody knows which values are bad news. Declare it.",
    "missing_justification": "Counting a lost signal as absent is an exception, and an exception says why.",
    "missing_merge": "Several sources can contradict each other. Say with `merge` what counts then.",
    "mixed_assurance": "Self-asserted and other sources can't be mixed in one signal.",
    "needless_justification": "Nothing here needs a justification. Leave it out.",
    "needless_merge": "One source has nothing to merge with. Leave `merge` out.",
    "needless_otherwise": "This value can never be needed. Leave it out.",
    "needless_poll": "`poll` belongs to `delivery: poll`. Leave it out.",
    "needless_when_unavailable": "This signal counts as absent anyway. Leave the key out.",
    "never_found": "A task and its workflow are known by a grant alone, and calls of this action show none: the signal "
    "is always missing there. Take the action out of `used_by`, or give its routes the tier `jit`.",
    "observed_company": "An observed signal can't stand by another one: it has no influence.",
    "repeated_action": "An action stands twice in `used_by`. Remove one.",
    "review_past": "The review of this contract was due. Look whether it still holds, then set a new date.",
    "review_soon": "The review of this contract is due within 30 days.",
    "self_asserted_company": "What the caller says of itself can't stand by a signal about it.",
    "self_asserted_grant": "What a caller says of itself can only restrict. Use another source.",
    "several_sources": "Several sources for one signal need `merge`.",
    "source_subject": "A source of this kind can't say anything about such subjects.",
    "too_many_series": "More is counted than may be: each measure and window costs a look-up in every decision.",
    "unauthenticated_source": "Nobody could send these values and be known as their source. Give the publisher an "
    "entry under `clients`, or remove the source.",
    "unknown_action": "No route has this action. Often it is misspelt.",
    "unknown_feed": "No feed has this name. Declare it under `feeds`.",
    "unread_signal": "No policy reads this signal. What nobody needs should not be collected: remove it or observe it.",
}
_ON_THE_REQUEST: Final = {
    "bad_claim": "A claim of a token has an issuer and a name, or a list of names as the way down to it.",
    "bad_filter": "Only some filters of Envoy write what they verified or computed; others say what the caller says.",
    "bad_metadata": "Metadata of Envoy has a namespace and a key.",
    "bad_network": "A network is an address and the length of its prefix, such as `10.0.0.0/8`.",
    "bad_window": "A window of time has days, a beginning, an end and a time zone.",
    "overlapping_windows": "Two windows hold at the same time, and only one could count.",
    "repeated_network": "A network stands in two zones, and only one could count.",
    "too_many_networks": "There are more networks than there may be.",
    "unknown_fact": "No route gives this fact. Often it is misspelt.",
    "unknown_issuer": "No entry of the settings validates tokens of this issuer, so nothing is ever read of them.",
    "unknown_zone": "The time zone is not one of the IANA database, such as `Europe/Berlin`.",
}
_POLICIES: Final = {
    "action_without_policy": "No policy is about this action, so every request to it is denied.",
    "bad_annotation": "`@reason` and `@advice` are one line of words, for the record and for the caller.",
    "bad_entity": 'A link fills a slot with an entity, written as Cedar writes it: `Type::"id"`.',
    "bad_gate": "`@require_approval` has one line of words, and stands at policies for calls that can wait for a yes.",
    "cedar": "Cedar's strict validator objects: often a signal is read without `has` before it.",
    "context_whole": "Policies read single attributes of `context`, so that it can be known which.",
    "duplicate_id": "Two policies have one id, and records could not tell them apart.",
    "entity": "An entity is not as `entities.cedarschema` says.",
    "idle_advice": "Advice is told to callers that a forbid denies. This policy denies nobody.",
    "legacy_ended": "The end of a legacy principal has come, so its calls are denied. Remove it, or move its end on.",
    "legacy_permit": "A legacy principal calls coarse actions alone, so this permit promises what is never given.",
    "legacy_without_end": "Whoever has nothing but a long-lived secret is borne for a time. Say until when.",
    "principal_record": "What is said of a workload can't be read, so it would not stand against anybody.",
    "internal": "A fault of signalwarden itself. Please report it with the directory that shows it.",
    "link_slot": "A link fills the slots that its template has, all of them and no others.",
    "never_matches": "This policy can never apply. Remove it, or mend its scope or condition.",
    "no_policies": "Without a policy everything is denied.",
    "observed_signal": "A signal with `influence: observe` decides nothing: only a policy that observes may read it.",
    "permit_needs_word": "A permit rests on a signal that may only restrict, such as what the caller says of itself.",
    "permit_on_absence": "A permit rests on a signal being lost, so cutting off its feed would open a door.",
    "reserved_type": "`Task`, `TaskType`, `Approval` are types of built-in actions. Give yours another name.",
    "schema": "`entities.cedarschema` is not a schema of Cedar.",
    "schema_action": "Actions come from routes.yaml; the schema declares entity types alone.",
    "signals_whole": "Policies read single signals, so that it can be known which.",
    "slot_in_condition": "A slot stands for the principal or the resource of a scope, and nowhere else.",
    "ungoverned_read": "A policy reads a signal for an action that its contract does not name in `used_by`.",
    "unknown_annotation": "This annotation would do nothing. Often it is misspelt.",
    "unknown_function": "No policy here has this function: `unknown` in Cedar, or a misspelt one in Rego.",
    "unknown_mode": "The mode of a policy is `enforce`, or `observe` to try it without effect.",
    "unformatted": "`fmt` leaves a file alone that it could not lay out without losing something. Move the comment, or "
    "report it.",
    "unknown_template": "A link names a template that no `.cedar` file has. Often the id is misspelt.",
    "unlinked_template": "A template decides nothing until a link fills its slots. Link it, or remove it.",
    "unregistered_signal": "A policy reads a signal that the register does not have: nobody answers for it.",
}
_REGO: Final = {
    "bad_default": "What stands behind `default` is a value that is written out.",
    "bad_import": "An import is a path of names below `input` or `data`.",
    "bad_query": "The entry point is a path such as `data.authz.allow`.",
    "bad_rego": "The interpreter does not take these files.",
    "data_clash": "One name is defined by a rule and by data.json, and only one could count.",
    "dynamic_call": "A function is called by its name, written out, so that it can be known which.",
    "import_clash": "Two files of a package import different things under one name, and only one would count.",
    "input_overridden": "A policy that is asked sees the decision's input and no other.",
    "input_whole": "Policies read single parts of `input` and single signals, so that it can be known which.",
    "no_entry_point": "No rule has the name of the entry point, so that nothing would ever be permitted.",
    "no_rego": "The settings speak of Rego, and there is no policy in it.",
    "package_clash": "A package has the name of a rule. Give one of them another.",
    "recursion": "A rule depends on itself, so that it has no value.",
    "refused_builtin": "This function is not for decisions; the message says what takes its place.",
    "refused_construct": "The interpreter reads this otherwise than OPA. The message says what to write instead.",
    "reserved_package": "The package `signalwarden` is ours. Give yours another name.",
    "rule_clash": "One name is defined in ways that exclude each other.",
    "shadowed_document": "`input` and `data` are documents. Call the variable or alias something else.",
    "too_much_growth": "A value stands in itself again and again: it takes little memory, and for ever to compare.",
    "too_nested": "Rules or brackets stand deeper inside one another than the parser or an evaluation may go.",
    "unknown_input": "`input` has no such part, so that it would be undefined for ever. Often it is misspelt.",
    "unsafe_name": "A name is given no value anywhere. Often it is misspelt.",
    "wrong_arguments": "A function is called with another number of arguments than it takes.",
}
HELP: Final = {
    **_REGO, **_FILES, **_YAML, **_VALUES, **_SETTINGS, **_ROUTES, **_REGISTER, **_ON_THE_REQUEST, **_POLICIES,
    EXCEPTION: "A signal whose loss does not deny: declared in its contract, with a justification. Nothing to mend; "
    "look now and then whether it is still wanted.",
    OUTSIDE: "A policy reads the request outside the register, and nothing is promised of what it makes of it. A "
    "contract, an argument of the route or the identity could say the same.",
}  # fmt: skip


def help_of(code: str) -> str:
    """One line of help; for a code without any, where to look."""
    return HELP.get(code, "See the message.")
