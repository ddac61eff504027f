//! TLS connections between one of our ends and one of rustls.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use rustls::{CipherSuite, ClientConnection, Connection, Error, ServerConnection};
use sockmux_uring::tls::handshake::{Established, Handshake};
use sockmux_uring::tls::record;

use super::choice::Choice;
use super::tls_keys::{client_config, name, server_config};

/// Both ends behind a handshake, and the bytes for our end that came with its end.
pub(crate) struct Ends {
    pub(crate) ours: Established,
    pub(crate) theirs: Connection,
    pub(crate) for_us: Vec<u8>,
}

/// What a connection of rustls wants to send.
pub(crate) fn take_output(theirs: &mut Connection, output: &mut Vec<u8>) {
    while theirs.wants_write() {
        theirs.write_tls(output).expect("a vector takes all");
    }
}

/// Gives bytes to a connection of rustls, in pieces, and returns what it reads of them.
///
/// # Errors
/// What it finds wrong.
pub(crate) fn feed(
    theirs: &mut Connection,
    mut bytes: &[u8],
    choice: &mut impl Choice,
) -> Result<Vec<u8>, Error> {
    let mut read = Vec::new();
    while !bytes.is_empty() {
        let piece_bytes = bytes.len() - choice.below(bytes.len() as u64) as usize;
        let mut piece = &bytes[..piece_bytes];
        while !piece.is_empty() {
            theirs.read_tls(&mut piece).expect("there is room");
            theirs.process_new_packets()?;
            match theirs.reader().read_to_end(&mut read) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        bytes = &bytes[piece_bytes..];
    }
    Ok(read)
}

/// A handshake to its end. `dials`: we begin it.
pub(crate) fn establish(dials: bool, suite: CipherSuite, choice: &mut impl Choice) -> Ends {
    let (mut output, mut for_us) = (Vec::new(), Vec::new());
    let (client, server) = (Arc::new(client_config(suite)), Arc::new(server_config(suite)));
    let (mut ours, mut theirs) = match dials {
        true => (
            Handshake::dial(client, name(), &mut output).expect("a configuration"),
            Connection::from(ServerConnection::new(server).expect("a configuration")),
        ),
        false => (
            Handshake::accept(server).expect("a configuration"),
            Connection::from(ClientConnection::new(client, name()).expect("a configuration")),
        ),
    };
    let mut is_done = false;
    while !is_done || theirs.is_handshaking() || !output.is_empty() {
        let read = feed(&mut theirs, &std::mem::take(&mut output), choice);
        assert_eq!(read, Ok(Vec::new()));
        take_output(&mut theirs, &mut for_us);
        let before = for_us.len();
        while !is_done
            && let Some(whole) = record::length(&for_us).expect("records")
            && whole <= for_us.len()
        {
            is_done = ours.advance(&for_us[..whole], &mut output).expect("a handshake");
            for_us.drain(..whole);
        }
        assert!(for_us.len() < before || !output.is_empty() || is_done, "it goes on");
    }
    theirs.set_buffer_limit(None);
    Ends { ours: ours.finish().expect("it is done"), theirs, for_us }
}
