//! One per process: the engine and what all workers share.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use super::attachment::{Attachment, AttachmentSpec};
use super::bindings::gateway::policy::{
    buckets, clock, connection_info, counters, kv, log, metrics, random, request, request_edits, response,
    response_edits, tags, types,
};
use super::buckets::{Buckets, Namespace};
use super::budget::Budget;
use super::cache::Cache;
use super::clock::Clock;
use super::compiler::{self, CompileError};
use super::component::{Code, Component};
use super::ends::Ends;
use super::engine::engine;
use super::exchange::ConnectionFacts;
use super::failure::PolicyError;
use super::meter::Interface;
use super::quota::Quota;
use super::shared::{Namespaces, Shared};
use super::slot_number::{SlotNumber, Slots};
use super::state::State;
use super::ticker::{Activity, Ticker};
use crate::config::{BudgetLimits, CompileCache, CompileLimits, Grant, KeptQuota, PolicyPool, StateLimits};

/// The engine, its pool of instances, the epoch ticker and the token buckets.
pub struct Host {
    /// Made for the first component: a gateway without policy has neither its memory nor its thread.
    machine: OnceLock<Arc<Machine>>,
    buckets: Arc<Buckets>,
    /// What all plugins have together, over reloads.
    budget: Arc<Budget>,
    slots: Arc<Slots>,
    namespaces: Namespaces,
    no_connection: Arc<ConnectionFacts>,
    settings: HostSettings,
    cache: Option<Cache>,
    compile: CompileLimits,
}

/// What components run on.
struct Machine {
    engine: Engine,
    /// Address space of each memory, in bytes.
    reservation: u64,
    linker: Linker<State>,
    ticker: Ticker,
}

/// Bounds of a [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSettings {
    /// Component instances alive at once, over all workers.
    pub instances: u32,
    /// Linear memory an instance may have at most, in bytes.
    pub memory: u64,
    /// Linear memory that all instances of plugins may have together, in bytes.
    pub total_memory: u64,
    /// Bytes of the gateway's own memory that are held for plugins.
    pub host_memory: u64,
    /// Token buckets remembered at most.
    pub max_buckets: usize,
    /// Answers remembered at most, of a worker and an attachment.
    pub answers: usize,
}

impl HostSettings {
    /// The settings that a configuration's `process` block says.
    #[must_use]
    pub const fn new(pool: PolicyPool, max_buckets: usize) -> Self {
        Self {
            instances: pool.instances,
            memory: pool.memory,
            total_memory: pool.total_memory,
            host_memory: pool.host_memory,
            max_buckets,
            answers: pool.answers,
        }
    }
}

impl Host {
    /// A host without components. The engine, its address space and its ticker come with the first one.
    #[must_use]
    pub fn new(settings: HostSettings) -> Arc<Self> {
        Self::with(settings, None, CompileLimits::DEFAULT, Clock::machine())
    }

    /// As [`new`](Self::new), with compiled components kept in a folder, where that is wanted, and with bounds on what it may take
    /// to compile one.
    ///
    /// # Errors
    /// When others could have written there, or the folder cannot be used.
    pub fn with_cache(
        settings: HostSettings,
        cache: Option<&CompileCache>,
        compile: CompileLimits,
    ) -> Result<Arc<Self>, PolicyError> {
        let cache = cache.map(Cache::open).transpose()?;
        Ok(Self::with(settings, cache, compile, Clock::machine()))
    }

    /// A host on the same engine, for what this one has compiled, with nothing kept of this one: no buckets, pairs or counters. It
    /// tells components the time by this clock.
    ///
    /// # Errors
    /// When the engine cannot be built.
    pub fn beside(&self, clock: Clock) -> Result<Arc<Self>, PolicyError> {
        let machine = Arc::clone(self.machine()?);
        let host = Self::with(self.settings, None, self.compile, clock);
        // Nobody else has set it: the host is new.
        let _ = host.machine.set(machine);
        Ok(host)
    }

    fn with(settings: HostSettings, cache: Option<Cache>, compile: CompileLimits, clock: Clock) -> Arc<Self> {
        let limits = BudgetLimits {
            memory_in_all: Some(settings.total_memory),
            host_memory: Some(settings.host_memory),
            ..BudgetLimits::default()
        };
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Arc::new(Self {
            machine: OnceLock::new(),
            buckets: Arc::new(Buckets::new(settings.max_buckets, clock.clone())),
            budget: Budget::of_process(limits),
            slots: Arc::default(),
            namespaces: Namespaces::new(clock),
            no_connection: Arc::new(ConnectionFacts {
                accepted: tokio::time::Instant::now(),
                ends: Ends::new(nowhere, nowhere),
                tls: None,
                preamble: None,
            }),
            settings,
            cache,
            compile,
        })
    }

    /// Compiles a component, checks its imports against the contract and the grants, finds its hooks and links it ahead.
    /// Takes tens of milliseconds and more: not for a worker thread.
    ///
    /// # Errors
    /// When it is no policy component, or imports what it may not: the error names what. When the settings cannot be met on
    /// this machine: [`PolicyError::Engine`].
    pub fn compile(
        self: &Arc<Self>,
        label: &str,
        wasm: &[u8],
        grants: &[Grant],
    ) -> Result<Arc<Component>, PolicyError> {
        let code = self.code(wasm, &Sha256::digest(wasm).into());
        self.component(label, &code.map_err(|error| error.of(label))?, grants)
    }

    /// As [`compile`](Self::compile), of what a stranger has written: within limits of time and memory, by a process of its own.
    ///
    /// # Errors
    /// Likewise, and [`PolicyError::CompileLimit`] when it takes more.
    pub fn compile_strangers(
        self: &Arc<Self>,
        label: &str,
        wasm: &[u8],
        grants: &[Grant],
    ) -> Result<Arc<Component>, PolicyError> {
        let (code, _) = self.code_of_strangers(wasm, &Sha256::digest(wasm).into(), self.compile.cpu);
        self.component(label, &code.map_err(|error| error.of(label))?, grants)
    }

    /// Machine code of a component with this digest, made in this process.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn code(&self, wasm: &[u8], sha256: &[u8; 32]) -> Result<Code, CompileError> {
        let Machine { engine, .. } = &**self.machine_to_compile()?;
        Code::of(engine, wasm, sha256, self.cache.as_ref(), || {
            compiler::here(engine, wasm)
        })
    }

    /// As [`code`](Self::code), of what a stranger has written: within limits of time and memory, by a process of its own. It takes no more CPU
    /// time than `most`, either; with it comes how much it took.
    ///
    /// # Errors
    /// Likewise, and when it takes more.
    pub fn code_of_strangers(
        &self,
        wasm: &[u8],
        sha256: &[u8; 32],
        most: Duration,
    ) -> (Result<Code, CompileError>, Duration) {
        let machine = match self.machine_to_compile() {
            Ok(machine) => machine,
            Err(error) => return (Err(error), Duration::ZERO),
        };
        let limits = CompileLimits {
            cpu: self.compile.cpu.min(most),
            ..self.compile
        };
        let mut all = Duration::ZERO;
        let compile = || {
            let (made, took) = compiler::compile(&machine.engine, machine.reservation, limits, wasm);
            all = took;
            made
        };
        let code = Code::of(&machine.engine, wasm, sha256, self.cache.as_ref(), compile);
        (code, all)
    }

    /// Checks a component's imports against the contract and the grants, finds its hooks and links it ahead.
    ///
    /// # Errors
    /// When it is no policy component, or imports what it may not: the error names what.
    pub fn component(&self, label: &str, code: &Code, grants: &[Grant]) -> Result<Arc<Component>, PolicyError> {
        let Machine { engine, linker, .. } = &**self.machine()?;
        Component::new(engine, linker, label, code, grants).map(Arc::new)
    }

    fn machine_to_compile(&self) -> Result<&Arc<Machine>, CompileError> {
        self.machine().map_err(|error| match error {
            PolicyError::Engine(message) => CompileError::Engine(message),
            other => CompileError::Engine(other.to_string()),
        })
    }

    /// What compiling one component of a stranger's may take.
    #[must_use]
    pub const fn compile_limits(&self) -> CompileLimits {
        self.compile
    }

    /// Makes a component ready to serve under a configuration: instantiates it once, configures it, learns its predicates
    /// and needs. Runs guest code: not for a worker thread.
    ///
    /// # Errors
    /// When it refuses the configuration, fails, or asks for what the host does not have.
    pub fn attach(
        self: &Arc<Self>,
        component: &Arc<Component>,
        spec: AttachmentSpec,
    ) -> Result<Arc<Attachment>, PolicyError> {
        Attachment::new(self, component, spec).map(Arc::new)
    }

    /// What the host was built with.
    #[must_use]
    pub const fn settings(&self) -> HostSettings {
        self.settings
    }

    /// What all plugins of all configurations may use together.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(super) const fn buckets(&self) -> &Arc<Buckets> {
        &self.buckets
    }

    pub(super) fn namespace(&self, name: &str, tenant: Option<&str>) -> Namespace {
        self.buckets.namespace(name, tenant)
    }

    /// What all uses of a plugin keep together.
    pub(super) fn shared(&self, namespace: &str, limits: StateLimits, quota: Option<&Arc<Quota>>) -> Arc<Shared> {
        self.namespaces.shared(namespace, limits, quota)
    }

    /// What the plugins of a tenant may keep together, for as long as somebody holds it.
    #[must_use]
    pub fn quota(&self, tenant: &Arc<str>, limits: KeptQuota) -> Arc<Quota> {
        self.namespaces.quota(tenant, limits)
    }

    /// What a store has for a connection between calls.
    pub(super) fn no_connection(&self) -> Arc<ConnectionFacts> {
        Arc::clone(&self.no_connection)
    }

    pub(super) fn activity(&self) -> Result<Activity, PolicyError> {
        Ok(self.machine()?.ticker.activity())
    }

    /// Builds the engine, reserves the pool's address space and starts the epoch ticker, if that has not been done.
    fn machine(&self) -> Result<&Arc<Machine>, PolicyError> {
        if let Some(machine) = self.machine.get() {
            return Ok(machine);
        }
        let failed = |e: wasmtime::Error| PolicyError::Engine(format!("{e:#}"));
        let (engine, reservation) = engine(self.settings).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        link(&mut linker).map_err(failed)?;
        let ticker = Ticker::start(&engine).map_err(|e| PolicyError::Engine(e.to_string()))?;
        // Only one thread compiles; if two did, one machine would be thrown away.
        let machine = || {
            Arc::new(Machine {
                engine,
                reservation,
                linker,
                ticker,
            })
        };
        Ok(self.machine.get_or_init(machine))
    }

    pub(super) fn slot(&self) -> SlotNumber {
        SlotNumber::new(&self.slots)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Links everything that the contract has to import. Who asks for the state is known by what for: each call is counted.
fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    macro_rules! interfaces {
        ($($module:ident: $interface:ident,)*) => {$(
            $module::add_to_linker::<_, HasSelf<State>>(linker, |state| state.called(Interface::$interface))?;
        )*};
    }
    types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    interfaces! {
        request: Request,
        request_edits: RequestEdits,
        response: Response,
        response_edits: ResponseEdits,
        connection_info: ConnectionInfo,
        tags: Tags,
        buckets: Buckets,
        counters: Counters,
        kv: Kv,
        metrics: Metrics,
        random: Random,
        log: Log,
        clock: Clock,
    }
    Ok(())
}
