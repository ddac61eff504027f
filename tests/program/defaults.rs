//! What holds without a parameter for it: who may connect, what is said of a connection in clear, and
//! what strangers and clients of proxies learn and reach.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{
    Ended, bounded, check_echo, check_new_echo, connect, connect_from, read_to_end_of, refused,
};
use crate::testkit::network::{self, Beyond, Hosts};
use crate::testkit::peer::{Peer, kind, read_frame};
use crate::testkit::program::{Program, command};
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// The message about a peer that was turned away.
const NO_TUNNEL: &str = "tunnel did not come up";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The parameter that a log line says to add.
fn to_let_in(event: &Value) -> String {
    event["to_let_in"].as_str().unwrap_or_else(|| panic!("nothing to add in {event}")).to_owned()
}

#[test]
fn a_peer_of_another_network_comes_in_by_the_words_of_the_log_only() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    let beyond = Beyond::lay_out();
    let server = Server::echo();
    let dest = format!("DEST={}", server.address());
    for (here, host) in Beyond::HERE.into_iter().zip(Beyond::HOST) {
        let dial = |port| {
            let receptor = SocketAddr::new(ip(here), port);
            beyond.at_host(|| start_connector(Protocol::V1, receptor, &["PORT=127.0.0.1:0"]))
        };
        // As typed by somebody who has read no further.
        let shut = Program::start(&["-P:0", &dest]);
        let port = shut.address_of("receptor listening").port();
        let stranger = dial(port);
        let event = shut.wait_for(NO_TUNNEL);
        assert!(event["reason"].as_str().expect("a reason").contains(".localnet"), "{event}");
        assert_eq!(to_let_in(&event), format!("RELIABLE=.localnet,{host}"));
        let reason = stranger.wait_for_reason(NO_TUNNEL);
        assert!(reason.contains("before its hello: its RELIABLE= may not let in"), "{reason}");
        assert_eq!(shut.count("tunnel up") + stranger.count("tunnel up"), 0);
        // A neighbour is no stranger.
        let neighbour = beyond.at_router(|| {
            let receptor = SocketAddr::new(ip(here), port);
            start_connector(Protocol::V1, receptor, &["PORT=127.0.0.1:0"])
        });
        neighbour.wait_for("tunnel up");
        drop((shut, stranger, neighbour));
        let open = Program::start(&["-P:0", &dest, &to_let_in(&event)]);
        let stranger = dial(open.address_of("receptor listening").port());
        stranger.wait_for("tunnel up");
        let entrance = stranger.address_of("entrance listening");
        check_echo(&beyond.at_host(|| connect(entrance)), 1, 100_000);
    }
}

#[test]
fn a_client_of_another_network_comes_in_by_the_words_of_the_log_only() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    let beyond = Beyond::lay_out();
    let (server, datagrams) = (Server::echo(), DatagramServer::echo());
    let dests = [format!("DEST={}", server.address()), format!("DEST={}/udp", datagrams.address())];
    let relay = format!("SERVER=tcprelay://{}", server.address());
    for (here, host) in Beyond::HERE.into_iter().zip(Beyond::HOST) {
        let start = |more: &[&str]| {
            let words = [&["PORT=0,0/udp"], more].concat();
            let tunnel = Tunnel::start(Protocol::V1, &dests, &words);
            let ports = [1, 2].map(|nth| {
                let place = tunnel.connector.nth_address_of("entrance listening", nth);
                SocketAddr::new(ip(here), place.port())
            });
            (tunnel, ports)
        };
        let (shut, [tcp, udp]) = start(&[]);
        beyond.at_host(|| refused(host, tcp));
        let words = to_let_in(&shut.connector.wait_for("stream refused"));
        assert_eq!(words, format!("RELIABLE=.localnet,{host}"));
        let own = SocketAddr::new(ip(host), 0).to_string();
        beyond.at_host(|| Client::from(&own, udp)).send(b"hello");
        assert_eq!(to_let_in(&shut.connector.wait_for_nth("stream refused", 2)), words);
        // Neighbours and this machine are served.
        let on_link = beyond.on_link(tcp.port());
        for near in [tcp, on_link] {
            check_echo(&beyond.at_router(|| connect(near)), 1, 1000);
        }
        check_new_echo(tcp, 2, 1000);
        drop(shut);
        let (_open, [tcp, udp]) = start(&[&words]);
        check_echo(&beyond.at_host(|| connect(tcp)), 3, 100_000);
        beyond.at_host(|| Client::from(&own, udp)).echo_in_the_end(b"hello");
        check_new_echo(tcp, 4, 1000);
        // A plain relay has the same default.
        let shut = Program::start(&["-P:0", &relay]);
        let at = SocketAddr::new(ip(here), shut.address_of("entrance listening").port());
        beyond.at_host(|| refused(host, at));
        assert_eq!(to_let_in(&shut.wait_for("stream refused")), words);
    }
    assert_eq!(server.served(), 10);
}

/// Who is a stranger cannot say that it speaks for somebody of our networks.
#[test]
fn a_proxy_header_of_a_stranger_is_not_believed() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    let beyond = Beyond::lay_out();
    let server = Server::echo();
    let dest = format!("DEST={}", server.address());
    let tunnel = Tunnel::start(Protocol::V1, &[dest], &["PORT=0?proxy=accept"]);
    let at = SocketAddr::new(ip(Beyond::HERE[0]), tunnel.entrance().port());
    beyond.at_host(|| refused(Beyond::HOST[0], at));
    let event = tunnel.connector.wait_for("stream refused");
    assert_eq!(to_let_in(&event), "RELIABLE=.localnet,198.51.100.7");
    // A balancer beside us is; whom it names is judged as others are.
    for (named, is_served) in [("10.77.1.9", true), ("203.0.113.7", false)] {
        let mut balancer = beyond.at_router(|| connect(at));
        write!(balancer, "PROXY TCP4 {named} 10.77.1.1 1 2\r\n").expect("sent");
        match is_served {
            true => check_echo(&balancer, 1, 1000),
            false => assert_eq!(read_to_end_of(&mut balancer, DEADLINE), Ended::Reset),
        }
    }
    let event = tunnel.connector.wait_for_nth("stream refused", 2);
    assert_eq!(to_let_in(&event), "RELIABLE=.localnet,203.0.113.7");
}

/// A health check that resets its connection is gone before it is accepted.
#[test]
fn who_is_gone_already_is_not_logged_as_a_stranger() {
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    tunnel.receptor.pause();
    for _ in 0..20 {
        crate::testkit::net::reset(connect(tunnel.address));
    }
    tunnel.receptor.go_on();
    check_new_echo(tunnel.entrance(), 1, 1000);
    assert_eq!(tunnel.receptor.count(NO_TUNNEL), 0);
}

#[test]
fn a_receptor_in_clear_says_once_who_may_come() {
    const CLEAR: &str = "the persistent connection is not encrypted";
    let dest = "DEST=127.0.0.1:1";
    for (words, may_come) in [
        (&["-P:0", dest][..], ".localnet"),
        (&["-P:0", dest, "RELIABLE=10.0.0.0/8", "RELIABLE=!10.0.0.1"], "10.0.0.0/8,!10.0.0.1"),
        (&["-P0.0.0.0:0", dest, "RELIABLE=*"], "everybody"),
    ] {
        let receptor = Program::start(words);
        receptor.wait_for("receptor listening");
        let event = receptor.wait_for(CLEAR);
        assert_eq!((&event["level"], &event["may_come"]), (&"WARN".into(), &may_come.into()));
        assert!(event["remedy"].as_str().expect("a remedy").contains("keygen"), "{event}");
        assert_eq!(receptor.count(CLEAR), 1);
        let checked = command().args(words).arg("--check").output().expect("it runs");
        let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.contains("not encrypted: encrypt it: make a key at each end"), "{checked}");
    }
    // Where nobody else can listen in it is no warning.
    let receptor = Program::start(&["-P127.0.0.1:0", dest]);
    assert_eq!(receptor.wait_for(CLEAR)["level"], "INFO");
    let connector = start_connector(
        Protocol::V1,
        receptor.address_of("receptor listening"),
        &["PORT=127.0.0.1:0"],
    );
    connector.wait_for("tunnel up");
    assert_eq!(connector.count(CLEAR), 0);
}

/// Neither end says who it is before it is spoken to.
#[test]
fn the_hello_tells_a_stranger_nothing_of_the_host() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    let name = name.trim();
    let has_name = |payload: &[u8]| payload.windows(name.len()).any(|part| part == name.as_bytes());
    let meet = |stream: TcpStream, speaks_first: bool| {
        let mut peer = Peer { stream };
        if !speaks_first {
            peer.send(&crate::testkit::peer::hello(kind::HELLO));
        }
        let hello = peer.receive().expect("its hello");
        assert_eq!(hello.kind, kind::HELLO);
        assert!(hello.payload.starts_with(b"19700101-000000.000000 -\0"), "{hello:?}");
        assert!(!has_name(&hello.payload), "{hello:?}");
        if speaks_first {
            let soon = std::time::Duration::from_millis(200);
            peer.stream.set_read_timeout(Some(soon)).expect("bounded");
            assert!(read_frame(&mut peer.stream).is_none(), "it says more than its hello");
            peer.stream.set_read_timeout(Some(DEADLINE)).expect("bounded");
            peer.send(&crate::testkit::peer::hello(kind::HELLO));
        }
        let answer = peer.receive().expect("its answer");
        assert_eq!(answer.kind, kind::HELLO_OK);
        assert!(has_name(&answer.payload), "{answer:?}");
    };
    let receptor = start_receptor("127.0.0.1:0", &["DEST=127.0.0.1:1"]);
    meet(connect(receptor.address_of("receptor listening")), false);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("an address");
    let _connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    meet(bounded(listener.accept().expect("it dials").0), true);
}

/// Asks a SOCKS 5 proxy for an address, and gives its answer.
fn socks(entrance: SocketAddr, target: &[u8], port: u16) -> (u8, TcpStream) {
    let mut client = connect(entrance);
    client.write_all(&[5, 1, 0]).expect("sent");
    client.read_exact(&mut [0; 2]).expect("a method");
    client.write_all(&[&[5, 1, 0], target, &port.to_be_bytes()].concat()).expect("sent");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("an answer");
    (answer[1], client)
}

/// The address of SOCKS 5 of a name, and of IPv4.
fn of_name(name: &str) -> Vec<u8> {
    [&[3, name.len() as u8], name.as_bytes()].concat()
}

fn of_v4(ip: Ipv4Addr) -> Vec<u8> {
    [&[1][..], &ip.octets()].concat()
}

const NOT_ALLOWED: u8 = 2;

/// It would be a peer there, in the name of the host that the proxy is on, and past `RELIABLE=`.
#[test]
fn a_client_of_a_proxy_does_not_become_a_peer() {
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    let words = [
        "SERVER=socks,-in",
        "PERMIT=socks:127.0.0.0/8,[::1]:*",
        &format!("SERVER=sockmux://localhost:{}", address.port()),
    ];
    let _proxy = Program::start(&words);
    receptor.wait_for("tunnel up");
    let entrance = receptor.address_of("entrance listening");
    for target in [of_v4(Ipv4Addr::LOCALHOST), of_v4([127, 0, 0, 9].into()), of_name("localhost")] {
        let (answer, _) = socks(entrance, &target, address.port());
        assert_eq!(answer, NOT_ALLOWED, "{target:?}");
    }
    // What the list permits beside it is reached.
    let (answer, client) = socks(entrance, &of_v4(Ipv4Addr::LOCALHOST), server.address().port());
    assert_eq!(answer, 0);
    let mut client = client;
    client.read_exact(&mut [0; 6]).expect("the rest of the answer");
    check_echo(&client, 1, 1000);
    // The same at the receptor, whose own port it is.
    let exit = ["SERVER=socks,-in", "PERMIT=socks:127.0.0.0/8:*"];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0"]);
    let (answer, _) = socks(tunnel.entrance(), &of_v4(Ipv4Addr::LOCALHOST), tunnel.address.port());
    assert_eq!(answer, NOT_ALLOWED);
}

#[test]
fn names_that_lead_to_a_clouds_metadata_are_not_followed() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    let names = [
        ("fd00:ec2::254", "six.test"),
        ("169.254.169.254", "four.test"),
        ("::ffff:169.254.169.254", "mapped.test"),
        ("100.100.100.200", "shared.test"),
    ];
    let _names = Hosts::enter(&names);
    let tunnel = Tunnel::start(Protocol::V1, &["SERVER=socks,-in"], &["PORT=127.0.0.1:0"]);
    for (_, name) in names {
        let (answer, _) = socks(tunnel.entrance(), &of_name(name), 80);
        assert_eq!(answer, NOT_ALLOWED, "{name}");
    }
}

/// Says a user and a password to a SOCKS 5 proxy. `None`: it did not listen.
fn log_in(own: &str, entrance: SocketAddr, password: &str) -> Option<bool> {
    let mut client = connect_from(own, entrance).ok()?;
    let password = [&[1, 2], &b"me"[..], &[password.len() as u8], password.as_bytes()].concat();
    client.write_all(&[&[5, 1, 2], &password[..]].concat()).ok()?;
    let mut answer = [0; 4];
    client.read_exact(&mut answer).ok()?;
    Some(answer == [5, 2, 1, 0])
}

#[test]
fn passwords_cannot_be_guessed_fast() {
    use sockmux_uring::limits::{WRONG_PASSWORDS_AT_ONCE, WRONG_PASSWORDS_SECS};
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("users");
    std::fs::write(&file, "AUTHORIZER=-list{me:right}:socks\n").expect("written");
    let exit = [String::from("SERVER=socks,-in"), format!("+={}", file.display())];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0"]);
    let (guesser, other) = ("127.0.0.66", "127.0.0.1");
    let began = std::time::Instant::now();
    let wrong = (0..1000).take_while(|_| {
        log_in(guesser, tunnel.entrance(), "wrong").inspect(|known| assert!(!known)).is_some()
    });
    let wrong = wrong.count() as u64;
    let back = began.elapsed().as_secs() / WRONG_PASSWORDS_SECS;
    let at_once = u64::from(WRONG_PASSWORDS_AT_ONCE);
    assert!((at_once..=at_once + back + 1).contains(&wrong), "{wrong} in {:?}", began.elapsed());
    tunnel.receptor.wait_for_event("the brake", 1, |event| {
        event["reason"].as_str().is_some_and(|why| why.contains("too many wrong passwords"))
    });
    // Others are served meanwhile, and the guesser who knows it after a while.
    assert_eq!(log_in(other, tunnel.entrance(), "right"), Some(true));
    let is_known = || log_in(guesser, tunnel.entrance(), "right") == Some(true);
    assert!(eventually(DEADLINE, is_known));
}

#[test]
fn commands_have_the_documented_environment_and_nothing_else() {
    let script = "export TOKEN=hunter2 CREDENTIALS_DIRECTORY=/run/credentials/x LC_TIME=C TZ=UTC";
    let words = ["-P127.0.0.1:0", "SERVER=exec:env; cat,-in"];
    let receptor = Program::start_after(script, &words);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    connector.wait_for("tunnel up");
    let stream = connect(connector.address_of("entrance listening"));
    stream.shutdown(std::net::Shutdown::Write).expect("sending can end");
    let mut text = String::new();
    (&stream).read_to_string(&mut text).expect("text");
    let mut names: Vec<&str> =
        text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    // Those of the shell itself.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    let documented = "HOME LANG LANGUAGE LOCAL_PORT LOGNAME PATH REMOTE_HOST REMOTE_PORT SHELL TMPDIR TZ \
                      USER";
    let is_documented = |name: &&str| {
        name.starts_with("LC_") || documented.split_whitespace().any(|known| known == *name)
    };
    assert!(names.iter().all(is_documented), "{text}");
    for wanted in ["PATH", "LC_TIME", "TZ", "REMOTE_HOST", "LOCAL_PORT"] {
        assert!(names.contains(&wanted), "{wanted}: {text}");
    }
}

#[test]
fn passwords_before_a_host_are_not_repeated() {
    for words in [
        &["SERVER=sockmux://me:hunter2@h:9000", "PORT=1"][..],
        &["SERVER=http://me:hunter2@h:80,-in", "-P9000"],
        &["SERVER=http,-in(SERVER=http://me:hunter2@h:80)", "-P9000"],
        &["DEST=me:hunter2@h:80", "-P9000"],
        &["DEST=me:hunter2/x@h:80", "-P9000"],
        &["-Pme:hunter2@h:9000", "DEST=h:1"],
        &["-P9000", "http://me:hunter2@h:80"],
        &["-P9000", "DETS=me:hunter2@h:80"],
        &["-P9000", "DEST", "me:hunter2@h:80"],
        &["-P9000", "RELIABLE=me:hunter2@h", "DEST=h:1"],
        &["-P9000", "--proxy=http://me:hunter2@h:80"],
        &["-P9000", "DEST=h:1", "--log", "http://me:hunter2@h:80"],
        &["-L", "8080:me:hunter2@h:80"],
        &["-P9000", "SERVER=exec:curl http://me:hunter2@h/"],
        &["-P9000", "--check", "SERVER=exec:curl http://me:hunter2@h/,-in"],
        &["--check", "SERVER=sockmux:proc@curl http://me:hunter2@h/", "PORT=1"],
    ] {
        let output = command().args(words).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.is_empty() && !said.contains("hunter2"), "{words:?}: {said}");
    }
    // In the log, too.
    let words = ["SERVER=sockmux:proc@exit 1; curl http://me:hunter2@h/", "PORT=127.0.0.1:0"];
    let program = Program::start(&words);
    program.wait_for("command ended");
    assert!(!program.log_text().contains("hunter2"), "{}", program.log_text());
}
