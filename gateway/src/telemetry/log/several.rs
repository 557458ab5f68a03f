//! All logs of the process: its own, and those that frontends name.

use std::io;

use super::super::access::{HttpRecord, TcpRecord};
use super::super::metrics::Registry;
use super::{LineWriter, LogSink};
use crate::config::{Log, LogTo, Process};

/// The logs of a process, with a thread each.
#[derive(Debug)]
pub struct LogSinks {
    /// The process's own, which events go to as well.
    own: LogSink,
    /// By position in [`Process::named_logs`].
    named: Vec<LogSink>,
}

/// One worker's ways to them.
#[derive(Debug)]
pub struct LineWriters {
    own: LineWriter,
    named: Vec<LineWriter>,
}

impl LogSinks {
    /// Opens all targets. The error comes with the log that it is about.
    pub fn start(process: &Process, registry: &Registry) -> Result<Self, (Log, io::Error)> {
        let start = |log: &Log, counts| LogSink::start(log, &counts).map_err(|error| (log.clone(), error));
        let own = start(&process.log, registry.process().log().clone())?;
        let named = process
            .named_logs
            .iter()
            .map(|named| start(&named.log, registry.log(&named.name)));
        Ok(Self {
            own,
            named: named.collect::<Result<_, _>>()?,
        })
    }

    /// The process's own.
    pub fn own(&self) -> &LogSink {
        &self.own
    }

    /// A worker's ways to all of them.
    pub fn writers(&self) -> LineWriters {
        LineWriters {
            own: self.own.writer(),
            named: self.named.iter().map(LogSink::writer).collect(),
        }
    }
}

impl LineWriters {
    /// Writes the line of an HTTP exchange to the process's own log, or where its frontend says.
    pub fn http(&mut self, record: &HttpRecord<'_>) {
        match record.to {
            None => self.own.http(record),
            Some(logs) => self.each(logs, |writer| writer.http(record)),
        }
    }

    /// The same of a TCP connection.
    pub fn tcp(&mut self, record: &TcpRecord<'_>) {
        match record.to {
            None => self.own.tcp(record),
            Some(logs) => self.each(logs, |writer| writer.tcp(record)),
        }
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        self.own.flush();
        self.named.iter_mut().for_each(LineWriter::flush);
    }

    fn each(&mut self, logs: &[LogTo], mut write: impl FnMut(&mut LineWriter)) {
        for log in logs {
            match log {
                LogTo::Process => write(&mut self.own),
                // A reload never changes which logs there are.
                LogTo::Named(position) => self.named.get_mut(*position).into_iter().for_each(&mut write),
            }
        }
    }
}
