//! Pages of README.md and `docs/`, typed as they stand there: two hosts, each in a clean directory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::testkit::net::free_port;
use crate::testkit::program::{Program, command};
use crate::testkit::services::{dnsmasq, new_dir, postgres, program};
use crate::testkit::skip::needs;

const HOSTS: [&str; 2] = ["X", "Y"];

/// For everything behind the build, on a machine that other tests use too.
const DEADLINE: Duration = Duration::from_secs(90);

/// The lines that are typed in this part of a page, each with the number of its host.
fn typed(page: &str, heading: &str) -> Vec<(usize, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page));
    let text = text.unwrap_or_else(|error| panic!("{page}: {error}"));
    let part = match heading {
        "" => &*text,
        _ => {
            let behind = text.split(heading).nth(1).expect("the part");
            behind.split("\n## ").next().expect("its text")
        }
    };
    let line = |line: &str| {
        let (prompt, typed) = line.split_once("$ ")?;
        let host = HOSTS.iter().position(|host| *host == prompt)?;
        Some((host, typed.to_owned()))
    };
    part.lines().filter_map(line).collect()
}

/// What stands in a page for something of the reader's own.
struct Own {
    /// What is written, and what it is here; what begins like another one comes before it.
    places: Vec<(&'static str, String)>,
    fingerprints: [Option<String>; 2],
}

impl Own {
    /// With an entrance and a server, as they are written in the page.
    fn new(entrance: &'static str, server: &'static str, address: SocketAddr) -> Own {
        let [link_port, entrance_port] = [(); 2].map(|()| free_port(Ipv4Addr::LOCALHOST).port());
        let places = vec![
            (entrance, entrance_port.to_string()),
            (server, address.to_string()),
            (":9000", format!(":{link_port}")),
            ("hostX", "127.0.0.1".to_owned()),
        ];
        Own { places, fingerprints: [None, None] }
    }

    fn put_into(&self, line: &str) -> String {
        // In two steps, so that nothing is found in what was put in.
        let tokens = ["\u{1}", "\u{2}", "\u{3}", "\u{4}"];
        let mut line = line.to_owned();
        for ((written, _), token) in self.places.iter().zip(tokens) {
            line = line.replace(written, token);
        }
        for ((_, here), token) in self.places.iter().zip(tokens) {
            line = line.replace(token, here);
        }
        for (host, fingerprint) in HOSTS.iter().zip(&self.fingerprints) {
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

/// Types the lines; gives the programs that run then, and what clients printed.
fn type_all(
    lines: Vec<(usize, String)>,
    mut own: Own,
    ask: impl Fn(&[&str]) -> String,
) -> (Vec<Program>, Vec<String>) {
    let folders = [new_dir(), new_dir()];
    if !lines.iter().any(|(_, line)| line.contains("keygen")) {
        // The page says where it is told how.
        own.fingerprints = [0, 1].map(|host| Some(keygen(&folders[host], "sockmux-uring keygen")));
    }
    let (mut running, mut answers) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for (host, line) in lines {
        let line = own.put_into(&line);
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["sockmux-uring", "keygen", ..] => {
                own.fingerprints[host] = Some(keygen(&folders[host], &line));
            }
            ["sockmux-uring", ..] => {
                let program = start(&folders[host], &line);
                if host == 0 {
                    program.wait_for("receptor listening");
                }
                running.push(program);
            }
            ref words => {
                // Nobody types as fast, and datagrams are dropped while no tunnel is up.
                running.last().expect("a connector").wait_for("tunnel up");
                answers.push(ask(words));
            }
        }
    }
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    let [x, y] = &running[..] else { panic!("a receptor and a connector") };
    for (program, place) in [(x, 0), (y, 1)] {
        let [own_key, peer] = [place, 1 - place].map(|end: usize| own.fingerprints[end].clone());
        let event = program.wait_for("persistent connection encrypted");
        assert_eq!(event["own_key"].as_str(), own_key.as_deref(), "{event}");
        let event = program.wait_for("tunnel up");
        assert_eq!(event["peer_key"].as_str(), peer.as_deref(), "{event}");
    }
    (running, answers)
}

fn reach_postgres(page: &str, heading: &str) {
    needs!("postgres", "psql");
    let server = postgres::start();
    let own = Own::new("15432", "127.0.0.1:5432", server.address());
    let (_running, answers) = type_all(typed(page, heading), own, ask_postgres);
    assert_eq!(answers, ["42"], "the client is served");
}

#[test]
fn two_hosts_are_encrypted_in_a_minute() {
    reach_postgres("README.md", "## Two hosts, encrypted, in a minute");
}

#[test]
fn the_tutorial_leads_to_a_server() {
    reach_postgres("docs/tutorial.md", "");
}

#[test]
fn postgres_is_reached_as_its_page_says() {
    reach_postgres("docs/howto/postgresql.md", "");
}

#[test]
fn a_name_server_is_asked_as_its_page_says() {
    needs!("dnsmasq", "dig");
    let names = [("www.example.test".to_owned(), Ipv4Addr::new(192, 0, 2, 7))];
    let server = dnsmasq::start(names.into_iter());
    let own = Own::new("5353", "127.0.0.1:53", server.address());
    let ask = |words: &[&str]| {
        let ["dig", words @ ..] = words else { panic!("{words:?} is not understood here") };
        answer(Command::new(program("dig")).args(words).arg("+short"))
    };
    let (_running, answers) = type_all(typed("docs/howto/dns.md", ""), own, ask);
    assert_eq!(answers, ["192.0.2.7", "192.0.2.7"], "by UDP and by TCP");
}

/// The answer of the server to a question.
fn ask_postgres(words: &[&str]) -> String {
    let ["psql", words @ ..] = words else { panic!("{words:?} is not understood here") };
    let mut client = Command::new(program("psql"));
    client.args(words).args(["-X", "-A", "-t", "-c", "SELECT 6 * 7"]);
    client.envs([("PGUSER", "postgres"), ("PGDATABASE", "postgres"), ("PGSSLMODE", "disable")]);
    answer(&mut client)
}

fn answer(client: &mut Command) -> String {
    let answer = client.stdin(Stdio::null()).output().expect("the client starts");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
}
