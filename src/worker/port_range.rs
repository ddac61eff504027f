//! Selects the port numbers of forwarded ports, so that a firewall can be configured for them.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// A range of ports, used in rotation, so that a port just closed is not reused while others are
/// free.
#[derive(Debug, Default)]
pub(in crate::worker) struct PortRange {
    /// `None`: the kernel chooses.
    ports: Option<RangeInclusive<u16>>,
    /// Start of the next search.
    next: u16,
}

impl PortRange {
    pub(in crate::worker) fn new(ports: Option<RangeInclusive<u16>>) -> PortRange {
        let next = ports.as_ref().map_or(0, |ports| *ports.start());
        PortRange { ports, next }
    }

    /// Opens a port at the address of `own`, whose port is ignored.
    ///
    /// # Errors
    /// That of `open`, except that a port is in use; or all ports are in use.
    pub(in crate::worker) fn open<T>(
        &mut self,
        mut own: SocketAddr,
        mut open: impl FnMut(SocketAddr) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(ports) = &self.ports else {
            own.set_port(0);
            return open(own);
        };
        for port in (self.next..=*ports.end()).chain(*ports.start()..self.next) {
            own.set_port(port);
            match open(own) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
                Ok(opened) => {
                    self.next = if port == *ports.end() { *ports.start() } else { port + 1 };
                    return Ok(opened);
                }
            }
        }
        let (first, last) = (ports.start(), ports.end());
        let why = format!("all ports of SOXCONF=ports:{first}-{last} are in use");
        Err(io::Error::new(io::ErrorKind::AddrInUse, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn own() -> SocketAddr {
        "127.0.0.1:9".parse().unwrap()
    }

    /// Opens a port while `used` are in use.
    fn open(range: &mut PortRange, used: &mut HashSet<u16>) -> Result<u16, String> {
        let opened = range.open(own(), |at| match used.insert(at.port()) {
            true => Ok(at.port()),
            false => Err(io::Error::from(io::ErrorKind::AddrInUse)),
        });
        opened.map_err(|error| error.to_string())
    }

    #[test]
    fn ports_are_used_in_turn() {
        for (first, last) in [(2_000, 2_002), (65_533, 65_535)] {
            let mut range = PortRange::new(Some(first..=last));
            let mut used = HashSet::new();
            assert_eq!(open(&mut range, &mut used), Ok(first));
            used.clear();
            assert_eq!(open(&mut range, &mut used), Ok(first + 1));
            assert_eq!(open(&mut range, &mut used), Ok(last));
            assert_eq!(open(&mut range, &mut used), Ok(first));
            let why = open(&mut range, &mut used).unwrap_err();
            assert_eq!(why, format!("all ports of SOXCONF=ports:{first}-{last} are in use"));
            used.remove(&last);
            assert_eq!(open(&mut range, &mut used), Ok(last));
        }
    }

    #[test]
    fn without_a_range_the_kernel_chooses() {
        let mut range = PortRange::new(None);
        assert_eq!(range.open(own(), |at| Ok(at.port())).unwrap(), 0);
    }

    #[test]
    fn what_else_is_wrong_is_said_at_once() {
        let mut range = PortRange::new(Some(2_000..=2_009));
        let mut tries = 0;
        let error = range
            .open(own(), |_| -> io::Result<()> {
                tries += 1;
                Err(io::Error::from(io::ErrorKind::AddrNotAvailable))
            })
            .unwrap_err();
        assert_eq!((error.kind(), tries), (io::ErrorKind::AddrNotAvailable, 1));
    }
}
