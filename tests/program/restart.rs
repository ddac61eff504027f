//! An end of a tunnel is restarted while clients connect: none is refused, none waits for long, and open
//! streams go on.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::testkit::net::{check_echo, connect, expect_line};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// Within this a client is served that had to wait for the other end to come back: a second, and as much
/// again for a machine that is busy with other tests.
const SERVED_WITHIN: Duration = Duration::from_secs(2);

/// The server of a client of a [`Crowd`], when the client connected, and when it was served.
type Served = (String, Instant, Instant);

/// Clients that come one after the other while an end of the tunnel is being restarted.
struct Crowd {
    clients: Vec<std::thread::JoinHandle<Served>>,
    come: Arc<AtomicUsize>,
}

impl Crowd {
    const CLIENTS: usize = 200;

    /// They begin to connect to `entrance`, some milliseconds after each other. Each sends data at once, and
    /// waits until a [`Server::named`] has sent its name and the client's data.
    fn come(entrance: SocketAddr) -> Crowd {
        let come = Arc::new(AtomicUsize::new(0));
        let client = |nth: usize| {
            let come = Arc::clone(&come);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(3) * nth as u32);
                let stream = connect(entrance);
                let came = Instant::now();
                come.fetch_add(1, Ordering::SeqCst);
                writeln!(&stream, "client {nth}").expect("a client may speak at once");
                let mut lines = BufReader::new(&stream).lines();
                let mut line = || lines.next().expect("an answer").expect("a whole answer");
                let (server, said) = (line(), line());
                assert_eq!(said, format!("client {nth}"));
                (server, came, Instant::now())
            })
        };
        Crowd { clients: (0..Crowd::CLIENTS).map(client).collect(), come }
    }

    /// Waits until so many have come.
    fn wait_for(&self, count: usize) {
        let come = || self.come.load(Ordering::SeqCst) >= count;
        assert!(eventually(DEADLINE, come), "only {:?} clients could come", self.come);
    }

    /// Waits until all were served, and returns the servers. Panics if one had to wait for long after it
    /// had connected and the restarted end was back.
    fn served(self, back: Instant) -> Vec<String> {
        let mut by = Vec::new();
        for client in self.clients {
            let (server, came, served) = client.join().expect("a client that is served");
            let waited = served.saturating_duration_since(came.max(back));
            assert!(waited < SERVED_WITHIN, "a client waited for {waited:?}");
            by.push(server);
        }
        by
    }
}

/// The stream of before the restart goes on to its end, and with it its process.
fn finishes_whole(open: TcpStream, mut leaving: Program) {
    check_echo(&open, 1, 4 << 20);
    drop(open);
    assert_eq!(leaving.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(leaving.wait_for("stopped")["how"], "Drained");
}

/// The exit's end is stopped with a stream open and clients coming, and its successor is started at
/// once.
fn nobody_waits_for_long_while_the_exits_end_is_restarted(protocol: Protocol) {
    let (old, new) = (Server::named("old"), Server::named("new"));
    let start = |server: &Server, at: &str| {
        let receptor = start_receptor(at, &[format!("DEST={}", server.address())]);
        (receptor.address_of("receptor listening"), receptor)
    };
    let (address, leaving) = start(&old, "127.0.0.2:0");
    let connector = start_connector(protocol, address, &["PORT=127.0.0.1:0"]);
    let entrance = connector.address_of("entrance listening");
    connector.wait_for("tunnel up");
    let mut open = connect(entrance);
    expect_line(&mut open, "old");

    let crowd = Crowd::come(entrance);
    crowd.wait_for(20);
    leaving.terminate();
    leaving.wait_for("draining");
    let (_, _successor) = start(&new, &address.to_string());
    let by = crowd.served(Instant::now());

    assert!(by.iter().any(|server| server == "new"));
    assert_eq!(connector.count("stream refused"), 0);
    // The stream of before is where it was, and both ends know that it is.
    assert_eq!(connector.count("tunnel down"), 0);
    finishes_whole(open, leaving);
}

/// As above, with the exits' end a connector.
fn nobody_waits_for_long_while_the_exits_connector_is_restarted(protocol: Protocol) {
    let (old, new) = (Server::named("old"), Server::named("new"));
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    let entrance = receptor.address_of("entrance listening");
    let start = |server: &Server| {
        start_connector(protocol, address, &[format!("DEST={}", server.address())])
    };
    let leaving = start(&old);
    receptor.wait_for("tunnel up");
    let mut open = connect(entrance);
    expect_line(&mut open, "old");

    let crowd = Crowd::come(entrance);
    crowd.wait_for(20);
    leaving.terminate();
    leaving.wait_for("draining");
    let _successor = start(&new);
    receptor.wait_for_nth("tunnel up", 2);
    let by = crowd.served(Instant::now());

    assert!(by.iter().any(|server| server == "new"));
    assert_eq!(receptor.count("stream refused"), 0);
    finishes_whole(open, leaving);
}

/// The end where clients come in is restarted, with sockets that outlive it, as systemd passes them:
/// clients that come in between are in their queues.
fn nobody_is_lost_while_the_entrances_end_is_restarted(protocol: Protocol) {
    let server = Server::named("server");
    let exit = format!("DEST={}", server.address());
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [link, web] = sockets.each_ref().map(|socket| socket.local_addr().expect("bound"));
    let start = || {
        let words = [format!("-P{link}"), format!("PORT={web}")];
        let words = words.each_ref().map(String::as_str);
        let passed = sockets.each_ref().map(|socket| socket.try_clone().expect("one more").into());
        Program::start_with_sockets(&words, passed, "LISTEN_FDS=2")
    };
    let leaving = start();
    leaving.wait_for("entrance listening");
    let connector = start_connector(protocol, link, &[&exit]);
    leaving.wait_for("tunnel up");
    let mut open = connect(web);
    expect_line(&mut open, "server");

    let crowd = Crowd::come(web);
    crowd.wait_for(20);
    leaving.terminate();
    leaving.wait_for("draining");
    let successor = start();
    successor.wait_for("tunnel up");
    crowd.served(Instant::now());

    for program in [&leaving, &successor, &connector] {
        assert_eq!(program.count("stream refused"), 0);
    }
    finishes_whole(open, leaving);
}

/// Clients in the accept queue at the stop: closing the socket would reset them.
fn who_waits_in_the_queue_of_an_end_that_stops_is_served(words: &[&str], said_first: &[u8]) {
    let server = Server::named("server");
    let to = server.address().to_string();
    let words: Vec<String> = words.iter().map(|word| word.replace("SERVER_ADDRESS", &to)).collect();
    let mut program = Program::start(&words);
    let at = program.address_of("entrance listening");
    let is_relay = words.iter().any(|word| word.contains("tcprelay"));
    let _connector = (!is_relay).then(|| {
        let link = program.address_of("receptor listening");
        let connector = start_connector(Protocol::V1, link, &[format!("DEST={to}")]);
        program.wait_for("tunnel up");
        connector
    });
    program.pause();
    // More than are taken from the queue at a time, fewer than the server's own queue takes.
    let mut clients: Vec<_> = (0..120).map(|_| connect(at)).collect();
    for client in &mut clients {
        client.write_all(said_first).expect("the kernel keeps it");
    }
    program.terminate();
    program.go_on();
    for client in &mut clients {
        expect_line(client, "server");
        check_echo(client, 7, 1000);
    }
    drop(clients);
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn who_waits_in_an_entrances_queue_is_served_at_the_stop() {
    let words = ["-P127.0.0.1:0", "PORT=127.0.0.1:0"];
    who_waits_in_the_queue_of_an_end_that_stops_is_served(&words, b"");
}

#[test]
fn who_waits_with_a_proxy_header_is_served_at_the_stop() {
    let words = ["-P127.0.0.1:0", "PORT=127.0.0.1:0?proxy=accept", "RELIABLE=*"];
    let header = b"PROXY TCP4 10.1.2.3 10.4.5.6 1000 80\r\n";
    who_waits_in_the_queue_of_an_end_that_stops_is_served(&words, header);
}

#[test]
fn who_waits_in_a_plain_relays_queue_is_served_at_the_stop() {
    let words = ["-P127.0.0.1:0", "SERVER=tcprelay://SERVER_ADDRESS"];
    who_waits_in_the_queue_of_an_end_that_stops_is_served(&words, b"");
}

in_both_protocols! {
    nobody_waits_for_long_while_the_exits_end_is_restarted,
    nobody_waits_for_long_while_the_exits_connector_is_restarted,
    nobody_is_lost_while_the_entrances_end_is_restarted,
}
