//! The handshake, by rustls. It is given whole records, one at a time, and what it wants to send is
//! taken from it; when it is done, its keys become [`Records`].

use std::fmt;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{CipherSuite, ClientConfig, ConnectionTrafficSecrets, Error, ServerConfig};

use super::record::Records;
use crate::limits::HANDSHAKE_BYTES_MAX;

/// A handshake that goes on.
pub struct Handshake {
    connection: Connection,
    /// Received, and not yet done with: a message may go on in the next record.
    incoming: Vec<u8>,
    /// Bytes received in all.
    taken_bytes: usize,
}

enum Connection {
    Dials(UnbufferedClientConnection),
    Accepts(UnbufferedServerConnection),
}

/// A handshake that is done.
#[derive(Debug)]
pub struct Established {
    /// What follows is sealed and opened by these.
    pub records: Records,
    /// The peer's certificate, which was verified, and those behind it.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The agreed protocol of the layer above.
    pub alpn: Option<Vec<u8>>,
    /// The agreed cipher.
    pub suite: CipherSuite,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.connection {
            Connection::Dials(_) => "dials",
            Connection::Accepts(_) => "accepts",
        };
        write!(f, "Handshake({side}, {} bytes received)", self.taken_bytes)
    }
}

impl Handshake {
    /// As the end that begins it. The first flight is appended to `output`.
    ///
    /// # Errors
    /// The configuration is contradictory.
    pub fn dial(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        output: &mut Vec<u8>,
    ) -> Result<Handshake, Error> {
        let connection = Connection::Dials(UnbufferedClientConnection::new(config, name)?);
        let mut handshake = Handshake { connection, incoming: Vec::new(), taken_bytes: 0 };
        handshake.advance(&[], output)?;
        Ok(handshake)
    }

    /// As the end that waits for it.
    ///
    /// # Errors
    /// The configuration is contradictory.
    pub fn accept(config: Arc<ServerConfig>) -> Result<Handshake, Error> {
        let connection = Connection::Accepts(UnbufferedServerConnection::new(config)?);
        Ok(Handshake { connection, incoming: Vec::new(), taken_bytes: 0 })
    }

    /// Takes one whole record, and appends to `output` what has to be sent, after an error as well.
    /// `true`: done, and the next record is one for [`Records`].
    ///
    /// # Errors
    /// The link has to end. The peer may have caused it, or refuse us.
    pub fn advance(&mut self, record: &[u8], output: &mut Vec<u8>) -> Result<bool, Error> {
        self.taken_bytes += record.len();
        if self.taken_bytes > HANDSHAKE_BYTES_MAX {
            return Err(Error::General(format!(
                "the peer's handshake has more than {HANDSHAKE_BYTES_MAX} bytes"
            )));
        }
        self.incoming.extend_from_slice(record);
        match &mut self.connection {
            Connection::Dials(connection) => drive(&mut **connection, &mut self.incoming, output),
            Connection::Accepts(connection) => drive(&mut **connection, &mut self.incoming, output),
        }
    }

    /// The keys, and who the peer is.
    ///
    /// # Errors
    /// It is not done.
    pub fn finish(self) -> Result<Established, Error> {
        if !self.incoming.is_empty() {
            return Err(Error::General(String::from("bytes behind the end of the handshake")));
        }
        let (certificates, alpn, suite) = match &self.connection {
            Connection::Dials(connection) => agreed(connection),
            Connection::Accepts(connection) => agreed(connection),
        };
        let (secrets, keys) = match self.connection {
            Connection::Dials(connection) => {
                let (secrets, keys) = connection.dangerous_into_kernel_connection()?;
                (secrets, KeySchedule::Dials(Box::new(keys)))
            }
            Connection::Accepts(connection) => {
                let (secrets, keys) = connection.dangerous_into_kernel_connection()?;
                (secrets, KeySchedule::Accepts(Box::new(keys)))
            }
        };
        let suite = suite.ok_or(Error::HandshakeNotComplete)?;
        let records =
            Records::new(secrets, keys).map_err(|error| Error::General(error.to_string()))?;
        Ok(Established { records, certificates, alpn, suite })
    }
}

type Agreed = (Vec<CertificateDer<'static>>, Option<Vec<u8>>, Option<CipherSuite>);

fn agreed<Data>(connection: &UnbufferedConnectionCommon<Data>) -> Agreed {
    let certificates = connection.peer_certificates().unwrap_or_default().to_vec();
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    (certificates, connection.alpn_protocol().map(<[u8]>::to_vec), suite)
}

/// What both kinds of connections do, though rustls has no common name for it.
trait Process {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether something waits to be encoded.
    fn has_output(&self) -> bool;
}

impl Process for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn has_output(&self) -> bool {
        self.wants_write()
    }
}

impl Process for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn has_output(&self) -> bool {
        self.wants_write()
    }
}

/// Goes on as far as what was received allows. `true`: done.
fn drive(
    connection: &mut impl Process,
    incoming: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> Result<bool, Error> {
    let mut failed = None;
    loop {
        let UnbufferedStatus { discard, state } = connection.process(incoming);
        let outcome = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, output)?;
                None
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::BlockedHandshake) => Some(Ok(false)),
            Ok(ConnectionState::WriteTraffic(_)) => Some(Ok(true)),
            Ok(_) => {
                let what = "the peer sent data, or an end, in the handshake";
                Some(Err(Error::General(what.to_owned())))
            }
            Err(error) => Some(Err(error)),
        };
        // Nothing else is taken away, since rustls refers to the rest by its place.
        incoming.drain(..discard);
        // What has failed is not tried again, which rustls does not expect; the alerts that it has caused
        // are behind it.
        match (failed.take(), outcome) {
            (None, None) => {}
            (Some(error), None) | (None, Some(Err(error))) if connection.has_output() => {
                failed = Some(error);
            }
            (Some(error), _) => return Err(error),
            (None, Some(result)) => return result,
        }
    }
}

/// Appends a record to what is to be sent.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, output: &mut Vec<u8>) -> Result<(), Error> {
    let start = output.len();
    loop {
        match data.encode(&mut output[start..]) {
            Ok(bytes) => {
                output.truncate(start + bytes);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needs)) => {
                output.resize(start + needs.required_size, 0);
            }
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}

/// Makes the keys that follow.
pub(super) enum KeySchedule {
    Dials(Box<KernelConnection<ClientConnectionData>>),
    Accepts(Box<KernelConnection<ServerConnectionData>>),
}

/// The number of the next record, and what it is sealed with.
type NextKey = Result<(u64, ConnectionTrafficSecrets), Error>;

impl KeySchedule {
    pub(super) fn next_sent(&mut self) -> NextKey {
        match self {
            KeySchedule::Dials(connection) => connection.update_tx_secret(),
            KeySchedule::Accepts(connection) => connection.update_tx_secret(),
        }
    }

    pub(super) fn next_received(&mut self) -> NextKey {
        match self {
            KeySchedule::Dials(connection) => connection.update_rx_secret(),
            KeySchedule::Accepts(connection) => connection.update_rx_secret(),
        }
    }
}
