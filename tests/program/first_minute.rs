//! README.md's first example, typed as it stands there: two hosts, each in a clean directory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::testkit::net::free_port;
use crate::testkit::program::{Program, command};
use crate::testkit::services::{new_dir, postgres, program};
use crate::testkit::skip::needs;

const HEADING: &str = "## Two hosts, encrypted, in a minute";

/// For everything behind the build, on a machine that other tests use too.
const DEADLINE: Duration = Duration::from_secs(90);

/// The lines that are typed below the heading, each with its host.
fn typed() -> Vec<(char, String)> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let readme = readme.expect("README.md");
    let section = readme.split(HEADING).nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let line = |line: &str| match line.split_once("$ ") {
        Some(("X", typed)) => Some(('X', typed.to_owned())),
        Some(("Y", typed)) => Some(('Y', typed.to_owned())),
        _ => None,
    };
    section.lines().filter_map(line).collect()
}

/// What stands in README.md for something of the reader's own.
struct Own {
    link_port: u16,
    entrance_port: u16,
    server: SocketAddr,
    fingerprints: [Option<String>; 2],
}

impl Own {
    fn put_into(&self, line: &str) -> String {
        let mut line = line
            .replace("127.0.0.1:5432", &self.server.to_string())
            .replace("15432", &self.entrance_port.to_string())
            .replace(":9000", &format!(":{}", self.link_port))
            .replace("hostX", "127.0.0.1");
        for (host, fingerprint) in ["X", "Y"].iter().zip(&self.fingerprints) {
            let placeholder = format!("SHA256:fingerprint-of-{host}");
            match fingerprint {
                Some(fingerprint) => line = line.replace(&placeholder, fingerprint),
                None => assert!(!line.contains(&placeholder), "{line}: not known yet"),
            }
        }
        line
    }
}

/// Types `sockmux-uring keygen` in the folder; gives what it prints.
fn keygen(folder: &TempDir, line: &str) -> String {
    let words = line.split_whitespace().skip(1);
    let made = command().args(words).current_dir(folder).output().expect("the binary starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).expect("text").trim_end().to_owned()
}

/// Types a line with `sockmux-uring` in the folder, and leaves it running.
fn start(folder: &TempDir, line: &str) -> Program {
    let words: Vec<_> = line.split_whitespace().skip(1).collect();
    Program::start_after(&format!("cd '{}'", folder.path().display()), &words)
}

#[test]
fn two_hosts_are_encrypted_in_a_minute() {
    needs!("postgres", "psql");
    let server = postgres::start();
    let [link_port, entrance_port] = [(); 2].map(|()| free_port(Ipv4Addr::LOCALHOST).port());
    let folders = [new_dir(), new_dir()];
    let mut own =
        Own { link_port, entrance_port, server: server.address(), fingerprints: [None, None] };
    let (mut running, mut answers) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for (host, line) in typed() {
        let place = usize::from(host == 'Y');
        let line = own.put_into(&line);
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["sockmux-uring", "keygen", ..] => {
                own.fingerprints[place] = Some(keygen(&folders[place], &line));
            }
            ["sockmux-uring", ..] => {
                let program = start(&folders[place], &line);
                if host == 'X' {
                    program.wait_for("receptor listening");
                }
                running.push(program);
            }
            ["psql", ref words @ ..] => answers.push(ask(words)),
            _ => panic!("README.md: {line} is not understood here"),
        }
    }
    assert_eq!(answers, ["42"], "the client is served");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    let [x, y] = &running[..] else { panic!("README.md: a receptor and a connector") };
    for (program, place) in [(x, 0), (y, 1)] {
        let [own_key, peer] = [place, 1 - place].map(|end: usize| own.fingerprints[end].clone());
        let event = program.wait_for("persistent connection encrypted");
        assert_eq!(event["own_key"].as_str(), own_key.as_deref(), "{event}");
        let event = program.wait_for("tunnel up");
        assert_eq!(event["peer_key"].as_str(), peer.as_deref(), "{event}");
    }
}

/// The answer of the server to a question.
fn ask(words: &[&str]) -> String {
    let mut client = Command::new(program("psql"));
    client.args(words).args(["-X", "-A", "-t", "-c", "SELECT 6 * 7"]);
    client.envs([("PGUSER", "postgres"), ("PGDATABASE", "postgres"), ("PGSSLMODE", "disable")]);
    let answer = client.stdin(Stdio::null()).output().expect("psql starts");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
}
