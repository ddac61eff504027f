//! The access log: a line for each stream, flow and pair, compared with what was sent and how it ended.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tempfile::TempDir;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::engine::Leg;
use crate::testkit::keys::Keys;
use crate::testkit::net::{check_echo, check_new_echo, connect, free_port, is_turned_away, reset};
use crate::testkit::program::{Program, command};
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::tunnel::{NO_RESUMPTION, Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

in_both_protocols!(
    a_stream_has_a_line_at_each_end,
    who_resets_is_named,
    what_is_refused_has_its_reason,
    flows_count_what_their_datagrams_carry,
);

/// A directory with the access logs of both ends.
struct Logs(TempDir);

impl Logs {
    fn new() -> Logs {
        Logs(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn word(&self, name: &str) -> String {
        format!("--access-log={}", self.path(name).display())
    }

    /// A tunnel with an access log at each end, `receptor` and `connector`.
    fn tunnel(&self, protocol: Protocol, receptor: &[&str], connector: &[&str]) -> Tunnel {
        let with = |words: &[&str], name| {
            let own = self.word(name);
            words.iter().copied().chain([&*own]).map(str::to_owned).collect::<Vec<_>>()
        };
        Tunnel::start(protocol, &with(receptor, "receptor"), &with(connector, "connector"))
    }

    /// Waits for so many lines.
    fn lines(&self, name: &str, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        let path = self.path(name);
        let came = eventually(DEADLINE, || {
            lines = read(&path);
            lines.len() >= count
        });
        assert!(came, "{name} has {} lines and not {count}: {lines:?}", lines.len());
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }

    /// For the next tunnel.
    fn begin_anew(&self) {
        for name in ["connector", "receptor"] {
            fs::remove_file(self.path(name)).expect("a file");
        }
    }

    /// The line at each end, of which there is one.
    fn both(&self) -> [Value; 2] {
        ["connector", "receptor"].map(|name| self.lines(name, 1).remove(0))
    }
}

fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Panics unless the line has these values.
#[track_caller]
fn has(line: &Value, values: &[(&str, Value)]) {
    for (name, value) in values {
        assert_eq!(&line[name], value, "{name} in {line}");
    }
}

fn bytes(up: u64, down: u64) -> [(&'static str, Value); 2] {
    [("up_bytes", up.into()), ("down_bytes", down.into())]
}

fn ended(how: &str, by: &str) -> [(&'static str, Value); 2] {
    [("end", how.into()), ("by", by.into())]
}

fn a_stream_has_a_line_at_each_end(protocol: Protocol) {
    const UP: u64 = 3_000_000;
    const DOWN: u64 = 5_000_000;
    let (server, logs) = (Server::exchange(), Logs::new());
    let exit = format!("DEST={}", server.address());
    for way in ["SOXCONF=bulk:copy", "SOXCONF=bulk:splice"] {
        let tunnel = logs.tunnel(protocol, &[&exit, way], &["PORT=127.0.0.1:0", way]);
        let client = connect(tunnel.entrance());
        let own = client.local_addr().expect("bound").to_string();
        let exchange = Exchange { seed: 1, up_bytes: UP, down_bytes: DOWN };
        exchange.ask(&client);
        exchange.finish(&client);
        drop(client);
        let [entrance, exit] = logs.both();
        for line in [&entrance, &exit] {
            // A request of 24 bytes goes before, and a verdict of 2 comes behind.
            has(line, &bytes(UP + 24, DOWN + 2));
            has(line, &[("kind", "stream".into()), ("number", 1.into())]);
            has(
                line,
                &[("client", own.clone().into()), ("end", "closed".into()), ("tunnel", 1.into())],
            );
            assert!(line["secs"].as_f64().is_some_and(|secs| secs > 0.0 && secs < 60.0), "{line}");
        }
        assert_eq!(entrance["up_bytes"], exit["up_bytes"]);
        let at = tunnel.entrance().to_string();
        has(
            &entrance,
            &[("side", "entrance".into()), ("place", at.into()), ("server", Value::Null)],
        );
        let server = server.address().to_string();
        has(
            &exit,
            &[("side", "exit".into()), ("place", server.clone().into()), ("server", server.into())],
        );
        logs.begin_anew();
    }
}

/// Who ends first is who has ended it.
#[test]
fn who_ends_first_is_named() {
    let (echo, ends_first, logs) = (Server::echo(), Server::ends_first(), Logs::new());
    let words = [echo.address(), ends_first.address()].map(|server| format!("DEST={server}"));
    for (exit, by) in words.iter().zip(["client", "server"]) {
        let tunnel = logs.tunnel(Protocol::V1, &[exit], &["PORT=127.0.0.1:0"]);
        let mut client = connect(tunnel.entrance());
        client.write_all(b"x").expect("sent");
        client.read_exact(&mut [0]).expect("an answer");
        if by == "server" {
            client.read_to_end(&mut Vec::new()).expect("the server's end of data");
        }
        drop(client);
        logs.both().iter().for_each(|line| has(line, &ended("closed", by)));
        logs.begin_anew();
    }
}

fn who_resets_is_named(protocol: Protocol) {
    let (server, logs) = (Server::echo(), Logs::new());
    let exit = format!("DEST={}", server.address());
    let tunnel = logs.tunnel(protocol, &[&exit], &["PORT=127.0.0.1:0"]);
    let client = connect(tunnel.entrance());
    check_echo(&client, 1, 1000);
    reset(client);
    for line in logs.both() {
        has(&line, &bytes(1000, 1000));
        has(&line, &ended("reset", "client"));
    }
}

fn what_is_refused_has_its_reason(protocol: Protocol) {
    let logs = Logs::new();
    let nobody = free_port(Ipv4Addr::LOCALHOST);
    let exit = format!("DEST={nobody}");
    let tunnel = logs.tunnel(protocol, &[&exit], &["PORT=127.0.0.1:0"]);
    is_turned_away(tunnel.entrance());
    let [entrance, exit] = logs.both();
    has(&entrance, &ended("refused", "peer"));
    has(&exit, &ended("refused", "here"));
    has(&exit, &[("server", nobody.to_string().into())]);
    for line in [entrance, exit] {
        let reason = line["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("refused"), "{line}");
    }
}

#[test]
fn a_client_that_is_not_let_in_has_a_line() {
    let logs = Logs::new();
    let relay = Program::start(&[
        "-P127.0.0.1:0",
        "SERVER=tcprelay://127.0.0.1:9",
        "RELIABLE=192.0.2.1",
        &logs.word("relay"),
    ]);
    is_turned_away(relay.address_of("entrance listening"));
    let line = &logs.lines("relay", 1)[0];
    has(line, &ended("refused", "here"));
    has(line, &[("number", Value::Null), ("up_bytes", 0.into())]);
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("RELIABLE=")), "{line}");
}

fn flows_count_what_their_datagrams_carry(protocol: Protocol) {
    let (server, logs) = (DatagramServer::echo(), Logs::new());
    let exit = format!("DEST={}/udp", server.address());
    let words = ["PORT=127.0.0.1:0/udp", "TIMEOUT=udp:1"];
    let tunnel = logs.tunnel(protocol, &[&exit], &words);
    let client = Client::of(tunnel.entrance());
    for size in [1, 100, 1000] {
        client.check_echo(&vec![7; size]);
    }
    let [entrance, exit] = logs.both();
    for line in [&entrance, &exit] {
        has(line, &bytes(1101, 1101));
        has(line, &[("kind", "flow".into()), ("client", client.address().to_string().into())]);
    }
    has(&entrance, &ended("timeout", "here"));
    has(&exit, &[("server", server.address().to_string().into()), ("by", "peer".into())]);
}

#[test]
fn pairs_and_flows_of_a_plain_relay() {
    let (server, datagrams, logs) = (Server::echo(), DatagramServer::echo(), Logs::new());
    let relay = Program::start(&[
        "-P127.0.0.1:0",
        &format!("SERVER=tcprelay://{}", server.address()),
        &logs.word("pairs"),
    ]);
    let entrance = relay.address_of("entrance listening");
    for (seed, count) in [(1, 0), (2, 10), (3, 4_000_000)] {
        check_new_echo(entrance, seed, count);
    }
    let client = connect(entrance);
    check_echo(&client, 4, 50);
    reset(client);
    let lines = logs.lines("pairs", 4);
    for (count, how) in [(0, "closed"), (10, "closed"), (4_000_000, "closed"), (50, "reset")] {
        let line = lines.iter().find(|line| line["up_bytes"] == count).expect("its line");
        has(line, &bytes(count, count));
        has(line, &ended(how, "client"));
        has(line, &[("kind", "pair".into()), ("server", server.address().to_string().into())]);
    }
    let relay = Program::start(&[
        "-P127.0.0.1:0/udp",
        &format!("SERVER=udprelay://{}", datagrams.address()),
        "TIMEOUT=udp:1",
        &logs.word("flows"),
    ]);
    let client = Client::of(relay.address_of("entrance listening"));
    client.check_echo(b"twelve bytes");
    client.check_echo(b"and more");
    let line = &logs.lines("flows", 1)[0];
    has(line, &bytes(20, 20));
    has(line, &ended("timeout", "here"));
}

#[test]
fn unix_sockets_are_named_by_their_path() {
    let (server, logs) = (Server::echo(), Logs::new());
    let path = logs.path("socket");
    let exit = format!("DEST={}", server.address());
    let entrance = format!("PORT=unix:{}", path.display());
    let _tunnel = logs.tunnel(Protocol::V1, &[&exit], &[&entrance]);
    assert!(eventually(DEADLINE, || path.exists()));
    let mut client = UnixStream::connect(&path).expect("an entrance");
    client.write_all(b"hello").expect("sent");
    client.read_exact(&mut [0; 5]).expect("an echo");
    drop(client);
    let [entrance, exit] = logs.both();
    has(&entrance, &bytes(5, 5));
    has(&entrance, &[("place", format!("unix:{}", path.display()).into())]);
    assert!(entrance["client"].as_str().is_some_and(|client| client.starts_with("process ")));
    has(&exit, &[("client", Value::Null), ("up_bytes", 5.into())]);
}

#[test]
fn clients_of_proxies_have_the_server_that_they_asked_for() {
    let (server, logs) = (Server::echo(), Logs::new());
    let (nobody, there) = (free_port(Ipv4Addr::LOCALHOST), server.address());
    for (exit, what) in [("SERVER=socks,-in", "socks"), ("SERVER=http,-in", "http")] {
        let words = [exit, "PERMIT=*:127.0.0.1:*"];
        let tunnel = logs.tunnel(Protocol::V1, &words, &["PORT=127.0.0.1:0"]);
        let mut client = connect(tunnel.entrance());
        ask(&mut client, what, there);
        check_echo(&client, 1, 5000);
        drop(client);
        let line = &logs.lines("receptor", 1)[0];
        has(line, &bytes(5000, 5000));
        has(line, &[("place", what.into()), ("server", there.to_string().into())]);
        has(line, &ended("closed", "client"));
        let mut client = connect(tunnel.entrance());
        ask(&mut client, what, nobody);
        drop(client);
        let line = &logs.lines("receptor", 2)[1];
        has(line, &[("server", nobody.to_string().into()), ("end", "refused".into())]);
        logs.begin_anew();
    }
}

/// Asks a proxy for a server, and takes its answer.
fn ask(client: &mut TcpStream, proxy: &str, server: SocketAddr) {
    let SocketAddr::V4(server) = server else { panic!("of IPv4") };
    if proxy == "http" {
        write!(client, "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        return;
    }
    let port = server.port().to_be_bytes();
    client.write_all(&[&[4, 1], &port[..], &server.ip().octets(), &[0]].concat()).expect("sent");
    client.read_exact(&mut [0; 8]).expect("an answer");
}

#[test]
fn peers_are_named() {
    let (server, logs, keys) = (Server::echo(), Logs::new(), Keys::new());
    let [hub, spoke] = ["hub", "spoke"].map(|name| keys.make(name));
    let exit = format!("DEST={}", server.address());
    let words = [exit, keys.words("hub", &format!("north={spoke}")), logs.word("receptor")];
    let receptor = start_receptor("127.0.0.1:0", &words);
    let words = [String::from("PORT=127.0.0.1:0"), keys.words("spoke", &hub)];
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(Protocol::V1, address, &words);
    check_new_echo(connector.address_of("entrance listening"), 1, 10);
    has(&logs.lines("receptor", 1)[0], &[("peer", "north".into())]);
}

#[test]
fn streams_that_are_cut_off_say_by_what() {
    let (server, logs) = (Server::echo(), Logs::new());
    let exit = format!("DEST={}", server.address());
    let words = ["PORT=127.0.0.1:0", NO_RESUMPTION, "TIMEOUT=drain:1"];
    let mut tunnel = logs.tunnel(Protocol::V1, &[&exit], &words);
    let client = connect(tunnel.entrance());
    check_echo(&client, 1, 10);
    tunnel.receptor.kill_9();
    let line = &logs.lines("connector", 1)[0];
    has(line, &bytes(10, 10));
    has(line, &[("end", "lost".into())]);
    let words = [exit, logs.word("second")];
    tunnel.receptor = start_receptor(&tunnel.address.to_string(), &words);
    tunnel.connector.wait_for_nth("tunnel up", 2);
    let client = connect(tunnel.entrance());
    check_echo(&client, 1, 20);
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(DEADLINE);
    has(&logs.lines("connector", 2)[1], &ended("drained", "here"));
    drop(client);
}

/// Both ways of logrotate, while streams end all the time.
#[test]
fn rotation_loses_no_line() {
    const CLIENTS: u64 = 60;
    let (server, logs) = (Server::echo(), Logs::new());
    let server = format!("SERVER=tcprelay://{}", server.address());
    let relay = Program::start(&["-P127.0.0.1:0", &server, &logs.word("log")]);
    let entrance = relay.address_of("entrance listening");
    let serve = move || (1..=CLIENTS).for_each(|count| check_new_echo(entrance, count, count));
    let clients = std::thread::spawn(serve);
    let path = logs.path("log");
    assert!(eventually(DEADLINE, || !read(&path).is_empty()));
    for round in 1..=3 {
        let rotated = logs.path(&format!("log.{round}"));
        fs::rename(&path, &rotated).expect("renamed");
        relay.send_signal("HUP");
        let opened = "SIGHUP: the access log is opened anew";
        relay.wait_for_nth(opened, round);
        assert!(path.exists());
    }
    clients.join().expect("served");
    let all = || {
        let files = ["log", "log.1", "log.2", "log.3"].map(|name| read(&logs.path(name)));
        let mut counts: Vec<_> =
            files.concat().iter().filter_map(|line| line["up_bytes"].as_u64()).collect();
        counts.sort_unstable();
        counts
    };
    assert!(eventually(DEADLINE, || all().len() >= CLIENTS as usize), "{:?}", all());
    assert_eq!(all(), (1..=CLIENTS).collect::<Vec<_>>());
    // Copied and cut off: what comes next begins the file.
    OpenOptions::new().write(true).truncate(true).open(&path).expect("cut off");
    check_new_echo(entrance, 1, 77);
    assert_eq!(logs.lines("log", 1)[0]["up_bytes"], 77);
}

#[test]
fn a_file_that_cannot_be_opened_anew_is_gone_on_with() {
    let (server, logs) = (Server::echo(), Logs::new());
    let directory = logs.path("directory");
    fs::create_dir(&directory).expect("a directory");
    let word = format!("--access-log={}", directory.join("log").display());
    let server = format!("SERVER=tcprelay://{}", server.address());
    let relay = Program::start(&["-P127.0.0.1:0", &server, &word]);
    let entrance = relay.address_of("entrance listening");
    let moved = logs.path("moved");
    fs::rename(&directory, &moved).expect("renamed");
    relay.send_signal("HUP");
    let event =
        relay.wait_for("SIGHUP: the access log cannot be opened anew, and goes on as before");
    assert!(event["error"].as_str().is_some_and(|error| error.contains("No such file")), "{event}");
    check_new_echo(entrance, 1, 5);
    assert!(eventually(DEADLINE, || read(&moved.join("log")).len() == 1));
}

#[test]
fn a_full_device_and_a_fifo_that_nobody_reads_stop_nothing() {
    let (server, logs) = (Server::echo(), Logs::new());
    let server = format!("SERVER=tcprelay://{}", server.address());
    let fifo = logs.path("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    for (file, is_told) in [(Path::new("/dev/full"), true), (&fifo, false)] {
        let word = format!("--access-log={}", file.display());
        let mut relay = Program::start(&["-P127.0.0.1:0", &server, &word]);
        let entrance = relay.address_of("entrance listening");
        (0..300).for_each(|seed| check_new_echo(entrance, seed, 10));
        if is_told {
            relay.wait_for("the access log cannot be written, and is tried again each second");
        } else {
            // Its first lines are there for who comes late.
            let mut text = [0; 20_000];
            let mut reader = File::open(&fifo).expect("a FIFO");
            reader.read_exact(&mut text).expect("lines");
            assert_eq!(text.first(), Some(&b'{'));
        }
        relay.terminate();
        assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
        if is_told {
            let lost = relay.wait_for("access log lines are lost: it could not be written");
            assert_eq!(lost["lines"], 300);
        }
    }
}

#[test]
fn text_on_standard_output() {
    let server = Server::echo();
    let entrance = free_port(Ipv4Addr::LOCALHOST);
    let words = [format!("-P{entrance}"), format!("SERVER=tcprelay://{}", server.address())];
    let mut program = command();
    program.args(words).args(["--access-log", "-"]);
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut relay = Leg::current().spawn(&mut program).expect("the binary under test starts");
    assert!(eventually(DEADLINE, || TcpStream::connect(entrance).is_ok()));
    check_new_echo(entrance, 1, 42);
    let pid = rustix::process::Pid::from_child(&relay);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let mut text = String::new();
    relay.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert!(relay.wait().expect("a child").success());
    let line = text.lines().find(|line| line.contains(" 42 42 ")).expect("its line");
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!(fields.len(), 15, "{line}");
    assert_eq!(fields[1..3], ["pair", "-"], "{line}");
    let (at, server) = (entrance.to_string(), server.address().to_string());
    assert_eq!(fields[6..11], ["entrance", &at, &server, "42", "42"], "{line}");
    assert_eq!(fields[12..], ["closed", "client", "-"], "{line}");
}

#[test]
fn a_file_that_cannot_be_made_is_told_at_the_start() {
    let mut relay = Program::start(&[
        "-P127.0.0.1:0",
        "SERVER=tcprelay://127.0.0.1:9",
        "--access-log=/none/log",
    ]);
    assert_eq!(relay.wait_exit(DEADLINE).code(), Some(3));
    assert!(relay.log_text().contains("--access-log /none/log: No such file"));
}
