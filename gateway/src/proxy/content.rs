//! The content of a message as a peer sends it, over whichever version of HTTP, and the one place where trailers come in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::headers;
use super::kept::KeptContent;

/// The content of a request or response that comes from a peer.
#[derive(Debug)]
pub enum Content {
    /// Of a client, over HTTP/1.
    Http1(Incoming),
    /// Of a server, over HTTP/1: whoever holds the connection sees to it, with [`Leased`] as the account.
    Leased(Leased),
    /// On a stream of HTTP/2.
    Http2(Http2Content),
    /// There is none.
    None,
    /// Kept while it passes. Boxed: little is.
    Kept(Box<KeptContent>),
    /// Made up.
    #[cfg(test)]
    Pieces(std::collections::VecDeque<Bytes>),
}

/// How much of a content is to come that its lease brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// Bytes; none when nobody knows before the end.
    pub left: Option<u64>,
    /// Nothing more comes, not even trailers.
    pub has_ended: bool,
}

/// What comes on a stream of HTTP/2. The window is opened again by what is taken, so that a sender is held up by whoever does
/// not take; the library sees to it that the content is as long as it was said to be (RFC 9113, section 8.1.1).
#[derive(Debug)]
pub struct Http2Content {
    stream: RecvStream,
    /// As Content-Length says; what is left of it.
    left: Option<u64>,
    data_ended: bool,
    /// Nothing but its end is to come: the head says so.
    is_bodiless: bool,
}

impl Http2Content {
    /// What comes on this stream; `length` is what Content-Length says.
    pub fn new(stream: RecvStream, length: Option<u64>) -> Self {
        Self {
            stream,
            left: length,
            data_ended: false,
            is_bodiless: false,
        }
    }

    /// What comes behind the head of a response that has no content (RFC 9110, section 6.4.1): the end of the stream, which a server
    /// may send in a frame of its own.
    pub fn bodiless(stream: RecvStream) -> Self {
        Self {
            is_bodiless: true,
            ..Self::new(stream, None)
        }
    }

    /// The stream, of whose content nothing has been taken.
    pub fn into_stream(self) -> RecvStream {
        self.stream
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // All of it has come, and only its end is not told.
                Some(Err(_)) if self.left == Some(0) => return Poll::Ready(None),
                // Whatever the reason: content that was broken off is not to pass for whole.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Content {
    /// Whether all of it has come by its length, though the end of its stream has perhaps not.
    pub fn is_whole_by_length(&self) -> bool {
        matches!(self, Self::Http2(content) if content.is_bodiless || content.left == Some(0))
    }

    /// Whether the head says that there is none, though the end of its stream has perhaps not come.
    pub fn is_bodiless(&self) -> bool {
        matches!(self, Self::Http2(content) if content.is_bodiless)
    }
}

/// Whether a content has this error because its peer left in its middle, and not because it is framed wrongly.
pub fn has_left(error: &io::Error) -> bool {
    let Some(within) = error.get_ref() else {
        return is_of_a_broken_connection(error);
    };
    if let Some(error) = within.downcast_ref::<h2::Error>() {
        return error.is_io() || error.is_remote();
    }
    let Some(error) = within.downcast_ref::<hyper::Error>() else {
        return is_of_a_broken_connection(error);
    };
    // What is wrong with the framing hyper says as an error of reading; of a connection that it has let go of it says nothing.
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_none_or(is_of_a_broken_connection)
}

fn is_of_a_broken_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof};
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | TimedOut
    )
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = match self.get_mut() {
            Self::Http1(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(io::Error::other))
            }
            Self::Http2(content) => ready!(content.poll_frame(cx)).map(|frame| frame.map_err(io::Error::other)),
            Self::None => None,
            Self::Leased(_) => return Poll::Ready(Some(Err(io::ErrorKind::Unsupported.into()))),
            Self::Kept(content) => return Pin::new(content).poll_frame(cx),
            #[cfg(test)]
            Self::Pieces(pieces) => pieces.pop_front().map(|piece| Ok(Frame::data(piece))),
        };
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_trailers(trailers);
                }
                frame
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(content) => content.stream.is_end_stream(),
            Self::None => true,
            Self::Leased(leased) => leased.has_ended,
            Self::Kept(content) => content.is_end_stream(),
            #[cfg(test)]
            Self::Pieces(pieces) => pieces.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::None => SizeHint::with_exact(0),
            Self::Leased(leased) => leased.left.map_or(SizeHint::default(), SizeHint::with_exact),
            Self::Http2(content) if content.stream.is_end_stream() => SizeHint::with_exact(0),
            Self::Http2(content) => content.left.map_or(SizeHint::default(), SizeHint::with_exact),
            Self::Kept(content) => content.size_hint(),
            #[cfg(test)]
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
