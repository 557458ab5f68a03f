//! The ranges that the reference says: both ends of each are taken, and what is next to them is not.

use super::*;

/// Where a setting stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    Process,
    Resolver,
    Stats,
    Frontend,
    Backend,
    /// Behind `check "tcp"`.
    Check,
    Limit,
}

use Place::{Backend, Check, Frontend, Limit, Process, Resolver, Stats};

/// A configuration in which nothing is idle that is tried here.
fn text(place: Place, said: &str) -> String {
    let at = |here: &str, otherwise: &str| match format!("{place:?}") == here {
        true => said.to_owned(),
        false => otherwise.to_owned(),
    };
    let check = match place {
        Check => format!("check \"tcp\" {said}"),
        _ => "check \"tcp\"".to_owned(),
    };
    let resolver = match place {
        Resolver => format!("resolver {said} {{ nameserver \"10.0.0.2\" }}"),
        _ => String::new(),
    };
    let (process, stats, frontend) = (at("Process", "workers 1"), at("Stats", ""), at("Frontend", ""));
    let (backend, limit) = (at("Backend", ""), at("Limit", "allow \"10/s\""));
    format!(
        r#"
        process {{ {process} }}
        {resolver}
        stats {{ bind "127.0.0.1:8404"; {stats} }}
        rate-limit "r" {{ key "client-ip"; {limit} }}
        frontend "web" {{
            bind "127.0.0.1:8080"
            limit "r"
            acl "a" {{ path "/x" }}
            deny if="a"
            default-backend "app"
            {frontend}
        }}
        backend "app" {{
            {check}
            server "s-1" "app.internal:9000" max-connections=100
            server "s-2" "127.0.0.1:9001"
            {backend}
        }}
        "#
    )
}

#[test]
fn the_ends_of_each_range_are_taken_and_nothing_beyond_them() {
    for (place, said, good, bad) in RANGES {
        for value in *good {
            let said = said.replace('@', value);
            if let Err(errors) = parse("test.kdl", &text(*place, &said), Path::new("/etc/gateway")) {
                panic!("{place:?}: {said} is refused: {errors:?}");
            }
        }
        for value in *bad {
            let said = said.replace('@', value);
            let Err(errors) = parse("test.kdl", &text(*place, &said), Path::new("/etc/gateway")) else {
                panic!("{place:?}: {said} is taken");
            };
            assert_eq!(errors.iter().len(), 1, "{said}: {errors:?}");
        }
    }
}

type Ends = &'static [&'static str];

/// Where, how it is written with `@` for the value, the ends, and what is next to them.
const RANGES: &[(Place, &str, Ends, Ends)] = &[
    (Process, "workers @", &["1", "1024"], &["0", "1025"]),
    (Process, "max-connections @", &["1", "10000000"], &["0", "10000001"]),
    (
        Frontend,
        "max-connection-rate \"@\"",
        &["1/1m", "1000000/ms"],
        &["0/s", "1000001/s", "1/61s", "1/999us"],
    ),
    (Process, "policy instances=@", &["1", "100000"], &["0", "100001"]),
    (
        Process,
        "policy memory=\"@\"",
        &["4MiB", "4GiB"],
        &["4194303B", "4294967297B"],
    ),
    (Process, "policy cpu=\"@\"", &["1ms", "10s"], &["999us", "10001ms"]),
    (Process, "policy answers=@", &["0", "65536"], &["65537"]),
    (Process, "policy compile-cpu=\"@\"", &["1s", "1h"], &["999ms", "3601s"]),
    (
        Process,
        "policy compile-memory=\"@\"",
        &["64MiB", "1024GiB"],
        &["67108863B", "1025GiB"],
    ),
    (
        Process,
        "compile-cache \"/c\" size=\"@\"",
        &["1MiB", "1024GiB"],
        &["1048575B", "1025GiB"],
    ),
    (
        Process,
        "rate-limit-table entries=@",
        &["1000", "100000000"],
        &["999", "100000001"],
    ),
    (Process, "drain-timeout \"@\"", &["1ms", "24d"], &["999us", "25d"]),
    (
        Process,
        "tracing \"http://127.0.0.1:4318\" sample=@",
        &["0.00001", "1", "1.0"],
        &["0", "0.0", "1.1", "-0.1"],
    ),
    (
        Process,
        "tracing \"http://127.0.0.1:4318\" queue=@",
        &["1", "1000000"],
        &["0", "1000001"],
    ),
    (Resolver, "timeout=\"@\"", &["10ms", "60s"], &["9ms", "61s"]),
    (Resolver, "retries=@", &["0", "10"], &["11"]),
    (Resolver, "max-ttl=\"@\"", &["1s", "1d"], &["25h"]),
    (Resolver, "hold=\"@\"", &["10ms", "1d"], &["9ms", "25h"]),
    (Resolver, "hold-nx=\"@\"", &["10ms", "1d"], &["9ms", "25h"]),
    (Stats, "refresh \"@\"", &["1s", "1h"], &["999ms", "3601s"]),
    (Frontend, "max-connections @", &["1", "10000000"], &["0", "10000001"]),
    (
        Frontend,
        "max-connections-per-source @",
        &["1", "10000000"],
        &["0", "10000001"],
    ),
    (Frontend, "timeout client=\"@\"", &["1ms", "24d"], &["999us", "25d"]),
    (
        Frontend,
        "timeout http-request=\"@\"",
        &["1ms", "24d"],
        &["999us", "25d"],
    ),
    (Frontend, "http2 max-streams=@", &["1", "10000"], &["0", "10001"]),
    (
        Frontend,
        "http2 stream-window=\"@\"",
        &["65535B", "2147483647B"],
        &["65534B", "2GiB"],
    ),
    (
        Frontend,
        "http2 connection-window=\"@\"",
        &["65535B", "2147483647B"],
        &["65534B", "2GiB"],
    ),
    (
        Frontend,
        "http2 max-frame-size=\"@\"",
        &["16KiB", "16777215B"],
        &["16383B", "16MiB"],
    ),
    (Frontend, "http2 header-table=\"@\"", &["64KiB"], &["65KiB"]),
    (
        Frontend,
        "request-limits head=\"@\"",
        &["1KiB", "1MiB"],
        &["1023B", "1048577B"],
    ),
    (Frontend, "request-limits headers=@", &["1", "1000"], &["0", "1001"]),
    (
        Frontend,
        "http-keep-alive max-requests=@",
        &["1", "1000000000"],
        &["0", "1000000001"],
    ),
    (
        Frontend,
        "http-keep-alive max-age=\"@\"",
        &["1ms", "24d"],
        &["999us", "25d"],
    ),
    (
        Frontend,
        "bind \"127.0.0.1:1\" backlog=@",
        &["1", "65535"],
        &["0", "65536"],
    ),
    (
        Frontend,
        "bind \"127.0.0.1:1\" mss=@",
        &["88", "32767"],
        &["87", "32768"],
    ),
    (
        Frontend,
        "bind \"127.0.0.1:1\" tcp-user-timeout=\"@\"",
        &["1ms", "24d"],
        &["999us", "25d"],
    ),
    (Frontend, "deny status=@ if=\"a\"", &["400", "599"], &["399", "600"]),
    (Frontend, "return status=@ if=\"a\"", &["200", "599"], &["199", "600"]),
    (
        Frontend,
        "deny { header-count \"x\" max=@; }",
        &["0", "1000"],
        &["1001"],
    ),
    (
        Frontend,
        "deny { header-length \"x\" max=@; }",
        &["0", "1048576"],
        &["1048577"],
    ),
    (Frontend, "deny { uri-length max=@; }", &["0", "1048576"], &["1048577"]),
    (Frontend, "deny { source-port @; }", &["1", "65535"], &["0", "65536"]),
    (Backend, "retries @", &["0", "10"], &["11"]),
    (Backend, "max-queue @", &["0", "10000000"], &["10000001"]),
    (Backend, "max-requests @", &["1", "10000000"], &["0", "10000001"]),
    (Backend, "retry-buffer \"@\"", &["1B", "16MiB"], &["0B", "16777217B"]),
    (Backend, "retry-on 503; retry-budget percent=@", &["0", "100"], &["101"]),
    (Backend, "retry-on @", &["400", "599"], &["399", "600"]),
    (
        Backend,
        "response-limits head=\"@\"",
        &["1KiB", "1MiB"],
        &["1023B", "1048577B"],
    ),
    (Backend, "response-limits headers=@", &["1", "1000"], &["0", "1001"]),
    (
        Backend,
        "response-limits informational=@",
        &["1", "10000"],
        &["0", "10001"],
    ),
    (Backend, "pool max-idle=@", &["1", "100000"], &["0", "100001"]),
    (Backend, "pool idle-timeout=\"@\"", &["1ms", "24d"], &["999us", "25d"]),
    (
        Backend,
        "stick \"client-ip\" expire=\"@\"",
        &["1ms", "24d"],
        &["999us", "25d"],
    ),
    (
        Backend,
        "stick \"client-ip\" expire=\"1m\" size=@",
        &["32", "10000000"],
        &["31", "10000001"],
    ),
    (Backend, "slow-start \"@\"", &["1ms", "24d"], &["999us", "25d"]),
    (Backend, "timeout connect=\"@\"", &["1ms", "24d"], &["999us", "25d"]),
    (
        Backend,
        "server \"x\" \"127.0.0.1:1\" weight=@",
        &["0", "256"],
        &["257"],
    ),
    (
        Backend,
        "server \"x\" \"127.0.0.1:1\" max-connections=@",
        &["1", "10000000"],
        &["0", "10000001"],
    ),
    (
        Backend,
        "server \"x\" \"127.0.0.1:1\" tcp-user-timeout=\"@\"",
        &["1ms", "24d"],
        &["999us", "25d"],
    ),
    (
        Backend,
        "server-template \"t\" \"app.internal:80\" count=@",
        &["1", "256"],
        &["0", "257"],
    ),
    (Backend, "balance \"uri\" depth=@", &["1", "128"], &["0", "129"]),
    (
        Backend,
        "balance \"uri\" length=@",
        &["1", "1048576"],
        &["0", "1048577"],
    ),
    (
        Backend,
        "cookie \"S\" insert max-idle=\"@\"; server \"z\" \"127.0.0.1:7\" cookie=\"z\"",
        &["4s", "400d"],
        &["3s", "401d"],
    ),
    (Check, "interval=\"@\"", &["10ms", "1d"], &["9ms", "25h"]),
    (Check, "fast-interval=\"@\"", &["10ms", "2s"], &["9ms", "3s"]),
    (Check, "down-interval=\"@\"", &["10ms", "1d"], &["9ms", "25h"]),
    (Check, "timeout=\"@\"", &["10ms", "2s"], &["9ms", "3s"]),
    (Check, "rise=@", &["1", "1000"], &["0", "1001"]),
    (Check, "fall=@", &["1", "1000"], &["0", "1001"]),
    (
        Limit,
        "allow \"@\"",
        &["1/1ms", "1000000000/s", "1/d"],
        &["0/s", "1000000001/s", "1/25h", "1/999us"],
    ),
];
