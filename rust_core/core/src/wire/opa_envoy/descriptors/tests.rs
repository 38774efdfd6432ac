//! Descriptor sets as `protoc` never writes them, and bodies that nest through `Any`.

use super::super::grpc::Descriptors;
use super::*;
use crate::wire::opa_envoy::body::Parsed;
use prost_types::Any;
use serde_json::json;

fn field(name: &str, number: i32, kind: Type, of: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(1),
        r#type: Some(kind.into()),
        type_name: of.map(str::to_owned),
        ..FieldDescriptorProto::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field, ..DescriptorProto::default() }
}

fn file(name: &str, imports: &[&str], message_type: Vec<DescriptorProto>) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: imports.iter().map(|&import| import.to_owned()).collect(),
        message_type,
        ..FileDescriptorProto::default()
    }
}

/// As `file`, with every import a public one.
fn public_file(name: &str, imports: &[&str], message_type: Vec<DescriptorProto>) -> FileDescriptorProto {
    let public_dependency = (0..).take(imports.len()).collect();
    FileDescriptorProto { public_dependency, ..file(name, imports, message_type) }
}

fn load(file: Vec<FileDescriptorProto>) -> Result<Descriptors, String> {
    Descriptors::load(&FileDescriptorSet { file }.encode_to_vec())
}

fn refused(file: Vec<FileDescriptorProto>) -> String {
    load(file).err().unwrap_or_default()
}

#[test]
fn a_file_of_an_edition_is_refused_by_name_and_one_without_a_syntax_is_proto2() {
    let mut edition = file("new.proto", &[], vec![]);
    edition.syntax = Some("editions".to_owned());
    assert_eq!(
        refused(vec![file("old.proto", &[], vec![]), edition]),
        "`new.proto` is written in the syntax `editions`: expected proto2 or proto3"
    );
    for syntax in [None, Some(""), Some("proto2")] {
        let older = FileDescriptorProto { syntax: syntax.map(str::to_owned), ..file("old.proto", &[], vec![]) };
        load(vec![older]).unwrap();
    }
    // As a fuzzer found it: a file of nothing but an empty syntax.
    assert_eq!(Descriptors::load(&[10, 3, 226, 0, 0]).map(|set| set.services()), Ok(0));
}

#[test]
fn public_imports_reach_as_far_as_they_go_and_a_circle_of_them_ends() {
    let used = vec![message("Used", vec![field("of", 1, Type::Message, Some(".Last"))])];
    let chain = |last: FileDescriptorProto| {
        vec![file("a.proto", &["b.proto"], used.clone()), public_file("b.proto", &["c.proto"], vec![]), last]
    };
    let third = || vec![message("Last", vec![])];
    let mut longer = chain(public_file("c.proto", &["d.proto"], vec![]));
    longer.push(file("d.proto", &[], third()));
    load(longer).unwrap();
    load(chain(public_file("c.proto", &["b.proto", "c.proto"], third()))).unwrap();
    let hidden = chain(file("c.proto", &["d.proto"], vec![])).into_iter().chain([file("d.proto", &[], third())]);
    assert!(refused(hidden.collect()).contains("Last"), "an import of an import that is not public");
    assert!(refused(vec![file("a.proto", &["gone.proto"], vec![])]).contains("gone.proto"));
}

#[test]
fn imports_without_a_bound_are_refused() {
    let names: Vec<String> = (0..1_000).map(|number| format!("{number}.proto")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let files: Vec<_> = names.iter().map(|name| public_file(name, &names, vec![])).collect();
    assert_eq!(refused(files), "more than 200000 imports, each counted as often as it is reached");
}

#[test]
fn a_map_entry_without_the_key_and_value_of_a_map_is_refused() {
    let kinds = |fields: Vec<FieldDescriptorProto>| {
        let options = Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
        let mut of = field("of", 1, Type::Message, Some(".Outer.OfEntry"));
        of.label = Some(3);
        let entry = DescriptorProto { options, ..message("OfEntry", fields) };
        vec![file("map.proto", &[], vec![DescriptorProto { nested_type: vec![entry], ..message("Outer", vec![of]) }])]
    };
    let key = |kind| field("key", 1, kind, None);
    let value = || field("value", 2, Type::Bytes, None);
    load(kinds(vec![key(Type::Sint64), value()])).unwrap();
    load(kinds(vec![value(), key(Type::String)])).unwrap();
    for odd in [
        vec![],
        vec![key(Type::String)],
        vec![value(), value()],
        vec![key(Type::Float), value()],
        vec![key(Type::Bytes), value()],
        vec![field("key", 1, Type::Message, Some(".Outer")), value()],
        vec![FieldDescriptorProto { label: Some(3), ..key(Type::String) }, value()],
        vec![FieldDescriptorProto { r#type: None, ..key(Type::String) }, value()],
    ] {
        let why = refused(kinds(odd));
        assert_eq!(why, "the map entry `OfEntry` has not one key and one value of the types of a map");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    for name in ["", "a.b", "1st", "a b", "\u{e9}"] {
        let why = refused(vec![file("a.proto", &[], vec![message(name, vec![])])]);
        assert!(why.ends_with("is no name of protobuf"), "{name}: {why}");
    }
    let packaged = FileDescriptorProto { package: Some("a..b".to_owned()), ..file("a.proto", &[], vec![]) };
    assert_eq!(refused(vec![packaged]), "`` is no name of protobuf");
}

#[test]
fn what_the_json_form_does_not_depend_on_is_left_out() {
    let mut extended = file("a.proto", &[], vec![message("M", vec![field("f", 1, Type::Bytes, None)])]);
    extended.extension = vec![field("more", 100, Type::String, None)];
    extended.message_type[0].field[0].default_value = Some("\\".to_owned());
    let read = read(&FileDescriptorSet { file: vec![extended.clone()] }.encode_to_vec()).unwrap();
    extended.extension.clear();
    extended.message_type[0].field[0].default_value = None;
    assert_eq!(read.file, [extended]);
}

/// A service that takes an `Any`, and a message without fields.
fn of_any() -> Descriptors {
    let fields = vec![field("type_url", 1, Type::String, None), field("value", 2, Type::Bytes, None)];
    let mut any = file("google/protobuf/any.proto", &[], vec![message("Any", fields)]);
    any.package = Some("google.protobuf".to_owned());
    let mut service = file("s.proto", &["google/protobuf/any.proto"], vec![message("Leaf", vec![])]);
    service.service.push(ServiceDescriptorProto {
        name: Some("Box".to_owned()),
        method: vec![MethodDescriptorProto {
            name: Some("Put".to_owned()),
            input_type: Some(".google.protobuf.Any".to_owned()),
            output_type: Some(".google.protobuf.Any".to_owned()),
            ..MethodDescriptorProto::default()
        }],
        options: None,
    });
    load(vec![any, service]).unwrap()
}

/// A call's body of so many messages in each other: a leaf in `Any` after `Any`.
fn nested(levels: usize) -> Vec<u8> {
    let leaf = Any { type_url: "/Leaf".to_owned(), value: vec![] };
    let outer = (2..levels)
        .fold(leaf, |held, _| Any { type_url: "/google.protobuf.Any".to_owned(), value: held.encode_to_vec() });
    let message = outer.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

#[test]
fn an_any_in_an_any_is_bounded_as_any_other_nesting_is() {
    let descriptors = of_any();
    let parse = |levels| descriptors.parse(&["Box".to_owned(), "Put".to_owned()], &nested(levels));
    let wanted = json!({"@type": "/google.protobuf.Any", "value": {"@type": "/Leaf"}});
    assert_eq!(parse(3), Ok(Parsed::Value(wanted)));
    // Read and written as a whole, on the small stack of a test's thread, and then refused as JSON.
    assert_eq!(parse(100), Err("the body nests deeper than 60 levels".to_owned()));
    for levels in [101, 5_000] {
        let why = Err("the body of a gRPC call nests deeper than 100 messages".to_owned());
        assert_eq!(parse(levels), why, "{levels}");
    }
}
