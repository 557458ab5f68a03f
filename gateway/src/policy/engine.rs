//! The engine that components run on: its pool of memory, and what of WebAssembly it takes.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::bounds::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES};
use super::host::HostSettings;

/// Builds the engine; beside it, the bytes of address space that each memory has. With 4 GiB of address space for each memory the compiler leaves out every bounds check; where that
/// cannot be had (a great many instances, a limit on address space) a memory gets what it may grow to.
pub(super) fn engine(settings: HostSettings) -> wasmtime::Result<(Engine, u64)> {
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
