//! The TLS client of openssl, with keys that the program has made.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use super::keys::Keys;
use super::net::connect;
use super::services::find;

/// `openssl s_client` with this key, to be started; all its streams are pipes.
pub fn s_client(keys: &Keys, own: &str, address: SocketAddr, words: &[&str]) -> Command {
    let openssl = find("openssl").expect("it is needed");
    let (key, certificate) = (keys.path(own), keys.path(&format!("{own}.pem")));
    let made = Command::new(&openssl)
        .args(["req", "-x509", "-subj", "/CN=spoke", "-key"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut client = Command::new(&openssl);
    client
        .args(["s_client", "-tls1_3", "-connect", &address.to_string()])
        .args(words)
        .arg("-key")
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    client
}

/// A connection to a receptor whose bytes go there inside TLS, as of a spoke with this key.
pub fn connect_inside_tls(keys: &Keys, own: &str, address: SocketAddr) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let near = connect(listener.local_addr().expect("an address"));
    let (far, _) = listener.accept().expect("a connection");
    let input = far.try_clone().expect("a descriptor");
    let words = ["-alpn", "sockmux", "-quiet", "-no_ign_eof"];
    let mut client = s_client(keys, own, address, &words);
    client.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(far)).stderr(Stdio::null());
    let mut client = client.spawn().expect("openssl starts");
    // It ends with the connection, at whichever end that ends.
    std::thread::spawn(move || client.wait());
    near
}
