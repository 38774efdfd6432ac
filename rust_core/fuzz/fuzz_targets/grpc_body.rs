//! Any bytes as the body of a gRPC call to a method that takes one of everything: maps, choices, lists, wrapped values, times,
//! free JSON, `Any`. Never a panic, never a stack without an end, never the same bytes read in two ways.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions, MethodDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use prost_reflect::{DescriptorPool, prost_types::FileDescriptorSet};
use signalwarden_core::wire::{self, Descriptors};
use std::sync::LazyLock;

/// `CheckRequest` down to the body.
#[derive(Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Message)]
struct Attributes {
    #[prost(message, optional, tag = "4")]
    request: Option<Request>,
}

#[derive(Message)]
struct Request {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Message)]
struct Http {
    #[prost(btree_map = "string, string", tag = "3")]
    headers: std::collections::BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
}

fn field(name: &str, number: i32, label: Label, kind: Type, of: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name: of.map(str::to_owned),
        ..FieldDescriptorProto::default()
    }
}

/// What protobuf knows itself, and `All`, which has a field of each.
static EVERYTHING: LazyLock<Descriptors> = LazyLock::new(|| {
    let mut files: Vec<FileDescriptorProto> = DescriptorPool::global().file_descriptor_protos().cloned().collect();
    let scalars = (1..=18).filter_map(|kind| Type::try_from(kind).ok());
    let scalars = scalars.filter(|kind| !matches!(kind, Type::Group | Type::Message | Type::Enum));
    let mut fields: Vec<_> = scalars
        .flat_map(|kind| {
            let number = i32::from(kind);
            let name = kind.as_str_name().to_ascii_lowercase();
            [
                field(&name, number, Label::Optional, kind, None),
                field(&format!("{name}_list"), 20 + number, Label::Repeated, kind, None),
            ]
        })
        .collect();
    let known = [
        "Any",
        "Struct",
        "Value",
        "ListValue",
        "Timestamp",
        "Duration",
        "FieldMask",
        "Empty",
        "BoolValue",
        "Int64Value",
        "UInt32Value",
        "DoubleValue",
        "FloatValue",
        "StringValue",
        "BytesValue",
        "FileDescriptorProto",
    ];
    for (number, name) in (50..).zip(known) {
        let of = format!(".google.protobuf.{name}");
        fields.push(field(&format!("k{number}"), number, Label::Repeated, Type::Message, Some(&of)));
    }
    fields.push(field("null", 70, Label::Optional, Type::Enum, Some(".google.protobuf.NullValue")));
    fields.push(field("map", 71, Label::Repeated, Type::Message, Some(".All.MapEntry")));
    fields.push(field("again", 72, Label::Optional, Type::Group, Some(".All")));
    for number in [73, 74] {
        let choice = field(&format!("c{number}"), number, Label::Optional, Type::Message, Some(".All"));
        fields.push(FieldDescriptorProto { oneof_index: Some(0), ..choice });
    }
    let entry = DescriptorProto {
        name: Some("MapEntry".to_owned()),
        field: vec![
            field("key", 1, Label::Optional, Type::Sint32, None),
            field("value", 2, Label::Optional, Type::Message, Some(".All")),
        ],
        options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
        ..DescriptorProto::default()
    };
    let method = MethodDescriptorProto {
        name: Some("M".to_owned()),
        input_type: Some(".All".to_owned()),
        output_type: Some(".All".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let dependency = files.iter().map(|file| file.name().to_owned()).collect();
    files.push(FileDescriptorProto {
        name: Some("all.proto".to_owned()),
        dependency,
        message_type: vec![DescriptorProto {
            name: Some("All".to_owned()),
            field: fields,
            nested_type: vec![entry],
            oneof_decl: vec![OneofDescriptorProto { name: Some("choice".to_owned()), options: None }],
            ..DescriptorProto::default()
        }],
        service: vec![ServiceDescriptorProto { name: Some("S".to_owned()), method: vec![method], options: None }],
        ..FileDescriptorProto::default()
    });
    Descriptors::load(&FileDescriptorSet { file: files }.encode_to_vec()).expect("what protobuf knows is read")
});

fuzz_target!(|body: &[u8]| {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let http = Http {
        headers: [("content-type".to_owned(), "application/grpc".to_owned())].into(),
        path: "/S/M".to_owned(),
        raw_body: [&[0], &length[..], body].concat(),
    };
    let attributes = Some(Attributes { request: Some(Request { http: Some(http) }) });
    let request = CheckRequest { attributes }.encode_to_vec();
    let Ok(input) = wire::whole_request(&request, Some(&EVERYTHING)) else { return };
    assert_eq!(wire::whole_request(&request, Some(&EVERYTHING)).as_ref(), Ok(&input));
    assert!(input["parsed_body"].is_object() && input["truncated_body"] == false);
});
