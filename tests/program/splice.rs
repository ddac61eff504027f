//! Bulk that is spliced past the process: every byte is right whatever happens within a frame, and the
//! counters prove that it was spliced.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;

use crate::testkit::net::{Ended, check_new_echo, connect, read_to_end_of};
use crate::testkit::pattern::Pattern;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// How bulk is moved, at both ends.
const WAYS: [&str; 3] = ["auto", "copy", "splice"];

fn tunnel(way: &str, server: &Server) -> Tunnel {
    let way = format!("SOXCONF=bulk:{way}");
    Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}", server.address()), way.clone()],
        &[String::from("PORT=127.0.0.1:0"), way],
    )
}

/// Ends both, and returns the payload that each spliced: from local sockets and to them.
fn stop(mut tunnel: Tunnel) -> [[u64; 2]; 2] {
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(DEADLINE);
    tunnel.receptor.terminate();
    tunnel.receptor.wait_exit(DEADLINE);
    [&tunnel.connector, &tunnel.receptor].map(|program| {
        let event = program.wait_for("stopped");
        ["spliced_from_local", "spliced_to_local"]
            .map(|name| event[name].as_u64().unwrap_or_else(|| panic!("no {name} in {event}")))
    })
}

#[test]
fn bulk_goes_by_the_way_that_was_asked_for_and_arrives_whole() {
    const BYTES: u64 = 200 << 20;
    for way in WAYS {
        let server = Server::exchange();
        let tunnel = tunnel(way, &server);
        Exchange { seed: 1, up_bytes: BYTES, down_bytes: BYTES }.run(tunnel.entrance());
        let counts = stop(tunnel);
        for [from_local, to_local] in counts {
            match way {
                "copy" => assert_eq!([from_local, to_local], [0, 0], "{counts:?}"),
                // How big the frames are that it makes of this, for the other end to splice, is
                // the machine's affair,
                "splice" => assert!(from_local > BYTES / 2 && to_local > 0, "{counts:?}"),
                // and so is how much of it pays.
                _ => assert!(from_local <= BYTES && to_local <= BYTES, "{counts:?}"),
            }
        }
    }
}

#[test]
fn ends_that_move_bulk_differently_understand_each_other() {
    for (one, other) in [("splice", "copy"), ("copy", "splice")] {
        let server = Server::exchange();
        let tunnel = Tunnel::start(
            Protocol::V1,
            &[format!("DEST={}", server.address()), format!("SOXCONF=bulk:{one}")],
            &[String::from("PORT=127.0.0.1:0"), format!("SOXCONF=bulk:{other}")],
        );
        Exchange { seed: 2, up_bytes: 50 << 20, down_bytes: 50 << 20 }.run(tunnel.entrance());
    }
}

#[test]
fn a_hundred_streams_share_fewer_pipes_and_the_rest_is_copied() {
    let server = Server::exchange();
    let tunnel = tunnel("splice", &server);
    let entrance = tunnel.entrance();
    std::thread::scope(|scope| {
        for seed in 0..100 {
            scope.spawn(move || {
                Exchange { seed, up_bytes: 3 << 20, down_bytes: 3 << 20 }.run(entrance);
            });
        }
    });
    let counts = stop(tunnel);
    // Whether shares of a hundred make frames that are big enough for the other end to splice is the
    // machine's affair.
    assert!(counts.into_iter().all(|[from_local, _]| from_local > 0), "{counts:?}");
}

/// A question, then much, then a question again, in one stream: it changes its way each time.
#[test]
fn a_stream_changes_between_keystrokes_and_bulk() {
    let server = Server::echo();
    let tunnel = tunnel("auto", &server);
    let stream = connect(tunnel.entrance());
    let (mut send, mut receive) = (Pattern::new(5), Pattern::new(5));
    for _ in 0..5 {
        for bytes in [1, 64, 5_000, 1] {
            send.send(&mut &stream, bytes).expect("sent");
            receive.receive(&mut &stream, bytes).expect("echoed");
        }
        std::thread::scope(|scope| {
            scope.spawn(|| send.send(&mut &stream, 30 << 20).expect("sent"));
            receive.receive(&mut &stream, 30 << 20).expect("echoed");
        });
    }
}

#[test]
fn an_answer_to_a_bulk_upload_comes_after_its_end() {
    for way in WAYS {
        let server = Server::start("127.0.0.1:0", |mut stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            Pattern::new(6).check(&bytes);
            Pattern::new(7).send(&mut stream, bytes.len() as u64)
        });
        let tunnel = tunnel(way, &server);
        let mut stream = connect(tunnel.entrance());
        Pattern::new(6).send(&mut stream, 40_000_001).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half-closed");
        Pattern::new(7).receive(&mut stream, 40_000_001).expect("the answer");
        assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
    }
}

/// A splice does not go past urgent data.
#[test]
fn urgent_data_in_the_middle_of_bulk_does_not_stop_it() {
    const BYTES: u64 = 20 << 20;
    for way in WAYS {
        let server = Server::start("127.0.0.1:0", |mut stream| {
            // Urgent bytes are not read with the rest.
            Pattern::new(11).receive(&mut stream, 3 * BYTES)?;
            stream.write_all(b"k")
        });
        let tunnel = tunnel(way, &server);
        let mut stream = connect(tunnel.entrance());
        let mut pattern = Pattern::new(11);
        for _ in 0..2 {
            pattern.send(&mut stream, BYTES).expect("sent");
            SockRef::from(&stream).send_out_of_band(b"!").expect("sent");
        }
        pattern.send(&mut stream, BYTES).expect("sent");
        stream.read_exact(&mut [0]).expect("the verdict");
    }
}

/// One end of a stream ends while frames of it are half sent: the frame is finished, although it has no
/// receiver any more, and the other streams are not affected.
#[test]
fn a_reset_in_the_middle_of_a_frame_leaves_the_other_streams_alone() {
    let server = Server::exchange();
    let tunnel = tunnel("splice", &server);
    let entrance = tunnel.entrance();
    std::thread::scope(|scope| {
        let steady = scope.spawn(move || {
            Exchange { seed: 8, up_bytes: 300 << 20, down_bytes: 300 << 20 }.run(entrance);
        });
        let mut seed = 100;
        while !steady.is_finished() {
            seed += 1;
            let stream = connect(entrance);
            Exchange { seed, up_bytes: 64 << 20, down_bytes: 64 << 20 }.ask(&stream);
            Pattern::new(seed * 2).send(&mut &stream, 2 << 20).expect("sent");
            Pattern::new(seed * 2 + 1).receive(&mut &stream, 1 << 20).expect("received");
            // Unread data makes the close a reset.
            drop(stream);
        }
    });
    Exchange { seed: 9, up_bytes: 1 << 20, down_bytes: 1 << 20 }.run(entrance);
}

/// Its pipe is full, its socket is full, and the connection must stay readable.
#[test]
fn a_reader_that_stands_still_in_bulk_holds_up_only_itself() {
    for way in WAYS {
        const BYTES: u64 = 100 << 20;
        let go = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&go);
        let server = Server::start("127.0.0.1:0", move |mut stream| {
            let mut kind = [0];
            stream.read_exact(&mut kind)?;
            if kind == *b"s" {
                assert!(eventually(DEADLINE, || gate.load(Ordering::SeqCst)));
            }
            Pattern::new(10).receive(&mut stream, BYTES)?;
            stream.write_all(b"k")
        });
        let tunnel = tunnel(way, &server);
        let entrance = tunnel.entrance();
        let upload = move |kind: &[u8]| {
            let mut stream: TcpStream = connect(entrance);
            stream.write_all(kind).expect("sent");
            Pattern::new(10).send(&mut stream, BYTES).expect("sent");
            stream.read_exact(&mut [0]).expect("the verdict");
        };
        std::thread::scope(|scope| {
            let slow = scope.spawn(move || upload(b"s"));
            upload(b"f");
            upload(b"f");
            assert!(!slow.is_finished());
            go.store(true, Ordering::SeqCst);
        });
    }
}

/// Bulk streams with blocked readers hold pipes, which are few: a stream that flows gets them, and the
/// bytes that were in them arrive all the same.
#[test]
fn streams_that_stand_still_give_their_pipes_to_one_that_flows() {
    const STILL: u64 = 30;
    const STILL_BYTES: u64 = 10 << 20;
    const FLOWING_BYTES: u64 = 100 << 20;
    let go = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&go);
    let server = Server::start("127.0.0.1:0", move |mut stream| {
        let mut seed = [0];
        stream.read_exact(&mut seed)?;
        let bytes = match seed {
            [0] => FLOWING_BYTES,
            _ => {
                assert!(eventually(DEADLINE, || gate.load(Ordering::SeqCst)));
                STILL_BYTES
            }
        };
        Pattern::new(seed[0].into()).receive(&mut stream, bytes)?;
        stream.write_all(b"k")
    });
    let words = ["SOXCONF=bulk:splice", "-vv"].map(String::from);
    let destination = [format!("DEST={}", server.address())];
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[&destination[..], &words].concat(),
        &[&[String::from("PORT=127.0.0.1:0")][..], &words].concat(),
    );
    let entrance = tunnel.entrance();
    let upload = move |seed: u8, bytes: u64| {
        let mut stream: TcpStream = connect(entrance);
        stream.write_all(&[seed]).expect("sent");
        Pattern::new(seed.into()).send(&mut stream, bytes).expect("sent");
        stream.read_exact(&mut [0]).expect("the verdict");
    };
    let said = "pipes of streams that stand still";
    std::thread::scope(|scope| {
        for seed in 1..=STILL as u8 {
            scope.spawn(move || upload(seed, STILL_BYTES));
        }
        let told = || [&tunnel.connector, &tunnel.receptor].iter().any(|end| end.count(said) > 0);
        // Repeated until the others have stalled.
        assert!(eventually(DEADLINE, || {
            upload(0, FLOWING_BYTES);
            told()
        }));
        go.store(true, Ordering::SeqCst);
    });
}

#[test]
fn nothing_is_left_open_when_spliced_streams_have_ended() {
    const STREAMS: u64 = 40;
    let server = Server::echo();
    let tunnel = tunnel("splice", &server);
    let run = || {
        for seed in 0..STREAMS {
            check_new_echo(tunnel.entrance(), seed, 2 << 20);
        }
    };
    let open = || [&tunnel.connector, &tunnel.receptor].map(|program| program.descriptors());
    run();
    let before = open();
    run();
    // Streams overlap at their ends, so that some more pipes than before may be kept for the next.
    let settled = eventually(DEADLINE, || {
        open().iter().zip(before).all(|(&now, before)| now < before + STREAMS as usize / 2)
    });
    assert!(settled, "descriptors leak: {before:?}, then {:?}", open());
}
