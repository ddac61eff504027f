//! A file that is looked at beside the loop, by a thread of its own: a file system may hang, and then
//! nobody waits but who needs the look.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

/// Looks, one after another, when asked to. The thread starts with the first look and ends with this.
pub(crate) struct Lookout {
    look: Arc<dyn Fn() + Send + Sync>,
    /// Has room for one look that has not begun.
    asks: Option<SyncSender<()>>,
    asked: u64,
    ended: Arc<AtomicU64>,
    wake: UnixStream,
}

impl Lookout {
    /// `look` may take any time. `wake` gets a byte at the end of every look.
    pub(crate) fn new(look: Arc<dyn Fn() + Send + Sync>, wake: UnixStream) -> Lookout {
        Lookout { look, asks: None, asked: 0, ended: Arc::default(), wake }
    }

    /// Asks for a look that begins after this, and returns its number. Who asks before it has begun
    /// shares it.
    pub(crate) fn ask(&mut self) -> io::Result<u64> {
        let asks = match &self.asks {
            Some(asks) => asks,
            None => self.asks.insert(self.start()?),
        };
        match asks.try_send(()) {
            Ok(()) => self.asked += 1,
            Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                return Err(io::Error::other("the thread that looks at the file has ended"));
            }
        }
        Ok(self.asked)
    }

    /// The number of the last look that has ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    fn start(&self) -> io::Result<SyncSender<()>> {
        let (sender, receiver) = sync_channel(1);
        let (look, ended) = (Arc::clone(&self.look), Arc::clone(&self.ended));
        let mut wake = self.wake.try_clone()?;
        thread::Builder::new().name(String::from("lookout")).spawn(move || {
            while receiver.recv().is_ok() {
                look();
                ended.fetch_add(1, Ordering::Release);
                // The worker may be gone; then nobody waits.
                let _ = wake.write_all(b"r");
            }
        })?;
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_look_begins_after_it_was_asked_for_and_is_shared_until_then() {
        let (mut wait, wake) = UnixStream::pair().unwrap();
        let (begin, begun) = channel();
        let (end, ends) = channel();
        let ends = Mutex::new(ends);
        let look = move || {
            begin.send(()).unwrap();
            ends.lock().unwrap().recv().unwrap();
        };
        let mut lookout = Lookout::new(Arc::new(look), wake);
        assert_eq!(lookout.ask().unwrap(), 1);
        begun.recv().unwrap();
        // That one may have seen the file already. The next one has not begun, so it will do for all.
        assert_eq!([(); 3].map(|()| lookout.ask().unwrap()), [2, 2, 2]);
        assert_eq!(lookout.ended(), 0);
        for number in [1, 2] {
            end.send(()).unwrap();
            wait.read_exact(&mut [0]).unwrap();
            assert_eq!(lookout.ended(), number);
        }
        begun.recv().unwrap();
        assert_eq!(lookout.ask().unwrap(), 3);
        begun.recv().unwrap();
        end.send(()).unwrap();
        wait.read_exact(&mut [0]).unwrap();
        assert_eq!(lookout.ended(), 3);
    }
}
