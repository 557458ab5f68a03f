//! Content that is kept while it passes, up to a bound, so that a request can be sent again.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::content::Content;

/// Content on its way to a server: first what was kept of an earlier attempt, then the rest, which is kept as it passes.
#[derive(Debug)]
pub struct KeptContent {
    store: Rc<Store>,
    /// None when all of it has come; and in the store between two attempts.
    rest: Option<Content>,
    /// How many of the bytes in the store have been sent in this attempt.
    at: usize,
    /// Whether the trailers that are in the store have been.
    has_sent_trailers: bool,
    /// Bytes sent in this attempt.
    sent: u64,
}

/// Holds on to content so that it can be sent again.
#[derive(Debug)]
pub struct Keeping(Rc<Store>);

#[derive(Debug)]
struct Store {
    /// Copied, as a piece of a byte may hold on to the whole buffer that it was read into.
    bytes: RefCell<Vec<u8>>,
    /// Bounded by the limits of heads.
    trailers: RefCell<Option<HeaderMap>>,
    /// Bytes that may still be kept.
    room: Cell<usize>,
    /// Whether all of it is here, or can be read on; no longer once there was too much of it.
    is_complete: Cell<bool>,
    /// What has not come yet, between two attempts.
    rest: RefCell<Option<Content>>,
    length: SizeHint,
}

impl Keeping {
    /// Keeps this content, up to `most` bytes.
    pub fn begin(content: Content, most: usize) -> (KeptContent, Self) {
        let length = content.size_hint();
        let store = Rc::new(Store {
            bytes: RefCell::default(),
            trailers: RefCell::default(),
            room: Cell::new(most),
            // What is known to be too long is not kept in part.
            is_complete: Cell::new(length.lower() <= most as u64),
            rest: RefCell::default(),
            length,
        });
        let kept = KeptContent {
            store: store.clone(),
            rest: Some(content),
            at: 0,
            has_sent_trailers: false,
            sent: 0,
        };
        (kept, Self(store))
    }

    /// Whether it can be sent again as far as it has come, once the one attempt that has it is over.
    pub fn is_complete(&self) -> bool {
        self.0.is_complete.get() && Rc::strong_count(&self.0) <= 2
    }

    /// The content from its beginning; none when there was too much of it to be kept, or it broke off, or the attempt before
    /// still has it. Has to be called when that attempt is over.
    pub fn again(&self) -> Option<KeptContent> {
        // One holds this, and an attempt that goes on would hold another.
        (self.is_complete() && Rc::strong_count(&self.0) == 1).then(|| KeptContent {
            store: self.0.clone(),
            rest: self.0.rest.take(),
            at: 0,
            has_sent_trailers: false,
            sent: 0,
        })
    }
}

impl Store {
    fn keep(&self, bytes: &[u8]) {
        match self.room.get().checked_sub(bytes.len()) {
            Some(room) if self.is_complete.get() => {
                self.room.set(room);
                self.bytes.borrow_mut().extend_from_slice(bytes);
            }
            _ => self.give_up(),
        }
    }

    fn keep_trailers(&self, trailers: &HeaderMap) {
        if self.is_complete.get() {
            *self.trailers.borrow_mut() = Some(trailers.clone());
        }
    }

    fn give_up(&self) {
        self.is_complete.set(false);
        *self.bytes.borrow_mut() = Vec::new();
        *self.trailers.borrow_mut() = None;
    }
}

impl KeptContent {
    /// What is kept and has not been sent in this attempt.
    fn again(&mut self) -> Option<Frame<Bytes>> {
        let kept = self.store.bytes.borrow();
        if let Some(bytes) = kept.get(self.at..).filter(|bytes| !bytes.is_empty()) {
            self.at = kept.len();
            self.sent += bytes.len() as u64;
            return Some(Frame::data(Bytes::copy_from_slice(bytes)));
        }
        let trailers = self.store.trailers.borrow();
        let trailers = trailers.as_ref().filter(|_| !self.has_sent_trailers)?;
        self.has_sent_trailers = true;
        Some(Frame::trailers(trailers.clone()))
    }
}

impl Body for KeptContent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(frame) = this.again() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut this.rest else {
            return Poll::Ready(None);
        };
        let frame = match ready!(Pin::new(rest).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                this.store.give_up();
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                this.rest = None;
                return Poll::Ready(None);
            }
        };
        if Rc::strong_count(&this.store) == 1 {
            // Nobody can have it sent again any more.
            this.store.give_up();
        }
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(bytes), _) => {
                this.sent += bytes.len() as u64;
                this.store.keep(bytes);
            }
            (None, Some(trailers)) => {
                this.store.keep_trailers(trailers);
                this.has_sent_trailers = true;
            }
            (None, None) => {}
        }
        this.at = this.store.bytes.borrow().len();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let has_sent_all = self.at >= self.store.bytes.borrow().len()
            && (self.has_sent_trailers || self.store.trailers.borrow().is_none());
        has_sent_all && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match self.store.length.exact() {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.sent)),
            None => SizeHint::default(),
        }
    }
}

impl Drop for KeptContent {
    fn drop(&mut self) {
        *self.store.rest.borrow_mut() = self.rest.take();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Content that comes in these pieces.
    fn content(pieces: &[&'static str]) -> Content {
        Content::Pieces(
            pieces
                .iter()
                .map(|piece| Bytes::from_static(piece.as_bytes()))
                .collect(),
        )
    }

    fn next(kept: &mut KeptContent) -> Option<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(kept).poll_frame(&mut cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap().into_data().unwrap()),
            Poll::Pending => panic!("nothing came"),
        }
    }

    fn all(kept: &mut KeptContent) -> String {
        let pieces: Vec<_> = std::iter::from_fn(|| next(kept)).collect();
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[test]
    fn content_is_sent_again_from_its_beginning_wherever_it_was() {
        for read in 0..5 {
            let (mut first, keeping) = Keeping::begin(content(&["ab", "c", "def"]), 6);
            for _ in 0..read {
                next(&mut first);
            }
            assert!(keeping.again().is_none(), "the attempt has it still");
            drop(first);
            let mut second = keeping.again().unwrap();
            assert!(next(&mut second).unwrap().starts_with(b"ab"));
            drop(second);
            let mut third = keeping.again().unwrap();
            assert!(!third.is_end_stream());
            assert_eq!(all(&mut third), "abcdef");
            assert!(third.is_end_stream());
        }
    }

    #[test]
    fn too_much_is_passed_on_and_not_kept() {
        let (mut kept, keeping) = Keeping::begin(content(&["ab", "c", "def"]), 5);
        assert!(keeping.is_complete());
        assert_eq!(all(&mut kept), "abcdef");
        assert!(!keeping.is_complete());
        assert_eq!(kept.store.bytes.borrow().capacity(), 0);
        drop(kept);
        assert!(keeping.again().is_none());
    }

    #[test]
    fn a_piece_holds_on_to_no_buffer_that_it_was_read_into() {
        let mut buffer = bytes::BytesMut::with_capacity(8192);
        buffer.extend_from_slice(b"a");
        let piece = buffer.split().freeze();
        let pieces = Content::Pieces([piece].into());
        let (mut kept, _keeping) = Keeping::begin(pieces, 100);
        let sent = next(&mut kept).unwrap();
        assert_eq!(sent, "a");
        drop(sent);
        assert!(buffer.try_reclaim(8192), "somebody has the buffer still");
    }

    #[test]
    fn what_nobody_can_send_again_is_kept_no_more() {
        let (mut kept, keeping) = Keeping::begin(content(&["ab", "c", "def"]), 6);
        next(&mut kept);
        drop(keeping);
        assert_eq!(all(&mut kept), "cdef");
        assert!(kept.is_end_stream());
        assert_eq!(kept.store.bytes.borrow().capacity(), 0);
    }
}
