//! Clients that send datagrams, and a server that echoes them.

use fastrand::Rng;

use super::build::{DATAGRAM_ENTRANCE, DATAGRAM_SERVER, address, kernel};
use super::script::DatagramLoad;

/// A client: what it sends carries its number, and the datagram's.
#[derive(Debug)]
struct Client {
    socket: usize,
    sent: u8,
    /// By number.
    answered: Vec<bool>,
}

/// All clients, and the server.
#[derive(Debug)]
pub(super) struct DatagramActors {
    load: DatagramLoad,
    clients: Vec<Client>,
    server: usize,
    next_at: u64,
    /// Until when answers are waited for.
    ends_at: u64,
}

/// How long the last answers may take.
const LAST_MICROS: u64 = 500_000;

/// A datagram: the size varies, and all of it follows from the two numbers.
fn payload(client: u8, number: u8, bytes_max: u16) -> Vec<u8> {
    let mut rng = Rng::with_seed(u64::from(client) << 8 | u64::from(number));
    let mut bytes = vec![0; 2 + usize::from(rng.u16(..=bytes_max))];
    rng.fill(&mut bytes);
    (bytes[0], bytes[1]) = (client, number);
    bytes
}

impl DatagramActors {
    pub(super) fn new(load: DatagramLoad) -> DatagramActors {
        let clients = (0..load.clients).map(|_| Client {
            socket: kernel(|kernel| {
                kernel.datagram_actor("10.0.0.2:0".parse().expect("an address"))
            }),
            sent: 0,
            answered: vec![false; load.each.into()],
        });
        let ends_at = load.at + u64::from(load.each) * u64::from(load.every_micros) + LAST_MICROS;
        DatagramActors {
            load,
            clients: clients.collect(),
            server: kernel(|kernel| kernel.datagram_actor(address(DATAGRAM_SERVER))),
            next_at: load.at,
            ends_at,
        }
    }

    /// When it acts next; `None` when it is over.
    pub(super) fn next_at(&self) -> Option<u64> {
        (self.next_at <= self.ends_at).then_some(self.next_at)
    }

    /// Sends, echoes, and checks what is due.
    pub(super) fn step(&mut self, now: u64) -> Result<(), String> {
        if self.next_at().is_none_or(|at| at > now) {
            return Ok(());
        }
        self.next_at = now + u64::from(self.load.every_micros);
        kernel(|kernel| {
            while let Some((from, bytes)) = kernel.receive_datagram_as(self.server) {
                kernel.send_datagram_as(self.server, from, &bytes);
            }
        });
        for (at, client) in (0..).zip(&mut self.clients) {
            if client.sent < self.load.each {
                let bytes = payload(at, client.sent, self.load.bytes_max);
                client.sent += 1;
                let to = address(DATAGRAM_ENTRANCE);
                kernel(|kernel| kernel.send_datagram_as(client.socket, to, &bytes));
            }
            while let Some((from, bytes)) =
                kernel(|kernel| kernel.receive_datagram_as(client.socket))
            {
                if from != address(DATAGRAM_ENTRANCE) {
                    return Err(format!("client {at} got a datagram from {from}"));
                }
                check(&bytes, at, client, self.load)?;
            }
        }
        Ok(())
    }

    /// Datagrams sent, and those answered.
    pub(super) fn counts(&self) -> (u64, u64) {
        let sent = self.clients.iter().map(|client| u64::from(client.sent)).sum();
        let answered = self.clients.iter().flat_map(|client| &client.answered);
        (sent, answered.map(|&answered| u64::from(answered)).sum())
    }
}

/// An answer is whole, the client's own, and comes once.
fn check(bytes: &[u8], at: u8, client: &mut Client, load: DatagramLoad) -> Result<(), String> {
    let &[of, number, ..] = bytes else { return Err(format!("client {at} got {bytes:?}")) };
    if of != at || bytes != payload(at, number, load.bytes_max) {
        return Err(format!("client {at} got another datagram: {number} of {of}"));
    }
    let answered = client.answered.get_mut(usize::from(number));
    match answered.map(|answered| std::mem::replace(answered, true)) {
        Some(false) => Ok(()),
        _ => Err(format!("client {at} got datagram {number} twice")),
    }
}
