//! Recordings of the original, one end played to the real binary in the place of the other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;

use crate::testkit::datagrams::Client;
use crate::testkit::net::{bounded, connect, free_port, read_to_end_of};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::replay::Replay;
use crate::testkit::stories::{Act, End, Story, Trace};
use crate::testkit::tunnel::{start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// Recordings without cipher, of everything that this version does.
const PLAIN: [&str; 16] = [
    "handshake",
    "echo10",
    "echo10_late",
    "echo10_noconndata",
    "banner",
    "bulk200k_up",
    "bulk200k_down",
    "streams5",
    "clientclose",
    "serverclose",
    "serverreset",
    "halfclose",
    "halfclose_server",
    "closedport",
    "oob",
    "reverse_port",
];

/// Recordings with an offer of the cipher, which is passed over.
const WITH_CIPHER_OFFER: [&str; 2] = ["handshake.crypt", "echo10.crypt"];

/// Recordings of datagrams, and how many flows the binary may have at its entrance: so that it
/// forgets one where the original does, which takes an empty datagram for the end.
const DATAGRAMS: [(&str, usize); 3] = [("udp3", 4096), ("udp_more", 1), ("udp_idle", 4096)];

/// Plays the local program at the end `here`: a client or a server behind the binary.
fn act_out(story: &Story, here: End, mut stream: TcpStream, urgent_heard: &AtomicBool) {
    for act in &story.acts {
        match act {
            Act::Data(end, data) if *end == here => stream.write_all(data).expect("data is sent"),
            Act::Data(_, data) => {
                let mut got = vec![0; data.len()];
                stream.read_exact(&mut got).expect("data arrives");
                assert!(got == *data, "other data arrives");
            }
            Act::Urgent(end, data) if *end == here => {
                SockRef::from(&stream).send_out_of_band(data).expect("urgent data is sent");
                // As recorded, more data comes only later: TCP forgets an urgent byte when the
                // data behind it is read first.
                let heard = || urgent_heard.load(Ordering::SeqCst);
                assert!(eventually(DEADLINE, heard), "the urgent data is not passed on");
            }
            Act::Urgent(..) => {
                let mut urgent = [std::mem::MaybeUninit::new(0)];
                let socket = SockRef::from(&stream);
                let arrived = || matches!(socket.recv_out_of_band(&mut urgent), Ok(1));
                assert!(eventually(DEADLINE, arrived), "no urgent data arrives");
            }
            Act::Close(end) if *end == here => return,
            Act::Close(_) | Act::Refuse(_) => {
                read_to_end_of(&mut stream, DEADLINE);
                return;
            }
        }
    }
}

/// A listener behind the binary's exit, or in a refused one's case an address without one.
fn exit_of(trace: &Trace) -> (Option<TcpListener>, SocketAddr) {
    let refused = |act: &Act| matches!(act, Act::Refuse(_));
    if trace.stories.iter().any(|story| story.acts.iter().any(refused)) {
        return (None, free_port([127, 0, 0, 2].into()));
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("an address");
    (Some(listener), address)
}

/// The next connection of the binary's; panics when none comes.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("accepting can be made to return at once");
    let mut accepted = None;
    eventually(DEADLINE, || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("the binary connects");
    bounded(stream)
}

/// Puts the binary in the place of `binary` and plays the other end of the recording `name`.
fn play(name: &str, binary: End) {
    println!("{name}: the binary as {binary:?}");
    let trace = Trace::load(name);
    let (servers, destination) = exit_of(&trace);
    let words = [
        "PORT=127.0.0.1:0".to_owned(),
        format!("DEST={destination}"),
        // A client that has closed cannot be distinguished from one that still reads, for so long.
        "TIMEOUT=lin:1".to_owned(),
    ];
    let (program, link) = join(binary, &words);
    let entrance = program.address_of("entrance listening");

    let replay = Replay::new(&trace, binary.other(), link);
    let urgent_heard = &replay.urgent_heard();
    let _link = std::thread::scope(|scope| {
        if let Some(servers) = &servers {
            let stories = trace.stories.iter().filter(|story| story.entrance != binary);
            scope.spawn(move || {
                for story in stories {
                    let stream = accept(servers);
                    scope.spawn(move || act_out(story, binary, stream, urgent_heard));
                }
            });
        }
        replay.run(|stream| {
            let client = connect(entrance);
            let story = &trace.stories[stream];
            scope.spawn(move || act_out(story, binary, client, urgent_heard));
        })
    });
    assert_eq!(program.count("tunnel down"), 0);
}

/// As [`play`], for a recording of datagrams.
fn play_datagrams(name: &str, flows: usize, binary: End) {
    println!("{name}: the binary as {binary:?}");
    let trace = Trace::load(name);
    let server = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    let words = [
        "PORT=127.0.0.1:0/udp".to_owned(),
        format!("DEST={}/udp", server.local_addr().expect("an address")),
        format!("SOXCONF=udpflows:{flows}"),
    ];
    let (program, link) = join(binary, &words);
    let entrance = program.address_of("entrance listening");
    let replay = Replay::new(&trace, binary.other(), link).of_datagrams();
    let _link = std::thread::scope(|scope| {
        let at_exit: Vec<_> =
            trace.stories.iter().filter(|story| story.entrance != binary).collect();
        scope.spawn(move || serve_datagrams(&at_exit, binary, &server));
        let mut talking = None;
        replay.run(|stream| {
            // As recorded: the one before has heard its answers by now.
            if let Some(talking) = talking.take() {
                let talking: std::thread::ScopedJoinHandle<'_, ()> = talking;
                talking.join().expect("a client is answered as recorded");
            }
            // Datagrams before the end of the hello have no tunnel, and are dropped.
            program.wait_for("tunnel up");
            let client = Client::of(entrance);
            let story = &trace.stories[stream];
            talking = Some(scope.spawn(move || talk(story, binary, &client)));
        })
    });
    assert_eq!(program.count("tunnel down"), 0);
}

/// Plays a client of datagrams.
fn talk(story: &Story, here: End, client: &Client) {
    for act in &story.acts {
        match act {
            Act::Data(end, data) if *end == here => client.send(data),
            Act::Data(_, data) => assert!(client.receive() == *data, "another datagram arrives"),
            Act::Close(_) => return,
            Act::Urgent(..) | Act::Refuse(_) => panic!("not of datagrams: {act:?}"),
        }
    }
}

/// Plays the server of datagrams, whose clients come one after the other.
fn serve_datagrams(stories: &[&Story], here: End, socket: &UdpSocket) {
    let data = |story: &Story| -> Vec<(End, Vec<u8>)> {
        let data = story.acts.iter().filter_map(|act| match act {
            Act::Data(end, data) => Some((*end, data.clone())),
            _ => None,
        });
        data.rev().collect()
    };
    // The rest of each story, the next datagram last.
    let mut left: Vec<_> = stories.iter().map(|&story| data(story)).collect();
    let mut clients = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    while left.iter().any(|left| !left.is_empty()) {
        let (bytes, client) = socket.recv_from(&mut buffer).expect("a datagram comes");
        let known = clients.iter().position(|known| *known == client);
        let story = known.unwrap_or_else(|| {
            clients.push(client);
            clients.len() - 1
        });
        let (from, data) = left[story].pop().expect("no more datagrams than recorded");
        assert!(from != here && data == buffer[..bytes], "another datagram arrives");
        while let Some((_, answer)) = left[story].pop_if(|(from, _)| *from == here) {
            socket.send_to(&answer, client).expect("an answer is sent");
        }
    }
}

/// Starts the binary and gives it a persistent connection whose other end is the test's.
fn join(binary: End, words: &[String]) -> (Program, TcpStream) {
    match binary {
        End::Receptor => {
            let program = start_receptor("127.0.0.1:0", words);
            let link = connect(program.address_of("receptor listening"));
            (program, link)
        }
        End::Connector => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
            let program =
                start_connector(Protocol::V1, listener.local_addr().expect("an address"), words);
            (program, accept(&listener))
        }
    }
}

#[test]
fn plain_recordings_with_the_binary_as_receptor() {
    for name in PLAIN {
        play(name, End::Receptor);
    }
}

#[test]
fn plain_recordings_with_the_binary_as_connector() {
    for name in PLAIN {
        play(name, End::Connector);
    }
}

#[test]
fn the_offer_of_a_cipher_is_passed_over() {
    for name in WITH_CIPHER_OFFER {
        play(name, End::Receptor);
        play(name, End::Connector);
    }
}

#[test]
fn recordings_of_datagrams() {
    for (name, flows) in DATAGRAMS {
        play_datagrams(name, 4096, End::Receptor);
        play_datagrams(name, flows, End::Connector);
    }
}
