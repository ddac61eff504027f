//! Reads bytes with the decoder, and checks its contract.

use sockmux_uring::wire::v1::DATA_BYTES_MAX;
use sockmux_uring::wire::v03::{Encoder, Offer, PAYLOAD_BYTES_MAX};
use sockmux_uring::wire::{DecodeStep, Decoder, WireError};

/// The result: frames as text, payload, and the error, if any.
pub(crate) type Reading = (Vec<String>, Vec<u8>, Result<(), WireError>);

/// Packets of [`hello`].
pub(crate) const HELLO_PACKETS: usize = 3;

/// The packets after which a peer speaks this protocol; none for 0.3.
pub(crate) fn hello(newest: u8) -> Vec<u8> {
    let mut out = Vec::new();
    if newest >= 1 {
        let offer = Offer {
            newest,
            half_close: true,
            datagrams: true,
            checked_line: false,
            ports: true,
            entrances: true,
            window_bytes: 1 << 20,
            streams_max: 100,
        };
        Encoder.hello(&mut out, "20260101-000000.000000 peer", Some(offer), None);
        Encoder.hello_ok(&mut out, (255, 255), "20260101-000000.000000 peer");
        Encoder.hello_ok(&mut out, (255, 255), "20260101-000000.000000 peer");
    }
    out
}

/// Reads the pieces up to the first error, with this protocol as our newest.
pub(crate) fn read<'a>(newest: u8, pieces: impl Iterator<Item = &'a [u8]>) -> Reading {
    let payload_max = if newest >= 1 { DATA_BYTES_MAX } else { PAYLOAD_BYTES_MAX };
    let mut decoder = Decoder::new(newest);
    let (mut frames, mut payload) = (Vec::new(), Vec::new());
    // Payload announced by the frames so far.
    let mut announced = 0;
    for mut input in pieces {
        loop {
            let (n, step) = match decoder.step(input) {
                Ok(step) => step,
                Err(error) => return (frames, payload, Err(error)),
            };
            assert!(n <= input.len());
            match step {
                DecodeStep::Frame(frame) => {
                    assert_eq!(payload.len() as u64, announced, "a frame inside of payload");
                    assert!(frame.payload_bytes() <= payload_max);
                    announced += u64::from(frame.payload_bytes());
                    frames.push(format!("{frame:?}"));
                }
                DecodeStep::Payload => {
                    assert!(n > 0, "no way forward");
                    payload.extend_from_slice(&input[..n]);
                    assert!(payload.len() as u64 <= announced, "payload that nothing announced");
                }
                DecodeStep::More => {
                    assert_eq!(n, input.len(), "More must consume everything");
                    break;
                }
            }
            input = &input[n..];
        }
    }
    (frames, payload, Ok(()))
}
