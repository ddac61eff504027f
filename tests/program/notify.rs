//! What a service manager is told (`Type=notify`), at a socket of the test's own.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::takeover::ports;
use crate::testkit::DEADLINE;
use crate::testkit::net::{check_new_echo, connect};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{BROKE, start_connector, start_receptor};

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _dir: TempDir,
}

impl Manager {
    /// One at a path.
    fn new() -> Manager {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Manager::at(socket, path.display().to_string(), dir)
    }

    /// One at an abstract name.
    fn by_name() -> Manager {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockmux-uring/{}/{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Manager::at(socket, format!("@{name}"), tempfile::tempdir().expect("a directory"))
    }

    fn at(socket: UnixDatagram, name: String, dir: TempDir) -> Manager {
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        Manager { socket, name, _dir: dir }
    }

    /// Starts a program that reports here, fenced in.
    fn start<S: AsRef<str>>(&self, words: &[S], environment: &str) -> Program {
        let mut words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        words.extend(["--sandbox", "auto"]);
        let script = format!("export NOTIFY_SOCKET={} {environment}", self.name);
        Program::start_after(&script, &words)
    }

    /// The next message.
    fn next(&self) -> String {
        let mut message = [0; 1024];
        let bytes = self.socket.recv(&mut message).expect("a message in time");
        String::from_utf8_lossy(&message[..bytes]).into_owned()
    }

    /// Waits for a message with this line, and returns the one before too.
    fn wait_for(&self, line: &str) -> String {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            let message = self.next();
            if message.lines().any(|other| other == line) {
                return message;
            }
        }
        panic!("{line:?} never came");
    }

    /// All that there is, and comes within this time.
    fn rest(&self, time: Duration) -> Vec<String> {
        let mut messages = Vec::new();
        self.socket.set_read_timeout(Some(time)).expect("a timeout can be set");
        let mut message = [0; 1024];
        while let Ok(bytes) = self.socket.recv(&mut message) {
            messages.push(String::from_utf8_lossy(&message[..bytes]).into_owned());
        }
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        messages
    }
}

#[test]
fn a_receptor_is_ready_when_it_listens_and_tells_of_tunnels_and_of_the_drain() {
    for manager in [Manager::new(), Manager::by_name()] {
        let server = Server::echo();
        let mut receptor = manager.start(&["-P127.0.0.1:0", "PORT=127.0.0.1:0"], "");
        assert_eq!(manager.next(), "READY=1\nSTATUS=no tunnel is up");
        let [link, entrance] = ["receptor listening", "entrance listening"]
            .map(|message| receptor.address_of(message));
        let exit = format!("DEST={}", server.address());
        let mut connector = start_connector(Protocol::V1, link, &[&exit]);
        assert_eq!(manager.next(), "STATUS=1 tunnel is up");
        check_new_echo(entrance, 1, 10_000);
        let open = connect(entrance);
        check_new_echo(entrance, 2, 10_000);
        connector.kill_9();
        receptor.wait_for(BROKE);
        assert_eq!(manager.next(), "STATUS=no tunnel is up, 1 waits for another connection");
        let _connector = start_connector(Protocol::V1, link, &[&exit]);
        assert_eq!(
            manager
                .wait_for("STATUS=1 tunnel is up, 1 waits for another connection")
                .lines()
                .count(),
            1
        );
        drop(open);
        receptor.terminate();
        let message = manager.next();
        assert!(message.starts_with("STOPPING=1\nSTATUS=draining"), "{message}");
        assert!(receptor.wait_exit(DEADLINE).success());
    }
}

#[test]
fn with_a_tunnel_to_be_ready_none_is_reported_before() {
    let (manager, [link]) = (Manager::new(), ports());
    let words = [format!("SERVER=sockmux://{link}"), "PORT=127.0.0.1:0".into()];
    let connector = manager.start(&[&words[..], &["--ready".into(), "tunnel".into()]].concat(), "");
    assert_eq!(manager.next(), "STATUS=no tunnel is up");
    connector.wait_for("entrance listening");
    let _receptor = start_receptor(&link.to_string(), &["DEST=127.0.0.1:9"]);
    assert_eq!(manager.next(), "READY=1\nSTATUS=1 tunnel is up");
}

#[test]
fn a_relay_without_a_tunnel_is_ready_when_it_listens() {
    let manager = Manager::new();
    let words = ["-P127.0.0.1:0", "SERVER=tcprelay://127.0.0.1:9"];
    let _relay = manager.start(&words, "");
    assert_eq!(manager.next(), "READY=1\nSTATUS=clients are served");
}

/// What a stranger can cause is bounded: a line a second, however often tunnels come and go.
#[test]
fn the_status_changes_once_a_second_at_most() {
    let manager = Manager::new();
    let receptor = manager.start(&["-P127.0.0.1:0", "DEST=127.0.0.1:9"], "");
    let link = receptor.address_of("receptor listening");
    let began = Instant::now();
    for _ in 0..30 {
        let connector = start_connector(Protocol::V1, link, &["PORT=127.0.0.1:0"]);
        connector.wait_for("tunnel up");
    }
    let seconds = began.elapsed().as_secs() as usize;
    let messages = manager.rest(Duration::from_millis(1_500));
    assert!(messages.len() <= seconds + 4, "{messages:?} in {seconds} s");
    assert!(messages.iter().all(|message| message.lines().last().is_some()));
}

#[test]
fn the_loop_shows_that_it_turns_only_where_that_is_wanted() {
    let manager = Manager::new();
    // Without $$ another process is meant.
    let watched = "WATCHDOG_USEC=400000 WATCHDOG_PID=$$";
    let receptor = manager.start(&["-P127.0.0.1:0", "DEST=127.0.0.1:9"], watched);
    manager.wait_for("READY=1");
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    let took = began.elapsed();
    assert!((700..3_000).contains(&took.as_millis()), "{took:?}");
    // A loop that stands still shows nothing.
    receptor.pause();
    let before = manager.rest(Duration::from_millis(600));
    assert!(before.len() <= 2, "{before:?}");
    receptor.go_on();
    assert_eq!(manager.next(), "WATCHDOG=1");
    drop(receptor);
    for other in ["", "WATCHDOG_USEC=100000 WATCHDOG_PID=1", "WATCHDOG_USEC=0", "WATCHDOG_USEC=x"] {
        let manager = Manager::new();
        let receptor = manager.start(&["-P127.0.0.1:0", "DEST=127.0.0.1:9"], other);
        manager.wait_for("READY=1");
        assert_eq!(manager.rest(Duration::from_millis(500)), [""; 0], "{other}");
        receptor.check_idle();
    }
}

#[test]
fn a_process_that_has_taken_over_is_the_main_one_and_the_old_one_is_silent() {
    let (old_manager, manager) = (Manager::new(), Manager::new());
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("takeover").display().to_string();
    let [link] = ports();
    let words = [&format!("-P{link}"), "PORT=127.0.0.1:0", "TIMEOUT=drain:60", "--takeover", &path]
        .map(str::to_owned);
    let watched = "WATCHDOG_USEC=200000";
    let mut old = old_manager.start(&words, watched);
    assert_eq!(old_manager.wait_for("READY=1"), "READY=1\nSTATUS=no tunnel is up");
    let new = manager.start(&words, "");
    let wanted = format!("READY=1\nMAINPID={}\nSTATUS=no tunnel is up", new.pid());
    assert_eq!(manager.next(), wanted);
    assert!(old.wait_exit(DEADLINE).success());
    let rest = old_manager.rest(Duration::from_millis(10));
    assert!(rest.iter().all(|message| message == "WATCHDOG=1"), "{rest:?}");
}

#[test]
fn a_manager_that_does_not_read_is_waited_for_by_nobody() {
    let server = Server::echo();
    let manager = Manager::new();
    // Its queue is full before the program starts.
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a mode");
    filler.connect(&manager.name).expect("it is there");
    while filler.send(b"full").is_ok() {}
    let receptor = manager.start(&["-P127.0.0.1:0", "PORT=127.0.0.1:0"], "WATCHDOG_USEC=100000");
    let [link, entrance] =
        ["receptor listening", "entrance listening"].map(|message| receptor.address_of(message));
    let exit = format!("DEST={}", server.address());
    let _connector = start_connector(Protocol::V1, link, &[&exit]);
    check_new_echo(entrance, 1, 100_000);
    let message = manager.wait_for("READY=1");
    assert!(message.starts_with("READY=1\nSTATUS="), "{message}");
}

#[test]
fn a_manager_that_cannot_be_reached_costs_a_line() {
    for name in ["/nowhere/notify", "vsock:2:1234"] {
        let words = ["-P127.0.0.1:0", "DEST=127.0.0.1:9"];
        let receptor = Program::start_after(&format!("export NOTIFY_SOCKET={name}"), &words);
        let event = receptor.wait_for("the service manager cannot be told anything");
        assert!(event["error"].as_str().is_some_and(|error| error.contains(name)), "{event}");
        receptor.wait_for("receptor listening");
    }
}

#[test]
fn what_has_no_tunnel_cannot_wait_for_one() {
    let words = ["-P127.0.0.1:0", "SERVER=tcprelay://127.0.0.1:9", "--ready", "tunnel"];
    let mut program = Program::start(&words);
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(2));
    assert!(program.log_text().contains("--ready tunnel"), "{}", program.log_text());
}
