//! Walks the frames of one file: bytes on disk → heads and bodies in order; damage is named and can be stepped over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::frame::{HEAD_LEN, Head, MARKER};

const SEARCH_BYTES: u64 = 64 * 1024;

/// What stands at the walker's position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A head that checks out and whose body lies within the file.
    Frame(Head),
    /// Bytes that are no frame, and why.
    Bad(&'static str),
    /// The end.
    End,
}

/// A position in a file of frames, reading ahead by a fixed number of bytes.
pub(super) struct Walker<'a> {
    file: &'a File,
    salt: u32,
    pos: u64,
    limit: u64,
    read_ahead: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl<'a> Walker<'a> {
    /// A walker over `pos..limit` of `file` that reads at least `read_ahead` bytes at a time (as far as there are).
    pub(super) fn new(file: &'a File, salt: u32, pos: u64, limit: u64, read_ahead: u64) -> Self {
        Self { file, salt, pos, limit, read_ahead, chunk: Bytes::new(), chunk_at: 0 }
    }

    /// Byte position in the file.
    pub(super) fn position(&self) -> u64 {
        self.pos
    }

    /// Looks at what stands here, without moving and without reading the body.
    pub(super) fn look(&mut self) -> io::Result<Found> {
        if self.pos >= self.limit {
            return Ok(Found::End);
        }
        if self.limit - self.pos < HEAD_LEN as u64 {
            return Ok(Found::Bad("the file ends within the head of a record"));
        }
        let bytes = self.bytes(self.pos, HEAD_LEN as u64)?;
        Ok(match Head::decode(&bytes, self.salt) {
            None => Found::Bad("the head of a record does not match its checksum"),
            Some(head) if self.limit - self.pos < head.frame_len() => {
                Found::Bad("the file ends within the body of a record")
            }
            Some(head) => Found::Frame(head),
        })
    }

    /// The body of the frame here, or `None` when it does not match its checksum.
    pub(super) fn body(&mut self, head: &Head) -> io::Result<Option<Bytes>> {
        let body = self.bytes(self.pos + HEAD_LEN as u64, u64::from(head.body_len))?;
        Ok(head.matches(&body, self.salt).then_some(body))
    }

    /// Moves past the frame here.
    pub(super) fn step(&mut self, head: &Head) {
        self.pos += head.frame_len();
    }

    /// Moves from damage to the next frame that checks out in whole; `None` (and no move) when there is none.
    pub(super) fn resync(&mut self) -> io::Result<Option<Head>> {
        let damaged = self.pos;
        // A sound head over a damaged body tells where the next frame begins.
        let mut at = match self.look()? {
            Found::Frame(head) => damaged + head.frame_len(),
            _ => damaged + 1,
        };
        while at + HEAD_LEN as u64 <= self.limit {
            let window = self.bytes(at, SEARCH_BYTES.min(self.limit - at))?;
            match window.windows(MARKER.len()).position(|w| w == MARKER) {
                None => at += (window.len() - MARKER.len() + 1) as u64,
                Some(found) => {
                    self.pos = at + found as u64;
                    if let Found::Frame(head) = self.look()?
                        && self.body(&head)?.is_some()
                    {
                        return Ok(Some(head));
                    }
                    at = self.pos + 1;
                }
            }
        }
        self.pos = damaged;
        Ok(None)
    }

    fn bytes(&mut self, at: u64, len: u64) -> io::Result<Bytes> {
        let have = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if at < have.start || at + len > have.end {
            let want = len.max(self.read_ahead).min(self.limit - at);
            let mut buffer = vec![0; want as usize];
            self.file.read_exact_at(&mut buffer, at)?;
            self.chunk = Bytes::from(buffer);
            self.chunk_at = at;
        }
        let start = (at - self.chunk_at) as usize;
        Ok(self.chunk.slice(start..start + len as usize))
    }
}
