//! Reading bytes with the decoder, checking it on the way.

use sockmux_uring::wire::WireError;
use sockmux_uring::wire::v03::{Decoder, PAYLOAD_BYTES_MAX, Step};

/// What was read: frames as text, payload, and how it ended.
pub(crate) type Reading = (Vec<String>, Vec<u8>, Result<(), WireError>);

/// Reads the pieces to their end, or to the first error.
pub(crate) fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Reading {
    let mut decoder = Decoder::new();
    let (mut frames, mut payload) = (Vec::new(), Vec::new());
    // Payload that the frames read so far have announced.
    let mut announced = 0;
    for mut input in pieces {
        loop {
            let (n, step) = match decoder.step(input) {
                Ok(step) => step,
                Err(error) => return (frames, payload, Err(error)),
            };
            assert!(n <= input.len());
            match step {
                Step::Frame(frame) => {
                    assert_eq!(payload.len() as u64, announced, "a frame inside of payload");
                    assert!(frame.payload_bytes() <= PAYLOAD_BYTES_MAX);
                    announced += u64::from(frame.payload_bytes());
                    frames.push(format!("{frame:?}"));
                }
                Step::Payload => {
                    assert!(n > 0, "no way forward");
                    payload.extend_from_slice(&input[..n]);
                    assert!(payload.len() as u64 <= announced, "payload that nothing announced");
                }
                Step::More => {
                    assert_eq!(n, input.len(), "More must consume everything");
                    break;
                }
            }
            input = &input[n..];
        }
    }
    (frames, payload, Ok(()))
}
