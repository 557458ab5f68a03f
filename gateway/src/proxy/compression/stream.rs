//! Content on its way through an encoder: in slices, so that no response holds the worker up, and never held back while
//! nothing more comes.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use async_compression::Level;
use async_compression::brotli::EncoderParams;
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use async_compression::zstd::CParameter;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::io::AsyncWrite;

use crate::config::{Coding, Levels};

/// A response's content in the making.
pub struct Compressor {
    /// None when the last of it has been made.
    encoder: Option<Encoder>,
    /// What has come and is not compressed yet.
    waiting: Bytes,
    /// What comes behind the content.
    trailers: Option<HeaderMap>,
    /// The encoder holds something back.
    holds: bool,
    /// A slice has been compressed: others on this worker come first.
    yields: bool,
    ended: bool,
    /// Counts it among those under way.
    _stream: Rc<()>,
}

enum Encoder {
    /// Boxed: it is thirty times as large as the others.
    Brotli(Box<BrotliEncoder<Vec<u8>>>),
    Zstd(ZstdEncoder<Vec<u8>>),
    Gzip(GzipEncoder<Vec<u8>>),
}

type Polled = Poll<Option<io::Result<Frame<Bytes>>>>;

impl Compressor {
    /// Begins.
    pub fn new(coding: Coding, levels: Levels, stream: Rc<()>) -> Self {
        let precise = |level: u8| Level::Precise(level.into());
        let encoder = match coding {
            Coding::Brotli => {
                let params = EncoderParams::default()
                    .quality(precise(levels.brotli))
                    .window_size(BROTLI_WINDOW);
                Encoder::Brotli(Box::new(BrotliEncoder::with_params(Vec::new(), params)))
            }
            Coding::Zstd => {
                let params = [CParameter::window_log(ZSTD_WINDOW)];
                Encoder::Zstd(ZstdEncoder::with_quality_and_params(
                    Vec::new(),
                    precise(levels.zstd),
                    &params,
                ))
            }
            Coding::Gzip => Encoder::Gzip(GzipEncoder::with_quality(Vec::new(), precise(levels.gzip))),
        };
        Self {
            encoder: Some(encoder),
            waiting: Bytes::new(),
            trailers: None,
            holds: false,
            yields: false,
            ended: false,
            _stream: stream,
        }
    }

    /// Whether nothing more comes.
    pub fn is_done(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    /// The next piece of the content in its coding. `plain` brings the content as it is.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut plain: impl FnMut(&mut Context<'_>) -> Polled) -> Polled {
        loop {
            if std::mem::take(&mut self.yields) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.ended && self.waiting.is_empty() {
                return Poll::Ready(self.finish().transpose());
            }
            if self.waiting.is_empty() {
                match plain(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(bytes) => self.waiting = bytes,
                        Err(frame) => {
                            self.trailers = frame.into_trailers().ok();
                            self.ended = true;
                        }
                    },
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(None) => self.ended = true,
                    // The client is to have now what there is: what is compressed could be one message of many.
                    Poll::Pending if self.holds => {
                        self.holds = false;
                        let Some(encoder) = &mut self.encoder else {
                            return Poll::Pending;
                        };
                        match encoder.flush() {
                            Ok(bytes) if bytes.is_empty() => return Poll::Pending,
                            made => return Poll::Ready(Some(made.map(Frame::data))),
                        }
                    }
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            let slice = self.waiting.split_to(self.waiting.len().min(SLICE));
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(None);
            };
            self.holds = true;
            self.yields = true;
            match encoder.write(&slice) {
                Ok(bytes) if bytes.is_empty() => {}
                made => return Poll::Ready(Some(made.map(Frame::data))),
            }
        }
    }

    fn finish(&mut self) -> io::Result<Option<Frame<Bytes>>> {
        if let Some(mut encoder) = self.encoder.take() {
            return Ok(Some(Frame::data(encoder.finish()?)));
        }
        Ok(self.trailers.take().map(Frame::trailers))
    }
}

impl Encoder {
    fn write(&mut self, mut slice: &[u8]) -> io::Result<Bytes> {
        while !slice.is_empty() {
            let written = ready(self.writer().poll_write(&mut context(), slice))?;
            slice = &slice[written..];
        }
        Ok(self.take())
    }

    fn flush(&mut self) -> io::Result<Bytes> {
        ready(self.writer().poll_flush(&mut context()))?;
        Ok(self.take())
    }

    fn finish(&mut self) -> io::Result<Bytes> {
        ready(self.writer().poll_shutdown(&mut context()))?;
        Ok(self.take())
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Brotli(encoder) => Pin::new(&mut **encoder),
            Self::Zstd(encoder) => Pin::new(encoder),
            Self::Gzip(encoder) => Pin::new(encoder),
        }
    }

    /// What has been made.
    fn take(&mut self) -> Bytes {
        let made = match self {
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        };
        std::mem::take(made).into()
    }
}

/// Memory takes all that is written to it, at once.
fn ready<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Compressed in one go: at the slowest levels about a millisecond.
const SLICE: usize = 16 << 10;
/// 256 KiB, as a power of two: a larger window would take more memory for each response than most responses are long.
const BROTLI_WINDOW: i32 = 18;
/// 512 KiB. What browsers take ends at 8 MiB (RFC 9659).
const ZSTD_WINDOW: u32 = 19;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use async_compression::tokio::write::{BrotliDecoder, GzipDecoder, ZstdDecoder};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const LEVELS: Levels = Levels {
        brotli: 4,
        zstd: 3,
        gzip: 4,
    };
    const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    fn compressor(coding: Coding) -> Compressor {
        Compressor::new(coding, LEVELS, Rc::new(()))
    }

    async fn decode(coding: Coding, bytes: &[u8], is_whole: bool) -> Vec<u8> {
        macro_rules! through {
            ($decoder:ident) => {{
                let mut decoder = $decoder::new(Vec::new());
                decoder.write_all(bytes).await.unwrap();
                match is_whole {
                    true => decoder.shutdown().await.unwrap(),
                    false => decoder.flush().await.unwrap(),
                }
                decoder.into_inner()
            }};
        }
        match coding {
            Coding::Brotli => through!(BrotliDecoder),
            Coding::Zstd => through!(ZstdDecoder),
            Coding::Gzip => through!(GzipDecoder),
        }
    }

    fn run(compressor: &mut Compressor, mut plain: impl FnMut() -> Polled) -> (Vec<u8>, Option<HeaderMap>, usize) {
        let (mut out, mut trailers, mut yields) = (Vec::new(), None, 0);
        loop {
            match compressor.poll(&mut context(), |_| plain()) {
                Poll::Ready(Some(frame)) => match frame.unwrap().into_data() {
                    Ok(bytes) => out.extend_from_slice(&bytes),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(None) => return (out, trailers, yields),
                Poll::Pending => yields += 1,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_compressed_is_what_came(
            pieces in proptest::collection::vec(proptest::collection::vec(0u8..8, 0..40_000), 0..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for coding in ALL {
                let mut compressor = compressor(coding);
                let mut left = pieces.iter();
                let (out, _, yields) = run(&mut compressor, || {
                    Poll::Ready(left.next().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))))
                });
                let slices: usize = pieces.iter().map(|piece| piece.len().div_ceil(SLICE)).sum();
                prop_assert_eq!(yields, slices);
                prop_assert!(compressor.is_done());
                let plain = runtime.block_on(decode(coding, &out, true));
                prop_assert_eq!(plain, pieces.concat());
            }
        }
    }

    #[tokio::test]
    async fn what_came_is_with_the_client_before_more_comes() {
        for coding in ALL {
            let mut compressor = compressor(coding);
            let mut out = Vec::new();
            for turn in 0..3 {
                let mut piece = Some(Bytes::from(format!("data: {turn}\n\n")));
                loop {
                    let polled = compressor.poll(&mut context(), |_| match piece.take() {
                        Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                        None => Poll::Pending,
                    });
                    match polled {
                        Poll::Ready(Some(Ok(frame))) => out.extend_from_slice(&frame.into_data().unwrap()),
                        // Not when it only yields.
                        Poll::Pending if !compressor.holds && !compressor.yields => break,
                        Poll::Pending => {}
                        Poll::Ready(_) => panic!("ended"),
                    }
                }
                let plain = decode(coding, &out, false).await;
                assert!(
                    plain.ends_with(format!("data: {turn}\n\n").as_bytes()),
                    "{coding:?} {turn}"
                );
            }
        }
    }

    #[test]
    fn trailers_come_behind_the_content() {
        let mut frames = vec![
            Frame::trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("1"),
            )])),
            Frame::data(Bytes::from_static(b"abc")),
        ];
        let mut compressor = compressor(Coding::Gzip);
        let (out, trailers, _) = run(&mut compressor, || Poll::Ready(frames.pop().map(Ok)));
        assert!(!out.is_empty());
        assert_eq!(trailers.unwrap()["x-sum"], "1");
    }

    /// Frame_Header_Descriptor and Window_Descriptor (RFC 8878, section 3.1.1.1).
    #[test]
    fn zstd_has_a_window_that_browsers_take() {
        let mut block = Some(Bytes::from(vec![b'x'; 1 << 20]));
        let mut compressor = compressor(Coding::Zstd);
        let (out, ..) = run(&mut compressor, || {
            Poll::Ready(block.take().map(|block| Ok(Frame::data(block))))
        });
        assert_eq!(out[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!(out[4] & 0x20, 0, "no single segment");
        let log = 10 + (out[5] >> 3);
        assert!(log <= 23, "{log}");
    }
}
