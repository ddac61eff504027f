//! PostgreSQL with a cluster of its own.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{Service, free_address, new_dir, program, run};

/// Starts a server with an empty database `postgres`, superuser `postgres`, no passwords.
pub fn start() -> Service {
    let dir = new_dir();
    let owner = owner_of(dir.path());
    let data = dir.path().join("data");
    run(unprivileged(&program("initdb"), owner)
        .args(["--auth=trust", "--username=postgres", "--no-sync", "--no-locale", "-E", "UTF8"])
        .arg("-D")
        .arg(&data));
    let address = free_address();
    let mut server = unprivileged(&program("postgres"), owner);
    server
        .arg("-D")
        .arg(&data)
        .args(["-c", &format!("listen_addresses={}", address.ip())])
        .args(["-c", &format!("port={}", address.port())])
        // Nothing has to survive a power cut, and no other cluster may be in the way.
        .args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "synchronous_commit=off"])
        .args(["-c", "max_wal_size=2GB", "-c", "log_min_messages=error"]);
    let service = Service::start("postgres", server, address, dir);
    // The port accepts a little before the database answers.
    let ready = crate::testkit::eventually(crate::testkit::DEADLINE, || {
        let mut ready = client("pg_isready", address);
        ready.arg("-q").status().is_ok_and(|status| status.success())
    });
    assert!(ready, "postgres accepts but is never ready");
    service
}

/// A command of a client (`psql`, `pgbench`) for the server at `address`.
pub fn client(name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program(name));
    command
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-U", "postgres"])
        .env("PGSSLMODE", "disable")
        .env("PGDATABASE", "postgres")
        .env("PGCONNECT_TIMEOUT", "30");
    command
}

/// Runs SQL with `psql`, and returns its output; any error fails.
pub fn sql(address: SocketAddr, sql: &str) -> String {
    run(client("psql", address).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]))
}

/// PostgreSQL refuses to run as root: then the directory is given to the user `postgres`, and
/// the server runs as that user.
fn owner_of(dir: &Path) -> Option<(u32, u32)> {
    if std::fs::metadata(dir).expect("just made").uid() != 0 {
        return None;
    }
    let id = |flag: &str| -> u32 {
        let said = run(Command::new("id").args([flag, "postgres"]));
        said.trim().parse().expect("a number")
    };
    let owner = (id("-u"), id("-g"));
    chown(dir, Some(owner.0), Some(owner.1)).expect("root may give files away");
    Some(owner)
}

fn unprivileged(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // Root's working directory may be closed to that user.
    command.current_dir("/");
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}
