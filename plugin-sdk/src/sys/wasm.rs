//! The contract's bindings, as the guest sees them. Generated from `wit/policy.wit`; nothing outside this crate names them.
//!
//! There is one generated world for the imports, and one for each interface that a plugin may export. A world puts a
//! description of its exports into the module only where its `export!` macro is used, and `wit-component` drops imports
//! that the module does not use: so a component has the hooks that were named and the imports that were called, no others.

pub(crate) use host::gateway::policy::types::{
    Answer, BodyMode, Call, CallError, Facts, Field, Needs, Outcome, Piece, PieceOutcome, PieceVerdict, Reply,
};
pub(crate) use host::gateway::policy::{
    buckets, clock, connection_info, counters, kv, log, metrics, random, request, request_edits, response,
    response_edits, tags,
};

/// What the host offers.
#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub mod host {
    wit_bindgen::generate!({
        inline: "
            package gateway:plugin-sdk;
            world host {
                import gateway:policy/types@0.1.0;
                import gateway:policy/request@0.1.0;
                import gateway:policy/request-edits@0.1.0;
                import gateway:policy/response@0.1.0;
                import gateway:policy/response-edits@0.1.0;
                import gateway:policy/connection-info@0.1.0;
                import gateway:policy/tags@0.1.0;
                import gateway:policy/buckets@0.1.0;
                import gateway:policy/counters@0.1.0;
                import gateway:policy/kv@0.1.0;
                import gateway:policy/metrics@0.1.0;
                import gateway:policy/log@0.1.0;
                import gateway:policy/clock@0.1.0;
                import gateway:policy/random@0.1.0;
            }
        ",
        world: "gateway:plugin-sdk/host",
        path: "../wit",
        generate_all,
        generate_unused_types: true,
    });
}

/// A module for one interface that a plugin may export.
macro_rules! export_world {
    ($(#[$doc:meta])* $module:ident, $interface:literal) => {
        $(#[$doc])*
        #[allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, reason = "generated code")]
        pub mod $module {
            wit_bindgen::generate!({
                inline: $interface,
                path: "../wit",
                with: { "gateway:policy/types@0.1.0": crate::sys::host::gateway::policy::types },
                pub_export_macro: true,
            });
        }
    };
}

export_world!(
    /// Every plugin's `lifecycle`.
    lifecycle,
    "package gateway:plugin-sdk; world lifecycle { export gateway:policy/lifecycle@0.1.0; }"
);
export_world!(
    /// The hook `predicates`.
    predicates,
    "package gateway:plugin-sdk; world predicates { export gateway:policy/predicates@0.1.0; }"
);
export_world!(
    /// The hook `limiter`.
    limiter,
    "package gateway:plugin-sdk; world limiter { export gateway:policy/limiter@0.1.0; }"
);
export_world!(
    /// The hook `request-filter`.
    request_filter,
    "package gateway:plugin-sdk; world request-filter { export gateway:policy/request-filter@0.1.0; }"
);
export_world!(
    /// The hook `response-filter`.
    response_filter,
    "package gateway:plugin-sdk; world response-filter { export gateway:policy/response-filter@0.1.0; }"
);
export_world!(
    /// The hook `connection-filter`.
    connection_filter,
    "package gateway:plugin-sdk; world connection-filter { export gateway:policy/connection-filter@0.1.0; }"
);
export_world!(
    /// The hook `call-answered`.
    call_answered,
    "package gateway:plugin-sdk; world call-answered { export gateway:policy/call-answered@0.1.0; }"
);
export_world!(
    /// The hook `request-body-filter`.
    request_body_filter,
    "package gateway:plugin-sdk; world request-body-filter { export gateway:policy/request-body-filter@0.1.0; }"
);
export_world!(
    /// The hook `response-body-filter`.
    response_body_filter,
    "package gateway:plugin-sdk; world response-body-filter { export gateway:policy/response-body-filter@0.1.0; }"
);
export_world!(
    /// The hook `access-log`.
    access_log,
    "package gateway:plugin-sdk; world access-log { export gateway:policy/access-log@0.1.0; }"
);
