//! Fuzz target: any bytes as the beginning of a connection with a PROXY header.

use sockmux_uring::cli::plan::ProxyHeader;
use sockmux_uring::limits::PROXY_HEADER_BYTES;
use sockmux_uring::proxy_proto::proxy_header::{Read, Said, read, write};

/// The reader does not panic, decides within its bound, keeps its decision when more bytes arrive,
/// and reads a header that was written for a client as that client. The first byte is the size of
/// the first piece.
pub(crate) fn run(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = read(bytes);
    let first = read(&bytes[..usize::from(cut).min(bytes.len())]);
    assert!(first == Ok(Read::More) || first == whole, "{first:?}, then {whole:?}");
    match whole {
        Ok(Read::More) => assert!(bytes.len() < PROXY_HEADER_BYTES),
        Ok(Read::Header { len_bytes, said }) => {
            assert!(len_bytes <= bytes.len());
            assert_eq!(read(&bytes[..len_bytes]), whole);
            assert_eq!(read(&bytes[..len_bytes - 1]), Ok(Read::More));
            if let Said::Client { source, destination } = said {
                check_written(source, destination);
            }
        }
        Err(_) => {}
    }
}

fn check_written(source: std::net::SocketAddr, destination: std::net::SocketAddr) {
    let known = !source.ip().is_unspecified() && !destination.ip().is_unspecified();
    for version in [ProxyHeader::V1, ProxyHeader::V2] {
        let header = write(version, Some(source), Some(destination));
        let Ok(Read::Header { len_bytes, said }) = read(&header) else {
            panic!("{source} and {destination} are written as {header:x?}");
        };
        assert_eq!(len_bytes, header.len());
        assert_eq!(matches!(said, Said::Client { .. }), known);
    }
}
