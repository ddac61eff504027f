//! Breaks of the persistent connection that streams outlive, and those that they do not.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::testkit::datagrams::{Client, DatagramServer, datagram};
use crate::testkit::keys::Keys;
use crate::testkit::link_proxy::{Cut, LinkProxy};
use crate::testkit::net::{
    Ended, bounded, check_echo, check_new_echo, connect, read_to_end_of, reset,
};
use crate::testkit::pattern::Pattern;
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::{Exchange, Server, serve_echo};
use crate::testkit::tunnel::{BROKE, NO_RESUMPTION, Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

const ENTRANCE: &str = "PORT=127.0.0.1:0";

const BOTH: [Cut; 2] = [Cut::Reset, Cut::Fin];

/// Within this a stream that nothing keeps has ended at its client.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Longer than a path may be silent while something waits.
const IDLE: Duration = Duration::from_millis(3000);

/// How long a test waits for what must not come.
const NOTHING_WITHIN: Duration = Duration::from_millis(200);

fn exit(server: &Server) -> String {
    format!("DEST={}", server.address())
}

fn entrance(program: &Program) -> SocketAddr {
    program.address_of("entrance listening")
}

/// A tunnel of SockMux 1 from an entrance at the connector to this server.
fn tunnel_to(server: &Server) -> (Tunnel, LinkProxy) {
    Tunnel::start_spoilable(Protocol::V1, &[exit(server)], &[ENTRANCE])
}

/// Panics unless both ends hold as many sockets as they did, soon.
fn holds_as_before(tunnel: &Tunnel, before: [usize; 2]) {
    let now = || [tunnel.receptor.sockets(), tunnel.connector.sockets()];
    assert!(eventually(DEADLINE, || now() == before), "{before:?} sockets before, {:?} now", now());
}

/// Streams opened at either end move a few MiB each way, while their connection is cut: far apart, and again
/// while it is taken up: within hellos, within what says how far each side has read, within what is sent again.
fn bulk_is_whole(words: [&str; 2]) {
    const BYTES: u64 = 5 << 20;
    let server = Server::exchange();
    let exit = exit(&server);
    let ends = words.map(|word| [ENTRANCE, &exit, word]);
    let (tunnel, proxy) = Tunnel::start_spoilable(Protocol::V1, &ends[0], &ends[1]);
    let before = [tunnel.receptor.sockets(), tunnel.connector.sockets()];
    let after = [1, 150_000, 150_020, 150_200, 900_000, 900_333, 2 << 20, 2_200_000, 5 << 20];
    let later = [8 << 20, (8 << 20) + 3000, 13 << 20, 20 << 20, (20 << 20) + 1];
    let places = after.iter().chain(&later).zip(BOTH.iter().cycle());
    let cuts: Vec<(u64, Cut)> = places.map(|(&bytes, &how)| (bytes, how)).collect();
    proxy.cut_at(&cuts);
    let entrances = [entrance(&tunnel.receptor), entrance(&tunnel.connector)];
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let entrance = entrances[seed as usize % 2];
            let one = Exchange { seed, up_bytes: BYTES, down_bytes: BYTES };
            scope.spawn(move || one.run(entrance));
        }
    });
    assert_eq!(proxy.cuts(), cuts.len());
    holds_as_before(&tunnel, before);
}

#[test]
fn spliced_bulk_is_whole() {
    bulk_is_whole(["SOXCONF=bulk:splice"; 2]);
}

#[test]
fn copied_bulk_is_whole() {
    bulk_is_whole(["SOXCONF=bulk:copy"; 2]);
}

#[test]
fn bulk_that_one_end_splices_and_the_other_copies_is_whole() {
    bulk_is_whole(["SOXCONF=bulk:splice", "SOXCONF=bulk:copy"]);
}

#[test]
fn encrypted_bulk_is_whole() {
    let keys = Keys::new();
    let own = ["receptor", "connector"].map(|name| keys.make(name));
    let receptor = keys.words("receptor", &own[1]);
    bulk_is_whole([&receptor, &keys.words("connector", &own[0])]);
}

/// Keys of both ends may be a shared secret as well: any peer that has it may be the one that comes back.
#[test]
fn encrypted_by_a_shared_secret() {
    let (keys, server) = (Keys::new(), Server::echo());
    let secret = keys.secret("secret");
    let words = [exit(&server), secret.clone()];
    let (tunnel, proxy) = Tunnel::start_spoilable(Protocol::V1, &words, &[ENTRANCE, &secret]);
    let stream = connect(tunnel.entrance());
    for (round, how) in BOTH.into_iter().enumerate() {
        check_echo(&stream, round as u64, 100_000);
        proxy.cut(how);
    }
    check_echo(&stream, 9, 100_000);
}

#[test]
fn small_messages_come_once_each_and_in_order() {
    const CUTS: usize = 12;
    let server = Server::echo();
    let (tunnel, proxy) = tunnel_to(&server);
    let mut streams: Vec<TcpStream> = (0..5).map(|_| connect(tunnel.entrance())).collect();
    let (mut up, mut down) = (Pattern::new(1), Pattern::new(1));
    for cut in 0..CUTS {
        for size in [1, 30, 2000] {
            for stream in &mut streams {
                stream.write_all(&up.take(size)).expect("taken");
            }
            if size == 30 {
                proxy.cut(BOTH[cut % 2]);
            }
            for stream in &mut streams {
                let mut answer = vec![0; size];
                stream.read_exact(&mut answer).expect("an answer");
                down.check(&answer);
            }
        }
    }
}

/// What nobody has read waits over a break, and comes then.
#[test]
fn what_a_client_has_not_read_waits() {
    const BYTES: u64 = 3 << 20;
    let server =
        Server::start("127.0.0.1:0", |mut stream| Pattern::new(5).send(&mut stream, BYTES));
    let (tunnel, proxy) = tunnel_to(&server);
    proxy.cut_at(&[(100_000, Cut::Reset), (200_000, Cut::Fin)]);
    let mut client = connect(tunnel.entrance());
    assert!(eventually(DEADLINE, || proxy.cuts() == 2));
    let mut pattern = Pattern::new(5);
    pattern.receive(&mut client, BYTES).expect("all of it");
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Eof);
}

/// A NAT forgets the connection: neither end hears of that, while a new one would be carried. It costs seconds.
#[test]
fn a_connection_that_is_dead_without_a_word_is_replaced_while_something_waits() {
    let server = Server::echo();
    let (tunnel, proxy) = tunnel_to(&server);
    let stream = connect(tunnel.entrance());
    for round in 0..2 {
        check_echo(&stream, round, 300_000);
        proxy.freeze();
        check_echo(&stream, 10 + round, 300_000);
    }
}

/// The path comes back before anybody has given up: nothing is to happen.
#[test]
fn a_short_silence_is_a_pause() {
    let server = Server::echo();
    let (tunnel, proxy) = tunnel_to(&server);
    let stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 100_000);
    proxy.pause();
    let (sent, waits) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sent.send(()).expect("awaited");
            check_echo(&stream, 2, 300_000);
        });
        waits.recv().expect("sent");
        std::thread::sleep(NOTHING_WITHIN);
        proxy.resume();
    });
}

/// The time in which nothing waited for an answer does not count.
#[test]
fn an_idle_tunnel_is_not_replaced_when_traffic_begins() {
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    for round in 0..3 {
        check_new_echo(tunnel.entrance(), round, 1000);
        std::thread::sleep(IDLE);
        check_new_echo(tunnel.entrance(), round, 1000);
    }
    for end in [&tunnel.receptor, &tunnel.connector] {
        assert_eq!(end.count(BROKE), 0);
    }
}

#[test]
fn half_closed_streams_stay_half_closed() {
    for how in BOTH {
        let (heard, hears) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let told = Mutex::new(told);
        let server = Server::start("127.0.0.1:0", move |mut stream| {
            let mut from = Pattern::new(1);
            from.receive(&mut stream, 100_000)?;
            assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
            heard.send(()).expect("awaited");
            told.lock().expect("whole").recv().expect("told");
            Pattern::new(2).send(&mut stream, 100_000)
        });
        let (tunnel, proxy) = tunnel_to(&server);
        let mut client = connect(tunnel.entrance());
        Pattern::new(1).send(&mut client, 100_000).expect("taken");
        client.shutdown(Shutdown::Write).expect("ended");
        hears.recv_timeout(DEADLINE).expect("the server has the end of data");
        proxy.cut(how);
        tell.send(()).expect("awaited");
        Pattern::new(2).receive(&mut client, 100_000).expect("the other direction goes on");
        assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Eof);
    }
}

/// Ends of data, in either direction, that come while there is no connection.
#[test]
fn ends_of_data_during_an_outage_come_behind_the_data() {
    for how in BOTH {
        let server = Server::start("127.0.0.1:0", |mut stream| {
            stream.write_all(b"hello")?;
            Pattern::new(1).receive(&mut stream, 100_000)?;
            assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
            stream.write_all(b"done")
        });
        let (tunnel, proxy) = tunnel_to(&server);
        let mut client = connect(tunnel.entrance());
        client.read_exact(&mut [0; 5]).expect("it is open");
        proxy.interrupt(how);
        Pattern::new(1).send(&mut client, 100_000).expect("taken");
        client.shutdown(Shutdown::Write).expect("ended");
        proxy.restore();
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer, and its end");
        assert_eq!(answer, "done");
    }
}

/// Resets at either side, while there is no connection, come after it. They are of their stream alone.
#[test]
fn resets_during_an_outage_come_after_it() {
    let (ended, ends) = mpsc::channel();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let server = Server::start("127.0.0.1:0", move |stream| {
        let mut stream = bounded(stream);
        let mut what = [0];
        stream.read_exact(&mut what)?;
        stream.write_all(&what)?;
        match what {
            [b'c'] => ended.send(read_to_end_of(&mut stream, DEADLINE)).expect("awaited"),
            [b's'] => {
                told.lock().expect("whole").recv().expect("told");
                reset(stream);
            }
            _ => return serve_echo(stream),
        }
        Ok(())
    });
    let (tunnel, proxy) = tunnel_to(&server);
    let [resets, mut is_reset, stays] = [b"c", b"s", b"e"].map(|what| {
        let mut client = connect(tunnel.entrance());
        client.write_all(what).expect("taken");
        client.read_exact(&mut [0]).expect("it is open");
        client
    });
    proxy.interrupt(Cut::Reset);
    reset(resets);
    tell.send(()).expect("awaited");
    let nothing = ends.recv_timeout(NOTHING_WITHIN);
    assert_eq!(nothing, Err(mpsc::RecvTimeoutError::Timeout));
    proxy.restore();
    assert_eq!(ends.recv_timeout(DEADLINE), Ok(Ended::Reset));
    assert_eq!(read_to_end_of(&mut is_reset, DEADLINE), Ended::Reset);
    check_echo(&stays, 1, 1000);
}

/// As for a tunnel that is down. Those of the receptor's entrance wait, too, since its peer will come back.
#[test]
fn clients_that_come_during_an_outage_wait_and_are_served() {
    let server = Server::echo();
    let words = [ENTRANCE, &exit(&server)];
    let (tunnel, proxy) = Tunnel::start_spoilable(Protocol::V1, &words, &words);
    let old = connect(tunnel.entrance());
    check_echo(&old, 1, 1000);
    proxy.interrupt(Cut::Reset);
    let mut new = [&tunnel.connector, &tunnel.receptor].map(|end| connect(entrance(end)));
    for client in &mut new {
        client.write_all(b"?").expect("taken");
        client.set_read_timeout(Some(NOTHING_WITHIN)).expect("a timeout can be set");
        let heard = client.read(&mut [0]).expect_err("nothing is heard yet");
        let waits = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&heard.kind());
        assert!(waits, "{heard}");
    }
    proxy.restore();
    for client in new {
        let mut client = bounded(client);
        client.read_exact(&mut [0]).expect("served");
        check_echo(&client, 2, 100_000);
    }
    check_echo(&old, 3, 100_000);
}

/// Asks until the answer to question `number` comes. Those to earlier ones may still be on their way.
fn answers_in_the_end(client: &Client, number: u64) {
    let asked: Vec<Vec<u8>> = (0..=number).map(|earlier| datagram(earlier, 500)).collect();
    let answered = eventually(DEADLINE, || {
        client.send(&datagram(number, 500));
        let heard = client.hears_within(Duration::from_millis(50));
        assert!(heard.as_ref().is_none_or(|heard| asked.contains(heard)), "{heard:?}");
        heard == Some(datagram(number, 500))
    });
    assert!(answered, "no answer within {DEADLINE:?}");
}

/// A flow goes on: its server hears from the same port as before.
#[test]
fn a_flow_of_datagrams_goes_on() {
    let (came, from) = mpsc::channel();
    let server = DatagramServer::start("127.0.0.1:0", move |socket, datagram, client| {
        came.send(client).expect("awaited");
        let _ = socket.send_to(datagram, client);
    });
    let exit = format!("DEST={}/udp", server.address());
    let (tunnel, proxy) = Tunnel::start_spoilable(Protocol::V1, &[exit], &["PORT=127.0.0.1:0/udp"]);
    let client = Client::of(tunnel.entrance());
    answers_in_the_end(&client, 0);
    for (number, how) in BOTH.into_iter().enumerate() {
        proxy.cut(how);
        answers_in_the_end(&client, 1 + number as u64);
    }
    let mut ports: Vec<SocketAddr> = from.try_iter().collect();
    ports.dedup();
    assert_eq!(ports.len(), 1, "{ports:?}");
}

/// Cut between the steps of its conversation, and behind it.
#[test]
fn a_socks_client_goes_on() {
    let server = Server::echo();
    let exit = ["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"];
    let (tunnel, proxy) = Tunnel::start_spoilable(Protocol::V1, &exit, &[ENTRANCE]);
    let mut client = connect(tunnel.entrance());
    client.write_all(&[5, 1, 0]).expect("taken");
    let mut method = [0; 2];
    client.read_exact(&mut method).expect("a method");
    assert_eq!(method, [5, 0]);
    proxy.cut(Cut::Reset);
    let IpAddr::V4(ip) = server.address().ip() else { panic!("a server of IPv4") };
    let port = server.address().port().to_be_bytes();
    client.write_all(&[&[5, 1, 0, 1], &ip.octets()[..], &port].concat()).expect("taken");
    let mut reply = [0; 10];
    client.read_exact(&mut reply).expect("a reply");
    assert_eq!(reply[1], 0);
    proxy.cut(Cut::Fin);
    check_echo(&client, 1, 100_000);
}

/// It knows nothing of the lane, and says so: long before the time for resumption is over.
#[test]
fn a_receptor_that_was_restarted_ends_the_streams() {
    let server = Server::echo();
    let exit = [exit(&server)];
    let mut receptor = start_receptor("127.0.0.2:0", &exit);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(Protocol::V1, address, &[ENTRANCE]);
    let mut client = connect(entrance(&connector));
    check_echo(&client, 1, 1000);
    receptor.kill_9();
    let _receptor = start_receptor(&address.to_string(), &exit);
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Reset);
    check_new_echo(entrance(&connector), 2, 1000);
}

/// Where either end has it off, or speaks 0.3, streams end with their connection.
#[test]
fn without_resumption_streams_end_at_once() {
    for (protocol, receptor, connector) in [
        (Protocol::V1, Some(NO_RESUMPTION), Some(NO_RESUMPTION)),
        (Protocol::V1, Some(NO_RESUMPTION), None),
        (Protocol::V1, None, Some(NO_RESUMPTION)),
        (Protocol::V03, None, None),
    ] {
        let server = Server::echo();
        let exit = exit(&server);
        let words = [Some(&*exit), receptor].into_iter().flatten().collect::<Vec<_>>();
        let own = [Some(ENTRANCE), connector].into_iter().flatten().collect::<Vec<_>>();
        let (tunnel, proxy) = Tunnel::start_spoilable(protocol, &words, &own);
        for how in BOTH {
            let mut client = connect(tunnel.entrance());
            check_echo(&client, 1, 1000);
            proxy.cut(how);
            assert_eq!(
                read_to_end_of(&mut client, AT_ONCE),
                Ended::Reset,
                "{receptor:?} {connector:?}"
            );
        }
        check_new_echo(tunnel.entrance(), 2, 1000);
    }
}

#[test]
fn streams_end_at_both_sides_when_the_time_for_resumption_is_over() {
    const WORD: &str = "TIMEOUT=resume:1";
    let (ended, ends) = mpsc::channel();
    let server = Server::start("127.0.0.1:0", move |stream| {
        let mut stream = bounded(stream);
        stream.write_all(b"hello")?;
        ended.send(read_to_end_of(&mut stream, DEADLINE)).expect("awaited");
        Ok(())
    });
    let (tunnel, proxy) =
        Tunnel::start_spoilable(Protocol::V1, &[&*exit(&server), WORD], &[ENTRANCE, WORD]);
    let mut client = connect(tunnel.entrance());
    client.read_exact(&mut [0; 5]).expect("it is open");
    let start = Instant::now();
    proxy.interrupt(Cut::Reset);
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Reset);
    assert!(start.elapsed() > Duration::from_millis(800), "after {:?}", start.elapsed());
    assert_eq!(ends.recv_timeout(DEADLINE), Ok(Ended::Reset));
    // What comes then is served by a new lane.
    proxy.restore();
    let mut client = connect(tunnel.entrance());
    client.read_exact(&mut [0; 5]).expect("served");
}

/// Nothing is left of a lane that was taken up many times, and of its streams.
#[test]
fn idle_streams_come_back_and_leave_nothing() {
    const STREAMS: usize = 100;
    let server = Server::echo();
    let (tunnel, proxy) = tunnel_to(&server);
    let before = [tunnel.receptor.sockets(), tunnel.connector.sockets()];
    let streams: Vec<TcpStream> = (0..STREAMS).map(|_| connect(tunnel.entrance())).collect();
    streams.iter().for_each(|stream| check_echo(stream, 1, 10));
    for how in [Cut::Reset, Cut::Fin, Cut::Reset] {
        proxy.interrupt(how);
        proxy.restore();
        streams.iter().for_each(|stream| check_echo(stream, 2, 10));
    }
    drop(streams);
    holds_as_before(&tunnel, before);
}
