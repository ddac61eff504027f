//! The persistent connection through two FIFOs: opened in any order, reopened after any end of either
//! side, and never shared by two tunnels.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::testkit::fifos::{Fifos, make};
use crate::testkit::net::check_new_echo;
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::services::{postgres, run};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{NO_RESUMPTION, check_nothing_is_left};
use crate::testkit::{DEADLINE, eventually};

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// Opens a port for clients.
const ENTRANCE: &str = "PORT=127.0.0.1:0";

fn exit(server: &Server) -> String {
    format!("DEST={}", server.address())
}

fn entrance(program: &Program) -> SocketAddr {
    program.address_of("entrance listening")
}

/// Ends a program, which has to go without a word of trouble.
fn stop(program: &mut Program) {
    program.terminate();
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(0));
}

fn many_streams_go_both_ways(protocol: Protocol) {
    let (server, fifos) = (Server::exchange(), Fifos::new());
    let exit = exit(&server);
    let mut ends = fifos.join(protocol, &[ENTRANCE, &exit], &[ENTRANCE, &exit]);
    let entrances = [entrance(&ends[0]), entrance(&ends[1])];
    std::thread::scope(|scope| {
        for seed in 0..24 {
            let entrance = entrances[seed as usize % 2];
            scope.spawn(move || {
                Exchange { seed, up_bytes: 2 << 20, down_bytes: 1 << 20 }.run(entrance);
            });
        }
    });
    // The orderly end: one announces it, the other goes on and waits.
    stop(&mut ends[0]);
    ends[1].wait_for("tunnel down");
    stop(&mut ends[1]);
}

fn an_end_that_was_killed_comes_back(protocol: Protocol) {
    let (server, fifos) = (Server::echo(), Fifos::new());
    let (exit, words) = (exit(&server), protocol.words());
    let near_words: Vec<&str> =
        [ENTRANCE, NO_RESUMPTION].into_iter().chain(words.as_deref()).collect();
    let far_words: Vec<&str> = [&*exit].into_iter().chain(words.as_deref()).collect();
    let mut near = fifos.start_first(&near_words);
    near.wait_for("waiting for the peer");
    let mut far = fifos.start_second(&far_words);
    near.wait_for("tunnel up");
    check_new_echo(entrance(&near), 1, 100_000);

    far.kill_9();
    near.wait_for_reason("tunnel down");
    let far = fifos.start_second(&far_words);
    near.wait_for_nth("tunnel up", 2);
    check_new_echo(entrance(&near), 2, 100_000);

    near.kill_9();
    far.wait_for_reason("tunnel down");
    let near = fifos.start_first(&near_words);
    near.wait_for("tunnel up");
    check_new_echo(entrance(&near), 3, 100_000);
}

fn a_stream_that_has_ended_leaves_nothing(protocol: Protocol) {
    let (server, fifos) = (Server::ends_first(), Fifos::new());
    let ends = fifos.join(protocol, &[ENTRANCE], &[&exit(&server)]);
    check_nothing_is_left([&ends[0], &ends[1]], entrance(&ends[0]));
}

in_both_protocols!(
    many_streams_go_both_ways,
    an_end_that_was_killed_comes_back,
    a_stream_that_has_ended_leaves_nothing,
);

#[test]
fn bulk_is_spliced() {
    const BYTES: u64 = 100 << 20;
    let (server, fifos) = (Server::exchange(), Fifos::new());
    let exit = exit(&server);
    let mut ends = fifos.join(
        Protocol::V1,
        &[ENTRANCE, "SOXCONF=bulk:splice"],
        &[&exit, "SOXCONF=bulk:splice"],
    );
    Exchange { seed: 1, up_bytes: BYTES, down_bytes: BYTES }.run(entrance(&ends[0]));
    for end in &mut ends {
        stop(end);
        let event = end.wait_for("stopped");
        for name in ["spliced_from_local", "spliced_to_local"] {
            let bytes = event[name].as_u64().unwrap_or_else(|| panic!("no {name} in {event}"));
            assert!(bytes > 0, "{event}");
        }
    }
}

#[test]
fn bulk_that_is_copied_arrives_whole() {
    let (server, fifos) = (Server::exchange(), Fifos::new());
    let exit = exit(&server);
    let copy = "SOXCONF=bulk:copy";
    let ends = fifos.join(Protocol::V1, &[ENTRANCE, copy], &[&exit, copy]);
    Exchange { seed: 1, up_bytes: 50 << 20, down_bytes: 50 << 20 }.run(entrance(&ends[0]));
}

/// An end that is stopped does not notice that its peer was killed and came back: the new one waits until
/// it does, and neither reads bytes that the old tunnel has left in the FIFOs.
#[test]
fn a_peer_that_came_back_meanwhile_is_no_part_of_the_old_tunnel() {
    let (server, fifos) = (Server::echo(), Fifos::new());
    let exit = exit(&server);
    for killed_first in [true, false] {
        let [mut near, mut far] = fifos.join(Protocol::V1, &[ENTRANCE], &[&exit]);
        let (still, gone) = if killed_first { (&far, &mut near) } else { (&near, &mut far) };
        check_new_echo(entrance(if killed_first { gone } else { still }), 1, 100_000);
        still.pause();
        gone.kill_9();
        let again = match killed_first {
            true => fifos.start_first(&[ENTRANCE]),
            false => fifos.start_second(&[&exit]),
        };
        again.wait_for("waiting for the peer");
        still.go_on();
        still.wait_for_nth("tunnel up", 2);
        again.wait_for("tunnel up");
        check_new_echo(entrance(if killed_first { &again } else { still }), 2, 100_000);
        let text = again.log_text();
        assert!(
            !text.contains("tunnel did not come up") && !text.contains("tunnel down"),
            "{text}"
        );
    }
}

#[test]
fn waiting_for_a_peer_costs_nothing() {
    let (server, fifos) = (Server::echo(), Fifos::new());
    let exit = exit(&server);
    let near = fifos.start_first(&[ENTRANCE, "TIMEOUT=acc:1"]);
    near.wait_for("waiting for the peer");
    near.check_idle();
    assert_eq!(near.count("tunnel did not come up"), 0);
    assert_eq!(near.count("waiting for the peer"), 1);
    let far = fifos.start_second(&[&exit]);
    far.wait_for("tunnel up");
    check_new_echo(entrance(&near), 1, 1_000);
}

/// Opens a FIFO as a program does that knows nothing of ours.
fn open(path: &Path, options: &mut OpenOptions) -> File {
    options.custom_flags(libc::O_NONBLOCK).open(path).expect("the FIFO opens")
}

/// A peer has both FIFOs open and is silent for long; then it closes only the one that it reads.
#[test]
fn a_silent_peer_is_waited_for_and_one_that_stops_reading_is_noticed() {
    let fifos = Fifos::new();
    let [there, back] = fifos.paths();
    let near = fifos.start_first(&[ENTRANCE, "TIMEOUT=acc:1", "TIMEOUT=keepalive:1"]);
    near.wait_for("waiting for the peer");
    let mut from = open(&there, OpenOptions::new().read(true));
    let _to = open(&back, OpenOptions::new().write(true));
    near.wait_for("link open; waiting for the peer's hello");
    assert!(eventually(DEADLINE, || from.read(&mut [0; 8]).is_ok_and(|bytes| bytes > 0)));
    near.check_idle();
    near.check_idle();
    assert_eq!(near.count("tunnel did not come up"), 0);
    drop(from);
    assert_eq!(near.wait_for_reason("tunnel did not come up"), "the peer reads no more");
}

/// Panics unless the program ends at once with a message that has all of `parts` in it.
fn refused(words: &[String], parts: &[&str]) {
    let mut words = words.to_vec();
    words.push(ENTRANCE.to_owned());
    let mut program = Program::start(&words);
    let status = program.wait_exit(DEADLINE);
    let text = program.log_text();
    assert_eq!(status.code(), Some(SET_UP_FAILED), "{text}");
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[test]
fn a_missing_fifo_and_what_is_none_are_refused_with_the_remedy() {
    let fifos = Fifos::new();
    let [there, back] = fifos.paths();
    std::fs::remove_file(&back).expect("it is there");
    let name = back.display().to_string();
    refused(&fifos.first(), &["commin@", &name, "no such file", "mkfifo"]);
    refused(&fifos.second(), &["commout@", &name, "no such file", "mkfifo"]);
    File::create(&back).expect("it can be made");
    refused(&fifos.first(), &["commin@", &name, "ordinary file", "mkfifo"]);
    std::fs::remove_file(&back).expect("it is there");
    std::fs::create_dir(&back).expect("it can be made");
    refused(&fifos.second(), &["commout@", &name, "directory", "mkfifo"]);
    refused(
        &[format!("SERVER=sockmux:comm@{}", there.display())],
        &["comm@", "FIFO", "commin@", "commout@"],
    );
    // By two names.
    let again = there.with_file_name("again");
    std::os::unix::fs::symlink(&there, &again).expect("it can be made");
    let (there, again) = (there.display(), again.display());
    refused(
        &[format!("SERVER=sockmux:commin@{there}"), format!("SERVER=sockmux:commout@{again}")],
        &["both ways", "commin@", "commout@"],
    );
}

#[test]
fn a_second_reader_is_refused() {
    let fifos = Fifos::new();
    let near = fifos.start_first(&[ENTRANCE]);
    near.wait_for("waiting for the peer");
    refused(&fifos.first(), &["commin@", "another process reads it"]);
}

#[test]
fn fifos_that_were_removed_are_taken_up_when_they_are_there_again() {
    let (server, fifos) = (Server::echo(), Fifos::new());
    let exit = exit(&server);
    let [near, mut far] = fifos.join(Protocol::V1, &[ENTRANCE], &[&exit]);
    for path in fifos.paths() {
        std::fs::remove_file(path).expect("it is there");
    }
    check_new_echo(entrance(&near), 1, 1_000);
    far.kill_9();
    let reason = near.wait_for_reason("cannot open the link; trying again until it can be");
    assert!(reason.contains("no such file") && reason.contains("mkfifo"), "{reason}");
    for path in fifos.paths() {
        make(&path);
    }
    let _far = fifos.start_second(&[&exit]);
    near.wait_for_nth("tunnel up", 2);
    check_new_echo(entrance(&near), 2, 1_000);
}

/// The manual's example 6, with a database at the far end.
#[test]
fn postgresql_through_fifos() {
    needs!("postgres", "pgbench", "psql");
    let (server, fifos) = (postgres::start(), Fifos::new());
    let exit = format!("DEST={}", server.address());
    let ends = fifos.join(Protocol::V1, &[ENTRANCE], &[&exit]);
    let entrance = entrance(&ends[0]);
    run(postgres::client("pgbench", entrance).args(["-i", "-q", "-s", "1"]));
    run(postgres::client("pgbench", entrance).args(["-c", "4", "-t", "50"]));
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts)
                     = (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(postgres::sql(entrance, sums).trim(), "t");
}
