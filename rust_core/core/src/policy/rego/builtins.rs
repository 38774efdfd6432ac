//! Built-ins that are refused at load: what stands against each, and what to do instead.

/// Why a built-in is refused, and the alternative; `None` if it is not.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    Some(match name {
        "http.send" => "a policy asks nobody: bring the fact as a signal",
        "rand.intn" | "uuid.rfc4122" => "a decision must come out the same when it is replayed: bring the value as a signal",
        "opa.runtime" => "there is no such runtime: put the value into data.json",
        "trace" => "there is nobody who reads a trace: leave it out",
        _ => return None,
    })
}
