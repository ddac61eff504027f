//! nginx that gives out the files of its directory `www`.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::{Service, free_address, new_certificate, new_dir, program};

/// Starts a server with an empty `www`.
pub fn start() -> Service {
    start_with("", "off")
}

/// The same for clients behind PROXY headers only. The file `access.log` of its directory has the contents
/// of the headers: client, client's port, server, server's port.
pub fn start_behind_headers() -> Service {
    start_with("proxy_protocol", "access.log said")
}

fn start_with(listening: &str, log: &str) -> Service {
    start_in(new_dir(), free_address(), listening, log, "")
}

/// In this directory. `listening` is appended to the address; `log` is the file and format of the log;
/// `more` has further directives of the server.
fn start_in(dir: TempDir, address: SocketAddr, listening: &str, log: &str, more: &str) -> Service {
    let path = dir.path().display();
    std::fs::create_dir(dir.path().join("www")).expect("a new directory");
    // One process, as the user of the test, so that no files have to be given to another user.
    let conf = format!(
        "daemon off;
master_process off;
pid {path}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    log_format said '$proxy_protocol_addr $proxy_protocol_port '
        '$proxy_protocol_server_addr $proxy_protocol_server_port';
    access_log {log};
    sendfile on;
    client_body_temp_path {path}/body;
    proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi;
    scgi_temp_path {path}/scgi;
    server {{
        listen {address} {listening};
        root {path}/www;
        {more}
    }}
}}
"
    );
    let conf_path = dir.path().join("nginx.conf");
    std::fs::write(&conf_path, conf).expect("written");
    let mut server = Command::new(program("nginx"));
    // Before it has read the configuration, nginx opens a log at its built-in place, unless `-e` sets
    // another.
    server.args(["-e", "stderr", "-p"]).arg(dir.path()).arg("-c").arg(&conf_path);
    Service::start("nginx", server, address, dir)
}

/// Starts a server as [`start`] does, which can also be reached as `localhost`, and by TLS at the
/// second address. Its self-signed certificate for `localhost` is `cert.pem` in its directory.
pub fn start_with_tls() -> (Service, SocketAddr) {
    let dir = new_dir();
    let (address, tls) = (free_address(), free_address());
    let path = dir.path().display();
    new_certificate(dir.path());
    let (port, tls_port) = (address.port(), tls.port());
    let more = format!(
        "listen 127.0.0.1:{port};
        listen {tls} ssl;
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {path}/cert.pem;
        ssl_certificate_key {path}/key.pem;"
    );
    (start_in(dir, address, "", "off", &more), tls)
}
