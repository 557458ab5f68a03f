//! One per process: the engine and what all workers share.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

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
use super::exchange::ConnectionFacts;
use super::failure::PolicyError;
use super::meter::Interface;
use super::quota::Quota;
use super::shared::{Namespaces, Shared};
use super::state::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES, State};
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

    pub(super) fn buckets(&self) -> Arc<Buckets> {
        Arc::clone(&self.buckets)
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

    pub(super) fn slot(&self) -> Slot {
        Slot::new(&self.slots)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A position in every worker's list of instances. Given back when dropped, and then given to somebody else: the serial
/// tells the holders apart.
pub(super) struct Slot {
    pub(super) index: usize,
    pub(super) serial: u64,
    slots: Arc<Slots>,
}

/// Which positions are free.
#[derive(Default)]
struct Slots(Mutex<FreeSlots>);

#[derive(Default)]
struct FreeSlots {
    free: Vec<usize>,
    size: usize,
    serial: u64,
}

impl Slot {
    fn new(slots: &Arc<Slots>) -> Self {
        let mut state = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.serial += 1;
        let index = state.free.pop().unwrap_or_else(|| {
            state.size += 1;
            state.size - 1
        });
        Self {
            index,
            serial: state.serial,
            slots: Arc::clone(slots),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .free
            .push(self.index);
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

/// Builds the engine. With 4 GiB of address space for each memory the compiler leaves out every bounds check; where that
/// cannot be had (a great many instances, a limit on address space) a memory gets what it may grow to.
fn engine(settings: HostSettings) -> wasmtime::Result<(Engine, u64)> {
    const ALL_OF_32_BITS: u64 = 1 << 32;
    if u64::from(settings.instances).saturating_mul(ALL_OF_32_BITS) <= MAX_ADDRESS_SPACE
        && let Ok(engine) = engine_with(settings, ALL_OF_32_BITS)
    {
        return Ok((engine, ALL_OF_32_BITS));
    }
    Ok((engine_with(settings, settings.memory)?, settings.memory))
}

/// An engine whose code is the same as that of one with as much address space for each memory, and which nothing runs on.
pub(super) fn compiling_engine(reservation: u64) -> wasmtime::Result<Engine> {
    let settings = HostSettings {
        instances: 1,
        memory: reservation,
        total_memory: reservation,
        host_memory: 0,
        max_buckets: 0,
        answers: 0,
    };
    engine_with(settings, reservation)
}

fn engine_with(settings: HostSettings, memory_reservation: u64) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(settings.instances)
        // Counted and not kept ready: as many as there can be cost nothing.
        .total_core_instances(
            settings
                .instances
                .saturating_mul(u32::try_from(MAX_CORE_INSTANCES).unwrap_or(u32::MAX)),
        )
        .total_memories(settings.instances)
        // As many as there can be, too, or instances with many tables would leave none for others. These are address space: a
        // twenty-thousandth of what a memory has of that.
        .total_tables(
            settings
                .instances
                .saturating_mul(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX)),
        )
        // Guests run on the stacks of those who call them: there is no use for a thousand others, of 2 MiB each.
        .total_stacks(1)
        .max_core_instances_per_component(u32::try_from(MAX_CORE_INSTANCES).unwrap_or(u32::MAX))
        .max_memories_per_component(u32::try_from(MAX_MEMORIES).unwrap_or(u32::MAX))
        .max_tables_per_component(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX))
        .max_tables_per_module(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX))
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(usize::try_from(settings.memory).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT)
        // It misses pages that were swapped out, and so could show one tenant's memory to another; it gains little.
        .pagemap_scan(Enabled::No);

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(memory_reservation)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK)
        // Nobody sees a guest's back trace; without it a trap costs less and compiled code is smaller.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        // Features that no policy needs are not taken: each is one more part of the engine that has to be right.
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_wide_arithmetic(false)
        .concurrency_support(false);
    Engine::new(&config)
}

/// Bytes of a memory or table that stay in place for the next instance, written over instead of given back to the system
/// and faulted in again: what a small Rust guest has, several times over. Measured in
/// docs/decisions/0001-component-abi.md.
const KEEP_RESIDENT: usize = 512 * 1024;

/// A guest's stack. A worker's own has 2 MiB, of which host functions want their share.
const MAX_WASM_STACK: usize = 256 * 1024;

/// Half of what x86-64 gives a process is left to everything else.
const MAX_ADDRESS_SPACE: u64 = 1 << 46;
