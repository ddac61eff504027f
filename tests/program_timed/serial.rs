//! The persistent connection over a serial line: its throughput, the delay of keystrokes beside bulk, and
//! its integrity on a bad line.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::termios::tcgetattr;

use crate::testkit::net::{check_echo, check_new_echo, connect, reset};
use crate::testkit::original::{Manners, Original, Service};
use crate::testkit::pattern::Pattern;
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::serial_line::{End, Faults, SerialLine};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::services::{run, sshd};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{BROKE, GOES_ON, check_nothing_is_left};
use crate::testkit::{DEADLINE, eventually, wait_until_still};

pub(crate) const ENTRANCE: &str = "PORT=127.0.0.1:0";

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// The usual rate of a line.
pub(crate) const BAUD: u32 = 115_200;

/// The rate in the command lines where the line itself has no pacing.
pub(crate) const FAST: &str = "?baud=12000000";

pub(crate) fn start(line: &SerialLine, end: End, options: &str, more: &[&str]) -> Program {
    let device = format!("SERVER=sockmux:comm@{}{options}", line.path(end).display());
    let words: Vec<&str> = [device.as_str()].iter().chain(more).copied().collect();
    Program::start(&words)
}

/// The exit to a server.
pub(crate) fn end_of(server: &Server) -> String {
    format!("DEST={}", server.address())
}

/// Two ends, joined; clients come in at the first.
fn join(line: &SerialLine, options: &str, server: &Server) -> [Program; 2] {
    join_with(line, options, server, [&[], &[]])
}

/// The same; each has further words.
fn join_with(
    line: &SerialLine,
    options: &str,
    server: &Server,
    more: [&[&str]; 2],
) -> [Program; 2] {
    let exit = end_of(server);
    let near = start(line, End::Left, options, &[&[ENTRANCE], more[0]].concat());
    let far = start(line, End::Right, options, &[&[&*exit], more[1]].concat());
    for program in [&near, &far] {
        program.wait_for("tunnel up");
    }
    [near, far]
}

pub(crate) fn entrance(program: &Program) -> SocketAddr {
    program.address_of("entrance listening")
}

pub(crate) fn clean() -> Faults {
    Faults::default()
}

/// As bad as lines are at worst.
pub(crate) fn bad(seed: u64) -> Faults {
    Faults {
        seed,
        drop_one_in: 1_000,
        flip_one_in: 1_000,
        repeat_one_in: 2_000,
        pause_one_in: 50_000,
        pause_millis_max: 20,
    }
}

/// A server that sends a pattern to clients that request it, at their pace, and echoes to the others.
fn bulk_and_echo() -> Server {
    Server::start("127.0.0.1:0", |mut stream| {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        if kind == *b"b" {
            return Pattern::new(1).send(&mut stream, u64::MAX);
        }
        loop {
            stream.read_exact(&mut kind)?;
            stream.write_all(&kind)?;
        }
    })
}

/// Which part of a clean line one stream fills, and how long keystrokes beside it take to come back. Each end
/// has further words.
pub(crate) fn bulk_and_keystrokes(baud: u32, near: &[&str], far: &[&str]) -> (f64, Vec<Duration>) {
    const SECS: f64 = 4.0;
    let (line, server) = (SerialLine::start(clean(), Some(baud)), bulk_and_echo());
    let ends = join_with(&line, &format!("?baud={baud}"), &server, [near, far]);
    let mut keys = connect(entrance(&ends[0]));
    keys.write_all(b"k").expect("sent");
    let mut bulk = connect(entrance(&ends[0]));
    bulk.write_all(b"b").expect("sent");
    let mut pattern = Pattern::new(1);
    // Bytes in flight at the beginning are not counted.
    pattern.receive(&mut bulk, 4_000).expect("bulk begins");
    let (began, before) = (Instant::now(), pattern.offset());
    while began.elapsed().as_secs_f64() < SECS {
        pattern.receive(&mut bulk, 100).expect("bulk goes on");
    }
    let rate = (pattern.offset() - before) as f64 / began.elapsed().as_secs_f64();

    let began = Instant::now();
    let mut waits = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while began.elapsed().as_secs_f64() < SECS {
                let at = Instant::now();
                keys.write_all(b"x").expect("sent");
                keys.read_exact(&mut [0]).expect("echoed");
                waits.push(at.elapsed());
                // At the pace of typing.
                std::thread::sleep(Duration::from_millis(80));
            }
        });
        while began.elapsed().as_secs_f64() < SECS {
            pattern.receive(&mut bulk, 100).expect("bulk goes on");
        }
    });
    waits.sort();
    (10.0 * rate / f64::from(baud), waits)
}

#[test]
fn a_clean_line_is_filled_and_a_keystroke_does_not_wait_for_bulk() {
    const LATE: Duration = Duration::from_millis(60);
    // Other load of the machine makes the line slower and keystrokes late, never the other way round.
    const TRIES: usize = 3;
    let holds = (0..TRIES).any(|_| {
        let (ratio, waits) = bulk_and_keystrokes(BAUD, &[], &[]);
        let late = waits.iter().filter(|&&wait| wait > LATE).count();
        let median = waits[waits.len() / 2];
        println!("{ratio:.3} of the line; keystrokes beside it echoed in {median:?}, {late} late");
        ratio >= 0.85 && late <= waits.len() / 10
    });
    assert!(holds, "0.85 of the line, and one keystroke of ten late: not in {TRIES} tries");
}

#[test]
fn a_stream_that_has_ended_leaves_nothing() {
    let (line, server) = (SerialLine::start(clean(), None), Server::ends_first());
    let ends = join(&line, FAST, &server);
    check_nothing_is_left([&ends[0], &ends[1]], entrance(&ends[0]));
}

/// 3 MB each way and 2,000 messages.
#[test]
fn everything_arrives_whole_over_a_bad_line() {
    const BYTES: u64 = 3_000_000;
    const MESSAGES: usize = 2_000;
    let (line, server) = (SerialLine::start(bad(7), None), Server::exchange());
    let echo = Server::echo();
    let near = start(&line, End::Left, FAST, &[ENTRANCE, &format!("DEST={}", echo.address())]);
    let far = start(&line, End::Right, FAST, &[ENTRANCE, &format!("DEST={}", server.address())]);
    near.wait_for("tunnel up");
    let (bulk, messages) = (entrance(&near), entrance(&far));
    std::thread::scope(|scope| {
        scope.spawn(|| Exchange { seed: 1, up_bytes: BYTES, down_bytes: BYTES }.run(bulk));
        // Ten conversations, so that they last about as long as the bulk.
        for seed in 0..10 {
            scope.spawn(move || {
                let stream = connect(messages);
                let (mut send, mut receive) = (Pattern::new(seed), Pattern::new(seed));
                for _ in 0..MESSAGES / 10 {
                    send.send(&mut &stream, 20).expect("sent");
                    receive.receive(&mut &stream, 20).expect("echoed");
                }
            });
        }
    });
    println!("from the left {:?}", line.counts_from(End::Left));
    println!("from the right {:?}", line.counts_from(End::Right));
    assert_eq!((near.count("tunnel down"), far.count("tunnel down")), (0, 0));
}

#[test]
fn an_end_that_was_killed_comes_back() {
    let (line, server) = (SerialLine::start(clean(), None), Server::echo());
    let exit = format!("DEST={}", server.address());
    let [mut near, mut far] = join(&line, FAST, &server);
    check_new_echo(entrance(&near), 1, 10_000);
    far.kill_9();
    let far = start(&line, End::Right, FAST, &[&exit]);
    near.wait_for_reason("tunnel down");
    far.wait_for("tunnel up");
    near.wait_for_nth("tunnel up", 2);
    check_new_echo(entrance(&near), 2, 10_000);

    near.kill_9();
    let near = start(&line, End::Left, FAST, &[ENTRANCE]);
    near.wait_for("tunnel up");
    check_new_echo(entrance(&near), 3, 10_000);
    assert!(far.count("tunnel down") >= 1);
}

#[test]
fn a_device_that_was_unplugged_is_found_again() {
    let (line, server) = (SerialLine::start(clean(), None), Server::echo());
    let ends = join(&line, FAST, &server);
    let stream = connect(entrance(&ends[0]));
    check_echo(&stream, 1, 10_000);
    line.unplug(End::Left);
    ends[0].wait_for(BROKE);
    let reason = ends[0].wait_for_reason("cannot open the link; trying again until it can be");
    assert!(reason.contains("no such device"), "{reason}");
    ends[0].check_idle();
    assert_eq!(ends[0].count("cannot open the link; trying again until it can be"), 1);
    line.replug(End::Left);
    for end in &ends {
        end.wait_for(GOES_ON);
    }
    check_echo(&stream, 2, 10_000);
    check_new_echo(entrance(&ends[0]), 3, 10_000);
}

/// The first end has sent its HELLO before the other one opened the line.
#[test]
fn without_checks_bytes_pass_plainly() {
    let (line, server) = (SerialLine::start(clean(), None), Server::echo());
    let options = "?baud=12000000&check=no";
    let near = start(&line, End::Left, options, &[ENTRANCE]);
    near.wait_for("link open; waiting for the peer's hello");
    let far = start(&line, End::Right, options, &[&format!("DEST={}", server.address())]);
    for end in [&near, &far] {
        end.wait_for("tunnel up");
    }
    check_new_echo(entrance(&near), 1, 100_000);
    assert_eq!(near.wait_for("serial line")["mode"], "Plain");
    assert_eq!((near.count("tunnel up"), far.count("tunnel up")), (1, 1));
}

/// An original sends HELLO once, when it opens the line, perhaps long before we do; then it answers each of
/// ours with HELLOOK alone. The tunnel is up within two seconds, whichever of the two restarts.
#[test]
fn an_original_that_was_there_first_comes_up_and_comes_back() {
    const SOON: Duration = Duration::from_secs(2);
    let line = SerialLine::start(clean(), Some(BAUD));
    let original = || Original::on_device(&line.path(End::Right), Manners::of(Service::Pong));
    let mut first = original();
    let unheard = || line.counts_from(End::Right).unheard > 0;
    assert!(eventually(DEADLINE, unheard), "its HELLO is lost");
    let mut near = None;
    for restart in ["ours was not there", "ours is killed", "the original is killed"] {
        let ups = match restart {
            "the original is killed" => {
                // Not in the middle of a packet.
                wait_until_still(|| line.counts_from(End::Left).given);
                drop(first);
                first = original();
                2
            }
            _ => {
                near = Some(start(&line, End::Left, "", &[ENTRANCE]));
                1
            }
        };
        let near = near.as_mut().expect("it was started");
        near.wait_for("link open; waiting for the peer's hello");
        let began = Instant::now();
        near.wait_for_nth("tunnel up", ups);
        let took = began.elapsed();
        println!("{restart}: up after {took:?}");
        assert!(took < SOON, "{restart}: {took:?}");
        let mut client = connect(entrance(near));
        client.write_all(b"PING\r\n").expect("sent");
        let mut answer = [0; 7];
        client.read_exact(&mut answer).expect("answered");
        assert_eq!(&answer, b"+PONG\r\n");
        reset(client);
        first.wait_ended(1);
        first.check();
        if restart == "ours was not there" {
            near.kill_9();
        }
    }
}

#[test]
fn sockmux_0_3_is_checked_too() {
    let (line, server) = (SerialLine::start(bad(8), None), Server::echo());
    let exit = format!("DEST={}", server.address());
    let old = Protocol::V03.words().expect("it has to be said");
    let near = start(&line, End::Left, FAST, &[ENTRANCE, &old]);
    let far = start(&line, End::Right, FAST, &[&exit, &old]);
    assert_eq!(far.wait_for("tunnel up")["protocol"], Protocol::V03.name());
    check_new_echo(entrance(&near), 1, 1_000_000);
    assert_eq!(near.wait_for("serial line")["mode"], "Checked");
}

/// The manual's example 7, with a login at the far end.
#[test]
fn ssh_over_a_bad_serial_line() {
    needs!("ssh", "sshd");
    let line = SerialLine::start(bad(9), Some(BAUD));
    let service = sshd::start();
    let exit = format!("DEST={}", service.address());
    let near = start(&line, End::Left, "", &[ENTRANCE]);
    let _far = start(&line, End::Right, "", &[&exit]);
    near.wait_for("tunnel up");
    let through = entrance(&near);
    let said = run(sshd::client("ssh", &service, through)
        .arg(sshd::destination(through))
        .arg("seq 1 2000"));
    assert_eq!(said.lines().count(), 2_000);
    assert!(said.ends_with("1999\n2000\n"), "{said}");
}

#[test]
fn both_leave_in_order_and_an_idle_line_costs_nothing() {
    let (line, server) = (SerialLine::start(clean(), Some(BAUD)), Server::echo());
    let mut ends = join(&line, "", &server);
    check_new_echo(entrance(&ends[0]), 1, 100);
    ends[0].check_idle();
    for end in &mut ends {
        end.terminate();
        assert_eq!(end.wait_exit(DEADLINE).code(), Some(0), "{}", end.log_text());
    }
}

/// How long an end takes to leave whose line is cut, so that nobody acknowledges what it says last.
fn time_to_leave() -> Duration {
    let (line, server) = (SerialLine::start(clean(), Some(BAUD)), Server::ends_first());
    let ends = [&["TIMEOUT=drain:300"][..], &[]];
    let [mut near, far] = join_with(&line, "", &server, ends);
    check_nothing_is_left([&near, &far], entrance(&near));
    line.cut();
    near.terminate();
    let began = Instant::now();
    assert_eq!(near.wait_exit(DEADLINE).code(), Some(0), "{}", near.log_text());
    began.elapsed()
}

#[test]
fn an_end_whose_line_is_cut_does_not_wait_to_leave() {
    // A peer that may still answer has 5 s, and a line counts as dead after 30.
    const SOON: Duration = Duration::from_secs(4);
    // Other load of the machine makes it slower.
    const TRIES: usize = 3;
    let is_soon = (0..TRIES).any(|_| {
        let took = time_to_leave();
        println!("left after {took:?}");
        took < SOON
    });
    assert!(is_soon, "it took {SOON:?} or more, {TRIES} times");
}

/// It is opened again and again, for it may be another one tomorrow.
#[test]
fn a_device_that_ends_at_once_is_told_of_once_and_costs_nothing() {
    let program = Program::start(&["SERVER=sockmux:comm@/dev/null", ENTRANCE]);
    program.wait_for("tunnel did not come up");
    program.check_idle();
    assert_eq!(program.count("tunnel did not come up"), 1);
}

#[test]
fn a_device_is_left_as_it_was_found() {
    let line = SerialLine::start(clean(), None);
    let device = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOCTTY | OFlags::NONBLOCK).bits() as i32)
        .open(line.path(End::Left))
        .expect("opened");
    let speed = || tcgetattr(&device).expect("settings").input_speed();
    let before = speed();
    let mut program = start(&line, End::Left, "?baud=57600", &[ENTRANCE]);
    program.wait_for("link open; waiting for the peer's hello");
    assert_eq!(speed(), 57_600);
    program.terminate();
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(speed(), before);
}

#[test]
fn waiting_for_days_costs_nothing() {
    let line = SerialLine::start(clean(), None);
    let near = start(&line, End::Left, "", &[ENTRANCE, "TIMEOUT=acc:1", "TIMEOUT=keepalive:1"]);
    near.wait_for("link open; waiting for the peer's hello");
    near.check_idle();
    near.check_idle();
    assert_eq!(near.count("tunnel did not come up"), 0, "{}", near.log_text());
}

#[test]
fn a_device_that_is_taken_or_missing_is_refused_with_the_remedy() {
    let line = SerialLine::start(clean(), None);
    let near = start(&line, End::Left, "", &[ENTRANCE]);
    near.wait_for("link open; waiting for the peer's hello");
    let mut second = start(&line, End::Left, "", &[ENTRANCE]);
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    assert!(second.log_text().contains("another program"), "{}", second.log_text());
    line.unplug(End::Right);
    let mut missing = start(&line, End::Right, "", &[ENTRANCE]);
    assert_eq!(missing.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    assert!(missing.log_text().contains("plug it in"), "{}", missing.log_text());
}
