//! A compiled component: its imports checked against the grants, its hooks found, linked ahead of any instance.

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{InstancePre, Linker};

use super::bindings::exports::gateway::policy::{
    access_log, call_answered, connection_filter, lifecycle, limiter, predicates, request_body_filter, request_filter,
    response_body_filter, response_filter,
};
use super::cache::Cache;
use super::compiler::CompileError;
use super::failure::{PolicyError, one_line};
use super::hooks::Hooks;
use super::state::State;
use crate::config::Grant;

/// Machine code of a component. Nobody has looked yet whether it is one of policy, and what it imports.
#[derive(Clone)]
pub struct Code {
    machine: wasmtime::component::Component,
    /// Of the component that it was made of.
    sha256: [u8; 32],
}

/// A compiled component, ready to be attached any number of times.
pub struct Component {
    pub(super) label: String,
    /// The digest of what it was made of.
    pub(super) sha256: [u8; 32],
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
    /// Whether it may ask for what it did not declare a need of.
    pub(super) imports_request: bool,
    /// Whether it may tag exchanges.
    pub(super) imports_tags: bool,
    /// Whether it was granted to know the time.
    pub(super) may_tell_time: bool,
    /// Whether it learns something from the host beside the facts that it is called with.
    pub(super) asks_the_host: bool,
    /// The same of what it learns beside what comes of taking tokens.
    pub(super) asks_beside_buckets: bool,
}

/// Where a component's exports are, by the position that spares a look-up by name.
pub(super) struct Exports {
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) predicates: Option<predicates::GuestIndices>,
    pub(super) limiter: Option<limiter::GuestIndices>,
    pub(super) request_filter: Option<request_filter::GuestIndices>,
    pub(super) call_answered: Option<call_answered::GuestIndices>,
    pub(super) request_body_filter: Option<request_body_filter::GuestIndices>,
    pub(super) response_filter: Option<response_filter::GuestIndices>,
    pub(super) response_body_filter: Option<response_body_filter::GuestIndices>,
    pub(super) access_log: Option<access_log::GuestIndices>,
    pub(super) connection_filter: Option<connection_filter::GuestIndices>,
}

impl Code {
    /// Makes machine code of a component with this digest, unless it lies in the cache.
    ///
    /// The cache gets it before anybody has looked at its imports. It is kept by its digest and is not run by lying there: whatever
    /// loads it looks at what it imports, by the grants of that moment, as at new code. A component that wants a grant is not compiled
    /// again when it has got it. One that is none of policy takes room for nothing, which a component with a byte changed would do as well:
    /// what bounds that is the cache's size, and the time that a tenant's files may take to compile.
    pub(super) fn of(
        engine: &Engine,
        wasm: &[u8],
        sha256: &[u8; 32],
        cache: Option<&Cache>,
        compile: impl FnOnce() -> Result<wasmtime::component::Component, CompileError>,
    ) -> Result<Self, CompileError> {
        if wasm.len() > MAX_COMPONENT_BYTES {
            return Err(CompileError::TooLarge(wasm.len()));
        }
        if let Some(component) = cache.and_then(|cache| cache.load(engine, sha256)) {
            return Ok(Self {
                machine: component,
                sha256: *sha256,
            });
        }
        let component = compile()?;
        if let Some(cache) = cache {
            cache.store(engine, sha256, &component);
        }
        Ok(Self {
            machine: component,
            sha256: *sha256,
        })
    }
}

impl CompileError {
    /// The same of the plugin of this name.
    #[must_use]
    pub fn of(self, label: &str) -> PolicyError {
        let label = label.to_owned();
        match self {
            Self::Engine(message) => PolicyError::Engine(message),
            Self::TooLarge(size) => PolicyError::TooLarge {
                label,
                size,
                limit: MAX_COMPONENT_BYTES,
            },
            Self::Refused(message) => PolicyError::Invalid {
                label,
                message: one_line(&message),
            },
            Self::NotExecutable(message) => PolicyError::NotExecutable(message),
            Self::TooMuch(message) => PolicyError::CompileLimit { label, message },
            Self::TooMuchCode(limit) => PolicyError::CodeLimit { label, limit },
            Self::Broken(message) => PolicyError::Compiler { label, message },
        }
    }
}

impl Component {
    pub(super) fn new(
        engine: &Engine,
        linker: &Linker<State>,
        label: &str,
        code: &Code,
        grants: &[Grant],
    ) -> Result<Self, PolicyError> {
        let Code {
            machine: component,
            sha256,
        } = code;
        check_imports(engine, component, label, grants)?;
        let imports = |interface: &str| {
            let prefix = format!("{PACKAGE}{interface}@");
            let ty = component.component_type();
            ty.imports(engine).any(|(name, _)| name.starts_with(&prefix))
        };
        let (imports_request, imports_tags) = (imports("request"), imports("tags"));
        let asks = |of: fn(&str) -> bool| {
            let ty = component.component_type();
            ty.imports(engine).any(|(name, _)| {
                let interface = name.strip_prefix(PACKAGE).and_then(|rest| rest.split('@').next());
                interface.is_none_or(of)
            })
        };
        let asks_the_host = asks(|interface| !TELL_NOTHING.contains(&interface));
        let asks_beside_buckets = asks(|interface| interface != "buckets" && !TELL_NOTHING.contains(&interface));
        let mistyped = |message: String| PolicyError::Mistyped {
            label: label.to_owned(),
            message: one_line(&message),
        };
        let pre = linker
            .instantiate_pre(component)
            .map_err(|e| mistyped(format!("{e:#}")))?;
        let exports = Exports::find(component, &pre, label)?;
        // Done here, so that no request pays for building the memory image.
        component
            .initialize_copy_on_write_image()
            .map_err(|e| mistyped(format!("{e:#}")))?;
        Ok(Self {
            label: label.to_owned(),
            sha256: *sha256,
            pre,
            exports,
            imports_request,
            imports_tags,
            may_tell_time: grants.contains(&Grant::Clock),
            asks_the_host,
            asks_beside_buckets,
        })
    }

    /// Bytes of memory that its machine code takes, with the data that it comes with.
    #[must_use]
    pub fn code_bytes(&self) -> u64 {
        let image = self.pre.component().image_range();
        (image.end.addr() - image.start.addr()) as u64
    }

    /// The hooks it exports.
    #[must_use]
    pub const fn hooks(&self) -> Hooks {
        Hooks {
            predicates: self.exports.predicates.is_some(),
            limiter: self.exports.limiter.is_some(),
            request_filter: self.exports.request_filter.is_some(),
            call_answered: self.exports.call_answered.is_some(),
            request_body_filter: self.exports.request_body_filter.is_some(),
            response_filter: self.exports.response_filter.is_some(),
            response_body_filter: self.exports.response_body_filter.is_some(),
            access_log: self.exports.access_log.is_some(),
            connection_filter: self.exports.connection_filter.is_some(),
        }
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code")
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component")
            .field("label", &self.label)
            .field("hooks", &self.hooks())
            .finish_non_exhaustive()
    }
}

impl Exports {
    fn find(
        component: &wasmtime::component::Component,
        pre: &InstancePre<State>,
        label: &str,
    ) -> Result<Self, PolicyError> {
        let has = |interface: &str| component.get_export_index(None, export_name(interface)).is_some();
        let missing = |missing| PolicyError::MissingExport {
            label: label.to_owned(),
            missing,
        };
        if !has("lifecycle") {
            return Err(missing("lifecycle"));
        }
        let mistyped = |e: wasmtime::Error| PolicyError::Mistyped {
            label: label.to_owned(),
            message: one_line(&format!("{e:#}")),
        };
        macro_rules! hook {
            ($interface:literal, $module:ident) => {
                has($interface)
                    .then(|| $module::GuestIndices::new(pre))
                    .transpose()
                    .map_err(mistyped)?
            };
        }
        let exports = Self {
            lifecycle: lifecycle::GuestIndices::new(pre).map_err(mistyped)?,
            predicates: hook!("predicates", predicates),
            limiter: hook!("limiter", limiter),
            request_filter: hook!("request-filter", request_filter),
            call_answered: hook!("call-answered", call_answered),
            request_body_filter: hook!("request-body-filter", request_body_filter),
            response_filter: hook!("response-filter", response_filter),
            response_body_filter: hook!("response-body-filter", response_body_filter),
            access_log: hook!("access-log", access_log),
            connection_filter: hook!("connection-filter", connection_filter),
        };
        let any = exports.predicates.is_some()
            || exports.limiter.is_some()
            || exports.request_filter.is_some()
            || exports.request_body_filter.is_some()
            || exports.response_filter.is_some()
            || exports.response_body_filter.is_some()
            || exports.access_log.is_some()
            || exports.connection_filter.is_some();
        any.then_some(exports).ok_or_else(|| missing("hook"))
    }
}

/// Every import has to be an interface of the contract, and granted where it needs a grant. Whether its functions have
/// the contract's types is the linker's to say.
fn check_imports(
    engine: &Engine,
    component: &wasmtime::component::Component,
    label: &str,
    grants: &[Grant],
) -> Result<(), PolicyError> {
    for (name, import) in component.component_type().imports(engine) {
        let unknown = || PolicyError::UnknownImport {
            label: label.to_owned(),
            import: one_line(name),
        };
        let interface = name.strip_prefix(PACKAGE).ok_or_else(unknown)?;
        let (interface, version) = interface.split_once('@').ok_or_else(unknown)?;
        if !version.starts_with(VERSION) {
            return Err(unknown());
        }
        let ComponentItem::ComponentInstance(_) = import.ty else {
            return Err(unknown());
        };
        let (grant, line) = match interface {
            "buckets" => (Grant::Buckets, r#"grant "buckets""#),
            "counters" => (Grant::Counters, r#"grant "counters""#),
            "kv" => (Grant::Kv, r#"grant "kv""#),
            "metrics" => (Grant::Metrics, r#"grant "metrics""#),
            "log" => (Grant::Log, r#"grant "log""#),
            "clock" => (Grant::Clock, r#"grant "clock""#),
            "random" => (Grant::Random, r#"grant "random""#),
            interface if FREE_INTERFACES.contains(&interface) => continue,
            _ => return Err(unknown()),
        };
        if !grants.contains(&grant) {
            return Err(PolicyError::NotGranted {
                label: label.to_owned(),
                import: one_line(name),
                line,
            });
        }
    }
    Ok(())
}

fn export_name(interface: &str) -> String {
    format!("{PACKAGE}{interface}@{VERSION}0")
}

const PACKAGE: &str = "gateway:policy/";

/// Interfaces that a component learns nothing from: types, and what takes edits.
const TELL_NOTHING: [&str; 3] = ["types", "request-edits", "response-edits"];

/// Every `0.1.x` is one contract; see docs/reference/contract-versions.md.
const VERSION: &str = "0.1.";

/// Interfaces that need no grant: what they tell is about the exchange that the plugin was asked about anyway.
const FREE_INTERFACES: [&str; 7] = [
    "types",
    "tags",
    "request",
    "request-edits",
    "response",
    "response-edits",
    "connection-info",
];

/// Bytes of a component. JavaScript and Python ones have 10 MB and more.
pub const MAX_COMPONENT_BYTES: usize = 64 * 1024 * 1024;
