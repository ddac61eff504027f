//! Two ends of a WireGuard session, by wireguard-go, in the network of the test: one stays there,
//! the other's device is put into a network where nothing else leads.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{new_dir, program, run};
use crate::testkit::{DEADLINE, eventually, net, network};

/// One end: a device, the process that serves it, its keys.
pub struct End {
    device: String,
    inner_ip: Ipv4Addr,
    listening: SocketAddr,
    dir: TempDir,
    children: Vec<Child>,
}

/// Both ends, which do not yet know of each other.
pub fn pair() -> (End, End) {
    let end = |letter, number| {
        // The processes' control sockets have their names from the devices, for all networks.
        let device = format!("smu{}{letter}", std::process::id());
        End::start(device, Ipv4Addr::new(10, 99, 0, number))
    };
    (end('a', 1), end('b', 2))
}

impl End {
    fn start(device: String, inner_ip: Ipv4Addr) -> End {
        let dir = new_dir();
        let server = Command::new(program("wireguard-go"))
            .args(["-f", &device])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("wireguard-go starts");
        let listening = net::free_port([127, 0, 0, 1].into());
        let end = End { device, inner_ip, listening, dir, children: vec![server] };
        let socket = format!("/var/run/wireguard/{}.sock", end.device);
        let up = eventually(DEADLINE, || Path::new(&socket).exists());
        assert!(up, "wireguard-go serves no device: is this root, and is there a /dev/net/tun?");
        let key = run(Command::new(program("wg")).arg("genkey"));
        std::fs::write(end.key_file(), key).expect("written");
        end
    }

    fn key_file(&self) -> std::path::PathBuf {
        self.dir.path().join("key")
    }

    fn public_key(&self) -> String {
        let file = std::fs::File::open(self.key_file()).expect("written at the start");
        let mut pubkey = Command::new(program("wg"));
        let said = pubkey.arg("pubkey").stdin(file).output().expect("wg runs");
        String::from_utf8(said.stdout).expect("text").trim().to_owned()
    }

    /// Where its datagrams come in.
    pub fn listening(&self) -> SocketAddr {
        self.listening
    }

    /// Its address within the session.
    pub fn inner_ip(&self) -> String {
        self.inner_ip.to_string()
    }

    /// Tells it of its peer, and where to find it unless the peer is to begin.
    pub fn expects(&self, peer: &End, at: Option<SocketAddr>) {
        let mut set = Command::new(program("wg"));
        set.args(["set", &self.device, "private-key"])
            .arg(self.key_file())
            .args(["listen-port", &self.listening.port().to_string()])
            .args(["peer", &peer.public_key(), "allowed-ips", &format!("{}/32", peer.inner_ip)]);
        if let Some(at) = at {
            set.args(["endpoint", &at.to_string()]);
        }
        run(&mut set);
    }

    /// Its device gets its address.
    pub fn bring_up(&self) {
        network::ip(&format!("addr add {}/24 dev {}", self.inner_ip, self.device));
        network::ip(&format!("link set {} up", self.device));
    }

    /// As [`End::bring_up`], in another new network.
    pub fn bring_up_elsewhere(&mut self) {
        // A network namespace lives as long as a process in it.
        let keeper = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .spawn()
            .expect("unshare of util-linux starts");
        let pid = keeper.id().to_string();
        self.children.push(keeper);
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("this thread has one");
        let left = || std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|its| its != own);
        assert!(eventually(DEADLINE, left), "no new network");
        network::ip(&format!("link set {} netns {pid}", self.device));
        let (address, device) = (format!("{}/24", self.inner_ip), self.device.clone());
        run(self.inside("ip").args(["addr", "add", &address, "dev", &device]));
        run(self.inside("ip").args(["link", "set", &device, "up"]));
    }

    /// A command in the network where its device is.
    fn inside(&self, name: &str) -> Command {
        let keeper = self.children.last().expect("a process there");
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &keeper.id().to_string(), name]);
        command
    }

    /// The report of iperf3 of two seconds of TCP from the test's network to the device's.
    pub fn iperf3_from_here(&mut self) -> Value {
        let server = self
            .inside("iperf3")
            .args(["-s", "-1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter of util-linux starts");
        // Not the last: that one is for finding the network.
        self.children.insert(0, server);
        let mut said = Value::Null;
        let answered = eventually(DEADLINE, || {
            let mut client = Command::new(program("iperf3"));
            // Its errors are in the JSON too: at first, that the server does not listen yet.
            let text = run(client.args(["-c", &self.inner_ip(), "-t", "2", "-J"]));
            said = serde_json::from_str(&text).expect("JSON, as asked for");
            said["error"].is_null()
        });
        assert!(answered, "{said}");
        said
    }
}

impl Drop for End {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Failing here is no news: it has just ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        // wireguard-go removes it only when it ends by itself.
        let _ = std::fs::remove_file(format!("/var/run/wireguard/{}.sock", self.device));
    }
}
