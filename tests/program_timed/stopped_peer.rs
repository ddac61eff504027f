//! A peer that is stopped while clients send: the other end may run out of any resource, but sleeps,
//! handles SIGTERM, and has lost no data when the peer continues.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::testkit::net::{check_echo, check_new_echo, connect, free_port};
use crate::testkit::pattern::Pattern;
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, STILL, eventually};

/// Processor time of a process that has nothing to do, in a second.
const ASLEEP: Duration = Duration::from_millis(20);

/// The writes of clients, each as much as is taken up to a limit.
#[derive(Clone, Copy)]
struct Load {
    clients: usize,
    message_bytes: usize,
    messages: usize,
    /// A word for both programs.
    word: &'static str,
}

/// Several times the small receive buffers.
const KEYSTROKES: Load =
    Load { clients: 60, message_bytes: 500, messages: 100, word: "SOXCONF=bulk:auto" };
const CRUMBS: Load = Load { clients: 200, message_bytes: 100, messages: 50, ..KEYSTROKES };
/// More than all bulk receive buffers.
const BULK: Load =
    Load { clients: 60, message_bytes: 64 << 10, messages: usize::MAX, ..KEYSTROKES };
/// More than all pipes.
const SPLICED: Load = Load { word: "SOXCONF=bulk:splice", ..BULK };

/// Always in bulk receive buffers.
const COPIED: Load = Load { word: "SOXCONF=bulk:copy", ..BULK };

/// A client and the sequence that it sends behind its seed.
struct Client {
    stream: TcpStream,
    seed: u8,
    pattern: Pattern,
    messages_left: usize,
}

impl Client {
    /// One that the server knows.
    fn new(entrance: SocketAddr, seed: u8, messages: usize) -> Client {
        let mut stream = connect(entrance);
        stream.write_all(&[seed]).expect("sent");
        stream.read_exact(&mut [0]).expect("the server's answer");
        // Bytes in sockets should not matter here.
        SockRef::from(&stream).set_send_buffer_size(4 << 10).expect("a size can be set");
        stream.set_nonblocking(true).expect("it can be set");
        Client { stream, seed, pattern: Pattern::new(seed.into()), messages_left: messages }
    }

    /// Sends a message, or as much of it as is taken. `false` if nothing is, or if it has sent all.
    fn send(&mut self, bytes: usize) -> bool {
        if self.messages_left == 0 {
            return false;
        }
        let mut ahead = self.pattern;
        let taken = match self.stream.write(&ahead.take(bytes)) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("client {}: {error}", self.seed),
        };
        self.pattern.take(taken);
        self.messages_left -= usize::from(taken > 0);
        taken > 0
    }
}

/// Sends all of it through an entrance whose server reads, or panics when that takes long.
fn passes_at_once(entrance: SocketAddr, seed: u8, came_bytes: &AtomicU64) {
    /// A wait for buffers is in it, and a slow machine; a peer that is silent is given up much later.
    const SOON: Duration = Duration::from_secs(3);
    const BYTES: u64 = 4 << 20;
    let before_bytes = came_bytes.load(Ordering::SeqCst);
    let mut client = Client::new(entrance, seed, usize::MAX);
    let all_came = eventually(SOON, || {
        let left_bytes = (BYTES - client.pattern.offset()) as usize;
        client.send(left_bytes.min(BULK.message_bytes));
        came_bytes.load(Ordering::SeqCst) - before_bytes == BYTES
    });
    let came = came_bytes.load(Ordering::SeqCst) - before_bytes;
    assert!(all_came, "{came} of {BYTES} bytes came, {} were taken", client.pattern.offset());
}

/// As [`checking`]; the data of clients with a seed below this is read only once `reads` is set.
fn reading_late(came_bytes: &Arc<AtomicU64>, below: u8, reads: &Arc<AtomicBool>) -> Server {
    let (came_bytes, reads) = (Arc::clone(came_bytes), Arc::clone(reads));
    Server::start("127.0.0.1:0", move |stream| {
        check(stream, &came_bytes, |seed| {
            while seed < below && !reads.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    })
}

/// Clients whose server does not read, then one whose server does; at last all arrives.
fn others_pass(entrance: SocketAddr, came_bytes: &AtomicU64, reads: &AtomicBool) {
    let mut clients: Vec<_> =
        (0..COPIED.clients as u8).map(|seed| Client::new(entrance, seed, usize::MAX)).collect();
    send_until_blocked(&mut clients, COPIED);
    let before_bytes = came_bytes.load(Ordering::SeqCst);
    assert_eq!(before_bytes, 0);
    passes_at_once(entrance, u8::MAX, came_bytes);
    let passed_bytes = came_bytes.load(Ordering::SeqCst);
    reads.store(true, Ordering::SeqCst);
    check_all_arrive(&clients, passed_bytes, came_bytes);
}

fn check_all_arrive(clients: &[Client], before_bytes: u64, came_bytes: &AtomicU64) {
    let sent_bytes: u64 = clients.iter().map(|client| client.pattern.offset()).sum();
    let all = || came_bytes.load(Ordering::SeqCst) - before_bytes == sent_bytes;
    assert!(eventually(DEADLINE, all), "{came_bytes:?} of {before_bytes} + {sent_bytes} arrived");
}

/// A server that checks the data of each client, and counts all received bytes.
fn checking(came_bytes: &Arc<AtomicU64>) -> Server {
    let came_bytes = Arc::clone(came_bytes);
    Server::start("127.0.0.1:0", move |stream| check(stream, &came_bytes, |_| {}))
}

/// Checks a client's data, once `wait`, which is given the client's seed, returns.
fn check(mut stream: TcpStream, came_bytes: &AtomicU64, wait: impl Fn(u8)) -> std::io::Result<()> {
    let mut buffer = [0; 64 << 10];
    stream.read_exact(&mut buffer[..1])?;
    let seed = buffer[0];
    let mut pattern = Pattern::new(seed.into());
    stream.write_all(b"!")?;
    wait(seed);
    loop {
        let bytes = stream.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(());
        }
        pattern.check(&buffer[..bytes]);
        came_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }
}

/// All clients send, each a message in turn, until for a while nothing more is taken of any.
fn send_until_blocked(clients: &mut [Client], load: Load) {
    let mut took_any = || {
        let took = clients.iter_mut().map(|client| usize::from(client.send(load.message_bytes)));
        took.sum::<usize>() > 0
    };
    while eventually(STILL / 4, &mut took_any) {}
}

/// Panics unless the program sleeps for a second. One that does not is found to run, or to want to,
/// however little of a busy machine it gets; one that has just come to rest is looked at again.
fn check_asleep(program: &Program) {
    const LOOKS: u32 = 100;
    const TRIES: usize = 3;
    let looked_at = |_| {
        let before = program.cpu_time();
        let awake = (0..LOOKS).filter(|_| {
            std::thread::sleep(Duration::from_secs(1) / LOOKS);
            !program.is_asleep()
        });
        (awake.count(), program.cpu_time().saturating_sub(before))
    };
    // It may wake up for a timer and have to wait for the processor.
    let is_asleep = |&(awake, used): &_| awake <= LOOKS as usize / 4 && used <= ASLEEP;
    let seen: Vec<_> = (0..TRIES).map(looked_at).take_while(|look| !is_asleep(look)).collect();
    assert!(seen.len() < TRIES, "awake at so many of {LOOKS} looks, and used so much: {seen:?}");
}

/// Two programs joined by a pair of sockets that hold little, of which the second is stopped under this
/// load; with the clients of the first.
fn stopped(protocol: Protocol, load: Load, server: &Server) -> ([Program; 2], Vec<Client>) {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    let ways = ["PORT=127.0.0.1:0".to_owned(), format!("DEST={}", server.address())];
    let start = |(link, way): (UnixStream, String)| {
        SockRef::from(&link).set_send_buffer_size(32 << 10).expect("a size can be set");
        let mut words =
            vec!["-Fsockmux".to_owned(), way, "TIMEOUT=drain:2".to_owned(), load.word.into()];
        words.extend(protocol.words());
        let again = link.try_clone().expect("a descriptor");
        Program::start_with_stdio(&words, OwnedFd::from(link).into(), OwnedFd::from(again).into())
    };
    let [here, there] = ways;
    let ends = [start((one, here)), start((other, there))];
    let entrance = ends[0].address_of("entrance listening");
    let seeds = 0..load.clients as u8;
    let mut clients: Vec<_> =
        seeds.map(|seed| Client::new(entrance, seed, load.messages)).collect();
    ends[1].pause();
    send_until_blocked(&mut clients, load);
    (ends, clients)
}

/// Nothing is used up by waiting, and all arrives when the peer goes on, as it was sent.
fn all_arrives(protocol: Protocol, load: Load) -> Value {
    let came_bytes = Arc::default();
    let server = checking(&came_bytes);
    let ([mut near, far], clients) = stopped(protocol, load, &server);
    check_asleep(&near);
    let before_bytes = came_bytes.load(Ordering::SeqCst);
    far.go_on();
    let sent_bytes: u64 = clients.iter().map(|client| client.pattern.offset()).sum();
    assert!(before_bytes < sent_bytes / 2, "{before_bytes} of {sent_bytes} bytes did not wait");
    let all = eventually(DEADLINE, || came_bytes.load(Ordering::SeqCst) == sent_bytes);
    assert!(all, "{came_bytes:?} of {sent_bytes} bytes arrived");
    drop(clients);
    near.terminate();
    assert_eq!(near.wait_exit(DEADLINE).code(), Some(0));
    let stopped = near.wait_for("stopped");
    assert_eq!(stopped["how"], "Drained");
    stopped
}

#[test]
fn spliced_bulk_waits_at_no_cost_and_arrives() {
    let stopped = all_arrives(Protocol::V1, SPLICED);
    assert!(stopped["splice_fallbacks"].as_u64().is_some_and(|times| times > 0), "{stopped}");
}

#[test]
fn clients_beyond_the_descriptors_wait_at_no_cost_and_are_served() {
    const CLIENTS: usize = 12;
    let server = Server::echo();
    let address = free_port([127, 0, 0, 2].into());
    let mut connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    let entrance = connector.address_of("entrance listening");
    // Before it accepts: io_uring goes by the limit of when that was begun. The tunnel takes some.
    connector.limit_descriptors(connector.descriptors() as u64 + 6);
    let exit = format!("DEST={}", server.address());
    let _receptor = start_receptor(&address.to_string(), &[exit]);
    connector.wait_for("tunnel up");
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(entrance)).collect();
    connector.wait_for_event("that it cannot accept", 1, |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("cannot accept"))
    });
    check_asleep(&connector);
    for (seed, client) in clients.into_iter().enumerate() {
        check_echo(&client, seed as u64, 1_000);
    }
    connector.terminate();
    assert_eq!(connector.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

/// Many clients of a program that is short of descriptors are all served, one after the other.
fn served_although_short(program: &mut Program, entrance: SocketAddr, clients: usize) {
    let clients: Vec<_> = (0..clients).map(|_| connect(entrance)).collect();
    program.wait_for_event("that it is short of descriptors", 1, |event| {
        let says =
            |text: &str| text.starts_with("cannot accept") || text.starts_with("cannot connect");
        event["message"].as_str().is_some_and(says)
    });
    check_asleep(program);
    for (seed, client) in clients.into_iter().enumerate() {
        check_echo(&client, seed as u64, 1_000);
    }
    program.terminate();
    assert_eq!(program.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn clients_of_a_plain_relay_without_descriptors_for_their_servers_are_served() {
    let server = Server::echo();
    let target = format!("SERVER=tcprelay://{}", server.address());
    let mut relay = Program::start(&["-P127.0.0.1:0", &target, "TIMEOUT=con:30"]);
    let entrance = relay.address_of("entrance listening");
    // From then on it keeps descriptors.
    check_new_echo(entrance, 0, 1_000);
    // More than are kept for servers, so that clients can take all that dials are to have.
    relay.limit_descriptors(relay.descriptors() as u64 + 14);
    served_although_short(&mut relay, entrance, 30);
}

#[test]
fn streams_of_an_exit_without_descriptors_for_their_servers_are_served() {
    let server = Server::echo();
    let address = free_port([127, 0, 0, 2].into()).to_string();
    let exit = format!("DEST={}", server.address());
    let mut receptor = start_receptor(&address, &[exit, "TIMEOUT=con:30".to_owned()]);
    let connector =
        start_connector(Protocol::V1, address.parse().expect("an address"), &["PORT=127.0.0.1:0"]);
    let entrance = connector.address_of("entrance listening");
    receptor.wait_for("tunnel up");
    receptor.limit_descriptors(receptor.descriptors() as u64 + 2);
    served_although_short(&mut receptor, entrance, 30);
}

fn keystrokes_wait_at_no_cost_and_arrive(protocol: Protocol) {
    all_arrives(protocol, KEYSTROKES);
}

fn crumbs_of_many_wait_at_no_cost_and_arrive(protocol: Protocol) {
    all_arrives(protocol, CRUMBS);
}

fn bulk_waits_at_no_cost_and_arrives(protocol: Protocol) {
    all_arrives(protocol, BULK);
}

fn a_sigterm_is_heard_while_the_peer_stands_still(protocol: Protocol) {
    for load in [KEYSTROKES, BULK] {
        let server = checking(&Arc::default());
        let ([mut near, _far], _clients) = stopped(protocol, load, &server);
        near.terminate();
        near.wait_for("draining");
        check_asleep(&near);
        assert_eq!(near.wait_exit(Duration::from_secs(5)).code(), Some(0));
        let stopped = near.wait_for("stopped");
        assert_eq!(stopped["how"], "DeadlinePassed");
        assert_eq!(stopped["streams_reset"], load.clients);
    }
}

fn a_tunnel_that_stands_still_leaves_buffers_to_others(protocol: Protocol) {
    let came_bytes = Arc::default();
    let server = checking(&came_bytes);
    let exit = format!("DEST={}", server.address());
    let hub = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0", COPIED.word]);
    let address = hub.address_of("receptor listening");
    let entrance = hub.address_of("entrance listening");
    let far = start_connector(protocol, address, &[&exit, COPIED.word]);
    hub.wait_for("tunnel up");
    let mut clients: Vec<_> =
        (0..COPIED.clients as u8).map(|seed| Client::new(entrance, seed, usize::MAX)).collect();
    far.pause();
    send_until_blocked(&mut clients, COPIED);
    let stood_at = came_bytes.load(Ordering::SeqCst);
    // The newest tunnel takes the clients.
    let _other = start_connector(protocol, address, &[&exit, COPIED.word]);
    hub.wait_for_nth("tunnel up", 2);
    passes_at_once(entrance, u8::MAX, &came_bytes);
    check_asleep(&hub);
    let passed_bytes = came_bytes.load(Ordering::SeqCst) - stood_at;
    far.go_on();
    check_all_arrive(&clients, passed_bytes, &came_bytes);
}

fn streams_that_stand_still_leave_buffers_to_others(protocol: Protocol) {
    let (came_bytes, reads) = Default::default();
    let server = reading_late(&came_bytes, COPIED.clients as u8, &reads);
    let exit = format!("DEST={}", server.address());
    let words = ["PORT=127.0.0.1:0", COPIED.word];
    let tunnel = Tunnel::start(protocol, &[&exit, COPIED.word], &words);
    others_pass(tunnel.entrance(), &came_bytes, &reads);
}

#[test]
fn pairs_that_stand_still_leave_buffers_to_others() {
    let (came_bytes, reads) = Default::default();
    let server = reading_late(&came_bytes, COPIED.clients as u8, &reads);
    let relay = format!("SERVER=tcprelay://{}", server.address());
    let relay = Program::start(&["-P127.0.0.1:0", &relay, COPIED.word]);
    others_pass(relay.address_of("entrance listening"), &came_bytes, &reads);
}

in_both_protocols! {
    a_tunnel_that_stands_still_leaves_buffers_to_others,
    streams_that_stand_still_leave_buffers_to_others,
    keystrokes_wait_at_no_cost_and_arrive,
    crumbs_of_many_wait_at_no_cost_and_arrive,
    bulk_waits_at_no_cost_and_arrives,
    a_sigterm_is_heard_while_the_peer_stands_still,
}
