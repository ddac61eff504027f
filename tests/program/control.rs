//! The control socket: what operators are told, and what they end.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::takeover::{Lineage, ends_in_order};
use crate::testkit::keys::Keys;
use crate::testkit::net::{Ended, check_echo, connect, read_to_end_of};
use crate::testkit::program::{Program, command};
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// No user that anything belongs to.
const NOBODY: u32 = 65_534;

/// A tunnel between two processes that can be asked, with their sandboxes.
struct Asked {
    tunnel: Tunnel,
    dir: TempDir,
}

impl Asked {
    fn start(protocol: Protocol, server: SocketAddr) -> Asked {
        Asked::with(protocol, server, "", "")
    }

    /// With a word more for each.
    fn with(protocol: Protocol, server: SocketAddr, receptor: &str, connector: &str) -> Asked {
        let dir = tempfile::tempdir().expect("a directory");
        let words = |name: &str, own: String, more: &str| {
            let control = format!("--control={}", dir.path().join(name).display());
            let all = [own, control, more.to_owned()];
            all.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>()
        };
        let receptor = words("receptor", format!("DEST={server}"), receptor);
        let connector = words("connector", "PORT=127.0.0.1:0".to_owned(), connector);
        Asked { tunnel: Tunnel::start(protocol, &receptor, &connector), dir }
    }

    fn receptor(&self) -> PathBuf {
        self.dir.path().join("receptor")
    }

    fn connector(&self) -> PathBuf {
        self.dir.path().join("connector")
    }
}

/// Asks by the program.
fn run(path: &Path, words: &[&str]) -> Output {
    command().args(words).arg("--control").arg(path).output().expect("the binary starts")
}

fn json(path: &Path, words: &[&str]) -> Value {
    let output = run(path, &[words, &["--json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(path: &Path, words: &[&str]) -> String {
    let output = run(path, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Why the program does not do it.
fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks by hand.
fn say(path: &Path, line: &str) -> String {
    let mut socket = UnixStream::connect(path).expect("somebody listens there");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    socket.write_all(line.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer, and its end");
    answer
}

fn figures_are_those_of_the_traffic(protocol: Protocol) {
    let server = Server::echo();
    let asked = Asked::start(protocol, server.address());
    let (receptor, connector) = (asked.receptor(), asked.connector());
    let streams = [(1, 3_000_000), (2, 12_345)].map(|(seed, count)| {
        let stream = connect(asked.tunnel.entrance());
        check_echo(&stream, seed, count);
        (stream, count)
    });
    let total: u64 = streams.iter().map(|(_, count)| count).sum();

    let status = json(&connector, &["status"]);
    assert_eq!(status["process"]["pid"], asked.tunnel.connector.pid());
    assert_eq!(status["process"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["process"]["draining"], false);
    assert_eq!(status["connector"]["state"], "up");
    for (path, purpose) in [(&connector, "entrance"), (&receptor, "receptor")] {
        let status = json(path, &["status"]);
        let tunnels = status["tunnels"].as_array().expect("a list");
        assert_eq!(tunnels.len(), 1);
        assert_eq!((&tunnels[0]["up"], &tunnels[0]["streams"]), (&true.into(), &2.into()));
        assert_eq!(tunnels[0]["protocol"], protocol.name());
        assert!(tunnels[0]["bytes_in"] == total && tunnels[0]["bytes_out"] == total, "{status}");
        let totals = &status["totals"];
        assert_eq!((&totals["streams"], &totals["streams_ever"]), (&2.into(), &2.into()));
        assert!(totals["bytes_in"] == total && totals["bytes_out"] == total, "{status}");
        let entrance = &status["entrances"][0];
        assert_eq!((&entrance["kind"], &entrance["open"]), (&purpose.into(), &true.into()));
    }

    let [here, there] = [&connector, &receptor].map(|path| json(path, &["streams"]));
    for (stream, count) in &streams {
        let client = stream.local_addr().expect("an address").to_string();
        for rows in [&here, &there] {
            let row = rows.as_array().expect("a list").iter().find(|row| row["client"] == client);
            let row = row.unwrap_or_else(|| panic!("no {client} in {rows}"));
            assert!(row["bytes_in"] == *count && row["bytes_out"] == *count, "{row}");
            assert_eq!((&row["tunnel"], &row["state"]), (&1.into(), &"open".into()));
        }
    }
    assert_eq!(here[0]["entrance"], asked.tunnel.entrance().to_string());
    assert_eq!(there[0]["exit"], server.address().to_string());

    let shown = text(&receptor, &["status"]);
    for piece in ["receptor", "streams 2 now", "2.8 MiB"] {
        assert!(shown.contains(piece), "no {piece} in {shown}");
    }
    assert_eq!(text(&receptor, &["streams"]).lines().count(), 3);
}

fn what_is_killed_ends_and_nothing_else_does(protocol: Protocol) {
    let server = Server::echo();
    let asked = Asked::start(protocol, server.address());
    let (receptor, connector) = (asked.receptor(), asked.connector());
    let [mut meant, other] = [1, 2].map(|seed| {
        let stream = connect(asked.tunnel.entrance());
        check_echo(&stream, seed, 1_000);
        stream
    });
    let client = meant.local_addr().expect("an address").to_string();
    let rows = json(&connector, &["streams"]);
    let row = rows.as_array().expect("a list").iter().find(|row| row["client"] == client);
    let number = &row.expect("it is listed")["stream"];
    let target = format!("stream:{number}");
    assert_eq!(text(&connector, &["kill", &target]), format!("{target} ended\n"));
    assert_eq!(read_to_end_of(&mut meant, DEADLINE), Ended::Reset);
    check_echo(&other, 3, 1_000);
    let gone = || json(&receptor, &["streams"]).as_array().is_some_and(|rows| rows.len() == 1);
    assert!(eventually(DEADLINE, gone), "the other end goes on with it");
    assert!(failure(&run(&connector, &["kill", &target])).contains("there is no stream:"));

    assert_eq!(text(&receptor, &["kill", "tunnel:1"]), "tunnel:1 ended\n");
    let mut other = other;
    read_to_end_of(&mut other, DEADLINE);
    asked.tunnel.connector.wait_for_nth("tunnel up", 2);
    let stream = connect(asked.tunnel.entrance());
    check_echo(&stream, 4, 1_000);
    let error = failure(&run(&receptor, &["kill", "peer:nobody"]));
    assert!(error.contains("there is no peer:nobody here; "), "{error}");
}

in_both_protocols!(figures_are_those_of_the_traffic, what_is_killed_ends_and_nothing_else_does);

#[test]
fn a_peer_is_shown_by_its_key_and_ended_by_its_name() {
    let (server, keys) = (Server::echo(), Keys::new());
    let [x, y] = ["x", "y"].map(|name| keys.make(name));
    let (at_receptor, at_connector) = (keys.words("x", &format!("why={y}")), keys.words("y", &x));
    let asked = Asked::with(Protocol::V1, server.address(), &at_receptor, &at_connector);
    let receptor = asked.receptor();
    let tunnel = json(&receptor, &["status"])["tunnels"][0].clone();
    assert_eq!((&tunnel["name"], &tunnel["peer_key"]), (&"why".into(), &y.into()));
    assert!(tunnel["cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS13_")));
    let streams = json(&asked.connector(), &["streams"]);
    assert_eq!(streams, Value::Array(Vec::new()));
    assert_eq!(text(&receptor, &["kill", "peer:why"]), "1 tunnels of why ended\n");
    asked.tunnel.receptor.wait_for_nth("tunnel up", 2);
    let tunnel = json(&receptor, &["status"])["tunnels"][0].clone();
    assert_ne!(tunnel["tunnel"], 1);
}

#[test]
fn a_process_that_is_told_to_drain_ends_with_its_streams() {
    let server = Server::echo();
    let mut asked = Asked::start(Protocol::V1, server.address());
    let (connector, entrance) = (asked.connector(), asked.tunnel.entrance());
    let stream = connect(entrance);
    check_echo(&stream, 1, 1_000);
    assert_eq!(text(&connector, &["drain"]), "the process drains\n");
    // A second one does not end the process at once, as a second SIGTERM would.
    assert_eq!(text(&connector, &["drain"]), "the process drains already\n");
    assert_eq!(json(&connector, &["status"])["process"]["draining"], true);
    check_echo(&stream, 2, 1_000);
    drop(stream);
    assert_eq!(asked.tunnel.connector.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(asked.tunnel.connector.wait_for("stopped")["how"], "Drained");
    assert!(!connector.exists(), "the socket goes with the process");
    assert!(failure(&run(&connector, &["status"])).contains("no process listens there"));
}

#[test]
fn an_entrance_without_a_tunnel_is_not_open_and_the_next_attempt_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control");
    let control = format!("--control={}", path.display());
    // A port of this machine that nobody listens on.
    let nobody = crate::testkit::net::free_port(std::net::Ipv4Addr::LOCALHOST);
    let program =
        Program::start(&[&format!("SERVER=sockmux://{nobody}"), "PORT=127.0.0.1:0", &control]);
    program.wait_for("entrance listening");
    let waits = || json(&path, &["status"])["connector"]["next_attempt_millis"].is_u64();
    assert!(eventually(DEADLINE, waits), "no attempt is ever waited for");
    let status = json(&path, &["status"]);
    assert_eq!(status["entrances"][0]["open"], false);
    assert_eq!(status["entrances"][0]["why"], "no tunnel is up");
    let failure = status["connector"]["last_failure"].as_str().expect("a reason");
    assert!(failure.contains("refused"), "{failure}");
}

#[test]
fn a_strangers_questions_are_refused_by_the_user() {
    needs!("perl", Namespaces);
    let server = Server::echo();
    let asked = Asked::start(Protocol::V1, server.address());
    let path = asked.connector();
    let mode = fs::symlink_metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // What it sends before it is refused, and reads.
    let script = "use IO::Socket::UNIX; $SIG{PIPE} = 'IGNORE'; \
                  my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die \"$!\\n\"; \
                  if ($ARGV[1]) { print {$s} \"$ARGV[1]\\n\"; $s->flush; } print <$s>;";
    let by_stranger = |line: &str| {
        let mut perl = Command::new("perl");
        perl.args(["-e", script]).arg(&path).arg(line).uid(NOBODY).gid(NOBODY);
        perl.output().expect("perl starts")
    };
    fs::set_permissions(asked.dir.path(), Permissions::from_mode(0o755)).expect("a mode");
    assert!(String::from_utf8_lossy(&by_stranger("").stderr).contains("Permission denied"));
    // Whatever the mode becomes, the user counts.
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("a mode");
    let answer = String::from_utf8_lossy(&by_stranger("").stdout).into_owned();
    assert!(
        answer.contains("{\"error\":\"only our own user and root may ask, not user 65534"),
        "{answer}"
    );
    by_stranger("drain");
    assert_eq!(json(&path, &["status"])["process"]["draining"], false);
}

#[test]
fn a_flood_of_half_requests_disturbs_neither_the_loop_nor_others_who_ask() {
    let server = Server::echo();
    let asked = Asked::start(Protocol::V1, server.address());
    let path = asked.connector();
    let stream = connect(asked.tunnel.entrance());
    check_echo(&stream, 1, 1_000);
    let turns = asked.tunnel.connector.times_woken();
    let mut halves = Vec::new();
    for round in 0..200 {
        let mut half = UnixStream::connect(&path).expect("it accepts");
        half.write_all(b"stat").expect("sent");
        halves.push(half);
        if round % 50 == 49 {
            let began = Instant::now();
            assert_eq!(json(&path, &["status"])["totals"]["streams"], 1);
            assert!(began.elapsed() < DEADLINE / 2, "half requests keep others waiting");
            check_echo(&stream, round, 1_000);
        }
    }
    let woken = asked.tunnel.connector.times_woken() - turns;
    assert!(woken < 150, "the loop was woken {woken} times by requests that never came");
    // The oldest were closed for those that came later.
    let mut first = halves.remove(0);
    first.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    assert_eq!(first.read(&mut [0; 16]).expect("its end"), 0);
    // What is no request, or too long for one, has an answer, too.
    assert!(
        say(&path, "statusquo\n").starts_with("{\"error\":\"\\\"statusquo\\\" is no request; ")
    );
    assert!(say(&path, &"x".repeat(600)).contains("512 bytes at most"));
    assert!(say(&path, "status\n").ends_with("}\n"));
}

#[test]
fn without_a_path_the_environment_leads_to_the_one_process_there_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let shown = dir.path().display();
    let words = ["-P127.0.0.1:0", "PORT=127.0.0.1:0"];
    let ask = |name: &str| command().arg("status").env(name, dir.path()).output().expect("started");
    let mut bare = command();
    let error = failure(&bare.arg("status").output().expect("started"));
    assert!(error.contains("XDG_RUNTIME_DIR is set; name the socket"), "{error}");
    let error = failure(&ask("XDG_RUNTIME_DIR"));
    assert!(error.contains("no process has a control socket in"), "{error}");

    let start = || {
        let program = Program::start_after(&format!("export XDG_RUNTIME_DIR={shown}"), &words);
        program.wait_for("entrance listening");
        program
    };
    let first = start();
    let output = ask("XDG_RUNTIME_DIR");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("process {}", first.pid())));
    let second = start();
    let error = failure(&ask("XDG_RUNTIME_DIR"));
    for program in [&first, &second] {
        let path = format!("--control {shown}/sockmux-uring/{}", program.pid());
        assert!(error.contains(&path), "{error}");
    }

    let script = format!("export RUNTIME_DIRECTORY={shown}");
    let service = Program::start_after(&script, &words);
    service.wait_for("entrance listening");
    let output = ask("RUNTIME_DIRECTORY");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(&format!("process {}", service.pid()))
    );
    // Nobody has asked for that of another one, which goes on without.
    let other = Program::start_after(&script, &words);
    other.wait_for("entrance listening");
    let told = other.wait_for("notice")["notice"].to_string();
    assert!(told.contains("no control socket at"), "{told}");
    let none =
        Program::start_after(&script, &["-P127.0.0.1:0", "PORT=127.0.0.1:0", "--control", "no"]);
    none.wait_for("entrance listening");
    assert_eq!(none.count("notice"), 0);
}

#[test]
fn a_path_that_cannot_be_had_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control").display().to_string();
    let words = ["-P127.0.0.1:0", "PORT=127.0.0.1:0", "--control", &path];
    let first = Program::start(&words);
    first.wait_for("entrance listening");
    let mut second = Program::start(&words);
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    let log = second.log_text();
    assert!(log.contains("--control") && log.contains("another process listens there"), "{log}");
    assert!(text(Path::new(&path), &["status"]).contains(&format!("process {}", first.pid())));
}

#[test]
fn a_process_that_takes_over_is_asked_at_the_same_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control");
    let control = format!("--control={}", path.display());
    let lineage = Lineage::of(&["-P127.0.0.1:0", "PORT=127.0.0.1:0", &control]);
    let pid = || json(&path, &["status"])["process"]["pid"].clone();
    let first = lineage.start();
    assert_eq!(pid(), first.pid());
    let second = lineage.upgrade(&first);
    ends_in_order(first);
    assert_eq!(pid(), second.pid());
    ends_with_its_socket(second, &path);
}

/// The process ends, and its socket with it.
fn ends_with_its_socket(mut program: Program, path: &Path) {
    program.terminate();
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(0));
    assert!(!path.exists());
}
