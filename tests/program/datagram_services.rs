//! Real programs that speak UDP, through the tunnel.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::Value;

use crate::testkit::datagrams::DatagramServer;
use crate::testkit::net::free_port;
use crate::testkit::network;
use crate::testkit::protocol::Protocol;
use crate::testkit::services::{dnsmasq, iperf3, new_dir, program, run, wireguard};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// Name and address of a question.
fn question(number: u16) -> (String, Ipv4Addr) {
    let [high, low] = number.to_be_bytes();
    (format!("q{number:04}.test"), Ipv4Addr::new(10, 20, high, low))
}

/// A thousand queries of `dig`, five from each of 200 addresses, eight at a time: each answer reaches
/// its client.
#[test]
fn dig_asks_a_name_server() {
    needs!("dnsmasq", "dig");
    const SOURCES: u16 = 200;
    const QUESTIONS_EACH: u16 = 5;
    let server = dnsmasq::start((0..SOURCES * QUESTIONS_EACH).map(question));
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}/udp", server.address())],
        &["PORT=127.0.0.1:0/udp"],
    );
    let (idle, entrance) = (tunnel.receptor.descriptors(), tunnel.entrance());
    let dig = program("dig");
    // An address that no other run of this test uses at the same time, and so free ports.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 | high, middle, low);
    let next = Mutex::new(0..SOURCES);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(source) = take(&next) {
                    let questions = (0..QUESTIONS_EACH).map(|nth| question(nth * SOURCES + source));
                    let (names, addresses): (Vec<_>, Vec<_>) =
                        questions.map(|(name, address)| (name, address.to_string())).unzip();
                    let said = run(Command::new(&dig)
                        .arg(format!("@{}", entrance.ip()))
                        .args(["-p", &entrance.port().to_string()])
                        .args(["-b", &format!("{own}#{}", 20_000 + source)])
                        .args(["+short", "+tries=5", "+timeout=5"])
                        .args(names));
                    assert_eq!(said.lines().collect::<Vec<_>>(), addresses, "source {source}");
                }
            });
        }
    });
    assert_eq!(tunnel.receptor.descriptors(), idle + usize::from(SOURCES));
}

/// The next of the numbers that are shared out.
fn take(numbers: &Mutex<std::ops::Range<u16>>) -> Option<u16> {
    numbers.lock().expect("nobody panics with it").next()
}

/// Of the datagrams in one direction: how many were received, and the part that was lost.
fn received(said: &Value, sum: &str) -> (u64, f64) {
    let sum = &said["end"][sum];
    let figure = |name: &str| sum[name].as_f64().unwrap_or_else(|| panic!("no {name}: {said}"));
    let (packets, lost) = (figure("packets"), figure("lost_packets"));
    println!("{:.1} Mbit/s, {lost} of {packets} lost", figure("bits_per_second") / 1e6);
    ((packets - lost) as u64, lost / packets)
}

#[test]
fn iperf3_both_ways() {
    needs!("iperf3");
    const LOST_MAX: f64 = 0.01;
    let server = iperf3::start();
    // One number for its control connection and for its datagrams.
    let entrance = free_port([127, 0, 0, 2].into());
    let _tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}", server.address()), format!("DEST={}/udp", server.address())],
        &[format!("PORT={entrance},{entrance}/udp")],
    );
    // 2 s of 5 Mbit/s in datagrams of 1,200 bytes are 1,041. iperf3's own socket buffers some 90 of
    // them, which bounds how long it may wait for its processor.
    let rate = ["-b", "5M", "-l", "1200"];
    for way in [&[][..], &["-R"]] {
        let said = iperf3::datagrams(entrance, &[&rate[..], way].concat());
        let (count, lost) = received(&said, "sum");
        assert!(count > 1_000 && lost <= LOST_MAX, "{way:?}: {said}");
    }
    let said = iperf3::datagrams(entrance, &[&rate[..], &["--bidir"]].concat());
    for sum in ["sum", "sum_bidir_reverse"] {
        let (count, lost) = received(&said, sum);
        assert!(count > 1_000 && lost <= LOST_MAX, "{sum}: {said}");
    }
}

#[test]
fn logger_sends_to_a_syslog_receiver() {
    needs!("logger");
    const LINES: usize = 200;
    let (tell, heard) = mpsc::channel();
    let server = DatagramServer::start("127.0.0.1:0", move |_, datagram, _| {
        // There is no receiver when the test has failed.
        let _ = tell.send(String::from_utf8_lossy(datagram).into_owned());
    });
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}/udp", server.address())],
        &["PORT=127.0.0.1:0/udp"],
    );
    let dir = new_dir();
    let file = dir.path().join("lines");
    let line = |nth: usize| format!("line {nth} of many {}", "x".repeat(nth));
    std::fs::write(&file, (0..LINES).map(|nth| line(nth) + "\n").collect::<String>())
        .expect("written");
    let SocketAddr::V4(entrance) = tunnel.entrance() else { panic!("an IPv4 entrance") };
    run(Command::new(program("logger"))
        .args(["--udp", "--server", &entrance.ip().to_string()])
        .args(["--port", &entrance.port().to_string()])
        .args(["--tag", "sockmux", "--file"])
        .arg(&file));
    for nth in 0..LINES {
        let message = heard.recv_timeout(DEADLINE).expect("a message for each line");
        assert!(message.ends_with(&line(nth)) && message.contains("sockmux"), "{message}");
    }
    assert!(eventually(DEADLINE, || server.came() == LINES));
}

/// WireGuard in an implementation that needs only a device of the kernel. It uses the tunnel as the path
/// to its peer, whose device is in a network that cannot be reached otherwise.
#[test]
fn wireguard_between_two_networks() {
    needs!(Namespaces, Tun, "wireguard-go", "wg", "iperf3", "ip", "ping");
    network::enter_new(1500);
    let (here, mut there) = wireguard::pair();
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}/udp", there.listening())],
        &["PORT=127.0.0.1:0/udp"],
    );
    here.expects(&there, Some(tunnel.entrance()));
    there.expects(&here, None);
    here.bring_up();
    there.bring_up_elsewhere();

    let ping = |words: &[&str]| {
        let mut ping = Command::new(program("ping"));
        run(ping.args(["-c", "5", "-i", "0.2", "-w", "20"]).args(words).arg(there.inner_ip()))
    };
    // In packets of little and of as much as the device takes.
    for words in [&[][..], &["-M", "do", "-s", "1392"]] {
        let said = ping(words);
        assert!(said.contains(" 5 received"), "{said}");
    }
    let said = there.iperf3_from_here();
    let sum = &said["end"]["sum_received"];
    println!("TCP through WireGuard: {:.0} Mbit/s", sum["bits_per_second"].as_f64().unwrap() / 1e6);
    assert!(sum["bytes"].as_u64() > Some(1_000_000), "{said}");
}
