//! A plugin's `config { … }` block as JSON, the form in which components get it.
//!
//! The mapping, node by node: the node's name is the key. Without anything, the value is `true`; with one argument, that
//! argument; with several, the array of them; with properties or a block, an object of both. Nodes of one name become an
//! array, in order. A block of nodes all called `-` is an array too: the way to write one of a single element.

use std::collections::HashSet;

use kdl::{KdlDocument, KdlNode, KdlValue};
use serde_json::{Map, Number, Value};

use super::diagnostics::{Code, ConfigError};
use super::reader::{Context, clip, said_twice};

/// The JSON of a block.
pub(super) fn object(ctx: &Context<'_>, document: &KdlDocument) -> Option<Value> {
    let mut map = Map::new();
    members(ctx, document, &mut map).then_some(Value::Object(map))
}

/// Adds the block's nodes to an object. Answers whether that went well.
fn members(ctx: &Context<'_>, document: &KdlDocument, map: &mut Map<String, Value>) -> bool {
    let mut well = true;
    // Which keys are arrays of repeated nodes, as opposed to one node whose value is an array.
    let mut repeated = HashSet::new();
    let properties: HashSet<String> = map.keys().cloned().collect();
    for node in document.nodes() {
        let name = node.name().value();
        let Some(value) = value(ctx, node) else {
            well = false;
            continue;
        };
        if properties.contains(name) {
            let error = ConfigError::new(Code::Duplicate, format!("`{}` is a property and a node", clip(name)));
            let error = error.label(node.name().span(), "the property of the same name is meant too");
            ctx.report(error.help("in JSON both become the same key: one of them has to go"));
            well = false;
            continue;
        }
        match map.get_mut(name) {
            None => {
                map.insert(name.to_owned(), value);
            }
            Some(Value::Array(values)) if repeated.contains(name) => values.push(value),
            Some(first) => {
                let values = vec![first.take(), value];
                *first = Value::Array(values);
                repeated.insert(name);
            }
        }
    }
    well
}

fn value(ctx: &Context<'_>, node: &KdlNode) -> Option<Value> {
    let mut arguments = Vec::new();
    let mut properties = Map::new();
    let mut well = true;
    for (i, entry) in node.entries().iter().enumerate() {
        let scalar = scalar(ctx, entry);
        let Some(scalar) = scalar else {
            well = false;
            continue;
        };
        let Some(key) = entry.name() else {
            arguments.push(scalar);
            continue;
        };
        if properties.insert(key.value().to_owned(), scalar).is_some() {
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
    if !arguments.is_empty() && (block.is_some() || !properties.is_empty()) {
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
        Some(block) if properties.is_empty() && is_list(block) => {
            let values: Option<Vec<Value>> = block.nodes().iter().map(|node| value(ctx, node)).collect();
            values.filter(|_| well).map(Value::Array)
        }
        Some(block) => {
            well &= members(ctx, block, &mut properties);
            well.then_some(Value::Object(properties))
        }
        None if !well => None,
        None if !properties.is_empty() => Some(Value::Object(properties)),
        None => Some(match (arguments.len(), arguments.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                arguments.push(last);
                Value::Array(arguments)
            }
            (_, None) => Value::Bool(true),
        }),
    }
}

fn is_list(block: &KdlDocument) -> bool {
    !block.nodes().is_empty() && block.nodes().iter().all(|node| node.name().value() == "-")
}

fn scalar(ctx: &Context<'_>, entry: &kdl::KdlEntry) -> Option<Value> {
    let number = match entry.value() {
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
        let error = error.label(entry.span(), "not a finite number that fits 64 bits");
        ctx.report(error.help("write it as a text, in quotes"));
    }
    number.map(Value::Number)
}
