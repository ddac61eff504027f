//! Exits that are proxies, with real clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::testkit::log::Log;
use crate::testkit::net::{Ended, check_echo, connect, connect_from, free_port, read_to_end_of};
use crate::testkit::pattern::Pattern;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::services::{self, nginx, pattern_file, program, run, sha256};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

in_both_protocols!(
    curl_through_every_proxy,
    a_large_upload_through_the_http_proxy,
    a_browsers_load_on_connections_that_are_kept,
    data_ahead_of_the_answer_arrives_and_ends_are_passed,
    a_telnet_client_is_asked_and_connected,
    a_hundred_half_open_ones_do_not_hurt_one_that_works,
    what_is_said_before_the_clients_name_is_known_is_kept,
);

/// Everything here runs on loopback, which has to be permitted.
const PERMIT: &str = "PERMIT=*:127.0.0.0/8,[::1]:*";

/// A tunnel with an entrance for each kind of proxy, as the manual's ninth example has it.
struct Proxies {
    tunnel: Tunnel,
    socks: SocketAddr,
    http: SocketAddr,
    telnet: SocketAddr,
}

impl Proxies {
    fn start(protocol: Protocol, words: &[&str]) -> Proxies {
        let entrances = [(); 3].map(|()| free_port(Ipv4Addr::new(127, 0, 0, 5)));
        let [socks, http, telnet] = entrances;
        let mut exits: Vec<String> = ["socks", "http", "telnet"]
            .iter()
            .zip(entrances)
            .map(|(proxy, at)| format!("SERVER={proxy},-in:-:-P{}", at.port()))
            .collect();
        exits.extend(words.iter().map(|&word| word.to_owned()));
        let tunnel = Tunnel::start(protocol, &exits, &[format!("PORT={socks},{http},{telnet}")]);
        for nth in 1..=3 {
            tunnel.connector.nth_address_of("entrance listening", nth);
        }
        Proxies { tunnel, socks, http, telnet }
    }
}

fn curl() -> Command {
    let mut curl = Command::new(program("curl"));
    // No proxy of the machine's own.
    curl.args(["-q", "-sS", "--noproxy", ""]);
    curl
}

/// A SOCKS 5 stream to a server, after its handshake.
fn socks(proxy: SocketAddr, server: SocketAddr) -> TcpStream {
    let mut stream = connect(proxy);
    let SocketAddr::V4(v4) = server else { panic!("an IPv4 server") };
    // All at once: the proxy has to keep the bytes behind the greeting.
    let mut said = vec![5, 1, 0, 5, 1, 0, 1];
    said.extend(v4.ip().octets());
    said.extend(v4.port().to_be_bytes());
    stream.write_all(&said).expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[..6], [5, 0, 5, 0, 0, 1], "{answer:?}");
    stream
}

fn curl_through_every_proxy(protocol: Protocol) {
    needs!("nginx", "openssl", "curl");
    const FILE_BYTES: u64 = 5_000_000;
    let (server, tls) = nginx::start_with_tls();
    let source = server.dir().join("www/file");
    pattern_file(&source, 90, FILE_BYTES);
    let (wanted, got) = (sha256(&source), server.dir().join("got"));
    let cert = server.dir().join("cert.pem");
    let proxies = Proxies::start(protocol, &[PERMIT]);
    let (socks, http) = (proxies.socks.to_string(), format!("http://{}", proxies.http));
    let by_address = format!("http://{}/file", server.address());
    let by_name = format!("http://localhost:{}/file", server.address().port());
    let by_tls = format!("https://localhost:{}/file", tls.port());
    for (option, proxy, url) in [
        ("--socks5-hostname", &socks, &by_name),
        ("--socks5-hostname", &socks, &by_tls),
        ("--socks5", &socks, &by_address),
        ("--socks4a", &socks, &by_name),
        ("--socks4", &socks, &by_address),
        ("-x", &http, &by_address),
        ("-x", &http, &by_name),
        ("-x", &http, &by_tls),
        // CONNECT where it is not needed.
        ("-px", &http, &by_name),
    ] {
        let mut curl = curl();
        curl.args(["--fail", option, proxy]).arg(url);
        run(curl.arg("--cacert").arg(&cert).arg("-o").arg(&got));
        assert_eq!(sha256(&got), wanted, "{option} {url}");
    }
}

#[test]
fn users_have_to_say_who_they_are() {
    needs!("nginx", "openssl", "curl");
    let (server, tls) = nginx::start_with_tls();
    std::fs::write(server.dir().join("www/file"), "for users").expect("written");
    let cert = server.dir().join("cert.pem");
    let users = server.dir().join("users");
    let lists =
        "AUTHORIZER=\"-list{me:secret,you:a:b}:socks,http\"\nAUTHORIZER=-list{web:word}:http\n";
    std::fs::write(&users, lists).expect("written");
    let proxies = Proxies::start(Protocol::V1, &[PERMIT, &format!("+={}", users.display())]);
    let socks = format!("socks5h://{}", proxies.socks);
    let old_socks = format!("socks4a://{}", proxies.socks);
    let http = format!("http://{}", proxies.http);
    let plain = format!("http://localhost:{}/file", server.address().port());
    let by_tls = format!("https://localhost:{}/file", tls.port());
    let ask = |proxy: &str, user: Option<&str>, words: &[&str]| {
        let mut curl = curl();
        curl.args(["--fail", "--max-time", "30", "-x", proxy, "--cacert"]).arg(&cert);
        if let Some(user) = user {
            curl.args(["--proxy-user", user]);
        }
        curl.args(words).output().expect("curl runs")
    };
    for (proxy, user, url) in [
        (&socks, "me:secret", &plain),
        (&socks, "you:a:b", &by_tls),
        (&http, "me:secret", &plain),
        (&http, "web:word", &plain),
        (&http, "you:a:b", &by_tls),
    ] {
        // The second request is on the same connection, where curl can have it so.
        let output = ask(proxy, Some(user), &[url, url]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, "for usersfor users", "{proxy} {user} {url}: {output:?}");
    }
    for (proxy, user, url, reason) in [
        (&socks, Some("me:wrong"), &plain, "user \"me\" refused"),
        (&socks, Some("web:word"), &plain, "user \"web\" refused"),
        (&socks, None, &plain, "without user and password is refused"),
        (&old_socks, Some("me:secret"), &plain, "SOCKS 4 is refused"),
        (&http, Some("you:wrong"), &plain, "user \"you\" refused"),
        (&http, Some("nobody:secret"), &by_tls, "user \"nobody\" refused"),
        (&http, None, &plain, "has to be told a user"),
        (&http, None, &by_tls, "has to be told a user"),
    ] {
        let output = ask(proxy, user, &[url, "-w", "%{http_code} %{http_connect}"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && !said.contains("for users"), "{user:?}: {output:?}");
        assert_eq!(said.contains("407"), *proxy == http, "{user:?}: {output:?}");
        proxies.tunnel.receptor.wait_for_event(reason, 1, |event| {
            event["reason"].as_str().is_some_and(|told| told.contains(reason))
        });
    }
    let log = proxies.tunnel.receptor.log_text();
    assert!(!["secret", "a:b", "wrong"].iter().any(|word| log.contains(word)), "{log}");
}

#[test]
fn one_connection_to_the_http_proxy_serves_several_hosts() {
    needs!("nginx", "openssl", "curl");
    let (server, _) = nginx::start_with_tls();
    for name in ["a", "b"] {
        std::fs::write(server.dir().join("www").join(name), name).expect("written");
    }
    let proxies = Proxies::start(Protocol::V1, &[PERMIT]);
    let (address, port) = (server.address(), server.address().port());
    let mut curl = curl();
    curl.args(["-x", &format!("http://{}", proxies.http), "-w", " %{http_code} %{num_connects}\n"]);
    let said = run(curl.args([
        format!("http://{address}/a"),
        format!("http://{address}/b"),
        format!("http://localhost:{port}/b"),
        format!("http://{address}/missing"),
        format!("http://{address}/a"),
    ]));
    let answers: Vec<&str> = said.lines().filter(|line| line.contains(" 200 ")).collect();
    assert_eq!(answers, ["a 200 1", "b 200 0", "b 200 0", "a 200 0"], "{said}");
    assert!(said.contains(" 404 0\n"), "{said}");
}

/// Asks for one file after the other, and counts the answers after which a connection is closed.
/// One that is closed without a word is an error that wrk counts itself.
const WRK_SCRIPT: &str = r#"
local sizes = { "small", "middle", "large" }
local asked = 0
closed = 0
function request()
    asked = asked + 1
    return wrk.format("GET", FILES .. sizes[asked % #sizes + 1])
end
function response(_, headers)
    if (headers["Connection"] or ""):lower() == "close" then closed = closed + 1 end
end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done(summary)
    for _, thread in ipairs(threads) do closed = closed + thread:get("closed") end
    print(("%d served, %d closed"):format(summary.requests, closed))
end
"#;

/// The load of fifty browsers at once.
fn a_browsers_load_on_connections_that_are_kept(protocol: Protocol) {
    needs!("wrk", "nginx");
    const CONNECTIONS: u64 = 50;
    let server = nginx::start();
    for (name, bytes) in [("small", 300), ("middle", 20_000), ("large", 150_000)] {
        pattern_file(&server.dir().join("www").join(name), 93, bytes);
    }
    let script = server.dir().join("browsers.lua");
    let (host, files) = (server.address(), format!("http://{}/", server.address()));
    let given = format!("wrk.headers[\"Host\"] = \"{host}\"\nlocal FILES = \"{files}\"\n");
    std::fs::write(&script, given + WRK_SCRIPT).expect("written");
    let proxies = Proxies::start(protocol, &[PERMIT]);
    let mut wrk = Command::new(program("wrk"));
    wrk.args(["-t1", "-d2s", &format!("-c{CONNECTIONS}"), "-s"]).arg(&script);
    let said = run(wrk.arg(format!("http://{}/", proxies.http)));
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let served = said.lines().find_map(|line| line.strip_suffix(" served, 0 closed"));
    let served: u64 = served.unwrap_or_else(|| panic!("{said}")).parse().expect("a figure");
    println!("{} requests a second", served / 2);
    assert!(served >= CONNECTIONS * 4, "{said}");
}

/// The upload is faster than the server: it waits, and nothing of it is refused or lost.
fn a_large_upload_through_the_http_proxy(protocol: Protocol) {
    needs!("curl");
    const BYTES: u64 = 30_000_000;
    let server = Server::start("127.0.0.1:0", |stream| {
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        Pattern::new(91).receive(&mut reader, BYTES)?;
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken")
    });
    let dir = services::new_dir();
    let file = dir.path().join("file");
    pattern_file(&file, 91, BYTES);
    let proxies = Proxies::start(protocol, &[PERMIT]);
    let mut curl = curl();
    curl.args(["-x", &format!("http://{}", proxies.http), "-H", "Expect:", "-T"]).arg(&file);
    assert_eq!(run(curl.arg(format!("http://{}/", server.address()))), "taken");
}

fn a_telnet_client_is_asked_and_connected(protocol: Protocol) {
    needs!("telnet");
    let server = Server::named("the one that was asked for");
    let proxies = Proxies::start(protocol, &[PERMIT]);
    let (host, port) = (proxies.telnet.ip().to_string(), proxies.telnet.port().to_string());
    let mut client = Command::new(program("telnet"))
        .args([&host, &port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("telnet starts");
    let mut keyboard = client.stdin.take().expect("a pipe");
    let log = Log::follow(client.stdout.take().expect("a pipe"));
    let sees = |text: &str| {
        assert!(eventually(DEADLINE, || log.text().contains(text)), "{text}:\n{}", log.text());
    };
    sees("Telnet proxy at");
    keyboard.write_all(b"no-such-host.invalid\n").expect("typed");
    sees("Cannot connect to no-such-host.invalid:23");
    writeln!(keyboard, "127.0.0.1 {}", server.address().port()).expect("typed");
    sees(&format!("-- Connected to 127.0.0.1:{}", server.address().port()));
    sees("the one that was asked for");
    keyboard.write_all(b"an echo\n").expect("typed");
    sees("an echo");
    client.kill().expect("it runs");
    client.wait().expect("it has ended");
}

#[test]
fn the_exits_own_machine_is_not_reached_unless_it_is_named() {
    needs!("curl");
    let server = Server::echo();
    for words in [&[][..], &["PERMIT=*:*:*"], &["PERMIT=*:[::1],127.0.0.9:*", "PERMIT=http:*:*"]] {
        let proxies = Proxies::start(Protocol::V1, words);
        let (address, port) = (server.address(), server.address().port());
        let http = format!("http://{}", proxies.http);
        for url in [format!("http://{address}/"), format!("http://localhost:{port}/")] {
            let mut curl = curl();
            curl.args(["-x", &http, "-w", "%{http_code}"]);
            let said = run(curl.arg(url));
            assert!(said.ends_with("403") && said.contains("loopback"), "{said}");
        }
        let mut stream = connect(proxies.socks);
        let mut request = vec![5, 1, 0, 5, 1, 0, 3, 9];
        request.extend(b"localhost");
        request.extend(port.to_be_bytes());
        stream.write_all(&request).expect("sent");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [5, 0, 5, 2], "not allowed by the ruleset");
        assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
        let reason = proxies.tunnel.receptor.wait_for_reason("not served by the proxy");
        assert!(reason.contains("is loopback, and no PERMIT= names it"), "{reason}");
    }
    // Our own ports are not even where their address is permitted with all others.
    let proxies = Proxies::start(Protocol::V1, &["PERMIT=*:0.0.0.0/0:*"]);
    let mut curl = curl();
    curl.args(["-x", &format!("http://{}", proxies.http), "-w", "%{http_code}"]);
    let said = run(curl.arg(format!("http://{}/", proxies.tunnel.address)));
    assert!(said.ends_with("403"), "{said}");
    assert_eq!(server.served(), 0);
}

#[test]
fn who_never_says_what_it_wants_is_not_waited_for() {
    let proxies = Proxies::start(Protocol::V1, &[PERMIT, "TIMEOUT=ask:2"]);
    let half = |proxy, said: &[u8]| {
        let mut stream = connect(proxy);
        stream.write_all(said).expect("sent");
        stream
    };
    let mut silent = half(proxies.socks, &[5]);
    // A byte now and then does not help.
    let mut slow = half(proxies.http, b"GET http://h/ HTTP/1.1\r\nX: ");
    slow.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
    let mut answer = Vec::new();
    let ended = eventually(DEADLINE, || {
        let mut buffer = [0; 4096];
        match slow.read(&mut buffer) {
            Ok(0) => return true,
            Ok(got) => answer.extend(&buffer[..got]),
            // The end may be there before this.
            Err(_) => drop(slow.write_all(b"x")),
        }
        false
    });
    let answer = String::from_utf8_lossy(&answer);
    assert!(ended && answer.starts_with("HTTP/1.1 408 "), "{answer}");
    read_to_end_of(&mut silent, DEADLINE);
    let mut typist = half(proxies.telnet, b"loc");
    let mut said = Vec::new();
    typist.read_to_end(&mut said).expect("its end");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("in time"), "{said}");
}

fn a_hundred_half_open_ones_do_not_hurt_one_that_works(protocol: Protocol) {
    let server = Server::echo();
    let mut proxies = Proxies::start(protocol, &[PERMIT]);
    let entrances = [proxies.socks, proxies.http, proxies.telnet];
    let half_open: Vec<TcpStream> = (0..102)
        .map(|nth| {
            let mut stream = connect(entrances[nth % 3]);
            let said: [&[u8]; 3] = [&[5, 1], b"GET http://127.0.0.1/ HT", b"127.0"];
            stream.write_all(said[nth % 3]).expect("sent");
            stream
        })
        .collect();
    for seed in 0..5 {
        check_echo(&socks(proxies.socks, server.address()), seed, 3 << 20);
    }
    // Nor do they hold up the end.
    proxies.tunnel.receptor.terminate();
    proxies.tunnel.receptor.wait_exit(DEADLINE);
    let stopped = proxies.tunnel.receptor.wait_for("stopped");
    assert_eq!(stopped["how"], "Drained", "{stopped}");
    for mut stream in half_open {
        read_to_end_of(&mut stream, DEADLINE);
    }
}

#[test]
fn bulk_behind_a_request_is_spliced() {
    const BYTES: u64 = 100 << 20;
    let server = Server::exchange();
    let mut proxies = Proxies::start(Protocol::V1, &[PERMIT, "SOXCONF=bulk:splice"]);
    let stream = socks(proxies.socks, server.address());
    let exchange = Exchange { seed: 7, up_bytes: BYTES, down_bytes: BYTES };
    exchange.ask(&stream);
    exchange.finish(&stream);
    drop(stream);
    for program in [&mut proxies.tunnel.connector, &mut proxies.tunnel.receptor] {
        program.terminate();
        program.wait_exit(DEADLINE);
    }
    let stopped = proxies.tunnel.receptor.wait_for("stopped");
    let from_local = stopped["spliced_from_local"].as_u64().expect("a count");
    assert!(from_local > BYTES / 2, "{stopped}");
}

/// A client that does not wait for the answer, and a server that ends first.
fn data_ahead_of_the_answer_arrives_and_ends_are_passed(protocol: Protocol) {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        Pattern::new(92).check(&said);
        write!(stream, "{} bytes", said.len())
    });
    const BYTES: usize = 500_000;
    let proxies = Proxies::start(protocol, &[PERMIT]);
    let mut stream = connect(proxies.socks);
    let mut said = vec![5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1];
    said.extend(server.address().port().to_be_bytes());
    Pattern::new(92).send(&mut said, BYTES as u64).expect("memory takes all");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut to = &stream;
            to.write_all(&said).expect("sent");
            stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
        });
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert_eq!(&answer[12..], format!("{BYTES} bytes").as_bytes());
}

/// `PERMIT=` that names clients: the conversation begins when the name is known, with all data of the
/// client until then.
fn what_is_said_before_the_clients_name_is_known_is_kept(protocol: Protocol) {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        stream.write_all(&said)
    });
    let proxies = Proxies::start(protocol, &["PERMIT=socks:127.0.0.0/8:*host"]);
    let mut request = vec![5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1];
    request.extend(server.address().port().to_be_bytes());
    request.extend(b"all");
    // 127.0.0.1 has a name, which is remembered; the other has none.
    for (client, answer) in [
        (Ipv4Addr::LOCALHOST, &[5, 0, 5, 0, 0, 1][..]),
        (Ipv4Addr::new(127, 0, 0, 77), &[5, 0, 5, 2, 0, 1]),
        (Ipv4Addr::LOCALHOST, &[5, 0, 5, 0, 0, 1]),
    ] {
        let mut stream = connect_from(&client.to_string(), proxies.socks).expect("a connection");
        stream.write_all(&request).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("all of it");
        assert_eq!(said[..6], *answer, "{client}");
        let rest = if answer[3] == 0 { &b"all"[..] } else { b"" };
        assert_eq!(&said[12..], rest, "{client}");
    }
}
