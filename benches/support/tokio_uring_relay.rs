//! The relay that a simple io_uring program gets: the tokio-uring package, two tasks for each
//! connection, each with one buffer that is received into and sent from. One hop.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::rc::Rc;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

/// The same as the epoll relay's.
const BUFFER_BYTES: usize = 256 << 10;

/// Listens on an ephemeral port of 127.0.0.1, passes the address to `ready`, and relays for ever.
pub(crate) fn run(target: SocketAddr, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    tokio_uring::start(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        ready(listener.local_addr()?);
        loop {
            let (client, _) = listener.accept().await?;
            tokio_uring::spawn(async move {
                // A connection that breaks ends for both sides by being closed.
                let _ = relay(client, target).await;
            });
        }
    })
}

async fn relay(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client, server) = (Rc::new(client), Rc::new(server));
    let up = tokio_uring::spawn(copy(Rc::clone(&client), Rc::clone(&server)));
    copy(server, client).await?;
    up.await?
}

async fn copy(from: Rc<TcpStream>, to: Rc<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (received, filled) = from.read(buffer).await;
        let received = received?;
        if received == 0 {
            return to.shutdown(Shutdown::Write);
        }
        let (sent, slice) = to.write_all(filled.slice(..received)).await;
        sent?;
        buffer = slice.into_inner();
    }
}
