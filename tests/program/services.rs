//! Real services, reached through the tunnel by their real clients.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::testkit::protocol::Protocol;
use crate::testkit::services::{
    self, nginx, pattern_file, postgres, program, redis, run, sha256, sshd,
};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;

/// The figure behind `label` in a client's output.
fn figure(said: &str, label: &str) -> f64 {
    let line = said.lines().find(|line| line.contains(label));
    let line = line.unwrap_or_else(|| panic!("no `{label}` in\n{said}"));
    let figure = line[line.find(label).expect("found above") + label.len()..]
        .split_whitespace()
        .find_map(|word| word.parse().ok());
    figure.unwrap_or_else(|| panic!("no figure in `{line}`"))
}

#[test]
fn postgresql_pgbench() {
    needs!("postgres", "pgbench", "psql");
    let server = postgres::start();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let entrance = tunnel.entrance();

    run(postgres::client("pgbench", entrance).args(["-i", "-q", "-s", "1"]));
    assert_eq!(postgres::sql(entrance, "SELECT count(*) FROM pgbench_accounts").trim(), "100000");

    let said = run(postgres::client("pgbench", entrance).args(["-S", "-c", "10", "-t", "500"]));
    assert_eq!(figure(&said, "number of failed transactions:"), 0.0, "{said}");
    assert!(said.contains("actually processed: 5000/5000"), "{said}");

    // With writes: the default script, whose balances have to add up afterwards.
    let said = run(postgres::client("pgbench", entrance).args(["-c", "4", "-t", "100"]));
    assert_eq!(figure(&said, "number of failed transactions:"), 0.0, "{said}");
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts)
                     = (SELECT sum(delta) FROM pgbench_history),
                       (SELECT count(*) FROM pgbench_history)";
    assert_eq!(postgres::sql(server.address(), sums).trim(), "t|400");
}

#[test]
fn postgresql_copy_out_and_in() {
    needs!("postgres", "psql");
    const COPIED_BYTES_MIN: u64 = 30_000_000;
    let server = postgres::start();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let (direct, entrance) = (server.address(), tunnel.entrance());
    let dir = services::new_dir();
    let path = |name: &str| dir.path().join(name);
    let copy = |address: SocketAddr, table: &str, to: &str, file: &Path| {
        postgres::sql(address, &format!("\\copy {table} {to} '{}'", file.display()));
    };

    postgres::sql(
        direct,
        "CREATE TABLE original AS SELECT i, repeat(md5(i::text), 32) AS filling
           FROM generate_series(1, 30000) AS i;
         CREATE TABLE copied (LIKE original)",
    );
    copy(direct, "original", "TO", &path("direct"));
    assert!(path("direct").metadata().expect("written").len() > COPIED_BYTES_MIN);

    copy(entrance, "original", "TO", &path("out"));
    assert_eq!(sha256(&path("out")), sha256(&path("direct")));

    copy(entrance, "copied", "FROM", &path("direct"));
    copy(direct, "copied", "TO", &path("in"));
    assert_eq!(sha256(&path("in")), sha256(&path("direct")));
}

#[test]
fn redis_benchmark_and_cli() {
    needs!("redis-cli", "redis-benchmark", "redis-server");
    let server = redis::start();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let entrance = tunnel.entrance();

    let cli = |words: &[&str]| run(redis::client("redis-cli", entrance).args(words));
    assert_eq!(cli(&["set", "greeting", "hello there"]).trim(), "OK");
    assert_eq!(cli(&["get", "greeting"]).trim(), "hello there");

    run(redis::client("redis-benchmark", entrance)
        .args(["-n", "5000", "-c", "50", "-t", "get,set", "-q"]));
    // With values too big for one packet, and many requests on their way at once.
    run(redis::client("redis-benchmark", entrance)
        .args(["-n", "2000", "-c", "20", "-P", "8", "-d", "50000", "-t", "get,set", "-q"]));
    // Counted by the server: no request was lost.
    let stats = run(redis::client("redis-cli", server.address()).args(["info", "commandstats"]));
    for command in ["cmdstat_set:calls=7001", "cmdstat_get:calls=7001"] {
        assert!(stats.contains(command), "no {command} in\n{stats}");
    }
}

#[test]
fn http_download() {
    needs!("curl", "nginx");
    const FILE_BYTES: u64 = 50_000_000;
    let server = nginx::start();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let source = server.dir().join("www/file");
    pattern_file(&source, 80, FILE_BYTES);

    let url = format!("http://{}/file", tunnel.entrance());
    let curl = || Command::new(program("curl"));
    let got = server.dir().join("got");
    run(curl().args(["-sS", "--fail", "-o"]).arg(&got).arg(&url));
    assert_eq!(sha256(&got), sha256(&source));

    // In four ranges at once, put together again.
    let parts: Vec<_> = (0..4).map(|part| server.dir().join(format!("part{part}"))).collect();
    std::thread::scope(|scope| {
        for (nth, part) in parts.iter().enumerate() {
            let quarter = FILE_BYTES / 4;
            let start = nth as u64 * quarter;
            let range = format!("{start}-{}", start + quarter - 1);
            let mut command = curl();
            command.args(["-sS", "--fail", "-r", &range, "-o"]).arg(part).arg(&url);
            scope.spawn(move || run(&mut command));
        }
    });
    let joined: Vec<u8> = parts.iter().flat_map(|p| std::fs::read(p).expect("written")).collect();
    assert!(joined == std::fs::read(&source).expect("written"), "the ranges differ");

    let missing = format!("http://{}/missing", tunnel.entrance());
    let said = run(curl().args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"]).arg(missing));
    assert_eq!(said, "404");
}

#[test]
fn ssh_and_scp() {
    needs!("ssh", "scp", "sshd");
    const FILE_BYTES: u64 = 20_000_000;
    let server = sshd::start();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let entrance = tunnel.entrance();
    let destination = sshd::destination(entrance);

    let said = run(sshd::client("ssh", &server, entrance).args([&destination, "echo through"]));
    assert_eq!(said, "through\n");

    let dir = services::new_dir();
    let (source, there, back) =
        (dir.path().join("source"), dir.path().join("there"), dir.path().join("back"));
    pattern_file(&source, 22, FILE_BYTES);
    let remote = format!("{destination}:{}", there.display());
    run(sshd::client("scp", &server, entrance).arg("-q").arg(&source).arg(&remote));
    assert_eq!(sha256(&there), sha256(&source));
    run(sshd::client("scp", &server, entrance).arg("-q").arg(&remote).arg(&back));
    assert_eq!(sha256(&back), sha256(&source));
}
