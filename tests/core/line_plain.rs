//! One end of a serial line towards an original, by hand: bytes pass unchanged, and the HELLO is repeated
//! as often as needed.

use sockmux_uring::limits::LINE_PROBE_MICROS;
use sockmux_uring::serial_line::{LineChecks, LineError, LineMode};

use crate::testkit::pure::line_end::{End, hello, original_hello, original_hello_ok};

/// Everything of an original's hello, and something behind it.
fn original() -> Vec<u8> {
    [&original_hello()[..], &original_hello_ok(), b"\x03\x0arest"].concat()
}

#[test]
fn hello_goes_out_every_second_until_somebody_answers() {
    let mut end = End::new(LineChecks::WherePeerDoes);
    let own = hello(true);
    let (first, second) = own.split_at(5);
    end.write(first);
    assert_eq!(end.output(), b"", "it goes out whole");
    end.write(second);
    assert_eq!(end.line.room_bytes(end.now), 0);
    assert_eq!(end.output(), own);
    assert_eq!(end.line.write(b"more", end.now), 0);
    // With its time on the line, three more fit into three and a half seconds.
    assert_eq!(end.pass(7 * LINE_PROBE_MICROS / 2), own.repeat(3));
    assert_eq!(end.line.mode(), LineMode::Probing);
}

#[test]
fn an_original_is_spoken_to_plainly() {
    for piece in [1, 10, 1_000] {
        let mut end = End::greeting();
        end.received(b"noise \x7e\x03\x01");
        for piece in original().chunks(piece) {
            end.received(piece);
        }
        assert_eq!(end.line.mode(), LineMode::Plain);
        assert_eq!(end.read(), original());
        end.pass(20_000);
        end.write(b"anything at all \x7e\x7d\x11");
        assert_eq!(end.output(), b"anything at all \x7e\x7d\x11");
        // It has answered: a second HELLO would end its tunnel.
        assert_eq!(end.pass(10 * LINE_PROBE_MICROS), b"");
    }
}

#[test]
fn an_original_that_does_not_answer_is_greeted_once_more() {
    let mut end = End::greeting();
    end.received(&original_hello());
    end.pass(20_000);
    // Not in the middle of a packet, or nothing behind it could be read.
    let (first, rest) = (&original_hello_ok()[..20], &original_hello_ok()[20..]);
    end.write(first);
    assert_eq!(end.output(), first);
    assert_eq!(end.pass(LINE_PROBE_MICROS), b"");
    end.write(rest);
    assert_eq!(end.output(), [rest, &hello(true)].concat());
    assert_eq!(end.pass(10 * LINE_PROBE_MICROS), b"");
}

/// A peer that answers has sent its own HELLO before, and we have not received it. An original does not
/// repeat it: its answer has to do, and the bytes behind that are not lost.
#[test]
fn an_answer_alone_is_an_originals_when_no_hello_follows() {
    let behind = b"\x03\x0arest\x03\x01";
    for piece in [1, 7, 1_000] {
        let mut end = End::greeting();
        end.received(b"noise \x03");
        for piece in [&original_hello_ok()[..], behind].concat().chunks(piece) {
            end.received(piece);
        }
        // A native peer without checks would repeat its HELLO within half a second.
        assert_eq!(end.pass(LINE_PROBE_MICROS / 2), b"");
        assert_eq!((end.line.mode(), end.read()), (LineMode::Probing, Vec::new()));
        // An original counts those that it hears: no other goes out meanwhile.
        assert_eq!(end.pass(LINE_PROBE_MICROS / 2), b"");
        assert_eq!(end.line.mode(), LineMode::Plain);
        assert_eq!(end.read(), [&original_hello_ok()[..], behind].concat());
        assert_eq!(end.pass(10 * LINE_PROBE_MICROS), b"");
    }
}

/// It has clients of its own, and talks.
#[test]
fn an_answer_with_much_behind_it_is_an_originals_at_once() {
    let mut end = End::greeting();
    let bytes = [&original_hello_ok()[..], &b"\x03\x06 data".repeat(600)].concat();
    bytes.chunks(100).for_each(|piece| end.received(piece));
    assert_eq!(end.line.mode(), LineMode::Plain);
    assert_eq!(end.read(), bytes);
}

/// Of a native peer, for either end.
#[test]
fn an_answer_before_our_first_hello_decides_nothing() {
    let mut end = End::new(LineChecks::WherePeerDoes);
    end.received(&original_hello_ok());
    assert_eq!(end.pass(2 * LINE_PROBE_MICROS), b"");
    assert_eq!(end.line.mode(), LineMode::Probing);
}

#[test]
fn a_hello_that_follows_an_answer_decides() {
    let mut end = End::greeting();
    end.received(&original_hello_ok());
    end.pass(LINE_PROBE_MICROS / 2);
    end.received(&hello(true));
    assert_eq!(end.line.mode(), LineMode::Probing, "our own, sent back");
    end.received(&hello(false));
    assert_eq!(end.line.mode(), LineMode::Plain);
    assert_eq!(end.read(), [&hello(false)[..], &original_hello_ok()].concat());
}

#[test]
fn an_original_heard_first_is_greeted_by_the_session() {
    let mut end = End::new(LineChecks::WherePeerDoes);
    end.received(&original_hello());
    end.write(&hello(true));
    assert_eq!(end.output(), hello(true));
    assert_eq!(end.pass(10 * LINE_PROBE_MICROS), b"");
}

#[test]
fn a_damaged_hello_decides_nothing() {
    // A flipped bit in the host's name makes another valid name.
    let name = 8 + 23..8 + 25;
    for at in (0..original_hello().len()).filter(|at| !name.contains(at)) {
        let mut damaged = original_hello();
        damaged[at] ^= 0x80;
        let lost = [&original_hello()[..at], &original_hello()[at + 1..]].concat();
        for damaged in [damaged, lost] {
            // Its ids have no meaning, and may have any value.
            if (2..6).contains(&at) && damaged.len() == original_hello().len() {
                continue;
            }
            let mut end = End::greeting();
            end.received(&damaged);
            assert_eq!(end.line.mode(), LineMode::Probing, "byte {at}");
            assert_eq!(end.read(), b"");
            end.received(&original_hello());
            assert_eq!(end.line.mode(), LineMode::Plain, "byte {at}");
            assert_eq!(end.read(), original_hello());
        }
    }
}

#[test]
fn one_of_ours_without_the_link_layer_is_spoken_to_plainly() {
    let mut end = End::greeting();
    end.received(&hello(false));
    assert_eq!(end.line.mode(), LineMode::Plain);
    assert_eq!(end.read(), hello(false));
}

#[test]
fn our_own_hello_sent_back_decides_nothing() {
    let mut end = End::greeting();
    end.received(&hello(true));
    assert_eq!(end.line.mode(), LineMode::Probing);
}

/// The peer heard our HELLO, and its own came when we were not there to hear it.
#[test]
fn an_answer_before_the_hello_stands_behind_it() {
    for piece in [1, 7, 1_000] {
        let mut end = End::greeting();
        let bytes = [&original_hello_ok()[..], &original_hello(), b"\x03\x0arest"].concat();
        for piece in bytes.chunks(piece) {
            end.received(piece);
        }
        assert_eq!(end.line.mode(), LineMode::Plain);
        assert_eq!(end.read(), original());
        assert_eq!(end.pass(10 * LINE_PROBE_MICROS), b"", "it has answered");
    }
}

#[test]
fn without_checks_all_passes_once_the_peer_is_heard() {
    let mut end = End::new(LineChecks::Never);
    end.write(&hello(false));
    assert_eq!(end.output(), hello(false));
    // The other end was not open yet.
    assert_eq!(end.pass(3 * LINE_PROBE_MICROS / 2), hello(false));
    end.received(&hello(true));
    assert_eq!(end.line.mode(), LineMode::Plain);
    assert_eq!(end.read(), hello(true));
    end.received(&original_hello_ok());
    assert_eq!(end.pass(10 * LINE_PROBE_MICROS), b"");
}

/// Where nothing may pass unchecked. What it says are frames.
#[test]
fn an_end_that_needs_checks_calls_by_frames_and_takes_no_other_peer() {
    let mut end = End::new(LineChecks::Always);
    assert_eq!(end.line.room_bytes(end.now), 0);
    assert_eq!(end.line.write(b"a secret", end.now), 0);
    let call = end.output();
    assert!(call.starts_with(b"\x7e\x10") && call.ends_with(b"\x7e"), "{call:02x?}");
    assert_eq!(
        end.pass(7 * LINE_PROBE_MICROS / 2),
        call.repeat(3),
        "each second, until it is heard"
    );
    assert_eq!((end.line.mode(), end.line.is_up()), (LineMode::Probing, false));
    // A peer that would check is called on, until it answers by frames as well.
    let mut other = End::new(LineChecks::Always);
    other.received(&hello(true));
    assert_eq!((other.line.mode(), other.line.room_bytes(other.now)), (LineMode::Checked, 0));
    for plain in [hello(false), original_hello()] {
        let mut end = End::new(LineChecks::Always);
        let refused = end.line.received(&[b"noise \x7e\x03", &plain[..]].concat(), end.now);
        assert_eq!(refused, Err(LineError::Unchecked));
        assert_eq!((end.output(), end.read()), (Vec::new(), Vec::new()));
        assert_eq!(end.line.room_bytes(end.now), 0);
    }
}
