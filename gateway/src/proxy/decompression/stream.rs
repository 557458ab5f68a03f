//! Content on its way through a decoder: in slices, so that no message holds the worker up, and no further than its limits,
//! however much a few bytes would become.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Frame;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use crate::config::{Coding, DecompressLimits};

/// How content is decoded.
#[derive(Debug, Clone)]
pub struct Decoding {
    coding: Coding,
    limits: DecompressLimits,
    /// Counts it among those under way.
    _stream: Rc<()>,
}

impl Decoding {
    /// Content in this coding, within these limits. `stream` counts it among those under way.
    pub fn new(coding: Coding, limits: DecompressLimits, stream: Rc<()>) -> Self {
        Self {
            coding,
            limits,
            _stream: stream,
        }
    }
}

/// Why content cannot be decoded to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not in its coding, or breaks off.
    #[error("the content is not in the coding that its head names")]
    Malformed,
    /// More would come of it than the limits allow.
    #[error("the decoded content is too large")]
    TooLarge,
}

impl Fault {
    /// A label for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "bad-coding",
            Self::TooLarge => "decoded-too-large",
        }
    }

    /// The fault that an error of I/O is about.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// Content in the making.
pub struct Decompressor {
    decoding: Decoding,
    decoder: Decoder,
    /// Where the decoder writes.
    slice: Box<[u8]>,
    /// What came in, and what came of it.
    taken: u64,
    made: u64,
    /// What comes behind the content.
    trailers: Option<HeaderMap>,
    /// The source has ended.
    ended: bool,
    /// The decoder has made all that there is.
    is_through: bool,
    /// A slice has been made: others on this worker come first.
    yields: bool,
}

enum Decoder {
    Brotli(BrotliDecoder<Input>),
    Zstd(ZstdDecoder<Input>),
    Gzip(GzipDecoder<Input>),
}

impl Decompressor {
    /// Begins.
    pub fn new(decoding: Decoding) -> Self {
        let decoder = match decoding.coding {
            Coding::Brotli => Decoder::Brotli(BrotliDecoder::new(Input::default())),
            // Both may be several, one behind the other (RFC 8878, section 3; RFC 1952, section 2.2).
            Coding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW);
                let mut decoder = ZstdDecoder::with_params(Input::default(), &[window]);
                decoder.multiple_members(true);
                Decoder::Zstd(decoder)
            }
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(Input::default());
                decoder.multiple_members(true);
                Decoder::Gzip(decoder)
            }
        };
        Self {
            decoding,
            decoder,
            slice: vec![0; SLICE].into_boxed_slice(),
            taken: 0,
            made: 0,
            trailers: None,
            ended: false,
            is_through: false,
            yields: false,
        }
    }

    /// How this is decoded.
    pub fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    /// Whether nothing more comes.
    pub fn is_done(&self) -> bool {
        self.ended && self.is_through && self.trailers.is_none()
    }

    /// The next piece of the content as it is. `coded` brings it in its coding.
    pub fn poll<E: From<Fault>>(
        &mut self,
        cx: &mut Context<'_>,
        mut coded: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        loop {
            if std::mem::take(&mut self.yields) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.is_through {
                match self.decode() {
                    Ok(Decoded::Slice(bytes)) => {
                        self.yields = true;
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                    Ok(Decoded::End) => self.is_through = true,
                    Ok(Decoded::Wants) => {}
                    Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
                }
            }
            if self.is_through && self.decoder.input().has_more() {
                // What stands behind it belongs to nothing.
                return Poll::Ready(Some(Err(Fault::Malformed.into())));
            }
            if self.ended && self.is_through {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            match coded(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        self.taken += bytes.len() as u64;
                        self.decoder.input().bytes = bytes;
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.end();
                    }
                },
                Poll::Ready(None) => self.end(),
                other => return other,
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.decoder.input().ended = true;
        // Nothing at all is in no coding, and nothing comes of it.
        self.is_through |= self.taken == 0;
    }

    fn decode(&mut self) -> Result<Decoded, Fault> {
        let mut slice = ReadBuf::new(&mut self.slice);
        let mut nobody = Context::from_waker(Waker::noop());
        match self.decoder.reader().poll_read(&mut nobody, &mut slice) {
            Poll::Pending => return Ok(Decoded::Wants),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(Fault::Malformed),
        }
        if slice.filled().is_empty() {
            return Ok(Decoded::End);
        }
        self.made += slice.filled().len() as u64;
        match self.decoding.limits.allow(self.made, self.taken) {
            true => Ok(Decoded::Slice(Bytes::copy_from_slice(slice.filled()))),
            false => Err(Fault::TooLarge),
        }
    }
}

enum Decoded {
    Slice(Bytes),
    /// More has to come in first.
    Wants,
    End,
}

impl Decoder {
    fn reader(&mut self) -> Pin<&mut (dyn AsyncRead + Unpin)> {
        match self {
            Self::Brotli(decoder) => Pin::new(decoder),
            Self::Zstd(decoder) => Pin::new(decoder),
            Self::Gzip(decoder) => Pin::new(decoder),
        }
    }

    fn input(&mut self) -> &mut Input {
        match self {
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }
}

/// What has come and is not decoded yet.
#[derive(Default)]
struct Input {
    bytes: Bytes,
    ended: bool,
}

impl Input {
    fn has_more(&self) -> bool {
        !self.bytes.is_empty()
    }
}

impl AsyncBufRead for Input {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        match this.has_more() || this.ended {
            true => Poll::Ready(Ok(&this.bytes)),
            // Nobody is woken: whoever decodes brings more by itself.
            false => Poll::Pending,
        }
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        self.get_mut().bytes.advance(n);
    }
}

/// Decoders ask for it, and use the other.
impl AsyncRead for Input {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let bytes = std::task::ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = bytes.len().min(into.remaining());
        into.put_slice(&bytes[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

/// Decoded in one go, in some tens of microseconds.
const SLICE: usize = 16 << 10;
/// 8 MiB, as a power of two: what a content coding may ask of whoever decodes it (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];
    const WIDE: DecompressLimits = DecompressLimits {
        size: 1 << 40,
        ratio: 1 << 20,
    };

    async fn encode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        macro_rules! through {
            ($encoder:ident) => {{
                let mut encoder = $encoder::new(Vec::new());
                encoder.write_all(bytes).await.unwrap();
                encoder.shutdown().await.unwrap();
                encoder.into_inner()
            }};
        }
        match coding {
            Coding::Brotli => through!(BrotliEncoder),
            Coding::Zstd => through!(ZstdEncoder),
            Coding::Gzip => through!(GzipEncoder),
        }
    }

    /// What comes of these pieces, the longest slice, and whether it is whole.
    fn decode(coding: Coding, limits: DecompressLimits, pieces: Vec<Bytes>) -> (Vec<u8>, usize, Result<(), Fault>) {
        let mut decompressor = Decompressor::new(Decoding::new(coding, limits, Rc::new(())));
        let mut pieces = pieces.into_iter();
        let mut cx = Context::from_waker(Waker::noop());
        let (mut out, mut longest) = (Vec::new(), 0);
        loop {
            match decompressor.poll::<Fault>(&mut cx, |_| {
                Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece))))
            }) {
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.into_data().unwrap();
                    longest = longest.max(bytes.len());
                    out.extend_from_slice(&bytes);
                }
                Poll::Ready(Some(Err(fault))) => return (out, longest, Err(fault)),
                Poll::Ready(None) => {
                    assert!(decompressor.is_done());
                    return (out, longest, Ok(()));
                }
                Poll::Pending => {}
            }
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    proptest! {
        #[test]
        fn what_was_coded_comes_back_however_it_is_cut(
            content in proptest::collection::vec(0u8..4, 0..50_000),
            cut in 1usize..5_000,
            coding in 0usize..3,
        ) {
            let coding = ALL[coding];
            let coded = runtime().block_on(encode(coding, &content));
            let pieces = coded.chunks(cut).map(Bytes::copy_from_slice).collect();
            let (out, _, end) = decode(coding, WIDE, pieces);
            prop_assert_eq!(end, Ok(()));
            prop_assert!(out == content);
        }

        #[test]
        fn what_breaks_off_does_not_pass_for_whole(length in 1usize..2_000, coding in 0usize..3) {
            let coding = ALL[coding];
            let coded = runtime().block_on(encode(coding, &vec![b'x'; length]));
            for end in 1..coded.len() {
                let (.., end) = decode(coding, WIDE, vec![Bytes::copy_from_slice(&coded[..end])]);
                prop_assert_eq!(end, Err(Fault::Malformed));
            }
        }

        #[test]
        fn garbage_is_no_coding(garbage in proptest::collection::vec(any::<u8>(), 1..3_000), coding in 0usize..3) {
            let limits = DecompressLimits { size: 1 << 20, ratio: 10 };
            let (out, ..) = decode(ALL[coding], limits, vec![Bytes::from(garbage)]);
            prop_assert!(out.len() <= 1 << 20);
        }
    }

    #[tokio::test]
    async fn a_bomb_goes_off_in_slices_and_no_further_than_the_limits() {
        let zeros = vec![0; 64 << 20];
        for coding in ALL {
            let bomb = Bytes::from(encode(coding, &zeros).await);
            let limits = DecompressLimits {
                size: 1 << 40,
                ratio: 100,
            };
            let (out, longest, end) = decode(coding, limits, vec![bomb.clone()]);
            assert_eq!(end, Err(Fault::TooLarge), "{coding:?}");
            assert!(longest <= SLICE, "{longest}");
            let most = DecompressLimits::FREE.max(bomb.len() as u64 * 100);
            assert!(out.len() as u64 <= most, "{coding:?}: {} of {}", out.len(), bomb.len());

            let limits = DecompressLimits {
                size: 3_000_000,
                ratio: u64::MAX,
            };
            let (out, _, end) = decode(coding, limits, vec![bomb]);
            assert_eq!(end, Err(Fault::TooLarge), "{coding:?}");
            assert!(out.len() <= 3_000_000);
        }
    }

    #[tokio::test]
    async fn nothing_is_nothing_and_what_stands_behind_is_too_much() {
        for coding in ALL {
            assert_eq!(decode(coding, WIDE, Vec::new()), (Vec::new(), 0, Ok(())));
            let mut coded = encode(coding, b"hello").await;
            coded.extend_from_slice(b"behind it");
            let (.., end) = decode(coding, WIDE, vec![Bytes::from(coded.clone())]);
            assert_eq!(end, Err(Fault::Malformed), "{coding:?}");
            let (coded, behind) = coded.split_at(coded.len() - 9);
            let pieces = vec![Bytes::copy_from_slice(coded), Bytes::copy_from_slice(behind)];
            let (out, _, end) = decode(coding, WIDE, pieces);
            assert_eq!((out, end), (b"hello".to_vec(), Err(Fault::Malformed)), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn gzip_and_zstd_may_come_in_several_members() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let both = [encode(coding, b"hello ").await, encode(coding, b"world").await].concat();
            for cut in 1..both.len() {
                let pieces = both.chunks(cut).map(Bytes::copy_from_slice).collect();
                let (out, _, end) = decode(coding, WIDE, pieces);
                assert_eq!((out, end), (b"hello world".to_vec(), Ok(())), "{coding:?} {cut}");
            }
        }
    }

    /// Frame_Header_Descriptor without a single segment, and Window_Descriptor (RFC 8878, section 3.1.1.1).
    #[test]
    fn a_frame_of_zstd_that_asks_for_a_large_window_is_refused() {
        let frame = |log: u8| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
            // One block, the last, raw: "a".
            frame.extend_from_slice(&[0x09, 0, 0, b'a']);
            vec![Bytes::from(frame)]
        };
        assert_eq!(decode(Coding::Zstd, WIDE, frame(23)).2, Ok(()));
        assert_eq!(decode(Coding::Zstd, WIDE, frame(24)).2, Err(Fault::Malformed));
    }

    #[tokio::test]
    async fn trailers_come_behind_the_content() {
        let coded = Bytes::from(encode(Coding::Gzip, b"abc").await);
        let mut frames = vec![
            Frame::trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("1"),
            )])),
            Frame::data(coded),
        ];
        let mut decompressor = Decompressor::new(Decoding::new(Coding::Gzip, WIDE, Rc::new(())));
        let mut cx = Context::from_waker(Waker::noop());
        let mut got = Vec::new();
        while !decompressor.is_done() {
            match decompressor.poll::<Fault>(&mut cx, |_| Poll::Ready(frames.pop().map(Ok))) {
                Poll::Ready(Some(frame)) => got.push(frame.unwrap()),
                Poll::Ready(None) => break,
                Poll::Pending => {}
            }
        }
        assert_eq!(got[0].data_ref().unwrap(), "abc");
        assert_eq!(got[1].trailers_ref().unwrap()["x-sum"], "1");
        assert_eq!(got.len(), 2);
    }
}
