//! How an exchange or connection ended, and what became of its cookies: HAProxy's termination state.

use crate::telemetry::metrics::Side;

/// How an exchange or connection ended: HAProxy's first two letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Termination {
    /// Who ended it.
    pub cause: Cause,
    /// What it was at then.
    pub phase: Phase,
}

/// What became of the cookies that keep a client at its server: the third and fourth letter of HAProxy's termination state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieFlags {
    /// What became of the client's: `N` none, `I` invalid, `D` of a server that is down, `V` valid, `E` expired, `O` old.
    pub request: u8,
    /// What the client was told.
    pub response: SetCookie,
}

/// What a client was told about its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// `N`: nothing.
    None,
    /// `P`: what the server said.
    Present,
    /// `D`: nothing; what the server said was taken away.
    Deleted,
    /// `I`: the server's value, for the first time or anew.
    Inserted,
    /// `R`: the server's value, in what the server said.
    Rewritten,
    /// `U`: another date.
    Updated,
}

impl CookieFlags {
    /// As they are written.
    pub(in crate::telemetry) fn letters(self) -> [u8; 2] {
        let response = match self.response {
            SetCookie::None => b'N',
            SetCookie::Present => b'P',
            SetCookie::Deleted => b'D',
            SetCookie::Inserted => b'I',
            SetCookie::Rewritten => b'R',
            SetCookie::Updated => b'U',
        };
        [self.request, response]
    }
}

/// Who ended an exchange or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    /// `-`: it ended as it should.
    #[default]
    Normal,
    /// `C`: the client broke it off.
    ClientAborted,
    /// `c`: the client was silent for too long.
    ClientTimeout,
    /// `S`: the server broke it off or refused it.
    ServerAborted,
    /// `s`: the server was silent for too long.
    ServerTimeout,
    /// `P`: the gateway stopped it: policy, a limit, or a message that is not as it should be.
    Proxy,
    /// `R`: the gateway lacked what it takes to go on.
    Resource,
    /// `I`: the gateway is at fault.
    Internal,
    /// `L`: the gateway answered by itself.
    Local,
    /// `D`: the server went down meanwhile.
    ServerDown,
    /// `U`: its server is a backup, and one that it stood in for came back.
    BackupRelieved,
    /// `K`: an operator ended it.
    Killed,
}

/// What an exchange or connection was at when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// `-`: it was through.
    #[default]
    Done,
    /// `R`: waiting for the whole request.
    Request,
    /// `Q`: waiting for a server to have room.
    Queue,
    /// `C`: connecting to the server.
    Connect,
    /// `H`: waiting for the whole head of the response.
    Headers,
    /// `D`: data were passing.
    Data,
    /// `L`: the client had not yet got the last of them.
    Last,
    /// `T`: the request was held back.
    Tarpit,
}

impl Termination {
    /// Who broke off what was under way, if somebody did: a client at any time, a server while data passed, and a client by its silence
    /// then. One that gave no answer is counted by what it lacked.
    pub fn broken_off_by(self) -> Option<Side> {
        match (self.cause, self.phase) {
            (Cause::ClientAborted, _) | (Cause::ClientTimeout, Phase::Data | Phase::Last) => Some(Side::Client),
            (Cause::ServerAborted, Phase::Data | Phase::Last) => Some(Side::Server),
            _ => None,
        }
    }

    /// Whether the server was silent for too long while data passed.
    pub fn is_servers_silence(self) -> bool {
        matches!(
            (self.cause, self.phase),
            (Cause::ServerTimeout, Phase::Data | Phase::Last)
        )
    }

    /// A way to end.
    pub fn new(cause: Cause, phase: Phase) -> Self {
        Self { cause, phase }
    }

    pub(in crate::telemetry) fn push(self, out: &mut Vec<u8>) {
        let cause = match self.cause {
            Cause::Normal => b'-',
            Cause::ClientAborted => b'C',
            Cause::ClientTimeout => b'c',
            Cause::ServerAborted => b'S',
            Cause::ServerTimeout => b's',
            Cause::Proxy => b'P',
            Cause::Resource => b'R',
            Cause::Internal => b'I',
            Cause::Local => b'L',
            Cause::ServerDown => b'D',
            Cause::BackupRelieved => b'U',
            Cause::Killed => b'K',
        };
        let phase = match self.phase {
            Phase::Done => b'-',
            Phase::Request => b'R',
            Phase::Queue => b'Q',
            Phase::Connect => b'C',
            Phase::Headers => b'H',
            Phase::Data => b'D',
            Phase::Last => b'L',
            Phase::Tarpit => b'T',
        };
        out.extend_from_slice(&[cause, phase]);
    }
}
