//! dnsmasq as a name server for names of the test's own.

use std::net::Ipv4Addr;
use std::process::Command;

use super::{Service, free_address, new_dir, program};

/// Starts a server that knows the addresses of these names, and forwards no queries for others. It can
/// also be reached as `localhost`.
pub fn start(names: impl Iterator<Item = (String, Ipv4Addr)>) -> Service {
    let dir = new_dir();
    let address = free_address();
    let mut conf = format!(
        "port={}\nlisten-address={},127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\npid-file\n",
        address.port(),
        address.ip()
    );
    for (name, ip) in names {
        conf += &format!("address=/{name}/{ip}\n");
    }
    let conf_path = dir.path().join("dnsmasq.conf");
    std::fs::write(&conf_path, conf).expect("written");
    let mut server = Command::new(program("dnsmasq"));
    server
        .args(["--keep-in-foreground", "--log-facility=-"])
        .arg(format!("--conf-file={}", conf_path.display()));
    Service::start("dnsmasq", server, address, dir)
}
