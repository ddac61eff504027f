//! Encrypted tunnels over a serial line: what the line does to bytes is repaired below TLS, and whoever is
//! not to come is turned away.

use std::time::{Duration, Instant};

use crate::serial::{
    BAUD, ENTRANCE, FAST, bad, bulk_and_keystrokes, clean, end_of, entrance, start,
};
use crate::testkit::DEADLINE;
use crate::testkit::keys::Keys;
use crate::testkit::net::{check_echo, check_new_echo, connect};
use crate::testkit::original::{Manners, Original, Service};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::serial_line::{End, SerialLine};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::tunnel::{BROKE, GOES_ON};

const ANSWERS: &str = "STLS=fcl";
const BEGINS: &str = "STLS=fsv";

/// Two ends with one secret, joined; clients come in at the first.
fn join(line: &SerialLine, options: &str, secret: &str, server: &Server) -> [Program; 2] {
    let near = start(line, End::Left, options, &[ENTRANCE, secret, ANSWERS]);
    let far = start(line, End::Right, options, &[&end_of(server), secret, BEGINS]);
    for program in [&near, &far] {
        let up = program.wait_for("tunnel up");
        assert!(up["cipher"].as_str().is_some_and(|name| name.starts_with("TLS13_")), "{up}");
        assert_eq!(program.wait_for("serial line")["mode"], "Checked");
    }
    [near, far]
}

fn bytes_arrive_whole_over_a_bad_line_and_both_leave(protocol: Protocol) {
    let (line, server, keys) = (SerialLine::start(bad(11), None), Server::exchange(), Keys::new());
    let (secret, exit) = (keys.secret("secret"), end_of(&server));
    let of_protocol = protocol.words();
    let words = |words: &[&str]| -> Vec<String> {
        words.iter().copied().chain(of_protocol.as_deref()).map(str::to_owned).collect()
    };
    let near = words(&[ENTRANCE, &secret, ANSWERS]);
    let far = words(&[&exit, &secret, BEGINS]);
    let near = near.iter().map(String::as_str).collect::<Vec<_>>();
    let far = far.iter().map(String::as_str).collect::<Vec<_>>();
    let mut ends = [start(&line, End::Left, FAST, &near), start(&line, End::Right, FAST, &far)];
    for (seed, bytes) in [(1, 1_000_000), (2, 1), (3, 40_000)] {
        Exchange { seed, up_bytes: bytes, down_bytes: bytes }.run(entrance(&ends[0]));
    }
    println!("from the left {:?}", line.counts_from(End::Left));
    for end in &ends {
        assert_eq!(end.wait_for("tunnel up")["protocol"], protocol.name());
        assert_eq!(end.count("tunnel down"), 0, "{}", end.log_text());
    }
    ends.iter().for_each(Program::terminate);
    for end in &mut ends {
        assert_eq!(end.wait_exit(DEADLINE).code(), Some(0), "{}", end.log_text());
    }
}

in_both_protocols!(bytes_arrive_whole_over_a_bad_line_and_both_leave);

/// Why a tunnel does not come up, in the words of the two ends.
fn reasons(left: &[&str], right: &[&str]) -> [String; 2] {
    let line = SerialLine::start(clean(), None);
    let ends = [start(&line, End::Left, FAST, left), start(&line, End::Right, FAST, right)];
    let reasons = [0, 1].map(|end| ends[end].wait_for_reason("tunnel did not come up"));
    for end in &ends {
        assert_eq!(end.count("tunnel up"), 0);
    }
    println!("{reasons:#?}");
    reasons
}

#[test]
fn a_key_that_is_not_known_is_refused_and_both_ends_say_so() {
    let (server, keys) = (Server::echo(), Keys::new());
    let (left, right, other) = (keys.make("left"), keys.make("right"), keys.make("other"));
    let exit = end_of(&server);
    // The end that answers knows another one; then the end that begins.
    for (known_left, known_right) in [(&other, &left), (&right, &other)] {
        let [at_left, at_right] = reasons(
            &[ENTRANCE, &keys.words("left", known_left), ANSWERS],
            &[&exit, &keys.words("right", known_right), BEGINS],
        );
        let (refuses, refused, who) = match known_left == &other {
            true => (at_left, at_right, &right),
            false => (at_right, at_left, &left),
        };
        assert!(refuses.contains(who) && refuses.contains("is not known"), "{refuses}");
        assert!(refused.contains("does not let in the key of this end"), "{refused}");
    }
}

/// Whichever of the two speaks first.
#[test]
fn an_end_that_speaks_plaintext_is_refused_by_one_that_does_not() {
    let (server, keys) = (Server::echo(), Keys::new());
    let (secret, exit) = (keys.secret("secret"), end_of(&server));
    for side in [ANSWERS, BEGINS] {
        let [encrypted, plain] = reasons(&[&exit, &secret, side], &[ENTRANCE]);
        assert!(encrypted.contains("speak") && encrypted.contains("plaintext"), "{encrypted}");
        assert!(plain.contains("the peer speaks TLS"), "{plain}");
    }
}

/// Neither of the two dials, so both may do the same.
#[test]
fn two_ends_of_one_side_are_told_which_there_are() {
    let (server, keys) = (Server::echo(), Keys::new());
    let (secret, exit) = (keys.secret("secret"), end_of(&server));
    for (side, wanted) in
        [(ANSWERS, "nothing of TLS came"), (BEGINS, "begins the TLS handshake, too")]
    {
        let reasons = reasons(&[ENTRANCE, &secret, side], &[&exit, &secret, side]);
        assert!(reasons.iter().any(|reason| reason.contains(wanted)), "{reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains("STLS=")), "{reasons:?}");
    }
}

/// It has no checks, and is told nothing but that.
#[test]
fn an_original_is_refused() {
    let (line, keys) = (SerialLine::start(clean(), Some(BAUD)), Keys::new());
    let near = start(&line, End::Left, "", &[ENTRANCE, &keys.secret("secret"), BEGINS]);
    near.wait_for("link open; waiting for the peer's hello");
    let _original = Original::on_device(&line.path(End::Right), Manners::of(Service::Echo));
    let reason = near.wait_for_reason("tunnel did not come up");
    assert!(reason.contains("does not check the line"), "{reason}");
    assert_eq!(near.count("tunnel up"), 0);
}

#[test]
fn an_end_that_was_killed_or_unplugged_comes_back() {
    let (line, server, keys) = (SerialLine::start(clean(), None), Server::echo(), Keys::new());
    let (secret, exit) = (keys.secret("secret"), end_of(&server));
    let [near, mut far] = join(&line, FAST, &secret, &server);
    check_new_echo(entrance(&near), 1, 10_000);
    far.kill_9();
    let far = start(&line, End::Right, FAST, &[&exit, &secret, BEGINS]);
    near.wait_for_nth("tunnel up", 2);
    let stream = connect(entrance(&near));
    check_echo(&stream, 2, 10_000);
    line.unplug(End::Left);
    // The first time the other end was killed, and knows nothing of it.
    near.wait_for_nth(BROKE, 2);
    line.replug(End::Left);
    for end in [&near, &far] {
        end.wait_for(GOES_ON);
    }
    check_echo(&stream, 3, 10_000);
}

/// What was received meanwhile waits above the line, which goes on.
#[test]
fn the_handshake_waits_for_a_look_at_the_peers_file() {
    let (line, server, keys) = (SerialLine::start(clean(), None), Server::echo(), Keys::new());
    let [left, right] = ["left", "right"].map(|name| keys.make(name));
    let near = keys.listing("left", &format!("right {right}\n"));
    let far = keys.listing("right", &format!("left {left}\n"));
    let near = start(&line, End::Left, FAST, &[ENTRANCE, &near, ANSWERS]);
    let far = start(&line, End::Right, FAST, &[&end_of(&server), &far, BEGINS]);
    for (end, name) in [(&near, "right"), (&far, "left")] {
        assert_eq!(end.wait_for("tunnel up")["name"], name);
    }
    check_new_echo(entrance(&near), 1, 10_000);
}

/// An end that leaves says so, and the other one knows at once.
#[test]
fn an_end_that_leaves_is_known_to_have_left() {
    let (line, server, keys) = (SerialLine::start(clean(), None), Server::echo(), Keys::new());
    let secret = keys.secret("secret");
    let [mut near, far] = join(&line, FAST, &secret, &server);
    check_new_echo(entrance(&near), 1, 10_000);
    near.terminate();
    assert_eq!(near.wait_exit(DEADLINE).code(), Some(0), "{}", near.log_text());
    let down = far.wait_for("tunnel down");
    assert_eq!(down["reason"], "the peer closed the connection", "{down}");
    assert_eq!(down["level"], "INFO", "{down}");
}

/// Elsewhere a handshake has 10 s. The certificates alone take longer here.
#[test]
fn a_handshake_on_a_very_slow_line_comes_up() {
    let (line, server, keys) =
        (SerialLine::start(clean(), Some(3_600)), Server::echo(), Keys::new());
    let began = Instant::now();
    let [near, _far] = join(&line, "?baud=3600", &keys.secret("secret"), &server);
    println!("up after {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(10), "it shows nothing else");
    check_new_echo(entrance(&near), 1, 10);
}

/// A handshake of some kilobytes takes seconds, and a keystroke waits for a short record.
#[test]
fn a_slow_line_has_time_for_the_handshake_and_short_records() {
    const LATE: Duration = Duration::from_millis(500);
    let keys = Keys::new();
    let secret = keys.secret("secret");
    let began = Instant::now();
    let (ratio, waits) = bulk_and_keystrokes(9_600, &[&secret, ANSWERS], &[&secret, BEGINS]);
    let late = waits.iter().filter(|&&wait| wait > LATE).count();
    println!(
        "{ratio:.3} of the line; keystrokes beside it echoed in {:?}, at most {:?}; all in {:?}",
        waits[waits.len() / 2],
        waits.last(),
        began.elapsed()
    );
    assert!(ratio >= 0.4, "{ratio}");
    assert!(late <= waits.len() / 5, "{waits:?}");
}
