//! Bodies of gRPC calls, by the descriptor set of the directory. Only the first message of a call that is not streamed by its
//! client is read, and only one that is not compressed; of any other there is nothing to see.

use super::{
    body::{self, Parsed},
    descriptors,
};
use crate::limits::MAX_MESSAGE_LEVELS;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage, SerializeOptions, Value,
};
use serde_json::Serializer;
use std::fmt;

/// Compressed or not, and the length: what stands before each message of gRPC.
const FRAME_BYTES: usize = 5;

/// The services that are known, and their messages.
#[derive(Clone)]
pub struct Descriptors(DescriptorPool);

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").field("services", &self.services()).finish()
    }
}

impl Descriptors {
    /// Reads a `FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` writes it. The error is one sentence.
    pub fn load(bytes: &[u8]) -> Result<Self, String> {
        let set = descriptors::read(bytes)?;
        let pool = DescriptorPool::from_file_descriptor_set(set);
        pool.map(Self).map_err(|error| format!("no whole `FileDescriptorSet`: {error}"))
    }

    /// How many services it describes.
    pub fn services(&self) -> usize {
        self.0.services().len()
    }

    /// The paths of calls whose clients stream, in order: of their bodies nothing is read.
    pub fn client_streams(&self) -> Vec<String> {
        let methods = self.0.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let streams = methods.filter(MethodDescriptor::is_client_streaming);
        let mut paths: Vec<_> =
            streams.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name())).collect();
        paths.sort();
        paths
    }

    /// Parses the first message of a body. `path`: the service and the method.
    pub(super) fn parse(&self, path: &[String], raw: &[u8]) -> Result<Parsed, String> {
        let [service, method] = path else {
            return Err("the path of a gRPC call is not a service and a method".to_owned());
        };
        let Some((frame, rest)) = raw.split_first_chunk::<FRAME_BYTES>() else {
            return Err("the body of a gRPC call is shorter than the frame of a message".to_owned());
        };
        let [compressed, length @ ..] = *frame;
        if compressed != 0 {
            return Ok(Parsed::Nothing);
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let Some(message) = rest.get(..length) else { return Ok(Parsed::CutOff) };
        match self.input_of(service, method) {
            Some(kind) => to_json(kind, message).map(Parsed::Value),
            None => Ok(Parsed::Nothing),
        }
    }

    fn input_of(&self, service: &str, method: &str) -> Option<MessageDescriptor> {
        let service = self.0.get_service_by_name(service)?;
        let method = service.methods().find(|known| known.name() == method)?;
        (!method.is_client_streaming()).then(|| method.input())
    }
}

/// The JSON form of protobuf. It goes by a text, so that a 32-bit number has no more digits than it has there.
fn to_json(kind: MessageDescriptor, bytes: &[u8]) -> Result<serde_json::Value, String> {
    let no_message = || "the body of a gRPC call is no message of its method".to_owned();
    let message = DynamicMessage::decode(kind, bytes).map_err(|_| no_message())?;
    if !fits(&message, MAX_MESSAGE_LEVELS) {
        return Err(format!("the body of a gRPC call nests deeper than {MAX_MESSAGE_LEVELS} messages"));
    }
    let mut text = Serializer::new(Vec::new());
    message.serialize_with_options(&mut text, &SerializeOptions::new()).map_err(|_| no_message())?;
    body::value(&text.into_inner())
}

/// Whether a message nests no deeper than so many, through `Any`, too: its JSON form is that of what it holds, so who writes
/// it reads on, each time with the bound of the reader begun anew.
fn fits(message: &DynamicMessage, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return false };
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return held(message).is_none_or(|held| fits(&held, levels));
    }
    message.fields().all(|(_, value)| value_fits(value, levels))
}

fn value_fits(value: &Value, levels: usize) -> bool {
    match value {
        Value::Message(message) => fits(message, levels),
        Value::List(values) => values.iter().all(|value| value_fits(value, levels)),
        Value::Map(values) => values.values().all(|value| value_fits(value, levels)),
        _ => true,
    }
}

/// What an `Any` holds. `None`: nothing that can be read, which ends in an error when it is written.
fn held(any: &DynamicMessage) -> Option<DynamicMessage> {
    let any_of: prost_types::Any = any.transcode_to().ok()?;
    let (_, name) = any_of.type_url.rsplit_once('/')?;
    let kind = any.descriptor().parent_pool().get_message_by_name(name)?;
    DynamicMessage::decode(kind, any_of.value.as_slice()).ok()
}
