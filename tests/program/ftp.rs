//! FTP through the tunnel as people use it: real clients and a real server, which believe that
//! they talk with each other.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::testkit::net::{connect, refused};
use crate::testkit::protocol::Protocol;
use crate::testkit::services::vsftpd::{Ftpd, USER};
use crate::testkit::services::{
    new_dir, open_ports, output_of, pattern_file, program, run, sha256,
};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

const FILE_BYTES: u64 = 20_000_000;

const ENTRANCE: &str = "PORT=127.0.0.1:0";

/// At the clients' end: their own machine may be called, which is this one.
const PERMIT: &str = "PERMIT=ftp:127.0.0.1:*";

/// The words of `curl` for each kind of data connection.
const WAYS: [&[&str]; 4] = [&[], &["--disable-epsv"], &["-P", "-"], &["-P", "-", "--disable-eprt"]];

/// A server, a tunnel to it, and a directory for its clients.
struct Ftp {
    server: Ftpd,
    tunnel: Tunnel,
    dir: TempDir,
}

impl Ftp {
    fn start() -> Ftp {
        Ftp::start_with(Protocol::V1, &[ENTRANCE, PERMIT])
    }

    /// With these words at the clients' end.
    fn start_with(protocol: Protocol, entrance: &[&str]) -> Ftp {
        let server = Ftpd::start();
        let exit = format!("SERVER=ftp://{},-in", server.address());
        Ftp { tunnel: Tunnel::start(protocol, &[exit], entrance), server, dir: new_dir() }
    }

    /// A file that the server has.
    fn given(&self, name: &str, seed: u64) -> String {
        let path = self.server.files().join(name);
        pattern_file(&path, seed, FILE_BYTES);
        sha256(&path)
    }

    /// A file that a client has.
    fn own(&self, name: &str, seed: u64) -> String {
        let path = self.path(name);
        pattern_file(&path, seed, FILE_BYTES);
        sha256(&path)
    }

    /// Where a client's file is.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `curl` for this path of the server.
    fn curl(&self, path: &str) -> Command {
        curl(USER, self.server.password(), self.tunnel.entrance(), path)
    }

    fn control(&self) -> Control {
        let mut control = Control::of(self.tunnel.entrance());
        control.log_in(USER, self.server.password());
        control
    }

    /// Waits until neither end listens where it did not before anyone came.
    fn check_no_port_is_left(&self) {
        for program in [&self.tunnel.connector, &self.tunnel.receptor] {
            let closed = eventually(DEADLINE, || open_ports(program.pid(), "-t") == 1);
            assert!(closed, "{} ports are open", open_ports(program.pid(), "-t"));
        }
    }
}

fn curl(user: &str, password: &str, at: SocketAddr, path: &str) -> Command {
    let user: String = user.replace('@', "%40").replace(':', "%3A");
    let mut curl = Command::new(program("curl"));
    curl.args(["-q", "-sS", "--noproxy", "*"]);
    curl.arg(format!("ftp://{user}:{password}@{at}/{path}"));
    curl
}

/// A client's control connection, typed by hand.
struct Control(BufReader<TcpStream>);

impl Control {
    /// Connected, and greeted.
    fn of(entrance: SocketAddr) -> Control {
        let mut control = Control(BufReader::new(connect(entrance)));
        let greeting = control.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
        control
    }

    fn log_in(&mut self, user: &str, password: &str) {
        self.says(&format!("USER {user}"), "331 ");
        self.says(&format!("PASS {password}"), "230 ");
        self.says("TYPE I", "200 ");
    }

    /// A reply: its last line, behind those before it.
    fn reply(&mut self) -> String {
        let mut said = String::new();
        loop {
            let from = said.len();
            let got = self.0.read_line(&mut said).expect("a line");
            assert!(got > 0, "it ended: {said}");
            let line = &said.as_bytes()[from..];
            if line.len() > 3 && line[..3].iter().all(u8::is_ascii_digit) && line[3] == b' ' {
                return said;
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.0.get_ref().write_all(format!("{command}\r\n").as_bytes()).expect("sent");
        self.reply()
    }

    /// Asks, and panics unless the answer begins so.
    fn says(&mut self, command: &str, wanted: &str) -> String {
        let said = self.ask(command);
        assert!(said.starts_with(wanted), "{command}: {said}");
        said
    }

    /// Asks for a port at the entrance's host.
    fn passive(&mut self) -> SocketAddr {
        let said = self.says("EPSV", "229 ");
        let port = said.split('|').nth(3).expect("a port").parse().expect("a number");
        SocketAddr::new(self.0.get_ref().peer_addr().expect("connected").ip(), port)
    }
}

#[test]
fn curl_gets_and_puts_in_every_way() {
    needs!("vsftpd", "curl", "ss");
    let ftp = Ftp::start();
    let (given, own) = (ftp.given("given", 101), ftp.own("own", 102));
    for (nth, way) in WAYS.iter().enumerate() {
        let got = ftp.path("got");
        run(ftp.curl("given").args(*way).arg("-o").arg(&got));
        assert_eq!(sha256(&got), given, "{way:?}");
        run(ftp.curl(&format!("taken/{nth}")).args(*way).arg("-T").arg(ftp.path("own")));
        assert_eq!(sha256(&ftp.server.taken().join(nth.to_string())), own, "{way:?}");
        let listed = run(ftp.curl("").args(*way));
        assert!(listed.lines().any(|line| line.ends_with(" given")), "{way:?}: {listed}");
    }
    ftp.check_no_port_is_left();
}

/// The server's addresses are of IPv4, the client's of IPv6: each is sent those of its own family.
#[test]
fn a_client_of_ipv6_meets_a_server_of_ipv4() {
    needs!("vsftpd", "curl", "ss");
    let ftp = Ftp::start_with(Protocol::V1, &["PORT=[::1]:0", "PERMIT=ftp:[::1]:*"]);
    let given = ftp.given("given", 103);
    for way in WAYS {
        let got = ftp.path("got");
        run(ftp.curl("given").args(way).arg("-o").arg(&got));
        assert_eq!(sha256(&got), given, "{way:?}");
        fs::remove_file(&got).expect("it is there");
    }
    ftp.check_no_port_is_left();
}

#[test]
fn curl_continues_where_it_was_and_meets_what_is_not_there() {
    needs!("vsftpd", "curl", "ss");
    let ftp = Ftp::start();
    let given = ftp.given("given", 103);
    let got = ftp.path("got");
    let whole = fs::read(ftp.server.files().join("given")).expect("written");
    fs::write(&got, &whole[..7_000_001]).expect("written");
    run(ftp.curl("given").args(["-C", "-", "-o"]).arg(&got));
    assert_eq!(sha256(&got), given);
    for way in WAYS {
        let output = output_of(ftp.curl("missing").args(way));
        assert_eq!(output.status.code(), Some(78), "no such file: {output:?}");
    }
    ftp.check_no_port_is_left();
}

/// `lftp` with these commands, and a home of its own.
fn lftp(ftp: &Ftp, settings: &str, commands: &str) -> String {
    let at = ftp.tunnel.entrance();
    let script = format!(
        "set cmd:fail-exit yes; set net:max-retries 2; set net:timeout 30; {settings};
        open -u {USER},{password} -p {port} {ip}; {commands}",
        password = ftp.server.password(),
        port = at.port(),
        ip = at.ip(),
    );
    let mut lftp = Command::new(program("lftp"));
    lftp.env("HOME", ftp.dir.path()).env("LFTP_HOME", ftp.path(".lftp"));
    run(lftp.current_dir(ftp.dir.path()).args(["--norc", "-c", &script]))
}

fn check_same_tree(one: &Path, other: &Path) {
    run(Command::new(program("diff")).arg("-r").arg(one).arg(other));
}

#[test]
fn lftp_gets_puts_and_mirrors() {
    needs!("vsftpd", "ss", "lftp", "diff");
    let ftp = Ftp::start();
    let (given, own) = (ftp.given("given", 104), ftp.own("own", 105));
    for tree in [ftp.server.files().join("tree"), ftp.path("tree")] {
        for dir in ["a", "b", "b/c"] {
            fs::create_dir_all(tree.join(dir)).expect("new directories");
            for nth in 0..8 {
                pattern_file(&tree.join(dir).join(format!("{nth}")), nth, nth * 3_000);
            }
        }
    }
    for (name, settings) in [
        ("passive", "set ftp:passive-mode on"),
        ("epsv", "set ftp:passive-mode on; set ftp:prefer-epsv on"),
        ("active", "set ftp:passive-mode off"),
    ] {
        let listed = lftp(
            &ftp,
            settings,
            &format!(
                "cls -1; get given -o got-{name}; put own -o taken/{name};
                mirror --parallel=3 tree tree-{name};
                mirror --reverse --parallel=3 tree taken/tree-{name}"
            ),
        );
        assert!(listed.lines().any(|line| line == "given"), "{listed}");
        assert_eq!(sha256(&ftp.path(&format!("got-{name}"))), given, "{name}");
        assert_eq!(sha256(&ftp.server.taken().join(name)), own, "{name}");
        let tree = format!("tree-{name}");
        check_same_tree(&ftp.server.files().join("tree"), &ftp.path(&tree));
        check_same_tree(&ftp.path("tree"), &ftp.server.taken().join(&tree));
    }
    ftp.check_no_port_is_left();
}

#[test]
fn clients_do_not_get_each_others_files() {
    needs!("vsftpd", "curl", "ss");
    let ftp = Ftp::start();
    std::thread::scope(|scope| {
        for (nth, way) in WAYS.iter().enumerate() {
            let ftp = &ftp;
            scope.spawn(move || {
                let name = format!("of-{nth}");
                let given = ftp.given(&name, 110 + nth as u64);
                for _ in 0..2 {
                    run(ftp.curl(&name).args(*way).arg("-o").arg(ftp.path(&name)));
                    assert_eq!(sha256(&ftp.path(&name)), given, "{way:?}");
                }
            });
        }
    });
    ftp.check_no_port_is_left();
}

/// The server supports it, but encrypted addresses cannot be rewritten.
#[test]
fn tls_is_refused_in_so_many_words() {
    needs!("curl", "vsftpd");
    let ftp = Ftp::start();
    fs::write(ftp.server.files().join("given"), "given").expect("written");
    let direct = Command::new(program("curl"))
        .args(["-q", "-sS", "-k", "--noproxy", "*", "--ssl-reqd", "--user"])
        .arg(format!("{USER}:{}", ftp.server.password()))
        .arg(format!("ftp://{}/given", ftp.server.address()))
        .output()
        .expect("curl starts");
    assert_eq!(String::from_utf8_lossy(&direct.stdout), "given", "{direct:?}");

    assert_eq!(run(ftp.curl("given").args(["-k", "--ssl"])), "given");
    let output = output_of(ftp.curl("given").args(["-k", "--ssl-reqd"]));
    assert_eq!(output.status.code(), Some(64), "the level of TLS failed: {output:?}");
    let mut control = ftp.control();
    let said = control.says("AUTH TLS", "5");
    assert!(said.contains("data connections"), "{said}");
    let said = control.says("FEAT", "211");
    for feature in ["AUTH", "PBSZ", "PROT"] {
        assert!(!said.contains(feature), "{said}");
    }
    assert!(said.contains("EPSV"), "{said}");
}

#[test]
fn a_port_is_for_one_connection_of_its_client() {
    needs!("ss", "vsftpd");
    let ftp = Ftp::start();
    fs::write(ftp.server.files().join("given"), "given").expect("written");
    let mut control = ftp.control();
    let port = control.passive();
    refused("127.0.0.2", port);
    let mut data = connect(port);
    control.says("RETR given", "150 ");
    let mut got = String::new();
    data.read_to_string(&mut got).expect("its end");
    let end = control.reply();
    assert!(got == "given" && end.starts_with("226 "), "{got}, {end}");
    ftp.check_no_port_is_left();
    let again = TcpStream::connect(port).expect_err("it is closed");
    assert_eq!(again.kind(), ErrorKind::ConnectionRefused);

    // One that was opened in vain goes with the next, the last with its client.
    let ports = [control.passive(), control.passive()];
    assert_ne!(ports[0], ports[1]);
    assert!(eventually(DEADLINE, || open_ports(ftp.tunnel.connector.pid(), "-t") == 2));
    control.says("QUIT", "221 ");
    ftp.check_no_port_is_left();
}

/// A server cannot be directed to another host by it (RFC 2577), nor to a service of the client's.
#[test]
fn only_the_clients_own_host_is_called() {
    needs!("vsftpd", "curl", "ss");
    let ftp = Ftp::start();
    let mut control = ftp.control();
    for command in
        ["PORT 127,0,0,2,100,0", "EPRT |1|127.0.0.2|25600|", "EPRT |1|127.0.0.1|1023|", "PORT 1,2"]
    {
        control.says(command, "50");
    }
    control.says("PORT 127,0,0,1,100,0", "200 ");

    // Without a word of the operator at their end, clients on the tunnel's machine are not called.
    let ftp = Ftp::start_with(Protocol::V1, &[ENTRANCE]);
    fs::write(ftp.server.files().join("given"), "given").expect("written");
    // It waits for a minute else.
    let output = output_of(ftp.curl("given").args(["-P", "-", "-m", "5"]));
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(run(&mut ftp.curl("given")), "given");
    ftp.check_no_port_is_left();
}

#[test]
fn a_peer_that_opens_no_ports_is_told_of() {
    needs!("vsftpd", "curl");
    let ftp = Ftp::start_with(Protocol::V03, &[ENTRANCE, PERMIT]);
    let mut control = ftp.control();
    for command in ["PASV", "EPSV", "PORT 127,0,0,1,100,0", "EPRT |1|127.0.0.1|25600|"] {
        let said = control.says(command, "425 ");
        assert!(said.contains("SockMux 1"), "{said}");
    }
    // Commands without a data connection work.
    control.says("MKD taken/new", "257 ");
    assert!(ftp.server.taken().join("new").is_dir());
    assert!(!output_of(ftp.curl("").args(["-P", "-", "-m", "5"])).status.success());
}

/// `USER name@host`, the traditional form for proxies of FTP.
#[test]
fn the_client_names_its_server() {
    needs!("vsftpd", "curl");
    let server = Ftpd::start();
    fs::write(server.files().join("given"), "given").expect("written");
    let exit = ["SERVER=ftp,-in", "PERMIT=ftp:127.0.0.3:*"];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &[ENTRANCE, PERMIT]);
    let user = format!("{USER}@{}", server.address());
    for way in WAYS {
        let mut curl = curl(&user, server.password(), tunnel.entrance(), "given");
        assert_eq!(run(curl.args(way)), "given", "{way:?}");
    }
    // Another host of this machine, which nothing permits.
    let mut control = Control::of(tunnel.entrance());
    let said = control.says(&format!("USER {USER}@127.0.0.4"), "421 ");
    assert!(said.contains("loopback"), "{said}");
}
