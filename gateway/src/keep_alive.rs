//! TCP keep-alive on sockets, listening ones and others.

use socket2::{SockRef, TcpKeepalive};

use crate::config::KeepAlive;

/// Sets it, or turns it off. On a listening socket it holds for the connections that are accepted from then on (Linux hands
/// the options down), at no cost for each. A socket that does not take it goes without.
pub fn set(socket: SockRef<'_>, keep_alive: Option<KeepAlive>) {
    let _ = match keep_alive {
        Some(keep_alive) => socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(keep_alive.idle)
                .with_interval(keep_alive.interval)
                .with_retries(keep_alive.count),
        ),
        None => socket.set_keepalive(false),
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_accepted_connection_has_the_options_of_its_listener() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let keep_alive = KeepAlive {
            idle: Duration::from_secs(33),
            interval: Duration::from_secs(7),
            count: 4,
        };
        SockRef::from(&listener).set_tcp_nodelay(true).unwrap();
        set(SockRef::from(&listener), Some(keep_alive));
        #[allow(clippy::disallowed_methods, reason = "no worker here to block")]
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), keep_alive.idle);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), keep_alive.interval);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), keep_alive.count);
        set(SockRef::from(&listener), None);
        assert!(!SockRef::from(&listener).keepalive().unwrap());
    }
}
