//! What becomes of a response's content on its way: it is taken out of one coding, put into another, or both.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, response};
use http_body::Frame;

use super::coded;
use super::compression::{self, Compressor};
use super::decompression::{self, Decompressor};
use super::local::Local;
use crate::config::{Compress, Decompress};

/// Content on its way through a decoder, an encoder, or both.
pub struct Recoding {
    decompressor: Option<Decompressor>,
    compressor: Option<Compressor>,
}

/// What the configuration says of responses, and what this client takes.
pub struct Wanted<'a> {
    pub decompress: Option<(&'a Decompress, decompression::Asked)>,
    pub compress: Option<(&'a Compress, compression::Asked)>,
    /// The tags that this client knows, where some are weak.
    known: Option<Box<HeaderValue>>,
}

impl<'a> Wanted<'a> {
    /// For the response to a request with these fields.
    pub fn new(
        decompress: Option<(&'a Decompress, decompression::Asked)>,
        compress: Option<(&'a Compress, compression::Asked)>,
        request: &HeaderMap,
    ) -> Self {
        let may_change = decompress.is_some() || compress.is_some();
        Self {
            decompress,
            compress,
            known: may_change.then(|| coded::weak_tags(request)).flatten(),
        }
    }

    /// Whether a response has to be looked at.
    pub fn is_any(&self) -> bool {
        self.decompress.is_some() || self.compress.is_some()
    }

    /// Decides on a response, and has its head say so. Boxed: few are.
    pub fn of(self, head: &mut response::Parts, has_content: bool, local: &Local) -> Option<Box<Recoding>> {
        if let Some(known) = &self.known
            && head.status == StatusCode::NOT_MODIFIED
        {
            coded::keep_weak(&mut head.headers, known);
        }
        let decompressor = self.decompress.and_then(|(decompress, asked)| {
            decompression::answer(decompress, asked, head, has_content, local.decompressions())
        });
        let compressor = self.compress.and_then(|(compress, asked)| {
            compression::answer(compress, asked, head, has_content, local.compressions())
        });
        (decompressor.is_some() || compressor.is_some()).then(|| {
            Box::new(Recoding {
                decompressor,
                compressor,
            })
        })
    }
}

impl Recoding {
    /// Whether nothing more comes.
    pub fn is_done(&self) -> bool {
        match (&self.compressor, &self.decompressor) {
            (Some(compressor), _) => compressor.is_done(),
            (None, decompressor) => decompressor.as_ref().is_none_or(Decompressor::is_done),
        }
    }

    /// The next piece for the client. `source` brings the content as the server sends it.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self {
            decompressor,
            compressor,
        } = self;
        let mut plain = |cx: &mut Context<'_>| match decompressor {
            Some(decompressor) => decompressor.poll(cx, &mut source),
            None => source(cx),
        };
        match compressor {
            Some(compressor) => compressor.poll(cx, plain),
            None => plain(cx),
        }
    }
}
