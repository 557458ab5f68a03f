//! A plugin's `config { … }` block as JSON, the form in which components get it.
//!
//! The mapping, node by node: the node's name is the key. Without anything, the value is `true`; with one argument, that
//! argument; with several, the array of them; with properties or a block, an object of both. Nodes of one name become an
//! array, in order. A block of nodes all called `-` is an array too: the way to write one of a single element.

use std::collections::{HashMap, HashSet};

use kdl::{KdlDocument, KdlNode, KdlValue};
use miette::SourceSpan;
use serde_json::{Map, Number, Value};

use super::diagnostics::{Code, ConfigError};
use super::places::Places;
use super::reader::{self, Context, clip, said_twice, value_span};

/// The JSON of a block, and where each of its values was written. `span` is where the block's node is named.
pub(super) fn object(ctx: &Context<'_>, document: &KdlDocument, span: SourceSpan) -> Option<(Value, Places)> {
    let mut object = Object::default();
    members(ctx, document, &mut object).then(|| object.finish(span))
}

/// An object in the making, with the same keys twice.
#[derive(Default)]
struct Object {
    values: Map<String, Value>,
    places: HashMap<String, Places>,
}

impl Object {
    /// Adds a member. Answers whether there was none of this name.
    fn insert(&mut self, name: &str, value: Value, places: Places) -> bool {
        self.places.insert(name.to_owned(), places);
        self.values.insert(name.to_owned(), value).is_none()
    }

    fn finish(self, span: SourceSpan) -> (Value, Places) {
        (Value::Object(self.values), Places::of_object(span, self.places))
    }
}

/// Adds the block's nodes to an object. Answers whether that went well.
fn members(ctx: &Context<'_>, document: &KdlDocument, object: &mut Object) -> bool {
    let mut well = true;
    // Which keys are arrays of repeated nodes, as opposed to one node whose value is an array.
    let mut repeated = HashSet::new();
    let properties: HashSet<String> = object.values.keys().cloned().collect();
    for node in document.nodes() {
        let name = node.name().value();
        let Some((value, places)) = value(ctx, node) else {
            well = false;
            continue;
        };
        let places = places.named(node.name().span());
        if properties.contains(name) {
            let error = ConfigError::new(Code::Duplicate, format!("`{}` is a property and a node", clip(name)));
            let error = error.label(node.name().span(), "the property of the same name is meant too");
            ctx.report(error.help("in JSON both become the same key: one of them has to go"));
            well = false;
            continue;
        }
        let (Some(value_of_first), Some(places_of_first)) = (object.values.get_mut(name), object.places.get_mut(name))
        else {
            object.insert(name, value, places);
            continue;
        };
        match value_of_first {
            Value::Array(values) if repeated.contains(name) => {
                values.push(value);
                places_of_first.push(places);
            }
            first => {
                *first = Value::Array(vec![first.take(), value]);
                places_of_first.begin_array();
                places_of_first.push(places);
                repeated.insert(name);
            }
        }
    }
    well
}

fn value(ctx: &Context<'_>, node: &KdlNode) -> Option<(Value, Places)> {
    let span = node.name().span();
    let mut arguments = Vec::new();
    let mut properties = Object::default();
    let mut well = true;
    for (i, entry) in node.entries().iter().enumerate() {
        let scalar = scalar(ctx, entry.value(), entry.span());
        let Some(scalar) = scalar else {
            well = false;
            continue;
        };
        let places = Places::of_scalar(value_span(entry));
        let Some(key) = entry.name() else {
            arguments.push((scalar, places));
            continue;
        };
        if !properties.insert(key.value(), scalar, places.named(key.span())) {
            let mut earlier = node.entries()[..i].iter().filter_map(|entry| entry.name());
            if let Some(first) = earlier.find(|first| first.value() == key.value()) {
                ctx.report(said_twice(
                    &format!("`{}=`", clip(key.value())),
                    first.span(),
                    key.span(),
                ));
            }
            well = false;
        }
    }
    let block = node.children();
    if !arguments.is_empty() && (block.is_some() || !properties.values.is_empty()) {
        let error = ConfigError::new(
            Code::Value,
            format!(
                "`{}` mixes arguments with properties or a block",
                clip(node.name().value())
            ),
        );
        let error = error.label(node.name().span(), "has no one meaning in JSON");
        ctx.report(error.help("give the argument a name: write it as a property"));
        return None;
    }
    match block {
        Some(block) if properties.values.is_empty() && is_list(block) => {
            let elements: Option<Vec<(Value, Places)>> = block.nodes().iter().map(|node| value(ctx, node)).collect();
            elements.filter(|_| well).map(|elements| array(span, elements))
        }
        Some(block) => {
            well &= members(ctx, block, &mut properties);
            well.then(|| properties.finish(span))
        }
        None if !well => None,
        None if !properties.values.is_empty() => Some(properties.finish(span)),
        None => Some(match (arguments.len(), arguments.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                let start = arguments.first().map_or(span, |(_, first)| first.span()).offset();
                let end = last.1.span().offset() + last.1.span().len();
                arguments.push(last);
                array(SourceSpan::new(start.into(), end - start), arguments)
            }
            (_, None) => (Value::Bool(true), Places::of_scalar(span)),
        }),
    }
}

fn array(span: SourceSpan, elements: Vec<(Value, Places)>) -> (Value, Places) {
    let (values, places) = elements.into_iter().unzip();
    (Value::Array(values), Places::of_array(span, places))
}

fn is_list(block: &KdlDocument) -> bool {
    !block.nodes().is_empty() && block.nodes().iter().all(|node| node.name().value() == "-")
}

/// One value, without a name.
pub(super) fn of(ctx: &Context<'_>, value: &reader::Value<'_>) -> Option<Value> {
    scalar(ctx, value.raw(), value.span())
}

fn scalar(ctx: &Context<'_>, value: &KdlValue, span: SourceSpan) -> Option<Value> {
    let number = match value {
        KdlValue::String(text) => return Some(Value::String(text.clone())),
        KdlValue::Bool(value) => return Some(Value::Bool(*value)),
        KdlValue::Null => return Some(Value::Null),
        KdlValue::Integer(number) => {
            let unsigned = u64::try_from(*number).map(Number::from);
            unsigned.or_else(|_| i64::try_from(*number).map(Number::from)).ok()
        }
        KdlValue::Float(number) => Number::from_f64(*number),
    };
    if number.is_none() {
        let error = ConfigError::new(Code::Value, "this number cannot be said in JSON");
        let error = error.label(span, "not a finite number that fits 64 bits");
        ctx.report(error.help("write it as a text, in quotes"));
    }
    number.map(Value::Number)
}
