//! The only room that knows protobuf: a `CheckRequest` comes in as bytes and leaves as
//! [`crate::model::Request`]; an answer comes in as plain data and leaves as the bytes of a `CheckResponse`.

mod decode;
mod encode;
mod messages;
mod opa_envoy;
mod publish;
mod request_bytes;
pub mod rules;
mod syntax;
mod usual;
mod writer;

#[cfg(test)]
mod tests;

pub use decode::{Malformed, decode};
pub use encode::{AllowAnswer, BadAnswer, DenyAnswer, encode_allow, encode_deny};
pub use opa_envoy::{Descriptors, whole_request};
pub use publish::{publish_answer, publish_to_json};
pub use request_bytes::encode_request;
pub use usual::{Note, encode_usual_allow, encode_usual_deny};
