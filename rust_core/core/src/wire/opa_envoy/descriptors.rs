//! A `FileDescriptorSet`, cut down to what the JSON form of a message depends on, and held to what `protoc` writes. The
//! library that resolves it takes that for granted: it panics on a file of another syntax and on odd map entries, follows
//! public imports in a circle without an end, and those of an import's import not at all.

#[cfg(test)]
mod tests;

use crate::limits::MAX_DESCRIPTOR_IMPORTS;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumOptions, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use std::collections::{BTreeMap, BTreeSet};

/// The fields of a map's entry.
const KEY: i32 = 1;
const VALUE: i32 = 2;

/// Reads a set. What is left out: options but for maps and aliases, defaults, extensions, reserved numbers, comments. Error:
/// one sentence, with the name of the file or the message.
pub(super) fn read(bytes: &[u8]) -> Result<FileDescriptorSet, String> {
    let set = FileDescriptorSet::decode(bytes).map_err(|error| format!("no whole `FileDescriptorSet`: {error}"))?;
    let visible = visible(&set.file)?;
    Ok(FileDescriptorSet { file: each(set.file.into_iter().zip(visible), of_file)? })
}

/// All of them, or what is wrong with the first that is.
fn each<T, U>(all: impl IntoIterator<Item = T>, of: impl Fn(T) -> Result<U, String>) -> Result<Vec<U>, String> {
    all.into_iter().map(of).collect()
}

/// What each file may name: its imports, and what those import publicly, and so on.
fn visible(files: &[FileDescriptorProto]) -> Result<Vec<Vec<String>>, String> {
    let by_name: BTreeMap<&str, &FileDescriptorProto> = files.iter().map(|file| (file.name(), file)).collect();
    let mut room = MAX_DESCRIPTOR_IMPORTS;
    files
        .iter()
        .map(|file| {
            let mut seen = BTreeSet::new();
            let mut open: Vec<&str> = file.dependency.iter().map(String::as_str).collect();
            while let Some(name) = open.pop() {
                room = room.checked_sub(1).ok_or_else(|| {
                    format!("more than {MAX_DESCRIPTOR_IMPORTS} imports, each counted as often as it is reached")
                })?;
                if seen.insert(name) {
                    open.extend(by_name.get(name).into_iter().flat_map(|file| public(file)));
                }
            }
            Ok(seen.into_iter().map(str::to_owned).collect())
        })
        .collect()
}

fn public(file: &FileDescriptorProto) -> impl Iterator<Item = &str> {
    let index = |index: &i32| usize::try_from(*index).ok();
    file.public_dependency.iter().filter_map(index).filter_map(|index| file.dependency.get(index)).map(String::as_str)
}

fn of_file((file, dependency): (FileDescriptorProto, Vec<String>)) -> Result<FileDescriptorProto, String> {
    // Without a word it is proto2, by `descriptor.proto`.
    if !matches!(file.syntax(), "" | "proto2" | "proto3") {
        return Err(format!(
            "`{}` is written in the syntax `{}`: expected proto2 or proto3",
            file.name().escape_debug(),
            file.syntax().escape_debug()
        ));
    }
    if !file.package().is_empty() {
        file.package().split('.').try_for_each(named)?;
    }
    Ok(FileDescriptorProto {
        name: file.name,
        package: file.package,
        dependency,
        message_type: each(file.message_type, of_message)?,
        enum_type: each(file.enum_type, of_enum)?,
        service: each(file.service, of_service)?,
        syntax: file.syntax.filter(|syntax| !syntax.is_empty()),
        ..FileDescriptorProto::default()
    })
}

/// As deep as the messages nest, which the reader of protobuf bounds.
fn of_message(message: DescriptorProto) -> Result<DescriptorProto, String> {
    named(message.name())?;
    let is_entry = message.options.as_ref().is_some_and(MessageOptions::map_entry);
    if is_entry && !is_map_entry(&message.field) {
        return Err(format!("the map entry `{}` has not one key and one value of the types of a map", message.name()));
    }
    Ok(DescriptorProto {
        name: message.name,
        field: each(message.field, of_field)?,
        nested_type: each(message.nested_type, of_message)?,
        enum_type: each(message.enum_type, of_enum)?,
        oneof_decl: each(message.oneof_decl, |oneof| {
            named(oneof.name()).map(|()| OneofDescriptorProto { name: oneof.name, options: None })
        })?,
        options: is_entry.then(|| MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
        ..DescriptorProto::default()
    })
}

/// <https://protobuf.dev/programming-guides/proto3/#maps>: a key is a whole number, a bool or a text.
fn is_map_entry(fields: &[FieldDescriptorProto]) -> bool {
    let [first, second] = fields else { return false };
    let (key, value) = if first.number() == KEY { (first, second) } else { (second, first) };
    let is_key = !matches!(key.r#type(), Type::Double | Type::Float | Type::Bytes | Type::Enum)
        && !matches!(key.r#type(), Type::Group | Type::Message)
        && key.type_name().is_empty();
    key.number() == KEY
        && value.number() == VALUE
        && is_key
        && fields.iter().all(|field| field.label() != Label::Repeated && field.oneof_index.is_none())
}

fn of_field(field: FieldDescriptorProto) -> Result<FieldDescriptorProto, String> {
    named(field.name())?;
    Ok(FieldDescriptorProto { default_value: None, options: None, extendee: None, ..field })
}

fn of_enum(kind: EnumDescriptorProto) -> Result<EnumDescriptorProto, String> {
    named(kind.name())?;
    let aliased = kind.options.as_ref().is_some_and(EnumOptions::allow_alias);
    Ok(EnumDescriptorProto {
        name: kind.name,
        value: each(kind.value, |value| {
            named(value.name()).map(|()| EnumValueDescriptorProto { options: None, ..value })
        })?,
        options: aliased.then(|| EnumOptions { allow_alias: Some(true), ..EnumOptions::default() }),
        ..EnumDescriptorProto::default()
    })
}

fn of_service(service: ServiceDescriptorProto) -> Result<ServiceDescriptorProto, String> {
    named(service.name())?;
    Ok(ServiceDescriptorProto {
        name: service.name,
        method: each(service.method, |method| {
            named(method.name()).map(|()| MethodDescriptorProto { options: None, ..method })
        })?,
        options: None,
    })
}

/// <https://protobuf.dev/reference/protobuf/proto3-spec/#identifiers>
fn named(name: &str) -> Result<(), String> {
    let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if name.bytes().next().is_some_and(is_start) && name.bytes().all(|byte| is_start(byte) || byte.is_ascii_digit()) {
        Ok(())
    } else {
        Err(format!("`{}` is no name of protobuf", name.escape_debug()))
    }
}
