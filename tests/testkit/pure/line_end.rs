//! A single end of a serial line.

use sockmux_uring::serial_line::{LineChecks, LineConfig, LineProtocol};
use sockmux_uring::session::Moment;
use sockmux_uring::wire::v03::{Encoder, Offer};

/// The HELLO of our session, with or without the flag of the link layer.
pub(crate) fn hello(checked_line: bool) -> Vec<u8> {
    let offer = Offer {
        newest: 1,
        half_close: true,
        datagrams: true,
        checked_line,
        ports: true,
        entrances: true,
        window_bytes: 1 << 20,
        streams_max: 16_000,
    };
    let mut out = Vec::new();
    Encoder.hello(&mut out, "20261122-175008.475200 ours", Some(offer), None);
    out
}

/// A HELLO of the original, from `tests/traces/handshake.json`.
pub(crate) fn original_hello() -> Vec<u8> {
    let text = b"20261122-175008.475200 vm\0";
    [&[3, 1, 0x4c, 0x45, 0x47, 0x41, 0, 0x1a], &text[..]].concat()
}

/// A HELLOOK of the original.
pub(crate) fn original_hello_ok() -> Vec<u8> {
    let mut packet = original_hello();
    packet[1] = 0x41;
    packet
}

pub(crate) struct End {
    pub line: LineProtocol,
    pub now: Moment,
}

impl End {
    /// An end of a line of 115,200 baud.
    pub(crate) fn new(checks: LineChecks) -> End {
        let now = Moment(1_000_000);
        let config = LineConfig { bytes_per_second: 11_520, incarnation: 7, checks };
        End { line: LineProtocol::new(config, now), now }
    }

    /// An end that has sent its HELLO once.
    pub(crate) fn greeting() -> End {
        let mut end = End::new(LineChecks::WherePeerDoes);
        end.write(&hello(true));
        assert_eq!(end.output(), hello(true));
        end
    }

    /// Writes all bytes, as room permits.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.line.write(bytes, self.now);
            assert!(taken > 0, "no room for {} bytes", bytes.len());
            bytes = &bytes[taken..];
        }
    }

    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.line.received(bytes, self.now).expect("a line");
    }

    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.line.read(&mut out);
        out
    }

    /// All bytes for the device now.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.line.poll_output(&mut out, self.now);
        out
    }

    /// Runs from timeout to timeout, and returns the bytes for the device.
    pub(crate) fn pass(&mut self, micros: u64) -> Vec<u8> {
        let until = Moment(self.now.0 + micros);
        let mut out = Vec::new();
        while let Some(at) = self.line.next_timeout().filter(|at| *at <= until) {
            self.now = at;
            self.line.on_time(at).expect("a line");
            self.line.poll_output(&mut out, at);
        }
        self.now = until;
        out
    }
}
