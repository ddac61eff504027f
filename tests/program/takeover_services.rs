//! `--takeover` below real programs.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::takeover::{Lineage, ends_in_order, ports};
use crate::testkit::services::{postgres, run};
use crate::testkit::skip::needs;

/// A `pgbench` that goes on until it is told to end.
struct Bench {
    child: Child,
    said: BufReader<ChildStderr>,
    /// What it said beside how far it is.
    errors: String,
}

impl Bench {
    fn start(entrance: SocketAddr, words: &[&str]) -> Bench {
        let mut bench = postgres::client("pgbench", entrance);
        bench.args(["-c", "5", "-T", "600", "--progress=1"]).args(words);
        bench.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = bench.spawn().expect("pgbench starts");
        let said = BufReader::new(child.stderr.take().expect("a pipe"));
        Bench { child, said, errors: String::new() }
    }

    /// Waits for the next second of which it tells.
    fn goes_on(&mut self) {
        loop {
            let mut line = String::new();
            let bytes = self.said.read_line(&mut line).expect("text");
            assert!(bytes > 0, "pgbench ended: {}", self.errors);
            if line.starts_with("progress: ") {
                return;
            }
            self.errors.push_str(&line);
        }
    }

    /// Its time is over: all that it has begun ends, and none of it has failed.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::ALARM).expect("it runs");
        let mut text = String::new();
        self.said.read_to_string(&mut self.errors).expect("text");
        self.child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        let all = format!("{text}{}", self.errors);
        assert!(self.child.wait().expect("a child").success(), "{all}");
        assert!(text.contains("number of failed transactions: 0 (0.000%)"), "{all}");
        let fine = ["progress: ", "pgbench (", "starting vacuum"];
        let is_fine = |line: &str| fine.iter().any(|begin| line.starts_with(begin));
        assert!(self.errors.lines().all(is_fine), "{all}");
    }
}

/// Both with a connection for each transaction, and with some that stay.
#[test]
fn pgbench_through_an_upgrade_of_either_end_fails_no_transaction() {
    needs!("postgres", "pgbench", "psql");
    let server = postgres::start();
    run(postgres::client("pgbench", server.address()).args(["-i", "-q", "-s", "1"]));
    let [link, entrance] = ports();
    let drain = "TIMEOUT=drain:60".to_owned();
    let exit = format!("DEST={}", server.address());
    let exits = Lineage::of(&[format!("-P{link}"), exit, drain.clone()]);
    let entrances =
        Lineage::of(&[format!("SERVER=sockmux://{link}"), format!("PORT={entrance}"), drain]);
    let receptor = exits.start_with(&[]);
    receptor.wait_for("receptor listening");
    let connector = entrances.start();
    connector.wait_for("tunnel up");

    let words = [&["-C", "-S", "-R", "100"][..], &["-R", "150"]];
    let mut all = words.map(|words| Bench::start(entrance, words));
    all.iter_mut().for_each(Bench::goes_on);
    let new_receptor = exits.start_with(&[]);
    new_receptor.wait_for("tunnel up");
    let new_connector = entrances.upgrade(&connector);
    new_receptor.wait_for_nth("tunnel up", 2);
    // One second has begun before that.
    all.iter_mut().for_each(Bench::goes_on);
    all.iter_mut().for_each(Bench::goes_on);
    all.into_iter().for_each(Bench::end);
    ends_in_order(receptor);
    ends_in_order(connector);
    drop((new_receptor, new_connector));
}
