//! Where log lines go: each worker formats into a buffer of its own and hands it over when it is full or old; one
//! thread writes. A worker never waits for a disk or a pipe: when the thread cannot keep up, lines are dropped and
//! counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::access::{HttpRecord, TcpRecord};
use super::clock::Dates;
use super::metrics::ProcessMetrics;
use crate::config::{Log, LogFormat, LogTarget};

/// A log target with the thread that writes to it. Dropping it writes what was handed over before, within
/// `CLOSE_TIMEOUT`, and ends the thread.
#[derive(Debug)]
pub struct LogSink {
    queue: Queue,
    format: LogFormat,
    ended: Receiver<()>,
}

/// One worker's way to the log. Lines wait in it until there are enough of them or [`LineWriter::flush`] is called,
/// which a worker does every 100 ms; dropping it flushes too.
#[derive(Debug)]
pub struct LineWriter {
    queue: Queue,
    format: LogFormat,
    dates: Dates,
    lines: Lines,
}

/// The way to the writing thread.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    metrics: Arc<ProcessMetrics>,
}

/// Whole lines, each with its end.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

#[derive(Debug)]
enum Message {
    Lines(Lines),
    Close,
}

impl LogSink {
    /// Opens the target and starts the thread. Files are appended to, and made when they are not there.
    pub fn start(log: &Log, metrics: &Arc<ProcessMetrics>) -> io::Result<Self> {
        let target = match &log.target {
            LogTarget::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            LogTarget::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
            LogTarget::File(path) => OpenOptions::new().append(true).create(true).open(path)?,
        };
        // To a pipe, only so much is written in one piece when another process, or our own stderr, writes to it too.
        let is_pipe = target.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        let most = if is_pipe { PIPE_PIECE } else { usize::MAX };
        Self::start_on(target, most, log.format, metrics)
    }

    fn start_on(
        target: impl Write + Send + 'static,
        most: usize,
        format: LogFormat,
        metrics: &Arc<ProcessMetrics>,
    ) -> io::Result<Self> {
        let (sender, messages) = sync_channel(QUEUE_LENGTH);
        let (ending, ended) = sync_channel(1);
        let writer = Writer {
            target,
            most,
            is_torn: false,
            is_failing: false,
            metrics: Arc::clone(metrics),
        };
        thread::Builder::new().name("log".into()).spawn(move || {
            writer.run(&messages);
            // Nobody may be waiting any more.
            let _ = ending.try_send(());
        })?;
        let queue = Queue {
            sender,
            metrics: Arc::clone(metrics),
        };
        Ok(Self { queue, format, ended })
    }

    /// A worker's way to this log.
    pub fn writer(&self) -> LineWriter {
        LineWriter {
            queue: self.queue.clone(),
            format: self.format,
            dates: Dates::default(),
            lines: Lines::default(),
        }
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        // The queue may be full, and the thread may be stuck in a pipe that nobody reads.
        let mut message = Message::Close;
        while let Err(TrySendError::Full(back)) = self.queue.sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            wait();
        }
        match self
            .ended
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

impl LineWriter {
    /// Writes the line of an HTTP exchange.
    pub fn http(&mut self, record: &HttpRecord<'_>) {
        self.make_room();
        match self.format {
            LogFormat::Text => record.write_text(&mut self.lines.bytes, &mut self.dates),
            LogFormat::Json => record.write_json(&mut self.lines.bytes, &mut self.dates),
        }
        self.end_line();
    }

    /// Writes the line of a TCP connection.
    pub fn tcp(&mut self, record: &TcpRecord<'_>) {
        self.make_room();
        match self.format {
            LogFormat::Text => record.write_text(&mut self.lines.bytes, &mut self.dates),
            LogFormat::Json => record.write_json(&mut self.lines.bytes, &mut self.dates),
        }
        self.end_line();
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        if !self.lines.bytes.is_empty() {
            self.queue.send(std::mem::take(&mut self.lines));
        }
    }

    fn make_room(&mut self) {
        if self.lines.bytes.capacity() == 0 {
            self.lines.bytes.reserve(HAND_OVER + ROOM_FOR_LAST);
        }
    }

    fn end_line(&mut self) {
        self.lines.bytes.push(b'\n');
        self.lines.count += 1;
        if self.lines.bytes.len() >= HAND_OVER {
            self.flush();
        }
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Queue {
    /// Never waits.
    pub(super) fn send(&self, lines: Lines) {
        let count = lines.count;
        if self.sender.try_send(Message::Lines(lines)).is_err() {
            self.metrics.lines_dropped(count);
        }
    }
}

/// The thread's side.
struct Writer<W> {
    target: W,
    /// Bytes written in one piece, where the lines allow it.
    most: usize,
    /// The last byte written ended no line: writing failed in the middle of one.
    is_torn: bool,
    is_failing: bool,
    metrics: Arc<ProcessMetrics>,
}

impl<W: Write> Writer<W> {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(Message::Lines(lines)) = messages.recv() {
            self.write(&lines.bytes);
        }
    }

    /// Writes lines; what cannot be written is lost and counted, and the next lines are tried afresh: a disk may have
    /// room again.
    fn write(&mut self, lines: &[u8]) {
        let result = self.try_write(lines);
        let (Ok(written) | Err((written, _))) = result;
        if let Err((_, error)) = &result {
            let lost = lines[written..].iter().filter(|&&byte| byte == b'\n').count();
            self.metrics.lines_lost(lost as u64);
            if !self.is_failing {
                tracing::warn!(%error, "log lines cannot be written");
            }
        }
        self.is_failing = result.is_err();
    }

    fn try_write(&mut self, lines: &[u8]) -> Result<usize, (usize, io::Error)> {
        if self.is_torn {
            // Ends what an earlier failure left, so that no line is glued to it.
            self.write_piece(b"\n").map_err(|(_, error)| (0, error))?;
        }
        let mut written = 0;
        while written < lines.len() {
            let piece = piece(&lines[written..], self.most);
            match self.write_piece(piece) {
                Ok(()) => written += piece.len(),
                Err((part, error)) => return Err((written + part, error)),
            }
        }
        Ok(written)
    }

    fn write_piece(&mut self, piece: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < piece.len() {
            match self.target.write(&piece[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(more) => {
                    written += more;
                    self.is_torn = piece[written - 1] != b'\n';
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // A pipe that somebody else made non-blocking. This thread has the time to wait.
                    io::ErrorKind::WouldBlock => wait(),
                    _ => return Err((written, error)),
                },
            }
        }
        Ok(())
    }
}

/// As many whole lines as fit in `most` bytes; at least one.
fn piece(lines: &[u8], most: usize) -> &[u8] {
    if lines.len() <= most {
        return lines;
    }
    let is_end = |byte: &u8| *byte == b'\n';
    let end = lines[..most]
        .iter()
        .rposition(is_end)
        .or_else(|| lines.iter().position(is_end));
    &lines[..end.map_or(lines.len(), |end| end + 1)]
}

/// Waits a moment; in the log's own thread, or at the end.
#[allow(clippy::disallowed_methods, reason = "no worker waits here")]
fn wait() {
    thread::sleep(RETRY);
}

/// Bytes at which a worker hands its lines over: about a hundred lines a system call.
const HAND_OVER: usize = 16 * 1024;

/// Room for the line that crosses [`HAND_OVER`]; a longer one makes the buffer grow.
const ROOM_FOR_LAST: usize = 2 * 1024;

/// Buffers that wait for the thread at most: some 4 MiB of lines, a good second at full load.
const QUEUE_LENGTH: usize = 256;

/// `PIPE_BUF`: what Linux writes to a pipe in one piece.
const PIPE_PIECE: usize = 4096;

/// How long closing waits for the thread to write what it has.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two attempts of something that is not possible right now.
const RETRY: Duration = Duration::from_millis(1);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::time::SystemTime;

    use super::super::access::{Counts, TcpTimers, Termination};
    use super::*;

    fn record(frontend: &str) -> TcpRecord<'_> {
        TcpRecord {
            client: ([127, 0, 0, 1], 5).into(),
            destination: ([127, 0, 0, 1], 6).into(),
            started: SystemTime::UNIX_EPOCH,
            frontend,
            tls: false,
            backend: None,
            server: None,
            timers: TcpTimers::default(),
            bytes_sent: 0,
            bytes_received: 0,
            termination: Termination::default(),
            counts: Counts::default(),
            reason: None,
            rule: None,
        }
    }

    /// A target that does with each write what it was told, and then takes everything.
    #[derive(Clone, Default)]
    struct Scripted {
        written: Arc<Mutex<Vec<u8>>>,
        script: Arc<Mutex<VecDeque<io::Result<usize>>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let next = self.script.lock().unwrap().pop_front().unwrap_or(Ok(usize::MAX))?;
            let taken = next.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(target: Scripted) -> Writer<Scripted> {
        Writer {
            target,
            most: usize::MAX,
            is_torn: false,
            is_failing: false,
            metrics: Arc::default(),
        }
    }

    #[test]
    fn lines_of_several_workers_reach_the_file_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let metrics = Arc::default();
        let log = Log {
            target: LogTarget::File(path.clone()),
            format: LogFormat::Json,
        };
        let sink = LogSink::start(&log, &metrics).unwrap();
        thread::scope(|scope| {
            for name in ["one", "two", "three"] {
                let mut writer = sink.writer();
                scope.spawn(move || {
                    for _ in 0..1000 {
                        writer.tcp(&record(name));
                    }
                });
            }
        });
        drop(sink);
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("before"));
        assert!(
            lines
                .clone()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
        assert_eq!(lines.count(), 3000);
        assert_eq!(metrics.lines_missing(), 0);
    }

    #[test]
    fn a_line_waits_until_it_is_flushed() {
        let target = Scripted::default();
        let sink = LogSink::start_on(target.clone(), usize::MAX, LogFormat::Text, &Arc::default()).unwrap();
        let mut writer = sink.writer();
        writer.tcp(&record("web"));
        assert!(target.written.lock().unwrap().is_empty());
        writer.flush();
        drop(sink);
        let written = target.written.lock().unwrap();
        assert_eq!(written.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert!(String::from_utf8_lossy(&written).contains(" web web/<NOSRV> "));
    }

    #[test]
    fn a_target_that_is_stuck_costs_lines_and_stops_nobody() {
        let (reader, stuck) = io::pipe().unwrap();
        let metrics: Arc<ProcessMetrics> = Arc::default();
        let sink = LogSink::start_on(stuck, usize::MAX, LogFormat::Text, &metrics).unwrap();
        let mut writer = sink.writer();
        let mut lines = 0;
        while metrics.lines_missing() == 0 {
            writer.tcp(&record("web"));
            lines += 1;
            assert!(lines < 1_000_000, "nothing was dropped");
        }
        let kept = lines - metrics.lines_missing();
        // As soon as somebody reads, what was kept arrives.
        let reading = thread::spawn(move || io::read_to_string(reader).unwrap().lines().count() as u64);
        drop(writer);
        drop(sink);
        assert_eq!(reading.join().unwrap(), kept);
    }

    #[test]
    fn closing_a_stuck_log_does_not_take_for_ever() {
        let (_reader, stuck) = io::pipe().unwrap();
        let sink = LogSink::start_on(stuck, usize::MAX, LogFormat::Text, &Arc::default()).unwrap();
        let mut writer = sink.writer();
        for _ in 0..2000 {
            writer.tcp(&record("web"));
        }
        let before = Instant::now();
        drop(sink);
        assert!(before.elapsed() < CLOSE_TIMEOUT * 2);
    }

    #[test]
    fn a_reader_that_went_away_costs_lines_only() {
        let (reader, broken) = io::pipe().unwrap();
        drop(reader);
        let metrics: Arc<ProcessMetrics> = Arc::default();
        let sink = LogSink::start_on(broken, usize::MAX, LogFormat::Text, &metrics).unwrap();
        let mut writer = sink.writer();
        for _ in 0..10 {
            writer.tcp(&record("web"));
            writer.flush();
        }
        drop(sink);
        assert_eq!(metrics.lines_missing(), 10);
    }

    #[test]
    fn a_failure_in_the_middle_of_a_line_glues_no_line_to_it() {
        let target = Scripted::default();
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        target.script.lock().unwrap().extend([Ok(8), full(), full()]);
        let mut writer = writer(target.clone());
        writer.write(b"first\nsecond\nthird\n");
        writer.write(b"lost\n");
        writer.write(b"fourth\n");
        writer.write(b"fifth\n");
        assert_eq!(&*target.written.lock().unwrap(), b"first\nse\nfourth\nfifth\n");
        assert_eq!(writer.metrics.lines_missing(), 3);
    }

    #[test]
    fn interruptions_and_short_writes_lose_nothing() {
        let target = Scripted::default();
        let kinds = [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock];
        target.script.lock().unwrap().extend(kinds.map(|kind| Err(kind.into())));
        target.script.lock().unwrap().extend([Ok(1), Ok(3)]);
        let mut writer = writer(target.clone());
        writer.write(b"first\nsecond\n");
        assert_eq!(&*target.written.lock().unwrap(), b"first\nsecond\n");
        assert_eq!(writer.metrics.lines_missing(), 0);
    }

    #[test]
    fn pieces_end_with_lines_and_are_as_long_as_allowed() {
        let lines = b"aaaa\nbb\ncccccccccc\nd\n";
        let mut rest: &[u8] = lines;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let next = piece(rest, 8);
            pieces.push(std::str::from_utf8(next).unwrap());
            rest = &rest[next.len()..];
        }
        assert_eq!(pieces, ["aaaa\nbb\n", "cccccccccc\n", "d\n"]);
        assert_eq!(piece(lines, usize::MAX), lines);
    }
}
