//! What a client says before its server is reached. What has come by the time that a connection is opened is read first: it leaves
//! with the packet that ends the handshake, and is there when the server looks for the first time.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::Interest;

use crate::stream::Stream;

/// Whether something has been read of a client whose server is not reached yet.
///
/// Dropped before that [is passed on](Self::pass_on), it has the client's connection end with a reset: so the system ends one of
/// which something was left unread.
pub(super) struct Heard<'a> {
    client: &'a Stream,
    is_anything: Cell<bool>,
    is_passed_on: Cell<bool>,
}

impl<'a> Heard<'a> {
    /// Nothing yet, of this client.
    pub(super) fn of(client: &'a Stream) -> Self {
        Self {
            client,
            is_anything: Cell::new(false),
            is_passed_on: Cell::new(false),
        }
    }

    /// What the client has said by now, or a first part of it; of one in TLS nothing.
    ///
    /// # Errors
    /// When the client has reset the connection.
    pub(super) fn take(&self) -> io::Result<Bytes> {
        let Stream::Plain(tcp) = self.client else {
            return Ok(Bytes::new());
        };
        let mut room = [MaybeUninit::uninit(); MOST];
        let read = || -> io::Result<Bytes> {
            let ((came, _), _) = recv(tcp, &mut room[..], RecvFlags::empty())?;
            Ok(Bytes::copy_from_slice(came))
        };
        match tcp.try_io(Interest::READABLE, read) {
            // An end is read again by whoever relays.
            Ok(came) if came.is_empty() => Ok(came),
            Ok(came) => {
                self.is_anything.set(true);
                if came.len() < MOST {
                    // That was all. The system is not asked for more before it says that there is.
                    let _ = tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                }
                Ok(came)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Bytes::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether anything has been read.
    pub(super) fn is_anything(&self) -> bool {
        self.is_anything.get()
    }

    /// A server is reached that hears it.
    pub(super) fn pass_on(&self) {
        self.is_passed_on.set(true);
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        if self.is_anything() && !self.is_passed_on.get() {
            let _ = SockRef::from(self.client.tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Bytes that are read of a client before its server is reached: the first message of most protocols. They are held for as long as
/// that takes.
const MOST: usize = 4 * 1024;
