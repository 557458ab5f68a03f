//! Host-side bindings, made from the contract itself: `wit/policy.wit`.
//!
//! Only this module and the ones that implement an import know them. Host functions may trap: a call in the wrong phase
//! or beyond its bounds ends the guest's call.

#![allow(
    missing_docs,
    elided_lifetimes_in_paths,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
#![allow(
    unsafe_code,
    reason = "generated implementations of wasmtime's unsafe lifting and lowering traits"
)]

wasmtime::component::bindgen!({
    path: "../wit/policy.wit",
    world: "policy",
    ownership: Borrowing { duplicate_if_necessary: true },
    additional_derives: [PartialEq],
    imports: { default: trappable },
});
