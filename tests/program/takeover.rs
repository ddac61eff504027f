//! `--takeover`: a new process takes the listening sockets over from the old one, and nothing is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::testkit::DEADLINE;
use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{bounded, check_echo, check_new_echo, connect, expect_line, free_port};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::traffic::Traffic;
use crate::testkit::tunnel::{start_connector, start_receptor};

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// A command line that is started again and again, and where its processes meet.
pub(crate) struct Lineage {
    words: Vec<String>,
    dir: TempDir,
}

impl Lineage {
    pub(crate) fn of<S: AsRef<str>>(words: &[S]) -> Lineage {
        let dir = tempfile::tempdir().expect("a directory");
        let mut lineage = Lineage { words: Vec::new(), dir };
        let path = lineage.path().display().to_string();
        lineage.words = words.iter().map(|word| word.as_ref().to_owned()).collect();
        lineage.words.extend(["--takeover".to_owned(), path]);
        lineage
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("takeover")
    }

    pub(crate) fn start_with(&self, words: &[&str]) -> Program {
        let own = self.words.iter().map(String::as_str);
        Program::start(&own.chain(words.iter().copied()).collect::<Vec<_>>())
    }

    pub(crate) fn start(&self) -> Program {
        let program = self.start_with(&[]);
        program.wait_for("entrance listening");
        program
    }

    /// Starts the next one, which takes over from `old`.
    pub(crate) fn upgrade(&self, old: &Program) -> Program {
        let new = self.start();
        let sockets =
            &new.wait_for("taken over: the old process serves what it has, and ends")["sockets"];
        assert_eq!(*sockets, old.wait_for("a new process has taken over")["sockets"]);
        new
    }
}

/// The process has ended in order, with all of its streams.
pub(crate) fn ends_in_order(mut old: Program) {
    assert_eq!(old.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(old.wait_for("stopped")["how"], "Drained");
    for message in ["stream refused", "stream reset"] {
        assert_eq!(old.count(message), 0);
    }
}

/// Upgrades a lineage twice below traffic at `entrance`: all streams live on in the process that they
/// began in, and new clients are served without a break. Returns the process that is left.
pub(crate) fn upgrade_below_traffic(
    lineage: &Lineage,
    first: Program,
    entrance: SocketAddr,
) -> Program {
    let mut traffic = Traffic::start(entrance);
    let second = lineage.upgrade(&first);
    traffic.goes_on();
    traffic.end_streams();
    ends_in_order(first);
    let third = lineage.upgrade(&second);
    traffic.goes_on();
    traffic.end();
    ends_in_order(second);
    check_new_echo(entrance, 1, 100_000);
    third
}

/// A plain relay to a server, with these words besides, and where it listens.
pub(crate) fn plain_relay(server: &Server, words: &[&str]) -> (Lineage, SocketAddr) {
    let [entrance] = ports();
    let own = [format!("-P{entrance}"), format!("SERVER=tcprelay://{}", server.address())];
    let words: Vec<String> = own.into_iter().chain(words.iter().map(|&word| word.into())).collect();
    (Lineage::of(&words), entrance)
}

/// Open streams have the time that a test takes.
pub(crate) const LONG_DRAIN: &str = "TIMEOUT=drain:60";

pub(crate) fn ports<const N: usize>() -> [SocketAddr; N] {
    [(); N].map(|()| free_port([127, 0, 0, 1].into()))
}

fn a_receptor_is_upgraded_below_traffic(protocol: Protocol) {
    let server = Server::echo();
    let [link, entrance] = ports();
    let lineage =
        Lineage::of(&[format!("-P{link}"), format!("PORT={entrance}"), "TIMEOUT=drain:60".into()]);
    let first = lineage.start();
    let connector = start_connector(protocol, link, &[format!("DEST={}", server.address())]);
    first.wait_for("tunnel up");
    let last = upgrade_below_traffic(&lineage, first, entrance);
    assert_eq!(connector.count("tunnel up"), 3);
    assert_eq!(connector.count("stream refused"), 0);
    drop(last);
}

fn a_connector_is_upgraded_below_traffic(protocol: Protocol) {
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let link = receptor.address_of("receptor listening");
    let [entrance] = ports();
    let mut words = vec![format!("SERVER=sockmux://{link}"), format!("PORT={entrance}")];
    words.extend(protocol.words());
    words.push("TIMEOUT=drain:60".to_owned());
    let lineage = Lineage::of(&words);
    let first = lineage.start();
    first.wait_for("tunnel up");
    let last = upgrade_below_traffic(&lineage, first, entrance);
    assert_eq!(receptor.count("stream refused"), 0);
    drop(last);
}

/// The exit's end: its clients come in at the other one.
fn an_exits_end_is_upgraded_below_traffic(protocol: Protocol) {
    let server = Server::echo();
    let [link] = ports();
    let words =
        [format!("-P{link}"), format!("DEST={}", server.address()), "TIMEOUT=drain:60".into()];
    let lineage = Lineage::of(&words);
    let start = |lineage: &Lineage| {
        let program = lineage.start_with(&[]);
        program.wait_for("receptor listening");
        program
    };
    let first = start(&lineage);
    let connector = start_connector(protocol, link, &["PORT=127.0.0.1:0"]);
    connector.wait_for("tunnel up");
    let mut traffic = Traffic::start(connector.address_of("entrance listening"));
    let second = start(&lineage);
    second.wait_for("tunnel up");
    traffic.goes_on();
    traffic.end_streams();
    ends_in_order(first);
    traffic.end();
    assert_eq!(connector.count("stream refused"), 0);
}

in_both_protocols! {
    a_receptor_is_upgraded_below_traffic,
    a_connector_is_upgraded_below_traffic,
    an_exits_end_is_upgraded_below_traffic,
}

#[test]
fn a_plain_relay_is_upgraded_below_traffic() {
    let server = Server::echo();
    let (lineage, entrance) = plain_relay(&server, &[LONG_DRAIN]);
    drop(upgrade_below_traffic(&lineage, lineage.start(), entrance));
}

#[test]
fn a_proxy_is_upgraded_with_its_clients() {
    let server = Server::echo();
    let [entrance] = ports();
    let words = [format!("-P{entrance}"), "SERVER=http".into(), "PERMIT=*:127.0.0.0/8:*".into()];
    let lineage = Lineage::of(&words);
    let by_proxy = || {
        let mut client = connect(entrance);
        write!(client, "CONNECT {} HTTP/1.1\r\n\r\n", server.address()).expect("sent");
        let mut answer = [0; 39];
        client.read_exact(&mut answer).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        client
    };
    let first = lineage.start();
    let open = by_proxy();
    let _second = lineage.upgrade(&first);
    check_echo(&by_proxy(), 1, 100_000);
    check_echo(&open, 2, 1 << 20);
    drop(open);
    ends_in_order(first);
}

/// Whose datagrams come next is a client of the new process; what the server still has to say to the old
/// one's flow is heard.
#[test]
fn an_entrance_for_datagrams_is_taken_over_with_its_clients() {
    let server = DatagramServer::echo();
    let [entrance] = ports();
    let words = [format!("-P{entrance}/udp"), format!("SERVER=udprelay://{}", server.address())];
    let lineage = Lineage::of(&words);
    let first = lineage.start();
    let client = Client::of(entrance);
    client.check_echo(b"to the first");
    let second = lineage.upgrade(&first);
    for _ in 0..50 {
        client.check_echo(b"to the second");
    }
    Client::of(entrance).check_echo(b"another's");
    ends_in_order(first);
    client.check_echo(b"still");
    second.send_signal("USR1");
    assert_eq!(second.wait_for("state")["datagrams_in"], 2 * 52);
}

#[test]
fn a_unix_socket_is_taken_over_and_removed_by_its_last_process() {
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let link = receptor.address_of("receptor listening");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let lineage = Lineage::of(&[
        format!("SERVER=sockmux://{link}"),
        format!("PORT=unix:{}", path.display()),
        "RELIABLE=*".into(),
    ]);
    let check = || {
        let mut client = UnixStream::connect(&path).expect("somebody listens");
        client.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        client.write_all(b"hello").expect("sent");
        let mut answer = [0; 5];
        client.read_exact(&mut answer).expect("an echo");
        assert_eq!(&answer, b"hello");
    };
    let first = lineage.start();
    check();
    let mut second = lineage.upgrade(&first);
    check();
    ends_in_order(first);
    check();
    // One that fails leaves it alone, too.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let bad = format!("PORT={}", taken.local_addr().expect("bound"));
    let mut third = lineage.start_with(&[&bad]);
    assert_eq!(third.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    check();
    second.terminate();
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(0));
    assert!(!path.exists() && !lineage.path().exists());
}

#[test]
fn the_old_process_goes_on_when_the_new_one_fails() {
    let server = Server::echo();
    let [link, entrance] = ports();
    let words = [format!("-P{link}"), format!("PORT={entrance}"), "TIMEOUT=drain:60".into()];
    let lineage = Lineage::of(&words);
    let first = lineage.start();
    let connector = start_connector(Protocol::V1, link, &[format!("DEST={}", server.address())]);
    first.wait_for("tunnel up");
    let traffic = Traffic::start(entrance);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let bad = format!("PORT={}", taken.local_addr().expect("bound"));
    for nth in 1..=2 {
        let mut second = lineage.start_with(&[&bad]);
        assert_eq!(second.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
        first.wait_for_nth("the new process has failed: going on", nth);
        traffic.goes_on();
    }
    assert_eq!((first.count("draining"), connector.count("tunnel up")), (0, 1));
    let third = lineage.upgrade(&first);
    traffic.goes_on();
    traffic.end();
    ends_in_order(first);
    drop(third);
}

#[test]
fn ports_that_only_one_of_them_has_are_closed_and_opened() {
    let [entrance, left, new] = ports();
    let server = Server::named("server");
    let exit = format!("SERVER=tcprelay://{}", server.address());
    let lineage = Lineage::of(&[exit]);
    let first = lineage.start_with(&[&format!("-P{entrance}"), &format!("-P{left}")]);
    first.wait_for_nth("entrance listening", 2);
    let second = lineage.start_with(&[&format!("-P{new}"), &format!("-P{entrance}")]);
    second.wait_for_nth("entrance listening", 2);
    assert_eq!(first.wait_for("a new process is taking over")["sockets"], 2);
    assert_eq!(first.wait_for("a new process has taken over")["sockets"], 1);
    for address in [entrance, new] {
        expect_line(&mut connect(address), "server");
    }
    ends_in_order(first);
    assert!(std::net::TcpStream::connect(left).is_err());
}

#[test]
fn what_a_killed_process_has_left_behind_is_no_obstacle() {
    let server = Server::named("server");
    let (lineage, entrance) = plain_relay(&server, &[]);
    let mut first = lineage.start();
    first.kill_9();
    assert!(lineage.path().exists());
    let second = lineage.start();
    assert_eq!(second.count("inherited socket"), 0);
    let third = lineage.upgrade(&second);
    expect_line(&mut connect(entrance), "server");
    drop(third);
}

/// Each takes over from the one before, in whichever order they come.
#[test]
fn of_several_that_start_at_once_one_is_left_and_nobody_is_lost() {
    let server = Server::echo();
    let (lineage, entrance) = plain_relay(&server, &[LONG_DRAIN]);
    let first = lineage.start();
    let traffic = Traffic::start(entrance);
    let mut others: Vec<Program> = (0..4).map(|_| lineage.start_with(&[])).collect();
    for program in &others {
        program.wait_for("entrance listening");
    }
    traffic.goes_on();
    let last = others.iter().position(|program| program.count("a new process has taken over") == 0);
    let last = others.remove(last.expect("nobody has taken over from it"));
    traffic.end();
    others.push(first);
    others.into_iter().for_each(ends_in_order);
    check_new_echo(entrance, 1, 1000);
    drop(last);
}

/// It has closed its sockets: the new one opens its own.
#[test]
fn a_process_that_drains_already_is_not_taken_over_from() {
    let server = Server::named("server");
    let (lineage, entrance) = plain_relay(&server, &[LONG_DRAIN]);
    let first = lineage.start();
    let mut open = connect(entrance);
    expect_line(&mut open, "server");
    first.terminate();
    first.wait_for("draining");
    let second = lineage.start();
    assert_eq!(second.count("inherited socket"), 0);
    expect_line(&mut connect(entrance), "server");
    check_echo(&open, 1, 1 << 20);
    drop(open);
    ends_in_order(first);
    // The end of the first one leaves the second one's place alone.
    let third = lineage.upgrade(&second);
    expect_line(&mut connect(entrance), "server");
    drop(third);
}

/// A registration that outlives its descriptor would wake it with each client of the other.
#[test]
fn the_old_process_sleeps_while_the_new_one_serves() {
    let server = Server::echo();
    let (lineage, entrance) = plain_relay(&server, &[LONG_DRAIN]);
    let first = lineage.start();
    let open = bounded(connect(entrance));
    check_echo(&open, 1, 1000);
    let second = lineage.upgrade(&first);
    first.send_signal("USR1");
    first.wait_for("state");
    let before = first.times_woken();
    for _ in 0..500 {
        check_echo(&connect(entrance), 2, 1);
    }
    let woken = first.times_woken() - before;
    assert!(woken < 100, "{woken} times for 500 clients of the other");
    drop((open, second));
}

/// The kernel tells one process of those that wait at a socket of a client. That must not be one which is
/// about to stop waiting.
#[test]
fn the_first_client_of_each_new_process_is_served() {
    let server = Server::named("server");
    let (lineage, entrance) = plain_relay(&server, &[]);
    let mut old = lineage.start();
    for _ in 0..60 {
        let new = lineage.start();
        expect_line(&mut connect(entrance), "server");
        ends_in_order(std::mem::replace(&mut old, new));
    }
}

/// As systemd passes them: nobody but their owner ends them, through whatever processes they went.
#[test]
fn inherited_sockets_are_handed_on_and_outlive_all_of_them() {
    let server = Server::named("server");
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [first_at, second_at] = sockets.each_ref().map(|s| s.local_addr().expect("bound"));
    let lineage = Lineage::of(&[
        format!("-P{first_at}"),
        format!("-P{second_at}"),
        format!("SERVER=tcprelay://{}", server.address()),
    ]);
    let words: Vec<&str> = lineage.words.iter().map(String::as_str).collect();
    let passed = sockets.each_ref().map(|socket| socket.try_clone().expect("one more").into());
    let first = Program::start_with_sockets(&words, passed, "LISTEN_FDS=2");
    first.wait_for_nth("entrance listening", 2);
    let mut second = lineage.upgrade(&first);
    ends_in_order(first);
    expect_line(&mut connect(second_at), "server");
    second.terminate();
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(0));
    // Whoever connects now waits for the next one.
    let mut waiting = connect(first_at);
    let passed = sockets.each_ref().map(|socket| socket.try_clone().expect("one more").into());
    let _third = Program::start_with_sockets(&words, passed, "LISTEN_FDS=2");
    expect_line(&mut waiting, "server");
}
