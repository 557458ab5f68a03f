//! Lines to a file, a pipe or a terminal: as they are, in as few writes as may be.

use std::fs::File;
use std::io::{self, Write};

use super::{Lines, Lost, Target, wait};

/// Something that bytes are written to.
#[derive(Debug)]
pub(super) struct Stream<W> {
    to: W,
    /// Bytes written in one piece, where the lines allow it.
    most: usize,
    /// The last byte written ended no line: writing failed in the middle of one.
    is_torn: bool,
    /// What it is called, where its failures can be told.
    name: Option<String>,
}

impl Stream<File> {
    /// Lines to this file. Its failures are told on standard error when it has a name.
    pub(super) fn new(file: File, name: Option<String>) -> Self {
        use std::os::unix::fs::FileTypeExt;
        // To a pipe, only so much is written in one piece when another process, or our own stderr, writes to it too.
        let is_pipe = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        let most = if is_pipe { PIPE_PIECE } else { usize::MAX };
        Self {
            name,
            ..Self::of(file, most)
        }
    }
}

impl<W: Write> Stream<W> {
    /// Lines to this, `most` bytes in one piece.
    pub(super) fn of(to: W, most: usize) -> Self {
        Self {
            to,
            most,
            is_torn: false,
            name: None,
        }
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
            match self.to.write(&piece[written..]) {
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

impl<W: Write + Send + 'static> Target for Stream<W> {
    /// What cannot be written is lost, and the next lines are tried afresh: a disk may have room again.
    fn write(&mut self, lines: &Lines) -> Result<(), Lost> {
        self.try_write(&lines.bytes).map(drop).map_err(|(written, error)| {
            let rest = &lines.bytes[written.min(lines.bytes.len())..];
            Lost {
                lines: rest.iter().filter(|&&byte| byte == b'\n').count() as u64,
                error,
            }
        })
    }

    fn name(&self) -> Option<String> {
        self.name.clone()
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

/// `PIPE_BUF`: what Linux writes to a pipe in one piece.
const PIPE_PIECE: usize = 4096;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;

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

    /// Writes lines; how many were lost.
    fn write(stream: &mut Stream<Scripted>, bytes: &[u8]) -> u64 {
        let lines = Lines {
            bytes: bytes.to_vec(),
            ..Lines::default()
        };
        stream.write(&lines).map_or_else(|lost| lost.lines, |()| 0)
    }

    #[test]
    fn a_failure_in_the_middle_of_a_line_glues_no_line_to_it() {
        let target = Scripted::default();
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        target.script.lock().unwrap().extend([Ok(8), full(), full()]);
        let mut stream = Stream::of(target.clone(), usize::MAX);
        assert_eq!(write(&mut stream, b"first\nsecond\nthird\n"), 2);
        assert_eq!(write(&mut stream, b"lost\n"), 1);
        assert_eq!(write(&mut stream, b"fourth\n"), 0);
        assert_eq!(write(&mut stream, b"fifth\n"), 0);
        assert_eq!(&*target.written.lock().unwrap(), b"first\nse\nfourth\nfifth\n");
    }

    #[test]
    fn interruptions_and_short_writes_lose_nothing() {
        let target = Scripted::default();
        let kinds = [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock];
        target.script.lock().unwrap().extend(kinds.map(|kind| Err(kind.into())));
        target.script.lock().unwrap().extend([Ok(1), Ok(3)]);
        let mut stream = Stream::of(target.clone(), usize::MAX);
        assert_eq!(write(&mut stream, b"first\nsecond\n"), 0);
        assert_eq!(&*target.written.lock().unwrap(), b"first\nsecond\n");
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
