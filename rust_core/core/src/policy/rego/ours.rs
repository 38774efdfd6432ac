//! Built-ins of our own, in place of the interpreter's or beside them.

use regorus::Value;

/// Name and number of arguments.
pub(super) const OURS: &[(&str, u8)] = &[("time.now_ns", 0)];

/// Calls one of them. `now_ns`: the decision's own now.
pub(super) fn call(name: &str, _args: &[Value], now_ns: i64) -> Result<Value, String> {
    match name {
        "time.now_ns" => Ok(Value::from(now_ns)),
        _ => Err(format!("there is no built-in `{name}`")),
    }
}
