//! Data that a client sent ahead.

/// Bytes that are used from the front.
#[derive(Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    used: usize,
}

impl Held {
    pub(super) fn add(&mut self, more: &[u8]) {
        // So that no more bytes are moved than were used since.
        if self.used > self.bytes.len() / 2 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// A connection that waits for its next request holds no memory.
    pub(super) fn use_up(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used == self.bytes.len() {
            *self = Held::default();
        }
    }
}
