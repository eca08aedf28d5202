//! A request body: chunks from the socket in, plain bytes out, decompressed and counted against a limit.
//!
//! What may fail: the body is too large, breaks off, is not the gzip it says it is, or does not come in time.

use std::future::Future;
use std::io::Write as _;

use actix_web::http::header::{CONTENT_ENCODING, HeaderMap};
use actix_web::web;
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::exception::{Exception, codes};
use crate::clock;

/// See the module.
pub struct Body {
    payload: web::Payload,
    decoder: Option<GzDecoder<Vec<u8>>>,
    seen: usize,
    limit: usize,
    /// When reading is given up.
    pub deadline: Instant,
}

impl Body {
    /// A body of at most `limit` bytes after decompression.
    ///
    /// # Errors
    /// `NOT_IMPLEMENTED` for a content encoding other than gzip.
    pub fn new(payload: web::Payload, headers: &HeaderMap, limit: usize) -> Result<Self, Exception> {
        let encoding = headers.get(CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("identity");
        let decoder = match encoding {
            "" | "identity" => None,
            "gzip" => Some(GzDecoder::new(Vec::new())),
            other => {
                return Err(Exception::new(
                    codes::NOT_IMPLEMENTED,
                    format_args!("content encoding {other} is not supported, use gzip or none"),
                ));
            }
        };
        Ok(Self { payload, decoder, seen: 0, limit, deadline: clock::now() })
    }

    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// See the module.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Exception> {
        let next = timeout_at(self.deadline, self.payload.next()).await.map_err(|_| too_slow())?;
        let chunk = match next {
            Some(Ok(chunk)) => chunk,
            Some(Err(e)) => {
                return Err(Exception::new(
                    codes::NETWORK_ERROR,
                    format_args!("the request body broke off: {e}"),
                ));
            }
            None => return self.rest(),
        };
        let chunk = match &mut self.decoder {
            None => chunk,
            Some(decoder) => {
                decoder.write_all(&chunk).map_err(bad_gzip)?;
                Bytes::from(std::mem::take(decoder.get_mut()))
            }
        };
        self.count(chunk).map(Some)
    }

    /// The whole rest.
    ///
    /// # Errors
    /// As [`Body::next`], and when more than `limit` bytes remain.
    pub async fn read_all(&mut self, limit: usize) -> Result<Vec<u8>, Exception> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await? {
            if all.len() + chunk.len() > limit {
                return Err(too_large(limit));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Awaits `future` within this body's deadline.
    ///
    /// # Errors
    /// `TIMEOUT_EXCEEDED` at the deadline.
    pub async fn within<F: Future>(&self, future: F) -> Result<F::Output, Exception> {
        timeout_at(self.deadline, future).await.map_err(|_| too_slow())
    }

    fn rest(&mut self) -> Result<Option<Bytes>, Exception> {
        let Some(mut decoder) = self.decoder.take() else { return Ok(None) };
        decoder.try_finish().map_err(bad_gzip)?;
        let rest = Bytes::from(std::mem::take(decoder.get_mut()));
        if rest.is_empty() { Ok(None) } else { self.count(rest).map(Some) }
    }

    fn count(&mut self, chunk: Bytes) -> Result<Bytes, Exception> {
        self.seen += chunk.len();
        if self.seen > self.limit { Err(too_large(self.limit)) } else { Ok(chunk) }
    }
}

fn too_slow() -> Exception {
    Exception::new(codes::TIMEOUT_EXCEEDED, "Timeout exceeded: the request body did not come in time")
}

fn too_large(limit: usize) -> Exception {
    Exception::new(codes::TOO_LARGE, format_args!("the request is over the limit of {limit} bytes"))
}

fn bad_gzip(error: std::io::Error) -> Exception {
    Exception::new(codes::INCORRECT_DATA, format_args!("the body is not valid gzip: {error}"))
}
