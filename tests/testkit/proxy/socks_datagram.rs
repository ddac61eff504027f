//! Any bytes as a datagram with the header of SOCKS. The parent module imports the parser.

use super::datagram::{DatagramTarget, HEADER_BYTES_MAX, read, write};

/// The reader does not panic, its header alone is read as the same, and an address that it reads is
/// written so that it is read as the same.
pub(crate) fn run(datagram: &[u8]) {
    let Ok((to, header_bytes)) = read(datagram) else { return };
    assert!(header_bytes <= HEADER_BYTES_MAX.min(datagram.len()));
    assert_eq!(read(&datagram[..header_bytes]), Ok((to, header_bytes)));
    match to {
        DatagramTarget::Address(address) => {
            assert_ne!(address.port(), 0);
            let mut header = Vec::new();
            write(address, &mut header);
            assert_eq!(read(&header), Ok((DatagramTarget::Address(address), header.len())));
        }
        DatagramTarget::Name(name, port) => assert!(port != 0 && (1..=255).contains(&name.len())),
    }
}
