//! A process that comes to take over from the one under test, as the test has it: it says what it
//! likes, and may end at any point.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg,
    sendmsg,
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::DEADLINE;

/// What the first record has to be.
pub const HELLO: &[u8] = b"sockmux takeover \x01";

/// A record, and the descriptor that came with it.
pub type Record = (Vec<u8>, Option<OwnedFd>);

/// The connection.
pub struct Successor(Socket);

impl Successor {
    /// Connects, and says this.
    pub fn that_says(path: &Path, hello: &[u8]) -> Successor {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
        socket.connect(&SockAddr::unix(path).expect("a path")).expect("somebody listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        let successor = Successor(socket);
        successor.say(hello);
        successor
    }

    /// Sends a record.
    pub fn say(&self, record: &[u8]) {
        let mut nothing = SendAncillaryBuffer::default();
        let sent = sendmsg(&self.0, &[IoSlice::new(record)], &mut nothing, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(record.len()));
    }

    /// The next record; an empty one at the end.
    pub fn hear(&self) -> Record {
        let mut buffer = [0; 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags);
        let bytes = got.expect("a record in time, or the end").bytes;
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let fd = fds.next();
        (buffer[..bytes].to_vec(), fd)
    }

    /// The sockets that are handed over, without the one that successors come to.
    pub fn sockets(&self) -> Vec<OwnedFd> {
        let mut sockets = Vec::new();
        loop {
            match self.hear() {
                (record, Some(fd)) if record[0] == b'S' => sockets.push(fd),
                (record, Some(_)) if record == b"L" => {}
                (record, None) if record[0] == b'E' => return sockets,
                (record, _) => panic!("{}", String::from_utf8_lossy(&record)),
            }
        }
    }
}
