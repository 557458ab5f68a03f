//! From the nodes of a schema to what it means. Everything that is wrong is said at once, as with a configuration: the author
//! reads it from `gateway plugin build`.

use std::cell::Cell;
use std::path::Path;

use kdl::KdlValue;
use miette::SourceSpan;
use serde_json::Value as Json;

use super::check;
use super::{Form, List, MAX_BYTES, Range, Rule, Schema, Setting, Span, Text, Type};
use crate::config::diagnostics::{Code, ConfigError, Source};
use crate::config::json;
use crate::config::places::Places;
use crate::config::reader::{At, Block, Context, Node, Value, clip, said_twice};
use crate::config::suggest;
use crate::config::syntax;
use crate::hidden::is_hidden;

/// Reads a schema's text.
pub(super) fn schema(text: &str) -> Result<Schema, Vec<ConfigError>> {
    if text.len() > MAX_BYTES {
        let error = ConfigError::new(Code::Io, format!("a schema has at most {} KiB", MAX_BYTES >> 10));
        return Err(vec![error.help("say less in `about`")]);
    }
    let document = syntax::document(text)?;
    let source = Source::new("", text);
    let ctx = Context::new(&source, Path::new(""), &[]);
    let reader = Reader {
        ctx: &ctx,
        settings: Cell::new(0),
    };
    let block = Block::new(&ctx, "a schema".to_owned(), &document);
    let schema = reader.block(block, 0, false, |_| None);
    match ctx.into_errors() {
        errors if errors.is_empty() => Ok(schema),
        errors => Err(errors),
    }
}

struct Reader<'a> {
    ctx: &'a Context<'a>,
    /// How many there have been, at all depths.
    settings: Cell<usize>,
}

impl<'a> Reader<'a> {
    /// What stands in a block: settings, and what holds for several of them. What stands in a secret is secret.
    fn block(
        &self,
        mut block: Block<'a>,
        depth: usize,
        is_secret: bool,
        elsewhere: impl Fn(&str) -> Option<&'static str>,
    ) -> Schema {
        let mut settings: Vec<At<Setting>> = Vec::new();
        for node in block.many("setting") {
            self.settings.set(self.settings.get() + 1);
            if self.settings.get() > MAX_SETTINGS {
                let error = ConfigError::new(Code::Value, format!("there are more than {MAX_SETTINGS} settings"));
                self.ctx.report(error.label(node.span(), "one too many"));
                break;
            }
            let Some(setting) = self.setting(node, depth, is_secret) else {
                continue;
            };
            let mut before = settings.iter();
            if let Some(first) = before.find(|before| before.value.name == setting.value.name) {
                let what = format!("the setting `{}`", clip(&setting.value.name));
                self.ctx.report(said_twice(&what, first.span, setting.span));
            }
            settings.push(setting);
        }
        let settings: Vec<Setting> = settings.into_iter().map(|setting| setting.value).collect();
        let mut rules = Vec::new();
        for node in block.many("exactly-one") {
            rules.extend(self.names(node, &settings).map(Rule::ExactlyOne));
        }
        for node in block.many("at-least-one") {
            rules.extend(self.names(node, &settings).map(Rule::AtLeastOne));
        }
        block.finish(elsewhere);
        Schema {
            settings,
            rules,
            is_secret,
        }
    }

    fn setting(&self, mut node: Node<'a>, depth: usize, is_within_secret: bool) -> Option<At<Setting>> {
        let span = node.span();
        let name = node.argument("the setting's name").and_then(|value| name(&value));
        let list = node.flag("list");
        let required = node.flag("required").is_some();
        let secret = node.flag("secret").is_some() || is_within_secret;
        let any_case = node.flag("any-case");
        let types: Vec<(SourceSpan, &str)> = node
            .some_arguments("a type")
            .iter()
            .filter_map(|value| Some((value.span(), value.choice(TYPES)?)))
            .collect();
        let at_most = node.property("at-most").and_then(|value| count(&value, 1));
        let limits = Limits {
            form: node
                .property("form")
                .and_then(|value| Some(value.at(value.choice(Form::ALL)?))),
            min_bytes: node.property("min-bytes").and_then(|value| count(&value, 0)),
            max_bytes: node.property("max-bytes").and_then(|value| count(&value, 0)),
            from: node.property("from"),
            to: node.property("to"),
            any_case,
        };
        let default = node.property("default");
        let mut said = Said::default();
        if let Some(mut block) = node.block() {
            said.about = block.one("about").and_then(|node| sentence(node, "a sentence"));
            said.example = block.one("example").and_then(|node| sentence(node, "an example"));
            said.values = block.one("values").map(|node| self.values(node));
            let has_settings = block_has_settings(&types);
            let inside = match depth < MAX_DEPTH {
                true => self.block(block, depth + 1, secret, |name| elsewhere(name, has_settings)),
                false => {
                    let error =
                        ConfigError::new(Code::Value, format!("settings are nested more than {MAX_DEPTH} deep"));
                    self.ctx
                        .report(error.label(span, "too deep").help("let the type be \"any\" here"));
                    Schema::default()
                }
            };
            said.inside = inside;
        }
        node.finish();
        if let (None, Some(at_most)) = (list, &at_most) {
            self.useless(at_most.span, "`at-most=` is for lists", "write the flag `list`, too");
        }
        let types = self.types(
            &types,
            span,
            limits,
            said.values.take(),
            std::mem::take(&mut said.inside),
        );
        let setting = Setting {
            name: name?,
            about: said.about,
            example: said.example,
            types: types?,
            list: list.map(|_| List {
                at_most: at_most.map(|at_most| at_most.value),
            }),
            required,
            secret,
            default: None,
        };
        let default = default.and_then(|value| self.default(&value, &setting));
        Some(At {
            value: Setting { default, ..setting },
            span,
        })
    }

    /// The types of a setting. What narrows none of them is reported.
    fn types(
        &self,
        named: &[(SourceSpan, &str)],
        node: SourceSpan,
        limits: Limits<'_>,
        values: Option<At<Vec<String>>>,
        inside: Schema,
    ) -> Option<Vec<Type>> {
        let (mut texts, mut inside) = (Some((&limits, values)), Some(inside));
        let mut ranged = false;
        let mut types: Vec<Type> = Vec::new();
        for (span, name) in named {
            let new = match *name {
                "any" => Type::Any,
                "text" => Type::Text(self.text(texts.take())),
                "integer" => Type::Integer(self.range(&limits, &mut ranged, "a whole number", integer)),
                "number" => Type::Number(self.range(&limits, &mut ranged, "a number", number)),
                "boolean" => Type::Boolean,
                "duration" => Type::Duration(self.range(&limits, &mut ranged, "a duration as \"30s\"", duration)),
                _ => Type::Block(inside.take().unwrap_or_default()),
            };
            if let Some(other) = types.iter().find(|other| other.overlaps(&new)) {
                let message = format!("a value cannot be told to be {} or {}", other.phrase(), new.phrase());
                let error = ConfigError::new(Code::Conflict, message).label(*span, "both take the same");
                self.ctx.report(error.help("name one of them"));
                return None;
            }
            types.push(new);
        }
        if let Some((limits, values)) = texts {
            let form = limits.form.as_ref().map(|form| form.span);
            let bytes = limits.min_bytes.iter().chain(&limits.max_bytes).map(|bytes| bytes.span);
            let values = values.map(|values| values.span);
            for span in form.into_iter().chain(bytes).chain(values).chain(limits.any_case) {
                self.useless(
                    span,
                    "this is for texts",
                    "name the type \"text\", too, or leave it out",
                );
            }
        }
        if !ranged {
            for value in limits.from.iter().chain(&limits.to) {
                let help = "name the type \"integer\", \"number\" or \"duration\", or leave it out";
                self.useless(value.span(), "this is for numbers and durations", help);
            }
        }
        match (inside, types.iter().find_map(Type::block)) {
            (Some(unused), _) if !unused.settings.is_empty() => {
                self.useless(node, "its settings are for blocks", "name the type \"block\", too");
            }
            (_, Some(block)) if block.settings.is_empty() => {
                self.useless(
                    node,
                    "nothing could be said in this block",
                    "say its settings, or let its type be \"any\"",
                );
            }
            _ => {}
        }
        (!types.is_empty()).then_some(types)
    }

    fn text(&self, said: Option<(&Limits<'_>, Option<At<Vec<String>>>)>) -> Text {
        let Some((limits, values)) = said else {
            return Text::default();
        };
        if let (Some(least), Some(most)) = (&limits.min_bytes, &limits.max_bytes)
            && least.value > most.value
        {
            self.reversed(least.span, most.span);
        }
        let value = |bytes: &Option<At<usize>>| bytes.as_ref().map(|bytes| bytes.value);
        let lengths = limits.min_bytes.iter().chain(&limits.max_bytes).map(|bytes| bytes.span);
        match &values {
            Some(_) => {
                for span in limits.form.iter().map(|form| form.span).chain(lengths) {
                    self.useless(span, "the values are listed", "leave this out");
                }
            }
            None => {
                if let Some(span) = limits.any_case {
                    self.useless(
                        span,
                        "`any-case` is for listed values",
                        "list them in its block: values \"a\" \"b\"",
                    );
                }
            }
        }
        Text {
            any_case: limits.any_case.is_some(),
            values: values.map(|values| values.value).unwrap_or_default(),
            form: limits.form.as_ref().map(|form| form.value),
            min_bytes: value(&limits.min_bytes),
            max_bytes: value(&limits.max_bytes),
        }
    }

    fn range<T: PartialOrd>(
        &self,
        limits: &Limits<'_>,
        ranged: &mut bool,
        what: &str,
        read: impl Fn(&KdlValue) -> Option<T>,
    ) -> Range<T> {
        *ranged = true;
        let read = |value: &Option<Value<'_>>| {
            let value = value.as_ref()?;
            read(value.raw()).or_else(|| {
                let message = format!("`{}` has to be {what}", value.title().trim_matches('`'));
                value.fail(message, "not one", "let it be what the setting is")
            })
        };
        let (from, to) = (read(&limits.from), read(&limits.to));
        if let (Some(low), Some(high)) = (&from, &to)
            && low > high
            && let (Some(low), Some(high)) = (&limits.from, &limits.to)
        {
            self.reversed(low.span(), high.span());
        }
        Range { from, to }
    }

    /// What holds unless it is said. It has to be something that may be said.
    fn default(&self, value: &Value<'_>, setting: &Setting) -> Option<Json> {
        let default = json::of(self.ctx, value)?;
        let places = Places::of_scalar(value.span());
        if let Some(fault) = check::value(setting, &default, &places).into_iter().next() {
            return value.fail(
                format!("`default` is none that may be said: {}", fault.message()),
                "not this one",
                "let it be what holds when nothing is said",
            );
        }
        Some(default)
    }

    fn values(&self, mut node: Node<'a>) -> At<Vec<String>> {
        let span = node.span();
        let mut values: Vec<String> = Vec::new();
        for value in node.some_arguments("a text") {
            let Some(text) = short(&value) else { continue };
            if values.len() > MAX_VALUES {
                // Told of below.
                continue;
            }
            if values.iter().any(|before| before == text) {
                let _ = value.fail::<()>("this text is said twice", "again", "leave one out");
            } else {
                values.push(text.to_owned());
            }
        }
        if values.len() > MAX_VALUES {
            let error = ConfigError::new(Code::Value, format!("there are more than {MAX_VALUES} values"));
            self.ctx.report(
                error
                    .label(span, "too many to be listed")
                    .help("let the component check it"),
            );
        }
        node.finish();
        At { value: values, span }
    }

    /// Names of settings beside it.
    fn names(&self, mut node: Node<'a>, settings: &[Setting]) -> Option<Vec<String>> {
        let span = node.span();
        let mut names: Vec<String> = Vec::new();
        let known: Vec<&str> = settings.iter().map(|setting| setting.name.as_str()).collect();
        let values = node.some_arguments("a setting's name");
        for value in &values {
            let Some(name) = value.text() else { continue };
            if self.ctx.is_crowded() {
                // Looking for what was meant takes time, and nobody reads on.
                continue;
            }
            match settings.iter().find(|setting| setting.name == name) {
                Some(setting) if setting.required => {
                    let help = "leave it out here, or let it not be `required`";
                    let _ = value.fail::<()>("this setting has to be said anyway", "required", help);
                }
                Some(_) if names.iter().any(|before| before == name) => {
                    let _ = value.fail::<()>("this name is said twice", "again", "leave one out");
                }
                Some(_) => names.push(name.to_owned()),
                None => {
                    let help =
                        suggest::did_you_mean(name, &known, || Some("name settings that stand beside it".to_owned()));
                    let help = help.unwrap_or_default();
                    let _ = value.fail::<()>(format!("there is no setting `{}`", clip(name)), "unknown", help);
                }
            }
        }
        node.finish();
        if values.len() < 2 {
            let error = ConfigError::new(Code::Value, "this chooses among two settings or more");
            self.ctx
                .report(error.label(span, "nothing to choose from").help("name them"));
            return None;
        }
        Some(names)
    }

    fn useless(&self, span: SourceSpan, message: &str, help: &str) {
        let error = ConfigError::new(Code::Inert, message);
        self.ctx.report(error.label(span, "does nothing here").help(help));
    }

    fn reversed(&self, low: SourceSpan, high: SourceSpan) {
        let error = ConfigError::new(Code::Conflict, "the range ends before it begins");
        self.ctx.report(
            error
                .label(low, "from here")
                .label(high, "to here")
                .help("exchange them"),
        );
    }
}

/// What narrows a type down.
struct Limits<'a> {
    form: Option<At<Form>>,
    min_bytes: Option<At<usize>>,
    max_bytes: Option<At<usize>>,
    from: Option<Value<'a>>,
    to: Option<Value<'a>>,
    any_case: Option<SourceSpan>,
}

/// What a setting's block says.
#[derive(Default)]
struct Said {
    about: Option<String>,
    example: Option<String>,
    values: Option<At<Vec<String>>>,
    inside: Schema,
}

fn block_has_settings(types: &[(SourceSpan, &str)]) -> bool {
    types.iter().any(|(_, name)| *name == "block")
}

/// A name of a setting: something that can be shown, and that a configuration can have as a name.
fn name(value: &Value<'_>) -> Option<String> {
    let text = short(value)?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let help = "names have letters, digits and signs that ASCII has, without spaces";
        return value.fail("this is no name", "has something else in it", help);
    }
    Some(text.to_owned())
}

/// A text that can stand in a message.
fn short<'a>(value: &Value<'a>) -> Option<&'a str> {
    let text = value.text()?;
    if text.len() > MAX_NAME || text.chars().any(is_hidden) {
        let help = "it is shown in messages: let it be short, and without control characters";
        return value.fail(
            format!("{} cannot be shown", value.title()),
            "too long, or not to be printed",
            help,
        );
    }
    Some(text)
}

/// A line of documentation.
fn sentence(mut node: Node<'_>, what: &'static str) -> Option<String> {
    let value = node.argument(what);
    node.finish();
    let value = value?;
    let text = value.text()?;
    if text.len() > MAX_ABOUT || text.chars().any(is_hidden) {
        let message = format!("{what} is one line of at most {MAX_ABOUT} bytes");
        return value.fail(
            message,
            "too long, or with line ends in it",
            "say less; a `\\` at a line's end joins the next one",
        );
    }
    Some(text.to_owned())
}

fn count(value: &Value<'_>, least: u64) -> Option<At<usize>> {
    // Bytes of a file that a configuration may take in, at most.
    let number = value.integer(least..=1 << 30)?;
    Some(value.at(usize::try_from(number).ok()?))
}

fn integer(value: &KdlValue) -> Option<i64> {
    i64::try_from(value.as_integer()?).ok()
}

#[allow(clippy::cast_precision_loss, reason = "a bound of numbers with fractions")]
fn number(value: &KdlValue) -> Option<f64> {
    let number = value
        .as_float()
        .or_else(|| value.as_integer().map(|integer| integer as f64))?;
    number.is_finite().then_some(number)
}

fn duration(value: &KdlValue) -> Option<Span> {
    Span::parse(value.as_string()?)
}

fn elsewhere(name: &str, has_settings: bool) -> Option<&'static str> {
    match name {
        "setting" | "exactly-one" | "at-least-one" if !has_settings => Some("settings stand in one of type \"block\""),
        "list" | "required" | "secret" | "any-case" => Some("this is a word behind the setting's type"),
        "default" | "form" | "from" | "to" | "at-most" | "min-bytes" | "max-bytes" => {
            Some("this is a property of the setting: write it with `=` behind its type")
        }
        _ => None,
    }
}

/// Types by name.
pub(super) const TYPES: &[(&str, &str)] = &[
    ("text", "text"),
    ("integer", "integer"),
    ("number", "number"),
    ("boolean", "boolean"),
    ("duration", "duration"),
    ("block", "block"),
    ("any", "any"),
];

/// Settings of a schema in all: ten times the most that one of the gateway's own has.
const MAX_SETTINGS: usize = 256;
/// Blocks in blocks. What is deeper has its own rules, and is "any" here.
const MAX_DEPTH: usize = 8;
/// Values that a message can list.
const MAX_VALUES: usize = 64;
/// Bytes of a name or a value. Longer ones are not compared for suggestions.
const MAX_NAME: usize = 64;
/// Bytes of a line of documentation.
const MAX_ABOUT: usize = 500;
