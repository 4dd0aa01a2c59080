//! Schemas of fields that can have several types.

use utoipa::openapi::schema::{AnyOfBuilder, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, Object, ObjectBuilder, RefOr, Schema};

fn text() -> Object {
    ObjectBuilder::new().schema_type(Type::String).build()
}

/// A token id.
fn id() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX)).build()
}

fn null() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null)).build()
}

fn list(items: impl Into<RefOr<Schema>>) -> ArrayBuilder {
    let items: RefOr<Schema> = items.into();
    ArrayBuilder::new().items(items)
}

/// The schema of token ids.
pub(super) fn ids() -> Schema {
    list(id()).description(Some("The ids.")).build().into()
}

/// The schema of [`PromptField`](crate::api::request::PromptField).
pub(super) fn prompt() -> Schema {
    let some = |items: RefOr<Schema>| list(items).min_items(Some(1)).max_items(Some(1024));
    AnyOfBuilder::new()
        .description(Some(
            "The texts to continue, or their token ids. The answer has `n` choices for each.",
        ))
        .item(text())
        .item(some(Schema::Object(text()).into()))
        .item(list(id()).min_items(Some(1)))
        .item(some(Schema::Array(list(id()).build()).into()))
        .build()
        .into()
}

/// The schema of [`TextOrIds`](crate::api::request::TextOrIds) or null.
pub(super) fn text_or_ids() -> Schema {
    AnyOfBuilder::new()
        .description(Some(
            "A text, or its token ids, before every prompt. Its caches are kept for later requests. It is padded on \
             its own to whole blocks, so that a block model continues it with the same block limits after any prompt.",
        ))
        .item(null())
        .item(text())
        .item(list(id()))
        .build()
        .into()
}

/// The schema of [`StopField`](crate::api::request::StopField) or null.
pub(super) fn stop() -> Schema {
    let some = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).build();
    AnyOfBuilder::new()
        .description(Some("Texts that end a choice and are not part of it."))
        .item(null())
        .item(some())
        .item(list(some()).max_items(Some(256)))
        .build()
        .into()
}

/// The schema of [`Seed`](crate::api::request::Seed) or null.
pub(super) fn seed() -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
        .description(Some(
            "The same request with the same seed has the same answer, whatever else the server does. By default, the \
             seed is random.",
        ))
        .minimum(Some(i64::MIN))
        .maximum(Some(u64::MAX))
        .build()
        .into()
}

/// The schema of values by token id, or null.
pub(super) fn logit_bias() -> Schema {
    let value =
        ObjectBuilder::new().schema_type(Type::Number).minimum(Some(-100)).maximum(Some(100));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("Values, from -100 to 100, that are added to the logits of token ids."))
        .property_names(Some(ObjectBuilder::new().pattern(Some("^(0|[1-9][0-9]*)$")).build()))
        .additional_properties(Some(value))
        .build()
        .into()
}
