//! The closed list of built-in functions of Rego: which policies may call, and which are refused with the reason and
//! what to write instead. A name of OPA's that neither list has can't be: a test reads all of them.

/// Functions that give the same answer for the same question, and OPA's: their name and how many arguments they take
/// (without the one that may take the result). Those that are our own are listed in `ours`, too.
#[rustfmt::skip]
const SUPPORTED: &[(&str, u8)] = &[
    ("abs", 1), ("array.concat", 2), ("array.flatten", 1), ("array.reverse", 1), ("array.slice", 3),
    ("base64.decode", 1), ("base64.encode", 1), ("base64.is_valid", 1), ("base64url.decode", 1), ("base64url.encode", 1),
    ("base64url.encode_no_pad", 1), ("bits.and", 2), ("bits.lsh", 2), ("bits.negate", 1), ("bits.or", 2), ("bits.rsh", 2),
    ("bits.xor", 2), ("ceil", 1), ("concat", 2), ("contains", 2), ("count", 1), ("crypto.hmac.equal", 2),
    ("crypto.hmac.sha256", 2), ("crypto.hmac.sha512", 2), ("crypto.sha256", 1), ("endswith", 2), ("floor", 1),
    ("format_int", 2), ("glob.match", 3), ("glob.quote_meta", 1), ("graph.reachable", 2), ("hex.decode", 1),
    ("hex.encode", 1), ("indexof", 2), ("indexof_n", 2), ("intersection", 1), ("is_array", 1), ("is_boolean", 1),
    ("is_null", 1), ("is_number", 1), ("is_object", 1), ("is_set", 1), ("is_string", 1), ("json.filter", 2),
    ("json.is_valid", 1), ("json.marshal", 1), ("json.patch", 2), ("json.remove", 2), ("json.unmarshal", 1), ("lower", 1),
    ("max", 1), ("min", 1), ("net.cidr_contains", 2), ("net.cidr_contains_matches", 2), ("net.cidr_expand", 1),
    ("net.cidr_intersects", 2), ("net.cidr_is_valid", 1), ("numbers.range", 2), ("numbers.range_step", 3),
    ("object.filter", 2), ("object.get", 3), ("object.keys", 1), ("object.remove", 2), ("object.subset", 2),
    ("object.union", 2), ("object.union_n", 1), ("product", 1), ("regex.find_all_string_submatch_n", 3),
    ("regex.find_n", 3), ("regex.is_valid", 1), ("regex.match", 2), ("regex.replace", 3), ("regex.split", 2),
    ("regex.template_match", 4), ("replace", 3), ("round", 1), ("semver.compare", 2), ("semver.is_valid", 1), ("sort", 1),
    ("split", 2), ("sprintf", 2), ("startswith", 2), ("strings.any_prefix_match", 2), ("strings.any_suffix_match", 2),
    ("strings.count", 2), ("strings.replace_n", 2), ("strings.reverse", 1), ("strings.split_n", 3), ("substring", 3),
    ("sum", 1), ("time.add_date", 4), ("time.clock", 1), ("time.date", 1), ("time.diff", 2), ("time.format", 1),
    ("time.now_ns", 0), ("time.parse_duration_ns", 1), ("time.parse_ns", 2), ("time.parse_rfc3339_ns", 1),
    ("time.weekday", 1), ("to_number", 1), ("trace", 1), ("trim", 2), ("trim_left", 2), ("trim_prefix", 2),
    ("trim_right", 2), ("trim_space", 1), ("trim_suffix", 2), ("type_name", 1), ("union", 1), ("units.parse", 1),
    ("units.parse_bytes", 1), ("upper", 1), ("urlquery.decode", 1), ("urlquery.decode_object", 1), ("urlquery.encode", 1),
    ("urlquery.encode_object", 1), ("walk", 1),
];

/// `print` takes any number of arguments.
const PRINT: &str = "print";

const OPERATOR: &str =
    "it is the name of an operator inside OPA: write the operator itself (`==`, `!=`, `<`, `+`, `&`, …)";
const INTERNAL: &str = "it is internal to OPA's compiler: write the construct that it stands for (`in`, `print`, …)";
const DEPRECATED: &str =
    "OPA deprecated it and has no such function in version 1 of Rego: write what its documentation names instead";
const JWT: &str = "it is not built: let Envoy's jwt_authn filter verify the token and read what it forwards, or use the \
                   identity source `jwt_svid` or `oauth` of this server and read `input.identity`";
const SIGNING: &str = "a policy holds no signing key: issue tokens and signatures outside, where the key is kept";
const X509: &str = "it is not built: this server verifies certificates itself; read `input.identity`, or publish what is \
                    needed of a certificate as a signal";
const WEAK: &str = "this hash can be forged: use `crypto.sha256` or `crypto.hmac.sha256`";
const GRAPHQL: &str =
    "it is not built: let the route name the arguments that count (`args:`), and read `input.request.args`";
const NETWORK: &str = "a decision asks no other service, so that it is the same when it is replayed: publish the answer as a \
                       signal, and read `input.signals`";
const RANDOM: &str = "a decision draws no randomness, so that it is the same when it is replayed: publish the value as a \
                      signal, or take it from the request";
const YAML: &str =
    "two readers of YAML can read two things: write the data as JSON, and use `json.unmarshal` or `json.marshal`";
const SCHEMA: &str = "validators of JSON Schema differ from version to version: check the fields that count by rules";
const METADATA: &str = "annotations are for tools, not for decisions: write the value into a rule or into `data.json`";
const URI: &str =
    "readers of addresses differ: let the route name the host, path and query arguments, and read `input.request`";

/// Functions that OPA has and policies here may not call.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    ("all", "deprecated: write `every x in xs { x }`"),
    ("and", OPERATOR),
    ("any", "deprecated: write `true in xs`"),
    ("assign", OPERATOR),
    ("cast_array", DEPRECATED), ("cast_boolean", DEPRECATED), ("cast_null", DEPRECATED), ("cast_object", DEPRECATED),
    ("cast_set", DEPRECATED), ("cast_string", DEPRECATED),
    ("crypto.hmac.md5", WEAK), ("crypto.hmac.sha1", WEAK), ("crypto.md5", WEAK), ("crypto.sha1", WEAK),
    ("crypto.parse_private_keys", SIGNING), ("crypto.x509.parse_keypair", SIGNING),
    ("crypto.x509.parse_rsa_private_key", SIGNING),
    ("crypto.x509.parse_and_verify_certificates", X509),
    ("crypto.x509.parse_and_verify_certificates_with_options", X509),
    ("crypto.x509.parse_certificate_request", X509), ("crypto.x509.parse_certificates", X509),
    ("div", OPERATOR), ("eq", OPERATOR), ("equal", OPERATOR), ("gt", OPERATOR), ("gte", OPERATOR), ("lt", OPERATOR),
    ("lte", OPERATOR), ("minus", OPERATOR), ("mul", OPERATOR), ("neq", OPERATOR), ("or", OPERATOR), ("plus", OPERATOR),
    ("rem", OPERATOR),
    ("graph.reachable_paths", "its paths through a cycle are not defined: use `graph.reachable`"),
    ("graphql.is_valid", GRAPHQL), ("graphql.parse", GRAPHQL), ("graphql.parse_and_verify", GRAPHQL),
    ("graphql.parse_query", GRAPHQL), ("graphql.parse_schema", GRAPHQL), ("graphql.schema_is_valid", GRAPHQL),
    ("http.send", NETWORK),
    ("internal.member_2", INTERNAL), ("internal.member_3", INTERNAL), ("internal.print", INTERNAL),
    ("internal.template_string", INTERNAL), ("internal.test_case", INTERNAL),
    ("io.jwt.decode", JWT), ("io.jwt.decode_verify", JWT),
    ("io.jwt.encode_sign", SIGNING), ("io.jwt.encode_sign_raw", SIGNING),
    ("io.jwt.verify_eddsa", JWT), ("io.jwt.verify_es256", JWT), ("io.jwt.verify_es384", JWT), ("io.jwt.verify_es512", JWT),
    ("io.jwt.verify_hs256", JWT), ("io.jwt.verify_hs384", JWT), ("io.jwt.verify_hs512", JWT), ("io.jwt.verify_ps256", JWT),
    ("io.jwt.verify_ps384", JWT), ("io.jwt.verify_ps512", JWT), ("io.jwt.verify_rs256", JWT), ("io.jwt.verify_rs384", JWT),
    ("io.jwt.verify_rs512", JWT),
    ("json.marshal_with_options", "a decision needs no indented text: use `json.marshal`"),
    ("json.match_schema", SCHEMA), ("json.verify_schema", SCHEMA),
    ("net.cidr_merge", "it is not built: merge the networks where they are published or kept, and use `net.cidr_contains`"),
    ("net.cidr_overlap", "deprecated: use `net.cidr_contains`"),
    ("net.lookup_ip_addr", NETWORK),
    ("opa.runtime", "it says what process decides, which a replay can't repeat: put the setting into `data.json`"),
    ("providers.aws.sign_req", SIGNING),
    ("rand.intn", RANDOM),
    ("re_match", "deprecated: use `regex.match`"),
    ("regex.globs_match", "it is not built: use `glob.match` of one pattern and a text"),
    ("rego.metadata.chain", METADATA), ("rego.metadata.rule", METADATA),
    ("rego.parse_module", "a policy does not read policies: check them where they are reviewed"),
    ("set_diff", "deprecated: write `a - b`"),
    ("strings.render_template", "it runs a second language of templates: use `sprintf` or `concat`"),
    ("uri.is_valid", URI), ("uri.parse", URI),
    ("uuid.parse", "it is not built: compare the text, or match it with `regex.match`"),
    ("uuid.rfc4122", RANDOM),
    ("yaml.is_valid", YAML), ("yaml.marshal", YAML), ("yaml.unmarshal", YAML),
];

/// True for a function that policies may call.
pub(super) fn is_supported(name: &str) -> bool {
    name == PRINT || arity(name).is_some()
}

/// How many arguments a supported function takes, without the one that may take the result; none for `print`, which
/// takes any number, and for what is not supported.
pub(super) fn arity(name: &str) -> Option<u8> {
    SUPPORTED.iter().find(|(known, _)| *known == name).map(|(_, arity)| *arity)
}

/// Why a function of OPA's may not be called, and what to write instead, as the end of a sentence.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
}

/// Every name that policies may call.
pub(super) fn supported() -> impl Iterator<Item = &'static str> {
    SUPPORTED.iter().map(|(name, _)| *name).chain([PRINT])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by panicking")]
mod tests {
    use super::*;

    /// The names of OPA 1.22.2, one a line.
    const OF_OPA: &str = include_str!("../../../../../tests/conformance/opa-builtins.txt");

    fn of_opa() -> impl Iterator<Item = &'static str> {
        OF_OPA.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    #[test]
    fn every_function_of_opa_is_supported_or_refused_and_none_is_both() {
        assert_eq!(of_opa().count(), 206);
        for name in of_opa() {
            assert_ne!(is_supported(name), refused(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_lists_name_nothing_that_opa_does_not_have_and_nothing_twice() {
        let listed: Vec<&str> = supported().chain(REFUSED.iter().map(|(name, _)| *name)).collect();
        for name in &listed {
            assert!(of_opa().any(|known| known == *name), "{name}");
            assert_eq!(listed.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_write_instead() {
        for (name, why) in REFUSED {
            assert!(why.contains(':') && !why.ends_with('.'), "{name}: {why}");
        }
        let said = refused("http.send").unwrap();
        assert!(said.contains("publish") && said.contains("signal"), "{said}");
    }

    #[test]
    fn each_of_our_own_functions_is_supported_with_the_same_number_of_arguments() {
        for function in super::super::ours::OURS {
            assert_eq!(arity(function.name), Some(function.arity), "{}", function.name);
        }
    }
}
