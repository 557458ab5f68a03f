//! HTTP/1.1 as it is spoken to servers: a connection that carries one exchange at a time, moved by whoever has it.
//!
//! hyper's client is not used here. It passes each request through a channel to a dispatcher, and an idle connection keeps its
//! buffers; docs/decisions/0007-http1-to-servers.md has what that costs. Here the request stays with its exchange until the
//! response has begun, so that it can be sent again without having been copied, and a connection that waits holds next to
//! nothing. hyper serves clients.

mod chunked;
mod framing;
mod head;
mod names;
mod spare;

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, request, response};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;

pub use framing::{BadLength, has_plain_coding, normalise_length};
pub use head::HeadError;

use chunked::{Chunk, Chunked};
use framing::Extent;

use crate::config::ResponseLimits;
use crate::stream::Stream;

/// A connection to a server.
pub struct Connection {
    stream: Stream,
    limits: ResponseLimits,
    /// The head of a response, as far as it has come.
    head: BytesMut,
    /// Content that was read and not handed out.
    early: Bytes,
    out: Out,
    sending: Sending,
    receiving: Receiving,
    /// Informational responses to the request under way.
    informational: usize,
    /// Bytes that the next read has room for.
    read_size: usize,
    /// TLS may hold some of what was written.
    is_unflushed: bool,
    /// Whether anything of the request under way has been written.
    has_written: bool,
    /// Whether it may carry another exchange, by what the server has said.
    persists: bool,
}

/// What of a request is to be written: `made`, then `piece`, then `behind`.
#[derive(Default)]
struct Out {
    /// The head, or the beginning of a chunk.
    made: Vec<u8>,
    /// How much of `made` has been written.
    at: usize,
    piece: Bytes,
    /// The end of a chunk.
    behind: &'static [u8],
}

/// What of a request's content has not been taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// So many bytes.
    Length(u64),
    /// Some, in chunks.
    Chunked,
    /// Nothing.
    Done,
    /// Something that will not be sent.
    Failed,
}

/// What is read next.
#[derive(Debug)]
enum Receiving {
    /// The head of the response to a request that was HEAD, or was not.
    Head { to_head: bool },
    /// Content, of which so many bytes are left.
    Length(u64),
    /// Content in chunks. Boxed: it has room for trailers.
    Chunked(Box<Chunked>),
    /// Content that ends with the connection.
    UntilClose,
    /// Nothing.
    Done,
}

/// Why a request was not sent whole.
#[derive(Debug)]
pub enum SendError<E> {
    /// Its content broke off.
    Content(E),
    /// Its content was not as long as it was said to be.
    Length,
    /// The connection takes no more. The server may have answered all the same.
    Io(io::Error),
}

/// Why no response came.
#[derive(Debug)]
pub enum ReceiveError {
    /// What came is no response.
    Head(HeadError),
    /// The connection ended first.
    Io(io::Error),
}

impl Connection {
    /// A connection on which nothing has been said.
    pub fn new(stream: Stream, limits: ResponseLimits) -> Self {
        Self {
            stream,
            limits,
            head: BytesMut::new(),
            early: Bytes::new(),
            out: Out::default(),
            sending: Sending::Done,
            receiving: Receiving::Done,
            informational: 0,
            read_size: LEAST_READ,
            is_unflushed: false,
            has_written: false,
            persists: true,
        }
    }

    /// Whether nothing is between it and its socket: no TLS.
    pub fn is_plain(&self) -> bool {
        !self.stream.is_tls()
    }

    /// Begins an exchange, of which nothing is written yet. How its content is framed follows from `body`, whatever the head says
    /// of it.
    pub fn begin<B: Body>(&mut self, request: &request::Parts, body: &B) {
        let length = match body.is_end_stream() {
            true => Some(0),
            false => body.size_hint().exact(),
        };
        self.out.made.clear();
        head::encode(&mut self.out.made, request, length);
        self.sending = match length {
            Some(0) => Sending::Done,
            Some(length) => Sending::Length(length),
            None => Sending::Chunked,
        };
        self.out.at = 0;
        self.out.behind = b"";
        self.out.piece = Bytes::new();
        self.receiving = Receiving::Head {
            to_head: request.method == Method::HEAD,
        };
        self.informational = 0;
        self.has_written = false;
    }

    /// The fields of the request without content that was begun, read from what was made of them; none where that is gone.
    ///
    /// For whoever has let go of them, and has to send the request again all the same.
    pub fn begun_fields(&self) -> Option<HeaderMap> {
        head::fields_of_request(&self.out.made)
    }

    /// Writes what can be written of the request now. Ready when all of it has gone.
    pub fn poll_send<B>(&mut self, cx: &mut Context<'_>, body: &mut B) -> Poll<Result<(), SendError<B::Error>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            let takes_more = self.out.piece.is_empty() && self.out.behind.is_empty();
            if takes_more && matches!(self.sending, Sending::Length(_) | Sending::Chunked) {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(frame) => {
                        if let Err(error) = self.take(frame, body.is_end_stream()) {
                            self.give_up();
                            return Poll::Ready(Err(error));
                        }
                    }
                    Poll::Pending if self.out.is_empty() => {
                        ready!(self.poll_flush(cx)).map_err(SendError::Io)?;
                        return Poll::Pending;
                    }
                    Poll::Pending => {}
                }
            }
            if self.out.is_empty() {
                if matches!(self.sending, Sending::Length(_) | Sending::Chunked) {
                    continue;
                }
                return self.poll_flush(cx).map_err(SendError::Io);
            }
            if let Err(error) = ready!(self.poll_write(cx)) {
                self.give_up();
                return Poll::Ready(Err(SendError::Io(error)));
            }
        }
    }

    /// Queues the next frame of the content.
    fn take<E>(&mut self, frame: Option<Result<Frame<Bytes>, E>>, is_last: bool) -> Result<(), SendError<E>> {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(SendError::Content(error)),
            None => return self.end(None),
        };
        match frame.into_data() {
            Ok(data) => {
                if let Sending::Length(left) = &mut self.sending {
                    *left = left.checked_sub(data.len() as u64).ok_or(SendError::Length)?;
                    if *left == 0 {
                        self.sending = Sending::Done;
                    }
                    self.out.piece = data;
                } else if !data.is_empty() {
                    // An empty chunk would be the last.
                    self.queue(data, is_last);
                }
                Ok(())
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.end(Some(trailers)),
                Err(_) => Ok(()),
            },
        }
    }

    fn queue(&mut self, data: Bytes, is_last: bool) {
        if self.sending == Sending::Chunked {
            self.out.frame(data.len());
            self.out.behind = if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
            if is_last {
                self.sending = Sending::Done;
            }
        }
        self.out.piece = data;
    }

    fn end<E>(&mut self, trailers: Option<HeaderMap>) -> Result<(), SendError<E>> {
        match self.sending {
            Sending::Length(0) | Sending::Done | Sending::Failed => {}
            Sending::Length(_) => return Err(SendError::Length),
            Sending::Chunked => {
                let made = self.out.more();
                made.extend_from_slice(b"0\r\n");
                head::encode_fields(made, &trailers.unwrap_or_default());
                made.extend_from_slice(b"\r\n");
            }
        }
        self.sending = Sending::Done;
        Ok(())
    }

    /// No more of the request is sent.
    fn give_up(&mut self) {
        self.sending = Sending::Failed;
        self.out.at = self.out.made.len();
        // What was taken of the content stays, in case that nothing has been written.
        self.out.behind = b"";
    }

    /// Whether anything of the request under way has been written. What comes before that is no answer to it.
    pub fn has_begun(&self) -> bool {
        self.has_written
    }

    /// Whether the server has said something of the request under way, before it answers.
    pub fn has_been_heard(&self) -> bool {
        self.informational > 0
    }

    /// Whether all of the request has been written.
    pub fn has_sent(&self) -> bool {
        self.sending == Sending::Done && self.out.is_empty() && !self.is_unflushed
    }

    /// The content that was taken for a request of which nothing has been written; none when something has been.
    pub fn unsent(&mut self) -> Option<Bytes> {
        (!self.has_written).then(|| std::mem::take(&mut self.out.piece))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let made = &self.out.made[self.out.at..];
        let stream = Pin::new(&mut self.stream);
        let written = match self.out.piece.is_empty() && self.out.behind.is_empty() {
            true => ready!(stream.poll_write(cx, made))?,
            false => {
                let bufs = [
                    IoSlice::new(made),
                    IoSlice::new(&self.out.piece),
                    IoSlice::new(self.out.behind),
                ];
                ready!(stream.poll_write_vectored(cx, &bufs))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.has_written = true;
        self.is_unflushed = self.stream.is_tls();
        self.out.wrote(written);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The next head: of an informational response, behind which another comes, or of the response.
    ///
    /// The response says how long its content is in one way, or it is none: RFC 9112, section 6.3.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, ReceiveError>> {
        let Receiving::Head { to_head } = self.receiving else {
            return Poll::Ready(Err(ReceiveError::Io(io::ErrorKind::InvalidInput.into())));
        };
        // What is known to have no end in it is not parsed again with every byte that comes.
        let mut looked_at = self.head.len();
        if self.head.is_empty() && !self.early.is_empty() {
            // It came together with an informational response.
            self.head = BytesMut::from(std::mem::take(&mut self.early));
        }
        loop {
            if self.head.len() > looked_at {
                if looked_at == 0 || head::may_end(&self.head[looked_at.saturating_sub(3)..]) {
                    let mut buffer = std::mem::take(&mut self.head);
                    let read = buffer.split().freeze();
                    match head::parse(&read, &self.limits).map_err(ReceiveError::Head)? {
                        Some(parsed) => {
                            spare::put_back(buffer);
                            self.early = read.slice(parsed.length..);
                            return Poll::Ready(self.settle(parsed, to_head).map_err(ReceiveError::Head));
                        }
                        None => {
                            // Nobody else has a part of it then, and it is not copied.
                            drop(buffer);
                            self.head = BytesMut::from(read);
                        }
                    }
                }
                looked_at = self.head.len();
            }
            if looked_at >= self.limits.head {
                return Poll::Ready(Err(ReceiveError::Head(HeadError::TooLarge)));
            }
            if self.head.is_empty() {
                self.head = spare::take();
            }
            self.head.reserve(LEAST_READ);
            let read = pin!(self.stream.read_buf(&mut self.head)).poll(cx);
            if self.head.is_empty() {
                // Whoever waits holds no buffer.
                spare::put_back(std::mem::take(&mut self.head));
            }
            let read = ready!(read);
            if read.map_err(ReceiveError::Io)? == 0 {
                return Poll::Ready(Err(ReceiveError::Io(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    /// How the connection goes on behind a head.
    fn settle(&mut self, parsed: head::Parsed, to_head: bool) -> Result<response::Parts, HeadError> {
        let head::Parsed { mut response, seen, .. } = parsed;
        let status = response.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            // Each is work, and none brings the end nearer.
            self.informational += 1;
            if self.informational > self.limits.informational {
                return Err(HeadError::Informational);
            }
            return Ok(response);
        }
        let (extent, persists) = framing::decide(&mut response, seen, to_head)?;
        self.persists = persists;
        self.receiving = match extent {
            Extent::Length(0) => Receiving::Done,
            Extent::Length(length) => Receiving::Length(length),
            Extent::Chunked => Receiving::Chunked(Box::new(Chunked::new(&self.limits))),
            Extent::UntilClose => Receiving::UntilClose,
        };
        Ok(response)
    }

    /// How much of the content is to come: none when nobody knows.
    pub fn left(&self) -> Option<u64> {
        match &self.receiving {
            Receiving::Length(left) => Some(*left),
            Receiving::Done => Some(0),
            Receiving::Head { .. } | Receiving::Chunked(_) | Receiving::UntilClose => None,
        }
    }

    /// Whether the response has come whole.
    pub fn has_received(&self) -> bool {
        matches!(self.receiving, Receiving::Done)
    }

    /// The next piece of the content, or the trailers behind it.
    pub fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match &mut self.receiving {
                Receiving::Done | Receiving::Head { .. } => return Poll::Ready(None),
                Receiving::Length(left) if !self.early.is_empty() => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let piece = self.early.split_to(self.early.len().min(most));
                    self.moved(piece.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Receiving::UntilClose if !self.early.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.early)))));
                }
                Receiving::Chunked(chunked) if !self.early.is_empty() => match chunked.decode(&mut self.early) {
                    Ok(Chunk::More) => {}
                    Ok(Chunk::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Chunk::End(trailers)) => {
                        self.receiving = Receiving::Done;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))));
                    }
                    Err(chunked::BadChunk) => {
                        return Poll::Ready(Some(Err(io::ErrorKind::InvalidData.into())));
                    }
                },
                Receiving::Length(_) | Receiving::UntilClose | Receiving::Chunked(_) => {}
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if matches!(self.receiving, Receiving::UntilClose) => {
                    self.receiving = Receiving::Done;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Reads content into `early`, which is empty.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // With room for one byte more than is to come, a read that gets all of it leaves nothing to be asked for.
        let most = self.left().map_or(u64::MAX, |left| left.saturating_add(1));
        let size = self.read_size.min(usize::try_from(most).unwrap_or(usize::MAX));
        let mut read = BytesMut::with_capacity(size);
        let length = ready!(pin!(self.stream.read_buf(&mut read)).poll(cx))?;
        self.read_size = match length {
            _ if length >= self.read_size => (self.read_size * 2).min(MOST_READ),
            _ if length < self.read_size / 4 => (self.read_size / 2).max(LEAST_READ),
            _ => self.read_size,
        };
        // What is handed out may lie with a slow client for long: a few bytes are not to hold a buffer for many.
        self.early = match length < size / 4 {
            true => Bytes::copy_from_slice(&read),
            false => read.freeze(),
        };
        Poll::Ready(Ok(length))
    }

    /// The socket, when it has the rest of a content of known length, and how much that is. Whoever reads there says so with
    /// [`Connection::moved`].
    pub fn socket(&mut self) -> Option<(&mut TcpStream, u64)> {
        match (&mut self.stream, &self.receiving) {
            (Stream::Plain(tcp), Receiving::Length(left)) if self.early.is_empty() => Some((tcp, *left)),
            _ => None,
        }
    }

    /// So much of the content has been read.
    pub fn moved(&mut self, length: u64) {
        if let Receiving::Length(left) = &mut self.receiving {
            *left = left.saturating_sub(length);
            if *left == 0 {
                self.receiving = Receiving::Done;
            }
        }
    }

    /// Whether it may carry another exchange, as far as is known without asking the system: what was asked and answered has passed whole,
    /// nothing came together with it, and the server has not announced the end.
    pub fn may_persist(&self) -> bool {
        self.has_sent() && self.has_received() && self.persists && self.early.is_empty()
    }

    /// Whether it [may](Self::may_persist), nothing has come behind what was answered, and the server has not made the end.
    pub fn is_idle(&mut self) -> bool {
        if !self.may_persist() {
            return false;
        }
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        let look = poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // Unconstrained: a task that has done much in this turn would be told to wait, which looks the same. Whatever there is
        // to read, it is nothing that was asked for.
        pin!(unconstrained(look)).poll(&mut cx).is_pending()
    }

    /// Whether the server keeps it, by what it has said with its response.
    pub fn persists(&self) -> bool {
        self.persists
    }

    /// Ready when the server has ended it behind a response that has come whole, or says there what nobody has asked for. What is
    /// left of the request is not wanted then.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.early.is_empty() {
            return Poll::Ready(());
        }
        let mut byte = [0];
        Pin::new(&mut self.stream)
            .poll_read(cx, &mut ReadBuf::new(&mut byte))
            .map(drop)
    }

    /// Lets go of what was read and written.
    pub fn rest(&mut self) {
        self.early = Bytes::new();
        if self.out.made.capacity() > MOST_KEPT {
            self.out.made = Vec::new();
        }
    }

    /// Ends it between two exchanges. In TLS the server is told so, as far as that can be done at once (`close_notify`; RFC 8446,
    /// section 6.1); TCP needs nothing but to be dropped.
    pub fn leave(mut self) {
        if self.stream.is_tls() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
        }
    }

    /// The stream, and what was read of it behind the head.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.early)
    }
}

impl Out {
    fn is_empty(&self) -> bool {
        self.at == self.made.len() && self.piece.is_empty() && self.behind.is_empty()
    }

    /// Where more is made. What was written is forgotten.
    fn more(&mut self) -> &mut Vec<u8> {
        if self.at == self.made.len() {
            self.made.clear();
            self.at = 0;
        }
        &mut self.made
    }

    /// The beginning of a chunk.
    fn frame(&mut self, length: usize) {
        use std::io::Write;
        // Writing to a vector does not fail.
        let _ = write!(self.more(), "{length:x}\r\n");
    }

    fn wrote(&mut self, mut length: usize) {
        let made = length.min(self.made.len() - self.at);
        self.at += made;
        length -= made;
        let piece = length.min(self.piece.len());
        if piece > 0 {
            let _ = self.piece.split_to(piece);
        }
        length -= piece;
        self.behind = &self.behind[length.min(self.behind.len())..];
    }
}

/// Bytes read at once at first: most responses are shorter.
const LEAST_READ: usize = 8 * 1024;

/// Bytes read at once at most, where much comes: enough for reading bulk content in few calls.
const MOST_READ: usize = 64 * 1024;

/// Bytes for heads of requests that a connection keeps while it waits.
const MOST_KEPT: usize = 1024;

#[cfg(test)]
mod tests;
