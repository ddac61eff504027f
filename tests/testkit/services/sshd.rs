//! The OpenSSH server, with keys made for one test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Service, free_address, new_dir, program, run};

/// Where the server wants an empty directory of root's; the system's own service makes it at its
/// start, which has not happened everywhere.
const PRIVILEGE_SEPARATION_DIR: &str = "/run/sshd";

/// Starts a server that admits the user of the test, with the key `client_key`.
pub fn start() -> Service {
    let dir = new_dir();
    let address = free_address();
    let path = dir.path().display();
    for key in ["host_key", "client_key"] {
        run(Command::new(program("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.path().join(key)));
    }
    if user() == "root" && !Path::new(PRIVILEGE_SEPARATION_DIR).exists() {
        std::fs::create_dir_all(PRIVILEGE_SEPARATION_DIR).expect("root may make it");
    }
    let conf = format!(
        "ListenAddress {address}
HostKey {path}/host_key
AuthorizedKeysFile {path}/client_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
LogLevel INFO
Subsystem sftp internal-sftp
"
    );
    let conf_path = dir.path().join("sshd_config");
    std::fs::write(&conf_path, conf).expect("written");
    // sshd runs itself again for each connection and wants its full path for that.
    let mut server = Command::new(program("sshd"));
    server.args(["-D", "-e", "-f"]).arg(&conf_path);
    Service::start("sshd", server, address, dir)
}

/// A command of a client (`ssh`, `scp`) for `service`, reached at `port` of 127.0.0.1. The
/// destination is [`destination`].
pub fn client(name: &str, service: &Service, through: SocketAddr) -> Command {
    let mut command = Command::new(program(name));
    let known_hosts = service.dir().join("known_hosts");
    let host_key = std::fs::read_to_string(service.dir().join("host_key.pub")).expect("made");
    let line = format!("[{}]:{} {host_key}", through.ip(), through.port());
    std::fs::write(&known_hosts, line).expect("written");
    command
        .args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
        .args(["-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=30"])
        .args(["-o", &format!("UserKnownHostsFile={}", known_hosts.display())])
        .args(["-o", &format!("Port={}", through.port())])
        .arg("-i")
        .arg(service.dir().join("client_key"));
    command
}

/// `user@host` for a client that goes through `through`.
pub fn destination(through: SocketAddr) -> String {
    format!("{}@{}", user(), through.ip())
}

/// The name of the user of the test.
fn user() -> String {
    run(Command::new("id").arg("-un")).trim().to_owned()
}
